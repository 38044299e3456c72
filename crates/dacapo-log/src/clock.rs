//! The time that records carry.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since the Unix epoch, as of the kernel's last tick (1 to 10 ms ago).
///
/// The coarse clock, because reading the exact one costs as much as the rest of a small append.
#[inline]
pub(crate) fn now_micros() -> u64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    // A clock set before 1970 counts as 1970.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec / 1_000).unwrap_or(0)
}
