//! The end of a channel that receives.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dacapo_log::{Checkpoint, Offset, RecordRef, Start, Tailer};
use futures_core::Stream;

use crate::channel::Shared;
use crate::codec::{Decode, Postcard};
use crate::error::{DecodeError, ReceiveError};
use crate::inbox::Inbox;
use crate::message::{self, Message, MessageRef};
use crate::unwrapping::Unwrapping;
use crate::wait::Wait;

/// Receives messages; made by [`ReplayChannel::receiver`](crate::ReplayChannel::receiver).
///
/// It begins with the oldest message and then follows live, and holds nothing but a position. Shared by
/// reference, its users compete: each message goes to one of them. A clone is independent, and begins
/// where this one stands.
///
/// Every way of receiving comes twice: `receive` returns the message, decoded, and `message` a
/// [`Message`], which has its offset and time, and is decoded when asked. Both wait on any async
/// runtime; `_blocking` and `_timeout` block the thread, and `try_` does not wait.
///
/// ```
/// use dacapo::{ReceiveError, ReplayChannel};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let channel = ReplayChannel::<String>::temporary()?;
/// let receiver = channel.receiver();
/// channel.sender().send("hello")?;
/// drop(channel); // nobody is left who could send
///
/// futures_lite::future::block_on(async {
///     assert_eq!(receiver.receive().await?, "hello");
///     assert!(matches!(receiver.receive().await, Err(ReceiveError::Closed)));
///     Ok(())
/// })
/// # }
/// ```
#[must_use = "a receiver that is dropped receives nothing"]
pub struct Receiver<T, C = Postcard> {
    inbox: Inbox,
    codec: C,
    /// Of the stream.
    wait: Option<Wait>,
    message: PhantomData<fn() -> T>,
}

impl<T, C: for<'a> Decode<'a, T>> Receiver<T, C> {
    pub(crate) fn new(tailer: Tailer, is_labelled: bool, shared: Arc<Shared>, codec: C) -> Self {
        Self {
            inbox: Inbox::new(tailer, is_labelled, shared),
            codec,
            wait: None,
            message: PhantomData,
        }
    }

    /// Receives messages only that a power cut cannot undo.
    pub fn durable_only(self) -> Self {
        Self {
            inbox: self.inbox.durable_only(),
            ..self
        }
    }

    /// The same, which panics where it fails: for tests and first steps.
    pub fn unwrapping(self) -> Unwrapping<Self> {
        Unwrapping::new(self)
    }

    /// Waits for the next message. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`ReceiveError`]. Behind a message that cannot be decoded, and behind messages that were
    /// dropped or lost, the next call goes on.
    pub async fn receive(&self) -> Result<T, ReceiveError> {
        Ok(self.wait_with(|record| self.decode(record)).await??)
    }

