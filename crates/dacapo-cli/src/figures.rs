//! Figures as a person reads them: counts, sizes, durations, rates and times.

use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use jiff::Timestamp;

/// `1` becomes "1 record", `19749` "19,749 records".
pub(crate) fn records(count: u64) -> String {
    counted(count, "record")
}

/// `2` and "segment" become "2 segments".
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", HumanCount(count))
}

/// "1.69 MiB".
pub(crate) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// "312 µs", "2.1 ms", "309 ms", "3.4 s": as many digits as mean something.
pub(crate) fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{}.{} ms", micros / 1_000, micros / 100 % 10),
        100_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{}.{} s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

/// How many a second, to three digits; nothing sensible comes of no time at all.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1);
    let mut scale = 1;
    while rate / scale >= 1_000 {
        scale *= 10;
    }
    u64::try_from(rate / scale * scale).unwrap_or(u64::MAX)
}

/// Microseconds since the Unix epoch as RFC 3339 in UTC, always with six digits behind the point.
pub(crate) fn time(micros: u64) -> String {
    let timestamp = i64::try_from(micros)
        .ok()
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .unwrap_or(Timestamp::MAX);
    format!("{timestamp:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_the_digits_that_mean_something() {
        assert_eq!(duration(Duration::from_micros(312)), "312 µs");
        assert_eq!(duration(Duration::from_micros(2_190)), "2.1 ms");
        assert_eq!(duration(Duration::from_micros(309_999)), "309 ms");
        assert_eq!(duration(Duration::from_millis(12_345)), "12.3 s");
    }

    #[test]
    fn rates_are_rounded_to_three_digits() {
        assert_eq!(per_second(19_749, Duration::from_millis(21)), 940_000);
        assert_eq!(per_second(7, Duration::from_secs(1)), 7);
        assert!(per_second(7, Duration::ZERO) > 0);
    }

    #[test]
    fn times_are_utc_with_microseconds() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(time(1_603_006_031_000_001), "2020-10-18T07:27:11.000001Z");
        assert_eq!(time(u64::MAX), "9999-12-30T22:00:00.999999Z");
    }
}
