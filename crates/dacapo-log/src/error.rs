//! What can go wrong, one enum an operation: what happened, where, and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::offset::{Epoch, Offset};

/// A name that no topic can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// A record without a topic is appended without one.
    #[error("a topic has at least one byte")]
    Empty,
    /// The name is longer than [`Topic::BYTES_MAX`](crate::Topic::BYTES_MAX).
    #[error("a topic has at most {max} bytes, and this name has {bytes}", max = crate::Topic::BYTES_MAX)]
    TooLong {
        /// The name's length.
        bytes: usize,
    },
}

/// A system call on one of the log's files failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn new(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    }

    /// The file or directory that the call was about.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The system's own error.
    #[must_use]
    pub fn io(&self) -> &io::Error {
        &self.source
    }

    /// No block, no quota, or no larger file to be had: more space makes it pass.
    pub(crate) fn is_storage_full(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        )
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// The directory or its filesystem does not let us write.
    pub(crate) fn is_not_writable(&self) -> bool {
        matches!(
            self.source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
    }
}

/// Bytes on disk that are not what the log wrote there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged file.
    pub path: PathBuf,
    /// The byte in that file at which the damaged part begins.
    pub position: u64,
    /// The record that cannot be read, where that is known.
    pub offset: Option<Offset>,
    /// What is wrong with it.
    pub damage: Damage,
}

impl Corruption {
    pub(crate) fn new(path: &Path, position: usize, damage: Damage) -> Self {
        Self {
            path: path.to_owned(),
            position: position as u64,
            offset: None,
            damage,
        }
    }

    pub(crate) fn of_record(mut self, offset: Offset) -> Self {
        self.offset = Some(offset);
        self
    }

    /// Adds itself to others, unless its place is among them.
    pub(crate) fn note_in(self, damages: &mut Vec<Self>) {
        let known = |other: &Self| (&other.path, other.position) == (&self.path, self.position);
        if !damages.iter().any(known) {
            damages.push(self);
        }
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is damaged at byte {}",
            self.path.display(),
            self.position
        )?;
        if let Some(offset) = self.offset {
            write!(f, ", record {offset}")?;
        }
        write!(f, ": {}", self.damage)
    }
}

impl std::error::Error for Corruption {}

/// A way in which stored bytes can be wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The bytes do not sum to the checksum stored with them.
    #[error("the checksum is {computed:#010x} where {stored:#010x} was stored")]
    Checksum {
        /// The sum beside the data.
        stored: u32,
        /// The sum of the data as it is now.
        computed: u32,
    },
    /// A frame's first word is one that is never written.
    #[error("{word:#018x} is no frame's first word")]
    Frame {
        /// The word that stands there.
        word: u64,
    },
    /// There are zeros where a frame was stored.
    #[error("a stored frame is gone: there are only zeros")]
    Missing,
    /// There is no such file.
    #[error("there is no such file")]
    NoFile,
    /// The system could not read these bytes.
    #[error("the disk cannot read it")]
    Unreadable,
    /// A topic that is not UTF-8.
    #[error("the record's topic is not UTF-8")]
    Topic,
    /// A frame says that it is longer than the space behind it.
    #[error("a frame of {bytes} bytes does not fit the {left} bytes behind it")]
    Overrun {
        /// The length in the frame.
        bytes: u64,
        /// What is left of the segment.
        left: u64,
    },
    /// A sound frame stands in the wrong place.
    #[error("record {found} stands where record {expected} belongs")]
    OutOfPlace {
        /// The record that belongs here.
        expected: Offset,
        /// The record that is here.
        found: Offset,
    },
    /// A gap leads nowhere, or stands in the middle of a batch.
    #[error("a gap that stands for no records, from {from} to before {to}")]
    Gap {
        /// The first record that it should stand for.
        from: Offset,
        /// The first record behind it.
        to: Offset,
    },
    /// The file does not begin with the mark of its kind.
    #[error("the file does not begin with {expected:?}")]
    Magic {
        /// What a file of this kind begins with.
        expected: &'static str,
    },
    /// The file is of a format version that this build does not read.
    #[error("the file has format version {found}, this build reads version {supported}")]
    Version {
        /// Its version.
        found: u32,
        /// The version that this build reads.
        supported: u32,
    },
    /// The file is longer or shorter than it says.
    #[error("the file has {found} bytes where its header says {expected}")]
    Length {
        /// The length in the header.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// A segment's header gives it a length that no segment has.
    #[error("its header says that the file has {bytes} bytes, which is no whole number of pages")]
    Pages {
        /// The length in the header.
        bytes: u64,
    },
    /// The file belongs to another log.
    #[error("the file belongs to log {found:032x}, this is log {expected:032x}")]
    ForeignLog {
        /// This log's id.
        expected: u128,
        /// The id in the file.
        found: u128,
    },
    /// A sealed segment has no valid footer.
    #[error("the footer of a sealed segment is gone")]
    Footer,
    /// The segment ends before, or behind, the record that its neighbours and footer name.
    #[error("the segment ends before record {found} where it should end before record {expected}")]
    End {
        /// The record before which it should end.
        expected: Offset,
        /// The record before which it does end.
        found: Offset,
    },
    /// Both slots of the `meta` file are unusable.
    #[error("both copies of the log's metadata are unusable")]
    Meta,
    /// One slot of the `meta` file is unusable; the other one holds.
    #[error("one of two copies of the log's metadata is unusable; the other one is used")]
    MetaSlot,
    /// An index file does not agree with its segment.
    #[error("the index does not agree with its segment; it is derived and can be deleted")]
    Index,
}

