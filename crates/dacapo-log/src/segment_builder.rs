//! Writing a sealed segment from front to back, durable but for its name: what a repair and a
//! compaction make.

use std::path::Path;

use crate::clock;
use crate::disk::{Disk, DiskFile};
use crate::error::FileError;
use crate::format::{self, Begin, Footer, IndexPoint, Kind, NewFrame, PAGE_BYTES, SegmentHeader};
use crate::offset::{Epoch, Offset};
use crate::scan;
use crate::segment_writer;

/// Written at a time.
const PIECE_BYTES: usize = 1 << 20;
/// No frame of a segment ends behind this.
const POSITION_MAX: u64 = format::SEGMENT_BYTES_MAX - format::FOOTER_PAGE_BYTES as u64;

pub(crate) struct SegmentBuilder {
    file: DiskFile,
    log_id: u128,
    epoch: Epoch,
    base: Offset,
    nonce: u32,
    /// Encoded, and not written yet.
    piece: Vec<u8>,
    /// Where the next frame goes.
    position: usize,
    first_timestamp_micros: u64,
    last_timestamp_micros: u64,
    gaps: u32,
    points: Vec<IndexPoint>,
    indexed_to: usize,
}

/// A whole segment file, synced, still under the name that it was built with.
pub(crate) struct Built {
    pub(crate) file: DiskFile,
    pub(crate) file_bytes: u64,
    pub(crate) footer: Footer,
    pub(crate) points: Vec<IndexPoint>,
}

impl SegmentBuilder {
    /// Begins a segment in a new file at `path`. All records before `begin.durable` are durable.
    pub(crate) fn create(
        disk: &Disk,
        path: &Path,
        log_id: u128,
        begin: &Begin,
        now: u64,
    ) -> Result<Self, FileError> {
        let mut builder = Self {
            file: disk.create(path)?,
            log_id,
            epoch: begin.epoch,
            base: begin.base,
            nonce: disk.random_u32(),
            piece: Vec::new(),
            position: format::FRAMES_START,
            first_timestamp_micros: 0,
            last_timestamp_micros: now,
            gaps: 0,
            points: Vec::new(),
            indexed_to: 0,
        };
        builder.push(&NewFrame::plain(Kind::Begin, 0, now, &begin.encode()))?;
        Ok(builder)
    }

    pub(crate) fn relative(&self, offset: Offset) -> u32 {
        u32::try_from(offset.since(self.base)).expect("there was room for it")
    }

    /// Whether `bytes` of frames for the offsets before `to` still fit.
    pub(crate) fn fits(&self, bytes: usize, to: Offset) -> bool {
        let end = (self.position + bytes) as u64;
        end <= POSITION_MAX && to.since(self.base) < u64::from(u32::MAX)
    }

    /// Writes the next frame.
    pub(crate) fn push(&mut self, frame: &NewFrame<'_>) -> Result<(), FileError> {
        if frame.kind.is_record() {
            if self.position >= self.indexed_to {
                self.points.push(scan::point(frame.relative, self.position));
                self.indexed_to = self.position + scan::INDEX_STRIDE_BYTES;
            }
            if self.first_timestamp_micros == 0 {
                self.first_timestamp_micros = frame.timestamp_micros;
            }
            self.last_timestamp_micros = frame.timestamp_micros;
        }
        self.gaps += u32::from(frame.kind == Kind::Gap);
        let start = self.piece.len();
        self.piece.resize(start + frame.bytes(), 0);
        let into = &mut self.piece[start..];
        let word = frame.encode(self.nonce, &mut into[8..]);
        into[..8].copy_from_slice(&word.to_le_bytes());
        self.position += frame.bytes();
        if self.piece.len() >= PIECE_BYTES {
            self.write_piece()?;
        }
        Ok(())
    }

    /// Says when the first and the last record were appended, though they may be gone.
    pub(crate) fn set_timestamps(&mut self, first_micros: u64, last_micros: u64) {
        self.first_timestamp_micros = first_micros;
        self.last_timestamp_micros = last_micros;
    }

    fn write_piece(&mut self) -> Result<(), FileError> {
        let position = (self.position - self.piece.len()) as u64;
        self.file.write_at(&self.piece, position)?;
        self.piece.clear();
        Ok(())
    }

    /// Completes the segment, which ends before `next`, and makes it durable.
    pub(crate) fn finish(mut self, next: Offset) -> Result<Built, FileError> {
        self.write_piece()?;
        let least = format::SEGMENT_BYTES_MIN - format::FOOTER_PAGE_BYTES as u64;
        let frames_end = (self.position.next_multiple_of(PAGE_BYTES) as u64).max(least);
        let header = SegmentHeader {
            nonce: self.nonce,
            log_id: self.log_id,
            epoch: self.epoch,
            file_bytes: frames_end + format::FOOTER_PAGE_BYTES as u64,
            created_micros: clock::now_micros(),
        };
        let footer = Footer {
            base: self.base,
            next,
            end_position: u32::try_from(self.position).expect("at most 1 GiB"),
            nonce: self.nonce,
            first_timestamp_micros: self.first_timestamp_micros,
            last_timestamp_micros: self.last_timestamp_micros,
            epoch: self.epoch,
            gaps: self.gaps,
        };
        self.file.write_at(&header.encode(), 0)?;
        // The whole page, which gives the file its length.
        self.file
            .write_at(&[0; format::FOOTER_PAGE_BYTES], frames_end)?;
        let frames_end = usize::try_from(frames_end).expect("at most 1 GiB");
        segment_writer::write_footer(&self.file, frames_end, &footer.encode())?;
        self.file.sync_data()?;
        Ok(Built {
            file: self.file,
            file_bytes: header.file_bytes,
            footer,
            points: self.points,
        })
    }
}
