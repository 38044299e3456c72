//! Writing one sealed segment anew, without what can go.

use std::collections::HashMap;
use std::ops::Range;

use super::{COMPACTED_TEMPORARY, CompactError, Pieces, SegmentPlan};
use crate::error::{FileError, ReadError};
use crate::format::{self, Begin, Footer, Frame, Kind, NewFrame};
use crate::log::Shared;
use crate::segment::Segment;
use crate::segment_builder::{Built, SegmentBuilder};

/// The segment without what can go, in a file of its own, and the number of records that went; `None`
/// where there are none.
pub(crate) fn rewrite(
    shared: &Shared,
    segment: &Segment,
    footer: &Footer,
    plan: &SegmentPlan,
    pieces: &mut Pieces<'_>,
) -> Result<Option<(Built, u64)>, CompactError> {
    let bytes = segment.published();
    let is_dead = |frame: &Frame| {
        frame.kind.is_record() && plan.is_dead(frame.topic(bytes).as_bytes(), frame.relative)
    };
    let (mut dead, mut first_timestamp_micros) = (0, None);
    let mut newest_stamps: HashMap<u128, u32> = HashMap::new();
    // All of it, before anything is written.
    for frame in frames(segment) {
        let frame = frame?;
        pieces.count(frame.end - frame.start)?;
        dead += u64::from(is_dead(&frame));
        first_timestamp_micros = first_timestamp_micros.or(Some(frame.timestamp_micros));
        if let Some(stamp) = frame.stamp(bytes) {
            newest_stamps.insert(stamp.producer, frame.relative);
        }
    }
    if dead == 0 {
        return Ok(None);
    }
    let path = shared.dir.join(COMPACTED_TEMPORARY);
    let begin = Begin {
        base: footer.base,
        epoch: footer.epoch,
        durable: footer.next,
    };
    let (disk, log_id) = (&shared.disk, shared.log_id);
    let now = first_timestamp_micros.unwrap_or(0);
    let mut output = Output {
        builder: SegmentBuilder::create(disk, &path, log_id, &begin, now)?,
        base: footer.base.get(),
        run: None,
    };
    for frame in frames(segment) {
        let frame = &frame?;
        let stamp = frame.stamp(bytes);
        let is_newest = stamp.is_some_and(|stamp| newest_stamps[&stamp.producer] == frame.relative);
        let gone = match format::absence_of(frame, bytes, footer.base) {
            Ok(gone) if frame.kind == Kind::Removed => {
                Some(gone.start.since(footer.base)..gone.end.since(footer.base))
            }
            _ if is_dead(frame) => Some(u64::from(frame.relative)..u64::from(frame.relative) + 1),
            _ => None,
        };
        match gone {
            Some(gone) if is_newest => {
                output.end_run()?;
                output.remove(gone, frame.timestamp_micros, stamp)?;
            }
            Some(gone) => output.extend_run(gone, frame.timestamp_micros)?,
            None if frame.kind.is_between() => {}
            None => {
                output.end_run()?;
                pieces.count(frame.end - frame.start)?;
                output.builder.push(&NewFrame {
                    // A batch is whole, or this segment would not be durable; it may be no more.
                    continues: false,
                    kind: frame.kind,
                    relative: frame.relative,
                    timestamp_micros: frame.timestamp_micros,
                    stamp,
                    topic: frame.topic(bytes),
                    payload: &bytes[frame.payload.clone()],
                })?;
            }
        }
    }
    output.end_run()?;
    let mut builder = output.builder;
    builder.set_timestamps(footer.first_timestamp_micros, footer.last_timestamp_micros);
    Ok(Some((builder.finish(footer.next)?, dead)))
}

/// All frames but pads, verified.
fn frames(segment: &Segment) -> impl Iterator<Item = Result<Frame, ReadError>> {
    let (bytes, mut position) = (segment.published(), format::FRAMES_START);
    std::iter::from_fn(move || {
        while position < bytes.len() {
            match format::decode_frame(bytes, position, segment.nonce()) {
                Ok(frame) => {
                    position = frame.end;
                    if frame.kind != Kind::Pad {
                        return Some(Ok(frame));
                    }
                }
                Err(no) => {
                    let damage = segment.corruption(position, no.into_damage());
                    position = bytes.len();
                    return Some(Err(damage.into()));
                }
            }
        }
        None
    })
}

struct Output {
    builder: SegmentBuilder,
    base: u64,
    /// Records that are gone, not written yet: more may follow. With the timestamp of the first.
    run: Option<(Range<u64>, u64)>,
}

impl Output {
    fn extend_run(&mut self, gone: Range<u64>, timestamp_micros: u64) -> Result<(), FileError> {
        match &mut self.run {
            Some((run, _)) if run.end == gone.start => run.end = gone.end,
            _ => {
                self.end_run()?;
                self.run = Some((gone, timestamp_micros));
            }
        }
        Ok(())
    }

    fn end_run(&mut self) -> Result<(), FileError> {
        match self.run.take() {
            Some((run, timestamp_micros)) => self.remove(run, timestamp_micros, None),
            None => Ok(()),
        }
    }

    /// Writes what stands for records that are gone.
    fn remove(
        &mut self,
        gone: Range<u64>,
        timestamp_micros: u64,
        stamp: Option<crate::stamp::Stamp>,
    ) -> Result<(), FileError> {
        let relative = u32::try_from(gone.start).expect("as the frames that were there");
        let to = (self.base + gone.end).to_le_bytes();
        self.builder.push(&NewFrame {
            stamp,
            ..NewFrame::plain(Kind::Removed, relative, timestamp_micros, &to)
        })
    }
}
