//! What the fuzz targets need of the inside: right checksums on wrong bytes, and checks of the pure
//! functions. Under `--cfg fuzzing` only, which cargo-fuzz sets.

use std::hash::{DefaultHasher, Hasher};

use crate::format::{
    self, Begin, DictionaryPlace, FOOTER_BYTES, FRAMES_START, Footer, Frame, IndexPoint, Kind,
    META_SLOT_BYTES, Meta, NewFrame, PAD_WORD, SEGMENT_HEADER_BYTES, SegmentHeader,
    TOPICS_PAGE_BYTES, TOPICS_PAGE_CONTENT_BYTES, TopicsHeader,
};
use crate::index;
use crate::offset::{Epoch, Offset};
use crate::scan::{self, Scan, Stop};
use crate::stamp::Stamp;

/// What a checksum is of.
#[derive(Clone, Copy, Debug)]
pub enum Summed {
    /// The header of a segment file.
    Header,
    /// The footer in its last page.
    Footer,
    /// The frame of a segment file that begins at this byte.
    Frame(usize),
    /// This slot of a `meta` file.
    MetaSlot(usize),
    /// A whole index file.
    Index,
    /// The header of a topics file, and each of its pages.
    Topics,
}

/// Puts the right checksum on what stands there, whatever it is; leaves alone what has no place for
/// one.
pub fn sum(file: &mut [u8], what: Summed) {
    // Where a file is too short for it, there is nothing to sum.
    let _ = try_sum(file, what);
}

