//! How fast does one reader follow one writer, how soon does it wake, and what does the writer pay?
//!
//! `tail_flat_out` is the time until a second thread has read what the first one appends as fast as
//! it can, against two threads with a mapped file, a published length and a futex. `tail_wake` is the
//! time from an append to a sleeping reader that has the record, against a bare futex. `tail_nobody`
//! is what an append costs when nobody waits: in a log without tailers, in one whose tailer waited and
//! is gone, and in one with a tailer that does not wait now.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use dacapo_benches::event::Event;
use dacapo_benches::limit::frame_bytes;
use dacapo_benches::quantiles::Quantiles;
use dacapo_benches::{PAYLOADS, payload, ratio, run, shared};
use dacapo_log::{Flush, Log, Start, Tailer};
use tempfile::TempDir;

const PAYLOAD_BYTES: usize = 32 << 20;

fn main() {
    let mut criterion = run::criterion(20);
    for (name, bytes) in PAYLOADS {
        flat_out(&mut criterion, name, &payload(bytes));
    }
    nobody(&mut criterion);
    criterion.final_summary();
    let pairs = ["borrowed", "kept"].map(|ours| {
        PAYLOADS.map(|(name, _)| {
            (
                format!("tail_flat_out/{ours}/{name}"),
                format!("tail_flat_out/limit/{name}"),
            )
        })
    });
    ratio::print(
        "1 writer and 1 reader, flat out, against a mapped file and a futex:",
        &pairs.concat(),
    );
    ratio::print(
        "append of 100 B with nobody waiting, against in a log without tailers:",
        &["tailer_gone", "tailer_awake"].map(|log| {
            (
                format!("tail_nobody/{log}"),
                "tail_nobody/no_tailer".to_owned(),
            )
        }),
    );
    if run::asks_for("tail_wake") {
        wake();
    }
}

/// A log with one large segment ready, and a tailer behind its first record.
fn log() -> (TempDir, Log, Tailer) {
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let options = Log::options().segment_bytes_min(64 << 20);
    let log = options.flush(Flush::OnDemand).open(dir.path());
    let log = log.expect("a log");
    log.append(b"makes the segment").expect("appended");
    let tailer = log.tail(Start::Latest);
    (dir, log, tailer)
}

fn flat_out(criterion: &mut Criterion, name: &str, payload: &[u8]) {
    let whole = u32::try_from(PAYLOAD_BYTES / payload.len()).expect("a number of records");
    let records = run::scaled(whole);
    let mut group = criterion.benchmark_group("tail_flat_out");
    group.throughput(Throughput::Elements(records.into()));
    group.bench_function(BenchmarkId::new("limit", name), |b| {
        b.iter_custom(|rounds| {
            let file = || shared::frames(records as usize * frame_bytes(payload.len()));
            let followed = || {
                let (mut writer, mut reader) = file().expect("a mapped file");
                let append = move || {
                    for number in 0..records {
                        writer.append(number, payload);
                    }
                };
                let read = move || {
                    let mut read = 0;
                    while read < records {
                        match reader.next_verified() {
                            Some(payload) => read += u32::from(!black_box(payload).is_empty()),
                            None => reader.wait(),
                        }
                    }
                };
                timed(append, read)
            };
            (0..rounds).map(|_| followed()).sum()
        });
    });
    let append = |log: &Log| {
        for _ in 0..records {
            log.append(payload).expect("appended");
        }
    };
    group.bench_function(BenchmarkId::new("borrowed", name), |b| {
        b.iter_custom(|rounds| {
            let followed = || {
                let (_dir, log, mut tailer) = log();
                timed(|| append(&log), move || borrow(&mut tailer, records))
            };
            (0..rounds).map(|_| followed()).sum()
        });
    });
    group.bench_function(BenchmarkId::new("kept", name), |b| {
        b.iter_custom(|rounds| {
            let followed = || {
                let (_dir, log, mut tailer) = log();
                let read = move || {
                    for _ in 0..records {
                        black_box(tailer.next_blocking().expect("sound").payload());
                    }
                };
                timed(|| append(&log), read)
            };
            (0..rounds).map(|_| followed()).sum()
        });
    });
    group.finish();
}

