//! The time that records carry, and the time that work takes.

use std::time::Duration;

use rustix::time::{ClockId, Timespec};

/// Microseconds since the Unix epoch, as of the kernel's last tick (1 to 10 ms ago).
///
/// The coarse clock, because reading the exact one costs as much as the rest of a small append.
#[inline]
pub(crate) fn now_micros() -> u64 {
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
