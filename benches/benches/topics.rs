//! What do topics cost those who append, and what do they save those who read?
//!
//! Appends to many topics stand beside the same appends to none, appends beside tailers that they do
//! not concern beside appends with nobody there, and the replay of one topic beside a scan of the log.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput};
use dacapo_benches::{payload, ratio, run};
use dacapo_log::{Flush, Log, Options, Record, Start, Topic};

const PAYLOAD_BYTES: usize = 100;
/// `cargo test --all-targets` runs each bench once, to see that it works: with fewer records.
const SCALE: u32 = if cfg!(debug_assertions) { 100 } else { 1 };

fn main() {
    let mut criterion = run::criterion(10);
    append(&mut criterion);
    tail(&mut criterion);
    replay(&mut criterion);
    begin(&mut criterion);
    criterion.final_summary();
    let pair = |group: &str, bench: &str, limit: &str| {
        (
            format!("topics_{group}/{bench}"),
            format!("topics_{group}/{limit}"),
        )
    };
    ratio::print(
        "append to 100,000 topics in turn, against append to none:",
        &[
            pair("append", "100000", "none"),
            pair("append", "100000_closed", "none_closed"),
        ],
    );
    ratio::print(
        "append to one topic, with tailers of others waiting, against none waiting:",
        &[
            pair("tail", "1", "0"),
            pair("tail", "100", "0"),
            pair("tail", "10000", "0"),
        ],
    );
    ratio::print(
        "scanning 10,000,000 records for one topic's 1,000, against its replay:",
        &[pair("replay", "scan", "topic")],
    );
    ratio::print(
        "the first record of a topic in 4 times as many segments:",
        &[pair("begin", "segments_of_16MiB", "segments_of_64MiB")],
    );
}

fn options(segment_bytes: u64) -> Options {
    Log::options()
        .segment_bytes_min(segment_bytes)
        .segment_bytes_max(segment_bytes)
        .flush(Flush::OnDemand)
}

fn topics(count: u32) -> Vec<Topic> {
    let name = |number| format!("rooms:{number:07}");
    (0..count)
        .map(|number| Topic::new(name(number)).expect("a topic"))
        .collect()
}

/// Over several segments, and with the closing, which waits for the thread that writes the topics
/// files of those that are full.
fn append(criterion: &mut Criterion) {
    const RECORDS: u32 = 2_000_000 / SCALE;
    let (topics, payload) = (topics(100_000), payload(PAYLOAD_BYTES));
    let mut group = criterion.benchmark_group("topics_append");
    group.throughput(Throughput::Elements(RECORDS.into()));
    group.sampling_mode(SamplingMode::Flat);
    let to_none = |log: &Log| {
        for _ in 0..RECORDS {
            log.append(&payload).expect("appended");
        }
    };
    let to_all = |log: &Log| {
        for topic in topics.iter().cycle().take(RECORDS as usize) {
            log.append_to(topic, &payload).expect("appended");
        }
    };
    let closed = |log: &Log| log.close().expect("closed");
    group.bench_function("none", |b| b.iter_custom(|rounds| timed(rounds, to_none)));
    group.bench_function("100000", |b| b.iter_custom(|rounds| timed(rounds, to_all)));
    group.bench_function("none_closed", |b| {
        b.iter_custom(|rounds| {
            timed(rounds, |log| {
                to_none(log);
                closed(log);
            })
        });
    });
    group.bench_function("100000_closed", |b| {
        b.iter_custom(|rounds| {
            timed(rounds, |log| {
                to_all(log);
                closed(log);
            })
        });
    });
    group.finish();
}

/// The time that `work` takes, each time on a fresh log.
fn timed(rounds: u64, work: impl Fn(&Log)) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let dir = tempfile::tempdir_in(".").expect("a directory");
        let log = options(64 << 20).open(dir.path()).expect("a log");
        log.append(b"makes the segment").expect("appended");
        let started = Instant::now();
        work(&log);
        spent += started.elapsed();
    }
    spent
}

