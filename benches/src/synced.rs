//! The least that a durable append must do: `pwrite` and `fdatasync` on blocks that were written
//! before; and the simplest way to share it among many threads.

use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::limit::zeroed_file;

/// Each append begins in a sector of its own, as the engine's do behind a flush.
const SECTOR_BYTES: usize = 512;

/// A file of synced zeros, written to from its start, again and again.
#[derive(Debug)]
pub struct SyncedFile {
    file: File,
    bytes: usize,
    end: usize,
}

impl SyncedFile {
    /// A temporary file of `bytes` bytes, rounded up to whole pieces of 256 KiB, in the current
    /// directory's filesystem.
    ///
    /// # Errors
    /// Those of creating, writing and syncing the file.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let file = zeroed_file(bytes)?;
        let bytes = usize::try_from(file.metadata()?.len()).expect("a number of bytes");
        let end = 0;
        Ok(Self { file, bytes, end })
    }

    /// Writes `frames` and syncs them.
    ///
    /// # Errors
    /// Those of writing and syncing.
    pub fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        if self.bytes - self.end < frames.len() {
            self.end = 0;
        }
        self.file.write_all_at(frames, self.end as u64)?;
        self.end = (self.end + frames.len()).next_multiple_of(SECTOR_BYTES);
        self.end = self.end.min(self.bytes);
        self.file.sync_data()
    }
}

/// The simple group commit: one mutex, one buffer, one leader that writes and syncs it while the
/// others wait.
#[derive(Debug)]
pub struct GroupCommit {
    queue: Mutex<Queue>,
    /// Touched by the leader alone.
    file: Mutex<SyncedFile>,
    synced: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    buffer: Vec<u8>,
    /// The leader's, while it does not need it.
    spare: Vec<u8>,
    appended: u64,
    durable: u64,
    is_led: bool,
}

impl GroupCommit {
    /// A group commit to that file.
    #[must_use]
    pub fn new(file: SyncedFile) -> Self {
        Self {
            queue: Mutex::default(),
            file: Mutex::new(file),
            synced: Condvar::new(),
        }
    }

    /// Appends a frame, and returns when it is synced.
    ///
    /// # Panics
    /// When writing or syncing fails, here or in another thread.
    pub fn append(&self, frame: &[u8]) {
        let mut queue = self.queue.lock().expect("no thread has failed");
        queue.buffer.extend_from_slice(frame);
        queue.appended += 1;
        let number = queue.appended;
        while queue.durable < number {
            if queue.is_led {
                let waited = self.synced.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.is_led = true;
            let (covered, spare) = (queue.appended, mem::take(&mut queue.spare));
            let mut group = mem::replace(&mut queue.buffer, spare);
            drop(queue);
            let mut file = self.file.lock().expect("no thread has failed");
            file.append(&group).expect("written and synced");
            drop(file);
            group.clear();
            queue = self.queue.lock().expect("no thread has failed");
            queue.spare = group;
            queue.durable = covered;
            queue.is_led = false;
            self.synced.notify_all();
        }
    }
}
