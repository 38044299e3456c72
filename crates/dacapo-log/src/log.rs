//! The handle that people hold: opening a log, and the doors to everything else.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use crate::clock;
use crate::compaction::{CompactError, Compacted};
use crate::disk::Disk;
use crate::error::{AppendError, Corruption, FileError, OpenError, ReadError, SyncError};
use crate::follower::{self, Follower};
use crate::format::{self, EpochStart};
use crate::holds::{Hold, Holds};
use crate::indexer::Indexer;
use crate::lock::Lock;
use crate::meta;
use crate::offset::{Epoch, Offset, Start};
use crate::options::{Options, WritePath};
use crate::prepare::{Blueprint, Preparer};
use crate::producers::{Appended, ProducerState, Producers};
use crate::reader::Reader;
use crate::record::Record;
use crate::recovery::{self, Recovered, Unfinished};
use crate::replay::Replay;
use crate::retention::{Pruning, Retention, Rule};
use crate::segment::Segment;
use crate::segment_writer::SegmentWriter;
use crate::segments::Segments;
use crate::stamp::Stamp;
use crate::status::Status;
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard};
use crate::tailer::Tailer;
use crate::topic::{self, Topic};
use crate::topics::{self, Topics};
use crate::verify::Progress;
use crate::watermark::Watermark;
use crate::writer::{Custody, FlushBy, NewRecord, ResumedSegment, Resumption, Writer};

/// An open log.
///
/// A cheap handle: clone it and share it between threads and tasks. When the last handle is
/// dropped, the log is flushed and closed; [`close`](Self::close) does the same and tells whether
/// it worked.
///
/// ```
/// use dacapo_log::{Log, Start};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path())?;
/// let offset = log.append(b"first")?;
/// log.sync()?; // now it survives a power cut
///
/// for record in log.replay(Start::Oldest) {
///     assert_eq!(record?.payload(), b"first");
/// }
/// assert_eq!(log.get(offset)?.payload(), b"first");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// `None` in a log that was opened read-only.
    writer: Option<Arc<Writer>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        match &self.writer {
            // Who wants to know how it went calls `close`.
            Some(writer) => drop(writer.close()),
            None => self.shared.close(),
        }
    }
}

/// What readers and the writer of one open log share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) disk: Disk,
    pub(crate) dir: PathBuf,
    pub(crate) log_id: u128,
    pub(crate) segments: Segments,
    /// Records before this are visible to readers.
    pub(crate) visible: Watermark,
    /// Records before this are safe from power loss.
    pub(crate) durable: Watermark,
    /// The oldest retained record.
    first: AtomicU64,
    epochs: Mutex<Vec<EpochStart>>,
    /// Follows another process's writer, in a log that was opened read-only.
    pub(crate) follower: Option<Follower>,
    /// Writes index files, in a log that was opened for writing.
    indexer: Option<Indexer>,
    /// Damage that was met while opening.
    pub(crate) noticed: Mutex<Vec<Corruption>>,
    pub(crate) holds: Arc<Holds>,
    closed: AtomicBool,
}

/// How a [`Shared`] begins.
pub(crate) struct Opened {
    pub(crate) segments: Segments,
    pub(crate) log_id: u128,
    pub(crate) first: Offset,
    pub(crate) next: Offset,
    pub(crate) durable: Offset,
    pub(crate) epochs: Vec<EpochStart>,
    pub(crate) follower: Option<Follower>,
    pub(crate) indexer: Option<Indexer>,
    pub(crate) noticed: Vec<Corruption>,
}

impl Shared {
    pub(crate) fn new(disk: Disk, dir: PathBuf, opened: Opened) -> Self {
        Self {
            disk,
            dir,
            log_id: opened.log_id,
            segments: opened.segments,
            visible: Watermark::new(opened.next),
            durable: Watermark::new(opened.durable),
            first: AtomicU64::new(opened.first.get()),
            epochs: Mutex::new(opened.epochs),
            follower: opened.follower,
            indexer: opened.indexer,
            noticed: Mutex::new(opened.noticed),
            holds: Arc::new(Holds::new(opened.first)),
            closed: AtomicBool::new(false),
        }
    }

    /// Has the index files of a sealed segment written, where anybody does that.
    pub(crate) fn order_index(&self, segment: &Arc<Segment>, is_labelled: bool) {
        if let Some(indexer) = &self.indexer {
            indexer.order(segment, is_labelled);
        }
    }

    /// Writes the index files that were ordered, and no others.
    pub(crate) fn stop_indexing(&self) {
        if let Some(indexer) = &self.indexer {
            indexer.stop();
        }
    }

