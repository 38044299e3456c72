//! What a piece of work took, and what several rounds of it and of its limit come to.

use std::time::{Duration, Instant};

/// What one round took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sample {
    /// How long each operation took, on average, in nanoseconds.
    pub(crate) mean: f64,
    /// Where each was timed by itself.
    pub(crate) latency: Option<Latency>,
}

/// Nanoseconds that half of the operations took at most, and that 99 in 100 did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Sample {
    /// Of `count` operations that were not timed one by one.
    pub(crate) fn of_all(count: u64, elapsed: Duration) -> Self {
        assert!(count > 0, "nothing was measured");
        Self {
            // A clock that stood still must not make a rate infinite.
            mean: nanos(elapsed).max(1.0) / count as f64,
            latency: None,
        }
    }

    /// Of operations that took `latencies`, and all together `elapsed`.
    pub(crate) fn of_each(mut latencies: Vec<Duration>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        let at = |percent: usize| nanos(latencies[(latencies.len() - 1) * percent / 100]).max(1.0);
        Self {
            latency: Some(Latency {
                p50: at(50),
                p99: at(99),
            }),
            ..Self::of_all(latencies.len() as u64, elapsed)
        }
    }

    pub(crate) fn per_second(&self) -> f64 {
        1e9 / self.mean
    }

    /// The medians of several rounds, figure by figure.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let latencies: Vec<Latency> = rounds.iter().filter_map(|round| round.latency).collect();
        let latency = (!latencies.is_empty()).then(|| Latency {
            p50: median(latencies.iter().map(|latency| latency.p50)),
            p99: median(latencies.iter().map(|latency| latency.p99)),
        });
        Self {
            mean: median(rounds.iter().map(|round| round.mean)),
            latency,
        }
    }

    /// How long half of the operations took at most, or else all of them on average.
    pub(crate) fn typical(&self) -> f64 {
        self.latency.map_or(self.mean, |latency| latency.p50)
    }
}

/// Does `once` again and again until `slice` is over or it was done `most` times, at least once, and
/// times each.
pub(crate) fn each_for(
    slice: Duration,
    most: usize,
    mut once: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let (started, mut latencies) = (Instant::now(), Vec::new());
    loop {
        let before = Instant::now();
        once()?;
        latencies.push(before.elapsed());
        let elapsed = started.elapsed();
        if elapsed >= slice || latencies.len() >= most {
            return Ok(Sample::of_each(latencies, elapsed));
        }
    }
}

/// Does `some`, which returns how many operations it was, again and again until `slice` is over,
/// at least once.
pub(crate) fn all_for(
    slice: Duration,
    mut some: impl FnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<Sample> {
    let (started, mut count) = (Instant::now(), 0);
    loop {
        count += some()?;
        let elapsed = started.elapsed();
        if elapsed >= slice {
            return Ok(Sample::of_all(count, elapsed));
        }
    }
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        micros.into_iter().map(Duration::from_micros).collect()
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_latencies() {
        let sample = Sample::of_each(micros((1..=101).rev()), Duration::from_millis(101));
        let latency = sample.latency.unwrap();
        assert_eq!(latency.p50.round(), 51_000.0);
        assert_eq!(latency.p99.round(), 100_000.0);
        assert_eq!(sample.per_second().round(), 1000.0);

        let one = Sample::of_each(micros([7]), Duration::from_micros(7));
        assert_eq!(one.latency.unwrap().p99.round(), 7_000.0);
    }

    #[test]
    fn the_median_of_rounds_passes_by_the_odd_one_out() {
        let round = |millis| Sample::of_all(1000, Duration::from_millis(millis));
        let median = Sample::median(&[round(1), round(900), round(2)]);
        assert_eq!(median.per_second().round(), 500_000.0);
        assert_eq!(median.latency, None);
        assert_eq!(
            Sample::median(&[round(1), round(3)]).mean.round(),
            round(2).mean.round()
        );
    }

    #[test]
    fn something_is_measured_however_short_the_time() {
        let mut calls = 0;
        let sample = each_for(Duration::ZERO, 10, || {
            calls += 1;
            Ok(())
        });
        assert!(sample.unwrap().per_second().is_finite());
        assert!(all_for(Duration::ZERO, || Ok(3)).unwrap().mean > 0.0);
        assert_eq!(calls, 1);
    }

    #[test]
    fn what_takes_space_ends_after_so_many_times_however_long_the_time() {
        let mut calls = 0;
        each_for(Duration::MAX, 10, || {
            calls += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(calls, 10);
        assert!(each_for(Duration::MAX, 10, || anyhow::bail!("failed")).is_err());
    }
}
