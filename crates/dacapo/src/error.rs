//! What can go wrong, one enum an operation.

use std::any::type_name;
use std::io;
use std::path::PathBuf;

use dacapo_log::{AppendError, Offset, ReadError, SyncError, Topic, TopicError};

use crate::broadcaster::Lagged;
use crate::codec::CodecError;
#[cfg(feature = "cursors")]
use crate::cursors::CursorError;
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
    /// No key fits behind the prefix of a broadcaster.
    #[error("no key fits behind the prefix `{prefix:.80}`: {source}")]
    Prefix {
        /// The prefix.
        prefix: String,
        /// Why not.
        source: TopicError,
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
    "{} holds {recorded}, as {} says{}, and is opened for {opened}; open it for what it holds, name that with `schema` if only the type has another name, or call `replace_schema` if new messages are to be as you say",
    channel(topic), path.display(), of_another(topic, recorded_for)
)]
#[non_exhaustive]
pub struct SchemaMismatch {
    /// The channel's topic, if it has one.
    pub topic: Option<Topic>,
    /// The file in which it is recorded what the channel holds.
    pub path: PathBuf,
    /// Of which topic it is recorded there: another one than `topic` where a broadcaster has both. That
    /// of a broadcaster ends in `*`, and stands for all that begin with what is before it.
    pub recorded_for: Option<Topic>,
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

fn of_another(topic: &Option<Topic>, recorded_for: &Option<Topic>) -> String {
    match recorded_for {
        Some(other) if recorded_for != topic => format!(" of topic `{other}`"),
        _ => String::new(),
    }
}

/// A backup was not made, or not wholly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The log could not be backed up.
    #[error(transparent)]
    Log(#[from] dacapo_log::BackupError),
    /// The log is backed up, and what its channels hold is not recorded in the backup.
    #[error("the log is backed up, but not the record of what its channels hold: {0}")]
    Schemas(#[source] OpenError),
    /// The log is backed up, and the cursors of its consumers are not.
    #[cfg(feature = "cursors")]
    #[error("the log is backed up, but not its cursors: {0}")]
    Cursors(#[source] CursorError),
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
    /// The key names no topic; of a [`Broadcaster`](crate::Broadcaster). Nothing was sent.
    #[error(transparent)]
    Key(#[from] KeyError),
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

/// A key names no topic: its text is too long, or empty where no prefix stands before it.
///
/// Shown, a long key is cut off behind 80 characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key `{key:.80}` names no topic: {source}")]
#[non_exhaustive]
pub struct KeyError {
    /// The key's text, with the prefix before it.
    pub key: String,
    /// Why not.
    pub source: TopicError,
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
    /// A subscription fell behind, and passes messages over: said once, receiving goes on behind them.
    /// See [`Lag::Error`](crate::Lag::Error).
    #[error(transparent)]
    Lagged(Lagged),
    /// A subscription fell behind, and that has ended it. See [`Lag::End`](crate::Lag::End).
    #[error(
        "more than {buffer} messages are unread, which ends the subscription; subscribe again from offset {resume_at} to miss none"
    )]
    FellBehind {
        /// How many may be unread.
        buffer: usize,
        /// The first message that was not received.
        resume_at: Offset,
    },
    /// The key was removed, and everything sent to it before was received.
    #[error("the key was removed, and everything sent to it before was received")]
    Removed,
}

impl ReceiveError {
    /// Whether more messages are unread than the subscription's [`Lag`](crate::Lag) allows: it goes on
    /// behind some, or has ended.
    #[must_use]
    pub fn is_lagged(&self) -> bool {
        matches!(self, Self::Lagged(_) | Self::FellBehind { .. })
    }

    /// Whether nothing more will be received: a stream ends in the place of such an error.
    #[must_use]
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::Removed | Self::FellBehind { .. })
    }
}

impl From<ReadError> for ReceiveError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Closed,
            error => Self::Read(error),
        }
    }
}

/// A consumer could not be opened, receive, or commit. No message is lost.
#[cfg(feature = "cursors")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// No message was received.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// The cursors cannot be read or written.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// There is one consumer of each name at a time.
    #[error(
        "consumer {name:?} is open in this process already; drop that one, or use another name"
    )]
    InUse {
        /// Its name.
        name: String,
    },
    /// A consumer reads one topic for as long as it lives.
    #[error(
        "consumer {name:?} reads {}, and is opened for {}; use another name, or delete it first",
        channel(recorded),
        channel(opened)
    )]
    OtherTopic {
        /// Its name.
        name: String,
        /// The topic that it reads.
        recorded: Option<Topic>,
        /// The topic that it was opened for.
        opened: Option<Topic>,
    },
    /// A commit goes no further than what was received.
    #[error(
        "consumer {name:?} has not received message {requested}: the next one that it receives is {next} or later; commit what it has received"
    )]
    NotReceived {
        /// Its name.
        name: String,
        /// The message that was to be committed.
        requested: Offset,
        /// The next one, or an offset before which there is none that it has not received.
        next: Offset,
    },
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
