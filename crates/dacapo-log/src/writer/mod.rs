//! The writing side of an open log: append, roll, flush, prune, close.
//!
//! One lock orders the appends, and is held for a copy and a checksum; appends with a stamp take
//! another one before it. One flush runs at a time, whose turn it is, and nobody waits for that while
//! appending. After a failed write or sync nothing more is acknowledged: see docs/durability.md.

mod append;
mod append_once;
mod close;
mod compact;
mod flush;
mod keeper;
mod prune;
pub(crate) mod turns;

use std::sync::{Arc, PoisonError};

pub(crate) use self::append::NewRecord;
use self::append::{Active, Appender};
pub(crate) use self::flush::FlushBy;
use self::keeper::Keeper;
use self::turns::Turns;
use crate::disk::DiskFile;
use crate::error::{FileError, SyncError};
use crate::flusher::Flusher;
use crate::format;
use crate::lock::Lock;
use crate::log::Shared;
use crate::meta::MetaFile;
use crate::offset::Offset;
use crate::options::Options;
use crate::prepare::Preparer;
use crate::producers::Producers;
use crate::segment_writer::SegmentWriter;
use crate::sync::{AtomicBool, Mutex, MutexGuard, OnceLock};

/// Bytes of a segment that no record can use: header, footer, the frame that begins it, and the
/// sector that is kept for the last mark.
const SEGMENT_OVERHEAD_BYTES: usize = format::FRAMES_START
    + format::FOOTER_PAGE_BYTES
    + format::SECTOR_BYTES
    + format::frame_bytes(0, format::BEGIN_PAYLOAD_BYTES);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    options: Options,
    batch_bytes_max: usize,
    appender: Mutex<Appender>,
    /// `None` until the first append with a stamp. Locked before the appender.
    producers: Mutex<Option<Producers>>,
    /// The first failed write or sync. Set with the appender locked: nothing is acknowledged after it.
    poison: OnceLock<Arc<FileError>>,
    /// The log's directory, whose names are synced.
    names: DiskFile,
    /// A segment was filled, and nobody was told yet.
    rolled: AtomicBool,
    /// Held by the one compaction that runs.
    compacting: Mutex<()>,
    /// Held while a segment is written anew, and by who closes the log: what is written is the next
    /// writer's to remove once the log's lock is given up. Locked before custody; no code of
    /// the caller's runs meanwhile.
    rewriting: Mutex<()>,
    turns: Turns,
    flusher: Flusher,
    keeper: Keeper,
    preparer: Preparer,
    /// Both gone once the log is closed.
    custody: Mutex<Option<Custody>>,
}

/// What the writer of a log owns until it closes it.
pub(crate) struct Custody {
    pub(crate) meta: MetaFile,
    pub(crate) lock: Lock,
}

/// Where appending begins after an open.
pub(crate) struct Resumption {
    /// The segment to go on in, after a clean end.
    pub(crate) segment: Option<ResumedSegment>,
    pub(crate) next: Offset,
    pub(crate) last_timestamp_micros: u64,
    pub(crate) custody: Custody,
}

/// A segment that a closed log left unsealed.
pub(crate) struct ResumedSegment {
    pub(crate) writer: SegmentWriter,
    pub(crate) first_timestamp_micros: u64,
    pub(crate) is_labelled: bool,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        options: Options,
        preparer: Preparer,
        resumption: Resumption,
    ) -> Result<Self, FileError> {
        // One descriptor for good: running out of them must not fail a flush.
        let names = shared.disk.open(&shared.dir)?;
        let appender = Appender {
            segment: resumption
                .segment
                .map(|s| Active::new(s.writer, s.first_timestamp_micros, s.is_labelled)),
            next: resumption.next,
            last_timestamp_micros: resumption.last_timestamp_micros,
            filled_bytes: 0,
            unsynced: Vec::new(),
            names_changed: false,
            flush_scheduled: false,
            unflushed_bytes: 0,
            flushes_are_awaited: false,
            closing: false,
        };
        let segment_bytes_max = usize::try_from(options.segment_bytes_max).expect("at most 1 GiB");
        Ok(Self {
            shared,
            batch_bytes_max: segment_bytes_max - SEGMENT_OVERHEAD_BYTES,
            appender: Mutex::new(appender),
            producers: Mutex::new(None),
            poison: OnceLock::new(),
            names,
            rolled: AtomicBool::new(false),
            compacting: Mutex::new(()),
            rewriting: Mutex::new(()),
            turns: Turns::new(),
            flusher: Flusher::new(options.flush),
            keeper: Keeper::new(options.retention, options.compaction),
            options,
            preparer,
            custody: Mutex::new(Some(resumption.custody)),
        })
    }

    pub(crate) fn flusher(&self) -> &Flusher {
        &self.flusher
    }

    pub(crate) fn through_mapping(&self) -> bool {
        self.preparer.blueprint().through_mapping
    }

    #[inline]
    fn appender(&self) -> MutexGuard<'_, Appender> {
        // A panic with the lock held is a bug of ours; what was published before it is sound.
        self.appender.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The largest frame or batch that fits into one segment.
    #[inline]
    pub(crate) fn batch_bytes_max(&self) -> usize {
        self.batch_bytes_max
    }

    /// Refuses everything from here on. Called with the appender locked, so that nothing is
    /// acknowledged afterwards; who calls wakes those who wait for durability, without the lock.
    fn poison(&self, cause: FileError) -> Arc<FileError> {
        // The first failure stays the reason.
        Arc::clone(self.poison.get_or_init(|| Arc::new(cause)))
    }

    fn poisoned(&self, cause: FileError) -> SyncError {
        SyncError::Poisoned {
            cause: self.poison(cause),
        }
    }

    /// Nothing is flushed after a failure: the disk may have lost what it covered.
    fn check_poison(&self) -> Result<(), SyncError> {
        match self.poison.get() {
            Some(cause) => Err(SyncError::Poisoned {
                cause: Arc::clone(cause),
            }),
            None => Ok(()),
        }
    }

    /// Why nothing more will become durable, if that is so. Does not wait for the disk.
    pub(crate) fn refusal(&self) -> Option<SyncError> {
        let poison = self.check_poison().err();
        // Closing ends with a flush, so only its end is one.
        poison.or_else(|| self.shared.is_closed().then_some(SyncError::Closed))
    }
}

#[cfg(all(test, not(simulation)))]
mod tests;