    /// As [`receive`](Self::receive), blocking the thread.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_blocking(&self) -> Result<T, ReceiveError> {
        let received = self.block_with(None, |record| self.decode(record))?;
        Ok(received.expect("without a deadline, it came")?)
    }

    /// As [`receive_blocking`](Self::receive_blocking), for at most `timeout`: `None` if nothing came.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_timeout(&self, timeout: Duration) -> Result<Option<T>, ReceiveError> {
        let deadline = Instant::now().checked_add(timeout);
        let received = self.block_with(deadline, |record| self.decode(record))?;
        Ok(received.transpose()?)
    }

    /// The next message, if it is there already.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn try_receive(&self) -> Result<Option<T>, ReceiveError> {
        let received = self.try_with(|record| self.decode(record))?;
        Ok(received.transpose()?)
    }

    /// As [`receive`](Self::receive), as it is stored, with its offset and time.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), but that it is not decoded.
    pub async fn message(&self) -> Result<Message<T, C>, ReceiveError> {
        self.wait_with(|record| self.keep(record)).await
    }

    /// As [`message`](Self::message), blocking the thread.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn message_blocking(&self) -> Result<Message<T, C>, ReceiveError> {
        let received = self.block_with(None, |record| self.keep(record))?;
        Ok(received.expect("without a deadline, it came"))
    }

    /// As [`message_blocking`](Self::message_blocking), for at most `timeout`: `None` if nothing came.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn message_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<Message<T, C>>, ReceiveError> {
        let deadline = Instant::now().checked_add(timeout);
        self.block_with(deadline, |record| self.keep(record))
    }

    /// As [`try_receive`](Self::try_receive), as it is stored, with its offset and time.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn try_message(&self) -> Result<Option<Message<T, C>>, ReceiveError> {
        self.try_with(|record| self.keep(record))
    }

    /// Waits for the next message and lets `read` look at it in place: without a copy, and without
    /// counting a reference to the file in which it lies. Cancel-safe.
    ///
    /// Others who share the receiver wait until `read` has returned; it must not use the receiver itself.
    ///
    /// ```
    /// use dacapo::ReplayChannel;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let channel = ReplayChannel::<(u64, String)>::temporary()?;
    /// channel.sender().send(&(7, "tea".into()))?;
    /// let receiver = channel.receiver();
    /// let len = receiver.receive_with_blocking(|message| {
    ///     let (id, item): (u64, &str) = message.view()?;
    ///     assert_eq!(id, 7);
    ///     Ok::<usize, dacapo::DecodeError>(item.len())
    /// })??;
    /// assert_eq!(len, 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub async fn receive_with<R>(
        &self,
        mut read: impl FnMut(MessageRef<'_, C>) -> R,
    ) -> Result<R, ReceiveError> {
        let codec = &self.codec;
        self.wait_with(|record| read(MessageRef::new(record, codec)))
            .await
    }

    /// As [`receive_with`](Self::receive_with), blocking the thread.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn receive_with_blocking<R>(
        &self,
        mut read: impl FnMut(MessageRef<'_, C>) -> R,
    ) -> Result<R, ReceiveError> {
        let read = self.block_with(None, |record| read(MessageRef::new(record, &self.codec)))?;
        Ok(read.expect("without a deadline, it came"))
    }

    /// As [`receive_with`](Self::receive_with), if the message is there already.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn try_receive_with<R>(
        &self,
        read: impl FnOnce(MessageRef<'_, C>) -> R,
    ) -> Result<Option<R>, ReceiveError> {
        self.try_with(|record| read(MessageRef::new(record, &self.codec)))
    }

    /// The next message, if it is there already, without receiving it.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn peek(&self) -> Result<Option<Message<T, C>>, ReceiveError> {
        self.inbox.peek(|record| self.keep(record))
    }

    /// An iterator that blocks for each message, and ends when the channel is closed.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let channel = dacapo::ReplayChannel::<u32>::temporary()?;
    /// let receiver = channel.receiver();
    /// channel.sender().send_batch(&[1, 2, 3])?;
    /// drop(channel);
    /// let all: Result<Vec<u32>, _> = receiver.iter().collect();
    /// assert_eq!(all?, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn iter(&self) -> Messages<'_, T, C> {
        Messages { receiver: self }
    }

    /// The offset of the next message, or one before which there are none that it has not received.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.tailer().next_offset()
    }

    /// The position behind the last message received: keep it, and go on with [`Start::Resume`], in
    /// another process too.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.tailer().checkpoint()
    }

    /// How many messages there are still to receive, as of now. Of a channel without a topic in a log
    /// with topics, their records are counted too.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn remaining(&self) -> Result<u64, ReceiveError> {
        Ok(self.inbox.tailer().remaining()?)
    }

    /// Goes on from `start` instead. A start that cannot be is what receiving returns, as an error.
    pub fn seek(&self, start: Start) {
        self.inbox.seek(start);
    }

    /// Moves behind damage that [`receive`](Self::receive) has reported as
    /// [`Corrupt`](dacapo_log::ReadError::Corrupt) or
    /// [`SegmentMissing`](dacapo_log::ReadError::SegmentMissing), and returns the offset at which receiving goes on.
    pub fn skip_damage(&self) -> Offset {
        self.tailer().skip_damage()
    }

    fn tailer(&self) -> MutexGuard<'_, Tailer> {
        self.inbox.tailer()
    }

    fn decode(&self, record: RecordRef<'_>) -> Result<T, DecodeError> {
        message::decode_record(&self.codec, record)
    }

    fn keep(&self, record: RecordRef<'_>) -> Message<T, C> {
        Message::new(record.to_record(), self.codec.clone())
    }

    fn try_with<R>(
        &self,
        take: impl FnOnce(RecordRef<'_>) -> R,
    ) -> Result<Option<R>, ReceiveError> {
        self.inbox.try_with(take)
    }

    async fn wait_with<R>(
        &self,
        mut take: impl FnMut(RecordRef<'_>) -> R,
    ) -> Result<R, ReceiveError> {
        self.inbox.wait_for(|| self.try_with(&mut take)).await
    }

    fn block_with<R>(
        &self,
        deadline: Option<Instant>,
        mut take: impl FnMut(RecordRef<'_>) -> R,
    ) -> Result<Option<R>, ReceiveError> {
        let look = || self.try_with(&mut take);
        self.inbox.block_for(deadline, look)
    }
}

/// An independent receiver that stands where this one does.
impl<T, C: Clone> Clone for Receiver<T, C> {
    fn clone(&self) -> Self {
        Self {
            inbox: self.inbox.clone(),
            codec: self.codec.clone(),
            wait: None,
            message: PhantomData,
        }
    }
}

/// Nothing in it is pinned.
impl<T, C> Unpin for Receiver<T, C> {}

/// Ends when the channel is closed and everything was received; goes on behind other errors as
/// [`Receiver::receive`] does.
impl<T, C: for<'a> Decode<'a, T>> Stream for Receiver<T, C> {
    type Item = Result<T, ReceiveError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let look = || {
            let decode = |record: RecordRef<'_>| message::decode_record(&this.codec, record);
            this.inbox.try_with(decode)
        };
        let polled = this.inbox.poll_for(&mut this.wait, cx, look);
        polled.map(|received| unless_closed(received.and_then(|decoded| Ok(decoded?))))
    }
}

fn unless_closed<T>(received: Result<T, ReceiveError>) -> Option<Result<T, ReceiveError>> {
    match received {
        Err(ReceiveError::Closed) => None,
        received => Some(received),
    }
}

/// A blocking iterator over messages; made by [`Receiver::iter`].
#[must_use = "nothing is received until it is iterated"]
pub struct Messages<'a, T, C = Postcard> {
    receiver: &'a Receiver<T, C>,
}

impl<T, C: for<'a> Decode<'a, T>> Iterator for Messages<'_, T, C> {
    type Item = Result<T, ReceiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        unless_closed(self.receiver.receive_blocking())
    }
}

impl<'a, T, C: for<'b> Decode<'b, T>> IntoIterator for &'a Receiver<T, C> {
    type Item = Result<T, ReceiveError>;
    type IntoIter = Messages<'a, T, C>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T, C> fmt::Debug for Messages<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl<T, C> fmt::Debug for Receiver<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