    pub(crate) fn watermark(&self, durable_only: bool) -> &Watermark {
        match durable_only {
            true => &self.durable,
            false => &self.visible,
        }
    }

    /// Wakes those who wait for a watermark that has moved.
    pub(crate) fn announce(&self, watermark: &Watermark) {
        let untold = watermark.untold(watermark.get());
        if !watermark.announce() {
            return;
        }
        let waiters = watermark.topics();
        let tell = |name: &[u8]| waiters.wake(name, topic::hash_of(name));
        if topics::topics_in(self, untold, tell).is_err() {
            // They look for themselves, and meet the damage.
            waiters.wake_all();
        }
    }

    /// A segment is full: wakes those who wait for some topics only, so that they know that it holds
    /// nothing for them before it is dropped.
    pub(crate) fn announce_roll(&self) {
        self.visible.topics().wake_all();
        self.durable.topics().wake_all();
    }

    /// The oldest retained record.
    pub(crate) fn oldest(&self) -> Offset {
        Offset::new(self.first.load(Acquire))
    }

    /// Notes that everything before `first` is gone.
    pub(crate) fn raise_oldest(&self, first: Offset) {
        self.first.fetch_max(first.get(), Release);
    }

    /// The oldest retained record; in a read-only log, after a look whether the writing process has
    /// dropped segments.
    pub(crate) fn refresh_oldest(&self) -> Offset {
        if self.follower.is_some()
            && let Ok(Some(loaded)) = meta::load(&self.disk, &self.dir)
        {
            self.raise_oldest(loaded.meta.first);
        }
        self.oldest()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.epochs().last().map_or(Epoch::FIRST, |last| last.epoch)
    }

    /// Oldest first.
    pub(crate) fn epochs(&self) -> MutexGuard<'_, Vec<EpochStart>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Acquire)
    }

    /// Tells readers that nothing more will come.
    pub(crate) fn close(&self) {
        self.closed.store(true, Release);
        self.visible.wake();
        self.durable.wake();
    }

    /// In a read-only log: looks how far the writing process has come.
    pub(crate) fn refresh(&self) -> Result<(), ReadError> {
        match &self.follower {
            Some(follower) => follower.advance(self),
            None => Ok(()),
        }
    }

    /// In a read-only log whose last segment cannot be read: waits for what comes behind it.
    pub(crate) fn give_up_last_segment(&self) {
        if let Some(follower) = &self.follower {
            follower.give_up();
        }
    }

    /// In a read-only log: looks again and again, for as long as somebody waits.
    pub(crate) fn watch(self: &Arc<Self>) {
        if let Some(follower) = &self.follower {
            follower.watch(self);
        }
    }

    pub(crate) fn noticed(&self) -> MutexGuard<'_, Vec<Corruption>> {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The offset at which a reader begins.
    pub(crate) fn resolve(&self, start: Start) -> Result<Offset, ReadError> {
        let (oldest, next) = (self.oldest(), self.visible.get());
        let requested = match start {
            Start::Oldest => return Ok(oldest),
            Start::Latest => return Ok(next),
            Start::Since(time) => return self.offset_at(clock::timestamp_at(time)),
            Start::At(offset) => offset,
            // The reader itself tells of what was dropped.
            Start::AtOrOldest(offset) if offset < oldest => return Ok(offset),
            Start::AtOrOldest(offset) => offset,
            Start::Resume(checkpoint) => match meta::rewound_to(&self.epochs(), checkpoint, oldest)
            {
                Some(resume_at) => {
                    let (requested, epoch) = (checkpoint.offset, checkpoint.epoch);
                    return Err(ReadError::Rewound {
                        requested,
                        epoch,
                        resume_at,
                    });
                }
                None => checkpoint.offset,
            },
        };
        if requested < oldest {
            return Err(ReadError::Pruned { requested, oldest });
        }
        if requested > next {
            return Err(ReadError::BeyondEnd { requested, next });
        }
        Ok(requested)
    }
}

