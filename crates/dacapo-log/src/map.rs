//! A mapped segment file and its published length. The only `unsafe` in this crate.
//!
//! Bytes before the published length never change again, so they are handed out as plain slices.
//! Bytes behind it belong to the one [`Frontier`] of the mapping, which writes and publishes them.
//!
//! Commit words are shared: only atomics touch them, so a follower, through a mapping of its own, may
//! look at one while its frame is written. It copies a frame once it has seen the word, which orders
//! the copy behind the stores. Miri checks this on one memory (`Memory`), loom the published length.
//!
//! What is not proved: a follower that looks behind the last commit word, for what a crash has left,
//! copies bytes that a living writer may be storing. On one memory that is a data race, however
//! atomic the loads are. It is two mappings, in two processes or in one, of which the language knows
//! nothing; the hardware gives each word as it is or was, and a checksum decides what to make of it.
//!
//! What no program can rule out, and what docs/durability.md says: somebody else who writes into,
//! or shortens, the log's files.
#![expect(
    unsafe_code,
    reason = "memory maps; each block rests on this module's private fields"
)]

use std::fmt;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::format::{COMMIT_WORD_BYTES, PAGE_BYTES};
use crate::sync::AtomicUsize;

/// A mapping of a whole segment file.
pub(crate) struct Map {
    start: NonNull<u8>,
    capacity: usize,
    published: AtomicUsize,
    #[cfg(loom)]
    accesses: Accesses,
    _backing: Backing,
}

/// What keeps the bytes at `Map::start` valid.
enum Backing {
    File {
        _mapping: memmap2::MmapRaw,
    },
    /// Miri cannot map files, and a simulated disk has none: there, this module runs on the heap.
    #[cfg(any(test, simulation))]
    Heap {
        _memory: Arc<Memory>,
    },
}

/// Memory in the place of a file's pages: what one mapping of it stores, the others see.
#[cfg(any(test, simulation))]
#[derive(Debug)]
pub(crate) struct Memory(Box<[AtomicU64]>);

