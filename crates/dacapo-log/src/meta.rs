//! The `meta` file: what is true of the log as a whole, in two checksummed slots.
//!
//! Every change is written to one slot and synced, then to the other: first to the one that is not
//! known to be good. So a torn write leaves one
//! slot as it was before or as it is after, and a slot that rots leaves its twin.

use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::disk::{Disk, DiskFile};
use crate::error::{Corruption, Damage, FileError, SegmentError};
use crate::format::{self, EpochStart, META_SLOT_BYTES, META_SLOTS, Meta};
use crate::offset::{Checkpoint, Epoch, Offset};

pub(crate) const META_FILE: &str = "meta";
pub(crate) const META_TEMPORARY: &str = "meta.tmp";

/// What was found in a log's `meta`.
pub(crate) struct Loaded {
    pub(crate) meta: Meta,
    /// The slot that it was read from.
    pub(crate) slot: usize,
    /// Both slots are sound and say the same; only then is a clean end believed.
    pub(crate) agreed: bool,
    /// The slot that is damaged, if one is.
    pub(crate) damaged: Option<Corruption>,
}

/// Reads `meta` of the log in `dir`; `None` if there is no such file.
pub(crate) fn load(disk: &Disk, dir: &Path) -> Result<Option<Loaded>, SegmentError> {
    load_file(disk, &dir.join(META_FILE))
}

/// As [`load`], whatever the file is called.
pub(crate) fn load_file(disk: &Disk, path: &Path) -> Result<Option<Loaded>, SegmentError> {
    let bytes = match disk.read(path) {
        Err(e) if e.is_not_found() => return Ok(None),
        bytes => bytes?,
    };
    let slots: Vec<_> = (0..META_SLOTS)
        .map(|i| {
            let slot = bytes
                .get(i * META_SLOT_BYTES..)
                .and_then(|rest| rest.first_chunk());
            slot.map_or(Err(Damage::Meta), Meta::decode)
        })
        .collect();
    let agreed = slots[0].is_ok() && slots[0] == slots[1];
    let mut newest: Option<(usize, Meta)> = None;
    let mut version = None;
    let mut damaged = None;
    for (i, slot) in slots.into_iter().enumerate() {
        match slot {
            Ok(slot)
                if newest
                    .as_ref()
                    .is_none_or(|(_, m)| m.sequence < slot.sequence) =>
            {
                newest = Some((i, slot))
            }
            Ok(_) => {}
            Err(bad) => {
                damaged = Some(Corruption::new(path, i * META_SLOT_BYTES, Damage::MetaSlot));
                if let Damage::Version { .. } = bad {
                    version = Some(bad);
                }
            }
        }
    }
    let Some((slot, meta)) = newest else {
        return Err(Corruption::new(path, 0, version.unwrap_or(Damage::Meta)).into());
    };
    Ok(Some(Loaded {
        meta,
        slot,
        agreed,
        damaged,
    }))
}

/// Writes both slots of a new `meta` into a file of another name; durable when this returns, but for
/// the name.
pub(crate) fn write_new(disk: &Disk, path: &Path, meta: &Meta) -> Result<DiskFile, FileError> {
    let file = disk.create(path)?;
    let slot = meta.encode();
    file.write_at(&[slot, slot].concat(), 0)?;
    file.sync_data()?;
    Ok(file)
}

/// The writer's hold on `meta`.
#[derive(Debug)]
pub(crate) struct MetaFile {
    file: DiskFile,
    meta: Meta,
    /// The slot that is known to hold it.
    slot: usize,
}

impl MetaFile {
    /// Writes the `meta` of a new log; durable when this returns, its name included.
    pub(crate) fn create(disk: &Disk, dir: &Path, meta: Meta) -> Result<Self, FileError> {
        let mut file = write_new(disk, &dir.join(META_TEMPORARY), &meta)?;
        file.rename(&dir.join(META_FILE))?;
        disk.sync_dir(dir)?;
        Ok(Self {
            file,
            meta,
            slot: 0,
        })
    }

