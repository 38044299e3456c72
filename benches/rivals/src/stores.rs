//! What is asked of a log or a store on disk, and the loops that ask it. Only what a loop times counts.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::ground::{Ground, Timed, median};
use crate::work::BATCH;

/// What a record must survive when a call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// What the contestant gives without waiting for the disk.
    Usual,
    /// A power cut.
    Durable,
}

/// Something that keeps records in their order, in a directory.
pub(crate) trait Store: Sized {
    /// Opens what is in `dir`, or creates it.
    fn open(dir: &Path, promise: Promise) -> Result<Self>;

    /// Appends a record. It survives what was promised when this returns.
    fn append(&mut self, payload: &[u8]) -> Result<()>;

    /// Appends a batch of at most 250 records.
    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()>;

    /// Closes it cleanly.
    fn close(self) -> Result<()> {
        Ok(())
    }
}

/// A store to which several threads append at once.
pub(crate) trait Shared: Store + Sync {
    /// As [`Store::append`].
    fn append_shared(&self, payload: &[u8]) -> Result<()>;
}

/// A store that reads all of its records, from the first to the last.
pub(crate) trait Replay: Store {
    /// Shows every record to `read`.
    fn replay(&mut self, read: impl FnMut(&[u8])) -> Result<()>;
}

/// A store that finds a record by its number.
pub(crate) trait Random: Store {
    /// Shows the record that was appended as this one, from 0.
    fn get(&mut self, number: u64, read: impl FnOnce(&[u8])) -> Result<()>;
}

/// One a call.
pub(crate) fn append<S: Store>(ground: &Ground) -> Result<Timed> {
    append_with::<S>(ground, Promise::Usual)
}

/// One a call, each durable; one thread.
pub(crate) fn durable<S: Store>(ground: &Ground) -> Result<Timed> {
    append_with::<S>(ground, Promise::Durable)
}

fn append_with<S: Store>(ground: &Ground, promise: Promise) -> Result<Timed> {
    let dir = ground.fresh_dir()?;
    let mut store = S::open(dir.path(), promise)?;
    store.append(ground.payload(0))?; // makes the first file
    let began = Instant::now();
    for number in 0..ground.records {
        store.append(ground.payload(number))?;
    }
    let spent = began.elapsed();
    store.close()?;
    Ok(Timed {
        operations: ground.records,
        spent,
    })
}

/// Batches of [`BATCH`].
pub(crate) fn batches<S: Store>(ground: &Ground) -> Result<Timed> {
    let dir = ground.fresh_dir()?;
    let mut store = S::open(dir.path(), Promise::Usual)?;
    store.append(ground.payload(0))?;
    let batches: Vec<_> = (0..BATCH)
        .map(|n| ground.payloads(n * BATCH, BATCH))
        .collect();
    let began = Instant::now();
    for number in 0..ground.records / BATCH {
        store.append_batch(&batches[(number % BATCH) as usize])?;
    }
    let spent = began.elapsed();
    store.close()?;
    Ok(Timed {
        operations: ground.records,
        spent,
    })
}

/// One a call, each durable; several threads.
pub(crate) fn durable_shared<S: Shared>(ground: &Ground) -> Result<Timed> {
    let dir = ground.fresh_dir()?;
    let mut store = S::open(dir.path(), Promise::Durable)?;
    store.append(ground.payload(0))?;
    let each = ground.records / ground.threads() as u64;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let append = || -> Result<()> {
            for number in 0..each {
                store.append_shared(ground.payload(number))?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..ground.threads()).map(|_| scope.spawn(append)).collect();
        let ended = threads
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"));
        ended.collect::<Result<()>>()
    })?;
    let spent = began.elapsed();
    store.close()?;
    Ok(Timed {
        operations: each * ground.threads() as u64,
        spent,
    })
}

/// All records, behind a look at all of them that is not timed: the median of five times.
pub(crate) fn replay<S: Replay>(ground: &Ground) -> Result<Timed> {
    let dir = ground.fresh_dir()?;
    let mut store = filled::<S>(ground, dir.path())?;
    read_all(ground, &mut store)?;
    let mut seconds = Vec::new();
    for _ in 0..5 {
        seconds.push(read_all(ground, &mut store)?.as_secs_f64());
    }
    Ok(Timed {
        operations: ground.records,
        spent: Duration::from_secs_f64(median(&mut seconds)),
    })
}

/// As [`replay`], once, of a store that gives each record once.
#[allow(dead_code, reason = "the rival that uses it may be left out")]
pub(crate) fn replay_once<S: Replay>(ground: &Ground) -> Result<Timed> {
    let dir = ground.fresh_dir()?;
    let mut store = filled::<S>(ground, dir.path())?;
    let spent = read_all(ground, &mut store)?;
    Ok(Timed {
        operations: ground.records,
        spent,
    })
}

fn read_all<S: Replay>(ground: &Ground, store: &mut S) -> Result<Duration> {
    let (mut records, mut bytes) = (0, 0);
    let began = Instant::now();
    store.replay(|payload| {
        records += 1;
        bytes += black_box(payload).len();
    })?;
    let spent = began.elapsed();
    ensure!(
        records == ground.records && bytes as u64 == records * ground.payload_bytes as u64,
        "it read {records} records of {} that were appended, and {bytes} bytes",
        ground.records
    );
    Ok(spent)
}

/// Single records, each at random.
pub(crate) fn random<S: Random>(ground: &Ground) -> Result<Timed> {
    let dir = ground.fresh_dir()?;
    let mut store = filled::<S>(ground, dir.path())?;
    let numbers = random_numbers(ground);
    let mut bytes = 0;
    let began = Instant::now();
    for number in &numbers {
        store.get(*number, |payload| bytes += black_box(payload).len())?;
    }
    let spent = began.elapsed();
    ensure!(
        bytes == numbers.len() * ground.payload_bytes,
        "{} reads of {} bytes brought {bytes} bytes",
        numbers.len(),
        ground.payload_bytes
    );
    Ok(Timed {
        operations: numbers.len() as u64,
        spent,
    })
}

/// Which records are read, the same for all.
pub(crate) fn random_numbers(ground: &Ground) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(11);
    let count = (ground.records / 2).max(1);
    (0..count).map(|_| random.u64(0..ground.records)).collect()
}

/// Opening again what was closed: the median of five.
pub(crate) fn reopen<S: Store>(ground: &Ground) -> Result<Timed> {
    let dir = ground.fresh_dir()?;
    filled::<S>(ground, dir.path())?.close()?;
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let store = S::open(dir.path(), Promise::Usual)?;
        seconds.push(began.elapsed().as_secs_f64());
        store.close()?;
    }
    Ok(Timed {
        operations: 1,
        spent: Duration::from_secs_f64(median(&mut seconds)),
    })
}

fn filled<S: Store>(ground: &Ground, dir: &Path) -> Result<S> {
    const AT_ONCE: u64 = 250;
    let mut store = S::open(dir, Promise::Usual)?;
    let mut number = 0;
    while number < ground.records {
        let count = AT_ONCE.min(ground.records - number);
        store.append_batch(&ground.payloads(number, count))?;
        number += count;
    }
    Ok(store)
}