/// Opening a log failed. Nothing that was stored has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing at the path, and a read-only open creates nothing.
    #[error("{} does not exist; open it for writing to create a log there", path.display())]
    NotFound {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The path is not a directory.
    #[error("{} is not a directory; a log is a directory", path.display())]
    NotADirectory {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The directory holds files that are not a log's.
    #[error("{} is not a log: it holds {found:?} and no `meta`; name an empty or a new directory", path.display())]
    NotALog {
        /// The directory.
        path: PathBuf,
        /// A file in it that is not a log's.
        found: String,
    },
    /// The directory holds a backup that is not complete.
    #[error("{} is a backup that was interrupted: it holds {found:?} and no `meta`; run the backup again, which completes it", path.display())]
    UnfinishedBackup {
        /// The directory.
        path: PathBuf,
        /// A file that shows it.
        found: String,
    },
    /// The files are of a format version that this build does not read.
    #[error("{} has format version {found}, this build reads version {supported}; use the release that wrote it", path.display())]
    Version {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this build reads.
        supported: u32,
    },
    /// Another process, or another handle in this one, is writing to the log.
    #[error("{} is being written by {}; close it there, or open it read-only", path.display(), holder(*pid))]
    Locked {
        /// The log's directory.
        path: PathBuf,
        /// The process that holds the lock, where it could be read.
        pid: Option<u32>,
    },
    /// The directory cannot be written.
    #[error("{source}; open it read-only, or make it writable")]
    NotWritable {
        /// The call that was refused.
        source: FileError,
    },
    /// The disk has no room to create the first segment.
    #[error("no space to open the log: {source}")]
    StorageFull {
        /// The call that found no space.
        source: FileError,
    },
    /// A segment that must be there is not.
    #[error("records {from} to {} are missing: there is no segment file for them in {}; put the file back, open the log read-only to read the others, or repair it into a new log", to.get() - 1, path.display())]
    SegmentMissing {
        /// The log's directory.
        path: PathBuf,
        /// The first record that is gone.
        from: Offset,
        /// The first record behind the hole.
        to: Offset,
    },
    /// Stored bytes below the point that was reported durable are damaged.
    #[error("{0}; open the log read-only to read what is sound, or repair it into a new log")]
    Corrupt(Corruption),
    /// An option has a value that cannot work.
    #[error("{option} is {value}; it must be {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// The value that was given.
        value: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// Any other failed system call.
    #[error(transparent)]
    Io(FileError),
}

impl From<FileError> for OpenError {
    fn from(source: FileError) -> Self {
        if source.is_storage_full() {
            Self::StorageFull { source }
        } else if source.is_not_writable() {
            Self::NotWritable { source }
        } else {
            Self::Io(source)
        }
    }
}

impl From<Corruption> for OpenError {
    fn from(corruption: Corruption) -> Self {
        match corruption.damage {
            Damage::Version { found, supported } => Self::Version {
                path: corruption.path,
                found,
                supported,
            },
            _ => Self::Corrupt(corruption),
        }
    }
}

/// What can go wrong with one file of the log: the call, or the bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    #[error(transparent)]
    Io(#[from] FileError),
    #[error(transparent)]
    Corrupt(#[from] Corruption),
}

impl From<SegmentError> for OpenError {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Io(e) => e.into(),
            SegmentError::Corrupt(e) => e.into(),
        }
    }
}

