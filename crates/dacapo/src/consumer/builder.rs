//! How a consumer is opened.

use std::fmt;

use dacapo_log::{Log, ReadError, Start};

use super::Consumer;
use super::claim::Claim;
use super::commits::{Commits, Schedule};
use crate::channel::ReplayChannel;
use crate::codec::{Decode, Encode, Postcard};
use crate::cursors::{Cursor, Cursors, Position};
use crate::error::{ConsumeError, ReceiveError};

/// Options for a [`Consumer`]; made by
/// [`ReplayChannel::consumer_builder`](crate::ReplayChannel::consumer_builder).
///
/// ```
/// use dacapo::{Commits, ReplayChannel, Start};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let orders = ReplayChannel::<String>::open(dir.path())?;
/// let mut mailing = orders
///     .consumer_builder("mailing")
///     .start(Start::Latest) // the first time; afterwards where it stands
///     .commits(Commits::Each)
///     .holds(true) // retention keeps what it has not handled
///     .open()?;
/// orders.sender().send("tea")?;
/// assert_eq!(mailing.receive_blocking()?, "tea");
/// # Ok(())
/// # }
/// ```
#[must_use = "a consumer receives once it is opened"]
pub struct ConsumerBuilder<'a, T, C = Postcard> {
    channel: &'a ReplayChannel<T, C>,
    name: String,
    start: Start,
    commits: Commits,
    holds: Option<bool>,
    durable_only: bool,
}

impl<'a, T, C: Encode<T> + for<'b> Decode<'b, T>> ConsumerBuilder<'a, T, C> {
    pub(crate) fn new(channel: &'a ReplayChannel<T, C>, name: &str) -> Self {
        Self {
            channel,
            name: name.to_owned(),
            start: Start::Oldest,
            commits: Commits::default(),
            holds: None,
            durable_only: false,
        }
    }

    /// Where it begins if there is no consumer of this name yet; with the oldest message by default.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// When it commits; by hand by default.
    pub fn commits(mut self, commits: Commits) -> Self {
        self.commits = commits;
        self
    }

    /// Whether retention and pruning keep the messages that it has not committed, from now on and
    /// whenever the channel is open, until it is said anew or the consumer is deleted; not at first.
    ///
    /// What is kept is kept in order: with its next message all that was appended behind it, by other
    /// channels of the log too. It is the process that has the log open for writing that keeps it, by its
    /// own consumers, and by the [cursors](crate::Cursors) as they were when it opened the channel: a
    /// cursor that is set, moved or deleted otherwise counts when it is next opened.
    pub fn holds(mut self, holds: bool) -> Self {
        self.holds = Some(holds);
        self
    }

    /// Receives messages only that a power cut cannot undo; all of them by default. So it never commits
    /// one that a power cut then undoes.
    pub fn durable_only(mut self) -> Self {
        self.durable_only = true;
        self
    }

    /// Opens the consumer, and creates it if there is none of this name. Blocks.
    ///
    /// # Errors
    /// [`ConsumeError::InUse`] where it is open already, [`ConsumeError::OtherTopic`] where it is
    /// another topic's, [`ConsumeError::Receive`] where it cannot begin at its start, and what can go
    /// wrong with the [cursors](crate::CursorError): the messages are safe whatever that is.
    pub fn open(self) -> Result<Consumer<T, C>, ConsumeError> {
        let (channel, log) = (self.channel, self.channel.log());
        let cursors = Cursors::of(log)?;
        let held_back = &channel.handle().holds;
        let claim = Claim::take(log.dir(), &self.name, held_back)?;
        held_back.take_if_readable_now(log, channel.topic());
        let known = cursors.get(&self.name);
        let start = match &known {
            Some(cursor) => Start::Resume(self.checked(cursor)?.checkpoint),
            None => self.start,
        };
        let receiver = channel.receiver_at(start);
        let receiver = match self.durable_only {
            true => receiver.durable_only(),
            false => receiver,
        };
        let (committed, held) = match &known {
            Some(cursor) => (cursor.checkpoint, cursor.holds),
            None => {
                if let Err(error) = receiver.peek()
                    && refuses(&error, self.start)
                {
                    return Err(error.into());
                }
                (receiver.checkpoint(), false)
            }
        };
        let holds = self.holds.unwrap_or(held);
        if known.is_none() || holds != held {
            let mut position = Position::new(committed).holds(holds);
            position.topic = channel.topic().cloned();
            cursors.set(&self.name, position)?;
        }
        match holds {
            // Where it will go on, which is not what it last said if a power cut has undone that.
            true => held_back.take(log, &self.name, receiver.offset()),
            false => held_back.release(&self.name),
        }
        Ok(Consumer {
            receiver,
            cursors,
            schedule: Schedule::new(self.commits),
            committed,
            claim,
        })
    }

    /// A cursor of this very topic.
    fn checked<'c>(&self, cursor: &'c Cursor) -> Result<&'c Cursor, ConsumeError> {
        match cursor.topic.as_ref() == self.channel.topic() {
            true => Ok(cursor),
            false => Err(ConsumeError::OtherTopic {
                name: self.name.clone(),
                recorded: cursor.topic.clone(),
                opened: self.channel.topic().cloned(),
            }),
        }
    }
}

/// Whether a start cannot be: no cursor is made of it. Anything else that is wrong there is for
/// receiving to tell, as it may be passed.
fn refuses(error: &ReceiveError, start: Start) -> bool {
    match error {
        ReceiveError::Read(ReadError::Pruned { .. }) => {
            matches!(start, Start::At(_) | Start::Resume(_))
        }
        ReceiveError::Read(
            ReadError::Corrupt(_) | ReadError::SegmentMissing { .. } | ReadError::Lost { .. },
        ) => matches!(start, Start::Since(_)),
        _ => true,
    }
}

/// A consumer of the channel, and how far it has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// Its cursor.
    pub cursor: Cursor,
    /// How many messages there are that it has not committed; counted as
    /// [`Consumer::lag`](crate::Consumer::lag) does.
    pub lag: u64,
}

impl ConsumerStatus {
    pub(crate) fn of(log: &Log, cursor: Cursor) -> Result<Self, ConsumeError> {
        let lag = cursor.lag(log).map_err(ReceiveError::from)?;
        Ok(Self { cursor, lag })
    }
}

impl<T, C> fmt::Debug for ConsumerBuilder<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerBuilder")
            .field("name", &self.name)
            .field("start", &self.start)
            .field("commits", &self.commits)
            .field("holds", &self.holds)
            .field("durable_only", &self.durable_only)
            .finish_non_exhaustive()
    }
}
