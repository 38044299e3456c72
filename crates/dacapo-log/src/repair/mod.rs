//! Repairing a damaged log: what is sound is copied into a new one, under the offsets that it had.
//!
//! The damaged log is only read. In the new one, a gap stands in the place of each range of lost
//! records. What counts as lost, and what as torn off by a crash: docs/durability.md.

mod copy;
mod image;
mod source;
mod target;
#[cfg(all(test, not(simulation)))]
mod tests;
mod walk;

use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use self::copy::Copy;
use self::source::Source;
use self::target::Target;
use crate::clock;
use crate::disk::Disk;
use crate::error::{Corruption, OpenError, RepairError};
use crate::lock;
use crate::offset::Offset;
use crate::recovery;
use crate::verify::Progress;

/// What a repair has copied, and what it could not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Repair {
    /// Segment files of the new log.
    pub segments: usize,
    /// Records that were copied.
    pub records: u64,
    /// Their payloads together.
    pub payload_bytes: u64,
    /// The offset of the next append, to either log.
    pub next: Offset,
    /// Every damaged place of the old log. Index files are derived, and not looked at.
    pub damages: Vec<Corruption>,
    /// The records that could not be copied: gaps of the new log.
    pub lost: Vec<Range<Offset>>,
    /// Records that were lost before an earlier repair: gaps of both logs.
    pub gaps: Vec<Range<Offset>>,
    /// Bytes of an append that a crash interrupted, behind the old log's end. Not copied, and not
    /// lost: the next opening for writing would have cut them off.
    pub torn_bytes: u64,
}

impl Repair {
    /// Whether every record was copied.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty()
    }

    /// Adds a damaged place, unless it is known.
    fn note(&mut self, damage: Corruption) {
        damage.note_in(&mut self.damages);
    }

    fn lose(&mut self, lost: Range<Offset>) {
        match self.lost.last_mut() {
            Some(last) if last.end == lost.start => last.end = lost.end,
            _ => self.lost.push(lost),
        }
    }
}

/// Copies what is sound of the damaged log in `src` into a new log in `dst`, and calls `progress`
/// now and then.
///
/// Offsets and timestamps stay. Lost records leave gaps: whoever reads over one gets
/// [`ReadError::Lost`](crate::ReadError::Lost) once, and then the records behind it. The new log is
/// durable when this returns, closed, and has an id and an epoch of its own: a
/// [`Checkpoint`](crate::Checkpoint) of the old one can be resumed from.
///
/// `src` is not written to, and no lock is taken there. `dst` must not exist, or be an empty
/// directory; until everything is copied, no log is there.
///
/// ```
/// use dacapo_log::{Log, ReadError, Start, repair};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let (damaged, repaired) = (dir.path().join("damaged"), dir.path().join("repaired"));
/// let log = Log::open(&damaged)?;
/// log.append_batch(["zero", "one", "two"])?;
/// log.close()?;
/// # let file = damaged.join("00000000000000000000.seg");
/// # let mut bytes = std::fs::read(&file)?;
/// # let at = bytes.windows(3).position(|window| window == b"one").unwrap();
/// # bytes[at] ^= 1;
/// # std::fs::write(&file, bytes)?;
///
/// // Record 1 rots on the disk.
/// let found = repair(&damaged, &repaired, |_| ())?;
/// assert_eq!(found.records, 2);
/// assert_eq!(found.lost.len(), 1);
///
/// let log = Log::open(&repaired)?;
/// let mut replay = log.replay(Start::Oldest);
/// assert_eq!(replay.next().unwrap()?.payload(), b"zero");
/// assert!(matches!(replay.next().unwrap(), Err(ReadError::Lost { .. })));
/// assert_eq!(replay.next().unwrap()?.payload(), b"two");
/// assert_eq!(log.append(b"three")?.get(), 3);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// See [`RepairError`]. Damage is part of the answer. After an error `dst` is an empty directory, or
/// as it was.
pub fn repair(
    src: impl AsRef<Path>,
    dst: impl AsRef<Path>,
    progress: impl FnMut(Progress),
) -> Result<Repair, RepairError> {
    repair_on(&Disk::default(), src.as_ref(), dst.as_ref(), progress)
}

fn repair_on(
    disk: &Disk,
    src: &Path,
    dst: &Path,
    progress: impl FnMut(Progress),
) -> Result<Repair, RepairError> {
    let started = clock::uptime();
    check_source(disk, src)?;
    check_place(disk, src, dst)?;
    let source = Source::read(disk, src)?;
    let epoch = source.next_epoch();
    disk.create_dir(dst)?;
    let mut target = Target::new(disk, dst, source.first, epoch);
    let written = Copy::new(disk, src, &source, &mut target, progress)
        .everything()
        .and_then(|found| {
            target.finish(source.first, source.epochs_with(epoch, &found, started))?;
            Ok(Repair {
                segments: target.segments(),
                ..found
            })
        });
    if written.is_err() {
        target.discard();
    }
    Ok(written?)
}

fn check_source(disk: &Disk, src: &Path) -> Result<(), RepairError> {
    if disk.is_dir(src)? == Some(true) {
        let unfinished = disk.list(src)?.into_iter().find_map(|name| {
            let name = name.to_string_lossy().into_owned();
            name.ends_with(target::UNFINISHED).then_some(name)
        });
        if let Some(found) = unfinished {
            let path = src.to_owned();
            return Err(RepairError::Unfinished { path, found });
        }
    }
    recovery::check_directory(disk, src).map_err(RepairError::Source)?;
    if disk.is_dir(src)?.is_none() {
        let path = src.to_owned();
        return Err(RepairError::Source(OpenError::NotFound { path }));
    }
    match lock::writer_pid(disk, src) {
        Some(pid) => Err(RepairError::BeingWritten {
            path: src.to_owned(),
            pid,
        }),
        None => Ok(()),
    }
}

fn check_place(disk: &Disk, src: &Path, dst: &Path) -> Result<(), RepairError> {
    let path = dst.to_owned();
    match disk.is_dir(dst)? {
        Some(false) => return Err(RepairError::NotADirectory { path }),
        Some(true) => {
            if let Some(name) = disk.list(dst)?.into_iter().next() {
                let found = name.to_string_lossy().into_owned();
                return Err(RepairError::NotEmpty { path, found });
            }
        }
        None => {}
    }
    match lies_inside(dst, src) {
        true => Err(RepairError::Inside { path }),
        false => Ok(()),
    }
}

/// Whether `dst`, which need not be there yet, is the directory `src` or lies in it.
pub(crate) fn lies_inside(dst: &Path, src: &Path) -> bool {
    src.canonicalize()
        .is_ok_and(|src| place_of(dst).starts_with(src))
}

/// Where a path leads, once the directories on it that are not there yet are made.
fn place_of(path: &Path) -> PathBuf {
    let mut place = Path::new(".").canonicalize().unwrap_or_default();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                place.pop();
            }
            component => place.push(component),
        }
        if let Ok(real) = place.canonicalize() {
            place = real;
        }
    }
    place
}
