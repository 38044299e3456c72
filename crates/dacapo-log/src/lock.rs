//! The `LOCK` file: one writer a log, held by an OS lock that dies with its process.

use std::path::Path;

use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;

pub(crate) const LOCK_FILE: &str = "LOCK";

/// The exclusive right to write to a log, until dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: DiskFile,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process between its fork and its exec has it open
        // as well. Who cannot unlock leaves it to the close.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock of the log in `dir`.
    ///
    /// The file holds the writer's process id as text, for the error that a second one gets; it is
    /// never removed, so that two processes cannot lock two files of one name.
    pub(crate) fn take(disk: &Disk, dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join(LOCK_FILE);
        let file = disk.create_if_missing(&path)?;
        if !file.try_lock()? {
            return Err(OpenError::Locked {
                path: dir.to_owned(),
                pid: holder(disk, &path),
            });
        }
        let lock = Self { file };
        // Padded, so that a shorter id leaves no digit of a longer one behind.
        let pid = format!("{:<20}\n", std::process::id());
        lock.file.write_at(pid.as_bytes(), 0)?;
        Ok(lock)
    }
}

fn holder(disk: &Disk, path: &Path) -> Option<u32> {
    let bytes = disk.read(path).ok()?;
    std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
}

/// The process that holds the lock now, for a reader who does not want it.
pub(crate) fn writer_pid(disk: &Disk, dir: &Path) -> Option<u32> {
    let path = dir.join(LOCK_FILE);
    let inode = disk.inode(&path).ok()?;
    // A line is `1: FLOCK  ADVISORY  WRITE 1234 fe:00:567 0 EOF`. Asking for the lock instead
    // would refuse it to a writer that opens the log at the same moment.
    let locks = disk.read(Path::new("/proc/locks")).ok()?;
    let pid = holder(disk, &path)?;
    let held = String::from_utf8_lossy(&locks).lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", by, place, ..] = words[..] else {
            return false;
        };
        by == pid.to_string() && place.rsplit(':').next() == Some(inode.to_string().as_str())
    });
    held.then_some(pid)
}
