//! Backing up a log, also while it is written: its durable records, in a directory that is a log too.
//!
//! Segments that nobody writes to any more are linked, and the last one is copied as far as it is
//! durable. Why sharing files is safe, and what a crash leaves of a backup: docs/durability.md.

mod place;
mod plan;
#[cfg(all(test, not(simulation)))]
mod tests;

use std::path::Path;

use self::place::{How, Place};
use self::plan::Plan;
use crate::error::{BackupError, ReadError, SyncError};
use crate::log::Log;
use crate::offset::Offset;
use crate::verify::Progress;

/// What the name of a file ends with that a backup has not given its own name yet.
pub(crate) const STAGED: &str = ".backup";

/// What a backup holds, and what was done for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backup {
    /// Segment files of the backup: linked, copied, or kept.
    pub segments: usize,
    /// Those that take no space of their own: hard links, or clones where the filesystem makes them.
    pub linked: usize,
    /// Those that were copied.
    pub copied: usize,
    /// The size of the copies together.
    pub copied_bytes: u64,
    /// Those that were there, from an earlier backup or from one that was interrupted.
    pub kept: usize,
    /// The oldest record of the backup.
    pub oldest: Offset,
    /// The offset behind the last one.
    pub next: Offset,
    /// Records that were appended and are not known to be durable. They are not in the backup.
    pub not_durable: u64,
}

impl Log {
    /// Makes a backup of the log in `dst`, or brings one that is there up to date, and calls `progress`
    /// now and then.
    ///
    /// The backup is a log of its own, closed cleanly, that holds every record which was durable when
    /// this began. On a log that is open for writing, what was appended before is made durable first; on
    /// one that was opened read-only, its writer decides, and
    /// [`not_durable`](Backup::not_durable) says how many records are left out. Appending, reading and
    /// pruning go on meanwhile, in this process and in others. A
    /// [`Checkpoint`](crate::Checkpoint) of the log can be resumed from in the backup.
    ///
    /// Where `dst` is on the same filesystem, the two share the files of the segments that are full, as
    /// hard links: a backup then takes next to no space or time, and protects from pruning and deletion,
    /// not from a disk that fails. Full segments are not checked, so that damage in them comes along:
    /// [`verify`](crate::verify()) checks the backup.
    ///
    /// `dst` must not exist, or be an empty directory, an earlier backup of this log, or one that was
    /// interrupted. Of that, what is still right is kept; what the log has dropped is dropped. An earlier
    /// backup can be read until the new one takes its place in a few renames, and who reads it has to open
    /// it again then. Interrupted in between, `dst` is refused by whoever opens it, as
    /// [`OpenError::UnfinishedBackup`](crate::OpenError::UnfinishedBackup), until another run has
    /// completed it. The backup is durable when this returns.
    ///
    /// ```
    /// use dacapo_log::{Log, Offset, Start};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let (orders, copy) = (dir.path().join("orders"), dir.path().join("copy"));
    /// let log = Log::open(&orders)?;
    /// log.append(b"paid")?;
    /// log.backup(&copy, |_| ())?;
    ///
    /// log.append(b"sent")?;
    /// let made = log.backup(&copy, |_| ())?; // now with both
    /// assert_eq!(made.next, Offset::new(2));
    ///
    /// let copy = Log::options().open_read_only(&copy)?;
    /// assert_eq!(copy.replay(Start::Oldest).count(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`BackupError`]. A backup that was opened for writing is a log of its own from then on, and is
    /// never overwritten.
    pub fn backup(
        &self,
        dst: impl AsRef<Path>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Backup, BackupError> {
        let shared = self.shared();
        let mut place = Place::take(self, dst.as_ref())?;
        match self.sync() {
            Ok(_) | Err(SyncError::ReadOnly) => {}
            Err(refused) => return Err(refused.into()),
        }
        let plan = loop {
            let oldest = shared.refresh_oldest();
            match make(self, &mut place, &mut progress) {
                // Pruned under our hands: look again. What is there already is kept.
                Err(BackupError::Damaged(ReadError::SegmentMissing { .. }))
                    if shared.refresh_oldest() > oldest => {}
                made => break made?,
            }
        };
        place.give_names(self.dir(), &plan)?;
        let bases: Vec<Offset> = plan.bases().collect();
        let count = |how| bases.iter().filter(|&&base| place.how(base) == how).count();
        Ok(Backup {
            segments: bases.len(),
            linked: count(How::Linked),
            copied: count(How::Copied),
            copied_bytes: place.copied_bytes(),
            kept: count(How::Kept),
            oldest: plan.oldest,
            next: plan.next,
            not_durable: plan.not_durable,
        })
    }
}

/// Sees to all segments that the backup is to hold, under whatever names.
fn make(
    log: &Log,
    place: &mut Place<'_>,
    progress: &mut impl FnMut(Progress),
) -> Result<Plan, BackupError> {
    let plan = Plan::of(log.shared())?;
    place.check_earlier(log, &plan)?;
    let total_bytes = plan.bytes();
    let mut checked_bytes = 0;
    let mut advance = |bytes| {
        checked_bytes += bytes;
        progress(Progress {
            checked_bytes,
            total_bytes,
        });
    };
    // Newest first, since a compaction rewrites the oldest first: if a deletion was removed from a segment
    // that was taken, what it deleted is gone from those before it, which are taken next.
    for whole in plan.whole.iter().rev() {
        place.bring(log.dir(), whole, &mut advance)?;
    }
    if let Some(tail) = &plan.tail {
        place.write(tail, &mut advance)?;
    }
    Ok(plan)
}
