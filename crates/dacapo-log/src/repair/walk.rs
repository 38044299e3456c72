//! The way through the frames of one damaged segment: what is sound, and where something is not.
//!
//! Looks at bytes only; what a stop means (the end, a tear, damage) is for the copier to judge.

use std::ops::Range;

use crate::error::Damage;
use crate::format::{self, Frame, NoFrame};
use crate::offset::Offset;
use crate::scan;

pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    nonce: u32,
    base: Offset,
    /// Where the next frame is looked for.
    pub(super) position: usize,
    /// The offset behind what was found last.
    next: Offset,
}

pub(super) enum Step {
    /// A sound record, or an absence; a record stands for one offset.
    Sound(Frame, Range<Offset>),
    /// What stands here belongs to no sound record; `resumes` if one was found behind it.
    Damaged {
        position: usize,
        damage: Damage,
        resumes: bool,
    },
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8], nonce: u32, base: Offset) -> Self {
        Self {
            bytes,
            nonce,
            base,
            position: format::FRAMES_START,
            next: base,
        }
    }

    /// The offsets that a frame stands for, if they belong here.
    fn offsets_of(&self, frame: &Frame) -> Result<Range<Offset>, Damage> {
        let found = self.base.plus(frame.relative.into());
        if found != self.next {
            let expected = self.next;
            return Err(Damage::OutOfPlace { expected, found });
        }
        match frame.kind.is_absence() {
            true => format::absence_of(frame, self.bytes, self.base),
            false => Ok(found..found.next()),
        }
    }

    /// Goes on at the first sound record, or gap, behind what is damaged.
    fn step_over(&mut self, damage: Damage) -> Step {
        let position = self.position;
        let relative = u32::try_from(self.next.since(self.base)).unwrap_or(u32::MAX);
        // From the damaged place itself: what stands there may be sound, and out of place.
        let behind = scan::frames_behind(self.bytes, position, self.nonce, self.bytes.len())
            .filter(|frame| !frame.kind.is_between() && frame.relative >= relative)
            .find(|frame| {
                frame.kind.is_record() || format::absence_of(frame, self.bytes, self.base).is_ok()
            });
        match &behind {
            Some(frame) => {
                self.position = frame.start;
                self.next = self.base.plus(frame.relative.into());
            }
            None => self.position = self.bytes.len(),
        }
        Step::Damaged {
            position,
            damage,
            resumes: behind.is_some(),
        }
    }

    /// Whether there is nothing but zeros from here on.
    fn is_at_the_end(&self) -> bool {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        scan::written_bytes(rest) == 0
    }
}

impl Iterator for Walk<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            let frame = match format::decode_frame(self.bytes, self.position, self.nonce) {
                Ok(frame) => frame,
                Err(NoFrame::Unwritten) if self.is_at_the_end() => return None,
                Err(no) => return Some(self.step_over(no.into_damage())),
            };
            if !frame.kind.is_between() {
                return Some(match self.offsets_of(&frame) {
                    Ok(offsets) => {
                        self.position = frame.end;
                        self.next = offsets.end;
                        Step::Sound(frame, offsets)
                    }
                    Err(damage) => self.step_over(damage),
                });
            }
            self.position = frame.end;
        }
    }
}
