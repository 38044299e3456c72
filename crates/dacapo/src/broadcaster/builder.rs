//! How a broadcaster is opened.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use dacapo_log::{Flush, Log, Options, Retention, Topic};

use super::{Broadcaster, Lag};
use crate::builder::Builder;
use crate::channel::ReplayChannel;
use crate::codec::{Decode, Encode, Postcard};
use crate::error::OpenError;

/// Options for opening a [`Broadcaster`]; made by [`Broadcaster::builder`].
///
/// ```
/// use dacapo::{Broadcaster, Json, Lag, Log};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path())?;
/// let rooms = Broadcaster::<String, String>::builder()
///     .prefix("rooms:")
///     .codec(Json)
///     .on_lag(Lag::End { buffer: 1_000 })
///     .on(&log)?;
/// rooms.send("lobby", "hello")?;
/// assert_eq!(log.topics().next().expect("one")?.topic.as_str(), "rooms:lobby");
/// # Ok(())
/// # }
/// ```
#[must_use = "options do nothing until the broadcaster is opened"]
pub struct BroadcasterBuilder<K, T, C = Postcard> {
    channel: Builder<T, C>,
    prefix: String,
    lag: Lag,
    key: PhantomData<fn(&K)>,
}

impl<K, T> BroadcasterBuilder<K, T> {
    pub(super) fn new() -> Self {
        Self {
            channel: Builder::new(),
            prefix: String::new(),
            lag: Lag::default(),
            key: PhantomData,
        }
    }
}

impl<K, T, C> BroadcasterBuilder<K, T, C> {
    /// How messages are stored; [`Postcard`] by default.
    pub fn codec<D: Encode<T> + for<'a> Decode<'a, T>>(
        self,
        codec: D,
    ) -> BroadcasterBuilder<K, T, D> {
        BroadcasterBuilder {
            channel: self.channel.codec(codec),
            prefix: self.prefix,
            lag: self.lag,
            key: PhantomData,
        }
    }

    /// What stands before each key in the name of its topic, so that others can share the log; nothing
    /// by default. Colons between parts, as in `rooms:`, keep prefixes apart.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What subscriptions do when they fall behind, unless they say otherwise; [`Lag::Never`] by
    /// default.
    pub fn on_lag(mut self, lag: Lag) -> Self {
        self.lag = lag;
        self
    }

    /// What the messages are called, in the record of what the prefix holds. See
    /// [`Builder::schema`](crate::Builder::schema).
    pub fn schema(self, name: impl Into<String>) -> Self {
        self.with(|channel| channel.schema(name))
    }

    /// Records codec and schema anew. See [`Builder::replace_schema`](crate::Builder::replace_schema).
    pub fn replace_schema(self) -> Self {
        self.with(Builder::replace_schema)
    }

    /// When messages are made safe from a power cut without being asked; every second by default. In a
    /// log that is open already, the log's options count, for this and all that follow.
    pub fn flush(self, flush: Flush) -> Self {
        self.with(|channel| channel.flush(flush))
    }

    /// The size of a segment file once the log has grown, which bounds a message and a batch; 64 MiB by
    /// default. See [`Options::segment_bytes_max`].
    pub fn segment_bytes_max(self, bytes: u64) -> Self {
        self.with(|channel| channel.segment_bytes_max(bytes))
    }

    /// What old messages are dropped, of all keys alike; none by default.
    pub fn retention(self, retention: Retention) -> Self {
        self.with(|channel| channel.retention(retention))
    }

    /// All options of the log, in place of those given so far; among them a
    /// [limit](Options::topic_limit) of the messages that a key keeps.
    pub fn log_options(self, options: Options) -> Self {
        self.with(|channel| channel.log_options(options))
    }

    fn with(self, change: impl FnOnce(Builder<T, C>) -> Builder<T, C>) -> Self {
        Self {
            channel: change(self.channel),
            ..self
        }
    }
}

impl<K, T, C: Encode<T> + for<'a> Decode<'a, T>> BroadcasterBuilder<K, T, C> {
    /// Opens the broadcaster in the directory `dir`, and creates it if it is not there.
    ///
    /// Waits for the disk; an async caller does this on a blocking thread.
    ///
    /// # Errors
    /// See [`OpenError`]. A failed open changes nothing that was stored.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Broadcaster<K, T, C>, OpenError> {
        self.open_with(|channel| channel.open(dir))
    }

    /// Opens the broadcaster for subscribing only, also while another process has it open:
    /// subscriptions follow what that one sends.
    ///
    /// # Errors
    /// See [`OpenError`]. There must be a log in `dir`.
    pub fn open_read_only(self, dir: impl AsRef<Path>) -> Result<Broadcaster<K, T, C>, OpenError> {
        self.open_with(|channel| channel.open_read_only(dir))
    }

    /// Opens a broadcaster in a directory of its own among the system's temporary files, which goes with
    /// the last handle and subscription of it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn temporary(self) -> Result<Broadcaster<K, T, C>, OpenError> {
        self.open_with(Builder::temporary)
    }

    /// The broadcaster in a log that is open already. The options of the log are those it was opened
    /// with.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn on(self, log: &Log) -> Result<Broadcaster<K, T, C>, OpenError> {
        self.open_with(|channel| channel.on(log))
    }

    fn open_with(
        self,
        open: impl FnOnce(Builder<T, C>) -> Result<ReplayChannel<T, C>, OpenError>,
    ) -> Result<Broadcaster<K, T, C>, OpenError> {
        // What all of its topics hold is recorded once, under a name that says so.
        let every = match Topic::new(format!("{}*", self.prefix)) {
            Ok(every) => every,
            Err(source) => {
                let prefix = self.prefix;
                return Err(OpenError::Prefix { prefix, source });
            }
        };
        let channel = open(self.channel.topic(&every))?;
        Ok(Broadcaster::new(channel.sender(), self.prefix, self.lag))
    }
}

impl<K, T, C> fmt::Debug for BroadcasterBuilder<K, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcasterBuilder")
            .field("prefix", &self.prefix)
            .field("lag", &self.lag)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}
