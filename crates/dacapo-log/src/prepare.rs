//! The next segment, made ready ahead and off the appender's thread.
//!
//! Blocks are allocated, then written with zeros, then synced, and only then mapped: so a full
//! disk is an error here and not a signal at a store, and later stores and syncs find written
//! blocks. On a copy-on-write filesystem no zeros are written: each would take a block, and the
//! record in its place another one.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use crate::clock;
use crate::disk::{Disk, DiskFile};
use crate::error::FileError;
use crate::format::{self, SegmentHeader};
use crate::map::Frontier;
use crate::offset::Epoch;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};

pub(crate) const PREPARED_FILE: &str = "next.tmp";

/// What all segments of one opening of a log have in common.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    pub(crate) disk: Disk,
    pub(crate) dir: PathBuf,
    pub(crate) log_id: u128,
    pub(crate) epoch: Epoch,
    /// Stores go through the mapping, so it is mapped for writing.
    pub(crate) through_mapping: bool,
    /// The filesystem stores over written blocks in place.
    pub(crate) overwrites_in_place: bool,
}

/// A segment file without a name of its own yet; header written, everything durable but the name.
pub(crate) struct Prepared {
    pub(crate) file: DiskFile,
    pub(crate) header: SegmentHeader,
    pub(crate) frontier: Frontier,
}

/// How large a segment is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// The size to try first.
    pub(crate) wanted_bytes: u64,
    /// On a nearly full disk, no smaller than this.
    pub(crate) least_bytes: u64,
}

impl Blueprint {
    /// Makes a segment file ready; on a nearly full disk a smaller one. Leaves nothing behind on failure.
    pub(crate) fn prepare(&self, size: Size) -> Result<Prepared, FileError> {
        let path = self.dir.join(PREPARED_FILE);
        let mut bytes = size.wanted_bytes.max(size.least_bytes);
        loop {
            let failure = match self.prepare_exactly(bytes) {
                Ok(prepared) => return Ok(prepared),
                Err(failure) => failure,
            };
            self.disk.remove(&path)?;
            let half = (bytes / 2)
                .next_multiple_of(format::PAGE_BYTES as u64)
                .max(size.least_bytes);
            if !failure.is_storage_full() || half >= bytes {
                return Err(failure);
            }
            bytes = half;
        }
    }

    fn prepare_exactly(&self, file_bytes: u64) -> Result<Prepared, FileError> {
        let file = self.disk.create(&self.dir.join(PREPARED_FILE))?;
        let allocated = file.allocate(file_bytes)?;
        if self.overwrites_in_place || !allocated {
            file.write_zeroes(0, file_bytes)?;
        }
        let header = SegmentHeader {
            nonce: self.disk.random_u32(),
            log_id: self.log_id,
            epoch: self.epoch,
            file_bytes,
            created_micros: clock::now_micros(),
        };
        file.write_at(&header.encode(), 0)?;
        file.sync_data()?;
        let capacity = usize::try_from(file_bytes).expect("at most 1 GiB");
        let frontier = match self.through_mapping {
            true => file.map_writable(capacity, format::FRAMES_START)?,
            false => file.map_growing(capacity, format::FRAMES_START)?,
        };
        Ok(Prepared {
            file,
            header,
            frontier,
        })
    }
}

/// The thread that prepares, and what it has ready.
pub(crate) struct Preparer {
    shared: Arc<PreparerState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct PreparerState {
    blueprint: Blueprint,
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// What is asked of the thread, and what it has made.
#[derive(Default)]
struct Desk {
    order: Option<Size>,
    working: bool,
    ready: Option<Result<Prepared, FileError>>,
    stopped: bool,
}

impl Preparer {
    pub(crate) fn start(blueprint: Blueprint) -> Result<Self, FileError> {
        let dir = blueprint.dir.clone();
        let shared = Arc::new(PreparerState {
            blueprint,
            desk: Mutex::default(),
            changed: Condvar::new(),
        });
        let state = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("dacapo-prepare".to_owned())
            .spawn(move || state.work())
            .map_err(|e| FileError::new("start a thread for", &dir, e))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(crate) fn blueprint(&self) -> &Blueprint {
        &self.shared.blueprint
    }

    /// Lets the thread make a segment ready, unless it has one or is at it.
    pub(crate) fn order(&self, size: Size) {
        let mut desk = self.shared.desk();
        if desk.order.is_none() && !desk.working && !matches!(desk.ready, Some(Ok(_))) {
            desk.ready = None;
            desk.order = Some(size);
            self.shared.changed.notify_all();
        }
    }

    /// The next segment, of at least `size.least_bytes`; waits for it if need be.
    pub(crate) fn take(&self, size: Size) -> Result<Prepared, FileError> {
        let mut desk = self.shared.desk();
        let mut ordered = false;
        loop {
            match desk.ready.take() {
                Some(Ok(prepared)) if prepared.header.file_bytes >= size.least_bytes => {
                    return Ok(prepared);
                }
                Some(Err(failure)) if ordered => return Err(failure),
                // Made ahead: too small for the record at hand, or failed, which may be over.
                _ => {}
            }
            if desk.order.is_none() && !desk.working {
                desk.order = Some(size);
                ordered = true;
                self.shared.changed.notify_all();
            }
            desk = self
                .shared
                .changed
                .wait(desk)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stops the thread, and removes what it had ready.
    pub(crate) fn stop(&self) {
        self.shared.desk().stopped = true;
        self.shared.changed.notify_all();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic there was printed there; nothing of the log depends on it.
            let _ = thread.join();
        }
        if let Some(Ok(prepared)) = self.shared.desk().ready.take() {
            // Best effort: the next opening removes it as well.
            let _ = self.shared.blueprint.disk.remove(prepared.file.path());
        }
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl PreparerState {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut desk = self.desk();
        loop {
            if let Some(size) = desk.order.take() {
                desk.working = true;
                drop(desk);
                let made = self.blueprint.prepare(size);
                desk = self.desk();
                desk.working = false;
                desk.ready = Some(made);
                self.changed.notify_all();
            } else if desk.stopped {
                return;
            } else {
                desk = self
                    .changed
                    .wait(desk)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}
