//! The end of a broadcaster that receives: the messages of one key, or of all that begin alike.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dacapo_log::{Checkpoint, Offset, RecordRef, Start, Tailer};
use futures_core::Stream;

use super::lag::{Gauge, Lag};
use super::live::Membership;
use crate::codec::{Decode, Postcard};
use crate::error::{DecodeError, ReceiveError};
use crate::inbox::Inbox;
use crate::message::{self, Message};
use crate::wait::Wait;

/// Receives the messages of a key; made by [`Broadcaster::subscribe`](crate::Broadcaster::subscribe) and
/// its siblings.
///
/// It holds nothing but a position, so that a slow one costs a sender nothing; what happens when it falls
/// behind says its [`Lag`]. Shared by reference, its users compete: each message goes to one of them. A
/// clone is independent, and begins where this one stands. Dropped, it is not counted any more.
///
/// It receives as a [`Receiver`](crate::Receiver) does: `receive` returns the message, decoded, and
/// `message` a [`Message`], which has its offset and time. Both wait on any async runtime; `_blocking`
/// and `_timeout` block the thread, and `try_` does not wait. It is a [`Stream`] too.
///
/// ```
/// use dacapo::{Broadcaster, ReceiveError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rooms = Broadcaster::<String, String>::temporary()?;
/// let lobby = rooms.subscribe("lobby")?;
/// rooms.send("lobby", "hello")?;
/// rooms.remove("lobby"); // ends it, after what was sent before
///
/// futures_lite::future::block_on(async {
///     assert_eq!(lobby.receive().await?, "hello");
///     assert!(matches!(lobby.receive().await, Err(ReceiveError::Removed)));
///     Ok(())
/// })
/// # }
/// ```
#[must_use = "a subscription that is dropped receives nothing"]
pub struct Subscription<T, C = Postcard> {
    inbox: Inbox,
    gauge: Mutex<Gauge>,
    codec: C,
    membership: Membership,
    /// Of the topic, before the key.
    prefix_bytes: usize,
    /// Of the stream.
    wait: Option<Wait>,
    message: PhantomData<fn() -> T>,
}

impl<T, C> Subscription<T, C> {
    pub(super) fn new(
        tailer: Tailer,
        membership: Membership,
        prefix_bytes: usize,
        gauge: Gauge,
        codec: C,
    ) -> Self {
        Self {
            inbox: Inbox::new(tailer, true, membership.shared.clone()),
            gauge: Mutex::new(gauge),
            codec,
            membership,
            prefix_bytes,
            wait: None,
            message: PhantomData,
        }
    }

    /// What it does when it falls behind, in place of what the broadcaster says.
    ///
    /// ```
    /// use dacapo::{Broadcaster, Lag, ReceiveError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prices = Broadcaster::<String, u32>::temporary()?;
    /// let tea = prices.subscribe("tea")?.on_lag(Lag::Error { buffer: 2 });
    /// prices.send_batch("tea", &[10, 11, 12])?;
    ///
    /// let Err(ReceiveError::Lagged(lagged)) = tea.receive_blocking() else { panic!("3 are unread") };
    /// assert_eq!(lagged.missed, 1);
    /// assert_eq!(tea.receive_blocking()?, 11);
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_lag(self, lag: Lag) -> Self {
        let gauge = self.gauge().with(lag);
        Self {
            gauge: Mutex::new(gauge),
            ..self
        }
    }

    /// Receives messages only that a power cut cannot undo.
    pub fn durable_only(self) -> Self {
        Self {
            inbox: self.inbox.durable_only(),
            ..self
        }
    }

