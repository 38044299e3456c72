//! Replaying, and then following: waiting for the next record, on any async runtime or on none.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_core::Stream;

use crate::arrival::{Arrival, Listening};
use crate::error::ReadError;
use crate::log::Shared;
use crate::offset::{Checkpoint, Offset, Start};
use crate::reader::Reader;
use crate::record::{Record, RecordRef};
use crate::topic::Topic;
use crate::topics::{self, Registration};
use crate::watermark::Watermark;

/// A reader that follows the log live; made by [`Log::tail`](crate::Log::tail).
///
/// It first replays what is there, and then waits for each further record; there is no gap and
/// no duplicate at the seam. Once the log is closed and everything in it was read, reading returns
/// [`ReadError::Closed`], and the [`Stream`] ends.
///
/// A tailer keeps reading, but not appending, alive: dropping the last [`Log`](crate::Log) handle
/// closes the log under it.
///
/// ```
/// use dacapo_log::{Log, Start};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path())?;
/// log.append(b"before")?;
/// let mut tailer = log.tail(Start::Oldest);
///
/// futures_lite::future::block_on(async {
///     assert_eq!(tailer.next().await?.payload(), b"before");
///     log.append(b"live")?;
///     assert_eq!(tailer.next().await?.payload(), b"live");
///     Ok(())
/// })
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a tailer reads nothing until it is asked"]
pub struct Tailer {
    reader: Reader,
    durable_only: bool,
    /// Where the log ended when it was last looked at.
    limit: Offset,
    /// A start that cannot be; reported for as long as it is asked.
    refused: Option<ReadError>,
    /// Of a tailer of topics that has waited.
    registration: Option<Registration>,
    /// Of a wait that has begun.
    arrival: Option<Arrival>,
}

impl Tailer {
    pub(crate) fn new(shared: Arc<Shared>, start: Start) -> Self {
        let (reader, refused) = start_reading(shared, start);
        Self {
            reader,
            durable_only: false,
            limit: Offset::ZERO,
            refused,
            registration: None,
            arrival: None,
        }
    }

    /// Goes on from `start` instead, with the same topics. A start that cannot be is what reading
    /// returns, as an error.
    ///
    /// ```
    /// use dacapo_log::{Log, Start};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// log.append_batch(["one", "two"])?;
    /// let mut tailer = log.tail(Start::Latest);
    /// tailer.seek(Start::Oldest);
    /// assert_eq!(tailer.next_blocking()?.payload(), b"one");
    /// # Ok(())
    /// # }
    /// ```
    pub fn seek(&mut self, start: Start) {
        let (mut reader, refused) = start_reading(Arc::clone(self.reader.shared()), start);
        if let Some(filter) = self.reader.filter() {
            reader.select(|selected| selected.clone_from(filter));
        }
        self.reader = reader;
        self.limit = Offset::ZERO;
        self.refused = refused;
    }

    /// Reads durable records only: never one that a power cut could undo.
    pub fn durable_only(mut self) -> Self {
        self.forget_waiting();
        self.durable_only = true;
        self.limit = Offset::ZERO;
        self
    }