#[cfg(any(test, simulation))]
impl Memory {
    /// Zeros, of a whole number of words.
    pub(crate) fn new(bytes: usize) -> Self {
        Self((0..bytes.div_ceil(8)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Maps the first `capacity` bytes.
    pub(crate) fn map(self: &Arc<Self>, capacity: usize, published: usize) -> Map {
        assert!(published <= capacity && capacity <= self.0.len() * 8);
        let start = NonNull::new(self.0.as_ptr().cast_mut()).expect("a box is never at null");
        Map {
            start: start.cast(),
            capacity,
            published: AtomicUsize::new(published),
            #[cfg(loom)]
            accesses: Accesses::behind(published, capacity),
            _backing: Backing::Heap {
                _memory: Arc::clone(self),
            },
        }
    }

    /// Maps the first `capacity` bytes for appending behind `published`.
    pub(crate) fn grow_from(
        self: &Arc<Self>,
        capacity: usize,
        published: usize,
        writable: bool,
    ) -> Frontier {
        let map = Arc::new(self.map(capacity, published));
        Frontier { map, writable }
    }

    /// Copies bytes out, as `pread` does.
    #[cfg(simulation)]
    pub(crate) fn read(&self, position: usize, into: &mut [u8]) {
        let mut done = 0;
        while done < into.len() {
            let (word, skip) = ((position + done) / 8, (position + done) % 8);
            let len = (8 - skip).min(into.len() - done);
            let bytes = self.0[word].load(Relaxed).to_le_bytes();
            into[done..done + len].copy_from_slice(&bytes[skip..skip + len]);
            done += len;
        }
    }

    /// Copies bytes in, as `pwrite` does.
    #[cfg(simulation)]
    pub(crate) fn write(&self, position: usize, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (word, skip) = ((position + done) / 8, (position + done) % 8);
            let len = (8 - skip).min(bytes.len() - done);
            let mut new = self.0[word].load(Relaxed).to_le_bytes();
            new[skip..skip + len].copy_from_slice(&bytes[done..done + len]);
            self.0[word].store(u64::from_le_bytes(new), Relaxed);
            done += len;
        }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("capacity", &self.capacity)
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

// SAFETY: `start` points to memory that `_backing` owns and that is reachable from any thread.
// Shared access is limited to the immutable bytes before `published` and to atomic loads.
unsafe impl Send for Map {}
// SAFETY: as above; all methods of `Map` that take `&self` read only.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `capacity` bytes of a file that nobody changes any more, all of them published.
    pub(crate) fn sealed(file: &std::fs::File, capacity: usize) -> io::Result<Self> {
        let mapping = memmap2::MmapOptions::new()
            .len(capacity)
            .map_raw_read_only(file)?;
        Ok(Self::new(mapping, capacity, capacity))
    }

    fn new(mapping: memmap2::MmapRaw, capacity: usize, published: usize) -> Self {
        assert!(published <= capacity && capacity <= mapping.len());
        let start = NonNull::new(mapping.as_mut_ptr()).expect("a mapping is never at null");
        Self {
            start,
            capacity,
            published: AtomicUsize::new(published),
            #[cfg(loom)]
            accesses: Accesses::behind(published, capacity),
            _backing: Backing::File { _mapping: mapping },
        }
    }

    /// The bytes that readers may see.
    #[inline]
    pub(crate) fn published(&self) -> &[u8] {
        let len = self.published.load(Acquire);
        assert!(len <= self.capacity);
        #[cfg(loom)]
        self.accesses.read_before(len);
        // SAFETY: `start` is valid for `capacity` bytes while `self` lives, and the assertion keeps
        // us inside them. Only `Frontier::publish` changes the length, and only upwards, and the
        // frontier never gives out or writes bytes below it, so this slice never changes.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), len) }
    }

    /// The 8-byte word at `position`, published or not, or `None` outside the mapping.
    ///
    /// Everything that was stored before the word was committed is visible once it is seen.
    pub(crate) fn load_word(&self, position: usize) -> Option<u64> {
        let inside = position.is_multiple_of(8) && position.checked_add(8)? <= self.capacity;
        // SAFETY: the word lies inside the mapping and is aligned (a mapping starts on a page, the
        // heap twin on a `u64`). Bytes at or behind the frontier are only ever shared through
        // atomics; those before it do not change.
        inside.then(|| u64::from_le(unsafe { self.word(position) }.load(Acquire)))
    }

    /// # Safety
    /// `position` must be a multiple of 8, and at least 8 less than the capacity.
    #[inline]
    unsafe fn word(&self, position: usize) -> &AtomicU64 {
        // SAFETY: in bounds, as the caller promises.
        let at = unsafe { self.start.as_ptr().add(position) };
        // SAFETY: aligned, and valid for as long as `self` lives. Where the mapping is read-only the
        // word is only loaded, which an atomic of this size may do.
        unsafe { &*at.cast::<AtomicU64>() }
    }
}

/// Fetches the cache lines `PREFETCH_BYTES` behind the start of these bytes, before they are stored to.
///
/// A store to memory that is in no cache waits in the store buffer, and each lock and fence waits for
/// all of them: see "Findings" in docs/architecture.md.
#[inline]
pub(crate) fn prefetch_behind(bytes: &[u8]) {
    for line in [0, LINE_BYTES] {
        prefetch_line(bytes.as_ptr().wrapping_add(PREFETCH_BYTES + line));
    }
}

/// While the frame at `range` is read, fetches the lines as far as that behind it: see "Findings" in
/// docs/architecture.md.
#[inline]
pub(crate) fn prefetch_next(bytes: &[u8], range: Range<usize>) {
    prefetch(
        bytes,
        range.start + READ_AHEAD_BYTES..range.end + READ_AHEAD_BYTES,
    );
}

/// Fetches the cache lines of a range of these bytes, of the first page of it.
#[inline]
pub(crate) fn prefetch(bytes: &[u8], range: Range<usize>) {
    let end = range.end.min(range.start.saturating_add(PAGE_BYTES));
    let mut at = range.start;
    // `step_by` takes ten times as many instructions.
    while at < end {
        prefetch_line(bytes.as_ptr().wrapping_add(at));
        at += LINE_BYTES;
    }
}

#[inline]
fn prefetch_line(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint, and may be of any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Some small records ahead.
const PREFETCH_BYTES: usize = 1024;
const READ_AHEAD_BYTES: usize = 2048;
const LINE_BYTES: usize = 64;

/// The one place from which a mapping grows: it writes behind the published length, and publishes.
pub(crate) struct Frontier {
    map: Arc<Map>,
    writable: bool,
}

impl Frontier {
    /// Maps a file for appending by stores behind `published`. All blocks must be allocated:
    /// a store into a hole on a full disk is a SIGBUS.
    pub(crate) fn writable(
        file: &std::fs::File,
        capacity: usize,
        published: usize,
    ) -> io::Result<Self> {
        let mapping = memmap2::MmapOptions::new().len(capacity).map_raw(file)?;
        Ok(Self {
            map: Arc::new(Map::new(mapping, capacity, published)),
            writable: true,
        })
    }

    /// Maps a file that grows by other means: by `pwrite`, or in another process.
    pub(crate) fn read_only(
        file: &std::fs::File,
        capacity: usize,
        published: usize,
    ) -> io::Result<Self> {
        let mapping = memmap2::MmapOptions::new()
            .len(capacity)
            .map_raw_read_only(file)?;
        Ok(Self {
            map: Arc::new(Map::new(mapping, capacity, published)),
            writable: false,
        })
    }

    pub(crate) fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// Whether the mapping may be stored to.
    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// The `len` bytes of a frame at `position` behind the published length, but for its commit word,
    /// to be filled by stores. Others may be looking at that word; [`commit`](Self::commit) stores it.
    #[inline]
    pub(crate) fn unpublished(&mut self, position: usize, len: usize) -> &mut [u8] {
        assert!(self.writable, "a read-only mapping is not stored to");
        assert!(position >= self.map.published.load(Relaxed));
        assert!(position <= self.map.capacity && len <= self.map.capacity - position);
        let behind_word = len.checked_sub(COMMIT_WORD_BYTES).expect("a whole frame");
        #[cfg(loom)]
        self.map.accesses.write(position, len);
        // SAFETY: in bounds by the assertions.
        let at = unsafe { self.map.start.as_ptr().add(position + COMMIT_WORD_BYTES) };
        // SAFETY: `Map::published` never reaches these bytes while the borrow of `self`, the only
        // frontier of this mapping, lasts; and the mapping is writable.
        unsafe { slice::from_raw_parts_mut(at, behind_word) }
    }

    /// Stores the word that makes a frame exist for other processes, after all bytes before it.
    #[inline]
    pub(crate) fn commit(&mut self, position: usize, word: u64) {
        // A crash may come between the bytes and the word that vouches for them.
        #[cfg(simulation)]
        crate::disk::pause_in_store();
        assert!(self.writable, "a read-only mapping is not stored to");
        assert!(position.is_multiple_of(8) && position >= self.map.published.load(Relaxed));
        assert!(position <= self.map.capacity && 8 <= self.map.capacity - position);
        #[cfg(loom)]
        self.map.accesses.write(position, 8);
        // SAFETY: aligned and in bounds by the assertions.
        unsafe { self.map.word(position) }.store(word.to_le(), Release);
    }

    /// Copies unpublished bytes that another process may be writing, by atomic loads: what comes
    /// out is to be verified before it is believed.
    pub(crate) fn copy_unpublished(&self, range: Range<usize>, into: &mut Vec<u8>) {
        assert!(range.start.is_multiple_of(8) && range.end <= self.map.capacity);
        into.clear();
        for position in range.clone().step_by(8) {
            // The capacity is a whole number of pages, so the last word is inside as well.
            let word = self.map.load_word(position).expect("inside the mapping");
            into.extend_from_slice(&word.to_le_bytes());
        }
        into.truncate(range.len());
    }

    /// Lets readers see everything before `end`. The caller has stored all of it.
    #[inline]
    pub(crate) fn publish(&mut self, end: usize) {
        assert!(end >= self.map.published.load(Relaxed) && end <= self.map.capacity);
        self.map.published.store(end, Release);
    }
}

/// The model checker's view of the bytes: it fails when a word is read by one thread and written by
/// another, and nothing orders the two. The bytes themselves it does not see.
#[cfg(loom)]
struct Accesses {
    from: usize,
    words: Box<[loom::cell::UnsafeCell<()>]>,
}

#[cfg(loom)]
impl Accesses {
    fn behind(published: usize, capacity: usize) -> Self {
        let words = published / 8..capacity / 8;
        Self {
            from: published / 8,
            words: words.map(|_| loom::cell::UnsafeCell::new(())).collect(),
        }
    }

    fn read_before(&self, end: usize) {
        for word in &self.words[..(end / 8).saturating_sub(self.from)] {
            word.with(|_| ());
        }
    }

    fn write(&self, position: usize, len: usize) {
        let range = position / 8 - self.from..(position + len).div_ceil(8) - self.from;
        for word in &self.words[range] {
            word.with_mut(|_| ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{self, Kind, NewFrame};

    fn in_memory(capacity: usize) -> Frontier {
        Arc::new(Memory::new(capacity)).grow_from(capacity, 0, true)
    }

    #[test]
    fn published_bytes_are_seen_by_another_thread_as_they_were_stored() {
        let mut frontier = in_memory(4096);
        let map = Arc::clone(frontier.map());
        let reader = std::thread::spawn(move || {
            while map.published().len() < 16 {
                std::hint::spin_loop();
            }
            map.published()[..16].to_vec()
        });
        frontier.unpublished(0, 16).copy_from_slice(b"payload!");
        frontier.commit(0, u64::from_le_bytes(*b"thehead:"));
        frontier.publish(16);
        assert_eq!(reader.join().unwrap(), b"thehead:payload!");
    }

    #[test]
    fn a_committed_word_carries_the_bytes_before_it() {
        let mut frontier = in_memory(64);
        frontier.unpublished(0, 16).copy_from_slice(&[7; 8]);
        frontier.commit(0, 42);
        assert_eq!(frontier.map().load_word(0), Some(42));
        let mut copy = Vec::new();
        frontier.copy_unpublished(8..16, &mut copy);
        assert_eq!(copy, [7; 8]);
        assert_eq!(frontier.map().load_word(60), None);
        assert_eq!(frontier.map().load_word(64), None);
    }

    #[test]
    fn a_slice_outlives_what_is_published_after_it() {
        let mut frontier = in_memory(64);
        frontier.unpublished(0, 16).fill(1);
        frontier.publish(16);
        let map = Arc::clone(frontier.map());
        let early = map.published();
        frontier.unpublished(16, 16).fill(2);
        frontier.publish(32);
        assert_eq!(early[8..], [1; 8]);
        assert_eq!(map.published().len(), 32);
    }

    const FRAMES: u32 = 12;
    const NONCE: u32 = 7;

    /// Stores frames as the log does: all but the commit word, then that, then the published length.
    fn store_frames(frontier: &mut Frontier) {
        let mut at = 0;
        for relative in 0..FRAMES {
            let frame = frame(relative);
            let word = frame.encode(NONCE, frontier.unpublished(at, frame.bytes()));
            frontier.commit(at, word);
            at += frame.bytes();
            frontier.publish(at);
        }
    }

    fn frame(relative: u32) -> NewFrame<'static> {
        let payload = &[b'x'; 16][..(relative as usize) % 17];
        NewFrame::plain(Kind::Record, relative, 1, payload)
    }

    #[test]
    fn a_reader_of_the_mapping_sees_whole_frames_only() {
        let mut frontier = in_memory(4096);
        let map = Arc::clone(frontier.map());
        let reader = std::thread::spawn(move || {
            let (mut at, mut relative) = (0, 0);
            while relative < FRAMES {
                let bytes = map.published();
                while at < bytes.len() {
                    let read = format::decode_frame(bytes, at, NONCE).expect("published, so whole");
                    assert_eq!(read.relative, relative);
                    (at, relative) = (read.end, relative + 1);
                }
                std::thread::yield_now();
            }
        });
        store_frames(&mut frontier);
        reader.join().unwrap();
    }

    #[test]
    fn a_follower_of_the_memory_sees_what_a_commit_word_vouches_for() {
        let memory = Arc::new(Memory::new(4096));
        let mut frontier = memory.grow_from(4096, 0, true);
        let mut follower = memory.grow_from(4096, 0, false);
        let following = std::thread::spawn(move || {
            let (mut at, mut copy) = (0, Vec::new());
            for relative in 0..FRAMES {
                let word = loop {
                    match follower.map().load_word(at) {
                        Some(0) => std::thread::yield_now(),
                        word => break word.expect("inside"),
                    }
                };
                let end = at + format::frame_bytes_of_word(word).expect("a frame");
                follower.copy_unpublished(at..end, &mut copy);
                let read = format::decode_frame(&copy, 0, NONCE).expect("committed, so whole");
                assert_eq!(read.relative, relative);
                follower.publish(end);
                assert_eq!(follower.map().published()[at..], copy);
                at = end;
            }
        });
        store_frames(&mut frontier);
        following.join().unwrap();
    }

    #[test]
    #[should_panic(expected = "position >= self.map.published")]
    fn published_bytes_are_never_stored_to() {
        let mut frontier = in_memory(64);
        frontier.publish(16);
        frontier.unpublished(8, 16);
    }
}
