//! One reader's way through the segments: the core that replay and tail share.

mod selection;

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Damage, ReadError};
use crate::format::{self, Frame, Kind};
use crate::log::Shared;
use crate::map;
use crate::offset::{Checkpoint, Offset};
use crate::record::{Record, RecordRef, Span};
use crate::segment::{Found, Segment};
use crate::topics::Filter;

use self::selection::Selection;

#[derive(Clone, Debug)]
pub(crate) struct Reader {
    shared: Arc<Shared>,
    /// The next record to read.
    next: Offset,
    /// Where it is; `None` until it is looked for.
    place: Option<Place>,
    /// The record that was read last.
    span: Span,
    /// Lost or dropped records were reported last, and the reader stands behind them: there is no
    /// damage to be skipped.
    behind_gap: bool,
    /// Deletions that were made before it began are no records to it.
    begins_anew: bool,
    /// `None`: every record is wanted.
    selection: Option<Box<Selection>>,
    /// Where the next record was dropped, reports that and goes on with the oldest one.
    passes_pruned: bool,
}

#[derive(Clone, Debug)]
struct Place {
    segment: Arc<Segment>,
    position: usize,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, next: Offset) -> Self {
        let span = Span {
            offset: next,
            timestamp_micros: 0,
            is_deletion: false,
            is_stamped: false,
            topic_bytes: 0,
            payload: 0..0,
        };
        Self {
            shared,
            next,
            place: None,
            span,
            behind_gap: false,
            begins_anew: false,
            selection: None,
            passes_pruned: false,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn next_offset(&self) -> Offset {
        self.next
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            offset: self.next,
            epoch: self.shared.epoch(),
        }
    }

    /// Lets the reader see those records only that are asked for, `ask` after `ask`.
    pub(crate) fn select(&mut self, ask: impl FnOnce(&mut Filter)) {
        self.selection.get_or_insert_default().ask(ask);
    }

    /// Whether the reader begins with the first record of each topic, and not where it was told to.
    pub(crate) fn begins_anew(&mut self, begins_anew: bool) {
        self.begins_anew = begins_anew;
    }

    /// Whether the reader goes on with the oldest record where its next one was dropped.
    pub(crate) fn passes_pruned(&mut self, passes_pruned: bool) {
        self.passes_pruned = passes_pruned;
    }

    /// What the reader was asked to see; `None` for everything.
    pub(crate) fn filter(&self) -> Option<&Filter> {
        Some(self.selection.as_ref()?.filter())
    }

    /// There is no record that is wanted before `offset`.
    fn pass_to(&mut self, offset: Offset) {
        if offset > self.next {
            self.next = offset;
            self.place = None;
        }
    }

    /// Reads and verifies the next record, if there is one before `limit`: `true` if so.
    ///
    /// After an error the reader stands where it stood; behind [`ReadError::Lost`] records, however,
    /// and behind [`ReadError::Pruned`] ones if it passes those.
    #[inline]
    pub(crate) fn advance(&mut self, limit: Offset) -> Result<bool, ReadError> {
        match &self.selection {
            None => self.advance_to_any(limit),
            Some(_) => self.advance_to_selected(limit),
        }
    }

    #[inline]
    fn advance_to_any(&mut self, limit: Offset) -> Result<bool, ReadError> {
        if self.next >= limit {
            return Ok(false);
        }
        loop {
            let Some(place) = &mut self.place else {
                self.locate()?;
                continue;
            };
            let bytes = place.segment.published();
            if place.position >= bytes.len() {
                self.leave_segment()?;
                continue;
            }
            let frame = match format::decode_frame(bytes, place.position, place.segment.nonce()) {
                Ok(frame) => frame,
                Err(no) => return Err(self.corrupt(no.into_damage())),
            };
            if frame.kind.is_record() {
                map::prefetch_next(bytes, frame.start..frame.end);
                let found = place.segment.base().plus(frame.relative.into());
                if found != self.next {
                    return Err(self.corrupt(Damage::OutOfPlace {
                        expected: self.next,
                        found,
                    }));
                }
                self.span.offset = found;
                self.span.timestamp_micros = frame.timestamp_micros;
                self.span.is_deletion = frame.kind == Kind::Deletion;
                self.span.is_stamped = frame.stamped;
                self.span.topic_bytes = frame.topic_bytes;
                self.span.payload = frame.payload;
                place.position = frame.end;
                self.next = found.next();
                return Ok(true);
            }
            if frame.kind.is_absence() {
                self.pass_absence(&frame)?;
                if self.next >= limit {
                    return Ok(false);
                }
                continue;
            }
            place.position = frame.end;
        }
    }

    /// The record that [`advance`](Self::advance) read last, to keep.
    pub(crate) fn record(&self) -> Record {
        self.record_ref().to_record()
    }

    /// The record that [`advance`](Self::advance) read last.
    #[inline]
    pub(crate) fn record_ref(&self) -> RecordRef<'_> {
        let place = self.place.as_ref().expect("a record was read");
        RecordRef::new(&place.segment, &self.span)
    }

    /// Finds the segment of the next record, and the record in it, or the gap that it is in.
    #[cold]
    fn locate(&mut self) -> Result<(), ReadError> {
        self.behind_gap = false;
        let oldest = self.shared.oldest();
        if self.next < oldest {
            return Err(self.pruned(oldest));
        }
        let segment = match self.shared.segments.holding(self.next) {
            Err(missing @ ReadError::SegmentMissing { .. }) => {
                let oldest = self.shared.refresh_oldest();
                return Err(match self.next < oldest {
                    true => self.pruned(oldest),
                    false => missing,
                });
            }
            held => held?,
        };
        let found = match segment.base() == self.next {
            true => Ok(Found {
                position: format::FRAMES_START,
                first: self.next,
            }),
            false => segment.find(&self.shared.disk, self.next),
        };
        let position = match &found {
            Ok(found) => {
                // A gap is reported as a whole.
                self.next = found.first;
                found.position
            }
            // Stand on the damage, so that it can be skipped.
            Err(lost) => usize::try_from(lost.position).expect("at most 1 GiB"),
        };
        self.place = Some(Place { segment, position });
        found.map(|_| ()).map_err(ReadError::from)
    }

    /// The next record was dropped.
    fn pruned(&mut self, oldest: Offset) -> ReadError {
        let requested = self.next;
        if self.passes_pruned {
            self.next = oldest;
            self.place = None;
            self.behind_gap = true;
        }
        ReadError::Pruned { requested, oldest }
    }

    /// The reader stands on a frame that stands for the next record, which is gone: moves behind it.
    /// Lost records are reported; what a compaction has removed is passed over.
    #[cold]
    fn pass_absence(&mut self, frame: &Frame) -> Result<(), ReadError> {
        let place = self.place.as_mut().expect("the frame has one");
        let (bytes, base) = (place.segment.published(), place.segment.base());
        let Range {
            start: from,
            end: to,
        } = match format::absence_of(frame, bytes, base) {
            Ok(gone) => gone,
            Err(damage) => return Err(self.corrupt(damage)),
        };
        let is_gap = frame.kind == Kind::Gap;
        // Nobody begins to read in the middle of a gap.
        if from > self.next || to <= self.next || is_gap && from != self.next {
            return Err(self.corrupt(Damage::OutOfPlace {
                expected: self.next,
                found: from,
            }));
        }
        place.position = frame.end;
        self.next = to;
        match is_gap {
            true => {
                self.behind_gap = true;
                Err(ReadError::Lost { from, to })
            }
            false => Ok(()),
        }
    }

    /// At the end of a segment's bytes: the next record is in another one.
    #[cold]
    fn leave_segment(&mut self) -> Result<(), ReadError> {
        let place = self.place.as_ref().expect("it is being left");
        match place.segment.end() {
            Some(end) if end <= self.next => {
                self.place = None;
                Ok(())
            }
            // It ends, but not before it held the record.
            _ => Err(self.corrupt(Damage::Missing)),
        }
    }

    fn corrupt(&mut self, damage: Damage) -> ReadError {
        self.behind_gap = false;
        let place = self.place.as_ref().expect("damage has a place");
        place
            .segment
            .corruption(place.position, damage)
            .of_record(self.next)
            .into()
    }

    /// Whether the last thing reported were records behind which the reader goes on by itself:
    /// [`ReadError::Lost`], or [`ReadError::Pruned`] if it passes those.
    pub(crate) fn is_behind_gap(&self) -> bool {
        self.behind_gap
    }

    /// Moves behind a damaged place, to the next sound record, or gap, before `limit`, if there is
    /// one.
    pub(crate) fn skip_damage(&mut self, limit: Offset) -> Option<Offset> {
        if self.behind_gap {
            return (self.next < limit).then_some(self.next);
        }
        let behind = match &self.place {
            Some(place) => {
                let sound = place.segment.sound_record_behind(place.position, self.next);
                match (sound, place.segment.end()) {
                    (Some(frame), _) => {
                        let next = place.segment.base().plus(frame.relative.into());
                        let segment = Arc::clone(&place.segment);
                        self.place = Some(Place {
                            segment,
                            position: frame.start,
                        });
                        Some(next)
                    }
                    (None, end) => {
                        self.place = None;
                        end
                    }
                }
            }
            // The whole segment cannot be read.
            None => self.shared.segments.base_behind(self.next),
        };
        self.next = behind.unwrap_or(limit).min(limit).max(self.next);
        (self.next < limit).then_some(self.next)
    }

    /// Verifies the frames without a record at the end of the segment that the reader stands in.
    pub(crate) fn verify_rest_of_segment(&mut self) -> Result<(), ReadError> {
        while let Some(place) = &mut self.place {
            let bytes = place.segment.published();
            if place.position >= bytes.len() {
                break;
            }
            match format::decode_frame(bytes, place.position, place.segment.nonce()) {
                Ok(frame) => place.position = frame.end,
                Err(no) => return Err(self.corrupt(no.into_damage())),
            }
        }
        Ok(())
    }

    /// How many bytes of the current segment file were read, and which segment that is.
    pub(crate) fn progress(&self) -> Option<(Offset, u64)> {
        self.place
            .as_ref()
            .map(|place| (place.segment.base(), place.position as u64))
    }
}