fn try_sum(file: &mut [u8], what: Summed) -> Option<()> {
    match what {
        Summed::Header => format::seal_block(file.first_chunk_mut()?),
        Summed::Footer => {
            let at = file.len().checked_sub(format::FOOTER_PAGE_BYTES)?;
            format::seal_block(file[at..].first_chunk_mut()?);
        }
        Summed::Frame(at) => {
            let nonce = nonce_of(file)?;
            sum_frame(file, at, nonce)?;
        }
        Summed::MetaSlot(slot) => {
            let slot = file.get_mut(slot * META_SLOT_BYTES..)?.first_chunk_mut()?;
            let sum = format::meta_checksum(slot);
            slot[12..16].copy_from_slice(&sum.to_le_bytes());
        }
        Summed::Index => {
            file.get(..16)?;
            let sum = format::index_checksum(file);
            file[12..16].copy_from_slice(&sum.to_le_bytes());
        }
        Summed::Topics => {
            let nonce = TopicsHeader::nonce_of(file)?;
            let (header, pages) = file.split_first_chunk_mut()?;
            format::seal_block(header);
            for (number, page) in pages.chunks_exact_mut(TOPICS_PAGE_BYTES).enumerate() {
                let (content, stored) = page.split_at_mut(TOPICS_PAGE_CONTENT_BYTES);
                let sum = format::page_checksum(nonce, number, content);
                stored.copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
    Some(())
}

fn sum_frame(bytes: &mut [u8], at: usize, nonce: u32) -> Option<()> {
    let frame = bytes.get_mut(at..)?;
    let word = u64::from_le_bytes(*frame.first_chunk()?);
    let [b0, b1, b2, b3, topic_bytes, ..] = word.to_le_bytes();
    let payload_bytes = u32::from_le_bytes([b0, b1, b2, b3]) as usize;
    let end = format::FRAME_HEADER_BYTES + usize::from(topic_bytes) + payload_bytes;
    let summed = frame.get(format::FRAME_SUMMED_FROM..end)?;
    let sum = format::checksum(nonce, word, summed);
    frame[8..12].copy_from_slice(&sum.to_le_bytes());
    Some(())
}

/// Decodes any bytes as each thing that a log has on disk, as they are and with a right checksum.
/// What decodes comes back from being encoded.
pub fn check_formats(input: &[u8]) {
    check_as_they_are(input);
    for what in [
        Summed::Header,
        Summed::Footer,
        Summed::Frame(0),
        Summed::MetaSlot(0),
        Summed::Index,
        Summed::Topics,
    ] {
        let mut summed = input.to_vec();
        sum(&mut summed, what);
        check_as_they_are(&summed);
    }
    check_scans(input);
    check_new_frames(input);
}

fn check_as_they_are(bytes: &[u8]) {
    if let Some(Ok(meta)) = bytes.first_chunk().map(Meta::decode) {
        let encoded = meta.encode();
        assert_eq!(Meta::decode(&encoded).as_ref(), Ok(&meta));
        assert_eq!(meta.encode(), encoded);
    }
    if let Some(block) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>()
        && let Ok(header) = SegmentHeader::decode(block)
    {
        let encoded = header.encode();
        assert_eq!(SegmentHeader::decode(&encoded), Ok(header));
        assert_eq!(without_reserved(&encoded), without_reserved(block));
    }
    if let Some(block) = bytes.first_chunk::<FOOTER_BYTES>()
        && let Some(footer) = Footer::decode(block)
    {
        let encoded = footer.encode();
        assert_eq!(Footer::decode(&encoded), Some(footer));
        assert_eq!(without_reserved(&encoded), without_reserved(block));
    }
    let nonce = format::index_nonce(bytes).unwrap_or(0);
    if let Some(points) = format::decode_index(bytes, nonce) {
        let encoded = format::encode_index(nonce, &points);
        assert_eq!(encoded.len(), bytes.len());
        assert_eq!(encoded[..12], bytes[..12]);
        assert_eq!(encoded[24..], bytes[24..]);
        for relative in [0, 1, u32::MAX / 2, u32::MAX] {
            // Sorted or not: any answer will do, and is checked against the segment.
            index::point_before(&points, relative);
        }
    }
    check_topics(bytes);
    if let Some(nonce) = nonce_of(bytes)
        && let Ok(frame) = format::decode_frame(bytes, 0, nonce)
    {
        check_frame(bytes, nonce, &frame);
    }
}

/// Any bytes as a topics file: what decodes lies where it may, in order.
fn check_topics(bytes: &[u8]) -> Option<()> {
    let nonce = TopicsHeader::nonce_of(bytes)?;
    let (block, rest) = bytes.split_first_chunk()?;
    let header = TopicsHeader::decode(block, nonce)?;
    let encoded = header.encode();
    assert_eq!(TopicsHeader::decode(&encoded, nonce), Some(header));
    assert!(header.file_bytes() >= block.len() as u64);
    let (pages, _) = rest.as_chunks::<TOPICS_PAGE_BYTES>();
    for (number, page) in pages.iter().enumerate() {
        let Some(content) = format::checked_page(nonce, number, page) else {
            continue;
        };
        // As a dictionary and as postings, whichever it is.
        let first = DictionaryPlace::first_name(content).map(<[u8]>::to_vec);
        let mut place = DictionaryPlace::first(content, header.span);
        let mut is_first = true;
        while let Some(Some(entry)) = place.as_mut().and_then(|it| it.next_entry(content)) {
            assert!(!is_first || first.as_ref() == Some(&entry.name));
            is_first = false;
            let (share, postings) = (entry.share, entry.postings);
            let end = postings.at.checked_add(postings.bytes);
            assert!(end.is_some(), "checked as it is read");
            assert!(share.newest().is_some_and(|newest| newest < header.span));
            let (first, last) = (share.first, share.last);
            if postings.lies_in(&header)
                && let Some(numbers) = format::decode_postings(content, share.count, first, last)
            {
                assert_eq!(numbers.len(), share.count as usize);
                assert!(numbers.is_sorted_by(|a, b| a < b));
                let is_first = |number: &u32| *number == first;
                assert!(numbers.first().is_none_or(is_first));
                let is_last = |number: &u32| *number == last;
                assert!(numbers.last().is_none_or(is_last));
                // Written anew, they are the same numbers.
                let mut written = Vec::new();
                format::encode_postings(&numbers, &mut written);
                let again = format::decode_postings(&written, share.count, first, last);
                assert_eq!(again, Some(numbers));
            }
        }
        let (producers, _) = content.as_chunks();
        for bytes in producers {
            let (relative, _) = format::decode_producer(bytes);
            assert_eq!(relative.to_le_bytes(), bytes[..4]);
        }
    }
    Some(())
}

/// A segment's nonce, where the bytes are long enough to have one.
fn nonce_of(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(12..16)?.first_chunk()?))
}

/// The word that stands inside these bytes.
fn word_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("8 bytes"))
}

/// A 64-byte block but for the four bytes that mean nothing and the sum over them.
fn without_reserved(block: &[u8; 64]) -> &[u8] {
    &block[..56]
}

/// A frame that was read lies in its bytes, and is written the same way again.
fn check_frame(bytes: &[u8], nonce: u32, frame: &Frame) {
    assert!(frame.start < frame.end);
    if frame.kind == Kind::Pad {
        assert!(frame.end.is_multiple_of(format::SECTOR_BYTES));
        return;
    }
    assert!(frame.payload.end <= frame.end && frame.end <= bytes.len());
    let word = word_at(bytes, frame.start);
    let len = frame.end - frame.start;
    assert_eq!(format::frame_bytes_of_word(word), Some(len));
    // Of any kind and length, without a look behind its end.
    format::durable_of(frame, bytes);
    format::base_of(frame, bytes);
    let again = NewFrame {
        stamp: frame.stamp(bytes),
        topic: frame.topic(bytes),
        kind: frame.kind,
        continues: frame.continues,
        relative: frame.relative,
        timestamp_micros: frame.timestamp_micros,
        payload: &bytes[frame.payload.clone()],
    };
    let mut encoded = vec![0; again.bytes()];
    let encoded_word = again.encode(nonce, &mut encoded[8..]);
    assert_eq!(encoded_word, word);
    let summed = frame.payload.end - frame.start;
    assert_eq!(
        encoded[8..summed],
        bytes[frame.start + 8..frame.payload.end]
    );
}

