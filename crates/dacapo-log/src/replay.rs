//! Reading from a place in the log to its end as of now.

use std::sync::Arc;

use crate::error::ReadError;
use crate::log::Shared;
use crate::offset::{Checkpoint, Offset, Start};
use crate::reader::Reader;
use crate::record::{Record, RecordRef};
use crate::topic::Topic;

/// An iterator over the records from a start to the end of the log as of its making.
///
/// Made by [`Log::replay`](crate::Log::replay). Each record is verified when it is read. After an
/// error the iterator ends; behind damage it goes on with [`skip_damage`](Self::skip_damage), and
/// behind [`Lost`](ReadError::Lost) records by itself, as behind dropped ones if it began with
/// [`Start::AtOrOldest`].
#[derive(Debug)]
#[must_use = "a replay reads nothing until it is iterated"]
pub struct Replay {
    reader: Reader,
    end: Offset,
    /// A start that cannot be; reported first.
    refused: Option<ReadError>,
    /// What keeps a read-only log from seeing its end; reported last.
    trouble: Option<ReadError>,
    failed: bool,
}

impl Replay {
    pub(crate) fn new(shared: Arc<Shared>, start: Start) -> Self {
        let trouble = shared.refresh().err();
        let end = shared.visible.get();
        let (next, refused) = match shared.resolve(start) {
            Ok(next) => (next, None),
            Err(error) => (end, Some(error)),
        };
        let mut reader = Reader::new(shared, next);
        reader.begins_anew(start == Start::Oldest);
        reader.passes_pruned(matches!(start, Start::AtOrOldest(_)));
        Self {
            reader,
            end,
            refused,
            trouble,
            failed: false,
        }
    }

    /// Leaves out what a power cut could still undo: ends at the durable watermark as of now.
    pub fn durable_only(mut self) -> Self {
        self.end = self.end.min(self.reader.shared().durable.get());
        self
    }

    /// Reads the records of `topic` only, without reading the others; asked for several topics, those
    /// of all of them.
    ///
    /// A topic begins anew when it is deleted: [`Start::Oldest`] begins behind the deletion, and a
    /// reader that had come less far gets the deletion as a record, and nothing from before it.
    ///
    /// ```
    /// use dacapo_log::{Log, Start, Topic};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// let (lobby, kitchen) = (Topic::new("rooms:lobby")?, Topic::new("rooms:kitchen")?);
    /// log.append_batch_to([(&lobby, "hello"), (&kitchen, "tea?"), (&lobby, "bye")])?;
    ///
    /// assert_eq!(log.replay(Start::Oldest).topic(&lobby).count(), 2);
    /// assert_eq!(log.replay(Start::Oldest).prefix("rooms:").count(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn topic(mut self, topic: &Topic) -> Self {
        self.reader.select(|filter| filter.add_topic(topic));
        self
    }

    /// As [`topic`](Self::topic), for all topics whose names begin with `prefix`.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.reader.select(|filter| filter.add_prefix(prefix));
        self
    }

    /// The offset of the next record, or, of a reader of topics, one before which it has seen all.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.reader.next_offset()
    }

    /// The offset before which this replay ends.
    #[must_use]
    pub fn end_offset(&self) -> Offset {
        self.end
    }

    /// The position behind the last record read, to resume from in another process.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.reader.checkpoint()
    }

    /// The next record, borrowed: without counting a reference to its segment, as the iterator's
    /// [`Record`] does.
    ///
    /// ```
    /// use dacapo_log::{Log, Start};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path())?;
    /// log.append_batch([b"one", b"two"])?;
    ///
    /// let (mut bytes, mut replay) = (0, log.replay(Start::Oldest));
    /// while let Some(record) = replay.next_ref() {
    ///     bytes += record?.payload().len();
    /// }
    /// assert_eq!(bytes, 6);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn next_ref(&mut self) -> Option<Result<RecordRef<'_>, ReadError>> {
        match self.advance() {
            Ok(true) => Some(Ok(self.reader.record_ref())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    #[inline]
    fn advance(&mut self) -> Result<bool, ReadError> {
        if self.failed {
            return Ok(false);
        }
        if let Some(refused) = self.refused.take() {
            self.failed = true;
            return Err(refused);
        }
        // An error is large: where there is none, nothing moves it about.
        match self.reader.advance(self.end) {
            Ok(true) => Ok(true),
            Ok(false) => match self.trouble.take() {
                None => Ok(false),
                Some(trouble) => {
                    self.failed = true;
                    Err(trouble)
                }
            },
            Err(error) => {
                self.failed = !self.reader.is_behind_gap();
                Err(error)
            }
        }
    }

    /// After [`ReadError::Corrupt`] or [`ReadError::SegmentMissing`]: moves behind the damage, and
    /// returns the offset of the next sound record, or `None` if there is none. What lies between
    /// is lost to this replay. Not needed after [`ReadError::Lost`], and does nothing then.
    pub fn skip_damage(&mut self) -> Option<Offset> {
        self.failed = false;
        self.reader.skip_damage(self.end)
    }

    pub(crate) fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }
}

impl Iterator for Replay {
    type Item = Result<Record, ReadError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.advance() {
            Ok(true) => Some(Ok(self.reader.record())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.since(self.reader.next_offset());
        (0, usize::try_from(left.saturating_add(1)).ok())
    }
}