impl Log {
    /// Opens the log in `dir` with the default [`Options`], and creates it if it is not there.
    ///
    /// # Errors
    /// See [`OpenError`]. A failed open changes nothing that was stored.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::options().open(dir)
    }

    /// Options to open a log with.
    pub fn options() -> Options {
        Options::default()
    }

    pub(crate) fn open_writer(dir: &Path, options: &Options) -> Result<Self, OpenError> {
        Self::open_writer_on(&Disk::default(), dir, options)
    }

    pub(crate) fn open_writer_on(
        disk: &Disk,
        dir: &Path,
        options: &Options,
    ) -> Result<Self, OpenError> {
        recovery::check_directory(disk, dir)?;
        disk.create_dir(dir)?;
        let overwrites_in_place = disk.overwrites_in_place(dir)?;
        let through_mapping = match options.write_path {
            WritePath::Auto => overwrites_in_place,
            WritePath::Mapped => true,
            WritePath::File => false,
        };
        let lock = Lock::take(disk, dir)?;
        let Recovered {
            meta,
            sealed,
            unfinished,
            next,
            last_timestamp_micros,
        } = recovery::recover(disk, dir)?;
        let log_id = meta.get().log_id;
        let segments = Segments::new(disk.clone(), dir.to_owned(), log_id);
        for (file_bytes, footer) in sealed {
            segments.add_sealed(file_bytes, footer);
        }
        let segment = match unfinished {
            Some(unfinished) => Some(resume(disk, &segments, unfinished, through_mapping)?),
            None => None,
        };
        let opened = Opened {
            segments,
            log_id,
            first: meta.get().first,
            next,
            durable: next,
            epochs: meta.get().epochs.clone(),
            follower: None,
            indexer: Some(Indexer::start(disk, dir)?),
            noticed: Vec::new(),
        };
        let shared = Arc::new(Shared::new(disk.clone(), dir.to_owned(), opened));
        let preparer = Preparer::start(Blueprint {
            disk: disk.clone(),
            dir: dir.to_owned(),
            log_id,
            epoch: shared.epoch(),
            through_mapping,
            overwrites_in_place,
        })?;
        let custody = Custody { meta, lock };
        let resumption = Resumption {
            segment,
            next,
            last_timestamp_micros,
            custody,
        };
        let writer = Writer::new(Arc::clone(&shared), options.clone(), preparer, resumption)?;
        let writer = Arc::new(writer);
        let log = Self {
            inner: Arc::new(Inner {
                shared,
                writer: Some(Arc::clone(&writer)),
            }),
        };
        Writer::start_flushing(Arc::clone(&writer))?;
        Writer::start_keeping(writer)?;
        Ok(log)
    }

    pub(crate) fn open_reader(dir: &Path) -> Result<Self, OpenError> {
        Self::open_reader_on(&Disk::default(), dir)
    }

    pub(crate) fn open_reader_on(disk: &Disk, dir: &Path) -> Result<Self, OpenError> {
        if disk.is_dir(dir)?.is_none() {
            return Err(OpenError::NotFound {
                path: dir.to_owned(),
            });
        }
        recovery::check_directory(disk, dir)?;
        let shared = Arc::new(follower::open(disk, dir)?);
        // Damage in the last segment is met by whoever reads it.
        let _ = shared.refresh();
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                writer: None,
            }),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Appends one record of any bytes, none included, and returns its offset.
    ///
    /// Tailers can see it when this returns. It survives a killed process from then on; it
    /// survives power loss once [`durable`](Self::durable) or [`sync`](Self::sync) has returned
    /// for it. Does not wait for the disk, except for the next segment at a roll when that is not
    /// ready yet.
    ///
    /// # Errors
    /// [`AppendError::TooLarge`] and [`AppendError::StorageFull`] leave the log unchanged and
    /// usable. After [`AppendError::Poisoned`] the log refuses further writes; reopen it.
    #[inline]
    pub fn append(&self, payload: &[u8]) -> Result<Offset, AppendError> {
        let record = NewRecord::new(None, payload);
        Ok(self.writer()?.append(std::iter::once(record), None)?.start)
    }

    /// Appends a batch of records and returns their offsets: all of them or, on an error or after
    /// a crash, none.
    ///
    /// # Errors
    /// As [`append`](Self::append); the whole batch must fit into one segment.
    pub fn append_batch<I>(&self, payloads: I) -> Result<Range<Offset>, AppendError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        // Collected first, so that no code of the caller's runs while the log is locked.
        let items: Vec<I::Item> = payloads.into_iter().collect();
        let records: Vec<NewRecord<'_>> = items
            .iter()
            .map(|payload| NewRecord::new(None, payload.as_ref()))
            .collect();
        self.writer()?.append(records.iter().copied(), None)
    }

    /// Appends one record of a topic and returns its offset.
    ///
    /// ```
    /// use dacapo_log::{Log, Offset, Topic};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// let lobby = Topic::new("rooms:lobby")?;
    /// log.append_to(&lobby, b"hello")?;
    ///
    /// assert_eq!(log.get(Offset::ZERO)?.topic(), "rooms:lobby");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`append`](Self::append).
    #[inline]
    pub fn append_to(&self, topic: &Topic, payload: &[u8]) -> Result<Offset, AppendError> {
        let record = NewRecord::new(Some(topic), payload);
        Ok(self.writer()?.append(std::iter::once(record), None)?.start)
    }

    /// Appends a batch of records, each of its own topic, and returns their offsets: all of them or,
    /// on an error or after a crash, none.
    ///
    /// ```
    /// use dacapo_log::{Log, Topic};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// let (orders, stock) = (Topic::new("orders")?, Topic::new("stock")?);
    /// let offsets = log.append_batch_to([(&orders, "one lamp"), (&stock, "-1 lamp")])?;
    /// assert_eq!(offsets.end.get(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`append_batch`](Self::append_batch).
    pub fn append_batch_to<I, T, P>(&self, records: I) -> Result<Range<Offset>, AppendError>
    where
        I: IntoIterator<Item = (T, P)>,
        T: Borrow<Topic>,
        P: AsRef<[u8]>,
    {
        let items: Vec<(T, P)> = records.into_iter().collect();
        let records: Vec<NewRecord<'_>> = items
            .iter()
            .map(|(topic, payload)| NewRecord::new(Some(topic.borrow()), payload.as_ref()))
            .collect();
        self.writer()?.append(records.iter().copied(), None)
    }

    /// Appends one record of a producer that resends what it has no answer for, so that it is there
    /// once.
    ///
    /// The producer numbers its appends from 0 and gives a repetition the number of the original. What
    /// the log holds already is [`Appended::Duplicate`], and changes nothing. One that begins anew, or
    /// takes another one's place, takes a higher epoch: appends of the lower ones are refused from then
    /// on.
    ///
    /// Which append is the newest of each producer is read from the records themselves. So it survives
    /// restarts and crashes exactly as they do, and is forgotten when [`prune`](Self::prune) drops that
    /// append: whoever goes on then is refused with [`AppendError::UnknownProducer`], but sequence 0
    /// passes for a new append. Keep records for longer than producers resend them.
    ///
    /// The original is visible when this returns, and durable as any record: a producer that must not
    /// lose a message to a power cut keeps it until [`durable`](Self::durable) has returned for
    /// [`Appended::offset`], and after [`AppendError::SequenceGap`] appends again from what is expected.
    ///
    /// The first call after an open reads the stamps of the log: of each sealed segment from its topics
    /// file, and from the records where that is missing or damaged; appends without a stamp go on
    /// meanwhile. It takes some 100 bytes of memory for each producer of whom the log holds
    /// an append.
    ///
    /// ```
    /// use dacapo_log::{Appended, Log, Offset, Stamp};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// let first = Stamp { producer: 0xda_ca_90, epoch: 0, sequence: 0 };
    /// assert!(matches!(log.append_once(first, None, b"paid")?, Appended::New(_)));
    /// drop(log); // and the answer did not reach the producer, which sends it again
    ///
    /// let log = Log::open(dir.path())?;
    /// assert!(matches!(log.append_once(first, None, b"paid")?, Appended::Duplicate(_)));
    /// assert_eq!(log.next_offset(), Offset::new(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`append`](Self::append); and where the stamp does not come next, which leaves the log
    /// unchanged and usable: [`AppendError::Fenced`], [`AppendError::EpochNotBegun`],
    /// [`AppendError::SequenceGap`], [`AppendError::UnknownProducer`]. Damage in a segment that has to be
    /// read for its stamps is [`AppendError::ProducersUnreadable`].
    pub fn append_once(
        &self,
        stamp: Stamp,
        topic: Option<&Topic>,
        payload: &[u8],
    ) -> Result<Appended, AppendError> {
        let record = NewRecord::new(topic, payload);
        self.writer()?.append_once(std::iter::once(record), stamp)
    }

    /// Appends a batch of records under one stamp: all of them or none, and once, as
    /// [`append_once`](Self::append_once) does.
    ///
    /// ```
    /// use dacapo_log::{Log, Stamp, Topic};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// let orders = Topic::new("orders")?;
    /// let stamp = Stamp { producer: 0xda_ca_90, epoch: 0, sequence: 0 };
    /// for _ in 0..3 {
    ///     log.append_batch_once(stamp, [(Some(&orders), "one lamp"), (None, "-1 lamp")])?;
    /// }
    /// assert_eq!(log.next_offset().get(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`append_once`](Self::append_once) and [`append_batch`](Self::append_batch);
    /// [`AppendError::NothingToStamp`] for an empty batch.
    pub fn append_batch_once<'a, I, P>(
        &self,
        stamp: Stamp,
        records: I,
    ) -> Result<Appended, AppendError>
    where
        I: IntoIterator<Item = (Option<&'a Topic>, P)>,
        P: AsRef<[u8]>,
    {
        let items: Vec<(Option<&Topic>, P)> = records.into_iter().collect();
        let records: Vec<NewRecord<'_>> = items
            .iter()
            .map(|(topic, payload)| NewRecord::new(*topic, payload.as_ref()))
            .collect();
        self.writer()?.append_once(records.iter().copied(), stamp)
    }

    /// The newest append of a producer, or `None` where the log holds none: what a producer asks that
    /// has forgotten where it stopped.
    ///
    /// In a log opened for writing, the first call reads the stamps of the log, as
    /// [`append_once`](Self::append_once) does; in a read-only one, each call does.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] or [`ReadError::SegmentMissing`] where stamps cannot be read: the newest
    /// append may be among them.
    pub fn producer(&self, producer: u128) -> Result<Option<ProducerState>, ReadError> {
        match &self.inner.writer {
            Some(writer) => writer.producer(producer),
            None => {
                self.inner.shared.refresh()?;
                Ok(Producers::load(&self.inner.shared)?.get(producer))
            }
        }
    }

    /// Deletes all records of a topic, by a record that says so, and returns that one's offset.
    ///
    /// Durable, and undone by a crash, as any record. Readers of the topic that begin from now on see
    /// none of what was deleted; those that had come less far get the deletion as a record, unless a
    /// compaction has removed it by then. Records appended later begin the topic anew. The space is given back
    /// by a compaction, and until then readers of the whole log still see the records.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn delete_topic(&self, topic: &Topic) -> Result<Offset, AppendError> {
        let (writer, record) = (self.writer()?, NewRecord::deletion_of(topic));
        let offset = writer.append(std::iter::once(record), None)?.start;
        writer.note_deletion(offset);
        Ok(offset)
    }

    /// The largest payload that one record can have: what fits into one segment. A topic takes its
    /// bytes of that, and a stamp 32. 0 in a log that was opened read-only.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        let batch = self
            .inner
            .writer
            .as_ref()
            .map_or(0, |writer| writer.batch_bytes_max());
        batch.saturating_sub(format::FRAME_HEADER_BYTES)
    }

    fn writer(&self) -> Result<&Writer, AppendError> {
        self.inner.writer.as_deref().ok_or(AppendError::ReadOnly)
    }

    /// Waits until the record at `offset` is safe from power loss. Cancel-safe; on any runtime.
    ///
    /// All who wait at the same time share one `fdatasync`.
    ///
    /// # Errors
    /// [`SyncError::Poisoned`] if a write or sync has failed: the record may be lost.
    pub async fn durable(&self, offset: Offset) -> Result<(), SyncError> {
        let (shared, writer) = (&self.inner.shared, self.sync_writer()?);
        let next = shared.visible.get();
        if offset >= next {
            return Err(SyncError::BeyondEnd {
                requested: offset,
                next,
            });
        }
        let refusal = || writer.refusal();
        let ask = || writer.flusher().request();
        shared.durable.pass(offset, refusal, ask).await
    }

    /// Makes everything appended so far safe from power loss, blocking the thread, and returns
    /// the offset before which all is.
    ///
    /// # Errors
    /// [`SyncError::Poisoned`] if a write or sync has failed: records that were not yet durable
    /// may be lost.
    pub fn sync(&self) -> Result<Offset, SyncError> {
        self.sync_writer()?.flush(FlushBy::Caller)
    }

    /// Drops the oldest segments, those of which every record lies before `before`.
    ///
    /// Gives whole files back, so that some records before `before` usually stay. Never drops a
    /// record that is not durable, or that a [`Hold`] keeps, and never the newest segment that holds
    /// a record. [`Pruning::kept`] says which of these it was.
    ///
    /// Readers that stand in a dropped segment finish with it. Who then, or later, asks for a
    /// dropped record gets [`ReadError::Pruned`]. What was dropped stays so after a crash.
    ///
    /// ```
    /// use dacapo_log::{Log, Offset};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::options().segment_bytes_max(16 << 10).open(dir.path())?;
    /// for _ in 0..100 {
    ///     log.append(&[7; 1000])?;
    /// }
    /// let next = log.sync()?;
    /// let pruned = log.prune(next)?;
    /// assert!(pruned.oldest > Offset::ZERO);
    /// assert_eq!(log.oldest(), pruned.oldest);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SyncError::Poisoned`] if a write or sync has failed.
    pub fn prune(&self, before: Offset) -> Result<Pruning, SyncError> {
        self.sync_writer()?.prune(Rule::Before(before))
    }

    /// What [`prune`](Self::prune) would drop now; also of a log that was opened read-only, where the
    /// holds of the writing process are not known.
    ///
    /// # Errors
    /// In a read-only log those of looking at its files.
    pub fn would_prune(&self, before: Offset) -> Result<Pruning, ReadError> {
        self.inner.shared.would_prune(Rule::Before(before))
    }

    /// Drops the oldest segments that `retention` does not keep, as [`prune`](Self::prune) does.
    ///
    /// [`Options::retention`] does so in the background.
    ///
    /// ```
    /// use dacapo_log::{Log, Retention};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::options().segment_bytes_max(16 << 10).open(dir.path())?;
    /// for _ in 0..100 {
    ///     log.append(&[7; 1000])?;
    /// }
    /// log.sync()?;
    /// log.retain(&Retention::default().records_max(50))?;
    /// assert!((50..70).contains(&log.next_offset().since(log.oldest())));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`prune`](Self::prune).
    pub fn retain(&self, retention: &Retention) -> Result<Pruning, SyncError> {
        self.sync_writer()?.prune(Rule::Retention(retention))
    }

    /// What [`retain`](Self::retain) would drop now; also of a log that was opened read-only, where
    /// the holds of the writing process are not known.
    ///
    /// # Errors
    /// As [`would_prune`](Self::would_prune).
    pub fn would_retain(&self, retention: &Retention) -> Result<Pruning, ReadError> {
        self.inner.shared.would_prune(Rule::Retention(retention))
    }

    /// Keeps the record at `offset`, and all behind it, from being dropped for as long as the
    /// returned value lives, and this log is open.
    ///
    /// Records that were dropped before are not held: [`Hold::offset`] is the first one that is. In
    /// a log that was opened read-only, nothing is held back: its writer does not know. A
    /// [limit](Options::topic_limit) of a topic takes no held record, but for a compaction that is at work
    /// already; [deleting](Self::delete_topic) a topic does.
    ///
    /// ```
    /// use dacapo_log::{Kept, Log, Offset};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::options().segment_bytes_max(16 << 10).open(dir.path())?;
    /// for _ in 0..100 {
    ///     log.append(&[7; 1000])?;
    /// }
    /// let next = log.sync()?;
    /// let backup = log.hold("backup", Offset::ZERO);
    /// assert_eq!(backup.offset(), Offset::ZERO); // nothing was dropped before
    ///
    /// let pruned = log.prune(next)?;
    /// assert_eq!(pruned.oldest, Offset::ZERO);
    /// assert!(matches!(pruned.kept, Some(Kept::Held(hold)) if hold.name == "backup"));
    ///
    /// drop(backup);
    /// assert!(log.prune(next)?.oldest > Offset::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    pub fn hold(&self, name: impl Into<String>, offset: Offset) -> Hold {
        Hold::take(self.holds(), name.into(), offset)
    }

    pub(crate) fn holds(&self) -> &Arc<Holds> {
        &self.inner.shared.holds
    }

    /// Gives back the space of records of deleted topics, and of those beyond a
    /// [limit](Options::topic_limit): rewrites each segment that holds any. Offsets stay; readers of the
    /// whole log pass over what is gone, and [`get`](Self::get) says [`ReadError::Removed`].
    ///
    /// Readers and appends go on meanwhile. One segment at a time is written anew, next to the old one,
    /// so that there must be space for the largest. Waits for the disk, and for a compaction
    /// [in the background](Options::compaction) that is at work. [`close`](Self::close) ends it early.
    ///
    /// ```
    /// use dacapo_log::{Log, Start, Topic};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// let (lobby, kitchen) = (Topic::new("lobby")?, Topic::new("kitchen")?);
    /// log.append_batch_to([(&lobby, "hello"), (&kitchen, "tea?")])?;
    /// log.delete_topic(&lobby)?;
    ///
    /// let compacted = log.compact(|progress| eprintln!("{} records", progress.checked_bytes))?;
    /// assert_eq!(compacted.records, 2); // what was deleted, and the deletion
    /// assert_eq!(log.replay(Start::Oldest).count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`CompactError`]. Nothing is lost; segments that were finished stay compacted, and one that is
    /// damaged does not keep the others from being.
    pub fn compact(&self, progress: impl FnMut(Progress)) -> Result<Compacted, CompactError> {
        let writer = self.sync_writer()?;
        writer.roll_now()?;
        writer.flush(FlushBy::Caller)?;
        writer.compact(0, progress)
    }

    /// As [`compact`](Self::compact), but of what is durable and sealed already, as in the background.
    #[cfg(any(test, simulation))]
    pub(crate) fn compact_wasted(&self, wasted_percent: u8) -> Result<Compacted, CompactError> {
        self.sync_writer()?.compact(wasted_percent, |_| ())
    }

    fn sync_writer(&self) -> Result<&Arc<Writer>, SyncError> {
        self.inner.writer.as_ref().ok_or(SyncError::ReadOnly)
    }

    /// Flushes and closes the log: also for all other handles. Appending is over; tailers read
    /// what is left and then end. Closing again does nothing.
    ///
    /// Not for a [`Waker`](std::task::Waker) to call: one runs while those who wait are locked, whom
    /// closing wakes as well, and would wait for itself. Let it wake a task that closes the log.
    ///
    /// # Errors
    /// As [`sync`](Self::sync). The log is closed all the same.
    pub fn close(&self) -> Result<(), SyncError> {
        match &self.inner.writer {
            Some(writer) => writer.close(),
            None => {
                self.inner.shared.close();
                Ok(())
            }
        }
    }

    /// Reads from `start` to the end of the log as it is now.
    ///
    /// A start that cannot be is the first item, as an error.
    pub fn replay(&self, start: Start) -> Replay {
        Replay::new(Arc::clone(&self.inner.shared), start)
    }

    /// Reads from `start`, and then follows the log live.
    ///
    /// A start that cannot be is what reading returns, as an error.
    pub fn tail(&self, start: Start) -> Tailer {
        Tailer::new(Arc::clone(&self.inner.shared), start)
    }

    /// The topics that have records, in the order of their names.
    ///
    /// ```
    /// use dacapo_log::{Log, Topic};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// for name in ["rooms:lobby", "rooms:kitchen", "users"] {
    ///     log.append_to(&Topic::new(name)?, b"hello")?;
    /// }
    /// let rooms = log.topics().prefix("rooms:");
    /// let names: Result<Vec<_>, _> = rooms.map(|found| found.map(|f| f.topic)).collect();
    /// assert_eq!(names?, [Topic::new("rooms:kitchen")?, Topic::new("rooms:lobby")?]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn topics(&self) -> Topics {
        Topics::new(Arc::clone(&self.inner.shared))
    }

    /// The last record of a topic, if it has any.
    ///
    /// Takes a look into the index of each segment, newest first, until one has the topic: of the segment
    /// that is appended to, in memory; of an older one, a few pages of a file. So the last record of a
    /// topic that is in use is found at once, and that of one that has been idle for long, or that there
    /// never was, with a look for each segment since. Nothing is kept in memory for an idle topic.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn last(&self, topic: &Topic) -> Result<Option<Record>, ReadError> {
        let shared = &self.inner.shared;
        shared.refresh()?;
        let last = topics::last_of(shared, topic)?;
        last.map(|offset| self.get(offset)).transpose()
    }

    /// How many records of a topic are at `from` or behind it: how far a consumer that handles `from`
    /// next is behind the end. By the index alone, without reading a record.
    ///
    /// Records before the topic's newest deletion do not count, nor does the deletion itself, nor do
    /// records that a compaction or the retention has removed. 0 where `from` is at the end of the log, or
    /// beyond. What is appended meanwhile may count or not.
    ///
    /// ```
    /// use dacapo_log::{Log, Offset, Topic};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// let (lobby, kitchen) = (Topic::new("lobby")?, Topic::new("kitchen")?);
    /// for topic in [&lobby, &kitchen, &lobby, &lobby] {
    ///     log.append_to(topic, b"hello")?;
    /// }
    /// assert_eq!(log.count(&lobby, Offset::ZERO)?, 3);
    ///
    /// let first = log.replay(dacapo_log::Start::Oldest).topic(&lobby).next();
    /// let next = first.ok_or("nobody has said hello")??.offset().next();
    /// assert_eq!(log.count(&lobby, next)?, 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Takes a look into the index of each segment that ends behind `from`.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] and the others where a segment has no index that can be used, and cannot be
    /// read itself. Records that are damaged in such a segment do not count.
    pub fn count(&self, topic: &Topic, from: Offset) -> Result<u64, ReadError> {
        let shared = &self.inner.shared;
        shared.refresh()?;
        topics::count_of(shared, topic, from)
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`ReadError::BeyondEnd`], [`ReadError::Pruned`], [`ReadError::Lost`] or [`ReadError::Removed`] where there is no such
    /// record.
    pub fn get(&self, offset: Offset) -> Result<Record, ReadError> {
        let shared = &self.inner.shared;
        if offset >= shared.visible.get() {
            shared.refresh()?;
        }
        let next = shared.visible.get();
        if offset >= next {
            return Err(ReadError::BeyondEnd {
                requested: offset,
                next,
            });
        }
        let mut reader = Reader::new(Arc::clone(shared), shared.resolve(Start::At(offset))?);
        // No further: what is wrong behind a removed record is not its own.
        let advanced = match reader.advance(offset.next()) {
            // Damage to the frame that begins the segment, and not to the record behind it.
            Err(ReadError::Corrupt(_)) if reader.skip_damage(next) == Some(offset) => {
                reader.advance(offset.next())
            }
            advanced => advanced,
        };
        let found = advanced?.then(|| reader.record());
        found
            .filter(|record| record.offset() == offset)
            .ok_or(ReadError::Removed { offset })
    }

    /// The offset of the first record of this time or later; behind all records where they are
    /// older, and that of the oldest one where it is later. [`Start::Since`] begins there.
    ///
    /// Timestamps never go back in a log, and have the resolution of the kernel's tick, 1 to 10 ms.
    /// Where records were lost or are damaged that may be of this time or later, it is the offset of
    /// the first of those: reading from there reports them. Reads a few records of one segment.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use dacapo_log::{Log, Offset, Start};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// let offset = log.append(b"just now")?;
    ///
    /// let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    /// assert_eq!(log.offset_at(an_hour_ago)?, offset);
    /// assert_eq!(log.replay(Start::Since(an_hour_ago)).count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ReadError::Io`] where a segment cannot be opened; in a read-only log also those of looking
    /// at its files.
    pub fn offset_at(&self, time: SystemTime) -> Result<Offset, ReadError> {
        let shared = &self.inner.shared;
        shared.refresh()?;
        shared.offset_at(clock::timestamp_at(time))
    }

    /// The offset of the oldest record that the log holds, or will.
    #[must_use]
    pub fn oldest(&self) -> Offset {
        self.inner.shared.oldest()
    }

    /// The offset that the next appended record gets. In a read-only log: as of the last look at
    /// the writing process's files, which reading takes.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.inner.shared.visible.get()
    }

    /// The offset before which all records are safe from power loss.
    #[must_use]
    pub fn durable_offset(&self) -> Offset {
        self.inner.shared.durable.get()
    }

    /// The log's epoch; see [`Checkpoint`](crate::Checkpoint).
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner.shared.epoch()
    }

    /// Whether the log was opened with [`Options::open_read_only`].
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.inner.writer.is_none()
    }

    /// The number that tells this log from every other one; drawn when it was made.
    #[must_use]
    pub fn id(&self) -> u128 {
        self.inner.shared.log_id
    }

    /// The log's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.shared.dir
    }

    /// What the log holds, and how it was last opened.
    ///
    /// # Errors
    /// [`ReadError::Io`] where `meta` or the directory cannot be read.
    pub fn status(&self) -> Result<Status, ReadError> {
        let writer = self.inner.writer.as_ref();
        let writes = writer.map(|writer| match writer.through_mapping() {
            true => WritePath::Mapped,
            false => WritePath::File,
        });
        let compaction_failure = writer.and_then(|writer| writer.compaction_failure());
        Status::of(&self.inner.shared, writes, compaction_failure)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.inner.shared.dir)
            .field("oldest", &self.oldest())
            .field("next", &self.next_offset())
            .field("durable", &self.durable_offset())
            .finish_non_exhaustive()
    }
}

