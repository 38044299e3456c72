//! Named cursors: how far each consumer of a log has come, remembered beside the log.
//!
//! A cursor lies in two files, because one alone does not do:
//!
//! - `cursors.list`, a plain file of checksummed slots, takes every commit, with one `pwrite`. From then
//!   on a killed process loses nothing. Other processes read it at any time.
//! - `cursors`, a sled database, takes each cursor when it is made durable: on demand, within a second of
//!   a commit, and when the cursors are closed. It is the second copy, in other files and written by other code, from which
//!   the list is mended when a disk has damaged it, and the other way round.
//!
//! sled alone would not do. It keeps what it is given in the process's memory until it is flushed, so that
//! a kill takes it; to insert and flush a cursor takes 110 µs, and its slot in the list 0.3 µs. It locks
//! its file, so that no other process can look. And over bytes that have rotted it opens an older state
//! without a word, so that whatever it says has to be compared with something.
//!
//! What is opened is the newer of the two, cursor by cursor; what was amiss is mended, and told as a
//! [`StoreNotice`]. A position that is lost is replaced by an earlier one: messages come again, and none
//! is left out. Nothing here is the only copy of a message.
//!
//! ```text
//! entry       a cursor as bytes          list, sled_store   the two files
//! merge       what the two say together  store              both, and the cursors in memory
//! registry    one store for a directory  lock               one process for a store
//! flusher     durable within a second    cursor, notice     what people see
//! ```

mod cursor;
mod entry;
mod error;
mod files;
mod flusher;
mod list;
mod lock;
mod merge;
mod notice;
mod registry;
mod sled_store;
mod store;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use dacapo_log::{Checkpoint, Log};

pub use cursor::{Cursor, Position};
pub use error::{CursorError, CursorNameError};
pub use list::PublishedCursors;
pub use notice::StoreNotice;

use registry::Registered;
use store::Store;

/// The named cursors of a log: how far each consumer has come.
///
/// Clones share one store, and so do all who ask for the cursors of the same directory in a process.
/// Of several processes one has them at a time; the others can read them, with
/// [`published`](Self::published). When the last handle is dropped, everything is made durable, which
/// takes as long as [`flush`](Self::flush).
///
/// Opening, [`set`](Self::set), [`delete`](Self::delete), [`commit_durable`](Self::commit_durable),
/// [`flush`](Self::flush) and the last drop wait for the disk: keep them off an async executor.
/// [`commit`](Self::commit) does not, unless a `set` or `delete` is writing at that moment.
///
/// ```
/// use dacapo::{Cursors, Position};
/// use dacapo_log::{Checkpoint, Log, Offset};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let log = Log::open(dir)?;
/// log.append(b"invoice 1")?;
///
/// let cursors = Cursors::of(&log)?;
/// let at = |offset| Checkpoint { offset, epoch: log.epoch() };
/// cursors.set("billing", Position::new(at(log.oldest())))?;
/// // ... handle record 0, and then:
/// cursors.commit("billing", at(Offset::new(1)))?;
/// drop(cursors); // or kill the process
///
/// let cursors = Cursors::of(&log)?;
/// let billing = cursors.get("billing").expect("it was set");
/// assert_eq!(billing.checkpoint.offset, Offset::new(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Cursors {
    shared: Arc<Registered>,
}

impl Cursors {
    /// The cursors of `log`; creates the store if there is none.
    ///
    /// Blocks. Look at the [`notices`](Self::notices) behind it.
    ///
    /// # Errors
    /// [`CursorError::Held`] while another process has them, [`CursorError::Damaged`] and
    /// [`CursorError::ForeignLog`] with the way out, and what can go wrong with files.
    pub fn of(log: &Log) -> Result<Self, CursorError> {
        Self::open(log.dir(), log.id())
    }

