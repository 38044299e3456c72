//! What can go wrong with a broadcast.

use dacapo_log::{AppendError, SyncError, TopicError};

use super::wire::FIELD_BYTES_MAX;

/// Why something was not broadcast or pushed; nobody got it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Only objects and bytes can be broadcast and pushed, as in Phoenix.
    #[error(
        "a payload that is neither a JSON object nor bytes cannot be broadcast or pushed; wrap it in an object"
    )]
    NotAnObject,
    /// The event's name is too long.
    #[error("an event's name has at most {FIELD_BYTES_MAX} bytes, and this one has {bytes}")]
    EventTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The topic's name is too long.
    #[error("a topic's name has at most {FIELD_BYTES_MAX} bytes, and this one has {bytes}")]
    TopicTooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The log cannot have such a topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// What the topic is in another protocol does not allow it, as a stream that is closed.
    #[error("{reason}")]
    Refused {
        /// Why not.
        reason: String,
    },
    /// The log did not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It was appended, and perhaps some have got it, but it is not safe from power loss.
    #[error(transparent)]
    Sync(#[from] SyncError),
}