    pub(crate) fn open(disk: &Disk, dir: &Path, loaded: Loaded) -> Result<Self, FileError> {
        let file = disk.open_writable(&dir.join(META_FILE))?;
        Ok(Self {
            file,
            meta: loaded.meta,
            slot: loaded.slot,
        })
    }

    pub(crate) fn get(&self) -> &Meta {
        &self.meta
    }

    /// Changes `meta` on disk; durable when this returns.
    ///
    /// After an error the change may or may not be on disk, as after a power cut.
    pub(crate) fn update(&mut self, change: impl FnOnce(&mut Meta)) -> Result<(), FileError> {
        change(&mut self.meta);
        self.meta.sequence += 1;
        forget_oldest(&mut self.meta.epochs);
        let slot = self.meta.encode();
        // The one that is known to be good comes last: the other one may have been torn before.
        for i in [META_SLOTS - 1 - self.slot, self.slot] {
            self.file.write_at(&slot, (i * META_SLOT_BYTES) as u64)?;
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Adds the epoch that a recovery, or a repair, begins at `start`; the work began at `started`.
pub(crate) fn begin_epoch(
    epochs: &mut Vec<EpochStart>,
    epoch: Epoch,
    start: Offset,
    started: Duration,
    cut_bytes: u64,
) {
    let took = clock::uptime().saturating_sub(started);
    epochs.push(EpochStart {
        epoch,
        start,
        opened_micros: clock::now_micros(),
        recovery_micros: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
        cut_bytes: u32::try_from(cut_bytes).unwrap_or(u32::MAX),
    });
    forget_oldest(epochs);
}

/// A slot of `meta` holds so many epochs and no more.
fn forget_oldest(epochs: &mut Vec<EpochStart>) {
    let excess = epochs.len().saturating_sub(format::META_EPOCHS_MAX);
    epochs.drain(..excess);
}

/// The first offset at which records of `epoch` are void, because a later epoch began there.
///
/// `None` while no record of the epoch was undone.
pub(crate) fn void_from(epochs: &[EpochStart], epoch: Epoch) -> Option<Offset> {
    epochs
        .iter()
        .filter(|e| e.epoch > epoch)
        .map(|e| e.start)
        .min()
}

/// Where a reader at `checkpoint` must go back to, if a crash undid records that it had passed.
/// `oldest` is the oldest record there is.
pub(crate) fn rewound_to(
    epochs: &[EpochStart],
    checkpoint: Checkpoint,
    oldest: Offset,
) -> Option<Offset> {
    let forgotten = epochs
        .first()
        .is_some_and(|first| first.epoch > checkpoint.epoch.next());
    // Nobody knows any more what the epochs between undid: everything is read again.
    let start = if forgotten {
        Some(oldest)
    } else {
        void_from(epochs, checkpoint.epoch)
    };
    start.filter(|&start| start < checkpoint.offset)
}

#[cfg(all(test, not(simulation)))]
mod tests {
    use super::*;

    fn epochs(starts: &[(u64, u64)]) -> Vec<EpochStart> {
        starts
            .iter()
            .map(|&(epoch, start)| EpochStart {
                epoch: Epoch::new(epoch),
                start: Offset::new(start),
                opened_micros: 0,
                recovery_micros: 0,
                cut_bytes: 0,
            })
            .collect()
    }

    fn new_meta() -> Meta {
        Meta {
            log_id: 1,
            sequence: 0,
            first: Offset::ZERO,
            durable: Offset::ZERO,
            clean: None,
            epochs: epochs(&[(1, 0)]),
        }
    }

    #[test]
    fn a_checkpoint_that_a_crash_went_behind_is_rewound() {
        let epochs = epochs(&[(1, 0), (2, 90), (3, 80), (4, 200)]);
        let at = |offset, epoch| Checkpoint {
            offset: Offset::new(offset),
            epoch: Epoch::new(epoch),
        };

        assert_eq!(
            rewound_to(&epochs, at(100, 1), Offset::ZERO),
            Some(Offset::new(80))
        );
        assert_eq!(rewound_to(&epochs, at(80, 1), Offset::ZERO), None);
        assert_eq!(
            rewound_to(&epochs, at(201, 3), Offset::ZERO),
            Some(Offset::new(200))
        );
        assert_eq!(rewound_to(&epochs, at(500, 4), Offset::ZERO), None);
    }

    #[test]
    fn a_damaged_slot_leaves_its_twin() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let mut file = MetaFile::create(&disk, dir.path(), new_meta()).unwrap();
        file.update(|meta| meta.first = Offset::new(5)).unwrap();
        for slot in 0..META_SLOTS {
            let path = dir.path().join(META_FILE);
            let sound = std::fs::read(&path).unwrap();
            let mut bytes = sound.clone();
            bytes[slot * META_SLOT_BYTES + 100] ^= 1;
            std::fs::write(&path, bytes).unwrap();

            let loaded = load(&disk, dir.path()).unwrap().unwrap();

            assert_eq!(loaded.meta.first, Offset::new(5));
            assert!(!loaded.agreed);
            assert_eq!(
                loaded.damaged.unwrap().position,
                (slot * META_SLOT_BYTES) as u64
            );
            std::fs::write(&path, sound).unwrap();
        }
        assert!(load(&disk, dir.path()).unwrap().unwrap().agreed);
    }

    #[test]
    fn a_second_torn_write_never_meets_the_only_good_slot() {
        for torn in 0..META_SLOTS {
            let dir = tempfile::tempdir().unwrap();
            let disk = Disk::default();
            drop(MetaFile::create(&disk, dir.path(), new_meta()).unwrap());
            let path = dir.path().join(META_FILE);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[torn * META_SLOT_BYTES..][..META_SLOT_BYTES].fill(0);
            std::fs::write(&path, bytes).unwrap();
            let loaded = load(&disk, dir.path()).unwrap().unwrap();
            let mut file = MetaFile::open(&disk, dir.path(), loaded).unwrap();

            // Cut off behind the first of the two writes.
            disk.faults
                .fail("sync", META_FILE, std::io::ErrorKind::Other);
            assert!(file.update(|meta| meta.first = Offset::new(9)).is_err());

            let bytes = std::fs::read(&path).unwrap();
            let good = bytes[(1 - torn) * META_SLOT_BYTES..].first_chunk().unwrap();
            assert_eq!(
                Meta::decode(good).unwrap().first,
                Offset::ZERO,
                "slot {torn} was torn"
            );
        }
    }

    #[test]
    fn garbage_in_both_slots_is_an_error_and_not_a_new_log() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(META_FILE), [0xAB; 9000]).unwrap();
        assert!(matches!(
            load(&Disk::default(), dir.path()),
            Err(SegmentError::Corrupt(_))
        ));
    }

    #[test]
    fn old_epochs_are_forgotten_before_the_slot_overflows() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let mut file = MetaFile::create(&disk, dir.path(), new_meta()).unwrap();
        for epoch in 2..=200 {
            file.update(|meta| meta.epochs.extend(epochs(&[(epoch, epoch * 10)])))
                .unwrap();
        }
        let meta = load(&disk, dir.path()).unwrap().unwrap().meta;
        assert_eq!(meta.epochs.len(), format::META_EPOCHS_MAX);
        assert_eq!(meta.epochs.last().unwrap().epoch, Epoch::new(200));
        // A checkpoint from before those that are left is never silently believed.
        let old = Checkpoint {
            offset: Offset::new(15),
            epoch: Epoch::new(1),
        };
        assert_eq!(
            rewound_to(&meta.epochs, old, Offset::new(3)),
            Some(Offset::new(3))
        );
    }
}
