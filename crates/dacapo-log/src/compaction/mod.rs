//! Compaction: giving back the space of records that are gone for readers of topics.
//!
//! A sealed segment is written anew without them, under another name, and takes the old file's place
//! at once; offsets stay. What may go is planned from the topics of all segments (`plan.rs`), and one
//! segment after the other is rewritten (`rewrite.rs`), oldest first.

mod limits;
mod pieces;
mod plan;
mod policy;
mod rewrite;

use std::sync::Arc;

use crate::error::{FileError, ReadError, SyncError};

pub(crate) use limits::TopicLimits;
pub(crate) use pieces::Pieces;
pub(crate) use plan::{SegmentPlan, Victim, plan, survey};
pub use policy::Compaction;
pub(crate) use rewrite::rewrite;

/// The name of a segment that is being rewritten.
pub(crate) const COMPACTED_TEMPORARY: &str = "compact.tmp";

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// How many segments were written anew.
    pub segments: usize,
    /// How many records they lost.
    pub records: u64,
    /// The length of their files before.
    pub bytes_before: u64,
    /// The length of their files now.
    pub bytes_after: u64,
}

/// A compaction was given up, or has left segments out. Those that it had finished stay compacted;
/// nothing is lost.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactError {
    /// The log takes no more changes.
    #[error(transparent)]
    Refused(#[from] SyncError),
    /// A segment cannot be read, and was left as it is; the others were compacted. The first one, if
    /// there are several.
    #[error("a segment cannot be compacted, and was left as it is: {0}")]
    Unreadable(#[from] ReadError),
    /// There is no space to write a segment anew, next to the old one.
    #[error("no space to write a segment anew: {source}; free some, and compact again")]
    StorageFull {
        /// The call that failed.
        source: Arc<FileError>,
    },
    /// A system call failed, and the segment was left as it is.
    #[error(transparent)]
    Io(Arc<FileError>),
}

impl From<FileError> for CompactError {
    fn from(failure: FileError) -> Self {
        let full = failure.is_storage_full();
        let source = Arc::new(failure);
        match full {
            true => Self::StorageFull { source },
            false => Self::Io(source),
        }
    }
}
