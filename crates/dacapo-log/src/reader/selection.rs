//! Reading the records of some topics, without reading the others.
//!
//! What is wanted of a segment is looked up once, and then read record by record. Where a segment
//! cannot say what it holds, because it is damaged or was repaired, all of it is read, so that what is
//! lost is reported. What lies before the deletions of all topics that are wanted is passed by.

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Place, Reader};
use crate::error::ReadError;
use crate::format::{self, Footer, Kind};
use crate::log::Shared;
use crate::offset::Offset;
use crate::segment::Segment;
use crate::segments::Summary;
use crate::topic::Topic;
use crate::topics::{self, Filter, Place as Wanted};

/// What a reader wants, and what it knows of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    filter: Filter,
    /// By topic, the offset before which its records are dead; as of when reading began.
    deletions: Option<HashMap<Vec<u8>, Offset>>,
    /// The wanted records in one segment that were not read yet, the next one at the end.
    places: Vec<Wanted>,
    found_in: FoundIn,
    /// Before this offset, `places` is all there is.
    known_to: Offset,
    /// Up to this offset, every record is read and looked at.
    read_all_to: Offset,
}

/// The segment that was asked last.
#[derive(Clone, Debug, Default)]
struct FoundIn {
    base: Offset,
    /// Where it was walked: the positions are those of this mapping.
    segment: Option<Arc<Segment>>,
}

impl Reader {
    #[cold]
    pub(super) fn advance_to_selected(&mut self, limit: Offset) -> Result<bool, ReadError> {
        // Out of the way, so that both can be changed.
        let mut selection = self.selection.take().expect("there is one");
        let advanced = selection.advance(self, limit);
        self.selection = Some(selection);
        advanced
    }

    /// Stands on the next record, as far as its place is known.
    fn stand_on(&mut self, found_in: &FoundIn, wanted: Wanted) -> Result<(), ReadError> {
        let held = self.place.take().map(|place| place.segment);
        let segment = match (&found_in.segment, held) {
            (Some(segment), _) => Arc::clone(segment),
            (None, Some(held)) if held.base() == found_in.base => held,
            (None, _) => match self.shared.segments.holding(self.next) {
                // Looking for the record says whether it was dropped.
                Err(ReadError::SegmentMissing { .. }) => return Ok(()),
                held => held?,
            },
        };
        let position = match wanted.position {
            Some(position) => Some(position as usize),
            None => segment.seek(&self.shared.disk, wanted.relative),
        };
        // Without a position the record is looked for, with a look at every frame on the way.
        self.place = position.map(|position| Place { segment, position });
        Ok(())
    }
}

impl Selection {
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Asks for more.
    pub(super) fn ask(&mut self, ask: impl FnOnce(&mut Filter)) {
        let mut filter = std::mem::take(&mut self.filter);
        ask(&mut filter);
        // What was looked up was for less.
        *self = Self {
            filter,
            ..Self::default()
        };
    }

    fn advance(&mut self, reader: &mut Reader, limit: Offset) -> Result<bool, ReadError> {
        while reader.next < limit {
            if reader.next < self.read_all_to {
                if reader.advance_to_any(limit.min(self.read_all_to))? && self.wants(reader) {
                    return Ok(true);
                }
                continue;
            }
            let Some(&wanted) = self.places.last() else {
                // Who waits keeps no segment mapped.
                self.found_in.segment = None;
                if reader.next < self.known_to {
                    reader.pass_to(self.known_to.min(limit));
                } else {
                    self.look(reader, limit)?;
                }
                continue;
            };
            let offset = self.found_in.base.plus(wanted.relative.into());
            if offset < reader.next {
                // Passed, with damage that was skipped.
                self.places.pop();
                continue;
            }
            if offset >= limit {
                reader.pass_to(limit);
                break;
            }
            reader.next = offset;
            reader.stand_on(&self.found_in, wanted)?;
            let is_there = reader.advance_to_any(offset.next())?;
            self.places.pop();
            if is_there && self.wants(reader) {
                return Ok(true);
            }
            // Where it is not, a compaction has removed it since.
            if is_there && !self.filter.matches(topic_of(reader)) {
                // The file is whole, and lies.
                self.places.clear();
                self.read_all_to = self.known_to;
            }
        }
        Ok(false)
    }

    /// Whether the record that was read last is one to show.
    fn wants(&self, reader: &Reader) -> bool {
        let topic = topic_of(reader);
        let deleted = self.deletions.as_ref().and_then(|of| of.get(topic));
        self.filter.matches(topic) && deleted.is_none_or(|&deletion| reader.span.offset >= deletion)
    }

    /// The offset before which each wanted record is dead; `None` where some may not be.
    fn alive_from(&self) -> Option<Offset> {
        // By a prefix, any topic may be wanted that was never deleted.
        if self.filter.prefixes().len() > 0 {
            return None;
        }
        let deletions = self.deletions.as_ref()?;
        let deletion_of = |topic: &Topic| deletions.get(topic.as_str().as_bytes()).copied();
        let of_each: Option<Vec<Offset>> = self.filter.topics().map(deletion_of).collect();
        of_each?.into_iter().min()
    }

