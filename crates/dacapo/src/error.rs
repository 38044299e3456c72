//! What can go wrong, one enum an operation.

use std::any::type_name;
use std::io;
use std::path::PathBuf;

use dacapo_log::{AppendError, Offset, ReadError, SyncError, Topic};

use crate::codec::CodecError;
use crate::schema::Schema;

/// Opening a channel failed. Nothing that was stored has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] dacapo_log::OpenError),
    /// The channel holds messages of another type or in another format.
    #[error(transparent)]
    Schema(#[from] Box<SchemaMismatch>),
    /// The file that says what the log's channels hold is damaged.
    #[error(
        "{} is damaged: {source}; delete it, and channels are taken for what they are next opened for: no message is in it",
        path.display()
    )]
    SchemaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
}

/// A channel was opened for other messages than those that it holds.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} holds {recorded}, as {} says, and is opened for {opened}; open it for what it holds, name that with `schema` if only the type has another name, or call `replace_schema` if new messages are to be as you say",
    channel(topic), path.display()
)]
#[non_exhaustive]
pub struct SchemaMismatch {
    /// The channel's topic, if it has one.
    pub topic: Option<Topic>,
    /// The file in which it is recorded what the channel holds.
    pub path: PathBuf,
    /// What it holds.
    pub recorded: Schema,
    /// What it was opened for.
    pub opened: Schema,
}

fn channel(topic: &Option<Topic>) -> String {
    match topic {
        Some(topic) => format!("topic `{topic}`"),
        None => "the channel without a topic".to_owned(),
    }
}

/// A message was not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The codec cannot express the message. Nothing was sent.
    #[error("{codec} cannot express this {message}: {source}")]
    Encode {
        /// The message's type.
        message: &'static str,
        /// The codec's name.
        codec: String,
        /// Why not.
        source: CodecError,
    },
    /// The log did not take the message.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The message was sent and can be received, but not made durable.
    #[error("message {offset} was sent, but is not known to be safe from a power cut: {source}")]
    NotDurable {
        /// Where the message is.
        offset: Offset,
        /// Why.
        source: SyncError,
    },
}

/// No message was received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// No sender and no channel handle is left, or the log was closed, and everything was received.
    #[error("the channel is closed, and everything in it was received")]
    Closed,
    /// A message's bytes are not what was asked for. Receiving goes on behind it.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The log cannot be read. Behind [`Pruned`](ReadError::Pruned), [`Rewound`](ReadError::Rewound)
    /// and [`Lost`](ReadError::Lost) messages receiving goes on by itself; behind damage with
    /// [`skip_damage`](crate::Receiver::skip_damage).
    #[error(transparent)]
    Read(ReadError),
}

impl From<ReadError> for ReceiveError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Closed,
            error => Self::Read(error),
        }
    }
}

/// A message's bytes are not of the type that they were read as.
#[derive(Debug, thiserror::Error)]
#[error(
    "message {offset}{} is no {message} in {codec}: {source}",
    of_topic(topic)
)]
pub struct DecodeError {
    offset: Offset,
    topic: String,
    message: &'static str,
    codec: String,
    source: CodecError,
}

impl DecodeError {
    /// The message at `offset` is no `V`.
    pub(crate) fn new<V>(offset: Offset, topic: &str, codec: &str, source: CodecError) -> Self {
        Self {
            offset,
            topic: topic.to_owned(),
            message: type_name::<V>(),
            codec: codec.to_owned(),
            source,
        }
    }

    /// Where the message is.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Its topic; empty where it has none.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The type that it was read as.
    #[must_use]
    pub fn message_type(&self) -> &'static str {
        self.message
    }
}

fn of_topic(topic: &str) -> String {
    match topic {
        "" => String::new(),
        topic => format!(" of topic `{topic}`"),
    }
}
