//! When segments are rewritten in the background, and how fast.

use std::time::Duration;

/// Which segments are rewritten in the background, and how fast; see
/// [`Options::compaction`](crate::Options::compaction).
///
/// ```
/// use dacapo_log::Compaction;
///
/// let when_a_third_is_waste_and_slowly = Compaction::default()
///     .wasted_percent(33)
///     .bytes_per_second_max(8 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a compaction does nothing by itself"]
pub struct Compaction {
    pub(crate) wasted_percent: u8,
    bytes_per_second_max: Option<u64>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            wasted_percent: 50,
            bytes_per_second_max: None,
        }
    }
}

impl Compaction {
    /// How much of a segment has to be waste for it to be rewritten: records that can go, in percent of
    /// those that it has; 50 by default.
    ///
    /// With less of it, space comes back earlier, and is written more often for that.
    pub fn wasted_percent(mut self, percent: u8) -> Self {
        self.wasted_percent = percent;
        self
    }

    /// How many bytes a second are read and written at the most, those of topics files included; without
    /// a limit by default. 0 counts as 1.
    ///
    /// Pieces of 64 KiB go as fast as they can, with pauses between them.
    pub fn bytes_per_second_max(mut self, bytes: u64) -> Self {
        self.bytes_per_second_max = Some(bytes.max(1));
        self
    }

    /// Of a compaction that begins now.
    pub(crate) fn pace(&self, now: Duration) -> Pace {
        Pace {
            bytes_per_second_max: self.bytes_per_second_max,
            began: now,
        }
    }
}

/// Says when the next piece of work may begin.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second_max: Option<u64>,
    /// When the piece at hand began.
    began: Duration,
}

impl Pace {
    /// When the next piece may begin, if one of so many bytes is done now. What a slow disk has lost
    /// is not made up for.
    pub(crate) fn due(&mut self, bytes: u64, now: Duration) -> Duration {
        let nanos = self
            .bytes_per_second_max
            .map_or(0, |max| u128::from(bytes) * 1_000_000_000 / u128::from(max));
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let due = self.began + takes;
        self.began = due.max(now);
        self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn without_a_limit_the_next_piece_begins_at_once() {
        let mut pace = Compaction::default().pace(ms(5));
        assert_eq!(pace.due(u64::MAX, ms(7)), ms(7));
        assert_eq!(pace.due(1, ms(7)), ms(7));
    }

    #[test]
    fn pieces_begin_so_far_apart_that_the_limit_is_kept() {
        let mut pace = Compaction::default()
            .bytes_per_second_max(1000)
            .pace(ms(100));
        // 50 of the 200 ms went by with the work itself.
        assert_eq!(pace.due(200, ms(150)), ms(300));
        assert_eq!(pace.due(100, ms(300)), ms(400));
        // This one took longer than it had to; the next one gets no less time for that.
        assert_eq!(pace.due(100, ms(900)), ms(900));
        assert_eq!(pace.due(100, ms(900)), ms(1000));
    }

    #[test]
    fn no_limit_is_so_low_or_piece_so_large_that_it_overflows() {
        let mut pace = Compaction::default().bytes_per_second_max(0).pace(ms(0));
        assert_eq!(pace.due(2, ms(0)), ms(2000));
        assert!(pace.due(u64::MAX, ms(0)) > Duration::from_secs(1 << 33));
    }
}
