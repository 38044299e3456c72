//! How fast do many receivers read what one writer appends, and what does waking a thousand cost?
//!
//! `fan_out_flat_out` is the time until each of so many receivers, on two threads, has read each record
//! where it lies, while a third thread appends, against as many cursors on one mapped file: `verified`
//! sums each record for each receiver as the engine does, `walked` looks at lengths only.
//! `fan_out_woken` appends one record at a time to 1,000 waiting tasks of a runtime with two threads,
//! and goes on when all of them have it, against one list of wakers behind a mutex; then it says how
//! long the appends took.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use dacapo_benches::limit::frame_bytes;
use dacapo_benches::quantiles::Quantiles;
use dacapo_benches::shared::Reader;
use dacapo_benches::{payload, ratio, run, shared};
use dacapo_log::{Flush, Log, Start, Tailer};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PAYLOAD_BYTES: usize = 100;
const RECEIVERS: [u32; 4] = [1, 10, 100, 1_000];
const READER_THREADS: usize = 2;
const WAITING: u64 = 1_000;

fn main() {
    let mut criterion = run::criterion(10);
    flat_out(&mut criterion);
    let appends = woken(&mut criterion);
    criterion.final_summary();
    for limit in ["verified", "walked"] {
        ratio::print(
            &format!("records to so many receivers, flat out, against a mapped file, {limit}:"),
            &RECEIVERS.map(|receivers| {
                (
                    format!("fan_out_flat_out/tailers/{receivers}"),
                    format!("fan_out_flat_out/{limit}/{receivers}"),
                )
            }),
        );
    }
    ratio::print(
        "a record to 1,000 waiting tasks, against one list of wakers:",
        &[("fan_out_woken/tailers".into(), "fan_out_woken/limit".into())],
    );
    if !appends.is_empty() {
        Quantiles::print_head("the append that wakes 1,000:");
        Quantiles::of(appends).print("append");
    }
}

fn log() -> (TempDir, Log) {
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let options = Log::options().segment_bytes_min(32 << 20);
    let log = options.flush(Flush::OnDemand).open(dir.path());
    let log = log.expect("a log");
    log.append(b"makes the segment").expect("appended");
    (dir, log)
}

fn flat_out(criterion: &mut Criterion) {
    let payload = payload(PAYLOAD_BYTES);
    let mut group = criterion.benchmark_group("fan_out_flat_out");
    for receivers in RECEIVERS {
        let records = run::scaled(if receivers < 100 { 100_000 } else { 10_000 });
        let deliveries = u64::from(receivers) * u64::from(records);
        group.throughput(Throughput::Elements(deliveries));
        for (name, verified) in [("verified", true), ("walked", false)] {
            group.bench_function(BenchmarkId::new(name, receivers), |b| {
                b.iter_custom(|rounds| {
                    let fanned_out = || {
                        let bytes = records as usize * frame_bytes(PAYLOAD_BYTES);
                        let (mut writer, reader) = shared::frames(bytes).expect("a mapped file");
                        let append = || {
                            for number in 0..records {
                                writer.append(number, &payload);
                            }
                        };
                        let readers = vec![reader; receivers as usize];
                        let read = |reader: &mut Reader| {
                            let payload = match verified {
                                true => reader.next_verified(),
                                false => reader.next_unverified(),
                            };
                            black_box(payload).is_some()
                        };
                        timed(records, readers, append, read, |reader| reader.wait())
                    };
                    (0..rounds).map(|_| fanned_out()).sum()
                });
            });
        }
        group.bench_function(BenchmarkId::new("tailers", receivers), |b| {
            b.iter_custom(|rounds| {
                let fanned_out = || {
                    let (_dir, log) = log();
                    let append = || {
                        for _ in 0..records {
                            log.append(&payload).expect("appended");
                        }
                    };
                    let tailers = (0..receivers).map(|_| log.tail(Start::Latest)).collect();
                    timed(records, tailers, append, borrow, wait)
                };
                (0..rounds).map(|_| fanned_out()).sum()
            });
        });
    }
    group.finish();
}

/// Reads a record where it lies, if there is one.
fn borrow(tailer: &mut Tailer) -> bool {
    let record = tailer.try_next_ref().expect("sound");
    black_box(record.map(|record| record.payload())).is_some()
}

/// Waits until there is a record that was not read yet.
fn wait(tailer: &mut Tailer) {
    let arrival = tailer.arrival();
    // Look again: a record may have landed before it began to listen.
    if tailer.remaining().expect("sound") == 0 {
        arrival.wait();
    }
}