    /// Reads records also that are not durable yet, as it does without
    /// [`durable_only`](Self::durable_only).
    ///
    /// ```
    /// use dacapo_log::{Flush, Log, Start};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::options().flush(Flush::OnDemand).open(dir.path())?;
    /// log.append(b"not safe yet")?;
    /// let mut tailer = log.tail(Start::Oldest).durable_only();
    /// assert!(tailer.try_next()?.is_none());
    /// assert!(tailer.clone().all_visible().try_next()?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn all_visible(mut self) -> Self {
        self.forget_waiting();
        self.durable_only = false;
        self.limit = Offset::ZERO;
        self
    }

    /// Whether it reads [durable records only](Self::durable_only).
    #[must_use]
    pub fn is_durable_only(&self) -> bool {
        self.durable_only
    }

    /// Reads the records of `topic` only, without reading the others; asked for several topics, those
    /// of all of them.
    ///
    /// A topic begins anew when it is deleted: [`Start::Oldest`] begins behind the deletion, and a
    /// reader that had come less far gets the deletion as a record, unless a compaction has removed it
    /// already, and nothing from before it.
    pub fn topic(mut self, topic: &Topic) -> Self {
        self.forget_waiting();
        self.reader.select(|filter| filter.add_topic(topic));
        self
    }

    /// As [`topic`](Self::topic), for all topics whose names begin with `prefix`.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.forget_waiting();
        self.reader.select(|filter| filter.add_prefix(prefix));
        self
    }

    /// What it waits for is about to change.
    fn forget_waiting(&mut self) {
        self.arrival = None;
        self.registration = None;
    }

    /// The offset of the next record, or, of a reader of topics, one before which it has seen all.
    /// Where the start cannot be, the one at which reading could go on: the oldest record for one that
    /// was dropped, and what [`Rewound`](ReadError::Rewound) and [`BeyondEnd`](ReadError::BeyondEnd) say.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.reader.next_offset()
    }

    /// The position behind the last record read, to resume from in another process.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.reader.checkpoint()
    }

    /// How many records that it reads are still before it, as of now. Of a reader of topics, by their
    /// index, as [`Log::count`](crate::Log::count); otherwise by their offsets, those included that a
    /// compaction has removed, and not those that were dropped.
    ///
    /// # Errors
    /// As [`Log::count`](crate::Log::count).
    pub fn remaining(&self) -> Result<u64, ReadError> {
        let (shared, next) = (self.reader.shared(), self.reader.next_offset());
        shared.refresh()?;
        match self.reader.filter() {
            None => Ok(shared.visible.get().since(next.max(shared.oldest()))),
            Some(filter) => topics::remaining_of(shared, filter, next),
        }
    }

    fn watermark(&self) -> &Watermark {
        self.reader.shared().watermark(self.durable_only)
    }

    /// The next record, if it is there already.
    ///
    /// # Errors
    /// See [`ReadError`]. The tailer stays where it was; behind damage it goes on with
    /// [`skip_damage`](Self::skip_damage), and behind [`Lost`](ReadError::Lost) records by itself, as
    /// behind dropped ones if it began with [`Start::AtOrOldest`].
    pub fn try_next(&mut self) -> Result<Option<Record>, ReadError> {
        Ok(self.advance()?.then(|| self.reader.record()))
    }

    /// As [`try_next`](Self::try_next), borrowed: without counting a reference to the record's segment.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    #[inline]
    pub fn try_next_ref(&mut self) -> Result<Option<RecordRef<'_>>, ReadError> {
        Ok(self.advance()?.then(|| self.reader.record_ref()))
    }

    #[inline]
    fn advance(&mut self) -> Result<bool, ReadError> {
        // Behind what was there at the last look, others need not be asked.
        if self.reader.next_offset() < self.limit && self.reader.advance(self.limit)? {
            return Ok(true);
        }
        self.advance_to_new()
    }

    /// Looks where the log ends now.
    fn advance_to_new(&mut self) -> Result<bool, ReadError> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        // Before the look at the end: what is appended before the closing is read.
        let closed = self.reader.shared().is_closed();
        self.limit = self.watermark().get();
        if self.reader.next_offset() >= self.limit {
            self.reader.shared().refresh()?;
            self.limit = self.watermark().get();
        }
        match self.reader.advance(self.limit)? {
            true => Ok(true),
            false if closed => Err(ReadError::Closed),
            false => Ok(false),
        }
    }

    /// Waits for the next record. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    pub async fn next(&mut self) -> Result<Record, ReadError> {
        poll_fn(|cx| self.poll_record(cx)).await
    }

    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<Record, ReadError>> {
        loop {
            if let Some(record) = self.try_next().transpose() {
                self.arrival = None;
                return Poll::Ready(record);
            }
            match &mut self.arrival {
                // Look again: a record may have landed before we began to listen.
                None => self.arrival = Some(self.arrival()),
                Some(arrival) => {
                    ready!(Pin::new(arrival).poll(cx));
                    self.arrival = None;
                }
            }
        }
    }

    /// Waits for the next record, blocking the thread.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    pub fn next_blocking(&mut self) -> Result<Record, ReadError> {
        loop {
            if let Some(record) = self.try_next()? {
                return Ok(record);
            }
            let arrival = self.arrival();
            // Look again: a record may have landed before we began to listen.
            if let Some(record) = self.try_next()? {
                return Ok(record);
            }
            arrival.wait();
        }
    }

    /// As [`next_blocking`](Self::next_blocking), for at most `timeout`: `None` if nothing came.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Record>, ReadError> {
        let Some(deadline) = Instant::now().checked_add(timeout) else {
            return self.next_blocking().map(Some);
        };
        loop {
            if let Some(record) = self.try_next()? {
                return Ok(Some(record));
            }
            let arrival = self.arrival();
            // Look again: a record may have landed before we began to listen.
            if let Some(record) = self.try_next()? {
                return Ok(Some(record));
            }
            if !arrival.wait_until(deadline) {
                return self.try_next();
            }
        }
    }

    /// Begins to listen for what this tailer reads; look again with [`try_next`](Self::try_next)
    /// before waiting. For those who wait beside other events, or for a tailer that they share:
    /// everybody else waits with [`next`](Self::next).
    pub fn arrival(&mut self) -> Arrival {
        let listening = match self.reader.filter() {
            None => Listening::All(self.watermark().moved()),
            Some(filter) => {
                let (shared, durable_only) = (self.reader.shared(), self.durable_only);
                let registration = self
                    .registration
                    .get_or_insert_with(|| Registration::new(shared, durable_only, filter));
                Listening::Topics(registration.listen())
            }
        };
        self.reader.shared().watch();
        Arrival::new(listening)
    }

    /// After [`ReadError::Corrupt`] or [`ReadError::SegmentMissing`]: moves behind the damage, and
    /// returns the offset of the next record that is sound or still to come. Not needed after
    /// [`ReadError::Lost`], and does nothing then, nor for a start that cannot be.
    pub fn skip_damage(&mut self) -> Offset {
        if self.reader.is_behind_gap() || self.refused.is_some() {
            return self.reader.next_offset();
        }
        let limit = self.watermark().get();
        if self.reader.next_offset() >= limit {
            self.reader.shared().give_up_last_segment();
        }
        self.reader.skip_damage(limit).unwrap_or(limit)
    }
}

