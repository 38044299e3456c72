//! The least that must be done for each kind of work, and nothing around it.
#![expect(
    unsafe_code,
    reason = "threads share memory as a log's readers share its mapping"
)]

use std::fs::{File, OpenOptions};
use std::future::poll_fn;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::pin;
use std::slice;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dacapo_benches::limit::{HEADER_BYTES, MappedFile};
use event_listener::Event;
use memmap2::MmapRaw;

use super::{Can, Contestant, Place, Survives};
use crate::channels::{Awaited, join, runtime};
use crate::ground::{Ground, Timed, median};
use crate::stores::random_numbers;
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "limit",
    package: "",
    place: Place::Limit,
    appended: Survives::UNASKED,
    durable: Survives::UNASKED,
    checks: "",
    how: "The least that must be done; what that is stands under each table.",
    can,
};

fn can(kind: &Kind) -> Can {
    Ok(match kind {
        Kind::Append | Kind::Batches => append,
        Kind::AppendLong => append_long,
        Kind::Durable(_) => durable,
        Kind::Replay => replay,
        Kind::RandomRead => random,
        Kind::Reopen => reopen,
        Kind::FanOut(_) => fan_out,
        Kind::Wake(_) => wake,
    })
}

fn frame_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(8)
}

/// As large as a segment: a fresh one of it is as much in the processor's caches.
const FILE_BYTES: usize = 64 << 20;

fn append(ground: &Ground) -> Result<Timed> {
    let mut file = MappedFile::new(FILE_BYTES)?;
    let began = Instant::now();
    for number in 0..ground.records {
        file.append(number as u32, 0, ground.payload(number));
    }
    Ok(Timed {
        operations: ground.records,
        spent: began.elapsed(),
    })
}

fn append_long(ground: &Ground) -> Result<Timed> {
    const BLOCK_BYTES: usize = 1 << 20;
    let dir = ground.fresh_dir()?;
    let mut file = File::create(dir.path().join("log"))?;
    let mut block = Vec::with_capacity(BLOCK_BYTES + frame_bytes(ground.payload_bytes));
    let began = Instant::now();
    for number in 0..ground.records {
        frame(&mut block, number, ground.payload(number));
        if block.len() >= BLOCK_BYTES {
            file.write_all(&block)?;
            block.clear();
        }
    }
    file.write_all(&block)?;
    Ok(Timed {
        operations: ground.records,
        spent: began.elapsed(),
    })
}

/// Appends a frame of the same size as the engine's.
fn frame(into: &mut Vec<u8>, number: u64, payload: &[u8]) {
    let began = into.len();
    into.extend((payload.len() as u64).to_le_bytes());
    into.extend([0; 4]);
    into.extend((number as u32).to_le_bytes());
    into.extend(0_u64.to_le_bytes());
    into.extend(payload);
    let sum = crc32fast::hash(&into[began + 12..]);
    into[began + 8..began + 12].copy_from_slice(&sum.to_le_bytes());
    into.resize(began + frame_bytes(payload.len()), 0);
}

/// A file whose blocks are allocated, written and synced.
pub(super) fn prewritten(dir: &Path, bytes: u64) -> Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options
        .create_new(true)
        .read(true)
        .write(true)
        .open(dir.join("log"))?;
    let zeroes = vec![0; 1 << 20];
    for _ in 0..bytes.div_ceil(zeroes.len() as u64) {
        file.write_all(&zeroes)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Groups of one record for each thread, as if all came at the same time.
fn durable(ground: &Ground) -> Result<Timed> {
    let dir = ground.fresh_dir()?;
    let file = prewritten(dir.path(), FILE_BYTES as u64)?;
    let at_once = ground.threads() as u64;
    let (mut group, mut at) = (Vec::new(), 0);
    let began = Instant::now();
    for first in (0..ground.records).step_by(ground.threads()) {
        group.clear();
        for number in first..first + at_once {
            frame(&mut group, number, ground.payload(number));
        }
        file.write_all_at(&group, at)?;
        file.sync_data()?;
        at = (at + group.len() as u64) % (FILE_BYTES as u64 / 2);
    }
    Ok(Timed {
        operations: ground.records,
        spent: began.elapsed(),
    })
}

fn filled(ground: &Ground) -> Result<MappedFile> {
    let bytes = frame_bytes(ground.payload_bytes) * ground.records as usize;
    let mut file = MappedFile::new(bytes)?;
    for number in 0..ground.records {
        file.append(number as u32, 0, ground.payload(number));
    }
    Ok(file)
}

fn replay(ground: &Ground) -> Result<Timed> {
    let file = filled(ground)?;
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let sound = black_box(&file).sum_all();
        seconds.push(began.elapsed().as_secs_f64());
        ensure!(
            sound == ground.records,
            "{sound} frames are as they were stored"
        );
    }
    Ok(Timed {
        operations: ground.records,
        spent: Duration::from_secs_f64(median(&mut seconds)),
    })
}

fn random(ground: &Ground) -> Result<Timed> {
    let file = filled(ground)?;
    let (numbers, stride) = (random_numbers(ground), frame_bytes(ground.payload_bytes));
    let mut sound = 0;
    let began = Instant::now();
    for number in &numbers {
        sound += u64::from(file.is_sound_at(*number as usize * stride));
    }
    let spent = began.elapsed();
    ensure!(
        sound == numbers.len() as u64,
        "{sound} frames are as they were stored"
    );
    Ok(Timed {
        operations: sound,
        spent,
    })
}