/// The time until `append` is done and each reader has read so many records, which `read` does one
/// at a time while there are any. Whoever has read all that there is waits.
fn timed<R: Send>(
    records: u32,
    mut readers: Vec<R>,
    append: impl FnOnce(),
    read: impl Fn(&mut R) -> bool + Sync,
    wait: impl Fn(&mut R) + Sync,
) -> Duration {
    let each = readers.len().div_ceil(READER_THREADS);
    let deliveries = u64::from(records);
    let (read, wait) = (&read, &wait);
    thread::scope(|scope| {
        let threads: Vec<_> = readers
            .chunks_mut(each)
            .map(|readers| {
                scope.spawn(move || {
                    let (whole, mut count) = (deliveries * readers.len() as u64, 0);
                    while count < whole {
                        for reader in &mut *readers {
                            while read(reader) {
                                count += 1;
                            }
                        }
                        if count < whole {
                            // The first one that has nothing to read knows when there is more.
                            wait(&mut readers[0]);
                        }
                    }
                })
            })
            .collect();
        let started = Instant::now();
        append();
        for thread in threads {
            thread.join().expect("it read them");
        }
        started.elapsed()
    })
}

/// Counts deliveries, and unparks the writer behind the last one of each record.
#[derive(Clone)]
struct Delivered {
    count: Arc<AtomicU64>,
    writer: thread::Thread,
}

impl Delivered {
    fn new() -> Self {
        let (count, writer) = (Arc::default(), thread::current());
        Self { count, writer }
    }

    fn one(&self) {
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        if count.is_multiple_of(WAITING) {
            self.writer.unpark();
        }
    }

    fn wait_for(&self, records: u64) {
        while self.count.load(Ordering::Acquire) < records * WAITING {
            thread::park();
        }
    }
}

/// Returns how long the appends took, each of which woke everybody.
fn woken(criterion: &mut Criterion) -> Vec<Duration> {
    let records = u64::from(run::scaled(100)).max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("fan_out_woken");
    group.throughput(Throughput::Elements(WAITING * records));
    group.bench_function("limit", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| wake_list(&runtime, records)).sum());
    });
    let mut appends = Vec::new();
    group.bench_function("tailers", |b| {
        b.iter_custom(|rounds| {
            let woken = |_| wake_tailers(&runtime, records, &mut appends);
            (0..rounds).map(woken).sum()
        });
    });
    group.finish();
    appends
}

fn wake_tailers(runtime: &Runtime, records: u64, appends: &mut Vec<Duration>) -> Duration {
    let ((_dir, log), delivered, payload) = (log(), Delivered::new(), payload(PAYLOAD_BYTES));
    // One more: that which shows that all of them have begun.
    for _ in 0..WAITING {
        let (mut tailer, delivered) = (log.tail(Start::Latest), delivered.clone());
        runtime.spawn(async move {
            for _ in 0..=records {
                black_box(tailer.next().await.expect("sound"));
                delivered.one();
            }
        });
    }
    log.append(&payload).expect("appended");
    delivered.wait_for(1);
    let started = Instant::now();
    for number in 1..=records {
        let before = Instant::now();
        log.append(&payload).expect("appended");
        appends.push(before.elapsed());
        delivered.wait_for(number + 1);
    }
    started.elapsed()
}

/// A number that only grows, and who waits for it.
#[derive(Default)]
struct Numbered {
    number: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl Numbered {
    fn raise(&self, number: u64) {
        let mut waiting = self.waiting.lock().expect("no thread has failed");
        self.number.store(number, Ordering::Release);
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        for waker in woken {
            waker.wake();
        }
    }

    async fn reached(&self, number: u64) {
        std::future::poll_fn(|cx| {
            if self.number.load(Ordering::Acquire) >= number {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.lock().expect("no thread has failed");
            if self.number.load(Ordering::Acquire) >= number {
                return Poll::Ready(());
            }
            waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn wake_list(runtime: &Runtime, records: u64) -> Duration {
    let (numbered, delivered) = (Arc::new(Numbered::default()), Delivered::new());
    for _ in 0..WAITING {
        let (numbered, delivered) = (Arc::clone(&numbered), delivered.clone());
        runtime.spawn(async move {
            for number in 1..=records + 1 {
                numbered.reached(number).await;
                delivered.one();
            }
        });
    }
    numbered.raise(1);
    delivered.wait_for(1);
    let started = Instant::now();
    for number in 2..=records + 1 {
        numbered.raise(number);
        delivered.wait_for(number);
    }
    started.elapsed()
}
