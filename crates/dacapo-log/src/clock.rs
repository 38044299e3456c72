//! The time that records carry, and the time that work takes.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, Timespec};

/// Microseconds since the Unix epoch, as of the kernel's last tick (1 to 10 ms ago).
///
/// The coarse clock, because reading the exact one costs as much as the rest of a small append.
#[inline]
pub(crate) fn now_micros() -> u64 {
    #[cfg(all(test, not(simulation)))]
    if let Some(set) = tests::SET.get() {
        return set;
    }
    let now = read(ClockId::RealtimeCoarse);
    // A clock set before 1970 counts as 1970.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec / 1_000).unwrap_or(0)
}

/// The time since some moment in the past, the same one for the whole process.
pub(crate) fn uptime() -> Duration {
    let now = read(ClockId::Monotonic);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// The first timestamp that is not before `time`.
pub(crate) fn timestamp_at(time: SystemTime) -> u64 {
    // A time before 1970 is before every record.
    let since_epoch = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX)
}

#[cfg(not(simulation))]
#[inline]
fn read(clock: ClockId) -> Timespec {
    rustix::time::clock_gettime(clock)
}

/// Every look takes a millisecond, so that a seed always meets the same times.
#[cfg(simulation)]
fn read(_: ClockId) -> Timespec {
    crate::disk::next_tick()
}

#[cfg(all(test, not(simulation)))]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        pub(super) static SET: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Sets this thread's time, in microseconds since the Unix epoch, and stops it there.
    pub(crate) fn set(micros: u64) {
        SET.set(Some(micros));
    }

    #[test]
    fn a_time_between_two_timestamps_is_that_of_the_later_one() {
        let at = |nanos| timestamp_at(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!([at(0), at(1), at(999), at(1000), at(1001)], [0, 1, 1, 1, 2]);
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(timestamp_at(before), 0);
    }
}
