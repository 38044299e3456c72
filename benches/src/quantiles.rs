//! How long each of many operations took: the median, and the slow ones.

use std::fmt;
use std::time::Duration;

/// What [`Quantiles::print_head`] says of the columns.
const COLUMNS: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

/// Times of operations, sorted.
#[derive(Clone, Debug)]
pub struct Quantiles(Vec<Duration>);

impl Quantiles {
    /// Of these times.
    ///
    /// # Panics
    /// Without any.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "quantiles of nothing");
        times.sort_unstable();
        Self(times)
    }

    /// The time that `thousandths` of the operations do not exceed.
    #[must_use]
    pub fn at(&self, thousandths: usize) -> Duration {
        let rank = (self.0.len() * thousandths).div_ceil(1_000).max(1);
        self.0[rank.min(self.0.len()) - 1]
    }

    /// Prints a question, and the names of the columns under it.
    pub fn print_head(question: &str) {
        println!("\n{question}");
        print!("  {:<28}", "");
        for column in COLUMNS {
            print!("{column:>12}");
        }
        println!();
    }

    /// Prints these times as a line under the head.
    pub fn print(&self, name: &str) {
        println!("  {name:<28}{self}");
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for thousandths in [500, 900, 990, 999, 1_000] {
            let micros = self.at(thousandths).as_secs_f64() * 1e6;
            write!(f, "{:>12}", format!("{micros:.2} µs"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Quantiles;

    #[test]
    fn of_a_thousand_times_each_thousandth_is_one() {
        let micros = |number| Duration::from_micros(number);
        let quantiles = Quantiles::of((1..=1_000).rev().map(micros).collect());
        assert_eq!(quantiles.at(500), micros(500));
        assert_eq!(quantiles.at(999), micros(999));
        assert_eq!(quantiles.at(1_000), micros(1_000));
        assert_eq!(Quantiles::of(vec![micros(7)]).at(1), micros(7));
    }
}