impl From<SegmentError> for ReadError {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Io(e) => e.into(),
            SegmentError::Corrupt(e) => e.into(),
        }
    }
}

fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

/// An append failed. The log holds what it held before.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The record or batch does not fit into one segment.
    #[error(
        "{bytes} bytes do not fit into one segment, which takes {max}; split them, or raise segment_bytes_max"
    )]
    TooLarge {
        /// The size of the record or of the whole batch on disk, headers included.
        bytes: u64,
        /// The largest that fits.
        max: u64,
    },
    /// The disk is full. Appending goes on by itself once there is space.
    #[error("no space for another segment: {source}; free some, and append again")]
    StorageFull {
        /// The call that found no space.
        source: Arc<FileError>,
    },
    /// The next segment could not be made ready, for another reason than space.
    /// Appending can be tried again.
    #[error("no next segment: {source}")]
    Prepare {
        /// The call that failed.
        source: Arc<FileError>,
    },
    /// A write or sync failed earlier. Nothing is acknowledged any more; reads go on.
    #[error("the log refuses writes since an earlier failure: {cause}; reopen it to recover")]
    Poisoned {
        /// The call that failed then.
        cause: Arc<FileError>,
    },
    /// The producer has begun a higher epoch: this append is of one that was to end.
    #[error(
        "epoch {epoch} of the producer is fenced off by epoch {current}; stop, or begin a higher epoch with sequence 0"
    )]
    Fenced {
        /// The epoch of the append.
        epoch: u64,
        /// The producer's epoch in the log.
        current: u64,
    },
    /// An epoch begins with sequence 0.
    #[error(
        "the log holds nothing of the producer's epoch {epoch}, so that sequence 0 is next, and not {found}"
    )]
    EpochNotBegun {
        /// The epoch of the append.
        epoch: u64,
        /// Its sequence.
        found: u64,
    },
    /// An append before this one is not in the log. After a power cut, one that was acknowledged and not
    /// durable may be what is missing.
    #[error(
        "the producer's next sequence is {expected}, and not {found}; append from {expected} on"
    )]
    SequenceGap {
        /// The next sequence.
        expected: u64,
        /// The sequence of the append.
        found: u64,
    },
    /// The log holds no append of the producer: none was made, or the newest one was
    /// [pruned](crate::Log::prune) or lost. Whether this one was made before cannot be known.
    #[error(
        "the log holds no append of the producer, which cannot go on with sequence {found} of epoch {epoch}; begin an epoch with sequence 0"
    )]
    UnknownProducer {
        /// The epoch of the append.
        epoch: u64,
        /// Its sequence.
        found: u64,
    },
    /// A batch of no records has no place for a stamp.
    #[error("an append with a stamp has at least one record, which carries it")]
    NothingToStamp,
    /// The stamps in the log could not be read, so that a repetition would not be recognised. Appends
    /// without a stamp go on.
    #[error("the stamps in the log cannot be read: {source}; where that is damage, repair the log")]
    ProducersUnreadable {
        /// What reading met.
        source: Arc<ReadError>,
    },
    /// The log was opened read-only.
    #[error("the log was opened read-only")]
    ReadOnly,
    /// The log was closed.
    #[error("the log was closed")]
    Closed,
    /// There are no further offsets. A log does not come here by itself: somebody gave it large ones.
    #[error("the log ends at record {next}, and has no offsets for more; begin a new log")]
    NoOffsetsLeft {
        /// Where the log ends.
        next: Offset,
    },
}

