//! Frames: what lies back to back in a segment. Records, and what the log says to itself.

use std::ops::Range;

use super::{FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, OFFSETS_END, SECTOR_BYTES};
use crate::error::Damage;
use crate::offset::{Epoch, Offset};
use crate::stamp::Stamp;

/// Stored last.
pub(crate) const COMMIT_WORD_BYTES: usize = 8;
/// The checksum covers a frame from here to the end of its payload.
pub(crate) const FRAME_SUMMED_FROM: usize = 12;

/// A frame that begins a segment: base offset, epoch, durable watermark.
pub(crate) const BEGIN_PAYLOAD_BYTES: usize = 24;
/// A frame that says how far the last flush got.
pub(crate) const MARK_PAYLOAD_BYTES: usize = 8;
/// A frame that stands for records that are gone: the offset behind them.
pub(crate) const ABSENCE_PAYLOAD_BYTES: usize = 8;
/// A producer's stamp, before the topic: producer, epoch, sequence.
pub(crate) const STAMP_BYTES: usize = 32;
/// What the commit word has room for.
pub(crate) const TOPIC_BYTES_MAX: usize = u8::MAX as usize;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record.
    Record = 1,
    /// The first frame of a segment.
    Begin = 2,
    /// The durable watermark, after a flush.
    Mark = 3,
    /// Nothing, up to the next sector; the commit word stands alone.
    Pad = 4,
    /// Records that were lost for good, in place of them.
    Gap = 5,
    /// Records that a compaction has removed, in place of them.
    Removed = 6,
    /// A record that says: all earlier records of its topic are deleted.
    Deletion = 7,
}

impl Kind {
    /// Whether the frame lies between records and stands for none of them.
    pub(crate) fn is_between(self) -> bool {
        matches!(self, Self::Begin | Self::Mark | Self::Pad)
    }

    /// Whether the frame is one record.
    #[inline]
    pub(crate) fn is_record(self) -> bool {
        matches!(self, Self::Record | Self::Deletion)
    }

    /// Whether the frame stands for records that are gone.
    pub(crate) fn is_absence(self) -> bool {
        matches!(self, Self::Gap | Self::Removed)
    }
}

/// The top byte of every commit word, so that no valid one is zero.
const WORD_TAG: u64 = 0xDC;
/// Further frames of the same batch follow.
const FLAG_CONTINUES: u64 = 1;
/// A producer's stamp stands before the topic.
const FLAG_STAMPED: u64 = 2;

/// The commit word that fills the rest of a sector.
pub(crate) const PAD_WORD: u64 = WORD_TAG << 56 | (Kind::Pad as u64) << 40;

#[inline]
fn commit_word(kind: Kind, flags: u64, topic_bytes: u8, payload_bytes: u32) -> u64 {
    WORD_TAG << 56
        | flags << 48
        | (kind as u64) << 40
        | u64::from(topic_bytes) << 32
        | u64::from(payload_bytes)
}

/// A commit word taken apart.
#[derive(Clone, Copy)]
struct Word {
    kind: Kind,
    continues: bool,
    stamped: bool,
    topic_bytes: u8,
    payload_bytes: usize,
}

impl Word {
    /// `None` for a word that is never written.
    fn parse(word: u64) -> Option<Self> {
        let [.., topic_bytes, kind, flags, tag] = word.to_le_bytes();
        let kind = match kind {
            1 => Kind::Record,
            2 => Kind::Begin,
            3 => Kind::Mark,
            4 if word == PAD_WORD => Kind::Pad,
            5 => Kind::Gap,
            6 => Kind::Removed,
            7 => Kind::Deletion,
            _ => return None,
        };
        let flags = u64::from(flags);
        let known = flags & !(FLAG_CONTINUES | FLAG_STAMPED) == 0;
        (u64::from(tag) == WORD_TAG && known).then_some(Self {
            kind,
            continues: flags & FLAG_CONTINUES != 0,
            stamped: flags & FLAG_STAMPED != 0,
            topic_bytes,
            payload_bytes: usize::try_from(word & u64::from(u32::MAX)).ok()?,
        })
    }

