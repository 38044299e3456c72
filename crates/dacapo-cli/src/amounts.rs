//! Amounts as people give them on a command line: sizes, durations and times.

use std::time::{Duration, SystemTime};

use jiff::{Span, SpanRelativeTo, Timestamp};

/// A number of bytes, with K, M or G for units of 1024.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a number of bytes, such as 65536, 64K, 16M or 1G".to_owned())
}

/// A length of time, with a unit; days have 24 hours.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().ok();
    span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "a duration, such as 30s, 10m, \"2h 30m\" or 7d".to_owned())
}

/// A moment: RFC 3339, or so long ago.
pub(crate) fn parse_time(text: &str) -> Result<SystemTime, String> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp.into());
    }
    parse_duration(text)
        .ok()
        .and_then(|ago| SystemTime::now().checked_sub(ago))
        .ok_or_else(|| {
            "a time, such as 2026-01-31T12:00:00Z, or how long ago, such as 10m or 7d".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_a_unit() {
        assert_eq!(parse_bytes("65536"), Ok(65_536));
        assert_eq!(parse_bytes("64K"), Ok(65_536));
        assert_eq!(parse_bytes("1g"), Ok(1 << 30));
        for nonsense in ["", "M", "-1", "1.5M", "64KiB", "99999999999G", "ü"] {
            assert!(parse_bytes(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("30s"), Ok(30));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("2h 30m"), Ok(9000));
        assert_eq!(seconds("7d"), Ok(7 * 86_400));
        assert_eq!(seconds("2w"), Ok(14 * 86_400));
        for nonsense in ["", "10", "m", "-10m", "soon", "1mo"] {
            assert!(seconds(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_time_is_given_as_such_or_as_how_long_ago() {
        let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(parse_time("1970-01-01T00:01:00Z"), Ok(time(60)));
        assert_eq!(parse_time("1970-01-01T01:01:00+01:00"), Ok(time(60)));
        assert!(parse_time("1m").unwrap() < SystemTime::now());
        assert!(parse_time("1m").unwrap() > parse_time("1h").unwrap());
        for nonsense in ["", "yesterday", "-10m", "12:00", "1970-01-01T00:01:00"] {
            assert!(parse_time(nonsense).is_err(), "{nonsense}");
        }
    }
}
