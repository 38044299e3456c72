//! Writing into the active segment: frames, marks and the footer, by either way to the page cache.
//!
//! A commit word is stored after all that it vouches for, whichever way is taken, so that other
//! processes can follow. When to roll, and what a failure means, is the appender's to decide.

use std::path::Path;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::error::FileError;
use crate::format::{self, Begin, FOOTER_BYTES, FOOTER_WORD, Footer, Kind, NewFrame, PAD_WORD};
use crate::map::{self, Frontier};
use crate::offset::Offset;
use crate::segment::{self, Segment};

/// How bytes get into the page cache. Both ways may be taken in turn, and readers see the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Stores through the mapping: the fastest for many records.
    Mapping,
    /// `pwrite`, which dirties no more of the page cache than it writes: a sync behind it is the fastest.
    File,
}

pub(crate) struct SegmentWriter {
    segment: Arc<Segment>,
    file: Arc<DiskFile>,
    file_bytes: u64,
    frontier: Frontier,
    /// Where the next frame goes.
    position: usize,
    frames_end: usize,
    way: Way,
    /// Where frames are built before they go through the file.
    scratch: Vec<u8>,
    /// A write failed, or the footer is written: bytes behind `position` are not zeros any more,
    /// and could be taken for frames if another one were put before them.
    spoiled: bool,
}

impl SegmentWriter {
    pub(crate) fn new(
        segment: Arc<Segment>,
        file: Arc<DiskFile>,
        file_bytes: u64,
        frontier: Frontier,
        position: usize,
    ) -> Self {
        let frames_end = segment::frames_end(file_bytes);
        let way = match frontier.is_writable() {
            true => Way::Mapping,
            false => Way::File,
        };
        Self {
            segment,
            file,
            file_bytes,
            frontier,
            position,
            frames_end,
            way,
            scratch: Vec::new(),
            spoiled: false,
        }
    }

    #[inline]
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(crate) fn file(&self) -> &Arc<DiskFile> {
        &self.file
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    #[inline]
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        // The last sector is kept for the mark of the flush that makes the last record durable.
        let end = self.frames_end - format::SECTOR_BYTES;
        bytes <= end.saturating_sub(self.position) && !self.spoiled
    }

    /// Chooses the way for what is written next; by the mapping only where it can be written to.
    #[inline]
    pub(crate) fn go_by(&mut self, way: Way) {
        if self.frontier.is_writable() {
            self.way = way;
        }
    }

    /// Whether so many bytes can be written at all.
    fn holds(&self, bytes: usize) -> bool {
        bytes <= self.frames_end - self.position && !self.spoiled
    }

    /// Whether nothing more may be written to this segment, though there may be room.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// Gives the file its name.
    pub(crate) fn rename(&mut self, path: &Path) -> Result<(), FileError> {
        Arc::get_mut(&mut self.file)
            .expect("nobody flushes a segment without a name")
            .rename(path)
    }