    /// The bytes between the header and the payload.
    #[inline]
    fn label_bytes(self) -> usize {
        label_bytes(self.stamped, self.topic_bytes.into())
    }
}

/// The bytes that a frame takes in its segment; the label is a stamp and a topic, if it has them.
#[inline]
pub(crate) const fn frame_bytes(label_bytes: usize, payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + label_bytes + payload_bytes).next_multiple_of(FRAME_ALIGN_BYTES)
}

#[inline]
pub(crate) const fn label_bytes(stamped: bool, topic_bytes: usize) -> usize {
    topic_bytes + if stamped { STAMP_BYTES } else { 0 }
}

/// Where the frames behind a flushed one go: the next whole sector.
pub(crate) const fn next_sector(position: usize) -> usize {
    position.next_multiple_of(SECTOR_BYTES)
}

/// The sum of a frame, salted with its segment's nonce and with the commit word.
///
/// The salt goes in as the initial value: over the same bytes, two different salts always give
/// two different sums, so a frame of another segment never passes.
#[inline]
pub(crate) fn checksum(nonce: u32, word: u64, summed: &[u8]) -> u32 {
    let mut sum = summing(nonce, word);
    sum.update(summed);
    sum.finalize()
}

#[inline]
fn summing(nonce: u32, word: u64) -> crc32fast::Hasher {
    crc32fast::Hasher::new_with_initial(nonce ^ folded(word))
}

/// A payload of up to so many bytes is summed where the caller has it. Loads that follow on the
/// stores of the same bytes wait for them, which takes longer than a sum in pieces; with more bytes,
/// the processor has other things to do meanwhile: see "Findings" in docs/architecture.md.
const SUMMED_AT_ITS_SOURCE_BYTES_MAX: usize = 384;

/// What a commit word adds to the salt.
#[inline]
fn folded(word: u64) -> u32 {
    let low = u32::try_from(word & u64::from(u32::MAX)).expect("masked");
    let high = u32::try_from(word >> 32).expect("shifted");
    low ^ high
}

/// What may be a frame, for whoever does not know the nonce.
pub(super) struct Unverified<'a> {
    pub(super) stored: u32,
    /// What was summed; the initial value was the nonce, XORed with `folded_word`.
    pub(super) summed: &'a [u8],
    pub(super) folded_word: u32,
    pub(super) end: usize,
}

/// What has the shape of a frame with a checksum at `position`.
pub(super) fn unverified(bytes: &[u8], position: usize) -> Option<Unverified<'_>> {
    let rest = bytes.get(position..)?;
    let raw = u64::from_le_bytes(*rest.first_chunk()?);
    let word = Word::parse(raw).filter(|word| word.kind != Kind::Pad)?;
    let frame = rest.get(..frame_bytes(word.label_bytes(), word.payload_bytes))?;
    let summed_to = FRAME_HEADER_BYTES + word.label_bytes() + word.payload_bytes;
    Some(Unverified {
        stored: le!(u32, frame, 8),
        summed: &frame[FRAME_SUMMED_FROM..summed_to],
        folded_word: folded(raw),
        end: position + frame.len(),
    })
}

/// What a frame says, before it is written.
#[derive(Clone, Copy)]
pub(crate) struct NewFrame<'a> {
    pub(crate) kind: Kind,
    pub(crate) continues: bool,
    /// The record's offset less the segment's base; for other kinds, that of the next record, and
    /// for an absence that of the first record that is gone.
    pub(crate) relative: u32,
    pub(crate) timestamp_micros: u64,
    pub(crate) stamp: Option<Stamp>,
    /// Empty for none.
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
}

impl<'a> NewFrame<'a> {
    /// A frame of its own, without a label.
    pub(crate) fn plain(
        kind: Kind,
        relative: u32,
        timestamp_micros: u64,
        payload: &'a [u8],
    ) -> Self {
        Self {
            kind,
            continues: false,
            relative,
            timestamp_micros,
            stamp: None,
            topic: "",
            payload,
        }
    }

