//! Appending: the one place that writes records. Frames go into the active segment, and where they
//! do not fit, on in the next one.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{SEGMENT_OVERHEAD_BYTES, Writer};
use crate::clock;
use crate::disk::DiskFile;
use crate::error::{AppendError, FileError};
use crate::format::{self, Begin, Footer, Kind, NewFrame};
use crate::guard::{self, Guard};
use crate::log::Shared;
use crate::offset::Offset;
use crate::prepare::Size;
use crate::scan;
use crate::segment::{self, Segment};
use crate::segment_writer::{SegmentWriter, Way};
use crate::stamp::Stamp;
use crate::topic::Topic;

/// What one append changes.
pub(super) struct Appender {
    /// `None` until the first record: an opened log creates no segment ahead of need.
    pub(super) segment: Option<Active>,
    pub(super) next: Offset,
    pub(super) last_timestamp_micros: u64,
    /// The size of the last segment that was filled.
    pub(super) filled_bytes: u64,
    /// Sealed, and not synced since.
    pub(super) unsynced: Vec<Arc<DiskFile>>,
    /// A segment got its name, and the directory was not synced since.
    pub(super) names_changed: bool,
    /// The flusher knows that there is something to flush.
    pub(super) flush_scheduled: bool,
    /// Bytes of frames since the last flush.
    pub(super) unflushed_bytes: usize,
    /// Somebody waited for the last flush, and it was a small one.
    pub(super) flushes_are_awaited: bool,
    /// What was appended before is flushed, and nothing is appended after.
    pub(super) closing: bool,
}

/// What is to become a record.
#[derive(Clone, Copy)]
pub(crate) struct NewRecord<'a> {
    pub(crate) kind: Kind,
    pub(crate) topic: Option<&'a Topic>,
    pub(crate) payload: &'a [u8],
}

impl<'a> NewRecord<'a> {
    #[inline]
    pub(crate) fn new(topic: Option<&'a Topic>, payload: &'a [u8]) -> Self {
        Self {
            kind: Kind::Record,
            topic,
            payload,
        }
    }

    pub(crate) fn deletion_of(topic: &'a Topic) -> Self {
        Self {
            kind: Kind::Deletion,
            topic: Some(topic),
            payload: &[],
        }
    }

    #[inline]
    fn topic_name(&self) -> &'a str {
        self.topic.map_or("", Topic::as_str)
    }

    #[inline]
    fn frame_bytes(&self, stamped: bool) -> usize {
        let label_bytes = format::label_bytes(stamped, self.topic_name().len());
        format::frame_bytes(label_bytes, self.payload.len())
    }
}

impl Appender {
    /// The way for the next `total` bytes: what is soon synced goes through the file.
    #[inline]
    fn way(&mut self, total: usize) -> Way {
        self.unflushed_bytes = self.unflushed_bytes.saturating_add(total);
        match self.flushes_are_awaited && self.unflushed_bytes <= SMALL_FLUSH_BYTES {
            true => Way::File,
            false => Way::Mapping,
        }
    }
}

/// Up to so many bytes, a sync takes longer where they were stored through the mapping than writing
/// them through the file does: see "Findings" in docs/architecture.md.
pub(super) const SMALL_FLUSH_BYTES: usize = 64 << 10;

/// The segment that is appended to.
pub(super) struct Active {
    pub(super) writer: SegmentWriter,
    pub(super) first_timestamp_micros: u64,
    /// Some of its frames have a topic or a stamp.
    pub(super) is_labelled: bool,
    /// No record here has this offset, or one behind it: its relative offset would not fit.
    offsets_end: Offset,
    /// Behind this position, the next record gets a point in the index.
    pub(super) indexed_to: usize,
    /// Behind this position, the next segment is made ready.
    pub(super) prepare_from: usize,
    pub(super) prepare_ordered: bool,
    /// Its footer is written: nothing may follow in it.
    pub(super) sealed: bool,
}

