//! The answer to one question: how Dacapo did and how its limit did, as a sentence and as JSON.

use std::time::Duration;

use indicatif::HumanCount;
use serde::Serialize;

use super::measure::Sample;
use crate::figures;

/// A question, and what is compared for it.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    /// Its name in JSON, which stays.
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    /// What the limit does, to end the sentence with.
    pub(crate) limit: &'static str,
    pub(crate) compares: Compares,
}

/// What the ratio is one of.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compares {
    /// Operations a second, Dacapo's by the limit's: more is better.
    Rates,
    /// The median time of one operation, Dacapo's by the limit's: less is better.
    Times,
}

pub(crate) struct Answer {
    question: Question,
    dacapo: Vec<Sample>,
    limit: Vec<Sample>,
}

/// Rounds that differ by so much say more of the machine than of the disk.
const NOISY: f64 = 2.0;

impl Answer {
    /// Of as many rounds of the one as of the other, and at least one.
    pub(crate) fn new(question: Question, dacapo: Vec<Sample>, limit: Vec<Sample>) -> Self {
        assert_eq!(dacapo.len(), limit.len());
        Self {
            question,
            dacapo,
            limit,
        }
    }

    /// Dacapo's medians.
    pub(crate) fn dacapo(&self) -> Sample {
        Sample::median(&self.dacapo)
    }

    /// The limit's medians.
    pub(crate) fn limit(&self) -> Sample {
        Sample::median(&self.limit)
    }

    fn ratio(&self) -> f64 {
        match self.question.compares {
            Compares::Rates => self.dacapo().per_second() / self.limit().per_second(),
            Compares::Times => self.dacapo().typical() / self.limit().typical(),
        }
    }

    pub(crate) fn key(&self) -> &'static str {
        self.question.key
    }

    /// Whether the limit itself, which is the same work each time, took very different times.
    pub(crate) fn is_noisy(&self) -> bool {
        let times = || self.limit.iter().map(Sample::typical);
        times().fold(0.0, f64::max) > NOISY * times().fold(f64::INFINITY, f64::min)
    }

    /// "append, 100 B", and what is behind it.
    pub(crate) fn title(&self) -> &'static str {
        self.question.title
    }

    /// "24,100,000/s", or "9.1 µs, p99 31.2 µs".
    pub(crate) fn figure(&self) -> String {
        figure(&self.dacapo(), self.question.compares)
    }

    /// "0.65 of what …: 37,100,000/s".
    pub(crate) fn meaning(&self) -> String {
        let (ratio, what) = (ratio(self.ratio()), self.question.limit);
        let link = match self.question.compares {
            Compares::Rates if self.ratio() > 1.0 => "times",
            Compares::Rates => "of",
            Compares::Times => "times",
        };
        let limit = figure(&self.limit(), self.question.compares);
        format!("{ratio} {link} {what}: {limit}")
    }

    pub(crate) fn object(&self) -> Object {
        Object {
            question: self.question.key,
            compares: self.question.compares,
            dacapo: FiguresObject::new(&self.dacapo()),
            limit: FiguresObject::new(&self.limit()),
            ratio: round(self.ratio(), 1000.0),
            rounds: self.dacapo.len(),
            noisy: self.is_noisy(),
            says: format!("{}: {}, {}", self.title(), self.figure(), self.meaning()),
        }
    }
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
pub(crate) struct Object {
    question: &'static str,
    compares: Compares,
    dacapo: FiguresObject,
    limit: FiguresObject,
    ratio: f64,
    rounds: usize,
    noisy: bool,
    says: String,
}

#[derive(Serialize)]
struct FiguresObject {
    per_second: f64,
    p50_micros: Option<f64>,
    p99_micros: Option<f64>,
}

impl FiguresObject {
    fn new(sample: &Sample) -> Self {
        let micros = |nanos: f64| round(nanos / 1000.0, 1000.0);
        Self {
            per_second: round(sample.per_second(), 1000.0),
            p50_micros: sample.latency.map(|latency| micros(latency.p50)),
            p99_micros: sample.latency.map(|latency| micros(latency.p99)),
        }
    }
}

fn figure(sample: &Sample, compares: Compares) -> String {
    match (compares, sample.latency) {
        (Compares::Times, Some(latency)) => {
            format!("{}, p99 {}", time(latency.p50), time(latency.p99))
        }
        _ => rate(sample),
    }
}

/// "8,900/s", to three digits.
pub(crate) fn rate(sample: &Sample) -> String {
    const COUNT: u64 = 1_000_000;
    let elapsed = Duration::from_secs_f64(sample.mean * COUNT as f64 / 1e9);
    format!("{}/s", HumanCount(figures::per_second(COUNT, elapsed)))
}

/// "9.1 µs", "107 µs", "2.1 ms".
pub(crate) fn time(nanos: f64) -> String {
    if nanos < 99_950.0 {
        return format!("{:.1} µs", nanos / 1000.0);
    }
    figures::duration(Duration::from_secs_f64(nanos / 1e9))
}

/// Two digits behind the point, and of a large one fewer.
fn ratio(ratio: f64) -> String {
    match ratio {
        ..9.995 => format!("{ratio:.2}"),
        ..99.95 => format!("{ratio:.1}"),
        _ => format!("{ratio:.0}"),
    }
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(compares: Compares) -> Question {
        Question {
            key: "key",
            title: "title",
            limit: "the limit",
            compares,
        }
    }

    fn each(micros: u64) -> Sample {
        let taken = Duration::from_micros(micros);
        Sample::of_each(vec![taken], taken)
    }

    #[test]
    fn a_rate_is_a_part_of_the_limit_or_a_multiple_of_it() {
        let all = |micros| Sample::of_all(1000, Duration::from_micros(micros));
        let of = |dacapo, limit| {
            Answer::new(
                question(Compares::Rates),
                vec![all(dacapo)],
                vec![all(limit)],
            )
        };
        assert_eq!(of(200, 100).figure(), "5,000,000/s");
        assert_eq!(of(200, 100).meaning(), "0.50 of the limit: 10,000,000/s");
        assert_eq!(of(100, 540).meaning(), "5.40 times the limit: 1,850,000/s");
    }

    #[test]
    fn a_time_is_a_multiple_of_the_limits() {
        let answer = Answer::new(question(Compares::Times), vec![each(120)], vec![each(96)]);
        assert_eq!(answer.figure(), "120 µs, p99 120 µs");
        assert_eq!(
            answer.meaning(),
            "1.25 times the limit: 96.0 µs, p99 96.0 µs"
        );
        assert_eq!(answer.object().ratio, 1.25);
        assert_eq!(answer.object().limit.p50_micros, Some(96.0));
    }

    #[test]
    fn only_a_limit_that_varies_much_is_noise() {
        let of = |dacapo: [u64; 2], limit: [u64; 2]| {
            let (dacapo, limit) = (dacapo.map(each).into(), limit.map(each).into());
            Answer::new(question(Compares::Times), dacapo, limit)
        };
        assert!(!of([1, 100], [10, 15]).is_noisy());
        assert!(of([10, 10], [10, 25]).is_noisy());
    }

    #[test]
    fn ratios_keep_the_digits_that_mean_something() {
        assert_eq!(ratio(0.6549), "0.65");
        assert_eq!(ratio(1.0), "1.00");
        assert_eq!(ratio(12.34), "12.3");
        assert_eq!(ratio(1234.5), "1234");
    }
}
