//! The handle of a channel: opening it, and making its two ends.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use dacapo_log::{Log, Offset, Start, Topic};
use event_listener::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::builder::Builder;
use crate::codec::{Decode, Encode, Postcard};
#[cfg(feature = "cursors")]
use crate::consumer::{self, Consumer, ConsumerBuilder, ConsumerStatus, Holds};
#[cfg(feature = "cursors")]
use crate::cursors::{Cursor, Cursors};
#[cfg(feature = "cursors")]
use crate::error::ConsumeError;
use crate::error::OpenError;
use crate::receiver::Receiver;
use crate::sender::Sender;

/// A channel on disk, whose every receiver begins with the first message and then follows live.
///
/// It is alone in its directory, or one of many in a [`Log`], each with its own topic. Messages are of
/// type `T`, stored by the codec `C`; what they are is recorded beside the log, and opening it for
/// something else is an error.
///
/// A cheap handle: clone it. When no handle and no [`Sender`] is left, the channel is closed:
/// receivers read what is there, and are then told so.
///
/// ```
/// use dacapo::{Log, ReplayChannel, Topic};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path())?;
/// let names = ReplayChannel::<String>::on(&log, &Topic::new("names")?)?;
/// let ages = ReplayChannel::<u32>::on(&log, &Topic::new("ages")?)?;
/// names.sender().send("Ada")?;
/// ages.sender().send(&36)?;
/// assert_eq!(ages.receiver().receive_blocking()?, 36);
/// # Ok(())
/// # }
/// ```
pub struct ReplayChannel<T, C = Postcard> {
    handle: Arc<Handle>,
    codec: C,
    message: PhantomData<fn() -> T>,
}

/// What keeps a channel open.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) log: Log,
    pub(crate) topic: Option<Topic>,
    pub(crate) shared: Arc<Shared>,
    /// What the channel's consumers keep from being dropped.
    #[cfg(feature = "cursors")]
    pub(crate) holds: Arc<Holds>,
}

/// What a channel's receivers hold of it: not its log, which closes when nobody sends any more.
#[derive(Debug)]
pub(crate) struct Shared {
    closed: AtomicBool,
    /// Messages from this offset on are not theirs; of a key that was removed.
    end: AtomicU64,
    /// Rung where receivers have to look again though nothing was appended.
    pub(crate) bell: Event,
    /// Goes with the last one who may read from it.
    _directory: Option<TempDir>,
}

impl Shared {
    pub(crate) fn new(directory: Option<TempDir>) -> Self {
        Self {
            closed: AtomicBool::new(false),
            end: AtomicU64::new(u64::MAX),
            bell: Event::new(),
            _directory: directory,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    /// Tells receivers that nothing more will be sent.
    pub(crate) fn close(&self) {
        self.closed.store(true, Release);
        self.bell.notify(usize::MAX);
    }

    pub(crate) fn end(&self) -> Offset {
        Offset::new(self.end.load(Acquire))
    }

    /// Ends receiving before `end`, which is visible.
    pub(crate) fn end_at(&self, end: Offset) {
        self.end.store(end.get(), Release);
        self.bell.notify(usize::MAX);
    }
}

impl Handle {
    pub(crate) fn new(log: Log, topic: Option<Topic>, directory: Option<TempDir>) -> Self {
        Self {
            #[cfg(feature = "cursors")]
            holds: Holds::of(&log, topic.as_ref()),
            log,
            topic,
            shared: Arc::new(Shared::new(directory)),
        }
    }

    pub(crate) fn describe(&self, mut f: fmt::DebugStruct<'_, '_>) -> fmt::Result {
        f.field("log", &self.log).field("topic", &self.topic);
        f.finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<T: Serialize + DeserializeOwned> ReplayChannel<T> {
    /// Opens the channel in the directory `dir`, and creates it if it is not there.
    ///
    /// Waits for the disk; an async caller does this on a blocking thread.
    ///
    /// # Errors
    /// See [`OpenError`]. A failed open changes nothing that was stored.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(dir)
    }

    /// Opens a channel in a directory of its own among the system's temporary files, which goes with the
    /// last handle, sender or receiver of it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn temporary() -> Result<Self, OpenError> {
        Self::builder().temporary()
    }

    /// The channel of a topic in a log that is open already.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn on(log: &Log, topic: &Topic) -> Result<Self, OpenError> {
        Self::builder().topic(topic).on(log)
    }

    /// Options to open a channel with.
    pub fn builder() -> Builder<T> {
        Builder::new()
    }
}

impl<T, C: Encode<T> + for<'a> Decode<'a, T>> ReplayChannel<T, C> {
    pub(crate) fn new(handle: Handle, codec: C) -> Self {
        Self {
            handle: Arc::new(handle),
            codec,
            message: PhantomData,
        }
    }

