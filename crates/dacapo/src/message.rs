//! A message as it is stored, with its place and time, and not decoded yet.

use std::fmt;
use std::marker::PhantomData;
use std::time::SystemTime;

use bytes::Bytes;
use dacapo_log::{Offset, Record, RecordRef};

use crate::codec::{Decode, Postcard};
use crate::error::DecodeError;

/// A received message: where and when it was sent, and its bytes, which are decoded when asked.
///
/// It keeps the mapped file in which it lies: nothing is copied, and [`view`](Self::view) reads a type
/// that borrows from it.
///
/// ```
/// use dacapo::{Offset, ReplayChannel};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Order {
///     id: u64,
///     item: String,
/// }
///
/// /// The same, in place.
/// #[derive(Deserialize)]
/// struct OrderView<'a> {
///     id: u64,
///     item: &'a str,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let orders = ReplayChannel::<Order>::temporary()?;
/// orders.sender().send(&Order { id: 7, item: "tea".into() })?;
///
/// let message = orders.receiver().message_blocking()?;
/// assert_eq!(message.offset(), Offset::ZERO);
/// let order: OrderView<'_> = message.view()?; // allocates nothing
/// assert_eq!((order.id, order.item), (7, "tea"));
/// assert_eq!(message.decode()?.item, "tea");
/// # Ok(())
/// # }
/// ```
pub struct Message<T, C = Postcard> {
    record: Record,
    codec: C,
    message: PhantomData<fn() -> T>,
}

impl<T, C> Message<T, C> {
    pub(crate) fn new(record: Record, codec: C) -> Self {
        Self {
            record,
            codec,
            message: PhantomData,
        }
    }

    /// The message's place in the log.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.record.offset()
    }

    /// When it was sent, with the resolution of the kernel's tick (1 to 10 ms). Never earlier than the
    /// message before it.
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.record.timestamp()
    }

    /// The channel's topic; empty where it has none.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.record.topic()
    }

    /// Its bytes, as they are stored.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.record.payload()
    }

    /// Its bytes, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.record.into()
    }

    /// The record of the log that it is.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The message itself.
    ///
    /// # Errors
    /// Where its bytes are no `T`.
    pub fn decode(&self) -> Result<T, DecodeError>
    where
        C: for<'a> Decode<'a, T>,
    {
        self.view()
    }

    /// Reads it as another type, one that borrows from it, for instance.
    ///
    /// # Errors
    /// Where its bytes are no `V`.
    pub fn view<'a, V>(&'a self) -> Result<V, DecodeError>
    where
        C: Decode<'a, V>,
    {
        let decoded = self.codec.decode(self.payload());
        decoded.map_err(|source| {
            DecodeError::new::<V>(self.offset(), self.topic(), self.codec.name(), source)
        })
    }
}

/// A message in place, borrowed for as long as a closure runs; see
/// [`Receiver::receive_with`](crate::Receiver::receive_with).
pub struct MessageRef<'a, C = Postcard> {
    record: RecordRef<'a>,
    codec: &'a C,
}

impl<'a, C> MessageRef<'a, C> {
    pub(crate) fn new(record: RecordRef<'a>, codec: &'a C) -> Self {
        Self { record, codec }
    }

    /// The message's place in the log.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.record.offset()
    }

    /// When it was sent; see [`Message::time`].
    #[must_use]
    pub fn time(&self) -> SystemTime {
        self.record.timestamp()
    }

    /// Its bytes, as they are stored.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.record.payload()
    }

    /// Reads it as a type that may borrow from it.
    ///
    /// # Errors
    /// Where its bytes are no `V`.
    pub fn view<V>(&self) -> Result<V, DecodeError>
    where
        C: Decode<'a, V>,
    {
        decode_record(self.codec, self.record)
    }
}

impl<C> fmt::Debug for MessageRef<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}

/// Decodes the message that a record is.
pub(crate) fn decode_record<'a, T, C: Decode<'a, T>>(
    codec: &C,
    record: RecordRef<'a>,
) -> Result<T, DecodeError> {
    let decoded = codec.decode(record.payload());
    decoded.map_err(|source| {
        DecodeError::new::<T>(record.offset(), record.topic(), codec.name(), source)
    })
}

impl<T, C: Clone> Clone for Message<T, C> {
    fn clone(&self) -> Self {
        Self::new(self.record.clone(), self.codec.clone())
    }
}

impl<T, C> fmt::Debug for Message<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record.fmt(f)
    }
}
