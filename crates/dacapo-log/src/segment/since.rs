//! Finding the first record of a time in one segment.

use std::sync::PoisonError;

use super::Segment;
use crate::disk::Disk;
use crate::format::{self, IndexPoint, Kind};
use crate::offset::Offset;
use crate::scan;

impl Segment {
    /// The offset behind the last record that is older than `timestamp_micros`: that of the first
    /// one which is not, if nothing is lost or damaged between the two. So nothing that may be of
    /// that time is passed over in silence.
    ///
    /// Looks at a few records, found by the index, and then walks from one that is older.
    pub(crate) fn behind_older(&self, disk: &Disk, timestamp_micros: u64) -> Offset {
        let bytes = self.published();
        let (mut position, mut behind) = match self.last_point_older(disk, timestamp_micros) {
            Some(point) => (
                point.position as usize,
                self.base.plus(point.relative.into()),
            ),
            None => (format::FRAMES_START, self.base),
        };
        while position < bytes.len() {
            match format::decode_frame(bytes, position, self.nonce) {
                Ok(frame) if frame.kind.is_record() => {
                    if frame.timestamp_micros >= timestamp_micros {
                        break;
                    }
                    behind = self.base.plus(frame.relative.into()).next();
                    position = frame.end;
                }
                Ok(frame) => {
                    if frame.kind == Kind::Removed
                        && let Ok(gone) = format::absence_of(&frame, bytes, self.base)
                        && gone.start <= behind
                    {
                        behind = gone.end;
                    }
                    position = frame.end;
                }
                // What is damaged is of that time, unless something older stands behind it.
                Err(_) => match scan::record_behind(bytes, position + 1, self.nonce, 0) {
                    Some(frame) => position = frame.start,
                    None => break,
                },
            }
        }
        behind
    }

    /// The last index point whose record is older, of an index that was checked to tell the truth
    /// wherever it was asked.
    fn last_point_older(&self, disk: &Disk, timestamp_micros: u64) -> Option<IndexPoint> {
        let is_older = |point: IndexPoint| {
            let record = self.record_at(point)?;
            Some(record.timestamp_micros < timestamp_micros)
        };
        let points = {
            let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            // A copy, so that no append waits for the search.
            index.get_or_insert_with(|| self.load_index(disk)).clone()
        };
        // A growing segment has its points before their records are published.
        let end = self.published().len();
        let published = points.partition_point(|point| (point.position as usize) < end);
        last_older(&points[..published], is_older).unwrap_or_else(|Untrue| {
            let points = self.build_index();
            last_older(&points, is_older).unwrap_or(None)
        })
    }
}

/// An index point without its record.
struct Untrue;

/// The last point that is older; those that are come first. Asks about few of them.
fn last_older(
    points: &[IndexPoint],
    mut is_older: impl FnMut(IndexPoint) -> Option<bool>,
) -> Result<Option<IndexPoint>, Untrue> {
    let (mut older, mut newer_from) = (None, points.len());
    let mut from = 0;
    while from < newer_from {
        let middle = from + (newer_from - from) / 2;
        match is_older(points[middle]).ok_or(Untrue)? {
            true => {
                older = Some(points[middle]);
                from = middle + 1;
            }
            false => newer_from = middle,
        }
    }
    Ok(older)
}

#[cfg(all(test, not(any(simulation, loom))))]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::format::NewFrame;
    use crate::map::Memory;

    /// A segment at offset 100 of these frames: kind, relative offset, time, and for an absence the
    /// relative offset behind it.
    fn segment_of(frames: &[(Kind, u32, u64, u64)]) -> Segment {
        let (nonce, capacity) = (7, 2 * format::FRAMES_START);
        let memory = Arc::new(Memory::new(capacity));
        let mut frontier = memory.grow_from(capacity, format::FRAMES_START, true);
        let mut position = format::FRAMES_START;
        let mut points = Vec::new();
        for &(kind, relative, timestamp_micros, behind) in frames {
            let behind = (100 + behind).to_le_bytes();
            let frame = NewFrame::plain(kind, relative, timestamp_micros, &behind);
            let bytes = frame.bytes();
            let word = frame.encode(nonce, frontier.unpublished(position, bytes));
            frontier.commit(position, word);
            if kind.is_record() {
                points.push(scan::point(relative, position));
            }
            position += bytes;
        }
        frontier.publish(position);
        let map = Arc::clone(frontier.map());
        Segment::growing(
            PathBuf::from("memory"),
            Offset::new(100),
            nonce,
            map,
            points,
        )
    }

    #[test]
    fn what_a_compaction_has_removed_is_passed_over_and_what_is_lost_is_not() {
        let behind =
            |segment: &Segment, time| segment.behind_older(&Disk::default(), time).get() - 100;
        let all = |kind| {
            let segment = segment_of(&[
                (kind, 0, 1, 3),
                (Kind::Record, 3, 10, 0),
                (kind, 4, 10, 8),
                (Kind::Record, 8, 20, 0),
                (Kind::Record, 9, 30, 0),
                (kind, 10, 30, 12),
            ]);
            [1, 10, 11, 20, 21, 30, 31].map(|time| behind(&segment, time))
        };
        assert_eq!(all(Kind::Removed), [3, 3, 8, 8, 9, 9, 12]);
        assert_eq!(all(Kind::Gap), [0, 0, 4, 4, 9, 9, 10]);
    }

    #[test]
    fn a_point_among_many_is_found_by_few_looks() {
        let points: Vec<IndexPoint> = (0..16_384)
            .map(|i| scan::point(i * 10, 4096 + i as usize * 4096))
            .collect();
        for older in [0, 1, 2, 8_191, 8_192, 16_383, 16_384] {
            let mut looks = 0;
            let found = last_older(&points, |point| {
                looks += 1;
                Some(point.relative < older * 10)
            });
            let expected = older.checked_sub(1).map(|last| points[last as usize]);
            assert_eq!(found.ok().flatten(), expected);
            assert!(looks <= 15, "{looks} looks");
        }
    }

    #[test]
    fn a_point_that_lies_is_not_believed() {
        let points = [scan::point(0, 4096), scan::point(10, 8192)];
        assert!(last_older(&points, |_| None).is_err());
        assert!(matches!(last_older(&[], |_| None), Ok(None)));
    }
}
