//! A consumer: a receiver with a name, which goes on where it last committed.

mod builder;
mod claim;
mod commits;
mod holds;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use dacapo_log::{Checkpoint, Log, Offset, ReadError, Start};
use futures_core::Stream;

pub use self::builder::{ConsumerBuilder, ConsumerStatus};
pub use self::commits::Commits;
pub(crate) use self::holds::Holds;
pub use self::holds::hold_for_consumers;

use self::claim::Claim;
use self::commits::Schedule;
use crate::codec::{Decode, Postcard};
use crate::cursors::{Cursor, Cursors};
use crate::error::{ConsumeError, ReceiveError};
use crate::message::Message;
use crate::receiver::Receiver;

/// Receives messages under a name, and goes on after a restart where it last committed; made by
/// [`ReplayChannel::consumer`](crate::ReplayChannel::consumer).
///
/// Each message comes at least once: what was received and not committed comes again. With the offset
/// stored beside your own data, in one transaction, it is exactly once: see the example
/// `exactly_once`. How it commits is said by [`Commits`]: by hand, unless told otherwise.
///
/// It takes `&mut self` to receive: asking for the next message says that the one before is handled.
/// For several workers, give each message to one of them and commit when all are done, or see the
/// example `job_queue`.
///
/// ```
/// use dacapo::ReplayChannel;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let orders = ReplayChannel::<String>::open(dir.path())?;
/// orders.sender().send_batch(["tea", "milk", "sugar"])?;
///
/// let mut billing = orders.consumer("billing")?;
/// assert_eq!(billing.receive_blocking()?, "tea");
/// billing.commit()?; // handled: it does not come again
/// assert_eq!(billing.receive_blocking()?, "milk");
/// drop(billing); // or kill the process
///
/// let mut billing = orders.consumer("billing")?;
/// assert_eq!(billing.lag()?, 2);
/// assert_eq!(billing.receive_blocking()?, "milk");
/// # Ok(())
/// # }
/// ```
#[must_use = "a consumer that is dropped receives nothing"]
pub struct Consumer<T, C = Postcard> {
    receiver: Receiver<T, C>,
    cursors: Cursors,
    schedule: Schedule,
    /// As it was last committed.
    committed: Checkpoint,
    /// Given back when it is dropped.
    claim: Claim,
}

impl<T, C: for<'a> Decode<'a, T>> Consumer<T, C> {
    /// Waits for the next message; the one before is handled. Cancel-safe: dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// See [`ConsumeError`]. [`Rewound`](dacapo_log::ReadError::Rewound) is said once, where a power cut
    /// has undone messages that were committed as handled; receiving goes on with those that have taken
    /// their place. Where a commit fails, nothing was received.
    pub async fn receive(&mut self) -> Result<T, ConsumeError> {
        if let Some(received) = self.try_receive()? {
            return Ok(received);
        }
        self.before_waiting()?;
        let received = self.receiver.receive().await;
        self.noted(received)
    }

