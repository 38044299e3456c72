//! How much is written and for how long, so that it fits the disk and the user's patience.

use std::time::Duration;

use super::limit::frame_bytes;

/// Sizes and times of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Of each log's segment files.
    pub(crate) segment_bytes: usize,
    pub(crate) rounds: usize,
    /// How long each side works in a round, where it works for a time and not for an amount.
    pub(crate) slice: Duration,
    /// After so long, and two rounds, a question has enough: a slow disk gets fewer rounds.
    pub(crate) question_time: Duration,
}

const FULL_SEGMENT_BYTES: usize = 64 << 20;
/// Less than that is measured in the processor's caches, and in the engine's beginnings.
const SEGMENT_BYTES_MIN: usize = 4 << 20;
/// The limit's mapped file, many times the caches of a processor: like a log, the limit does not
/// write to memory that is still in one from last time.
const LIMIT_SEGMENTS: usize = 4;
/// That file; the segment that is written, the one that is prepared, and one to spare.
const SEGMENTS_AT_ONCE: usize = LIMIT_SEGMENTS + 3;
/// What a record of 100 bytes and the mark of its flush take, in sectors.
const FLUSH_BYTES_MAX: usize = 1024;
/// Headers, footers and index files of a segment.
const SPARE_DIVISOR: usize = 8;

impl Plan {
    /// The plan for a disk with so much free space, of which at least half is left alone.
    /// `None`: the disk is too full.
    pub(crate) fn within(free_bytes: u64, quick: bool) -> Option<Self> {
        let (mut segment_bytes, rounds, slice, question_time) = match quick {
            false => (FULL_SEGMENT_BYTES, 5, 250, 2_500),
            true => (SEGMENT_BYTES_MIN, 3, 20, 300),
        };
        while 2 * space_bytes(segment_bytes) > free_bytes {
            segment_bytes /= 2;
        }
        (segment_bytes >= SEGMENT_BYTES_MIN).then_some(Self {
            segment_bytes,
            rounds,
            slice: Duration::from_millis(slice),
            question_time: Duration::from_millis(question_time),
        })
    }

    /// The free space without which there is no plan.
    pub(crate) fn free_bytes_min() -> u64 {
        2 * space_bytes(SEGMENT_BYTES_MIN)
    }

    /// What files take at once, at most.
    pub(crate) fn space_bytes(&self) -> u64 {
        space_bytes(self.segment_bytes)
    }

    /// Of the mapped file that appends are compared with.
    pub(crate) fn limit_bytes(&self) -> usize {
        LIMIT_SEGMENTS * self.segment_bytes
    }

    /// Whether the disk has less space than a run would take otherwise.
    pub(crate) fn is_reduced(&self, quick: bool) -> bool {
        !quick && self.segment_bytes < FULL_SEGMENT_BYTES
    }

    /// How many records of that size go into one segment, in whole hundreds.
    pub(crate) fn records(&self, payload_bytes: usize) -> u32 {
        let bytes = self.segment_bytes - self.segment_bytes / SPARE_DIVISOR;
        let records = bytes / frame_bytes(payload_bytes) / 100 * 100;
        u32::try_from(records).expect("a segment has fewer records")
    }

    /// How many records are made durable in one log at most: each flush takes sectors of its own.
    pub(crate) fn durable_records(&self) -> usize {
        self.segment_bytes / FLUSH_BYTES_MAX
    }
}

fn space_bytes(segment_bytes: usize) -> u64 {
    (SEGMENTS_AT_ONCE * segment_bytes) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_takes_less_than_half_a_gigabyte_and_less_on_a_small_disk() {
        let full = Plan::within(1 << 40, false).unwrap();
        assert!(full.space_bytes() <= 500 << 20);
        assert!(!full.is_reduced(false));

        let small = Plan::within(500 << 20, false).unwrap();
        assert!(small.space_bytes() <= 250 << 20);
        assert!(small.is_reduced(false));

        let least = Plan::free_bytes_min();
        assert!(Plan::within(least, false).is_some());
        assert_eq!(Plan::within(least - 1, false), None);
        assert_eq!(Plan::within(0, true), None);
    }

    #[test]
    fn what_is_appended_in_a_round_fits_into_a_segment() {
        for free_bytes in [1 << 40, Plan::free_bytes_min()] {
            let plan = Plan::within(free_bytes, false).unwrap();
            for payload_bytes in [100, 1024] {
                let records = plan.records(payload_bytes) as usize;
                assert!(records >= 100 && records.is_multiple_of(100));
                assert!(records * frame_bytes(payload_bytes) < plan.segment_bytes);
            }
        }
    }
}