    /// Writes frames that take `total` bytes together, and publishes them at once. The first one's
    /// commit word goes in last, so that no reader sees a part of them.
    #[inline]
    pub(crate) fn write<'a>(
        &mut self,
        frames: impl Iterator<Item = NewFrame<'a>>,
        total: usize,
    ) -> Result<(), FileError> {
        assert!(self.holds(total));
        let (start, nonce) = (self.position, self.segment.nonce());
        match self.way {
            Way::Mapping => {
                let first = encode_all(frames, nonce, self.frontier.unpublished(start, total));
                self.frontier.commit(start, first);
            }
            Way::File => {
                self.scratch.clear();
                self.scratch.resize(total, 0);
                let behind_word = &mut self.scratch[format::COMMIT_WORD_BYTES..];
                let first = encode_all(frames, nonce, behind_word);
                if let Err(failure) = self.write_committed(start, first) {
                    self.spoiled = true;
                    return Err(failure);
                }
            }
        }
        self.position = start + total;
        self.frontier.publish(self.position);
        Ok(())
    }

    /// Writes what stands in `scratch` to the file, its first word last.
    fn write_committed(&self, position: usize, first: u64) -> Result<(), FileError> {
        let behind_word = &self.scratch[format::COMMIT_WORD_BYTES..];
        let from = position + format::COMMIT_WORD_BYTES;
        self.file.write_at(behind_word, from as u64)?;
        self.file.write_at(&first.to_le_bytes(), position as u64)
    }

    fn write_control(
        &mut self,
        kind: Kind,
        next: Offset,
        now: u64,
        payload: &[u8],
    ) -> Result<(), FileError> {
        let relative = self.segment.relative(next);
        let frame = NewFrame::plain(kind, relative, now, payload);
        let total = frame.bytes();
        self.write(std::iter::once(frame), total)
    }

    /// Writes the frame that begins a segment.
    pub(crate) fn begin(&mut self, begin: &Begin, now: u64) -> Result<(), FileError> {
        self.write_control(Kind::Begin, begin.base, now, &begin.encode())
    }

    /// Fills the current sector, so that nothing is ever stored into a sector that was flushed.
    pub(crate) fn pad(&mut self) -> Result<(), FileError> {
        let end = format::next_sector(self.position);
        if end > self.position {
            let word = PAD_WORD.to_le_bytes();
            match self.way {
                Way::Mapping => self.frontier.commit(self.position, PAD_WORD),
                Way::File => match self.file.write_at(&word, self.position as u64) {
                    // Nothing follows in this sector then.
                    Err(e) if e.is_storage_full() => {
                        self.spoiled = true;
                        return Ok(());
                    }
                    written => written?,
                },
            }
            self.position = end;
            self.frontier.publish(end);
        }
        Ok(())
    }

    /// Says inside the log that all before `durable` is durable. Left out in a segment that nothing
    /// may be written to any more.
    pub(crate) fn mark(
        &mut self,
        next: Offset,
        durable: Offset,
        now: u64,
    ) -> Result<(), FileError> {
        if !self.holds(format::frame_bytes(0, format::MARK_PAYLOAD_BYTES)) {
            return Ok(());
        }
        match self.write_control(Kind::Mark, next, now, &durable.get().to_le_bytes()) {
            Err(e) if e.is_storage_full() => Ok(()),
            written => written,
        }
    }

    /// Writes the footer: no frame follows any more.
    pub(crate) fn seal(&mut self, footer: &Footer) -> Result<(), FileError> {
        self.spoiled = true;
        let bytes = footer.encode();
        if self.way == Way::File {
            return write_footer(&self.file, self.frames_end, &bytes);
        }
        self.frontier
            .unpublished(self.frames_end, FOOTER_BYTES)
            .copy_from_slice(&bytes[8..]);
        self.frontier.commit(self.frames_end, FOOTER_WORD);
        Ok(())
    }
}

/// Writes a footer through the file, its magic last.
pub(crate) fn write_footer(
    file: &DiskFile,
    frames_end: usize,
    bytes: &[u8; FOOTER_BYTES],
) -> Result<(), FileError> {
    file.write_at(&bytes[8..], frames_end as u64 + 8)?;
    file.write_at(&bytes[..8], frames_end as u64)
}

/// Encodes frames back to back behind the first one's commit word, which is returned.
#[inline]
fn encode_all<'a>(
    frames: impl Iterator<Item = NewFrame<'a>>,
    nonce: u32,
    behind_word: &mut [u8],
) -> u64 {
    const WORD: usize = format::COMMIT_WORD_BYTES;
    let into = behind_word;
    let mut first = 0;
    // Where the frame's other bytes begin.
    let mut at = 0;
    frames.for_each(|frame| {
        let end = at + frame.bytes() - WORD;
        map::prefetch_behind(&into[at..end]);
        let word = frame.encode(nonce, &mut into[at..end]);
        match at.checked_sub(WORD) {
            None => first = word,
            Some(start) => into[start..at].copy_from_slice(&word.to_le_bytes()),
        }
        at = end + WORD;
    });
    assert_eq!(
        at,
        into.len() + WORD,
        "the frames take the room that was asked for"
    );
    first
}
