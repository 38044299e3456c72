//! Cursors of live reads: a number in the URL that changes with time, so that caches in between
//! answer many readers with one response, and never answer one reader with its own last one.

use std::time::{Duration, SystemTime};

/// 2024-10-09T00:00:00Z, in seconds since the Unix epoch: when interval 0 began.
const BEGIN_SECONDS: u64 = 1_728_432_000;
const INTERVAL_SECONDS: u64 = 20;
/// How far ahead of its client a cursor is put, in seconds, where that one is not behind.
const JITTER_SECONDS: std::ops::RangeInclusive<u64> = 1..=3600;

/// The cursor of a response at `now`, of a client that sent `sent`.
pub(crate) fn next(now: SystemTime, sent: Option<u64>) -> u64 {
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let current = now.as_secs().saturating_sub(BEGIN_SECONDS) / INTERVAL_SECONDS;
    match sent {
        Some(sent) if sent >= current => {
            let jitter = fastrand::u64(JITTER_SECONDS) / INTERVAL_SECONDS;
            sent.saturating_add(jitter.max(1))
        }
        _ => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_cursor_is_the_number_of_the_interval() {
        assert_eq!(next(at(BEGIN_SECONDS + 59), None), 2);
        assert_eq!(next(at(BEGIN_SECONDS + 60), Some(2)), 3);
        assert_eq!(next(at(0), None), 0);
    }

    #[test]
    fn a_cursor_is_greater_than_what_the_client_sent() {
        for sent in [2, 3, 1000] {
            let cursor = next(at(BEGIN_SECONDS + 59), Some(sent));
            assert!((sent + 1..=sent + 180).contains(&cursor), "{cursor}");
        }
    }
}