impl Writer {
    /// Appends records as one unit; a stamp goes with the first one.
    #[inline]
    pub(crate) fn append<'a>(
        &self,
        records: impl ExactSizeIterator<Item = NewRecord<'a>> + Clone,
        stamp: Option<Stamp>,
    ) -> Result<Range<Offset>, AppendError> {
        let appended = self.append_unannounced(records.clone(), stamp);
        self.announce(&appended, records);
        appended
    }

    /// As [`append`](Self::append), for one who holds a lock: [`announce`](Self::announce) is left to
    /// them.
    #[inline]
    pub(super) fn append_unannounced<'a>(
        &self,
        records: impl ExactSizeIterator<Item = NewRecord<'a>> + Clone,
        stamp: Option<Stamp>,
    ) -> Result<Range<Offset>, AppendError> {
        let total: usize = records
            .clone()
            .enumerate()
            .map(|(i, record)| record.frame_bytes(i == 0 && stamp.is_some()))
            .sum();
        let max = self.batch_bytes_max();
        if total > max {
            return Err(AppendError::TooLarge {
                bytes: total as u64,
                max: max as u64,
            });
        }
        self.append_locked(&mut self.appender(), records, stamp, total)
    }

    /// Wakes those whom an append of these records concerns.
    #[inline]
    pub(super) fn announce<'a>(
        &self,
        appended: &Result<Range<Offset>, AppendError>,
        records: impl Iterator<Item = NewRecord<'a>>,
    ) {
        match appended {
            Ok(_) if self.shared.visible.announce() => self.tell(records),
            Ok(_) => {}
            Err(AppendError::Poisoned { .. }) => self.shared.durable.wake(),
            Err(_) => {}
        }
    }

    /// Whether records may still be appended at all.
    #[inline]
    pub(super) fn check_accepts(&self, appender: &Appender) -> Result<(), AppendError> {
        if let Some(cause) = self.poison.get() {
            return Err(AppendError::Poisoned {
                cause: Arc::clone(cause),
            });
        }
        match appender.closing {
            true => Err(AppendError::Closed),
            false => Ok(()),
        }
    }

    /// Wakes those who wait for records of the topics that were appended to.
    #[cold]
    fn tell<'a>(&self, records: impl Iterator<Item = NewRecord<'a>>) {
        let waiters = self.shared.visible.topics();
        for topic in records.filter_map(|record| record.topic) {
            waiters.wake(topic.as_str().as_bytes(), topic.name_hash());
        }
    }

    #[inline]
    fn append_locked<'a>(
        &self,
        appender: &mut Appender,
        records: impl ExactSizeIterator<Item = NewRecord<'a>> + Clone,
        stamp: Option<Stamp>,
        total: usize,
    ) -> Result<Range<Offset>, AppendError> {
        self.check_accepts(appender)?;
        let first = appender.next;
        if records.len() == 0 {
            return Ok(first..first);
        }
        let next = first.plus(records.len() as u64);
        if !appender
            .segment
            .as_ref()
            .is_some_and(|active| active.writer.fits(total) && next <= active.offsets_end)
        {
            self.roll(appender, total, next)?;
        }
        let way = appender.way(total);
        let active = appender
            .segment
            .as_mut()
            .expect("there is one behind a roll");
        let now = clock::now_micros().max(appender.last_timestamp_micros);
        let relative = active.segment().relative(first);
        let start = active.writer.position();
        active.writer.go_by(way);
        if let Err(cause) = active
            .writer
            .write(frames(records.clone(), stamp, relative, now), total)
        {
            return Err(self.failed_write(cause));
        }
        active.is_labelled |= stamp.is_some() || records.clone().any(|r| r.topic.is_some());
        if start >= active.indexed_to || total >= scan::INDEX_STRIDE_BYTES {
            active.index(records, stamp, relative, start);
        }
        if active.first_timestamp_micros == 0 {
            active.first_timestamp_micros = now;
        }
        appender.last_timestamp_micros = now;
        appender.next = next;
        self.shared.visible.raise(next);
        if active.writer.position() >= active.prepare_from && !active.prepare_ordered {
            active.prepare_ordered = true;
            let wanted_bytes = self.next_segment_bytes(active.writer.file_bytes());
            self.preparer.order(Size {
                wanted_bytes,
                least_bytes: format::SEGMENT_BYTES_MIN,
            });
        }
        if !appender.flush_scheduled {
            appender.flush_scheduled = true;
            self.flusher.schedule();
        }
        Ok(first..next)
    }

    /// Segments start small and double.
    fn next_segment_bytes(&self, filled_bytes: u64) -> u64 {
        (filled_bytes * 2).clamp(
            self.options.segment_bytes_min,
            self.options.segment_bytes_max,
        )
    }

    /// Goes on in a new segment, in which `total` bytes of frames, up to the record `next`, fit. On an
    /// error no record has changed, and the next append tries again.
    #[cold]
    pub(super) fn roll(
        &self,
        appender: &mut Appender,
        total: usize,
        next: Offset,
    ) -> Result<(), AppendError> {
        if next.get() >= format::OFFSETS_END {
            let next = appender.next;
            return Err(AppendError::NoOffsetsLeft { next });
        }
        let filled_bytes = appender
            .segment
            .as_ref()
            .map_or(appender.filled_bytes, |a| a.writer.file_bytes());
        let least = (SEGMENT_OVERHEAD_BYTES + total).next_multiple_of(format::PAGE_BYTES);
        let size = Size {
            wanted_bytes: self.next_segment_bytes(filled_bytes),
            least_bytes: (least as u64).max(format::SEGMENT_BYTES_MIN),
        };
        let prepared = self.preparer.take(size).map_err(refused)?;
        let base = appender.next;
        let path = segment::path(&self.shared.dir, base);
        let nonce = prepared.header.nonce;
        let map = Arc::clone(prepared.frontier.map());
        let segment = Arc::new(Segment::growing(path.clone(), base, nonce, map, Vec::new()));
        let mut writer = SegmentWriter::new(
            Arc::clone(&segment),
            Arc::new(prepared.file),
            prepared.header.file_bytes,
            prepared.frontier,
            format::FRAMES_START,
        );
        let begin = Begin {
            base,
            epoch: self.shared.epoch(),
            durable: self.shared.durable.get(),
        };
        let now = clock::now_micros().max(appender.last_timestamp_micros);
        writer.begin(&begin, now).map_err(refused)?;
        // The name comes last: other processes look for it once they have seen the footer.
        self.seal(appender)
            .map_err(|cause| self.failed_write(cause))?;
        // An active segment without a record has this very name; the new file takes its place.
        writer.rename(&path).map_err(refused)?;
        let filled = appender.segment.as_ref().map(Active::segment);
        self.shared
            .segments
            .go_on_in(writer.file_bytes(), &segment, filled);
        appender.names_changed = true;
        if let Some(filled) = appender.segment.replace(Active::new(writer, 0, false)) {
            appender.filled_bytes = filled.writer.file_bytes();
            self.rolled.store(true, Relaxed);
            self.flusher.request();
        }
        Ok(())
    }

    /// Writes the footer of the active segment, if it holds a record and has none.
    pub(super) fn seal(&self, appender: &mut Appender) -> Result<(), FileError> {
        let Some(active) = &mut appender.segment else {
            return Ok(());
        };
        if active.segment().base() == appender.next || active.sealed {
            return Ok(());
        }
        let footer = active.footer(appender.next, appender.last_timestamp_micros, &self.shared);
        active.writer.seal(&footer)?;
        active.sealed = true;
        appender.unsynced.push(Arc::clone(active.writer.file()));
        self.shared.segments.seal(active.segment(), footer);
        let order = (Arc::clone(active.segment()), active.is_labelled);
        self.shared.order_index(&order.0, order.1);
        Ok(())
    }

    /// A write to the active segment failed, by way of the file. A full disk has left nothing
    /// committed, and the segment behind (see `SegmentWriter`); anything else is final.
    fn failed_write(&self, cause: FileError) -> AppendError {
        if cause.is_storage_full() {
            return refused(cause);
        }
        AppendError::Poisoned {
            cause: self.poison(cause),
        }
    }
}