    /// Finds out what the segment of the next record holds.
    ///
    /// A deletion at or behind `limit` is none yet: a power cut may undo it, and its reader would have
    /// passed what it deletes.
    fn look(&mut self, reader: &mut Reader, limit: Offset) -> Result<(), ReadError> {
        reader.behind_gap = false;
        let oldest = reader.shared.oldest();
        if reader.next < oldest {
            return Err(reader.pruned(oldest));
        }
        let shared = &reader.shared;
        if self.deletions.is_none() {
            let mut deletions = deletions(shared, &self.filter, reader.next..limit)?;
            if reader.begins_anew {
                for deletion in deletions.values_mut() {
                    *deletion = deletion.next();
                }
            }
            self.deletions = Some(deletions);
        }
        if let Some(alive_from) = self.alive_from().filter(|&from| from > reader.next) {
            reader.pass_to(alive_from.min(limit));
            return Ok(());
        }
        let Some(summary) = shared.segments.summary_holding(reader.next) else {
            // Reading on says what is missing.
            self.read_all_to = reader.next.next();
            return Ok(());
        };
        let sealed = summary.footer.as_ref();
        if let Some(footer) = sealed
            && (footer.gaps > 0 || footer.next <= reader.next)
        {
            self.read_all_to = footer.next.max(reader.next.next());
            return Ok(());
        }
        let relative = u32::try_from(reader.next.since(summary.base)).unwrap_or(u32::MAX);
        let end = sealed.map(|footer| footer.next);
        let (filter, mut is_whole, mut known_to) = (&self.filter, true, end);
        let mut walked = None;
        let limit_relative = u32::try_from(limit.since(summary.base)).unwrap_or(u32::MAX);
        let is_deleted_behind = Cell::new(false);
        let asked = topics::ask(
            shared,
            &summary,
            |file| match file.is_deleted_behind(filter, limit_relative)? {
                true => {
                    is_deleted_behind.set(true);
                    Ok(Vec::new())
                }
                false => file.places(filter, relative),
            },
            |index, segment| {
                is_whole = !index.is_incomplete();
                known_to = end.or(Some(summary.base.plus(index.next().into())));
                walked = Some(Arc::clone(segment));
                let bytes = segment.published();
                is_deleted_behind.set(index.is_deleted_behind(bytes, filter, limit_relative));
                index.places(segment.published(), filter, relative)
            },
        );
        let places = match asked {
            // Reading on says whether it was dropped.
            Err(ReadError::SegmentMissing { .. }) => {
                self.read_all_to = reader.next.next();
                return Ok(());
            }
            places => places?,
        };
        if is_deleted_behind.get() {
            // What stands before the deletion is not in the index any more.
            self.read_all_to = limit;
            return Ok(());
        }
        let known_to = known_to.unwrap_or(reader.next);
        if !is_whole || known_to <= reader.next {
            self.read_all_to = known_to.max(reader.next.next());
            return Ok(());
        }
        self.places = places;
        self.places.reverse();
        self.found_in = FoundIn {
            base: summary.base,
            segment: walked,
        };
        self.known_to = known_to;
        Ok(())
    }
}

fn topic_of(reader: &Reader) -> &[u8] {
    reader.record_ref().topic().as_bytes()
}

/// The newest deletion before the end of `range` of each topic that the filter lets through, from the
/// segments that end behind its start.
fn deletions(
    shared: &Shared,
    filter: &Filter,
    range: Range<Offset>,
) -> Result<HashMap<Vec<u8>, Offset>, ReadError> {
    let mut deletions = HashMap::new();
    let behind = |summary: &Summary| {
        let ends_behind = |footer: &Footer| footer.next > range.start;
        summary.base < range.end
            && !summary.is_without_deletions
            && summary.footer.as_ref().is_none_or(ends_behind)
    };
    for summary in shared.segments.summaries().iter().filter(|s| behind(s)) {
        // None of any topic: so that whoever comes next opens no file for that.
        let is_without = Cell::new(false);
        let found = topics::ask(
            shared,
            summary,
            |file| {
                is_without.set(!file.has_deletions());
                file.deletions(filter)
            },
            |index, segment| {
                is_without.set(!index.has_deletions() && !index.is_incomplete());
                index.deletions(segment.published(), filter)
            },
        );
        let found = match found {
            // Whoever reads it is told.
            Err(ReadError::SegmentMissing { .. } | ReadError::Corrupt(_)) => continue,
            found => found?,
        };
        if is_without.get() && summary.footer.is_some() {
            shared.segments.note_without_deletions(summary.base);
        }
        let mut hides_earlier = false;
        for (name, deletion) in found {
            let deletion = summary.base.plus(deletion.into());
            match deletion < range.end {
                // Oldest first, so that the newest stays.
                true => drop(deletions.insert(name, deletion)),
                false => hides_earlier = true,
            }
        }
        if hides_earlier && let Ok(segment) = shared.segments.holding(summary.base) {
            deletions.extend(deletions_in(&segment, filter, range.end));
        }
    }
    Ok(deletions)
}

/// As [`deletions`], by a walk over the frames of one segment, up to the first that is damaged.
fn deletions_in(segment: &Segment, filter: &Filter, to: Offset) -> HashMap<Vec<u8>, Offset> {
    let (bytes, mut position) = (segment.published(), format::FRAMES_START);
    let mut found = HashMap::new();
    while position < bytes.len()
        && let Ok(frame) = format::decode_frame(bytes, position, segment.nonce())
    {
        let offset = segment.base().plus(frame.relative.into());
        if frame.kind == Kind::Deletion && offset < to {
            let name = frame.topic(bytes).as_bytes();
            if filter.matches(name) {
                found.insert(name.to_vec(), offset);
            }
        }
        position = frame.end;
    }
    found
}