    /// The cursors in the directory `dir` of the log with this [id](dacapo_log::Log::id), open or
    /// not; creates the store if there is none.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn open(dir: impl AsRef<Path>, log_id: u128) -> Result<Self, CursorError> {
        let shared = registry::shared(dir.as_ref(), |dir| Store::open(dir, log_id))?;
        match shared.store().log_id {
            found if found == log_id => Ok(Self { shared }),
            found => Err(CursorError::ForeignLog {
                path: dir.as_ref().to_owned(),
                expected: log_id,
                found,
            }),
        }
    }

    /// Builds damaged cursors anew: the files are put aside, as `cursors.damaged-1` and
    /// `cursors.list.damaged-1` or the next number that is free, and what of them can still be read, and
    /// belongs to the log with this id, is kept. [`notices`](Self::notices) says what was lost.
    ///
    /// A consumer that has lost its cursor begins with the oldest record, or where it is
    /// [set](Self::set). Blocks. If it is interrupted, the cursors are as they were, or as they become.
    ///
    /// # Errors
    /// [`CursorError::Held`] while any process has them open, this one included, and what can go wrong
    /// with files.
    pub fn rebuild(dir: impl AsRef<Path>, log_id: u128) -> Result<Self, CursorError> {
        let shared = registry::alone(dir.as_ref(), |dir| Store::rebuild(dir, log_id))?;
        Ok(Self { shared })
    }

    /// Reads the cursors of the log in `dir`, whichever process has them open; changes nothing.
    ///
    /// Each cursor is as its last commit left it, or one that is just being made.
    ///
    /// # Errors
    /// [`CursorError::Damaged`] where the list is gone, [`CursorError::Version`], and what can go wrong
    /// with files.
    pub fn published(dir: impl AsRef<Path>) -> Result<PublishedCursors, CursorError> {
        list::published(dir.as_ref())
    }

    /// The cursor of this name, as it was last committed.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cursor> {
        self.shared.store().get(name)
    }

    /// All cursors, in the order of their names.
    #[must_use]
    pub fn list(&self) -> Vec<Cursor> {
        self.shared.store().list()
    }

    /// Moves a cursor forward, to the next record that is not yet handled.
    ///
    /// It survives a killed process when this returns. It survives power loss after
    /// [`flush`](Self::flush), which a thread in the background calls within a second; before that a
    /// power cut may take the cursor back to an earlier commit.
    ///
    /// In a later epoch than the cursor's every offset is forward: a crash may have undone records that it
    /// had passed. Whether one did is for the log to say.
    ///
    /// # Errors
    /// [`CursorError::Unknown`] if there is none, [`CursorError::Backwards`] for an earlier epoch, or an
    /// earlier offset of the same epoch, and what can go wrong with files. The cursor is then where it was.
    pub fn commit(&self, name: &str, to: Checkpoint) -> Result<(), CursorError> {
        self.shared.store().commit(name, to).map(drop)
    }

    /// As [`commit`](Self::commit), and survives power loss when this returns. Blocks; those who
    /// wait at the same time share the syncs.
    ///
    /// # Errors
    /// As `commit`; after [`CursorError::Poisoned`] nothing is committed any more until the cursors are
    /// opened again.
    pub fn commit_durable(&self, name: &str, to: Checkpoint) -> Result<(), CursorError> {
        let generation = self.shared.store().commit(name, to)?;
        self.shared.store().flush_cursor(name, generation)
    }

    /// Sets a cursor by hand, backwards too, or makes it. It survives power loss when this returns;
    /// blocks.
    ///
    /// # Errors
    /// [`CursorError::Name`], and what can go wrong with files: then the cursor is as it was or as it
    /// was to be.
    pub fn set(&self, name: &str, to: Position) -> Result<(), CursorError> {
        self.shared.store().set(name, to)?;
        self.shared.store().flush()
    }

    /// Deletes a cursor; `false` if there is none. It stays deleted after power loss when this returns;
    /// blocks.
    ///
    /// # Errors
    /// [`CursorError::Name`], and what can go wrong with files: then the cursor is there or not.
    pub fn delete(&self, name: &str) -> Result<bool, CursorError> {
        let deleted = self.shared.store().delete(name)?;
        self.shared.store().flush()?;
        Ok(deleted)
    }

    /// Makes all that was committed safe from power loss; blocks.
    ///
    /// # Errors
    /// [`CursorError::Poisoned`], now and from now on, where that fails.
    pub fn flush(&self) -> Result<(), CursorError> {
        self.shared.store().flush()
    }

    /// What was amiss when the store was opened in this process, and is mended.
    #[must_use]
    pub fn notices(&self) -> &[StoreNotice] {
        &self.shared.store().notices
    }
}

impl fmt::Debug for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.store().fmt(f)
    }
}