    #[inline]
    fn label_bytes(&self) -> usize {
        label_bytes(self.stamp.is_some(), self.topic.len())
    }

    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        frame_bytes(self.label_bytes(), self.payload.len())
    }

    /// Writes all but the commit word, which it returns: the caller stores it last. `behind_word` is
    /// the rest of exactly [`bytes`](Self::bytes).
    #[inline(always)]
    pub(crate) fn encode(&self, nonce: u32, behind_word: &mut [u8]) -> u64 {
        const WORD: usize = COMMIT_WORD_BYTES;
        let into = behind_word;
        let payload_bytes = u32::try_from(self.payload.len()).expect("checked against a segment");
        let topic_bytes = u8::try_from(self.topic.len()).expect("checked when it was parsed");
        let continues = if self.continues { FLAG_CONTINUES } else { 0 };
        let stamped = if self.stamp.is_some() {
            FLAG_STAMPED
        } else {
            0
        };
        let word = commit_word(self.kind, continues | stamped, topic_bytes, payload_bytes);
        let (relative, timestamp) = (
            self.relative.to_le_bytes(),
            self.timestamp_micros.to_le_bytes(),
        );
        into[FRAME_SUMMED_FROM - WORD..16 - WORD].copy_from_slice(&relative);
        into[16 - WORD..24 - WORD].copy_from_slice(&timestamp);
        let mut at = FRAME_HEADER_BYTES - WORD;
        if let Some(stamp) = &self.stamp {
            into[at..at + STAMP_BYTES].copy_from_slice(&stamp_bytes(stamp));
            at += STAMP_BYTES;
        }
        if !self.topic.is_empty() {
            into[at..at + self.topic.len()].copy_from_slice(self.topic.as_bytes());
            at += self.topic.len();
        }
        let summed_to = at + self.payload.len();
        into[at..summed_to].copy_from_slice(self.payload);
        let mut sum = summing(nonce, word);
        if self.payload.len() > SUMMED_AT_ITS_SOURCE_BYTES_MAX {
            sum.update(&into[FRAME_SUMMED_FROM - WORD..summed_to]);
        } else {
            sum.update(&relative);
            sum.update(&timestamp);
            if let Some(stamp) = &self.stamp {
                sum.update(&stamp_bytes(stamp));
            }
            if !self.topic.is_empty() {
                sum.update(self.topic.as_bytes());
            }
            sum.update(self.payload);
        }
        let sum = sum.finalize();
        into[..12 - WORD].copy_from_slice(&sum.to_le_bytes());
        word
    }
}

/// A frame as it was read, its checksum verified.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) start: usize,
    pub(crate) kind: Kind,
    pub(crate) continues: bool,
    pub(crate) relative: u32,
    pub(crate) timestamp_micros: u64,
    pub(crate) stamped: bool,
    /// The topic's bytes stand before the payload.
    pub(crate) topic_bytes: u8,
    pub(crate) payload: Range<usize>,
    /// Where the next frame stands.
    pub(crate) end: usize,
}

impl Frame {
    /// Its topic; empty for none. `bytes` are those that it was read from.
    pub(crate) fn topic<'a>(&self, bytes: &'a [u8]) -> &'a str {
        topic_before(bytes, self.payload.start, self.topic_bytes)
    }

    /// Its producer's stamp. `bytes` are those that it was read from.
    pub(crate) fn stamp(&self, bytes: &[u8]) -> Option<Stamp> {
        self.stamped
            .then(|| stamp_before(bytes, self.payload.start, self.topic_bytes))
    }
}

/// The topic of a verified frame, from where its payload begins.
pub(crate) fn topic_before(bytes: &[u8], payload_start: usize, topic_bytes: u8) -> &str {
    let topic = &bytes[payload_start - usize::from(topic_bytes)..payload_start];
    std::str::from_utf8(topic).expect("checked when the frame was read")
}