/// Walks any bytes as the frames of a segment.
fn check_scans(input: &[u8]) {
    let Some((&seed, frames)) = input.split_first_chunk::<8>() else {
        return;
    };
    let seed = u64::from_le_bytes(seed);
    let nonce = u32::try_from(seed & 0xFFFF_FFFF).expect("masked");
    // As `segment::base_of_name` lets through.
    let base = Offset::new(seed >> 32);
    let mut bytes = vec![0; FRAMES_START];
    bytes.extend_from_slice(frames);
    bytes.resize(bytes.len().next_multiple_of(format::SECTOR_BYTES), 0);
    // As they are, and with the right sum wherever a frame could begin.
    check_scan(&bytes, nonce, base);
    for at in (FRAMES_START..bytes.len()).step_by(format::FRAME_ALIGN_BYTES) {
        let word = word_at(&bytes, at);
        if word != PAD_WORD && format::frame_bytes_of_word(word).is_some() {
            sum_frame(&mut bytes, at, nonce);
        }
    }
    check_scan(&bytes, nonce, base);
}

fn check_scan(bytes: &[u8], nonce: u32, base: Offset) -> Scan {
    let scan = scan::scan(bytes, nonce, base);
    let end = scan.end_position;
    assert!((FRAMES_START..=bytes.len()).contains(&end) && end.is_multiple_of(8));
    assert!(base <= scan.next && scan.next <= scan.stopped_at);
    for point in &scan.index {
        let frame = format::decode_frame(bytes, point.position as usize, nonce).expect("indexed");
        assert!(frame.kind.is_record() && frame.relative == point.relative);
        assert!(base.plus(point.relative.into()) < scan.next);
    }
    // What was cut off is not missed: the rest reads the same without it.
    let kept = scan::scan(&bytes[..end], nonce, base);
    assert_eq!(kept.stop, Stop::Unwritten);
    assert_eq!((kept.end_position, kept.next), (end, scan.next));
    assert_eq!(kept.payload_bytes, scan.payload_bytes);
    assert_eq!(kept.index, scan.index);

    scan::durable_behind(bytes, end, nonce);
    let behind = u32::try_from(scan.next.since(base)).unwrap_or(u32::MAX);
    for relative in [0, behind, u32::MAX] {
        if let Some(frame) = scan::record_behind(bytes, end, nonce, relative) {
            assert!(frame.start >= end && frame.relative >= relative);
            check_frame(bytes, nonce, &frame);
        }
    }
    scan::last_frame(bytes, nonce);
    scan::written_bytes(bytes);
    scan
}

