//! How near is a durable append to `pwrite` and `fdatasync`, and how well do many threads share one?
//!
//! One thread appends a record and waits until it is durable, by a flush of its own (`sync`) or by that
//! of the log's thread (`durable`), against `pwrite` and `fdatasync` of as many bytes on blocks that
//! were written before. 16 threads do so against the simplest group commit: a mutex, a buffer, and a
//! leader that writes and syncs for all.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use dacapo_benches::limit::frame_bytes;
use dacapo_benches::quantiles::Quantiles;
use dacapo_benches::synced::{GroupCommit, SyncedFile};
use dacapo_benches::{payload, ratio, run};
use dacapo_log::{Flush, Log};
use futures_lite::future::block_on;
use tempfile::TempDir;

const PAYLOAD_BYTES: usize = 100;
const FILE_BYTES: usize = 64 << 20;
const THREADS: u32 = 16;

fn main() {
    let mut criterion = run::criterion(20);
    one_thread(&mut criterion);
    threads(&mut criterion);
    criterion.final_summary();
    ratio::print(
        "1 thread, append and wait until durable, against pwrite + fdatasync:",
        &["sync", "durable"].map(|ours| pair("1_thread", ours)),
    );
    ratio::print(
        "16 threads, append and wait until durable, against a simple group commit:",
        &["sync", "durable"].map(|ours| pair("16_threads", ours)),
    );
    if run::asks_for("durable/quantiles") {
        quantiles();
    }
}

fn pair(threads: &str, ours: &str) -> (String, String) {
    (
        format!("durable/{ours}/{threads}"),
        format!("durable/limit/{threads}"),
    )
}

/// A log in which one segment is ready, and no flush happens that nobody asked for.
fn log() -> (TempDir, Log) {
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let log = Log::options()
        .segment_bytes_min(FILE_BYTES as u64)
        .flush(Flush::OnDemand)
        .open(dir.path())
        .expect("a log");
    log.append(b"makes the segment").expect("appended");
    log.sync().expect("synced");
    (dir, log)
}

fn synced_file() -> SyncedFile {
    SyncedFile::new(FILE_BYTES).expect("a file of synced zeros")
}

/// As many bytes as the engine has for a record.
fn frame() -> Vec<u8> {
    payload(frame_bytes(PAYLOAD_BYTES))
}

fn append_and_sync(log: &Log, payload: &[u8]) {
    log.append(payload).expect("appended");
    log.sync().expect("synced");
}

fn append_and_wait(log: &Log, payload: &[u8]) {
    let offset = log.append(payload).expect("appended");
    block_on(log.durable(offset)).expect("durable");
}

fn one_thread(criterion: &mut Criterion) {
    let payload = payload(PAYLOAD_BYTES);
    let mut group = criterion.benchmark_group("durable");
    group.bench_function(BenchmarkId::new("limit", "1_thread"), |b| {
        let (mut file, frame) = (synced_file(), frame());
        b.iter(|| file.append(&frame).expect("written and synced"));
    });
    group.bench_function(BenchmarkId::new("sync", "1_thread"), |b| {
        let (_dir, log) = log();
        b.iter(|| append_and_sync(&log, &payload));
    });
    group.bench_function(BenchmarkId::new("durable", "1_thread"), |b| {
        let (_dir, log) = log();
        b.iter(|| append_and_wait(&log, &payload));
    });
    group.finish();
}

fn threads(criterion: &mut Criterion) {
    let each = if run::measures() { 200 } else { 2 };
    let payload = payload(PAYLOAD_BYTES);
    let mut group = criterion.benchmark_group("durable");
    group.throughput(Throughput::Elements((THREADS * each).into()));
    group.bench_function(BenchmarkId::new("limit", "16_threads"), |b| {
        let (commit, frame) = (GroupCommit::new(synced_file()), frame());
        b.iter_custom(|rounds| timed(rounds, each, || commit.append(&frame)));
    });
    group.bench_function(BenchmarkId::new("sync", "16_threads"), |b| {
        let (_dir, log) = log();
        b.iter_custom(|rounds| timed(rounds, each, || append_and_sync(&log, &payload)));
    });
    group.bench_function(BenchmarkId::new("durable", "16_threads"), |b| {
        let (_dir, log) = log();
        b.iter_custom(|rounds| timed(rounds, each, || append_and_wait(&log, &payload)));
    });
    group.finish();
}

/// The time in which all threads do `append` so many times each, from when all have begun.
fn timed(rounds: u64, each: u32, append: impl Fn() + Sync) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let ready = Barrier::new(THREADS as usize + 1);
        spent += thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        ready.wait();
                        for _ in 0..each {
                            append();
                        }
                    })
                })
                .collect();
            ready.wait();
            let started = Instant::now();
            for thread in threads {
                thread.join().expect("it appended");
            }
            started.elapsed()
        });
    }
    spent
}

/// One thread, all three in turn, so that whatever else happens on the machine happens to all.
fn quantiles() {
    const TURN: u32 = 50;
    let turns = if run::measures() { 60 } else { 1 };
    let (payload, frame, mut file) = (payload(PAYLOAD_BYTES), frame(), synced_file());
    let (_dir, log) = log();
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..turns {
        let [limit, sync, durable] = &mut times;
        for _ in 0..TURN {
            limit.push(time(|| file.append(&frame).expect("written and synced")));
        }
        for _ in 0..TURN {
            sync.push(time(|| append_and_sync(&log, &payload)));
        }
        for _ in 0..TURN {
            durable.push(time(|| append_and_wait(&log, &payload)));
        }
    }
    let [limit, sync, durable] = times.map(Quantiles::of);
    Quantiles::print_head("1 thread, append and wait until durable, in turn:");
    limit.print("pwrite + fdatasync");
    sync.print("append, sync");
    durable.print("append, durable");
    let times = |ours: &Quantiles| ours.at(500).as_secs_f64() / limit.at(500).as_secs_f64();
    println!(
        "  p50 against the limit: sync {:.2} x, durable {:.2} x",
        times(&sync),
        times(&durable)
    );
}

fn time(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
