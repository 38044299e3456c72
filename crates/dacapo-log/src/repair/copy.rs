//! The way of the records from the damaged log into the new one, and the account of what is missing.
//!
//! A stop below the durable watermark is damage: it is noted, and what is missing behind it is lost.
//! One at or above it is a tear, and the log ends there, as in a recovery.

use std::ops::Range;
use std::path::Path;

use super::Repair;
use super::image::Image;
use super::source::{Source, SourceSegment};
use super::target::Target;
use super::walk::{Step, Walk};
use crate::disk::Disk;
use crate::error::{Corruption, Damage, FileError};
use crate::format::{Frame, Kind};
use crate::offset::Offset;
use crate::scan;
use crate::segment;
use crate::verify::Progress;

/// How many records are copied between two reports.
const REPORT_RECORDS: u64 = 4096;

pub(super) struct Copy<'a, 'd, P> {
    disk: &'a Disk,
    src: &'a Path,
    source: &'a Source,
    target: &'a mut Target<'d>,
    found: Repair,
    progress: P,
    /// Of the segments that are done.
    copied_bytes: u64,
}

/// Whether there is more of the log.
#[derive(PartialEq, Eq)]
enum Flow {
    GoesOn,
    /// A tear: what is behind was never durable.
    Ends,
}

/// Where the way through a segment ended.
struct Stop {
    /// Where its frames ended, or broke off.
    position: usize,
    /// Behind the last frame that counts, once a batch that breaks off is dropped.
    whole_to: usize,
    torn: bool,
    /// The next record when damage was last noted.
    noted_at: Option<Offset>,
}

impl<'a, 'd, P: FnMut(Progress)> Copy<'a, 'd, P> {
    pub(super) fn new(
        disk: &'a Disk,
        src: &'a Path,
        source: &'a Source,
        target: &'a mut Target<'d>,
        progress: P,
    ) -> Self {
        let found = Repair {
            segments: 0,
            records: 0,
            payload_bytes: 0,
            next: source.first,
            damages: source.damages.clone(),
            lost: Vec::new(),
            gaps: Vec::new(),
            torn_bytes: 0,
        };
        Self {
            disk,
            src,
            source,
            target,
            found,
            progress,
            copied_bytes: 0,
        }
    }

    /// Copies every sound record, and says what was found.
    pub(super) fn everything(mut self) -> Result<Repair, FileError> {
        for segment in &self.source.segments {
            self.target.roll();
            if self.up_to_file(segment.base)? == Flow::Ends || self.segment(segment)? == Flow::Ends
            {
                break;
            }
            self.copied_bytes += segment.file_bytes;
            self.report(0);
        }
        self.up_to_file(self.source.promised)?;
        self.target.end_batch()?;
        self.copied_bytes = self.source.total_bytes;
        self.report(0);
        Ok(Repair {
            records: self.target.records(),
            payload_bytes: self.target.payload_bytes(),
            next: self.target.next(),
            ..self.found
        })
    }

    fn report(&mut self, position: usize) {
        (self.progress)(Progress {
            checked_bytes: self.copied_bytes + position as u64,
            total_bytes: self.source.total_bytes,
        });
    }

    /// There is no file for the records before `base`, if any are missing.
    fn up_to_file(&mut self, base: Offset) -> Result<Flow, FileError> {
        let next = self.target.next();
        if next >= base {
            return Ok(Flow::GoesOn);
        }
        if next >= self.source.vouched {
            return Ok(Flow::Ends);
        }
        let path = segment::path(self.src, next);
        // A file that is there and cannot be used was noted.
        if !self.found.damages.iter().any(|known| known.path == path) {
            let damage = Corruption::new(&path, 0, Damage::NoFile);
            self.found.note(damage.of_record(next));
        }
        self.lose_up_to(base)?;
        Ok(Flow::GoesOn)
    }

    fn lose_up_to(&mut self, to: Offset) -> Result<(), FileError> {
        self.found.lose(self.target.next()..to);
        self.target.leave_out(to)
    }

    fn segment(&mut self, segment: &SourceSegment) -> Result<Flow, FileError> {
        let image = segment.image(self.disk)?;
        let stop = self.walk(segment, &image)?;
        for pages in &image.unreadable {
            self.found
                .note(segment.damage(pages.start, Damage::Unreadable));
        }
        let vouched = self.source.vouched;
        let breaks_off = self.target.incomplete_from();
        if stop.torn || breaks_off.is_some_and(|from| from >= vouched) {
            self.target.drop_batch();
            if segment.goes_on_at == Some(self.target.next()) {
                return Ok(Flow::GoesOn);
            }
            return Ok(self.tear(segment, &image, &stop));
        }
        let is_last = segment.goes_on_at.is_none() && segment.footer.is_none();
        if is_last && breaks_off.is_some_and(|from| from >= self.source.promised) {
            self.target.drop_batch();
            return Ok(self.tear(segment, &image, &stop));
        }
        // In the middle of the log: what is left of the batch stays.
        self.target.end_batch()?;
        self.end_of(segment, &image, &stop)
    }

