//! What can go wrong with cursors: what happened, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dacapo_log::Checkpoint;

/// A name that no cursor can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CursorNameError {
    /// There is nothing to call it by.
    #[error("a cursor's name has at least one byte")]
    Empty,
    /// The name is longer than [`Cursor::NAME_BYTES_MAX`](crate::Cursor::NAME_BYTES_MAX).
    #[error("a cursor's name has at most {max} bytes, and this one has {bytes}", max = crate::Cursor::NAME_BYTES_MAX)]
    TooLong {
        /// The name's length.
        bytes: usize,
    },
    /// The name has a character that a terminal would act upon.
    #[error("a cursor's name has no control characters, and {name:?} has one at byte {at}")]
    Control {
        /// The name.
        name: String,
        /// Where the character begins.
        at: usize,
    },
}

/// Something about cursors failed. The log is as it was, and no message is lost.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// A name that no cursor can have.
    #[error(transparent)]
    Name(#[from] CursorNameError),
    /// There is no cursor of this name to be moved.
    #[error("there is no cursor {name:?}; set it first")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A commit may only go forward; the cursor is where it was.
    #[error(
        "cursor {name:?} stands at offset {} of epoch {}, and offset {} of epoch {} lies before that; to go back, set it by hand",
        committed.offset, committed.epoch, requested.offset, requested.epoch
    )]
    Backwards {
        /// The cursor's name.
        name: String,
        /// Where it stands.
        committed: Checkpoint,
        /// Where it was to go.
        requested: Checkpoint,
    },
    /// The cursors of a log are kept by one process at a time. Others can read them, with
    /// [`Cursors::published`](crate::Cursors::published).
    #[error("the cursors in {} are in use by {}; stop it first, or only read them", path.display(), holder(*pid))]
    Held {
        /// The log's directory.
        path: PathBuf,
        /// The process, where it could be read.
        pid: Option<u32>,
    },
    /// The stored cursors cannot be read. Nothing of them was changed.
    #[error(
        "the cursors in {} are damaged: {reason}; build them anew (`Cursors::rebuild`, `dacapo cursor rebuild`): the damaged files are put aside, every cursor that can still be read is kept, and a consumer that has lost its own begins with the oldest record, or where it is set by hand; no message is lost",
        path.display()
    )]
    Damaged {
        /// The file or directory that is damaged.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The stored cursors belong to another log. Nothing of them was changed.
    #[error(
        "the cursors in {} belong to log {found:032x}, and this is log {expected:032x}; move them back to their log, or build them anew (`Cursors::rebuild`, `dacapo cursor rebuild`): they are put aside, and every consumer begins with the oldest record",
        path.display()
    )]
    ForeignLog {
        /// The file or directory that belongs to it.
        path: PathBuf,
        /// This log's id.
        expected: u128,
        /// The id that is stored.
        found: u128,
    },
    /// The list of cursors was written by a later version of this program. Nothing of it was changed.
    #[error("{} has format version {found}, and this build reads version {supported}; use a newer build", path.display())]
    Version {
        /// The list.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this build reads.
        supported: u32,
    },
    /// A system call failed. A cursor that was to be moved is where it was.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's own error.
        source: Arc<io::Error>,
    },
    /// Making cursors durable failed, now or earlier, or a change was left half done. What the disk holds
    /// after that cannot be known without looking: no cursor is moved any more until all handles to
    /// them are dropped, and they are opened again.
    #[error("no cursor is moved since a failure: {cause}; close the cursors, and open them again")]
    Poisoned {
        /// What failed.
        cause: Arc<CursorError>,
    },
}

impl CursorError {
    pub(super) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source: Arc::new(source.into()),
        }
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) if pid == std::process::id() => "this process".to_owned(),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}
