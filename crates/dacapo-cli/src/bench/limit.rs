//! The least that any log must do for the same work: bytes into a mapped file and out of it, and
//! bytes onto the disk.
#![expect(
    unsafe_code,
    reason = "maps a file that nobody else has, and fetches lines ahead"
)]

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::MmapMut;

/// The bytes of a header beside each payload, as many as the engine's.
const HEADER_BYTES: usize = 24;
const SUMMED_FROM: usize = 12;
/// The faster way for each size, as the engine has it: see "Findings" in docs/architecture.md.
const SUMMED_AT_ITS_SOURCE_BYTES_MAX: usize = 384;
/// How far ahead of a frame that is read its successors are fetched.
const READ_AHEAD_BYTES: usize = 2048;
/// What a disk writes at least.
const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;
const ZEROES_BYTES: usize = 256 << 10;

/// A mapped file that is zeroed and faulted in, and nothing around it.
pub(crate) struct MappedFile {
    map: MmapMut,
    end: usize,
}

impl MappedFile {
    /// A file without a name in `dir`, of `bytes` bytes. Calls `go_on` between the pieces that it
    /// writes, and ends where that fails.
    pub(crate) fn new(
        dir: &Path,
        bytes: usize,
        go_on: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let file = zeroed_file(dir, bytes, go_on)?;
        // SAFETY: the file has no name, so no other process can change or shorten it. It is as long
        // as the mapping, and every block of it is written.
        let map = unsafe { MmapMut::map_mut(&file) }?;
        Ok(Self::faulted_in(map))
    }

    /// Memory instead of a file, for filesystems where a store into a mapped file can need a block,
    /// find none, and kill the process.
    pub(crate) fn in_memory(bytes: usize) -> io::Result<Self> {
        Ok(Self::faulted_in(MmapMut::map_anon(bytes)?))
    }

    fn faulted_in(mut map: MmapMut) -> Self {
        for page in map.chunks_mut(PAGE_BYTES) {
            page[0] = 0;
        }
        Self { map, end: 0 }
    }

    /// Begins again at the start of the file if there are not `bytes` bytes left.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        if self.map.len() - self.end < bytes {
            self.end = 0;
        }
    }

    /// Copies a payload behind a header with its length, number and checksum. There must be room.
    #[inline]
    pub(crate) fn append(&mut self, number: u32, payload: &[u8]) {
        let frame = &mut self.map[self.end..self.end + frame_bytes(payload.len())];
        let summed = HEADER_BYTES + payload.len();
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let mut header = [0; HEADER_BYTES - SUMMED_FROM];
        header[..4].copy_from_slice(&number.to_le_bytes());
        frame[SUMMED_FROM..HEADER_BYTES].copy_from_slice(&header);
        frame[HEADER_BYTES..summed].copy_from_slice(payload);
        let mut sum = crc32fast::Hasher::new();
        if payload.len() <= SUMMED_AT_ITS_SOURCE_BYTES_MAX {
            sum.update(&header);
            sum.update(payload);
        } else {
            sum.update(&frame[SUMMED_FROM..summed]);
        }
        frame[8..12].copy_from_slice(&sum.finalize().to_le_bytes());
        frame[..8].copy_from_slice(&length.to_le_bytes());
        self.end += frame_bytes(payload.len());
    }

    /// Walks over all frames, sums each again, and counts those that are as they were stored.
    pub(crate) fn count_sound(&self) -> u64 {
        let (mut at, mut sound) = (0, 0);
        while at < self.end {
            let end = at + frame_bytes(self.length(at));
            self.prefetch(at + READ_AHEAD_BYTES, end + READ_AHEAD_BYTES);
            sound += u64::from(self.is_sound(at));
            at = end;
        }
        sound
    }

    /// Sums the frame of one number again; all must have payloads of `payload_bytes`.
    pub(crate) fn is_sound_number(&self, number: usize, payload_bytes: usize) -> bool {
        self.is_sound(number * frame_bytes(payload_bytes))
    }

    #[inline]
    fn is_sound(&self, at: usize) -> bool {
        let frame = &self.map[at..at + HEADER_BYTES + self.length(at)];
        let sum = crc32fast::hash(&frame[SUMMED_FROM..]);
        frame[8..12] == sum.to_le_bytes()
    }

    /// Fetches cache lines that are read soon.
    #[inline]
    fn prefetch(&self, from: usize, to: usize) {
        #[cfg(target_arch = "x86_64")]
        for at in (from..to).step_by(64) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let line = self.map.as_ptr().wrapping_add(at);
            // SAFETY: a prefetch is a hint, and may be of any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (from, to);
    }

    #[inline]
    fn length(&self, at: usize) -> usize {
        let word = self.map[at..at + 8].try_into().expect("8 bytes");
        usize::try_from(u64::from_le_bytes(word)).expect("a length that `append` has stored")
    }
}

/// What a record takes with its header, here and in the engine.
pub(crate) fn frame_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(8)
}

/// A file whose blocks are written already, so that a durable write is one write and one sync.
pub(crate) struct WrittenFile {
    file: File,
    bytes: usize,
    next: usize,
}

impl WrittenFile {
    pub(crate) fn new(
        dir: &Path,
        bytes: usize,
        go_on: impl Fn() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let file = zeroed_file(dir, bytes, go_on)?;
        Ok(Self {
            file,
            bytes,
            next: 0,
        })
    }

    /// Writes `bytes` behind what was written last, in sectors of their own, and waits until the disk
    /// has them.
    pub(crate) fn write_durably(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = bytes.len().next_multiple_of(SECTOR_BYTES);
        if self.bytes - self.next < taken {
            self.next = 0;
        }
        self.file.write_all_at(bytes, self.next as u64)?;
        self.next += taken;
        self.file.sync_data()
    }
}

fn zeroed_file(
    dir: &Path,
    bytes: usize,
    go_on: impl Fn() -> anyhow::Result<()>,
) -> anyhow::Result<File> {
    let mut file = tempfile::tempfile_in(dir)?;
    let zeroes = vec![0; ZEROES_BYTES];
    let mut left = bytes;
    while left > 0 {
        go_on()?;
        let piece = left.min(ZEROES_BYTES);
        file.write_all(&zeroes[..piece])?;
        left -= piece;
    }
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> MappedFile {
        let dir = tempfile::tempdir().unwrap();
        MappedFile::new(dir.path(), 4 * PAGE_BYTES, || Ok(())).unwrap()
    }

    #[test]
    fn what_was_stored_is_sound_until_a_bit_flips() {
        let mut file = file();
        for number in 0..10 {
            file.append(number, &[7; 100]);
        }
        assert_eq!(file.count_sound(), 10);
        assert!((0..10).all(|number| file.is_sound_number(number, 100)));

        file.map[3 * frame_bytes(100) + 50] ^= 1;

        assert_eq!(file.count_sound(), 9);
        assert!(!file.is_sound_number(3, 100));
    }

    #[test]
    fn a_full_file_begins_again() {
        let mut file = file();
        let records = file.map.len() / frame_bytes(100);
        for _ in 0..records {
            file.append(0, &[7; 100]);
        }
        assert_eq!(file.count_sound(), records as u64);

        file.make_room(frame_bytes(100));
        file.append(0, &[7; 100]);

        assert_eq!(file.count_sound(), 1);
    }

    #[test]
    fn nothing_more_is_written_once_it_is_not_to_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let stop = || anyhow::bail!("stop");
        assert!(MappedFile::new(dir.path(), PAGE_BYTES, stop).is_err());
        assert!(WrittenFile::new(dir.path(), PAGE_BYTES, stop).is_err());
    }
}
