//! The least that any log on mapped files must do: copy, header and checksum in, checksum out.
#![expect(unsafe_code, reason = "maps a file that nobody else has")]

use std::fs::File;
use std::io::{self, Write};

use memmap2::MmapMut;

/// The bytes of a header beside each payload, as many as the engine's.
pub const HEADER_BYTES: usize = 24;
/// Where the checksum of a frame begins; before it stand the length and the checksum.
const SUMMED_FROM: usize = 12;
/// Zeros are written in pieces as large as the engine's.
const ZEROES_BYTES: usize = 256 << 10;

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
        let file = zeroed_file(bytes)?;
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
        let len = frame_bytes(payload.len());
        store_frame(
            &mut self.map[self.end..self.end + len],
            number,
            time,
            payload,
        );
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
            let frame = frame_at(&self.map, at);
            prefetch(frame);
            sound += u64::from(is_sound(frame));
            at += frame.len().next_multiple_of(8);
        }
        sound
    }

    /// Sums the frame at this byte of the file again: whether it is as it was stored.
    ///
    /// # Panics
    /// Where no frame begins.
    #[must_use]
    pub fn is_sound_at(&self, at: usize) -> bool {
        is_sound(frame_at(&self.map, at))
    }
}

/// A temporary file in the current directory's filesystem, of `bytes` zeros, rounded up to whole pieces
/// and synced: as the engine makes its segments ready.
pub(crate) fn zeroed_file(bytes: usize) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(".")?;
    let zeroes = vec![0; ZEROES_BYTES];
    for _ in 0..bytes.div_ceil(ZEROES_BYTES) {
        file.write_all(&zeroes)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// The bytes of a frame with so many bytes of payload.
#[must_use]
pub fn frame_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(8)
}

/// Copies a payload behind a header with its length, number and checksum.
#[inline]
pub(crate) fn store_frame(frame: &mut [u8], number: u32, time: u64, payload: &[u8]) {
    let summed = HEADER_BYTES + payload.len();
    let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    let mut header = [0; HEADER_BYTES - SUMMED_FROM];
    header[..4].copy_from_slice(&number.to_le_bytes());
    header[4..].copy_from_slice(&time.to_le_bytes());
    frame[SUMMED_FROM..HEADER_BYTES].copy_from_slice(&header);
    frame[HEADER_BYTES..summed].copy_from_slice(payload);
    let mut sum = crc32fast::Hasher::new();
    if payload.len() <= SUMMED_AT_ITS_SOURCE_BYTES_MAX {
        sum.update(&header);
        sum.update(payload);
    } else {
        sum.update(&frame[SUMMED_FROM..summed]);
    }
    frame[8..SUMMED_FROM].copy_from_slice(&sum.finalize().to_le_bytes());
    frame[..8].copy_from_slice(&length.to_le_bytes());
}

/// The header and the payload of the frame at a position where one begins.
#[inline]
pub(crate) fn frame_at(bytes: &[u8], at: usize) -> &[u8] {
    let length = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let length = usize::try_from(length).expect("a payload's length");
    &bytes[at..at + HEADER_BYTES + length]
}

/// Whether a frame is as it was stored.
#[inline]
pub(crate) fn is_sound(frame: &[u8]) -> bool {
    frame[8..SUMMED_FROM] == crc32fast::hash(&frame[SUMMED_FROM..]).to_le_bytes()
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
