//! How a channel is opened.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use dacapo_log::{Flush, Log, Options, Retention, Topic};
use tempfile::TempDir;

use crate::channel::{Handle, ReplayChannel};
use crate::codec::{Decode, Encode, Postcard};
use crate::error::OpenError;
use crate::schema::{self, Schema};

/// Options for opening a [`ReplayChannel`]; made by [`ReplayChannel::builder`].
///
/// ```
/// use std::time::Duration;
/// use dacapo::{Json, ReplayChannel, Retention};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let channel = ReplayChannel::<String>::builder()
///     .codec(Json)
///     .schema("greeting")
///     .retention(Retention::default().age_max(Duration::from_secs(86_400)))
///     .open(dir.path())?;
///
/// // Read as something else, it says so.
/// drop(channel);
/// let error = ReplayChannel::<u64>::open(dir.path()).unwrap_err();
/// assert!(error.to_string().contains("holds `greeting` in json"), "{error}");
/// # Ok(())
/// # }
/// ```
#[must_use = "options do nothing until the channel is opened"]
pub struct Builder<T, C = Postcard> {
    codec: C,
    topic: Option<Topic>,
    schema: Option<String>,
    replaces_schema: bool,
    log: Options,
    message: PhantomData<fn() -> T>,
}

impl<T> Builder<T> {
    pub(crate) fn new() -> Self {
        Self {
            codec: Postcard,
            topic: None,
            schema: None,
            replaces_schema: false,
            log: Options::default(),
            message: PhantomData,
        }
    }
}

impl<T, C> Builder<T, C> {
    /// How messages are stored; [`Postcard`] by default.
    pub fn codec<D: Encode<T> + for<'a> Decode<'a, T>>(self, codec: D) -> Builder<T, D> {
        Builder {
            codec,
            topic: self.topic,
            schema: self.schema,
            replaces_schema: self.replaces_schema,
            log: self.log,
            message: PhantomData,
        }
    }

    /// The topic of the channel's messages, so that others can share its log; none by default.
    pub fn topic(mut self, topic: &Topic) -> Self {
        self.topic = Some(topic.clone());
        self
    }

    /// What the messages are called, in the record of what the channel holds; by default the name of
    /// the type `T`, without its modules. Name it where the type may be renamed, or where one name has
    /// two meanings.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = Some(name.into());
        self
    }

    /// Records codec and schema anew, where the channel was opened for others before, and for those that
    /// share topics with it: a broadcaster, and a channel of one of its keys. Messages that are there
    /// already stay as they are: what cannot be decoded is an error of receiving.
    pub fn replace_schema(mut self) -> Self {
        self.replaces_schema = true;
        self
    }

    /// When messages are made safe from a power cut without being asked; every second by default. Of a
    /// channel in a log that is open already, the log's options count, for this and all that follow.
    pub fn flush(mut self, flush: Flush) -> Self {
        self.log = self.log.flush(flush);
        self
    }

    /// The size of a segment file once the log has grown, which bounds a message and a batch; 64 MiB by
    /// default. See [`Options::segment_bytes_max`].
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.log = self.log.segment_bytes_max(bytes);
        self
    }

    /// What old messages are dropped; none by default.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.log = self.log.retention(retention);
        self
    }

    /// All options of the log, in place of those given so far.
    pub fn log_options(mut self, options: Options) -> Self {
        self.log = options;
        self
    }
}

impl<T, C: Encode<T> + for<'a> Decode<'a, T>> Builder<T, C> {
    /// Opens the channel in the directory `dir`, and creates it if it is not there.
    ///
    /// Waits for the disk; an async caller does this on a blocking thread.
    ///
    /// # Errors
    /// See [`OpenError`]. A failed open changes nothing that was stored.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<ReplayChannel<T, C>, OpenError> {
        let log = self.log.open(dir)?;
        self.finish(log, None, false)
    }

    /// Opens the channel for receiving only, also while another process has it open: receivers follow
    /// what that one sends.
    ///
    /// # Errors
    /// See [`OpenError`]. There must be a log in `dir`.
    pub fn open_read_only(self, dir: impl AsRef<Path>) -> Result<ReplayChannel<T, C>, OpenError> {
        let log = self.log.open_read_only(dir)?;
        self.finish(log, None, true)
    }

    /// Opens a channel in a directory of its own among the system's temporary files, which goes with the
    /// last handle, sender or receiver of it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn temporary(mut self) -> Result<ReplayChannel<T, C>, OpenError> {
        let made = tempfile::Builder::new().prefix("dacapo-").tempdir();
        let directory = made.map_err(|source| OpenError::Io {
            action: "make a directory in",
            path: std::env::temp_dir(),
            source,
        })?;
        // Nothing of it is to survive a power cut.
        self.log = self.log.flush(Flush::OnDemand);
        let log = self.log.open(directory.path())?;
        self.finish(log, Some(directory), false)
    }

    /// The channel in a log that is open already. The options of the log are those it was opened with.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn on(self, log: &Log) -> Result<ReplayChannel<T, C>, OpenError> {
        self.finish(log.clone(), None, log.is_read_only())
    }

    fn finish(
        self,
        log: Log,
        directory: Option<TempDir>,
        read_only: bool,
    ) -> Result<ReplayChannel<T, C>, OpenError> {
        let opened = Schema {
            codec: self.codec.name().to_owned(),
            name: self.schema.unwrap_or_else(schema::name_of::<T>),
        };
        let (topic, replaces) = (self.topic, self.replaces_schema);
        schema::check(log.dir(), topic.as_ref(), opened, replaces, read_only)?;
        let handle = Handle::new(log, topic, directory);
        #[cfg(feature = "cursors")]
        if !read_only {
            let (log, topic) = (&handle.log, handle.topic.as_ref());
            handle.holds.take_stored(log, topic);
        }
        Ok(ReplayChannel::new(handle, self.codec))
    }
}

impl<T, C> fmt::Debug for Builder<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("topic", &self.topic)
            .field("schema", &self.schema)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}