/// Writes a segment as the input says, reads it back, and then damages it.
fn check_new_frames(input: &[u8]) {
    let mut bytes = vec![0; FRAMES_START];
    let (nonce, base) = (unknown_nonce(input), Offset::new(1 << 40));
    let begin = Begin {
        base,
        epoch: Epoch::FIRST,
        durable: base,
    };
    push_frame(&mut bytes, nonce, Kind::Begin, false, 0, &begin.encode());
    let begin_end = bytes.len();
    let mut frames = Frames::default();
    let mut rest = input;
    // Pads are long, for two bytes of the input.
    while bytes.len() < 4 * FRAMES_START
        && let Some((&[what, len], behind)) = rest.split_first_chunk::<2>()
    {
        let (payload, behind) = behind.split_at(behind.len().min(len.into()));
        rest = behind;
        let next = base.plus(frames.next.into());
        match what % 8 {
            // Only between units, as the log writes them.
            0 if !frames.open => {
                bytes.extend_from_slice(&PAD_WORD.to_le_bytes());
                bytes.resize(format::next_sector(bytes.len()), 0);
            }
            1 if !frames.open => {
                let durable = next.get().to_le_bytes();
                push_frame(&mut bytes, nonce, Kind::Mark, false, frames.next, &durable);
            }
            2 if !frames.open => {
                let kind = [Kind::Gap, Kind::Removed][usize::from(len % 2)];
                let to = next.plus(1 + u64::from(len)).get().to_le_bytes();
                frames.points.push(scan::point(frames.next, bytes.len()));
                push_frame(&mut bytes, nonce, kind, false, frames.next, &to);
                frames.next += 1 + u32::from(len);
            }
            what => {
                frames.open = what >= 6;
                frames.points.push(scan::point(frames.next, bytes.len()));
                let (open, next) = (frames.open, frames.next);
                push_frame(&mut bytes, nonce, Kind::Record, open, next, payload);
                frames.next += 1;
                frames.payload_bytes += payload.len() as u64;
            }
        }
        if !frames.open {
            frames.whole = (frames.next, frames.payload_bytes, bytes.len());
        }
    }
    let (next, payload_bytes, units_end) = match frames.whole {
        (_, _, 0) => (
            0,
            0,
            FRAMES_START + format::frame_bytes(0, begin.encode().len()),
        ),
        whole => whole,
    };
    let written_end = bytes.len();
    bytes.resize(written_end.next_multiple_of(format::PAGE_BYTES), 0);
    let scan = check_scan(&bytes, nonce, base);
    assert_eq!(
        (scan.end_position, scan.payload_bytes),
        (units_end, payload_bytes)
    );
    assert_eq!(scan.next, base.plus(next.into()));
    assert_eq!(scan.stopped_at, base.plus(frames.next.into()));
    assert_eq!(scan.stop == Stop::Unwritten, !frames.open);
    assert_eq!(
        scan.durable,
        scan::durable_behind(&bytes, FRAMES_START, nonce)
    );
    let last = scan::last_frame(&bytes, nonce).map(|frame| frame.end);
    assert_eq!(last, last_frame_end(&bytes, nonce));
    for point in frames.points.iter().take(3) {
        let found = scan::record_behind(&bytes, point.position as usize, nonce, point.relative);
        let found = found.map(|frame| scan::point(frame.relative, frame.start));
        assert_eq!(found, Some(*point));
    }
    // Where no header is left to name it; but a payload may hold frames of another segment, and be
    // the first of which two follow one another.
    if frames
        .points
        .first()
        .is_some_and(|first| first.position as usize == begin_end)
    {
        assert_eq!(format::nonce_of_frames(&bytes), Some(nonce));
    }
    // One bit of a frame flipped: nothing before it changes, nothing behind it is taken.
    let sum: usize = input.iter().map(|&byte| usize::from(byte)).sum();
    bytes[FRAMES_START + sum % (written_end - FRAMES_START)] ^= 1 << (sum % 8);
    let damaged = check_scan(&bytes, nonce, base);
    assert!(damaged.next <= scan.next && damaged.end_position <= units_end);
}

/// A nonce that no payload in the input knows, as none knows a log's. Under one that stays the same, a
/// payload comes to hold frames of the very segment: a fuzzer puts in what it saw being compared.
fn unknown_nonce(input: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(input);
    u32::try_from(hasher.finish() >> 32).expect("shifted")
}

/// What was written, relative to the segment's base.
#[derive(Default)]
struct Frames {
    next: u32,
    payload_bytes: u64,
    /// A batch goes on.
    open: bool,
    /// The same up to the last whole unit, and where that ends.
    whole: (u32, u64, usize),
    /// Where records and gaps stand.
    points: Vec<IndexPoint>,
}

/// By the frames themselves, one behind the other.
fn last_frame_end(bytes: &[u8], nonce: u32) -> Option<usize> {
    let (mut position, mut last) = (FRAMES_START, None);
    while let Ok(frame) = format::decode_frame(bytes, position, nonce) {
        check_frame(bytes, nonce, &frame);
        position = frame.end;
        if frame.kind != Kind::Pad {
            last = Some(frame.end);
        }
    }
    last
}

fn push_frame(
    bytes: &mut Vec<u8>,
    nonce: u32,
    kind: Kind,
    continues: bool,
    relative: u32,
    payload: &[u8],
) {
    // What a record is labelled with depends on its length, for variety.
    let labelled = kind.is_record() && payload.len() % 3 == 1;
    let stamp = Stamp {
        producer: u128::MAX / 3,
        epoch: 1,
        sequence: relative.into(),
    };
    let frame = NewFrame {
        continues,
        stamp: labelled.then_some(stamp),
        topic: if labelled { "topic" } else { "" },
        ..NewFrame::plain(kind, relative, 1_700_000_000_000_000, payload)
    };
    let start = bytes.len();
    bytes.resize(start + frame.bytes(), 0);
    let word = frame.encode(nonce, &mut bytes[start + 8..]);
    bytes[start..start + 8].copy_from_slice(&word.to_le_bytes());
}