fn reopen(ground: &Ground) -> Result<Timed> {
    let dir = ground.fresh_dir()?;
    prewritten(dir.path(), 1 << 20)?;
    let began = Instant::now();
    let mut page = [0; 4096];
    File::open(dir.path().join("log"))?.read_exact(&mut page)?;
    black_box(page);
    Ok(Timed {
        operations: 1,
        spent: began.elapsed(),
    })
}

/// Memory that one thread appends to while others read what it has published.
struct SharedMemory {
    map: MmapRaw,
    published: AtomicUsize,
    moved: Event,
}

impl SharedMemory {
    fn new(bytes: usize) -> Result<Self> {
        let map = memmap2::MmapOptions::new()
            .len(bytes)
            .populate()
            .map_anon()?;
        Ok(Self {
            map: map.into(),
            published: AtomicUsize::new(0),
            moved: Event::new(),
        })
    }

    /// Appends behind `end`, the end of what was appended before. For one thread.
    fn append(&self, end: &mut usize, number: u64, payload: &[u8]) {
        let len = frame_bytes(payload.len());
        assert!(*end == self.published.load(Ordering::Relaxed) && len <= self.map.len() - *end);
        // SAFETY: `end` is inside the mapping, by the assertion.
        let start = unsafe { self.map.as_mut_ptr().add(*end) };
        // SAFETY: the bytes are inside the mapping, by the assertion, and not published: only this
        // thread uses them.
        let frame = unsafe { slice::from_raw_parts_mut(start, len) };
        frame[..8].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        frame[12..16].copy_from_slice(&(number as u32).to_le_bytes());
        frame[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        let sum = crc32fast::hash(&frame[12..HEADER_BYTES + payload.len()]);
        frame[8..12].copy_from_slice(&sum.to_le_bytes());
        *end += len;
        self.published.store(*end, Ordering::Release);
        self.moved.notify(usize::MAX);
    }

    /// What may be read.
    fn published(&self) -> &[u8] {
        let len = self.published.load(Ordering::Acquire);
        // SAFETY: the mapping lives as long as the slice and is longer, and published bytes never change.
        unsafe { slice::from_raw_parts(self.map.as_ptr(), len) }
    }
}

fn fan_out(ground: &Ground) -> Result<Timed> {
    let runtime = runtime()?;
    let (records, stride) = (ground.records, frame_bytes(ground.payload_bytes));
    let memory = Arc::new(SharedMemory::new(records as usize * stride)?);
    let ready = Arc::new(AtomicU64::new(0));
    let receiver = |memory: Arc<SharedMemory>, ready: Arc<AtomicU64>| async move {
        ready.fetch_add(1, Ordering::Release);
        let (mut at, mut read) = (0, 0);
        while read < records {
            let published = memory.published();
            if at == published.len() {
                let mut moved = pin!(memory.moved.listen());
                if at == memory.published().len() {
                    moved.as_mut().await;
                }
                continue;
            }
            while at < published.len() {
                let len = published[at..at + 8].try_into().map(u64::from_le_bytes)?;
                let payload = &published[at + HEADER_BYTES..at + HEADER_BYTES + len as usize];
                black_box(payload);
                at += frame_bytes(payload.len());
                read += 1;
            }
        }
        anyhow::Ok(())
    };
    let tasks: Vec<_> = (0..ground.receivers())
        .map(|_| runtime.spawn(receiver(Arc::clone(&memory), Arc::clone(&ready))))
        .collect();
    while ready.load(Ordering::Acquire) < ground.receivers() {
        std::thread::yield_now();
    }
    let (began, mut end) = (Instant::now(), 0);
    for number in 0..records {
        memory.append(&mut end, number, ground.payload(number));
    }
    join(tasks)?;
    Ok(Timed {
        operations: records * ground.receivers(),
        spent: began.elapsed(),
    })
}

/// Where a task leaves what wakes it.
#[derive(Default)]
struct Slot {
    waker: Mutex<Option<Waker>>,
    message: AtomicU64,
}

fn wake(ground: &Ground) -> Result<Timed> {
    let runtime = runtime()?;
    let slots: Arc<[Slot]> = (0..ground.receivers()).map(|_| Slot::default()).collect();
    let awaited = Awaited::new(ground.receivers());
    let messages = ground.records + 1;
    let receiver = |slots: Arc<[Slot]>, mine: usize, awaited: Arc<Awaited>| async move {
        let slot = &slots[mine];
        for message in 1..=messages {
            poll_fn(|cx| {
                let arrived = || slot.message.load(Ordering::Acquire) == message;
                if arrived() {
                    return Poll::Ready(());
                }
                *slot.waker.lock().expect("nobody panics") = Some(cx.waker().clone());
                // Look again: it may have come before the waker was there.
                if arrived() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            awaited.arrived();
        }
        anyhow::Ok(())
    };
    let tasks: Vec<_> = (0..slots.len())
        .map(|mine| runtime.spawn(receiver(Arc::clone(&slots), mine, Arc::clone(&awaited))))
        .collect();
    let mut began = Instant::now();
    for message in 1..=messages {
        if message == 2 {
            began = Instant::now();
        }
        for slot in slots.iter() {
            slot.message.store(message, Ordering::Release);
            if let Some(waker) = slot.waker.lock().expect("nobody panics").take() {
                waker.wake();
            }
        }
        awaited.wait();
    }
    let spent = began.elapsed();
    join(tasks)?;
    Ok(Timed {
        operations: ground.records * ground.receivers(),
        spent,
    })
}
