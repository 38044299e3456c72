//! Sending by key: each key is a topic of one log, with its own subscriptions.

mod builder;
mod key;
mod lag;
mod live;
mod subscription;

use std::borrow::Borrow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use dacapo_log::{Log, Offset, Start, Tailer, Topic};
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::lag::Gauge;
use self::live::Live;
use crate::codec::{Decode, Encode, Postcard};
use crate::error::{KeyError, OpenError, SendError};
use crate::sender::Sender;

pub use self::builder::BroadcasterBuilder;
pub use self::key::Key;
pub use self::lag::{Lag, Lagged};
pub use self::subscription::{MessageStream, Subscription};

/// A larger buffer than this is not kept for the next key.
const NAME_BYTES_MAX: usize = 1 << 10;

thread_local! {
    /// Names of topics are written here: used again for each key that the thread sends to.
    static NAME: Cell<String> = const { Cell::new(String::new()) };
}

/// Sends by key, to as many keys as there are, and keeps what was sent: each key is a topic of one log.
///
/// A subscription receives the messages of one key: from now on, or from any place in the past, and then
/// live, without a gap and without a duplicate at the seam. All keys share the order of the log, and one
/// offset resumes any of them. A key is there when something is sent to it or somebody subscribes, with
/// nothing to create; one without a subscription takes no memory.
///
/// Keys are of type `K`, texts and integers among them: see [`Key`]. Messages are of type `T`, stored by
/// the codec `C`; what they are is recorded beside the log, once for all keys.
///
/// A cheap handle: clone it, share it. When no handle is left, subscriptions receive what is there, and
/// are then told that it is [closed](crate::ReceiveError::Closed).
///
/// ```
/// use dacapo::{Broadcaster, Start};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let rooms = Broadcaster::<String, String>::open(dir)?;
/// assert_eq!(rooms.send("lobby", "anybody here?")?.receivers, 0); // nobody, but it is kept
///
/// let late = rooms.subscribe_from("lobby", Start::Oldest)?;
/// let live = rooms.subscribe("lobby")?;
/// assert_eq!(rooms.send("lobby", "hello")?.receivers, 2);
///
/// assert_eq!(late.receive_blocking()?, "anybody here?");
/// assert_eq!(late.receive_blocking()?, "hello");
/// assert_eq!(live.receive_blocking()?, "hello");
/// # Ok(())
/// # }
/// ```
pub struct Broadcaster<K, T, C = Postcard> {
    hub: Arc<Hub<T, C>>,
    key: PhantomData<fn(&K)>,
}

/// What the handles share.
struct Hub<T, C> {
    sender: Sender<T, C>,
    prefix: String,
    lag: Lag,
    live: Arc<Live>,
}

impl<T, C> Drop for Hub<T, C> {
    fn drop(&mut self) {
        self.live.close();
    }
}

/// A message that was sent to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Its place in the log.
    pub offset: Offset,
    /// How many subscriptions of the key it goes to; those of prefixes are not counted.
    pub receivers: usize,
}

/// Messages that were sent to a key in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentBatch {
    /// Their places in the log.
    pub offsets: Range<Offset>,
    /// How many subscriptions of the key they go to; those of prefixes are not counted.
    pub receivers: usize,
}

impl<K, T: Serialize + DeserializeOwned> Broadcaster<K, T> {
    /// Opens the broadcaster in the directory `dir`, and creates it if it is not there.
    ///
    /// Waits for the disk; an async caller does this on a blocking thread.
    ///
    /// # Errors
    /// See [`OpenError`]. A failed open changes nothing that was stored.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(dir)
    }

    /// Opens a broadcaster in a directory of its own among the system's temporary files, which goes with
    /// the last handle and subscription of it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn temporary() -> Result<Self, OpenError> {
        Self::builder().temporary()
    }

    /// The broadcaster whose topics begin with `prefix` in a log that is open already.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn on(log: &Log, prefix: impl Into<String>) -> Result<Self, OpenError> {
        Self::builder().prefix(prefix).on(log)
    }

    /// Options to open a broadcaster with.
    pub fn builder() -> BroadcasterBuilder<K, T> {
        BroadcasterBuilder::new()
    }
}

impl<K, T, C> Broadcaster<K, T, C> {
    fn new(sender: Sender<T, C>, prefix: String, lag: Lag) -> Self {
        let live = Arc::new(Live::new(Arc::clone(sender.shared())));
        Self {
            hub: Arc::new(Hub {
                sender,
                prefix,
                lag,
                live,
            }),
            key: PhantomData,
        }
    }