    /// The offset of the next message, or one before which there are none that it has not received.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.inbox.tailer().next_offset()
    }

    /// The position behind the last message received: keep it, and go on with [`Start::Resume`], in
    /// another process too.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.inbox.tailer().checkpoint()
    }

    /// How many messages it has passed over as [`Lag::Skip`] says.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.gauge().skipped()
    }

    /// Goes on from `start` instead. A start that cannot be is what receiving returns, as an error. It
    /// brings no subscription back that has ended.
    pub fn seek(&self, start: Start) {
        let mut gauge = self.gauge();
        let mut tailer = self.inbox.tailer();
        tailer.seek(Start::Latest);
        gauge.seek(tailer.next_offset());
        tailer.seek(start);
        drop(tailer);
        // A waker is code of the caller's.
        drop(gauge);
        self.inbox.ring();
    }

    /// Moves behind damage, as [`Receiver::skip_damage`](crate::Receiver::skip_damage) does.
    pub fn skip_damage(&self) -> Offset {
        let mut gauge = self.gauge();
        gauge.begin_anew();
        self.inbox.tailer().skip_damage()
    }

    /// The text of the key that one of its messages was sent to: its topic, without the prefix of the
    /// broadcaster.
    #[must_use]
    pub fn key_of<'m>(&self, message: &'m Message<T, C>) -> &'m str {
        message.topic().get(self.prefix_bytes..).unwrap_or_default()
    }

    fn gauge(&self) -> MutexGuard<'_, Gauge> {
        // Behind a codec that panicked it counts one too many, and counts again when that matters.
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, C: for<'a> Decode<'a, T>> Subscription<T, C> {
    /// Waits for the next message. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`ReceiveError`]. Where [`is_end`](ReceiveError::is_end) does not say that it has ended, the
    /// next call goes on.
    pub async fn receive(&self) -> Result<T, ReceiveError> {
        let look = || self.try_with(|record| self.decode(record));
        Ok(self.inbox.wait_for(look).await??)
    }

    /// As [`receive`](Self::receive), blocking the thread.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_blocking(&self) -> Result<T, ReceiveError> {
        let look = || self.try_with(|record| self.decode(record));
        let received = self.inbox.block_for(None, look)?;
        Ok(received.expect("without a deadline, it came")?)
    }

    /// As [`receive_blocking`](Self::receive_blocking), for at most `timeout`: `None` if nothing came.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn receive_timeout(&self, timeout: Duration) -> Result<Option<T>, ReceiveError> {
        let look = || self.try_with(|record| self.decode(record));
        let deadline = Instant::now().checked_add(timeout);
        Ok(self.inbox.block_for(deadline, look)?.transpose()?)
    }

    /// The next message, if it is there already.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn try_receive(&self) -> Result<Option<T>, ReceiveError> {
        Ok(self.try_with(|record| self.decode(record))?.transpose()?)
    }

    /// As [`receive`](Self::receive), as it is stored, with its offset, time and topic.
    ///
    /// # Errors
    /// As [`receive`](Self::receive), but that it is not decoded.
    pub async fn message(&self) -> Result<Message<T, C>, ReceiveError> {
        self.inbox.wait_for(|| self.try_message()).await
    }

    /// As [`message`](Self::message), blocking the thread.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn message_blocking(&self) -> Result<Message<T, C>, ReceiveError> {
        let received = self.inbox.block_for(None, || self.try_message())?;
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
        self.inbox.block_for(deadline, || self.try_message())
    }

    /// As [`try_receive`](Self::try_receive), as it is stored, with its offset, time and topic.
    ///
    /// # Errors
    /// As [`message`](Self::message).
    pub fn try_message(&self) -> Result<Option<Message<T, C>>, ReceiveError> {
        self.try_with(|record| Message::new(record.to_record(), self.codec.clone()))
    }

    /// As a stream of messages with their offsets, times and topics, rather than of decoded ones.
    pub fn into_messages(self) -> MessageStream<T, C> {
        MessageStream { subscription: self }
    }

    fn decode(&self, record: RecordRef<'_>) -> Result<T, DecodeError> {
        message::decode_record(&self.codec, record)
    }

    fn try_with<R>(
        &self,
        take: impl FnOnce(RecordRef<'_>) -> R,
    ) -> Result<Option<R>, ReceiveError> {
        let mut gauge = self.gauge();
        let mut tailer = self.inbox.tailer();
        gauge.check(&self.inbox, &mut tailer)?;
        let taken = self.inbox.take(&mut tailer, take);
        gauge.note(&taken);
        taken
    }

    fn poll<R>(
        &mut self,
        cx: &mut Context<'_>,
        look: impl Fn(&Self) -> Result<Option<R>, ReceiveError>,
    ) -> Poll<Option<Result<R, ReceiveError>>> {
        let mut wait = self.wait.take();
        let polled = self.inbox.poll_for(&mut wait, cx, || look(self));
        self.wait = wait;
        polled.map(unless_ended)
    }
}

fn unless_ended<R>(received: Result<R, ReceiveError>) -> Option<Result<R, ReceiveError>> {
    match received {
        Err(error) if error.is_end() => None,
        received => Some(received),
    }
}

/// An independent subscription that stands where this one does.
impl<T, C: Clone> Clone for Subscription<T, C> {
    fn clone(&self) -> Self {
        let gauge = self.gauge();
        Self {
            inbox: self.inbox.clone(),
            gauge: Mutex::new(gauge.clone()),
            codec: self.codec.clone(),
            membership: self.membership.clone(),
            prefix_bytes: self.prefix_bytes,
            wait: None,
            message: PhantomData,
        }
    }
}

/// Nothing in it is pinned.
impl<T, C> Unpin for Subscription<T, C> {}

/// Ends where [`ReceiveError::is_end`] says so; goes on behind other errors as
/// [`Subscription::receive`] does.
impl<T, C: for<'a> Decode<'a, T>> Stream for Subscription<T, C> {
    type Item = Result<T, ReceiveError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(cx, Self::try_receive)
    }
}

impl<T, C> fmt::Debug for Subscription<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

/// A [`Subscription`] as a stream of its [`Message`]s; made by [`Subscription::into_messages`].
///
/// It ends, and goes on behind errors, as a subscription does.
///
/// ```
/// use dacapo::{Broadcaster, Offset};
/// use futures_lite::StreamExt;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rooms = Broadcaster::<String, String>::temporary()?;
/// let mut messages = rooms.subscribe("lobby")?.into_messages();
/// rooms.send("lobby", "hello")?;
/// drop(rooms);
///
/// futures_lite::future::block_on(async {
///     let message = messages.next().await.expect("it was sent")?;
///     assert_eq!((message.offset(), message.decode()?), (Offset::ZERO, "hello".into()));
///     assert!(messages.next().await.is_none());
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is received until it is polled"]
pub struct MessageStream<T, C = Postcard> {
    subscription: Subscription<T, C>,
}

impl<T, C> MessageStream<T, C> {
    /// The subscription that it reads.
    pub fn subscription(&self) -> &Subscription<T, C> {
        &self.subscription
    }
}

impl<T, C: for<'a> Decode<'a, T>> Stream for MessageStream<T, C> {
    type Item = Result<Message<T, C>, ReceiveError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let subscription = &mut self.get_mut().subscription;
        subscription.poll(cx, Subscription::try_message)
    }
}
