//! The end of a channel that sends.

use std::any::type_name;
use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use dacapo_log::{Appended, Log, Offset, Stamp, Topic};

use crate::channel::{Handle, Shared};
use crate::codec::{Encode, Postcard};
use crate::error::SendError;
use crate::unwrapping::Unwrapping;

/// A larger buffer than this is not kept for the next message.
const BUFFER_BYTES_MAX: usize = 1 << 20;

thread_local! {
    /// Messages are encoded here: used again for each one that the thread sends.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Sends messages; made by [`ReplayChannel::sender`](crate::ReplayChannel::sender).
///
/// Clone it, or share it by reference: from however many threads, all receivers see one order, and in
/// it each thread's own. It keeps the channel open.
///
/// ```
/// use dacapo::{Offset, ReplayChannel};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let channel = ReplayChannel::<String>::temporary()?;
/// let sender = channel.sender();
/// assert_eq!(sender.send("one")?, Offset::ZERO);
/// assert_eq!(sender.send_batch(["two", "three"])?.end, Offset::new(3));
///
/// futures_lite::future::block_on(async {
///     sender.send_durable("safe from a power cut").await
/// })?;
/// # Ok(())
/// # }
/// ```
pub struct Sender<T, C = Postcard> {
    handle: Arc<Handle>,
    codec: C,
    message: PhantomData<fn(&T)>,
}

impl<T, C> Sender<T, C> {
    pub(crate) fn new(handle: Arc<Handle>, codec: C) -> Self {
        Self {
            handle,
            codec,
            message: PhantomData,
        }
    }

    /// Sends a message, and returns its place in the log. What `T` can be borrowed as will do: a `str`
    /// for a `String`.
    ///
    /// It can be received, and survives a killed process, when this returns; it survives a power cut once
    /// it was flushed: see [`Flush`](crate::Flush), [`send_durable`](Self::send_durable) and
    /// [`Log::sync`]. Does not wait for the disk, except where the next segment of the log is not ready
    /// yet, and allocates nothing that it does not use again.
    ///
    /// # Errors
    /// [`SendError::Encode`], or what the log says: a message that is too large and a full disk leave it
    /// usable.
    pub fn send<M: ?Sized>(&self, message: &M) -> Result<Offset, SendError>
    where
        T: Borrow<M>,
        C: Encode<M>,
    {
        self.send_to(self.handle.topic.as_ref(), message)
    }

    /// As [`send`](Self::send), to a topic that is not the channel's.
    pub(crate) fn send_to<M: ?Sized>(
        &self,
        topic: Option<&Topic>,
        message: &M,
    ) -> Result<Offset, SendError>
    where
        T: Borrow<M>,
        C: Encode<M>,
    {
        with_buffer(|buffer| {
            self.encode(message, buffer)?;
            let log = &self.handle.log;
            Ok(match topic {
                Some(topic) => log.append_to(topic, buffer)?,
                None => log.append(buffer)?,
            })
        })
    }

    /// Sends a message and waits until it is safe from a power cut. All who wait share one `fdatasync`.
    ///
    /// Cancelled, the message is sent, if it was before, and becomes durable some time.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`SendError::NotDurable`] after it was sent.
    pub async fn send_durable<M: ?Sized>(&self, message: &M) -> Result<Offset, SendError>
    where
        T: Borrow<M>,
        C: Encode<M>,
    {
        let offset = self.send(message)?;
        self.durable(offset).await?;
        Ok(offset)
    }

    /// Waits until a message that was sent is safe from a power cut.
    pub(crate) async fn durable(&self, offset: Offset) -> Result<(), SendError> {
        let durable = self.handle.log.durable(offset).await;
        durable.map_err(|source| SendError::NotDurable { offset, source })
    }

    /// Sends messages in one piece, and returns their places: all of them or, on an error or after a
    /// crash, none.
    ///
    /// # Errors
    /// As [`send`](Self::send); all together must fit into one segment of the log.
    pub fn send_batch<'m, M: ?Sized + 'm>(
        &self,
        messages: impl IntoIterator<Item = &'m M>,
    ) -> Result<Range<Offset>, SendError>
    where
        T: Borrow<M>,
        C: Encode<M>,
    {
        self.send_batch_to(self.handle.topic.as_ref(), messages)
    }

    /// As [`send_batch`](Self::send_batch), to a topic that is not the channel's.
    pub(crate) fn send_batch_to<'m, M: ?Sized + 'm>(
        &self,
        topic: Option<&Topic>,
        messages: impl IntoIterator<Item = &'m M>,
    ) -> Result<Range<Offset>, SendError>
    where
        T: Borrow<M>,
        C: Encode<M>,
    {
        with_buffer(|buffer| {
            let mut ends = Vec::new();
            for message in messages {
                self.encode(message, buffer)?;
                ends.push(buffer.len());
            }
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let payloads = starts.zip(&ends).map(|(start, &end)| &buffer[start..end]);
            let log = &self.handle.log;
            Ok(match topic {
                Some(topic) => log.append_batch_to(payloads.map(|payload| (topic, payload)))?,
                None => log.append_batch(payloads)?,
            })
        })
    }

    /// Sends a message that its producer may send again, after an answer that it did not get, or a
    /// crash: it is stored once. See [`Log::append_once`].
    ///
    /// # Errors
    /// As [`send`](Self::send), and where the stamp is not the producer's next one.
    pub fn send_once<M: ?Sized>(&self, stamp: Stamp, message: &M) -> Result<Appended, SendError>
    where
        T: Borrow<M>,
        C: Encode<M>,
    {
        with_buffer(|buffer| {
            self.encode(message, buffer)?;
            let topic = self.handle.topic.as_ref();
            Ok(self.handle.log.append_once(stamp, topic, buffer)?)
        })
    }

    /// The same, which panics where it fails: for tests and first steps.
    pub fn unwrapping(self) -> Unwrapping<Self> {
        Unwrapping::new(self)
    }

    /// The log that the messages are stored in.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.handle.log
    }

    pub(crate) fn codec(&self) -> &C {
        &self.codec
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn encode<M: ?Sized>(&self, message: &M, buffer: &mut Vec<u8>) -> Result<(), SendError>
    where
        C: Encode<M>,
    {
        let encoded = self.codec.encode(message, buffer);
        encoded.map_err(|source| SendError::Encode {
            message: type_name::<T>(),
            codec: self.codec.name().to_owned(),
            source,
        })
    }
}

/// Lends the thread's buffer, empty. A message that sends others while it is encoded gets another one,
/// and so does one that is sent while the thread ends, when its buffer is gone.
fn with_buffer<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
    buffer.clear();
    let result = work(&mut buffer);
    if buffer.capacity() <= BUFFER_BYTES_MAX {
        let _ = BUFFER.try_with(|kept| kept.set(buffer));
    }
    result
}

impl<T, C: Clone> Clone for Sender<T, C> {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
            codec: self.codec.clone(),
            message: PhantomData,
        }
    }
}

impl<T, C> fmt::Debug for Sender<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.describe(f.debug_struct("Sender"))
    }
}
