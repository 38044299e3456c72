//! One slot of the `meta` file.

use super::{FORMAT_VERSION, OFFSETS_END, PAGE_BYTES, check_version};
use crate::error::Damage;
use crate::offset::{Epoch, Offset};

const META_MAGIC: &str = "DACAPOMT";
pub(crate) const META_SLOT_BYTES: usize = PAGE_BYTES;
pub(crate) const META_SLOTS: usize = 2;
const META_EPOCHS_FROM: usize = 128;
const META_EPOCH_BYTES: usize = 32;
/// How many epochs `meta` remembers, newest first to be kept.
pub(crate) const META_EPOCHS_MAX: usize = (META_SLOT_BYTES - META_EPOCHS_FROM) / META_EPOCH_BYTES;

/// What `meta` says about the log as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) log_id: u128,
    /// Raised by one with each change.
    pub(crate) sequence: u64,
    /// The first retained record.
    pub(crate) first: Offset,
    /// All records before this one were durable when this was written.
    pub(crate) durable: Offset,
    /// Where the log ends, if it was closed and not opened since.
    pub(crate) clean: Option<CleanEnd>,
    /// Oldest first, never empty.
    pub(crate) epochs: Vec<EpochStart>,
}

/// Where a closed log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CleanEnd {
    /// The base of the segment that was appended to.
    pub(crate) base: Offset,
    /// Where its last frame ends.
    pub(crate) end_position: u32,
    /// The offset of the next record.
    pub(crate) next: Offset,
}

/// Where an epoch began, and what its recovery did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EpochStart {
    pub(crate) epoch: Epoch,
    /// The first offset of the epoch: records of earlier epochs from here on are void.
    pub(crate) start: Offset,
    pub(crate) opened_micros: u64,
    pub(crate) recovery_micros: u32,
    /// Torn bytes behind the last whole record, which recovery cut off.
    pub(crate) cut_bytes: u32,
}

impl Meta {
    pub(crate) fn encode(&self) -> [u8; META_SLOT_BYTES] {
        assert!(!self.epochs.is_empty() && self.epochs.len() <= META_EPOCHS_MAX);
        let mut bytes = [0; META_SLOT_BYTES];
        bytes[..8].copy_from_slice(META_MAGIC.as_bytes());
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.log_id.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.first.get().to_le_bytes());
        let epochs = u32::try_from(self.epochs.len()).expect("at most META_EPOCHS_MAX");
        bytes[52..56].copy_from_slice(&epochs.to_le_bytes());
        if let Some(clean) = &self.clean {
            bytes[48..52].copy_from_slice(&1_u32.to_le_bytes());
            bytes[56..64].copy_from_slice(&clean.base.get().to_le_bytes());
            bytes[64..72].copy_from_slice(&clean.next.get().to_le_bytes());
            bytes[72..76].copy_from_slice(&clean.end_position.to_le_bytes());
        }
        bytes[80..88].copy_from_slice(&self.durable.get().to_le_bytes());
        for (i, epoch) in self.epochs.iter().enumerate() {
            let at = META_EPOCHS_FROM + i * META_EPOCH_BYTES;
            bytes[at..at + 8].copy_from_slice(&epoch.epoch.get().to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&epoch.start.get().to_le_bytes());
            bytes[at + 16..at + 24].copy_from_slice(&epoch.opened_micros.to_le_bytes());
            bytes[at + 24..at + 28].copy_from_slice(&epoch.recovery_micros.to_le_bytes());
            bytes[at + 28..at + 32].copy_from_slice(&epoch.cut_bytes.to_le_bytes());
        }
        let sum = meta_checksum(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; META_SLOT_BYTES]) -> Result<Self, Damage> {
        if &bytes[..8] != META_MAGIC.as_bytes() {
            return Err(Damage::Magic {
                expected: META_MAGIC,
            });
        }
        check_version(le!(u32, bytes, 8))?;
        let (stored, computed) = (le!(u32, bytes, 12), meta_checksum(bytes));
        if stored != computed {
            return Err(Damage::Checksum { stored, computed });
        }
        let count = le!(u32, bytes, 52) as usize;
        if count == 0 || count > META_EPOCHS_MAX {
            return Err(Damage::Meta);
        }
        let offset = |at: usize| match le!(u64, bytes, at) {
            OFFSETS_END.. => Err(Damage::Meta),
            offset => Ok(Offset::new(offset)),
        };
        let clean = match le!(u32, bytes, 48) {
            1 => Some(CleanEnd {
                base: offset(56)?,
                next: offset(64)?,
                end_position: le!(u32, bytes, 72),
            }),
            _ => None,
        };
        let epochs: Result<_, Damage> = (0..count)
            .map(|i| {
                let at = META_EPOCHS_FROM + i * META_EPOCH_BYTES;
                Ok(EpochStart {
                    epoch: Epoch::new(le!(u64, bytes, at)),
                    start: offset(at + 8)?,
                    opened_micros: le!(u64, bytes, at + 16),
                    recovery_micros: le!(u32, bytes, at + 24),
                    cut_bytes: le!(u32, bytes, at + 28),
                })
            })
            .collect();
        Ok(Self {
            log_id: le!(u128, bytes, 16),
            sequence: le!(u64, bytes, 32),
            first: offset(40)?,
            durable: offset(80)?,
            clean,
            epochs: epochs?,
        })
    }
}

/// Over the whole slot but the checksum itself.
pub(crate) fn meta_checksum(slot: &[u8; META_SLOT_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&slot[..12]);
    hasher.update(&slot[16..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_comes_back_and_another_version_says_so() {
        let meta = Meta {
            log_id: 5,
            sequence: 9,
            first: Offset::new(3),
            durable: Offset::new(4),
            clean: Some(CleanEnd {
                base: Offset::new(3),
                end_position: 4120,
                next: Offset::new(4),
            }),
            epochs: vec![EpochStart {
                epoch: Epoch::FIRST,
                start: Offset::ZERO,
                opened_micros: 1,
                recovery_micros: 2,
                cut_bytes: 3,
            }],
        };
        let mut bytes = meta.encode();
        assert_eq!(Meta::decode(&bytes), Ok(meta));
        bytes[8] = 2;
        assert_eq!(
            Meta::decode(&bytes),
            Err(Damage::Version {
                found: 2,
                supported: 1
            })
        );
        bytes[8] = 1;
        bytes[40] ^= 1;
        assert!(matches!(Meta::decode(&bytes), Err(Damage::Checksum { .. })));
    }
}