    /// Sends a message to a key, and returns its place in the log and how many subscriptions it goes to.
    ///
    /// To a key that nobody subscribes to, it is stored all the same, for those who come later, and
    /// nothing stays in memory. It can be received, and survives a killed process, when this returns; it
    /// survives a power cut once it was flushed: see [`Flush`](crate::Flush),
    /// [`send_durable`](Self::send_durable) and [`Log::sync`]. Does not wait for the disk, except where
    /// the next segment of the log is not ready yet, nor for any subscription.
    ///
    /// What `K` and `T` can be borrowed as will do: a `str` for a `String`.
    ///
    /// # Errors
    /// [`SendError::Key`] for a key that names no topic; as [`Sender::send`](crate::Sender::send).
    pub fn send<Q, M>(&self, key: &Q, message: &M) -> Result<Sent, SendError>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized,
        T: Borrow<M>,
        M: ?Sized,
        C: Encode<M>,
    {
        let (topic, receivers) = self.find(key)?;
        let offset = self.hub.sender.send_to(Some(&topic), message)?;
        Ok(Sent { offset, receivers })
    }

    /// Sends a message to a key and waits until it is safe from a power cut. All who wait share one
    /// `fdatasync`, whatever their keys are.
    ///
    /// Cancelled, the message is sent, if it was before, and becomes durable some time.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`SendError::NotDurable`] after it was sent.
    pub async fn send_durable<Q, M>(&self, key: &Q, message: &M) -> Result<Sent, SendError>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized,
        T: Borrow<M>,
        M: ?Sized,
        C: Encode<M>,
    {
        let sent = self.send(key, message)?;
        self.hub.sender.durable(sent.offset).await?;
        Ok(sent)
    }

    /// Sends messages to a key in one piece: all of them or, on an error or after a crash, none.
    ///
    /// # Errors
    /// As [`send`](Self::send); all together must fit into one segment of the log.
    pub fn send_batch<'m, Q, M>(
        &self,
        key: &Q,
        messages: impl IntoIterator<Item = &'m M>,
    ) -> Result<SentBatch, SendError>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized,
        T: Borrow<M>,
        M: ?Sized + 'm,
        C: Encode<M>,
    {
        let (topic, receivers) = self.find(key)?;
        let offsets = self.hub.sender.send_batch_to(Some(&topic), messages)?;
        Ok(SentBatch { offsets, receivers })
    }

    /// Ends the subscriptions of a key, and returns how many there were: they receive what was sent to it
    /// before, and are then told that it was [removed](crate::ReceiveError::Removed).
    ///
    /// No other key notices, and no subscription of a prefix. What was sent stays in the log, and whoever
    /// subscribes again can replay it; [`delete`](Self::delete) deletes it as well.
    pub fn remove<Q>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
        Q: Key + ?Sized,
    {
        let found = self.with_name(key, |name| self.hub.live.find(name));
        match found {
            Some((topic, _)) => self.end(&topic),
            None => 0,
        }
    }

    /// Ends the subscriptions of a key as [`remove`](Self::remove) does, and deletes what was sent to it,
    /// by a record whose offset it returns: see [`Log::delete_topic`].
    ///
    /// What they have not received by then, they may never receive.
    ///
    /// # Errors
    /// As [`send`](Self::send); where it is no error of the key, the subscriptions were ended.
    pub fn delete<Q>(&self, key: &Q) -> Result<Offset, SendError>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized,
    {
        let (topic, _) = self.find(key)?;
        self.end(&topic);
        Ok(self.log().delete_topic(&topic)?)
    }

    /// How many subscriptions a key has; those of prefixes are not counted.
    #[must_use]
    pub fn subscriber_count<Q>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
        Q: Key + ?Sized,
    {
        let found = self.with_name(key, |name| self.hub.live.find(name));
        found.map_or(0, |(_, subscriptions)| subscriptions)
    }

    /// How many subscriptions there are of all keys, and of prefixes.
    #[must_use]
    pub fn total_subscribers(&self) -> usize {
        self.hub.live.subscriptions()
    }

    /// The log that the messages are stored in. While it is kept, the log stays open.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.hub.sender.log()
    }

    /// What stands before each key in the name of its topic.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.hub.prefix
    }

    /// The topic that a key's messages are stored in.
    ///
    /// # Errors
    /// [`KeyError`] where the key's text, with the prefix, has no bytes, or more than
    /// [`Topic::BYTES_MAX`].
    pub fn topic<Q>(&self, key: &Q) -> Result<Topic, KeyError>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized,
    {
        Ok(self.find(key)?.0)
    }

    /// The topic of a key, and how many subscribe to it.
    fn find<Q: Key + ?Sized>(&self, key: &Q) -> Result<(Topic, usize), KeyError> {
        self.with_name(key, |name| match self.hub.live.find(name) {
            Some(found) => Ok(found),
            None => match Topic::new(name) {
                Ok(topic) => Ok((topic, 0)),
                Err(source) => Err(KeyError {
                    key: name.to_owned(),
                    source,
                }),
            },
        })
    }

    /// Lends the name of a key's topic; while the thread ends, its string may be gone.
    fn with_name<Q: Key + ?Sized, R>(&self, key: &Q, work: impl FnOnce(&str) -> R) -> R {
        let mut name = NAME.try_with(Cell::take).unwrap_or_default();
        name.clear();
        name.push_str(&self.hub.prefix);
        key.write_to(&mut name);
        let result = work(&name);
        if name.capacity() <= NAME_BYTES_MAX {
            let _ = NAME.try_with(|kept| kept.set(name));
        }
        result
    }

    fn end(&self, topic: &Topic) -> usize {
        self.hub
            .live
            .remove(topic, || match self.log().last(topic) {
                Ok(Some(last)) => last.offset().next(),
                Ok(None) => Offset::ZERO,
                // They come to what is wrong there, and are told.
                Err(_) => self.log().next_offset(),
            })
    }
}

