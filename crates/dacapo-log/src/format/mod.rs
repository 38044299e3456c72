//! Every on-disk constant and encoding; mirrors docs/format.md, byte for byte.
//!
//! Pure functions over byte slices. Integers are little-endian. Bytes that come from a disk are
//! never trusted here: decoding answers with an error, and indexes only where it has checked.

/// Reads a little-endian integer at a fixed place; the slice must be long enough.
macro_rules! le {
    ($int:ty, $bytes:expr, $at:expr) => {
        <$int>::from_le_bytes(
            $bytes[$at..$at + size_of::<$int>()]
                .try_into()
                .expect("a fixed width"),
        )
    };
}

mod frame;
mod index;
mod meta;
mod nonce;
mod postings;
mod segment;
mod topics;

use crate::error::Damage;

pub(crate) use frame::{
    ABSENCE_PAYLOAD_BYTES, BEGIN_PAYLOAD_BYTES, Begin, COMMIT_WORD_BYTES, Frame, Kind,
    MARK_PAYLOAD_BYTES, NewFrame, NoFrame, PAD_WORD, TOPIC_BYTES_MAX, absence_of, base_of,
    decode_frame, durable_of, frame_bytes, frame_bytes_of_word, label_bytes, next_sector,
    peek_frame, stamp_before, topic_before,
};
pub(crate) use index::{IndexPoint, decode_index, encode_index, index_nonce};
pub(crate) use meta::{CleanEnd, EpochStart, META_EPOCHS_MAX, META_SLOT_BYTES, META_SLOTS, Meta};
pub(crate) use nonce::nonce_of_frames;
pub(crate) use postings::decode_postings;
pub(crate) use segment::{FOOTER_BYTES, FOOTER_WORD, Footer, SEGMENT_HEADER_BYTES, SegmentHeader};
pub(crate) use topics::{
    DictionaryPlace, NewEntry, PRODUCER_BYTES, Share, Stretch, TOPICS_HEADER_BYTES,
    TOPICS_PAGE_BYTES, TOPICS_PAGE_CONTENT_BYTES, TopicEntry, TopicsFileBuilder, TopicsHeader,
    checked_page, decode_producer,
};

/// The checksums themselves, and more: a fuzzer puts right ones on bytes that nobody wrote.
#[cfg(fuzzing)]
pub(crate) use {
    frame::{FRAME_SUMMED_FROM, checksum},
    index::index_checksum,
    meta::meta_checksum,
    postings::encode_postings,
    segment::seal_block,
    topics::page_checksum,
};

pub(crate) const FORMAT_VERSION: u32 = 1;

/// What the kernel maps and writes back as one.
pub(crate) const PAGE_BYTES: usize = 4096;
/// What a disk writes as one: a flushed sector is never stored to again.
pub(crate) const SECTOR_BYTES: usize = 512;

pub(crate) const SEGMENT_BYTES_MIN: u64 = 16 << 10;
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The header has a page of its own, so that no store of a record can tear it.
pub(crate) const FRAMES_START: usize = PAGE_BYTES;
/// So does the footer, the last page of the file.
pub(crate) const FOOTER_PAGE_BYTES: usize = PAGE_BYTES;

/// No offset on disk is as large. Half the numbers there are, so that a sum with what fits into a
/// segment never overflows.
pub(crate) const OFFSETS_END: u64 = u64::MAX / 2;

pub(crate) const FRAME_ALIGN_BYTES: usize = 8;
pub(crate) const FRAME_HEADER_BYTES: usize = 24;
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGN_BYTES));
const _: () = assert!(SECTOR_BYTES.is_multiple_of(FRAME_ALIGN_BYTES));
const _: () = assert!(PAGE_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(
    SEGMENT_BYTES_MAX <= u32::MAX as u64,
    "a position fits 32 bits"
);

/// Looked at before the checksum: another version may lay out everything behind its number otherwise.
fn check_version(found: u32) -> Result<(), Damage> {
    let supported = FORMAT_VERSION;
    if found == supported {
        Ok(())
    } else {
        Err(Damage::Version { found, supported })
    }
}
