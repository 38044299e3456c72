//! Writing the repaired log: sealed segments, which get their names last, and `meta` behind them.
//!
//! Until then the files have names that no log has, so that what an interrupted repair leaves is
//! opened by nobody.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::FileError;
use crate::format::{self, Begin, CleanEnd, EpochStart, Footer, Frame, Kind, Meta, NewFrame};
use crate::index;
use crate::meta::MetaFile;
use crate::offset::{Epoch, Offset};
use crate::recovery;
use crate::segment;
use crate::segment_builder::SegmentBuilder;
use crate::stamp::Stamp;
use crate::topics;

/// What the name of a segment ends with, before it gets its own.
pub(super) const UNFINISHED: &str = ".repair";

pub(super) struct Target<'a> {
    disk: &'a Disk,
    dir: &'a Path,
    log_id: u128,
    epoch: Epoch,
    /// The offset behind all that was taken, records of an incomplete batch included.
    next: Offset,
    last_timestamp_micros: u64,
    open: Option<SegmentBuilder>,
    /// The next record goes into a new segment.
    rolls: bool,
    /// Records that are gone, not written yet: more may follow.
    gap: Option<Range<Offset>>,
    /// The records of a batch, until it is complete.
    batch: Vec<BatchRecord>,
    /// The bases of all segments.
    bases: Vec<Offset>,
    /// Written so far.
    records: u64,
    payload_bytes: u64,
}

struct BatchRecord {
    kind: Kind,
    timestamp_micros: u64,
    stamp: Option<Stamp>,
    topic: String,
    payload: Vec<u8>,
}

impl BatchRecord {
    fn read(frame: &Frame, bytes: &[u8]) -> Self {
        Self {
            kind: frame.kind,
            timestamp_micros: frame.timestamp_micros,
            stamp: frame.stamp(bytes),
            topic: frame.topic(bytes).to_owned(),
            payload: bytes[frame.payload.clone()].to_vec(),
        }
    }

    fn frame(&self, relative: u32) -> NewFrame<'_> {
        NewFrame {
            stamp: self.stamp,
            topic: &self.topic,
            ..NewFrame::plain(self.kind, relative, self.timestamp_micros, &self.payload)
        }
    }
}

impl<'a> Target<'a> {
    /// A log of no record yet, of which `first` is the oldest, in a directory that is there.
    pub(super) fn new(disk: &'a Disk, dir: &'a Path, first: Offset, epoch: Epoch) -> Self {
        Self {
            disk,
            dir,
            log_id: recovery::new_log_id(disk),
            epoch,
            next: first,
            last_timestamp_micros: 0,
            open: None,
            rolls: false,
            gap: None,
            batch: Vec::new(),
            bases: Vec::new(),
            records: 0,
            payload_bytes: 0,
        }
    }

    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// How many records were written.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// How many segments were begun.
    pub(super) fn segments(&self) -> usize {
        self.bases.len()
    }

    /// Lets the next record begin a segment, as in the log that is copied.
    pub(super) fn roll(&mut self) {
        self.rolls = true;
    }

    /// Takes the next record; one that continues a batch is written once the batch is complete.
    pub(super) fn record(&mut self, frame: &Frame, bytes: &[u8]) -> Result<(), FileError> {
        self.batch.push(BatchRecord::read(frame, bytes));
        self.next = self.next.next();
        if frame.continues {
            return Ok(());
        }
        self.write_batch()
    }

    /// The first record of the batch that is not complete, if there is one.
    pub(super) fn incomplete_from(&self) -> Option<Offset> {
        let records = self.batch.len() as u64;
        (records > 0).then(|| Offset::new(self.next.get() - records))
    }

    /// The batch will never be complete: what came of it is kept.
    pub(super) fn end_batch(&mut self) -> Result<(), FileError> {
        match self.batch.is_empty() {
            true => Ok(()),
            false => self.write_batch(),
        }
    }

    /// The batch will never be complete, and was never durable: nothing of it is kept.
    pub(super) fn drop_batch(&mut self) {
        self.next = self.incomplete_from().unwrap_or(self.next);
        self.batch.clear();
    }

    /// Leaves out the records up to `to`.
    pub(super) fn leave_out(&mut self, to: Offset) -> Result<(), FileError> {
        self.end_batch()?;
        let from = self.gap.take().map_or(self.next, |gap| gap.start);
        self.gap = Some(from..to);
        self.next = to;
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), FileError> {
        let batch = std::mem::take(&mut self.batch);
        let first = Offset::new(self.next.get() - batch.len() as u64);
        self.write_gap()?;
        if std::mem::take(&mut self.rolls) {
            self.seal(first)?;
        }
        let bytes = batch.iter().map(|record| record.frame(0).bytes()).sum();
        self.make_room(first, self.next, bytes)?;
        let open = self.open.as_mut().expect("there is room in it");
        let last = batch.len() - 1;
        for (i, record) in batch.iter().enumerate() {
            open.push(&NewFrame {
                continues: i < last,
                ..record.frame(open.relative(first.plus(i as u64)))
            })?;
            self.records += 1;
            self.payload_bytes += record.payload.len() as u64;
            self.last_timestamp_micros = record.timestamp_micros;
        }
        Ok(())
    }

