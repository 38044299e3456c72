//! The `cursors.lock` file: one process at a time keeps the cursors of a log.
//!
//! sled locks its own file as well, but says nothing of who holds it, and the list needs a lock too.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::error::CursorError;
use super::files;

const LOCK_FILE: &str = "cursors.lock";

/// The right to change the cursors of a log, until dropped.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock of the cursors in the log's directory `dir`.
    ///
    /// The file holds the process id as text, for the error that a second process gets. It is never
    /// removed, so that two processes cannot lock two files of one name.
    pub(super) fn take(dir: &Path) -> Result<Self, CursorError> {
        let path = dir.join(LOCK_FILE);
        let file = files::open_or_create(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CursorError::Held {
                    path: dir.to_owned(),
                    pid: holder(&path),
                });
            }
            Err(TryLockError::Error(e)) => return Err(CursorError::io("lock", &path, e)),
        }
        let lock = Self(file);
        // Padded, so that a shorter id leaves no digit of a longer one behind.
        let pid = format!("{:<20}\n", std::process::id());
        lock.0
            .write_all_at(pid.as_bytes(), 0)
            .map_err(|e| CursorError::io("write", &path, e))?;
        Ok(lock)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process between its fork and its exec has it open
        // as well. Who cannot unlock leaves it to the close.
        let _ = self.0.unlock();
    }
}

fn holder(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
