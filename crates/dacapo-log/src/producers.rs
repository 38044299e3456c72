//! Which append of each producer is its newest: what decides whether a stamped append is new, a
//! repetition, or out of order.
//!
//! Nothing of this is stored by itself. It is read from the stamps of the retained records, or of those
//! of a sealed segment from its topics file, so that it is as durable as they are, and undone, pruned and
//! repaired with them. Who asks, and when: `writer`.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{AppendError, Corruption, Damage, ReadError};
use crate::format::{self, Kind};
use crate::guard::{self, Guard};
use crate::log::Shared;
use crate::offset::Offset;
use crate::segment::Segment;
use crate::stamp::Stamp;
use crate::topics;

/// The newest append of a producer, as the log holds it. See [`Log::producer`](crate::Log::producer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerState {
    /// The producer's epoch; appends of lower ones are fenced off.
    pub epoch: u64,
    /// The newest append's number within the epoch. The next one has one more.
    pub sequence: u64,
    /// Where it is: of a batch, its first record.
    pub offset: Offset,
}

/// What became of an append that [`Log::append_once`](crate::Log::append_once) was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The records are new, and got these offsets.
    New(Range<Offset>),
    /// The log holds the append already, and has changed nothing. This is the producer's newest one:
    /// the original itself where it has the same sequence, and behind the original otherwise.
    Duplicate(ProducerState),
}

impl Appended {
    /// What to wait for with [`Log::durable`](crate::Log::durable): once that offset is durable, this
    /// append is, also where it was a repetition. (A flush never ends within a batch.)
    #[must_use]
    pub fn offset(&self) -> Offset {
        match self {
            Self::New(offsets) => offsets.start,
            Self::Duplicate(newest) => newest.offset,
        }
    }
}

/// The newest append of every producer of which the log retains one.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    newest: HashMap<u128, ProducerState>,
    /// No state is of a record before this.
    oldest: Offset,
}

impl Producers {
    /// Reads the stamps of all retained segments, up to the end as of now.
    pub(crate) fn load(shared: &Shared) -> Result<Self, ReadError> {
        let mut producers = Self::default();
        let end = shared.visible.get();
        let mut next = shared.oldest();
        while next < end {
            if let Some((newest, ends_at)) = stored_stamps(shared, next) {
                producers.newest.extend(newest);
                next = ends_at;
                continue;
            }
            let segment = match shared.segments.holding(next) {
                // Pruned meanwhile, perhaps.
                Err(missing @ ReadError::SegmentMissing { .. }) => {
                    match shared.refresh_oldest() {
                        oldest if next < oldest => next = oldest,
                        _ => return Err(missing),
                    }
                    continue;
                }
                held => held?,
            };
            let ends_at = segment.end();
            producers.newest.extend(stamps_of(&segment)?);
            match ends_at {
                Some(ends_at) => {
                    next = ends_at;
                    let footer = shared.segments.footer_before(ends_at);
                    // For the next opening; over a gap there is no topics file.
                    if footer.is_some_and(|footer| footer.gaps == 0) {
                        shared.order_index(&segment, true);
                    }
                }
                // It was growing when `end` had long been reached: the rest is in it.
                None => break,
            }
        }
        producers.forget_before(shared.oldest());
        Ok(producers)
    }

    /// Forgets whose newest append was pruned.
    pub(crate) fn forget_before(&mut self, oldest: Offset) {
        if self.oldest < oldest {
            self.oldest = oldest;
            self.newest.retain(|_, newest| newest.offset >= oldest);
        }
    }

    pub(crate) fn get(&self, producer: u128) -> Option<ProducerState> {
        self.newest.get(&producer).copied()
    }