/// A repair failed. The damaged log is as it was, and there is no new one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// There is no log to be repaired.
    #[error(transparent)]
    Source(OpenError),
    /// A process is writing to the log, so that it changes while it is read.
    #[error("{} is being written by process {pid}; close it there first", path.display())]
    BeingWritten {
        /// The log's directory.
        path: PathBuf,
        /// The process that holds its lock.
        pid: u32,
    },
    /// The directory holds the beginning of another repair's result.
    #[error("{} is what a repair that was interrupted has left: it holds {found:?}; repair the log that it was made from, and remove this one", path.display())]
    Unfinished {
        /// The directory.
        path: PathBuf,
        /// The file that shows it.
        found: String,
    },
    /// The place for the new log is taken.
    #[error("{} holds {found:?}; name a new or an empty directory for the repaired log", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// A file in it.
        found: String,
    },
    /// The place for the new log is taken by something that is no directory.
    #[error("{} is not a directory; name a new or an empty one for the repaired log", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The new log would lie in the directory of the damaged one, which is not written to.
    #[error("{} lies in the log that is to be repaired; name a directory outside of it", path.display())]
    Inside {
        /// The path.
        path: PathBuf,
    },
    /// The disk has no room for the copy.
    #[error("no space for the repaired log: {source}; name a directory on another disk")]
    StorageFull {
        /// The call that found no space.
        source: FileError,
    },
    /// Any other failed system call.
    #[error(transparent)]
    Io(FileError),
}

impl From<FileError> for RepairError {
    fn from(source: FileError) -> Self {
        if source.is_storage_full() {
            Self::StorageFull { source }
        } else {
            Self::Io(source)
        }
    }
}

/// A backup failed. The log is as it was.
///
/// A backup that was there before is still whole, or is called unfinished by whoever opens it; either
/// way, another run goes on where this one ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// What is to be backed up is damaged.
    #[error(
        "a damaged log cannot be backed up: {0}; repair it into a new log, and back up that one"
    )]
    Damaged(ReadError),
    /// The log could not be read.
    #[error(transparent)]
    Read(ReadError),
    /// What was appended could not be made durable.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The place holds something that is no backup of a log.
    #[error("{} holds {found:?} and is no backup of a log; name a new or an empty directory", path.display())]
    NotABackup {
        /// The directory.
        path: PathBuf,
        /// A file in it.
        found: String,
    },
    /// The place is taken by something that is no directory.
    #[error("{} is not a directory; name a new one, or an earlier backup", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// The place lies in the log's own directory.
    #[error("{} lies in the log that is to be backed up; name a directory outside of it", path.display())]
    Inside {
        /// The path.
        path: PathBuf,
    },
    /// The place holds a backup of another log.
    #[error("{} belongs to log {found:032x}, and this is log {expected:032x}; name another directory", path.display())]
    OtherLog {
        /// The directory.
        path: PathBuf,
        /// The id of the log that is to be backed up.
        expected: u128,
        /// The id in the directory.
        found: u128,
    },
    /// The earlier backup was opened for writing since: it is a log of its own now, and may hold records
    /// that are nowhere else.
    #[error("{} was opened for writing since it was made, and is a log of its own now; name another directory", path.display())]
    WrittenTo {
        /// The directory.
        path: PathBuf,
    },
    /// The earlier backup holds records that the log does not hold, or does not know to be durable.
    #[error("{} holds records from offset {from} on that are not in the log, or not known to be durable there; if the log was not closed cleanly, open it for writing once; otherwise keep both, and name another directory", path.display())]
    Longer {
        /// The directory.
        path: PathBuf,
        /// The first record that is not durable in the log.
        from: Offset,
    },
    /// The earlier backup holds another record than the log under the same offset: one of the two was
    /// restored from an older backup, and went on by itself.
    #[error("{} holds another record {at} than the log; keep both, and name another directory", path.display())]
    Diverged {
        /// The directory.
        path: PathBuf,
        /// The last record of the backup.
        at: Offset,
    },
    /// The earlier backup cannot be read.
    #[error("the earlier backup cannot be gone on with: {0}; name another directory")]
    Unreadable(OpenError),
    /// Another backup is being made there, or the directory is open as a log.
    #[error("{} is in use by {}; wait for it, or name another directory", path.display(), holder(*pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds its lock, where it could be read.
        pid: Option<u32>,
    },
    /// The disk has no room for the copy.
    #[error(
        "no space for the backup: {source}; free some, and run it again, or name a directory on another disk"
    )]
    StorageFull {
        /// The call that found no space.
        source: FileError,
    },
    /// Any other failed system call.
    #[error("{0}; run the backup again once that is mended")]
    Io(FileError),
}