fn stamp_bytes(stamp: &Stamp) -> [u8; STAMP_BYTES] {
    let mut bytes = [0; STAMP_BYTES];
    bytes[..16].copy_from_slice(&stamp.producer.to_le_bytes());
    bytes[16..24].copy_from_slice(&stamp.epoch.to_le_bytes());
    bytes[24..].copy_from_slice(&stamp.sequence.to_le_bytes());
    bytes
}

/// The stamp of a verified frame that has one.
pub(crate) fn stamp_before(bytes: &[u8], payload_start: usize, topic_bytes: u8) -> Stamp {
    let at = payload_start - usize::from(topic_bytes) - STAMP_BYTES;
    Stamp {
        producer: le!(u128, bytes, at),
        epoch: le!(u64, bytes, at + 16),
        sequence: le!(u64, bytes, at + 24),
    }
}

/// Why there is no frame at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoFrame {
    /// Zeros: nothing was written here yet.
    Unwritten,
    /// Something else than a whole frame.
    Invalid(Damage),
}

impl NoFrame {
    /// What this means where a frame is known to have been stored.
    pub(crate) fn into_damage(self) -> Damage {
        match self {
            Self::Unwritten => Damage::Missing,
            Self::Invalid(damage) => damage,
        }
    }
}

/// How many bytes the frame that `word` begins takes, from the word alone; `None` if it is no
/// frame's. For a reader that must copy a frame before it may look at it.
pub(crate) fn frame_bytes_of_word(word: u64) -> Option<usize> {
    let word = Word::parse(word)?;
    Some(match word.kind {
        Kind::Pad => FRAME_ALIGN_BYTES,
        _ => frame_bytes(word.label_bytes(), word.payload_bytes),
    })
}

/// A frame's kind and place, as they are without a look at its checksum.
pub(crate) struct Peek {
    pub(crate) kind: Kind,
    pub(crate) relative: u32,
    pub(crate) end: usize,
}

/// Looks at what seems to be a frame; `None` where nothing does.
pub(crate) fn peek_frame(bytes: &[u8], position: usize) -> Option<Peek> {
    let header = bytes.get(position..)?.get(..FRAME_ALIGN_BYTES)?;
    let word = Word::parse(le!(u64, header, 0))?;
    if word.kind == Kind::Pad {
        return Some(Peek {
            kind: Kind::Pad,
            relative: 0,
            end: next_sector(position + FRAME_ALIGN_BYTES),
        });
    }
    let len = frame_bytes(word.label_bytes(), word.payload_bytes);
    let frame = bytes[position..].get(..len)?;
    Some(Peek {
        kind: word.kind,
        relative: le!(u32, frame, FRAME_SUMMED_FROM),
        end: position + len,
    })
}

/// Reads and verifies the frame at `position` of a segment's bytes.
#[inline(always)]
pub(crate) fn decode_frame(bytes: &[u8], position: usize, nonce: u32) -> Result<Frame, NoFrame> {
    match decode_sound_record(bytes, position, nonce) {
        Some(frame) => Ok(frame),
        None => decode_any_frame(bytes, position, nonce),
    }
}