    /// Whether an append may go on: `None` if so, and the producer's newest one if it is a repetition.
    pub(crate) fn judge(&self, stamp: &Stamp) -> Result<Option<ProducerState>, AppendError> {
        let (epoch, found) = (stamp.epoch, stamp.sequence);
        let Some(newest) = self.get(stamp.producer) else {
            return match found {
                0 => Ok(None),
                _ => Err(AppendError::UnknownProducer { epoch, found }),
            };
        };
        if epoch < newest.epoch {
            let current = newest.epoch;
            return Err(AppendError::Fenced { epoch, current });
        }
        if epoch > newest.epoch {
            return match found {
                0 => Ok(None),
                _ => Err(AppendError::EpochNotBegun { epoch, found }),
            };
        }
        if found <= newest.sequence {
            return Ok(guard::stands(Guard::RepetitionRefused).then_some(newest));
        }
        match newest.sequence + 1 {
            expected if expected == found => Ok(None),
            expected => Err(AppendError::SequenceGap { expected, found }),
        }
    }

    /// Notes an append that is visible.
    pub(crate) fn note(&mut self, stamp: &Stamp, offset: Offset) {
        self.newest.insert(stamp.producer, state(stamp, offset));
    }
}

fn state(stamp: &Stamp, offset: Offset) -> ProducerState {
    ProducerState {
        epoch: stamp.epoch,
        sequence: stamp.sequence,
        offset,
    }
}

/// The newest append of each producer in the sealed segment that begins at `base`, from its topics file,
/// and where the segment ends; `None` where the segment itself has to be asked.
fn stored_stamps(shared: &Shared, base: Offset) -> Option<(Vec<(u128, ProducerState)>, Offset)> {
    let summary = shared.segments.summary_holding(base)?;
    let footer = summary.footer.filter(|footer| footer.base == base)?;
    let stored = topics::stored_stamps(shared, &footer)?.into_iter();
    let newest = stored.map(|(relative, stamp)| {
        let offset = base.plus(relative.into());
        (stamp.producer, state(&stamp, offset))
    });
    Some((newest.collect(), footer.next))
}

/// The newest append of each producer in one segment, by its frames.
///
/// Every frame is verified on the way: a stamp that cannot be read may be the one that counts, so that
/// damage is an error. What a repair has left out, and says so, is not.
fn stamps_of(segment: &Segment) -> Result<HashMap<u128, ProducerState>, Corruption> {
    // Looked at first: a segment that has ended grows no more.
    let ends_at = segment.end();
    let (bytes, base) = (segment.published(), segment.base());
    let mut newest = HashMap::new();
    let (mut position, mut next) = (format::FRAMES_START, base);
    while position < bytes.len() {
        let damaged = |damage| segment.corruption(position, damage).of_record(next);
        let frame = format::decode_frame(bytes, position, segment.nonce())
            .map_err(|no| damaged(no.into_damage()))?;
        let (expected, found) = (next, base.plus(frame.relative.into()));
        if frame.kind != Kind::Pad && found != expected {
            return Err(damaged(Damage::OutOfPlace { expected, found }));
        }
        if let Some(stamp) = frame.stamp(bytes) {
            newest.insert(stamp.producer, state(&stamp, found));
        }
        if frame.kind.is_absence() {
            next = format::absence_of(&frame, bytes, base)
                .map_err(damaged)?
                .end;
        } else if frame.kind.is_record() {
            next = next.next();
        }
        position = frame.end;
    }
    match ends_at {
        Some(expected) if expected != next => {
            let damage = Damage::End {
                expected,
                found: next,
            };
            Err(segment.corruption(position, damage).of_record(next))
        }
        _ => Ok(newest),
    }
}