    /// As [`receive`](Self::receive), blocking the thread.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_blocking(&mut self) -> Result<T, ConsumeError> {
        if let Some(received) = self.try_receive()? {
            return Ok(received);
        }
        self.before_waiting()?;
        let received = self.receiver.receive_blocking();
        self.noted(received)
    }

    /// As [`receive_blocking`](Self::receive_blocking), for at most `timeout`: `None` if nothing came.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_timeout(&mut self, timeout: Duration) -> Result<Option<T>, ConsumeError> {
        if let Some(received) = self.try_receive()? {
            return Ok(Some(received));
        }
        self.before_waiting()?;
        let received = self.receiver.receive_timeout(timeout);
        self.noted_if_any(received)
    }

    /// The next message, if it is there already; the one before is handled.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn try_receive(&mut self) -> Result<Option<T>, ConsumeError> {
        self.before_receiving()?;
        let received = self.receiver.try_receive();
        self.noted_if_any(received)
    }

    /// As [`receive`](Self::receive), as it is stored, with its offset and time.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), but that it is not decoded.
    pub async fn message(&mut self) -> Result<Message<T, C>, ConsumeError> {
        if let Some(received) = self.try_message()? {
            return Ok(received);
        }
        self.before_waiting()?;
        let received = self.receiver.message().await;
        self.noted(received)
    }

    /// As [`message`](Self::message), blocking the thread.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn message_blocking(&mut self) -> Result<Message<T, C>, ConsumeError> {
        if let Some(received) = self.try_message()? {
            return Ok(received);
        }
        self.before_waiting()?;
        let received = self.receiver.message_blocking();
        self.noted(received)
    }

    /// As [`try_receive`](Self::try_receive), as it is stored, with its offset and time.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn try_message(&mut self) -> Result<Option<Message<T, C>>, ConsumeError> {
        self.before_receiving()?;
        let received = self.receiver.try_message();
        self.noted_if_any(received)
    }

    /// Commits everything that was received: it does not come again.
    ///
    /// It survives a killed process when this returns, and a power cut within a second, or after
    /// [`commit_durable`](Self::commit_durable).
    ///
    /// # Errors
    /// What can go wrong with the cursors; then everything since the last commit may come again.
    pub fn commit(&mut self) -> Result<(), ConsumeError> {
        self.commit_at(self.receiver.checkpoint())
    }

    /// Commits the message at `offset` and all before it, and none of those behind it.
    ///
    /// # Errors
    /// As [`commit`](Self::commit); [`ConsumeError::NotReceived`] for a message that was not received
    /// yet, and for one before the last commit.
    pub fn commit_to(&mut self, offset: Offset) -> Result<(), ConsumeError> {
        let received = self.receiver.checkpoint();
        if offset >= received.offset {
            return Err(ConsumeError::NotReceived {
                name: self.claim.name().to_owned(),
                requested: offset,
                next: received.offset,
            });
        }
        self.commit_at(Checkpoint {
            offset: offset.next(),
            ..received
        })
    }

    /// As [`commit`](Self::commit), and survives a power cut when this returns. Blocks.
    ///
    /// A power cut can still undo messages that were handled before they were durable themselves: that
    /// is said, as [`Rewound`](dacapo_log::ReadError::Rewound).
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_durable(&mut self) -> Result<(), ConsumeError> {
        let to = self.receiver.checkpoint();
        self.cursors.commit_durable(self.claim.name(), to)?;
        self.committed_at(to);
        Ok(())
    }

    fn commit_at(&mut self, to: Checkpoint) -> Result<(), ConsumeError> {
        self.cursors.commit(self.claim.name(), to)?;
        self.committed_at(to);
        Ok(())
    }

    fn committed_at(&mut self, to: Checkpoint) {
        self.committed = to;
        // What was received behind it is still to be committed.
        if to == self.receiver.checkpoint() {
            self.schedule.committed();
        }
        self.claim.hold_from(to.offset);
    }

    /// Everything that was received before is handled.
    fn before_receiving(&mut self) -> Result<(), ConsumeError> {
        match self.schedule.is_due() {
            true => self.commit(),
            false => Ok(()),
        }
    }

    /// Nothing is there, and for how long nobody knows.
    fn before_waiting(&mut self) -> Result<(), ConsumeError> {
        match self.schedule.is_due_before_waiting() {
            true => self.commit(),
            false => Ok(()),
        }
    }

    fn noted<R>(&mut self, received: Result<R, ReceiveError>) -> Result<R, ConsumeError> {
        // One that cannot be decoded was received, too.
        match &received {
            Ok(_) | Err(ReceiveError::Decode(_)) => self.schedule.received(),
            Err(ReceiveError::Read(ReadError::Rewound { .. })) => {
                self.committed = self.receiver.checkpoint();
                self.claim.hold_from(self.committed.offset);
            }
            // Nothing comes any more that could say so.
            Err(ReceiveError::Closed) => self.before_waiting()?,
            Err(_) => {}
        }
        Ok(received?)
    }

    fn noted_if_any<R>(
        &mut self,
        received: Result<Option<R>, ReceiveError>,
    ) -> Result<Option<R>, ConsumeError> {
        match received {
            Ok(None) => Ok(None),
            Ok(Some(received)) => self.noted(Ok(received)).map(Some),
            Err(error) => self.noted(Err(error)),
        }
    }

    /// The name under which it commits.
    #[must_use]
    pub fn name(&self) -> &str {
        self.claim.name()
    }

    /// The first message that is not committed, and the log's epoch.
    #[must_use]
    pub fn committed(&self) -> Checkpoint {
        self.committed
    }

    /// The offset of the next message to be received, or one before which there are none.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.receiver.offset()
    }

    /// How many messages there are that it has not committed; 0 if it has handled and committed
    /// everything. Of a channel without a topic in a log with topics, their records are counted too.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn lag(&self) -> Result<u64, ConsumeError> {
        let behind = self.receiver.clone();
        behind.seek(Start::Resume(self.committed));
        Ok(behind.remaining()?)
    }

    /// The cursor as it is stored.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.cursors.get(self.claim.name())
    }

    /// Moves behind damage that receiving has reported; see [`Receiver::skip_damage`].
    pub fn skip_damage(&mut self) -> Offset {
        self.receiver.skip_damage()
    }
}

/// Deletes a consumer that is not open.
pub(crate) fn delete(log: &Log, name: &str, holds: &Arc<Holds>) -> Result<bool, ConsumeError> {
    let _claim = Claim::take(log.dir(), name, holds)?;
    let deleted = Cursors::of(log)?.delete(name)?;
    holds.release(name);
    Ok(deleted)
}

/// Ends when the channel is closed and everything was received.
impl<T, C: for<'a> Decode<'a, T>> Stream for Consumer<T, C> {
    type Item = Result<T, ConsumeError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match this.try_receive() {
            Ok(None) => {}
            Err(ConsumeError::Receive(ReceiveError::Closed)) => return Poll::Ready(None),
            received => return Poll::Ready(received.transpose()),
        }
        if let Err(error) = this.before_waiting() {
            return Poll::Ready(Some(Err(error)));
        }
        let received = ready!(Pin::new(&mut this.receiver).poll_next(cx));
        Poll::Ready(received.map(|received| this.noted(received)))
    }
}

impl<T, C> Unpin for Consumer<T, C> {}

impl<T, C> fmt::Debug for Consumer<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.claim.name())
            .field("committed", &self.committed)
            .finish_non_exhaustive()
    }
}
