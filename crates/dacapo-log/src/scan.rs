//! Walking the frames of one segment: what recovery, verification and index building share.
//!
//! Looks at bytes only; what a stop means (the end, a tear, damage) is for the caller to judge.

use crate::error::Damage;
use crate::format::{self, Frame, IndexPoint, Kind, NoFrame};
use crate::map;
use crate::offset::Offset;

/// Bytes of frames between two points of a segment's index.
pub(crate) const INDEX_STRIDE_BYTES: usize = format::PAGE_BYTES;

/// What the whole frames at the start of a segment hold, up to the first that is not one.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Where the last complete unit (a frame, or a whole batch) ends.
    pub(crate) end_position: usize,
    /// The offset behind the records, and gaps, up to there.
    pub(crate) next: Offset,
    /// Gap frames up to there.
    pub(crate) gaps: u32,
    pub(crate) payload_bytes: u64,
    /// Some of the frames have a topic or a stamp.
    pub(crate) is_labelled: bool,
    pub(crate) first_timestamp_micros: u64,
    pub(crate) last_timestamp_micros: u64,
    /// The highest durable watermark that the frames carry.
    pub(crate) durable: Option<Offset>,
    pub(crate) index: Vec<IndexPoint>,
    /// Why the scan ended.
    pub(crate) stop: Stop,
    /// The record at the stop, behind those of a batch that breaks off.
    pub(crate) stopped_at: Offset,
}

impl Scan {
    /// Where and why there is no further frame, if there should be one.
    pub(crate) fn missed(&self) -> (usize, Damage) {
        match &self.stop {
            Stop::Unwritten => (self.end_position, Damage::Missing),
            Stop::BatchTorn { damage, position } | Stop::Invalid { damage, position } => {
                (*position, damage.clone())
            }
        }
    }
}

/// Why there is no further frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Zeros, or the end of the bytes.
    Unwritten,
    /// A batch begins, and breaks off.
    BatchTorn { damage: Damage, position: usize },
    /// Something that is no frame, or one that does not belong there.
    Invalid { damage: Damage, position: usize },
}

/// Reads frames from the start of a segment for as long as they are whole, in order, and end
/// before `bytes` does.
pub(crate) fn scan(bytes: &[u8], nonce: u32, base: Offset) -> Scan {
    let mut scan = Scan {
        end_position: format::FRAMES_START,
        next: base,
        gaps: 0,
        payload_bytes: 0,
        is_labelled: false,
        first_timestamp_micros: 0,
        last_timestamp_micros: 0,
        durable: None,
        index: Vec::new(),
        stop: Stop::Unwritten,
        stopped_at: base,
    };
    // What a batch has brought so far; it counts once the batch is complete.
    let mut pending = Pending {
        next: base,
        ..Pending::default()
    };
    let mut position = format::FRAMES_START;
    let mut indexed_to = 0;
    scan.stop = loop {
        let frame = match format::decode_frame(bytes, position, nonce) {
            Ok(frame) => frame,
            Err(NoFrame::Unwritten) if !pending.open => break Stop::Unwritten,
            Err(no) if pending.open => {
                break Stop::BatchTorn {
                    damage: no.into_damage(),
                    position,
                };
            }
            Err(no) => {
                break Stop::Invalid {
                    damage: no.into_damage(),
                    position,
                };
            }
        };
        map::prefetch_next(bytes, frame.start..frame.end);
        if let Some(damage) = out_of_place(&frame, bytes, &pending, base) {
            break Stop::Invalid { damage, position };
        }
        scan.is_labelled |= frame.topic_bytes > 0 || frame.stamped;
        if let Some(durable) = format::durable_of(&frame, bytes) {
            scan.durable = scan.durable.max(Some(durable));
        }
        if frame.kind.is_record() {
            if scan.first_timestamp_micros == 0 {
                scan.first_timestamp_micros = frame.timestamp_micros;
            }
            if position >= indexed_to {
                pending.points.push(point(frame.relative, position));
                indexed_to = position + INDEX_STRIDE_BYTES;
            }
            pending.next = pending.next.next();
            pending.payload_bytes += frame.payload.len() as u64;
        }
        if let Ok(gone) = format::absence_of(&frame, bytes, base) {
            pending.next = gone.end;
            scan.gaps += u32::from(frame.kind == Kind::Gap);
        }
        if frame.kind != Kind::Pad {
            scan.last_timestamp_micros = frame.timestamp_micros;
        }
        pending.open = frame.continues;
        position = frame.end;
        if !pending.open {
            scan.end_position = position;
            scan.next = pending.next;
            scan.payload_bytes += std::mem::take(&mut pending.payload_bytes);
            scan.index.append(&mut pending.points);
        }
    };
    scan.stopped_at = pending.next;
    scan
}