/// Goes on in the segment that a closed log left unsealed.
fn resume(
    disk: &Disk,
    segments: &Segments,
    unfinished: Unfinished,
    through_mapping: bool,
) -> Result<ResumedSegment, FileError> {
    let Unfinished {
        segment: found,
        scan,
    } = unfinished;
    let file = disk.open_writable(found.file.path())?;
    let file_bytes = found.header.file_bytes;
    // A copy of the directory may have left holes, and a store into a hole can be a SIGBUS.
    if !file.allocate(file_bytes)? {
        file.write_zeroes(format::next_sector(scan.end_position) as u64, file_bytes)?;
    }
    let capacity = usize::try_from(file_bytes).expect("at most 1 GiB");
    let frontier = match through_mapping {
        true => file.map_writable(capacity, scan.end_position)?,
        false => file.map_growing(capacity, scan.end_position)?,
    };
    let (path, nonce, map) = (
        found.file.path().to_owned(),
        found.header.nonce,
        Arc::clone(frontier.map()),
    );
    let segment = Arc::new(Segment::growing(path, found.base, nonce, map, scan.index));
    segments.add_growing(file_bytes, &segment);
    let writer = SegmentWriter::new(
        segment,
        Arc::new(file),
        file_bytes,
        frontier,
        scan.end_position,
    );
    Ok(ResumedSegment {
        writer,
        first_timestamp_micros: scan.first_timestamp_micros,
        is_labelled: scan.is_labelled,
    })
}