impl From<FileError> for BackupError {
    fn from(source: FileError) -> Self {
        if source.is_storage_full() {
            Self::StorageFull { source }
        } else {
            Self::Io(source)
        }
    }
}

impl From<ReadError> for BackupError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Corrupt(_) | ReadError::SegmentMissing { .. } => Self::Damaged(error),
            _ => Self::Read(error),
        }
    }
}

/// Making records durable failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// A write or sync failed, now or earlier. Nothing is acknowledged any more; reads go on.
    #[error("the log refuses writes since a failure: {cause}; reopen it to recover")]
    Poisoned {
        /// The call that failed.
        cause: Arc<FileError>,
    },
    /// The record has not been appended yet.
    #[error("record {requested} is not there yet; the next record gets offset {next}")]
    BeyondEnd {
        /// The record that was asked for.
        requested: Offset,
        /// The offset of the next append.
        next: Offset,
    },
    /// The log was opened read-only; its writer decides what is durable.
    #[error("the log was opened read-only")]
    ReadOnly,
    /// The log was closed before the record was durable.
    #[error("the log was closed")]
    Closed,
}

/// Reading failed. The reader stays where it was, except behind [`Lost`](Self::Lost) records, and
/// behind [`Pruned`](Self::Pruned) ones if it began with [`Start::AtOrOldest`](crate::Start::AtOrOldest).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such record yet.
    #[error("record {requested} is not there yet; the next record gets offset {next}")]
    BeyondEnd {
        /// The record that was asked for.
        requested: Offset,
        /// The offset of the next append.
        next: Offset,
    },
    /// The record was dropped; `oldest` is the first one still here. A reader that began with
    /// [`Start::AtOrOldest`](crate::Start::AtOrOldest) reports it once, and goes on from there by
    /// itself.
    #[error("offset {requested} was pruned; the oldest record is {oldest}")]
    Pruned {
        /// The record that was asked for.
        requested: Offset,
        /// The first record still here.
        oldest: Offset,
    },
    /// A crash undid records that the checkpoint had already passed; others may have
    /// taken their offsets. `resume_at` is the first offset that means another record now.
    #[error(
        "checkpoint {requested} is from epoch {epoch}, of which a crash undid the records from {resume_at} on; read again from {resume_at}"
    )]
    Rewound {
        /// The checkpoint's offset.
        requested: Offset,
        /// The checkpoint's epoch.
        epoch: Epoch,
        /// Where to read on without missing a record.
        resume_at: Offset,
    },
    /// The stored bytes are damaged. Reading goes on behind them with
    /// [`skip_damage`](crate::Replay::skip_damage).
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A segment file is gone.
    #[error("the segment that holds record {offset} is gone from {}", path.display())]
    SegmentMissing {
        /// The log's directory.
        path: PathBuf,
        /// The record that cannot be read.
        offset: Offset,
    },
    /// The records were lost to damage, and a [`repair`](crate::repair()) kept their place. Reported
    /// once; the reader stands behind them, and goes on by itself.
    #[error("{} lost to damage before a repair; reading goes on at {to}", records_were(*from, *to))]
    Lost {
        /// The first record that is gone.
        from: Offset,
        /// The first record behind them.
        to: Offset,
    },
    /// A compaction has removed the record: its topic was deleted.
    #[error("record {offset} was removed by a compaction")]
    Removed {
        /// The record that was asked for.
        offset: Offset,
    },
    /// The log was closed, and everything in it was read.
    #[error("the log was closed")]
    Closed,
    /// A system call failed; reading can be tried again.
    #[error(transparent)]
    Io(Arc<FileError>),
}

/// "record 17 was", "records 17 to 20 were".
fn records_were(from: Offset, to: Offset) -> String {
    match to.since(from) {
        0 | 1 => format!("record {from} was"),
        _ => format!("records {from} to {} were", to.get() - 1),
    }
}

impl From<FileError> for ReadError {
    fn from(source: FileError) -> Self {
        Self::Io(Arc::new(source))
    }
}
