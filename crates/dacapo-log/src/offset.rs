//! Places in a log: a record's number, a log's epoch, and where a reader starts.

use std::fmt;
use std::time::SystemTime;

/// A record's place in the log: 0 for the first record ever appended, then dense.
///
/// An offset is never used again for another record, with one exception that is
/// always reported: records that a power cut undid give their offsets to the
/// records appended afterwards (see [`Checkpoint`]).
///
/// ```
/// use dacapo_log::Offset;
///
/// let offset = Offset::new(41);
/// assert_eq!(offset.next(), Offset::new(42));
/// assert_eq!(offset.to_string(), "41");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The first record ever appended.
    pub const ZERO: Self = Self(0);

    /// The offset of record number `value`, counted from 0.
    #[must_use]
    #[inline]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number itself.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The offset `records` further on.
    ///
    /// # Panics
    /// Past `u64::MAX`, which a log that appends a billion records a second
    /// reaches after 584 years.
    #[must_use]
    #[inline]
    pub const fn plus(self, records: u64) -> Self {
        Self(self.0.checked_add(records).expect("an offset fits 64 bits"))
    }

    /// How many records lie from `start` up to, and without, `self`; 0 if `start` is not before it.
    #[must_use]
    #[inline]
    pub const fn since(self, start: Self) -> u64 {
        self.0.saturating_sub(start.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Offset> for u64 {
    fn from(offset: Offset) -> Self {
        offset.0
    }
}

/// A span of a log's life between two unclean ends, counted from 1.
///
/// A log that was closed goes on in the same epoch; one whose process was
/// killed, or whose machine lost power, begins a new one when it is next opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a new log.
    pub(crate) const FIRST: Self = Self(1);

    /// Epoch number `value`, counted from 1.
    #[must_use]
    #[inline]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number itself.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position to keep outside the log and to resume from later.
///
/// The epoch is what lets the log notice that a power cut undid records which
/// the position had already passed: [`Start::Resume`] then reports
/// [`Rewound`](crate::ReadError::Rewound) instead of skipping the records that
/// took their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// The next record that was not yet read.
    pub offset: Offset,
    /// The log's epoch when the position was taken.
    pub epoch: Epoch,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// The oldest record that the log still holds.
    Oldest,
    /// Behind the newest record: only what is appended from now on.
    Latest,
    /// The record with this offset; one past the newest record is allowed. Where the record was
    /// dropped, [`Pruned`](crate::ReadError::Pruned) ends the reading.
    At(Offset),
    /// As [`At`](Self::At), or the oldest record where that one was dropped: reading then reports
    /// [`Pruned`](crate::ReadError::Pruned) once, and goes on by itself. The same when the reader
    /// falls behind what is dropped later.
    AtOrOldest(Offset),
    /// The first record of this time or later, and behind all others where they are older; see
    /// [`Log::offset_at`](crate::Log::offset_at).
    Since(SystemTime),
    /// Where an earlier reader stopped, checked against the log's epochs.
    Resume(Checkpoint),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_between_two_offsets_are_counted() {
        assert_eq!(Offset::new(7).since(Offset::new(3)), 4);
        assert_eq!(Offset::new(3).since(Offset::new(7)), 0);
    }
}