/// A reader at `start`, or what keeps it from there.
fn start_reading(shared: Arc<Shared>, start: Start) -> (Reader, Option<ReadError>) {
    // What keeps a read-only log from seeing its end is met when it is read.
    let _ = shared.refresh();
    let (next, refused) = match shared.resolve(start) {
        Ok(next) => (next, None),
        Err(error) => (behind_refusal(&shared, &error), Some(error)),
    };
    let mut reader = Reader::new(shared, next);
    reader.begins_anew(start == Start::Oldest);
    reader.passes_pruned(matches!(start, Start::AtOrOldest(_)));
    (reader, refused)
}

/// Where to go on behind a start that cannot be: whoever keeps this position, before being told or
/// after, skips nothing.
fn behind_refusal(shared: &Shared, refused: &ReadError) -> Offset {
    match *refused {
        ReadError::BeyondEnd { next, .. } => next,
        ReadError::Rewound { resume_at, .. } => resume_at.max(shared.oldest()),
        _ => shared.oldest(),
    }
}

/// Another reader of the same records, at the same place.
impl Clone for Tailer {
    fn clone(&self) -> Self {
        Self {
            reader: self.reader.clone(),
            durable_only: self.durable_only,
            limit: self.limit,
            refused: self.refused.clone(),
            registration: None,
            arrival: None,
        }
    }
}

impl Stream for Tailer {
    type Item = Result<Record, ReadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(self.get_mut().poll_record(cx)) {
            Err(ReadError::Closed) => Poll::Ready(None),
            record => Poll::Ready(Some(record)),
        }
    }
}
