//! The least that following a log on mapped files must do: one writer, a published length, and
//! readers that walk the same bytes.
#![expect(unsafe_code, reason = "maps a file that nobody else has")]

use std::io;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::MmapRaw;

use crate::event::Event;
use crate::limit::{HEADER_BYTES, frame_at, frame_bytes, is_sound, store_frame, zeroed_file};

#[derive(Debug)]
struct Frames {
    map: MmapRaw,
    published: AtomicUsize,
    moved: Event,
}

impl Frames {
    fn published(&self) -> Seen {
        Seen(self.published.load(Ordering::Acquire))
    }

    /// The first `len` bytes, of which a reader has seen that they are published.
    #[inline]
    fn bytes(&self, Seen(len): Seen) -> &[u8] {
        assert!(len <= self.map.len());
        // SAFETY: the assertion keeps these bytes inside the mapping, which lives as long as `self`
        // and has no file name for others to find. `published` alone makes a `Seen` (and a reader one
        // of zero): the writer, of which there is one, stored a length there behind its last store
        // below it, and never stores below it again.
        unsafe { slice::from_raw_parts(self.map.as_ptr(), len) }
    }
}

/// A length that was published when a reader looked.
#[derive(Clone, Copy, Debug)]
struct Seen(usize);

/// The one writer of a mapped file.
#[derive(Debug)]
pub struct Writer {
    frames: Arc<Frames>,
    end: usize,
}

/// A place in the frames that a [`Writer`] publishes.
#[derive(Clone, Debug)]
pub struct Reader {
    frames: Arc<Frames>,
    at: usize,
    /// Looked at again only behind it: whoever looks at what is published for each frame takes the
    /// writer's cache line away from it as often.
    seen: Seen,
}

/// How often a reader that has read everything looks again before it sleeps, which takes the writer
/// some microseconds to end.
const LOOKS: u32 = 30;
/// And how long it leaves the writer alone between two looks: some microseconds.
const SPINS_A_LOOK: u32 = 100;

/// A mapped temporary file of `bytes` bytes, zeroed and faulted in: its writer, and a reader at its
/// start.
///
/// # Errors
/// Those of creating, writing and mapping the file.
pub fn frames(bytes: usize) -> io::Result<(Writer, Reader)> {
    let file = zeroed_file(bytes)?;
    let mut writer = Writer {
        frames: Arc::new(Frames {
            map: MmapRaw::map_raw(&file)?,
            published: AtomicUsize::new(0),
            moved: Event::default(),
        }),
        end: 0,
    };
    for page in writer.unpublished(bytes).chunks_mut(4096) {
        page[0] = 0;
    }
    let frames = Arc::clone(&writer.frames);
    let (at, seen) = (0, Seen(0));
    Ok((writer, Reader { frames, at, seen }))
}

impl Writer {
    /// The first `len` bytes behind what is published.
    fn unpublished(&mut self, len: usize) -> &mut [u8] {
        let map = &self.frames.map;
        assert!(len <= map.len() - self.end, "the file is full");
        // SAFETY: the assertion keeps it inside the mapping.
        let start = unsafe { map.as_mut_ptr().add(self.end) };
        // SAFETY: inside the mapping, which lives as long as `self`. Readers look at published bytes
        // only, which end at `self.end`; and no other writer is ever made.
        unsafe { slice::from_raw_parts_mut(start, len) }
    }

    /// Copies a payload behind a header with its length, number and checksum, and publishes it; wakes
    /// who waits. Returns the position of the frame.
    ///
    /// # Panics
    /// At the end of the file.
    #[inline]
    pub fn append(&mut self, number: u32, payload: &[u8]) -> usize {
        let (position, len) = (self.end, frame_bytes(payload.len()));
        store_frame(self.unpublished(len), number, 0, payload);
        self.end += len;
        self.frames.published.store(self.end, Ordering::Release);
        self.frames.moved.notify();
        position
    }
}

/// A frame's payload, and whether its checksum is to be compared.
#[inline]
fn payload_at(bytes: &[u8], position: usize, verified: bool) -> &[u8] {
    let frame = frame_at(bytes, position);
    if verified {
        assert!(is_sound(frame), "the frame at {position} has changed");
    }
    &frame[HEADER_BYTES..]
}

impl Reader {
    /// The next payload, if one is published, without a look at its checksum.
    #[inline]
    pub fn next_unverified(&mut self) -> Option<&[u8]> {
        self.step(false)
    }

    /// The next payload, if one is published, verified.
    #[inline]
    pub fn next_verified(&mut self) -> Option<&[u8]> {
        self.step(true)
    }

    #[inline]
    fn step(&mut self, verified: bool) -> Option<&[u8]> {
        if self.at == self.seen.0 && !self.look() {
            return None;
        }
        let payload = payload_at(self.frames.bytes(self.seen), self.at, verified);
        self.at += frame_bytes(payload.len());
        Some(payload)
    }

    /// Whether there is something that was not read yet.
    fn look(&mut self) -> bool {
        self.seen = self.frames.published();
        self.seen.0 > self.at
    }

    /// Waits until something is published behind what was read.
    pub fn wait(&mut self) {
        for _ in 0..LOOKS {
            if self.look() {
                return;
            }
            for _ in 0..SPINS_A_LOOK {
                std::hint::spin_loop();
            }
        }
        let frames = Arc::clone(&self.frames);
        frames.moved.wait(|| self.look().then_some(()));
    }

    /// The payload of the frame at a position that an append returned, verified.
    ///
    /// # Panics
    /// At any other position, and at bytes that are not as they were stored.
    #[inline]
    #[must_use]
    pub fn verified_at(&self, position: usize) -> &[u8] {
        payload_at(self.frames.bytes(self.frames.published()), position, true)
    }
}

#[cfg(test)]
mod tests {
    use super::frames;

    #[test]
    fn a_reader_finds_what_was_appended_and_waits_for_more() {
        let (mut writer, mut reader) = frames(1 << 20).unwrap();
        let first = writer.append(0, b"once");
        assert_eq!(reader.next_verified(), Some(&b"once"[..]));
        assert_eq!(reader.next_verified(), None);
        assert_eq!(reader.verified_at(first), b"once");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                reader.wait();
                reader.next_unverified().map(<[u8]>::to_vec)
            });
            writer.append(1, b"again");
            assert_eq!(waiting.join().unwrap(), Some(b"again".to_vec()));
        });
    }
}