    /// The log ends in this segment, before something that was never durable.
    fn tear(&mut self, segment: &SourceSegment, image: &Image, stop: &Stop) -> Flow {
        let torn = image.bytes.get(stop.whole_to..segment.frames_end);
        self.found.torn_bytes = scan::written_bytes(torn.unwrap_or_default()) as u64;
        Flow::Ends
    }

    /// Takes the sound records of a segment, and notes where it is damaged.
    fn walk(&mut self, segment: &SourceSegment, image: &Image) -> Result<Stop, FileError> {
        let frames = &image.bytes[..segment.frames_end];
        let mut walk = Walk::new(frames, segment.nonce, segment.base);
        let mut stop = Stop {
            position: walk.position,
            whole_to: walk.position,
            torn: false,
            noted_at: None,
        };
        for step in walk.by_ref() {
            match step {
                Step::Sound(frame, offsets) => {
                    if offsets.start >= segment.limit {
                        break;
                    }
                    // The stop before it was noted.
                    if self.target.next() < offsets.start {
                        self.lose_up_to(offsets.start)?;
                    }
                    assert_eq!(self.target.next(), offsets.start, "offsets are kept");
                    if self.target.incomplete_from().is_none() {
                        stop.whole_to = frame.start;
                    }
                    self.take(&frame, frames, offsets, segment.limit)?;
                }
                Step::Damaged {
                    position,
                    damage,
                    resumes,
                } => {
                    let next = self.target.next();
                    if next >= segment.limit && !segment.is_bounded {
                        // The remains of a tear that a recovery has cut off.
                        break;
                    }
                    if next >= self.source.vouched || !resumes && self.is_end(segment) {
                        stop.torn = true;
                        stop.position = position;
                        if self.target.incomplete_from().is_none() {
                            stop.whole_to = position;
                        }
                        return Ok(stop);
                    }
                    let damage = match image.unreadable_at(position) {
                        Some(pages) => segment.damage(pages.start, Damage::Unreadable),
                        None => segment.damage(position, damage),
                    };
                    self.found.note(damage.of_record(next));
                    stop.noted_at = Some(next);
                }
            }
        }
        stop.position = walk.position;
        if self.target.incomplete_from().is_none() {
            stop.whole_to = walk.position;
        }
        Ok(stop)
    }

    /// Whether the log may end where it has come to, in a segment that does not say where it ends.
    fn is_end(&self, segment: &SourceSegment) -> bool {
        segment.goes_on_at.is_none()
            && !segment.is_bounded
            && self.target.next() >= self.source.promised
    }

    /// Takes a record, an earlier repair's gap, or what a compaction has left.
    fn take(
        &mut self,
        frame: &Frame,
        frames: &[u8],
        offsets: Range<Offset>,
        limit: Offset,
    ) -> Result<(), FileError> {
        if frame.kind.is_absence() {
            let gone = offsets.start..offsets.end.min(limit);
            if frame.kind == Kind::Gap {
                self.target.leave_out(gone.end)?;
                self.found.gaps.push(gone);
            } else {
                self.target.keep_out(frame, frames, gone.end)?;
            }
            return Ok(());
        }
        self.target.record(frame, frames)?;
        if self.target.next().get().is_multiple_of(REPORT_RECORDS) {
            self.report(frame.end);
        }
        Ok(())
    }

    /// Notes what is missing at the end of a segment: of its footer, and of its records.
    fn end_of(
        &mut self,
        segment: &SourceSegment,
        image: &Image,
        stop: &Stop,
    ) -> Result<Flow, FileError> {
        let next = self.target.next();
        let claimed = match (&segment.footer, segment.goes_on_at) {
            (Some(footer), behind) => {
                if let Some(expected) = behind.filter(|&behind| behind < footer.next) {
                    let found = footer.next;
                    let damage = segment.damage(segment.footer_at, Damage::End { expected, found });
                    self.found.note(damage.of_record(expected));
                }
                footer.next.min(segment.limit)
            }
            (None, Some(behind)) => {
                // The last ones before a crash may still be without.
                if behind < self.source.vouched {
                    let damage = segment.damage(segment.footer_at, Damage::Footer);
                    self.found.note(damage.of_record(next));
                }
                behind
            }
            (None, None) => self.source.promised,
        };
        if next >= claimed {
            return Ok(Flow::GoesOn);
        }
        if next >= self.source.vouched {
            return Ok(self.tear(segment, image, stop));
        }
        if stop.noted_at != Some(next) {
            let damage = segment.damage(stop.position, Damage::Missing);
            self.found.note(damage.of_record(next));
        }
        self.lose_up_to(claimed)?;
        Ok(Flow::GoesOn)
    }
}
