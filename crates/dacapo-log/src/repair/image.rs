//! The bytes of one damaged segment, as far as the disk can read them.
//!
//! Read by calls and not through a mapping: a sector that the disk cannot read is then an error, and
//! not a signal.

use std::ops::Range;

use crate::disk::DiskFile;
use crate::error::FileError;
use crate::format::{self, PAGE_BYTES};

/// What is read at a time where nothing is wrong.
const PIECE_BYTES: usize = 1 << 20;

pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    /// What could not be read, in pages; zeros stand there.
    pub(super) unreadable: Vec<Range<usize>>,
}

impl Image {
    /// Reads a segment file, up to the size that a segment can have.
    pub(super) fn read(file: &DiskFile) -> Result<Self, FileError> {
        let file_bytes = file.bytes()?.min(format::SEGMENT_BYTES_MAX);
        let len = usize::try_from(file_bytes).expect("at most 1 GiB");
        let mut image = Self {
            bytes: vec![0; len],
            unreadable: Vec::new(),
        };
        for start in (0..len).step_by(PIECE_BYTES) {
            let end = len.min(start + PIECE_BYTES);
            if file
                .read_at(&mut image.bytes[start..end], start as u64)
                .is_err()
            {
                image.read_by_pages(file, start..end);
            }
        }
        Ok(image)
    }

    fn read_by_pages(&mut self, file: &DiskFile, piece: Range<usize>) {
        for start in piece.clone().step_by(PAGE_BYTES) {
            let page = start..piece.end.min(start + PAGE_BYTES);
            let bytes = &mut self.bytes[page.clone()];
            if file.read_at(bytes, start as u64).is_ok() {
                continue;
            }
            bytes.fill(0);
            match self.unreadable.last_mut() {
                Some(last) if last.end == page.start => last.end = page.end,
                _ => self.unreadable.push(page),
            }
        }
    }

    /// The pages around a position that could not be read.
    pub(super) fn unreadable_at(&self, position: usize) -> Option<&Range<usize>> {
        self.unreadable
            .iter()
            .find(|pages| pages.contains(&position))
    }
}