impl Active {
    pub(super) fn new(
        writer: SegmentWriter,
        first_timestamp_micros: u64,
        is_labelled: bool,
    ) -> Self {
        let prepare_from = usize::try_from(writer.file_bytes() / 2).expect("at most 1 GiB");
        let indexed_to = writer.position();
        let offsets_end = writer.segment().base().plus(u32::MAX.into());
        Self {
            writer,
            first_timestamp_micros,
            is_labelled,
            offsets_end: offsets_end.min(Offset::new(format::OFFSETS_END - 1)),
            indexed_to,
            prepare_from,
            prepare_ordered: false,
            sealed: false,
        }
    }

    #[inline]
    pub(super) fn segment(&self) -> &Arc<Segment> {
        self.writer.segment()
    }

    pub(super) fn footer(
        &self,
        next: Offset,
        last_timestamp_micros: u64,
        shared: &Shared,
    ) -> Footer {
        Footer {
            base: self.segment().base(),
            next,
            end_position: u32::try_from(self.writer.position()).expect("at most 1 GiB"),
            nonce: self.segment().nonce(),
            first_timestamp_micros: self.first_timestamp_micros,
            last_timestamp_micros,
            epoch: shared.epoch(),
            gaps: 0, // only a repair writes them
        }
    }

    /// Gives the records of one append their points in the index.
    pub(super) fn index<'a>(
        &mut self,
        records: impl Iterator<Item = NewRecord<'a>>,
        stamp: Option<Stamp>,
        first: u32,
        start: usize,
    ) {
        let mut position = start;
        for (relative, record) in (first..).zip(records) {
            if position >= self.indexed_to {
                self.segment()
                    .add_index_point(scan::point(relative, position));
                self.indexed_to = position + scan::INDEX_STRIDE_BYTES;
            }
            position += record.frame_bytes(relative == first && stamp.is_some());
        }
    }
}

#[inline]
fn frames<'a>(
    records: impl ExactSizeIterator<Item = NewRecord<'a>>,
    stamp: Option<Stamp>,
    first: u32,
    timestamp_micros: u64,
) -> impl Iterator<Item = NewFrame<'a>> {
    let mut left = records.len();
    let mut relative = first;
    // No zip of iterators: each frame would be stored, and loaded again, which takes longer than a sum.
    records.map(move |record| {
        let is_first = relative == first;
        left -= 1;
        relative += 1;
        NewFrame {
            kind: record.kind,
            continues: left > 0 && guard::stands(Guard::BatchEndMark),
            relative: relative - 1,
            timestamp_micros,
            stamp: stamp.filter(|_| is_first),
            topic: record.topic_name(),
            payload: record.payload,
        }
    })
}

/// An append that failed without leaving anything behind.
fn refused(failure: FileError) -> AppendError {
    let full = failure.is_storage_full();
    let source = Arc::new(failure);
    if full {
        AppendError::StorageFull { source }
    } else {
        AppendError::Prepare { source }
    }
}
