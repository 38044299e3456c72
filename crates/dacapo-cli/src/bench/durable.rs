//! How near is a durable append to the disk's own time, and how much do many threads share?

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use dacapo_log::Log;
use futures_lite::future::block_on;

use super::answer::{Answer, Compares, Question};
use super::limit::WrittenFile;
use super::measure::{self, Sample};
use super::runner::Runner;

pub(crate) const ONE_THREAD: &str = "durable_1_thread";
pub(crate) const THREADS: &str = "durable_16_threads";
const ALONE: Question = Question {
    key: ONE_THREAD,
    title: "durable append, 1 thread",
    limit: "the disk's own time for a write and a sync",
    compares: Compares::Times,
};
const SHARED: Question = Question {
    key: THREADS,
    title: "durable append, 16 threads",
    limit: "what 16 threads get by one write and sync after another",
    compares: Compares::Rates,
};
pub(crate) const QUESTIONS: usize = 2;
const THREAD_COUNT: usize = 16;

const PAYLOAD_BYTES: usize = 100;
const WRITTEN_BYTES_MAX: usize = 16 << 20;

pub(crate) fn ask(runner: &Runner) -> anyhow::Result<Vec<Answer>> {
    let payload = super::payload(PAYLOAD_BYTES);
    let slice = runner.plan.slice;
    let bytes = WRITTEN_BYTES_MAX.min(runner.plan.segment_bytes);
    let mut file = WrittenFile::new(runner.dir(), bytes, || runner.go_on())?;

    // A fast disk makes so many durable that a log of all rounds would take too much space.
    let most = runner.plan.durable_records();
    let alone = runner.ask(
        ALONE,
        || {
            let fresh = runner.fresh_log()?;
            measure::each_for(slice, most, || append_durably(&fresh.log, &payload))
        },
        || measure::each_for(slice, most, || Ok(file.write_durably(&payload)?)),
    )?;
    let file = Mutex::new(file);
    let shared = runner.ask(
        SHARED,
        || {
            let fresh = runner.fresh_log()?;
            by_threads(slice, most, || append_and_wait(&fresh.log, &payload))
        },
        || {
            by_threads(slice, most, || {
                let mut file = file.lock().map_err(|_| anyhow!("another thread failed"))?;
                Ok(file.write_durably(&payload)?)
            })
        },
    )?;
    Ok(vec![alone, shared])
}

fn append_durably(log: &Log, payload: &[u8]) -> anyhow::Result<()> {
    log.append(payload)?;
    log.sync()?;
    Ok(())
}

/// As those do who share a sync with others.
fn append_and_wait(log: &Log, payload: &[u8]) -> anyhow::Result<()> {
    let offset = log.append(payload)?;
    block_on(log.durable(offset))?;
    Ok(())
}

/// Does `once` in all threads until `slice` is over or they have done it `most` times, at least once
/// in each.
fn by_threads(
    slice: Duration,
    most: usize,
    once: impl Fn() -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Sample> {
    let (started, done) = (Instant::now(), AtomicUsize::new(0));
    let work = || -> anyhow::Result<()> {
        loop {
            once()?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done >= most || started.elapsed() >= slice {
                return Ok(());
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREAD_COUNT).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(Sample::of_all(done.into_inner() as u64, started.elapsed()))
}