#[cfg(all(test, not(simulation)))]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::*;
    use crate::disk::Disk;
    use crate::format::{Begin, NewFrame};
    use crate::map::Memory;
    use crate::offset::Epoch;
    use crate::options::{Flush, Options};
    use crate::segment;
    use crate::segment_writer::SegmentWriter;
    use crate::{Log, topics};

    /// A segment in memory that begins at offset 10 and holds these frames.
    fn segment_of(frames: &[NewFrame<'_>]) -> Arc<Segment> {
        const BYTES: usize = 4 * format::PAGE_BYTES;
        let (base, nonce) = (Offset::new(10), 1);
        let memory = Arc::new(Memory::new(BYTES));
        let frontier = memory.grow_from(BYTES, format::FRAMES_START, true);
        let map = Arc::clone(frontier.map());
        let segment = Segment::growing(PathBuf::from("memory"), base, nonce, map, Vec::new());
        let file = Disk::default().open(Path::new("/dev/null")).unwrap();
        let mut writer = SegmentWriter::new(
            Arc::new(segment),
            Arc::new(file),
            BYTES as u64,
            frontier,
            format::FRAMES_START,
        );
        let begin = Begin {
            base,
            epoch: Epoch::FIRST,
            durable: base,
        };
        writer.begin(&begin, 1).unwrap();
        for frame in frames {
            writer
                .write(std::iter::once(*frame), frame.bytes())
                .unwrap();
        }
        Arc::clone(writer.segment())
    }

    fn frame(kind: Kind, relative: u32, stamp: Option<Stamp>, payload: &[u8]) -> NewFrame<'_> {
        NewFrame {
            stamp,
            ..NewFrame::plain(kind, relative, 1, payload)
        }
    }

    #[test]
    fn the_newest_stamp_of_each_producer_counts_also_that_of_removed_records() {
        let other = Stamp {
            producer: 8,
            ..stamp(0, 5)
        };
        let (gap_to, removed_to) = (14_u64.to_le_bytes(), 17_u64.to_le_bytes());
        let segment = segment_of(&[
            frame(Kind::Record, 0, Some(stamp(1, 6)), b"one"),
            frame(Kind::Record, 1, Some(stamp(1, 7)), b"two"),
            frame(Kind::Gap, 2, None, &gap_to),
            frame(Kind::Removed, 4, Some(other), &removed_to),
            frame(Kind::Record, 7, None, b"of nobody"),
        ]);

        let newest = stamps_of(&segment).unwrap();

        let expected = [
            (7, state(&stamp(1, 7), Offset::new(11))),
            (8, state(&other, Offset::new(14))),
        ];
        assert_eq!(newest, HashMap::from(expected));
    }

    #[test]
    fn a_sound_frame_in_the_wrong_place_and_a_segment_that_ends_early_are_damage() {
        let misplaced = segment_of(&[
            frame(Kind::Record, 0, Some(stamp(1, 6)), b"one"),
            frame(Kind::Record, 2, Some(stamp(1, 7)), b"two"),
        ]);
        let damage = stamps_of(&misplaced).unwrap_err().damage;
        assert!(matches!(damage, Damage::OutOfPlace { .. }), "{damage}");

        let short = segment_of(&[frame(Kind::Record, 0, Some(stamp(1, 6)), b"one")]);
        short.seal(Offset::new(12));
        let damage = stamps_of(&short).unwrap_err().damage;
        assert!(matches!(damage, Damage::End { .. }), "{damage}");
    }

    /// What a log says of three producers when it is opened, and which segments it maps for that.
    fn asked_after_opening(disk: &Disk, dir: &Path) -> (Vec<Option<ProducerState>>, Vec<PathBuf>) {
        let log = open(disk, dir);
        disk.faults.take_calls("map");
        let newest = (0..3).map(|producer| log.producer(producer).unwrap());
        let newest = newest.collect();
        let mut mapped = disk.faults.take_calls("map");
        mapped.retain(|path| path.extension().is_some_and(|end| end == "seg"));
        log.close().unwrap();
        (newest, mapped)
    }

    fn open(disk: &Disk, dir: &Path) -> Log {
        let options = Options {
            segment_bytes_min: 16 << 10,
            segment_bytes_max: 16 << 10,
            flush: Flush::OnDemand,
            ..Options::default()
        };
        Log::open_writer_on(disk, dir, &options).unwrap()
    }

    #[test]
    fn sealed_segments_are_asked_by_their_topics_files_and_walked_where_those_are_damaged() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let log = open(&disk, dir.path());
        for sequence in 0..100 {
            for producer in 0..3 {
                // The last one stops early: its newest append is in an old segment.
                if producer < 2 || sequence < 10 {
                    let stamp = Stamp {
                        producer,
                        ..stamp(0, sequence)
                    };
                    log.append_once(stamp, None, &[7; 500]).unwrap();
                }
            }
        }
        let newest = |producer| log.producer(producer).unwrap();
        let known = vec![newest(0), newest(1), newest(2)];
        let offsets = known.iter().flatten().map(|state| state.offset.get());
        assert_eq!(offsets.collect::<Vec<_>>(), [208, 209, 29]);
        log.close().unwrap();

        assert_eq!(
            asked_after_opening(&disk, dir.path()),
            (known.clone(), vec![])
        );

        let mut damaged = Vec::new();
        for base in log.shared().segments.bases_before(Offset::new(u64::MAX)) {
            let path = topics::path(dir.path(), base);
            let Ok(mut bytes) = std::fs::read(&path) else {
                continue;
            };
            // Behind the header: a producer's name.
            bytes[64 + 5] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged.push(segment::path(dir.path(), base));
        }
        assert!(damaged.len() > 5);
        let walked = asked_after_opening(&disk, dir.path());
        assert_eq!(walked, (known.clone(), damaged));
        // And the files are written anew.
        assert_eq!(asked_after_opening(&disk, dir.path()), (known, vec![]));
    }

    fn stamp(epoch: u64, sequence: u64) -> Stamp {
        Stamp {
            producer: 7,
            epoch,
            sequence,
        }
    }

    /// What is said to an append behind one of `newest` at offset 5.
    fn said(newest: Option<Stamp>, stamp: Stamp) -> String {
        let mut producers = Producers::default();
        if let Some(newest) = newest {
            producers.note(&newest, Offset::new(5));
        }
        match producers.judge(&stamp) {
            Ok(None) => "new".to_owned(),
            Ok(Some(newest)) => format!("duplicate before or at {}", newest.sequence),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn an_unknown_producer_begins_any_epoch_with_0() {
        assert_eq!(said(None, stamp(0, 0)), "new");
        assert_eq!(said(None, stamp(u64::MAX, 0)), "new");
        let refused = "UnknownProducer { epoch: 3, found: 1 }";
        assert_eq!(said(None, stamp(3, 1)), refused);
    }

    #[test]
    fn within_an_epoch_each_sequence_counts_once_and_none_is_left_out() {
        let newest = Some(stamp(3, 8));
        assert_eq!(said(newest, stamp(3, 9)), "new");
        assert_eq!(said(newest, stamp(3, 8)), "duplicate before or at 8");
        assert_eq!(said(newest, stamp(3, 0)), "duplicate before or at 8");
        let gap = "SequenceGap { expected: 9, found: 10 }";
        assert_eq!(said(newest, stamp(3, 10)), gap);
    }

    #[test]
    fn a_higher_epoch_begins_with_0_and_a_lower_one_is_fenced_off() {
        let newest = Some(stamp(3, 8));
        assert_eq!(said(newest, stamp(4, 0)), "new");
        assert_eq!(said(newest, stamp(9, 0)), "new");
        let not_begun = "EpochNotBegun { epoch: 4, found: 9 }";
        assert_eq!(said(newest, stamp(4, 9)), not_begun);
        for sequence in [0, 8, 9] {
            let fenced = "Fenced { epoch: 2, current: 3 }";
            assert_eq!(said(newest, stamp(2, sequence)), fenced);
        }
    }

    #[test]
    fn the_last_numbers_there_are_do_not_overflow() {
        let newest = Some(stamp(u64::MAX, u64::MAX));
        let duplicate = format!("duplicate before or at {}", u64::MAX);
        assert_eq!(said(newest, stamp(u64::MAX, u64::MAX)), duplicate);
        assert_eq!(
            said(
                Some(stamp(u64::MAX, u64::MAX - 1)),
                stamp(u64::MAX, u64::MAX)
            ),
            "new"
        );
    }

    #[test]
    fn whose_newest_append_was_pruned_is_forgotten() {
        let mut producers = Producers::default();
        producers.note(&stamp(0, 0), Offset::new(5));
        producers.forget_before(Offset::new(5));
        assert!(producers.get(7).is_some());
        producers.forget_before(Offset::new(6));
        assert_eq!(producers.get(7), None);
    }
}