#[derive(Default)]
struct Pending {
    open: bool,
    next: Offset,
    payload_bytes: u64,
    points: Vec<IndexPoint>,
}

pub(crate) fn point(relative: u32, position: usize) -> IndexPoint {
    let position = u32::try_from(position).expect("a segment is at most 1 GiB");
    IndexPoint { relative, position }
}

/// A sound frame that is not the one that belongs behind those before it.
fn out_of_place(frame: &Frame, bytes: &[u8], before: &Pending, base: Offset) -> Option<Damage> {
    let (expected, found) = (before.next, base.plus(frame.relative.into()));
    if frame.kind != Kind::Pad && found != expected {
        return Some(Damage::OutOfPlace { expected, found });
    }
    // Nothing but an absence leaves offsets out, and none does in the middle of a batch.
    if frame.kind.is_absence() {
        return match format::absence_of(frame, bytes, base) {
            Ok(gone) if before.open => Some(Damage::Gap {
                from: gone.start,
                to: gone.end,
            }),
            gone => gone.err(),
        };
    }
    // A file that was given another one's name.
    let begun = format::base_of(frame, bytes).filter(|&begun| begun != base)?;
    Some(Damage::OutOfPlace {
        expected: base,
        found: begun,
    })
}

/// The highest durable watermark in any whole frame at or behind `from`, aligned or not to the
/// frames before it: what shows that a stop is damage and not a tear.
pub(crate) fn durable_behind(bytes: &[u8], from: usize, nonce: u32) -> Option<Offset> {
    let longest = format::frame_bytes(0, format::BEGIN_PAYLOAD_BYTES);
    frames_behind(bytes, from, nonce, longest)
        .filter_map(|frame| format::durable_of(&frame, bytes))
        .max()
}

/// The first whole record, or absence, at or behind `from`, with at least this relative offset.
pub(crate) fn record_behind(bytes: &[u8], from: usize, nonce: u32, relative: u32) -> Option<Frame> {
    frames_behind(bytes, from, nonce, bytes.len())
        .find(|frame| !frame.kind.is_between() && frame.relative >= relative)
}

/// The last whole frame in `bytes`.
pub(crate) fn last_frame(bytes: &[u8], nonce: u32) -> Option<Frame> {
    frames_behind(bytes, 0, nonce, bytes.len()).last()
}

/// Every whole frame of at most `longest` bytes at or behind `from`, tried at every place where one
/// can stand.
pub(crate) fn frames_behind(
    bytes: &[u8],
    from: usize,
    nonce: u32,
    longest: usize,
) -> impl Iterator<Item = Frame> + '_ {
    let mut position = from.next_multiple_of(format::FRAME_ALIGN_BYTES);
    // A payload may be made of words that each seem to begin a long frame. So many bytes are summed
    // in vain, and then only short frames are looked for: what is lost thereby is reported as lost.
    let mut patience = bytes.len().saturating_mul(16);
    std::iter::from_fn(move || {
        while let Some(word) = bytes.get(position..).and_then(|rest| rest.first_chunk()) {
            let word = u64::from_le_bytes(*word);
            let len = match format::frame_bytes_of_word(word) {
                Some(len) if len <= longest.min(patience.max(format::PAGE_BYTES)) => len,
                _ if word == 0 => {
                    position += zeroes_at(&bytes[position..]);
                    continue;
                }
                _ => {
                    position += format::FRAME_ALIGN_BYTES;
                    continue;
                }
            };
            match format::decode_frame(bytes, position, nonce) {
                // A pad has no checksum: it proves nothing.
                Ok(frame) if frame.kind != Kind::Pad => {
                    position = frame.end;
                    return Some(frame);
                }
                _ => {
                    patience = patience.saturating_sub(len);
                    position += format::FRAME_ALIGN_BYTES;
                }
            }
        }
        None
    })
}

/// How far one can go on over zeros: at least one place.
fn zeroes_at(bytes: &[u8]) -> usize {
    const ZEROES: [u8; format::PAGE_BYTES] = [0; format::PAGE_BYTES];
    let pages = bytes
        .chunks_exact(ZEROES.len())
        .take_while(|page| *page == ZEROES)
        .count();
    (pages * ZEROES.len()).max(format::FRAME_ALIGN_BYTES)
}

/// How many bytes there are up to the last one that is not zero.
pub(crate) fn written_bytes(bytes: &[u8]) -> usize {
    const ZEROES: [u8; format::PAGE_BYTES] = [0; format::PAGE_BYTES];
    let pages = bytes
        .rchunks_exact(ZEROES.len())
        .take_while(|page| *page == ZEROES)
        .count();
    let rest = &bytes[..bytes.len() - pages * ZEROES.len()];
    rest.iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1)
}