/// What nearly every frame is, read with as little as possible: a sound record without a stamp. `None`
/// for everything else, and wherever there is something to be said about what is wrong.
#[inline(always)]
fn decode_sound_record(bytes: &[u8], position: usize, nonce: u32) -> Option<Frame> {
    /// The bits that differ between such records.
    const VARYING: u64 = FLAG_CONTINUES << 48 | 0xff << 32 | 0xffff_ffff;
    const RECORD: u64 = WORD_TAG << 56 | (Kind::Record as u64) << 40;

    let rest = bytes.get(position..)?;
    let word_bytes = *rest.first_chunk()?;
    let word = u64::from_le_bytes(word_bytes);
    if word & !VARYING != RECORD {
        return None;
    }
    let [p0, p1, p2, p3, topic_bytes, ..] = word_bytes;
    let payload_from = FRAME_HEADER_BYTES + usize::from(topic_bytes);
    let payload_bytes = usize::try_from(u32::from_le_bytes([p0, p1, p2, p3])).ok()?;
    let summed_to = payload_from + payload_bytes;
    let len = summed_to.next_multiple_of(FRAME_ALIGN_BYTES);
    let frame = rest.get(..len)?;
    if le!(u32, frame, 8) != checksum(nonce, word, &frame[FRAME_SUMMED_FROM..summed_to]) {
        return None;
    }
    if topic_bytes > 0 && std::str::from_utf8(&frame[FRAME_HEADER_BYTES..payload_from]).is_err() {
        return None;
    }
    Some(Frame {
        start: position,
        kind: Kind::Record,
        continues: word & FLAG_CONTINUES << 48 != 0,
        relative: le!(u32, frame, FRAME_SUMMED_FROM),
        timestamp_micros: le!(u64, frame, 16),
        stamped: false,
        topic_bytes,
        payload: position + payload_from..position + summed_to,
        end: position + len,
    })
}

#[cold]
#[inline(never)]
fn decode_any_frame(bytes: &[u8], position: usize, nonce: u32) -> Result<Frame, NoFrame> {
    let Some(rest) = bytes.get(position..) else {
        return Err(NoFrame::Unwritten);
    };
    let Some((&first, _)) = rest.split_first_chunk::<8>() else {
        return Err(NoFrame::Unwritten);
    };
    let raw = u64::from_le_bytes(first);
    if raw == 0 {
        return Err(NoFrame::Unwritten);
    }
    let Some(word) = Word::parse(raw) else {
        return Err(NoFrame::Invalid(Damage::Frame { word: raw }));
    };
    if word.kind == Kind::Pad {
        return Ok(Frame {
            start: position,
            kind: Kind::Pad,
            continues: false,
            relative: 0,
            timestamp_micros: 0,
            stamped: false,
            topic_bytes: 0,
            payload: position..position,
            end: next_sector(position + FRAME_ALIGN_BYTES),
        });
    }
    let len = frame_bytes(word.label_bytes(), word.payload_bytes);
    let Some(frame) = rest.get(..len) else {
        let (bytes, left) = (len as u64, rest.len() as u64);
        return Err(NoFrame::Invalid(Damage::Overrun { bytes, left }));
    };
    let payload_from = FRAME_HEADER_BYTES + word.label_bytes();
    let summed_to = payload_from + word.payload_bytes;
    let stored = le!(u32, frame, 8);
    let computed = checksum(nonce, raw, &frame[FRAME_SUMMED_FROM..summed_to]);
    if stored != computed {
        return Err(NoFrame::Invalid(Damage::Checksum { stored, computed }));
    }
    if word.topic_bytes > 0 {
        let topic = &frame[payload_from - usize::from(word.topic_bytes)..payload_from];
        if std::str::from_utf8(topic).is_err() {
            return Err(NoFrame::Invalid(Damage::Topic));
        }
    }
    Ok(Frame {
        start: position,
        kind: word.kind,
        continues: word.continues,
        relative: le!(u32, frame, FRAME_SUMMED_FROM),
        timestamp_micros: le!(u64, frame, 16),
        stamped: word.stamped,
        topic_bytes: word.topic_bytes,
        payload: position + payload_from..position + summed_to,
        end: position + len,
    })
}

/// What a [`Kind::Begin`] frame holds.
pub(crate) struct Begin {
    pub(crate) base: Offset,
    pub(crate) epoch: Epoch,
    /// All records before this one were durable when the segment began.
    pub(crate) durable: Offset,
}

impl Begin {
    pub(crate) fn encode(&self) -> [u8; BEGIN_PAYLOAD_BYTES] {
        let mut payload = [0; BEGIN_PAYLOAD_BYTES];
        payload[..8].copy_from_slice(&self.base.get().to_le_bytes());
        payload[8..16].copy_from_slice(&self.epoch.get().to_le_bytes());
        payload[16..].copy_from_slice(&self.durable.get().to_le_bytes());
        payload
    }
}

