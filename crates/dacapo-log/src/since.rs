//! Finding the first record of a time: by the footers the segment, and in it by its index.
//!
//! Timestamps never go back in a log.

use crate::error::ReadError;
use crate::log::Shared;
use crate::offset::Offset;

impl Shared {
    /// The offset behind the last record that is older than `timestamp_micros`: that of the first
    /// one which is not, if nothing is lost or damaged between the two; at least the oldest one.
    pub(crate) fn offset_at(&self, timestamp_micros: u64) -> Result<Offset, ReadError> {
        // Before the look at the segments: what comes behind it may not be older.
        let next = self.visible.get();
        let (mut base, mut found) = match self.segments.base_since(timestamp_micros) {
            Some(base) => (base, self.behind_older_in(base, timestamp_micros)?),
            None => (next, next),
        };
        // Where nothing older stands before it in its segment, what is before that may be lost, and
        // of the time that is looked for.
        while found == base {
            let before = self.segments.footer_before(base);
            let end = before.as_ref().map_or(self.oldest(), |footer| footer.next);
            match before {
                _ if end < base => found = end, // a segment is missing
                Some(before) if before.gaps > 0 => {
                    base = before.base;
                    found = self.behind_older_in(base, timestamp_micros)?;
                }
                _ => break,
            }
        }
        // A compaction may have removed all from there to the end of the segment, and more.
        while found > base
            && let Some(behind) = self.segments.summary_holding(found)
            && behind.base == found
        {
            base = found;
            found = self.behind_older_in(base, timestamp_micros)?;
        }
        // A segment that the writing process has dropped can still be mapped here.
        Ok(found.max(self.refresh_oldest()))
    }

    fn behind_older_in(&self, base: Offset, timestamp_micros: u64) -> Result<Offset, ReadError> {
        match self.segments.holding(base) {
            Ok(segment) => Ok(segment.behind_older(&self.disk, timestamp_micros)),
            // Dropped since, or else met by whoever reads from there.
            Err(ReadError::SegmentMissing { .. }) => {
                self.refresh_oldest();
                Ok(base)
            }
            Err(ReadError::Corrupt(_)) => Ok(base),
            Err(error) => Err(error),
        }
    }
}

#[cfg(all(test, not(any(simulation, loom))))]
mod tests;
