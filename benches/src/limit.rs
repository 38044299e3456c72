//! The least that any log on mapped files must do: copy, header and checksum in, checksum out.
#![expect(unsafe_code, reason = "maps a file that nobody else has")]

use std::fs::File;
use std::io::{self, Write};

use memmap2::MmapMut;

/// The bytes of a header beside each payload, as many as the engine's.
pub const HEADER_BYTES: usize = 24;

/// Up to so many bytes are summed where the caller has them, and not behind the copy: the faster way
/// for each size.
const SUMMED_AT_ITS_SOURCE_BYTES_MAX: usize = 384;

/// A preallocated, zeroed and mapped file, and nothing around it. Like a log's next segment, none of
/// its pages was touched through the mapping.
#[derive(Debug)]
pub struct MappedFile {
    map: MmapMut,
    end: usize,
}

impl MappedFile {
    /// A mapped temporary file of at least `bytes` bytes in the current directory's filesystem.
    ///
    /// # Errors
    /// Those of creating, writing and mapping the file.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let mut file: File = tempfile::tempfile_in(".")?;
        let zeroes = vec![0; 256 << 10];
        for _ in 0..bytes.div_ceil(zeroes.len()) {
            file.write_all(&zeroes)?;
        }
        file.sync_data()?;
        // SAFETY: the file has no name, so no other process can change or shorten it.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        Ok(Self { map, end: 0 })
    }

    /// Copies a payload behind a header with its length, number and checksum.
    ///
    /// # Panics
    /// At the end of the file.
    #[inline]
    pub fn append(&mut self, number: u32, time: u64, payload: &[u8]) {
        let len = (HEADER_BYTES + payload.len()).next_multiple_of(8);
        let frame = &mut self.map[self.end..self.end + len];
        let summed = HEADER_BYTES + payload.len();
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let mut header = [0; 12];
        header[..4].copy_from_slice(&number.to_le_bytes());
        header[4..].copy_from_slice(&time.to_le_bytes());
        frame[12..HEADER_BYTES].copy_from_slice(&header);
        frame[HEADER_BYTES..summed].copy_from_slice(payload);
        let mut sum = crc32fast::Hasher::new();
        if payload.len() <= SUMMED_AT_ITS_SOURCE_BYTES_MAX {
            sum.update(&header);
            sum.update(payload);
        } else {
            sum.update(&frame[12..summed]);
        }
        let sum = sum.finalize();
        frame[8..12].copy_from_slice(&sum.to_le_bytes());
        frame[..8].copy_from_slice(&length.to_le_bytes());
        self.end += len;
    }

    /// Sums every frame again, and counts those that are as they were stored.
    ///
    /// # Panics
    /// Never, behind [`append`](Self::append).
    #[must_use]
    pub fn sum_all(&self) -> u64 {
        let (mut at, mut sound) = (0, 0);
        while at < self.end {
            let word =
                |from: usize| -> [u8; 8] { self.map[from..from + 8].try_into().expect("8 bytes") };
            let length = usize::try_from(u64::from_le_bytes(word(at))).expect("a payload's length");
            let stored = u32::from_le_bytes(self.map[at + 8..at + 12].try_into().expect("4 bytes"));
            let frame = &self.map[at..at + HEADER_BYTES + length];
            prefetch(frame);
            sound += u64::from(crc32fast::hash(&frame[12..]) == stored);
            at += (HEADER_BYTES + length).next_multiple_of(8);
        }
        sound
    }

    /// Sums the frame at this byte of the file again: whether it is as it was stored.
    ///
    /// # Panics
    /// Where no frame begins.
    #[must_use]
    pub fn is_sound_at(&self, at: usize) -> bool {
        let length = u64::from_le_bytes(self.map[at..at + 8].try_into().expect("8 bytes"));
        let length = usize::try_from(length).expect("a payload's length");
        let stored = u32::from_le_bytes(self.map[at + 8..at + 12].try_into().expect("4 bytes"));
        crc32fast::hash(&self.map[at + 12..at + HEADER_BYTES + length]) == stored
    }
}

/// Fetches the lines as far as a frame, 2 KiB behind it: the faster way to read frames in a row.
fn prefetch(frame: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..frame.len()).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = frame.as_ptr().wrapping_add(2048 + at);
        // SAFETY: a prefetch is a hint, and may be of any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = frame;
}