/// The base that a [`Kind::Begin`] frame gives its segment.
pub(crate) fn base_of(frame: &Frame, bytes: &[u8]) -> Option<Offset> {
    let payload = &bytes[frame.payload.clone()];
    let begins = frame.kind == Kind::Begin && payload.len() == BEGIN_PAYLOAD_BYTES;
    begins.then(|| Offset::new(le!(u64, payload, 0)))
}

/// The durable watermark that a frame carries: all records before it were safe from power loss
/// when the frame was written.
pub(crate) fn durable_of(frame: &Frame, bytes: &[u8]) -> Option<Offset> {
    let payload = &bytes[frame.payload.clone()];
    let durable = match frame.kind {
        Kind::Begin if payload.len() == BEGIN_PAYLOAD_BYTES => le!(u64, payload, 16),
        Kind::Mark if payload.len() == MARK_PAYLOAD_BYTES => le!(u64, payload, 0),
        _ => return None,
    };
    (durable < OFFSETS_END).then_some(Offset::new(durable))
}

/// The records that a [`Kind::Gap`] or [`Kind::Removed`] frame of the segment at `base` stands for: at
/// least one.
pub(crate) fn absence_of(
    frame: &Frame,
    bytes: &[u8],
    base: Offset,
) -> Result<Range<Offset>, Damage> {
    let payload = &bytes[frame.payload.clone()];
    let from = base.plus(frame.relative.into());
    let to = match payload.len() {
        ABSENCE_PAYLOAD_BYTES => Offset::new(le!(u64, payload, 0)),
        _ => from,
    };
    let sound = frame.kind.is_absence() && from < to && to.get() < OFFSETS_END;
    if sound && !frame.continues {
        Ok(from..to)
    } else {
        Err(Damage::Gap { from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8], nonce: u32) -> Vec<u8> {
        let new = NewFrame::plain(Kind::Record, 7, 99, payload);
        let mut bytes = vec![0; new.bytes()];
        let word = new.encode(nonce, &mut bytes[8..]);
        bytes[..8].copy_from_slice(&word.to_le_bytes());
        bytes
    }

    #[test]
    fn a_frame_comes_back_as_it_went_in() {
        let bytes = frame(b"hello", 1);

        let read = decode_frame(&bytes, 0, 1).unwrap();

        assert_eq!((read.kind, read.continues), (Kind::Record, false));
        assert_eq!((read.relative, read.timestamp_micros), (7, 99));
        assert_eq!(&bytes[read.payload], b"hello");
        assert_eq!(read.end, 32);
    }

    #[test]
    fn a_topic_and_a_stamp_come_back_with_their_frame() {
        let stamp = Stamp {
            producer: u128::MAX - 1,
            epoch: 3,
            sequence: 1 << 40,
        };
        for (stamp, topic) in [(None, "rooms:lobby"), (Some(stamp), ""), (Some(stamp), "x")] {
            let new = NewFrame {
                stamp,
                topic,
                ..NewFrame::plain(Kind::Record, 7, 99, b"hello")
            };
            let mut bytes = vec![0; new.bytes()];
            let word = new.encode(1, &mut bytes[8..]);
            bytes[..8].copy_from_slice(&word.to_le_bytes());

            let read = decode_frame(&bytes, 0, 1).unwrap();

            assert_eq!((read.topic(&bytes), read.stamp(&bytes)), (topic, stamp));
            assert_eq!(&bytes[read.payload], b"hello");
            assert_eq!(read.end, bytes.len());
        }
    }

    #[test]
    fn a_topic_that_is_no_text_is_damage() {
        let (nonce, topic) = (1, b"\xFFx");
        let word = commit_word(Kind::Record, 0, 2, 0);
        let mut bytes = vec![0; frame_bytes(2, 0)];
        bytes[..8].copy_from_slice(&word.to_le_bytes());
        bytes[24..26].copy_from_slice(topic);
        let sum = checksum(nonce, word, &bytes[FRAME_SUMMED_FROM..26]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        let read = decode_frame(&bytes, 0, nonce).unwrap_err();
        assert_eq!(read, NoFrame::Invalid(Damage::Topic));
    }

    #[test]
    fn every_flipped_bit_that_a_frame_uses_is_noticed() {
        let bytes = frame(b"a payload", 0x1234_5678);
        for bit in 0..(FRAME_HEADER_BYTES + 9) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frame(&flipped, 0, 0x1234_5678).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_gap_must_lead_forward_to_an_offset_that_can_be() {
        let base = Offset::new(10);
        let gap = |to: u64, continues| {
            let to = to.to_le_bytes();
            let new = NewFrame {
                continues,
                ..NewFrame::plain(Kind::Gap, 7, 99, &to)
            };
            let mut bytes = vec![0; new.bytes()];
            let word = new.encode(1, &mut bytes[8..]);
            bytes[..8].copy_from_slice(&word.to_le_bytes());
            let frame = decode_frame(&bytes, 0, 1).unwrap();
            absence_of(&frame, &bytes, base)
        };

        assert_eq!(gap(18, false), Ok(Offset::new(17)..Offset::new(18)));
        assert!(gap(17, false).is_err());
        assert!(gap(3, false).is_err());
        assert!(gap(u64::MAX, false).is_err());
        assert!(gap(18, true).is_err(), "a gap is in no batch");
    }

    #[test]
    fn a_frame_of_another_segment_never_passes() {
        let bytes = frame(b"hello", 1);
        for shift in 0..32 {
            assert!(decode_frame(&bytes, 0, 1 ^ 1 << shift).is_err());
        }
    }

    #[test]
    fn a_frame_that_claims_more_than_there_is_is_refused() {
        let bytes = frame(&[1; 100], 1);
        assert!(matches!(
            decode_frame(&bytes[..64], 0, 1),
            Err(NoFrame::Invalid(Damage::Overrun {
                bytes: 128,
                left: 64
            }))
        ));
        assert_eq!(
            decode_frame(&bytes[..4], 0, 1).unwrap_err(),
            NoFrame::Unwritten
        );
    }

    /// Whatever a bit is flipped in: what the short way reads is what the complete one reads.
    #[test]
    fn the_short_way_to_a_record_accepts_what_the_complete_one_does() {
        const NONCE: u32 = 5;
        let stamp = Stamp {
            producer: 1,
            epoch: 2,
            sequence: 3,
        };
        let payloads = [&b""[..], b"hello", &[7; SUMMED_AT_ITS_SOURCE_BYTES_MAX + 1]];
        for (payload, topic) in payloads.into_iter().zip(["", "room", "other"]) {
            for (stamp, continues) in [(None, false), (None, true), (Some(stamp), false)] {
                let new = NewFrame {
                    stamp,
                    continues,
                    topic,
                    ..NewFrame::plain(Kind::Record, 7, 99, payload)
                };
                let mut sound = vec![0; new.bytes()];
                let word = new.encode(NONCE, &mut sound[8..]);
                sound[..8].copy_from_slice(&word.to_le_bytes());
                let summed_to =
                    FRAME_HEADER_BYTES + label_bytes(stamp.is_some(), topic.len()) + payload.len();
                // Miri is too slow for all of them.
                let stride = if cfg!(miri) { 97 } else { 1 };
                for bit in (0..sound.len() * 8).step_by(stride) {
                    let mut bytes = sound.clone();
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    let short = decode_sound_record(&bytes, 0, NONCE);
                    let complete = decode_any_frame(&bytes, 0, NONCE).ok();
                    assert_eq!(complete.is_some(), bit / 8 >= summed_to, "bit {bit}");
                    let plain = complete.filter(|frame| !frame.stamped);
                    assert_eq!(format!("{short:?}"), format!("{plain:?}"), "bit {bit}");
                }
            }
        }
    }
}