/// Every tailer has caught up and waits, as a future that was polled.
fn tail(criterion: &mut Criterion) {
    const RECORDS: u32 = 100_000 / SCALE;
    let (topics, payload) = (topics(10_000), payload(PAYLOAD_BYTES));
    let busy = Topic::new("busy").expect("a topic");
    let mut group = criterion.benchmark_group("topics_tail");
    group.throughput(Throughput::Elements(RECORDS.into()));
    for waiting in [0, 1, 100, 10_000] {
        group.bench_function(BenchmarkId::from_parameter(waiting), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let dir = tempfile::tempdir_in(".").expect("a directory");
                    let log = options(64 << 20).open(dir.path()).expect("a log");
                    log.append(b"makes the segment").expect("appended");
                    let mut waits: Vec<_> = topics[..waiting]
                        .iter()
                        .map(|topic| wait_for(log.tail(Start::Latest).topic(topic)))
                        .collect();
                    waits.iter_mut().for_each(|wait| assert!(is_waiting(wait)));
                    let started = Instant::now();
                    for _ in 0..RECORDS {
                        log.append_to(&busy, &payload).expect("appended");
                    }
                    spent += started.elapsed();
                    waits.iter_mut().for_each(|wait| assert!(is_waiting(wait)));
                }
                spent
            });
        });
    }
    group.finish();
}

type Wait = Pin<Box<dyn Future<Output = Record>>>;

fn wait_for(mut tailer: dacapo_log::Tailer) -> Wait {
    Box::pin(async move { tailer.next().await.expect("sound") })
}

fn is_waiting(wait: &mut Wait) -> bool {
    let polled = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    matches!(polled, Poll::Pending)
}

/// One topic of 1,000 records in 10,000,000 of 10,000 topics.
fn replay(criterion: &mut Criterion) {
    const TOPIC_RECORDS: u32 = 1000 / SCALE;
    let topics = topics(10_000);
    let mut kept = None;
    let mut group = criterion.benchmark_group("topics_replay");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("topic", |b| {
        let (_, log) = kept.get_or_insert_with(|| filled(64 << 20, &topics, TOPIC_RECORDS));
        b.iter(|| {
            let mut replay = log.replay(Start::Oldest).topic(&topics[7777]);
            let mut records = 0;
            while let Some(record) = replay.next_ref() {
                assert_eq!(record.expect("sound").topic(), topics[7777].as_str());
                records += 1;
            }
            assert_eq!(records, TOPIC_RECORDS);
        });
    });
    group.bench_function("scan", |b| {
        let (_, log) = kept.get_or_insert_with(|| filled(64 << 20, &topics, TOPIC_RECORDS));
        b.iter(|| {
            let (mut replay, mut records) = (log.replay(Start::Oldest), 0);
            while let Some(record) = replay.next_ref() {
                records += u32::from(record.expect("sound").topic() == topics[7777].as_str());
            }
            assert_eq!(records, TOPIC_RECORDS);
        });
    });
    group.finish();
}

/// The first record of a replay of one topic, in 5,000,000 records of 10,000 topics.
fn begin(criterion: &mut Criterion) {
    let topics = topics(10_000);
    let mut group = criterion.benchmark_group("topics_begin");
    for (name, segment_bytes) in [
        ("segments_of_64MiB", 64 << 20),
        ("segments_of_16MiB", 16 << 20),
    ] {
        let mut kept = None;
        group.bench_function(name, |b| {
            let (_, log) = kept.get_or_insert_with(|| filled(segment_bytes, &topics, 500 / SCALE));
            b.iter_batched(
                || log.replay(Start::Oldest).topic(&topics[7777]),
                |mut replay| assert!(replay.next().expect("a record").is_ok()),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// A log with as many records of each topic, in turn, that has all its topics files.
fn filled(segment_bytes: u64, topics: &[Topic], rounds: u32) -> (tempfile::TempDir, Log) {
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let log = options(segment_bytes).open(dir.path()).expect("a log");
    let payload = payload(PAYLOAD_BYTES);
    for _ in 0..rounds {
        for topic in topics {
            log.append_to(topic, &payload).expect("appended");
        }
    }
    log.close().expect("closed");
    drop(log);
    let log = Log::open(dir.path()).expect("a log");
    (dir, log)
}
