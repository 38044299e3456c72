//! How a log is opened: segment size, flushing, and the way to the disk.

use std::path::Path;
use std::time::Duration;

use crate::compaction::{Compaction, TopicLimits};
use crate::error::OpenError;
use crate::format;
use crate::log::Log;
use crate::retention::Retention;

/// When appended records are written through to the disk without being asked.
///
/// Whatever is chosen here, [`Log::sync`] and [`Log::durable`] are always exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flush {
    /// At most this long after an append. An idle log does no I/O.
    Interval(Duration),
    /// Only when [`Log::sync`], [`Log::durable`] or [`Log::close`] ask for it, and
    /// when a segment is full.
    OnDemand,
}

/// The way in which records get into the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WritePath {
    /// [`Mapped`](Self::Mapped) where the filesystem keeps allocated blocks in place
    /// (ext2/3/4, XFS, tmpfs), [`File`](Self::File) elsewhere.
    Auto,
    /// By stores into the mapped segment; by `pwrite` where somebody waits for small flushes. On a
    /// copy-on-write filesystem (btrfs, ZFS, bcachefs) a full disk can then kill the process with
    /// SIGBUS.
    Mapped,
    /// By `pwrite` to the segment file; readers still use the mapping.
    File,
}

/// Options for opening a log; made by [`Log::options`].
///
/// ```
/// use std::time::Duration;
/// use dacapo_log::{Flush, Log};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::options()
///     .segment_bytes_max(16 << 20)
///     .flush(Flush::Interval(Duration::from_millis(100)))
///     .open(dir.path())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `open` is called"]
pub struct Options {
    pub(crate) segment_bytes_min: u64,
    pub(crate) segment_bytes_max: u64,
    pub(crate) flush: Flush,
    pub(crate) write_path: WritePath,
    pub(crate) topic_limits: TopicLimits,
    pub(crate) retention: Retention,
    pub(crate) compaction: Option<Compaction>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes_min: 64 << 10,
            segment_bytes_max: 64 << 20,
            flush: Flush::Interval(Duration::from_secs(1)),
            write_path: WritePath::Auto,
            topic_limits: TopicLimits::default(),
            retention: Retention::default(),
            compaction: None,
        }
    }
}

impl Options {
    /// The size of a segment file once the log has grown; 64 MiB by default.
    ///
    /// One record, or one batch, fits into one segment. 16 KiB to 1 GiB, rounded up
    /// to whole pages of 4 KiB.
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// The size of a log's first segment file; 64 KiB by default, or the largest size if
    /// that is smaller. Each following one is twice as large, up to
    /// [`segment_bytes_max`](Self::segment_bytes_max).
    pub fn segment_bytes_min(mut self, bytes: u64) -> Self {
        self.segment_bytes_min = bytes;
        self
    }

    /// When records are flushed without being asked; every second by default.
    pub fn flush(mut self, flush: Flush) -> Self {
        self.flush = flush;
        self
    }

    /// The way to the page cache; [`WritePath::Auto`] by default.
    pub fn write_path(mut self, path: WritePath) -> Self {
        self.write_path = path;
        self
    }

    /// Keeps the newest `records` of each topic whose name begins with `prefix`; all by default. Of
    /// several prefixes of a name, the longest counts.
    ///
    /// 1 keeps the last record by key, the topic being the key. Older records go with a compaction,
    /// [on demand](Log::compact) or [in the background](Self::compaction), and can be read until then.
    /// Those that were [held](Log::hold) when it began stay.
    pub fn topic_limit(mut self, prefix: &str, records: u64) -> Self {
        self.topic_limits.set(prefix, records);
        self
    }

    /// What is dropped in the background, while the log is open: nothing by default.
    ///
    /// One thread of the log looks once a segment was filled and is durable, and from time to time:
    /// every minute, or 16 times in [`age_max`](Retention::age_max) if that is more often, but at
    /// most once a second; not yet when the log is opened. It does what [`Log::retain`] does, and a
    /// failure poisons the log as one of that does.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Gives back in the background, while the log is open, the space of deleted topics and of what is
    /// beyond a [limit](Self::topic_limit), as [`Log::compact`] does; not at all by default, also where
    /// topics have limits.
    ///
    /// The log's maintenance thread looks once a segment was filled, or a topic deleted, and that is
    /// durable; not when the log is opened, and not while nothing changes. What it cannot do,
    /// [`Status::compaction_failure`](crate::Status::compaction_failure) tells, and it tries again the
    /// next time that it looks. [`Log::close`] waits for no more than a piece of its work.
    pub fn compaction(mut self, compaction: Compaction) -> Self {
        self.compaction = Some(compaction);
        self
    }

    /// Opens the log in `dir` for appending and reading, and creates it if it is not there.
    ///
    /// Waits for the disk; an async caller does this on a blocking thread.
    ///
    /// # Errors
    /// See [`OpenError`]. A failed open changes nothing that was stored.
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<Log, OpenError> {
        Log::open_writer(dir.as_ref(), &self.checked()?)
    }

    /// Opens the log in `dir` for reading only, also while another process is writing to it.
    ///
    /// Takes no lock and changes no file. Segment and flush options are the writer's, and
    /// have no effect here. What is damaged is reported when it is read.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_read_only(&self, dir: impl AsRef<Path>) -> Result<Log, OpenError> {
        Log::open_reader(dir.as_ref())
    }

    fn checked(&self) -> Result<Self, OpenError> {
        let mut options = self.clone();
        for (option, bytes) in [
            ("segment_bytes_max", &mut options.segment_bytes_max),
            ("segment_bytes_min", &mut options.segment_bytes_min),
        ] {
            if !(format::SEGMENT_BYTES_MIN..=format::SEGMENT_BYTES_MAX).contains(bytes) {
                return Err(OpenError::InvalidOption {
                    option,
                    value: *bytes,
                    expected: "from 16 KiB to 1 GiB",
                });
            }
            *bytes = bytes.next_multiple_of(format::PAGE_BYTES as u64);
        }
        options.segment_bytes_min = options.segment_bytes_min.min(options.segment_bytes_max);
        Ok(options)
    }
}
