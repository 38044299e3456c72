//! A stored record, read in place: it borrows or keeps its mapped segment, and copies nothing.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::format;
use crate::offset::Offset;
use crate::segment::Segment;
use crate::stamp::Stamp;

/// Where a verified record lies in its segment.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) offset: Offset,
    pub(crate) timestamp_micros: u64,
    pub(crate) is_deletion: bool,
    pub(crate) is_stamped: bool,
    /// The topic's bytes stand before the payload.
    pub(crate) topic_bytes: u8,
    pub(crate) payload: Range<usize>,
}

impl Span {
    fn topic<'a>(&self, bytes: &'a [u8]) -> &'a str {
        format::topic_before(bytes, self.payload.start, self.topic_bytes)
    }

    fn stamp(&self, bytes: &[u8]) -> Option<Stamp> {
        self.is_stamped
            .then(|| format::stamp_before(bytes, self.payload.start, self.topic_bytes))
    }
}

/// One record, verified against its checksum.
///
/// The payload is not copied: the record keeps its segment mapped, however long it lives,
/// and can be cloned, kept and sent to another thread.
///
/// ```
/// use bytes::Bytes;
/// use dacapo_log::{Log, Offset};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path())?;
/// log.append(b"hello")?;
///
/// let record = log.get(Offset::ZERO)?;
/// assert_eq!(record.payload(), b"hello");
/// let bytes: Bytes = record.into(); // still no copy
/// assert_eq!(&bytes[..], b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Record {
    segment: Arc<Segment>,
    span: Span,
}

impl Record {
    pub(crate) fn new(segment: Arc<Segment>, span: Span) -> Self {
        Self { segment, span }
    }

    /// The record's place in the log.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.span.offset
    }

    /// When the record was appended, with the resolution of the kernel's tick
    /// (1 to 10 ms). Never earlier than the record before it.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        time_of(self.span.timestamp_micros)
    }

    /// [`timestamp`](Self::timestamp) in microseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_micros(&self) -> u64 {
        self.span.timestamp_micros
    }

    /// What the record is about; empty for a record without a topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.span.topic(self.segment.published())
    }

    /// Whether this record deletes all earlier ones of its topic; it has no payload then. See
    /// [`Log::delete_topic`](crate::Log::delete_topic).
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        self.span.is_deletion
    }

    /// Its producer's stamp, if it was appended with one. Of a batch, the first record has it.
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        self.span.stamp(self.segment.published())
    }

    /// The bytes that were appended.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.segment.published()[self.span.payload.clone()]
    }
}

impl AsRef<[u8]> for Record {
    fn as_ref(&self) -> &[u8] {
        self.payload()
    }
}

impl From<Record> for Bytes {
    fn from(record: Record) -> Self {
        Self::from_owner(record)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Record", &self.span)
    }
}

/// One record, verified, borrowed from the reader that stands on it.
///
/// Costs less than a [`Record`], which counts a reference to its segment.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    segment: &'a Arc<Segment>,
    span: &'a Span,
    payload: &'a [u8],
}

impl<'a> RecordRef<'a> {
    pub(crate) fn new(segment: &'a Arc<Segment>, span: &'a Span) -> Self {
        Self {
            segment,
            span,
            payload: &segment.published()[span.payload.clone()],
        }
    }

    /// The record's place in the log.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.span.offset
    }

    /// When the record was appended; see [`Record::timestamp`].
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        time_of(self.span.timestamp_micros)
    }

    /// [`timestamp`](Self::timestamp) in microseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_micros(&self) -> u64 {
        self.span.timestamp_micros
    }

    /// What the record is about; empty for a record without a topic.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.span.topic(self.segment.published())
    }

    /// Whether the record has a topic.
    #[must_use]
    pub fn has_topic(&self) -> bool {
        self.span.topic_bytes > 0
    }

    /// Whether this record deletes all earlier ones of its topic; see [`Record::is_deletion`].
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        self.span.is_deletion
    }

    /// Its producer's stamp; see [`Record::stamp`].
    #[must_use]
    pub fn stamp(&self) -> Option<Stamp> {
        self.span.stamp(self.segment.published())
    }

    /// The bytes that were appended.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The same record, to keep.
    #[must_use]
    pub fn to_record(&self) -> Record {
        Record::new(Arc::clone(self.segment), self.span.clone())
    }
}

impl fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "RecordRef", self.span)
    }
}

fn debug(f: &mut fmt::Formatter<'_>, name: &str, span: &Span) -> fmt::Result {
    f.debug_struct(name)
        .field("offset", &span.offset)
        .field("timestamp_micros", &span.timestamp_micros)
        .field("payload_bytes", &span.payload.len())
        .finish()
}

fn time_of(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}