    /// A sender. It keeps the channel open.
    pub fn sender(&self) -> Sender<T, C> {
        Sender::new(Arc::clone(&self.handle), self.codec.clone())
    }

    /// A receiver that begins with the oldest message that there is: with the first one ever sent,
    /// unless [`Retention`](crate::Retention) was asked to drop old ones.
    pub fn receiver(&self) -> Receiver<T, C> {
        self.receiver_at(Start::Oldest)
    }

    /// A receiver that begins at `start`. A start that cannot be is what receiving returns, as an error.
    ///
    /// ```
    /// use dacapo::{Offset, ReplayChannel, Start};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let channel = ReplayChannel::<u32>::temporary()?;
    /// channel.sender().send_batch(&[10, 11, 12])?;
    /// let last = channel.receiver_at(Start::At(Offset::new(2)));
    /// assert_eq!(last.receive_blocking()?, 12);
    /// let live = channel.receiver_at(Start::Latest);
    /// assert_eq!(live.try_receive()?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub fn receiver_at(&self, start: Start) -> Receiver<T, C> {
        let tailer = self.handle.log.tail(start);
        let tailer = match &self.handle.topic {
            Some(topic) => tailer.topic(topic),
            None => tailer,
        };
        let is_labelled = self.handle.topic.is_some();
        let shared = Arc::clone(&self.handle.shared);
        Receiver::new(tailer, is_labelled, shared, self.codec.clone())
    }

    /// The consumer of this name, which goes on where it last committed, or begins with the oldest
    /// message if there was none. Blocks.
    ///
    /// # Errors
    /// As [`ConsumerBuilder::open`].
    #[cfg(feature = "cursors")]
    pub fn consumer(&self, name: &str) -> Result<Consumer<T, C>, ConsumeError> {
        self.consumer_builder(name).open()
    }

    /// Options to open a consumer with.
    #[cfg(feature = "cursors")]
    pub fn consumer_builder(&self, name: &str) -> ConsumerBuilder<'_, T, C> {
        ConsumerBuilder::new(self, name)
    }

    /// The consumers of this channel, by name, and how far each is behind.
    ///
    /// Also while another process has them open. Blocks.
    ///
    /// # Errors
    /// What can go wrong with the cursors, and with reading the log.
    #[cfg(feature = "cursors")]
    pub fn consumers(&self) -> Result<Vec<ConsumerStatus>, ConsumeError> {
        let published = Cursors::published(self.log().dir())?;
        let own = |cursor: &Cursor| cursor.topic.as_ref() == self.topic();
        let cursors = published.cursors.into_iter().filter(own);
        cursors
            .map(|cursor| ConsumerStatus::of(self.log(), cursor))
            .collect()
    }

    /// Deletes the consumer of this name, and its hold on the messages; `false` if there is none.
    /// Blocks.
    ///
    /// # Errors
    /// [`ConsumeError::InUse`] while it is open, and what can go wrong with the cursors.
    #[cfg(feature = "cursors")]
    pub fn delete_consumer(&self, name: &str) -> Result<bool, ConsumeError> {
        consumer::delete(self.log(), name, &self.handle.holds)
    }

    #[cfg(feature = "cursors")]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The log that the messages are stored in: for [`sync`](Log::sync), retention, backups and
    /// [`status`](Log::status). While it is kept, the log stays open.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.handle.log
    }

    /// The channel's topic, if it has one.
    #[must_use]
    pub fn topic(&self) -> Option<&Topic> {
        self.handle.topic.as_ref()
    }
}

impl<T, C: Clone> Clone for ReplayChannel<T, C> {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
            codec: self.codec.clone(),
            message: PhantomData,
        }
    }
}

impl<T, C> fmt::Debug for ReplayChannel<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.describe(f.debug_struct("ReplayChannel"))
    }
}