/// Reads so many records where they lie, and waits where there is none.
fn borrow(tailer: &mut Tailer, records: u32) {
    let mut read = 0;
    while read < records {
        while let Some(record) = tailer.try_next_ref().expect("sound") {
            black_box(record.payload());
            read += 1;
        }
        if read < records {
            let arrival = tailer.arrival();
            // Look again: a record may have landed before it began to listen.
            match tailer.try_next_ref().expect("sound") {
                Some(record) => {
                    black_box(record.payload());
                    read += 1;
                }
                None => arrival.wait(),
            }
        }
    }
}

/// The time until a thread has read what this one appends.
fn timed(append: impl FnOnce(), read: impl FnOnce() + Send) -> Duration {
    thread::scope(|scope| {
        let reader = scope.spawn(read);
        let started = Instant::now();
        append();
        reader.join().expect("it read them");
        started.elapsed()
    })
}

fn nobody(criterion: &mut Criterion) {
    let records = run::scaled(200_000);
    let payload = payload(100);
    let mut group = criterion.benchmark_group("tail_nobody");
    group.throughput(Throughput::Elements(records.into()));
    for name in ["no_tailer", "tailer_gone", "tailer_awake"] {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let appended = || {
                    let (_dir, log, mut tailer) = log();
                    let tailer = match name {
                        "no_tailer" => None,
                        _ => {
                            let nothing = tailer.next_timeout(Duration::from_micros(1));
                            assert!(nothing.expect("sound").is_none());
                            (name == "tailer_awake").then_some(tailer)
                        }
                    };
                    let started = Instant::now();
                    for _ in 0..records {
                        log.append(&payload).expect("appended");
                    }
                    let spent = started.elapsed();
                    drop(tailer);
                    spent
                };
                (0..rounds).map(|_| appended()).sum()
            });
        });
    }
    group.finish();
}

/// Both in turn, so that whatever else happens on the machine happens to both.
fn wake() {
    const TURN: u64 = 100;
    let turns = if run::measures() { 30 } else { 1 };
    let (mut futex, mut tailer) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        futex.extend(wake_by_futex(TURN));
        tailer.extend(wake_tailer(TURN));
    }
    let [futex, tailer] = [futex, tailer].map(Quantiles::of);
    Quantiles::print_head("from an append to a sleeping reader that has it:");
    futex.print("bare futex");
    tailer.print("tailer");
    let times = tailer.at(500).as_secs_f64() / futex.at(500).as_secs_f64();
    println!("  p50 against the limit: {times:.2} x");
}

fn wake_by_futex(times: u64) -> Vec<Duration> {
    let (number, event) = (AtomicU64::new(0), Event::default());
    let wait = |expected| {
        let reached = || (number.load(Ordering::Acquire) >= expected).then_some(());
        event.wait(reached);
    };
    let wake = |next| {
        number.store(next, Ordering::Release);
        event.notify();
    };
    wakes(times, wait, wake)
}

fn wake_tailer(times: u64) -> Vec<Duration> {
    let (_dir, log, mut tailer) = log();
    let payload = payload(100);
    let wait = move |_| {
        tailer.next_blocking().expect("sound");
    };
    let wake = |_| {
        log.append(&payload).expect("appended");
    };
    wakes(times, wait, wake)
}

/// The times from before `wake` to behind `wait`, each on a thread that has gone to sleep.
fn wakes(times: u64, mut wait: impl FnMut(u64) + Send, wake: impl Fn(u64)) -> Vec<Duration> {
    /// Long enough to fall asleep.
    const PAUSE: Duration = Duration::from_micros(150);
    let (send_started, started) = std::sync::mpsc::channel();
    let (send_woken, woken) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 1..=times {
                send_started.send(()).expect("somebody wakes it");
                wait(number);
                send_woken.send(Instant::now()).expect("somebody wakes it");
            }
        });
        let round = |number| {
            started.recv().expect("it waits");
            thread::sleep(PAUSE);
            let before = Instant::now();
            wake(number);
            woken.recv().expect("it woke") - before
        };
        (1..=times).map(round).collect()
    })
}
