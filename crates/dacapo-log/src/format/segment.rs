//! What stands at the two ends of a segment file: its header, and its footer once it is sealed.

use super::{FORMAT_VERSION, PAGE_BYTES, check_version};
use crate::error::Damage;
use crate::offset::{Epoch, Offset};

const SEGMENT_MAGIC: &str = "DACAPOSG";
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;

/// The first bytes of a segment file, durable before the file gets its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) nonce: u32,
    pub(crate) log_id: u128,
    pub(crate) epoch: Epoch,
    pub(crate) file_bytes: u64,
    pub(crate) created_micros: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC.as_bytes());
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.nonce.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.epoch.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.file_bytes.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.created_micros.to_le_bytes());
        seal_block(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, Damage> {
        if &bytes[..8] != SEGMENT_MAGIC.as_bytes() {
            return Err(Damage::Magic {
                expected: SEGMENT_MAGIC,
            });
        }
        let version = check_version(le!(u32, bytes, 8));
        let mut as_this_version = *bytes;
        as_this_version[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        // A number in whose place this version's makes the checksum right is damage.
        if check_block(&as_this_version).is_err() {
            version?;
        }
        check_block(bytes)?;
        let file_bytes = le!(u64, bytes, 40);
        if !file_bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Err(Damage::Pages { bytes: file_bytes });
        }
        Ok(Self {
            nonce: le!(u32, bytes, 12),
            log_id: le!(u128, bytes, 16),
            epoch: Epoch::new(le!(u64, bytes, 32)),
            file_bytes,
            created_micros: le!(u64, bytes, 48),
        })
    }
}

/// The bytes of `FOOTER_MAGIC` are the footer's commit word.
const FOOTER_MAGIC: &str = "DACAPOFT";
pub(crate) const FOOTER_BYTES: usize = 64;
pub(crate) const FOOTER_WORD: u64 = u64::from_le_bytes(*b"DACAPOFT");

/// The start of a sealed segment's last page: where the segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) base: Offset,
    /// The offset after the segment's last record, or after the gap behind that.
    pub(crate) next: Offset,
    /// Where the last frame ends.
    pub(crate) end_position: u32,
    pub(crate) nonce: u32,
    /// Of the first record; 0 where there is none.
    pub(crate) first_timestamp_micros: u64,
    pub(crate) last_timestamp_micros: u64,
    pub(crate) epoch: Epoch,
    /// How many gap frames are in the segment.
    pub(crate) gaps: u32,
}

impl Footer {
    pub(crate) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(FOOTER_MAGIC.as_bytes());
        bytes[8..16].copy_from_slice(&self.base.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.next.get().to_le_bytes());
        bytes[24..28].copy_from_slice(&self.end_position.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.nonce.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_timestamp_micros.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.last_timestamp_micros.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.epoch.get().to_le_bytes());
        bytes[56..60].copy_from_slice(&self.gaps.to_le_bytes());
        seal_block(&mut bytes);
        bytes
    }

    /// `None` where no footer was written, or not all of it.
    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES]) -> Option<Self> {
        if &bytes[..8] != FOOTER_MAGIC.as_bytes() || check_block(bytes).is_err() {
            return None;
        }
        Some(Self {
            base: Offset::new(le!(u64, bytes, 8)),
            next: Offset::new(le!(u64, bytes, 16)),
            end_position: le!(u32, bytes, 24),
            nonce: le!(u32, bytes, 28),
            first_timestamp_micros: le!(u64, bytes, 32),
            last_timestamp_micros: le!(u64, bytes, 40),
            epoch: Epoch::new(le!(u64, bytes, 48)),
            gaps: le!(u32, bytes, 56),
        })
    }
}

/// Puts the checksum of a 64-byte block into its last four bytes.
pub(crate) fn seal_block(block: &mut [u8; 64]) {
    let sum = crc32fast::hash(&block[..60]);
    block[60..].copy_from_slice(&sum.to_le_bytes());
}

pub(crate) fn check_block(block: &[u8; 64]) -> Result<(), Damage> {
    let (stored, computed) = (le!(u32, block, 60), crc32fast::hash(&block[..60]));
    if stored == computed {
        Ok(())
    } else {
        Err(Damage::Checksum { stored, computed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_of_the_version_is_damage_and_no_other_version() {
        let header = SegmentHeader {
            nonce: 1,
            log_id: 2,
            epoch: Epoch::FIRST,
            file_bytes: 16 << 10,
            created_micros: 3,
        };
        let mut bytes = header.encode();
        bytes[8] ^= 1 << 3;
        let decoded = SegmentHeader::decode(&bytes);
        assert!(matches!(decoded, Err(Damage::Checksum { .. })));

        seal_block(&mut bytes);
        let (found, supported) = (9, FORMAT_VERSION);
        let decoded = SegmentHeader::decode(&bytes);
        assert_eq!(decoded, Err(Damage::Version { found, supported }));
    }
}
