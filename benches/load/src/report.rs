//! What was measured, for people and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// One figure of one server.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

impl Figure {
    pub(crate) fn new(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { name, value, unit }
    }
}

/// How many in a second.
pub(crate) fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Latencies in microseconds, up to ten minutes, at three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order")
}

/// The middle, and what one in a hundred exceeds.
pub(crate) fn percentiles(latencies: &Histogram<u64>) -> [Figure; 2] {
    let millis = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    [
        Figure::new("p50", millis(0.5), "ms"),
        Figure::new("p99", millis(0.99), "ms"),
    ]
}

/// What was measured with one question, at one server or several.
pub(crate) struct Measured {
    pub(crate) question: String,
    /// Ours, or the one that the others are held against, comes first.
    pub(crate) servers: Vec<(String, Vec<Figure>)>,
}

impl Measured {
    /// A table: a figure a line, a server a column, and how many times the first one's is another's.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("\n{}\n", self.question);
        let Some(((ours, figures), others)) = self.servers.split_first() else {
            return table;
        };
        let mut head = format!("  {:<34}{ours:>16}", "");
        for (name, _) in others {
            write!(head, "{name:>18}{:>10}", "ratio").expect("text takes all");
        }
        writeln!(table, "{head}").expect("text takes all");
        for figure in figures {
            let name = format!("{} ({})", figure.name, figure.unit);
            write!(table, "  {name:<34}{:>16}", shown(figure.value)).expect("text takes all");
            for (_, theirs) in others {
                let other = theirs.iter().find(|other| other.name == figure.name);
                match other {
                    Some(other) => {
                        let ratio = figure.value / other.value;
                        write!(table, "{:>18}{ratio:>9.2}x", shown(other.value))
                    }
                    None => write!(table, "{:>18}{:>10}", "-", ""),
                }
                .expect("text takes all");
            }
            table.push('\n');
        }
        table
    }

    pub(crate) fn json(&self) -> Value {
        let servers = self.servers.iter().map(|(name, figures)| {
            let figures = figures.iter().map(|figure| {
                let value = json!({"value": figure.value, "unit": figure.unit});
                (figure.name.to_owned(), value)
            });
            json!({"server": name, "figures": figures.collect::<serde_json::Map<_, _>>()})
        });
        json!({"question": self.question, "servers": servers.collect::<Vec<_>>()})
    }
}

/// As many digits as mean something.
fn shown(value: f64) -> String {
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}"),
        middling if middling < 1000.0 => format!("{value:.1}"),
        _ => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (place, digit) in digits.chars().enumerate() {
                if place > 0 && (digits.len() - place).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_shown_with_as_many_digits_as_mean_something() {
        for (value, text) in [
            (0.071, "0.07"),
            (12.34, "12.3"),
            (1234.5, "1,234"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(shown(value), text);
        }
    }

    #[test]
    fn ratios_are_ours_by_theirs_and_only_of_what_both_have() {
        let measured = Measured {
            question: "publish".to_owned(),
            servers: vec![
                (
                    "dacapo".to_owned(),
                    vec![
                        Figure::new("cpu", 4.0, "us"),
                        Figure::new("batches", 7.0, "/s"),
                    ],
                ),
                ("nchan".to_owned(), vec![Figure::new("cpu", 8.0, "us")]),
            ],
        };
        let table = measured.table();
        assert!(table.contains("0.50x"), "{table}");
        assert_eq!(table.matches('x').count(), 1, "{table}");
        let json = measured.json();
        assert_eq!(json["servers"][1]["figures"]["cpu"]["value"], 8.0);
    }
}