impl<K, T, C: for<'a> Decode<'a, T>> Broadcaster<K, T, C> {
    /// Subscribes to a key: to what is sent from now on.
    ///
    /// # Errors
    /// [`KeyError`] for a key that names no topic.
    pub fn subscribe<Q>(&self, key: &Q) -> Result<Subscription<T, C>, KeyError>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized,
    {
        self.subscribe_from(key, Start::Latest)
    }

    /// Subscribes to a key from `start` on: what was sent before, and then what comes, with no gap and no
    /// duplicate at the seam. A start that cannot be is what receiving returns, as an error.
    ///
    /// One that comes again goes on behind the last message that it has seen:
    ///
    /// ```
    /// use dacapo::{Broadcaster, Start};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let rooms = Broadcaster::<u64, String>::temporary()?;
    /// let first = rooms.send(&7, "one")?;
    /// rooms.send(&7, "two")?;
    /// let again = rooms.subscribe_from(&7, Start::At(first.offset.next()))?;
    /// assert_eq!(again.receive_blocking()?, "two");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`KeyError`] for a key that names no topic.
    pub fn subscribe_from<Q>(&self, key: &Q, start: Start) -> Result<Subscription<T, C>, KeyError>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized,
    {
        let (topic, _) = self.find(key)?;
        // Before it is counted: whoever is counted receives what is sent.
        let tailer = self.log().tail(start).topic(&topic);
        Ok(self.subscription(tailer, Some(topic)))
    }

    /// Subscribes to all keys whose text begins with `text`, from `start` on; `""` is every key. In the
    /// log's order, with [`Subscription::key_of`] to tell them apart.
    ///
    /// It is not counted among the subscriptions of any key, and removing a key does not end it.
    ///
    /// ```
    /// use dacapo::{Broadcaster, Start};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prices = Broadcaster::<String, u32>::temporary()?;
    /// let teas = prices.subscribe_prefix("tea:", Start::Latest);
    /// prices.send("coffee", &5)?;
    /// prices.send("tea:green", &7)?;
    /// let message = teas.message_blocking()?;
    /// assert_eq!((teas.key_of(&message), message.decode()?), ("tea:green", 7));
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscribe_prefix(&self, text: &str, start: Start) -> Subscription<T, C> {
        let prefix = format!("{}{text}", self.hub.prefix);
        let tailer = self.log().tail(start).prefix(&prefix);
        self.subscription(tailer, None)
    }

    fn subscription(&self, tailer: Tailer, topic: Option<Topic>) -> Subscription<T, C> {
        let Hub {
            sender,
            prefix,
            lag,
            live,
        } = &*self.hub;
        let codec = sender.codec().clone();
        let gauge = Gauge::new(*lag, self.log().next_offset());
        Subscription::new(tailer, live.join(topic), prefix.len(), gauge, codec)
    }
}

impl<K, T, C> Clone for Broadcaster<K, T, C> {
    fn clone(&self) -> Self {
        Self {
            hub: Arc::clone(&self.hub),
            key: PhantomData,
        }
    }
}

impl<K, T, C> fmt::Debug for Broadcaster<K, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broadcaster")
            .field("log", self.log())
            .field("prefix", &self.hub.prefix)
            .field("subscriptions", &self.total_subscribers())
            .finish_non_exhaustive()
    }
}