    fn write_gap(&mut self) -> Result<(), FileError> {
        let Some(gap) = self.gap.take() else {
            return Ok(());
        };
        let bytes = format::frame_bytes(0, format::ABSENCE_PAYLOAD_BYTES);
        self.make_room(gap.start, gap.start.next(), bytes)?;
        let open = self.open.as_mut().expect("there is room in it");
        let (relative, to) = (open.relative(gap.start), gap.end.get().to_le_bytes());
        let timestamp_micros = self.last_timestamp_micros;
        open.push(&NewFrame::plain(Kind::Gap, relative, timestamp_micros, &to))
    }

    /// Copies the frame that stands for removed records up to `to`.
    pub(super) fn keep_out(
        &mut self,
        frame: &Frame,
        bytes: &[u8],
        to: Offset,
    ) -> Result<(), FileError> {
        self.end_batch()?;
        self.write_gap()?;
        if std::mem::take(&mut self.rolls) {
            self.seal(self.next)?;
        }
        let mut removed = BatchRecord::read(frame, bytes);
        removed.payload = to.get().to_le_bytes().to_vec();
        self.make_room(self.next, self.next.next(), removed.frame(0).bytes())?;
        let open = self.open.as_mut().expect("there is room in it");
        open.push(&removed.frame(open.relative(self.next)))?;
        self.next = to;
        Ok(())
    }

    /// Sees to an open segment that takes `bytes` of frames, for the offsets from `from` to `to`.
    fn make_room(&mut self, from: Offset, to: Offset, bytes: usize) -> Result<(), FileError> {
        if !self.open.as_ref().is_some_and(|open| open.fits(bytes, to)) {
            self.seal(from)?;
            self.begin(from)?;
        }
        Ok(())
    }

    fn begin(&mut self, base: Offset) -> Result<(), FileError> {
        let begin = Begin {
            base,
            epoch: self.epoch,
            durable: base,
        };
        let (path, now) = (self.unfinished(base), self.last_timestamp_micros);
        self.bases.push(base);
        self.open = Some(SegmentBuilder::create(
            self.disk,
            &path,
            self.log_id,
            &begin,
            now,
        )?);
        Ok(())
    }

    /// Completes the open segment, which ends before `next`, and makes it durable.
    fn seal(&mut self, next: Offset) -> Result<(), FileError> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        let built = open.finish(next)?;
        let Footer { base, nonce, .. } = built.footer;
        // Best effort: without the file, whoever needs the index rebuilds it.
        let _ = index::store(self.disk, self.dir, base, nonce, &built.points);
        Ok(())
    }

    /// Gives the files their names, and the log its `meta`: durable, and closed cleanly.
    pub(super) fn finish(
        &mut self,
        first: Offset,
        epochs: Vec<EpochStart>,
    ) -> Result<(), FileError> {
        self.write_gap()?;
        self.seal(self.next)?;
        for &base in &self.bases {
            let mut file = self.disk.open(&self.unfinished(base))?;
            file.rename(&segment::path(self.dir, base))?;
        }
        // Before there is a `meta` that speaks of them.
        self.disk.sync_dir(self.dir)?;
        let clean = CleanEnd {
            base: self.next,
            end_position: 0,
            next: self.next,
        };
        let meta = Meta {
            log_id: self.log_id,
            sequence: 1,
            first,
            durable: self.next,
            clean: Some(clean),
            epochs,
        };
        MetaFile::create(self.disk, self.dir, meta)?;
        self.disk.sync_own_name(self.dir)
    }

    /// Removes what was written, as far as that works.
    pub(super) fn discard(&self) {
        // First what makes it a log.
        let _ = self.disk.remove(&self.dir.join(crate::meta::META_FILE));
        for name in recovery::TEMPORARIES {
            let _ = self.disk.remove(&self.dir.join(name));
        }
        for &base in &self.bases {
            for path in [
                self.unfinished(base),
                segment::path(self.dir, base),
                index::path(self.dir, base),
                topics::path(self.dir, base),
            ] {
                let _ = self.disk.remove(&path);
            }
        }
    }

    fn unfinished(&self, base: Offset) -> PathBuf {
        self.dir.join(format!("{base:020}{UNFINISHED}"))
    }
}
