//! How near is an append to the least that a log on mapped files must do?
//!
//! Each round appends [`PAYLOAD_BYTES`] of payloads to a fresh segment that is ready, against a loop that
//! copies the same payloads with a header and a CRC-32 of the same size into a mapped file that was
//! zeroed ahead in the same way. Both touch each page for the first time, as a log does.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use dacapo_benches::limit::MappedFile;
use dacapo_benches::{PAYLOADS, payload, ratio, run};
use dacapo_log::{Flush, Log, Stamp};

const PAYLOAD_BYTES: usize = 16 << 20;
const SEGMENT_BYTES: u32 = 64 << 20;

fn main() {
    let mut criterion = run::criterion(10);
    for (name, bytes) in PAYLOADS {
        bench(&mut criterion, name, &payload(bytes));
    }
    criterion.final_summary();
    let pairs = |bench: &'static str| {
        PAYLOADS.map(|(name, _)| {
            (
                format!("append/{bench}/{name}"),
                format!("append/limit/{name}"),
            )
        })
    };
    ratio::print(
        "append, one a call, against copy + header + CRC-32 into a mapped file:",
        &pairs("one"),
    );
    ratio::print("append_once, one a call, against the same:", &pairs("once"));
    ratio::print(
        "append in batches of 100, against the same:",
        &pairs("batch_of_100"),
    );
}

fn bench(criterion: &mut Criterion, name: &str, payload: &[u8]) {
    let records = u32::try_from(PAYLOAD_BYTES / payload.len()).expect("a number of records");
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(records.into()));
    group.bench_function(BenchmarkId::new("limit", name), |b| {
        b.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let mut file = MappedFile::new(SEGMENT_BYTES as usize).expect("a mapped file");
                let started = Instant::now();
                for number in 0..records {
                    file.append(number, 0, payload);
                }
                spent += started.elapsed();
            }
            spent
        });
    });
    group.bench_function(BenchmarkId::new("one", name), |b| {
        b.iter_custom(|rounds| {
            timed(rounds, |log| {
                for _ in 0..records {
                    log.append(payload).expect("appended");
                }
            })
        });
    });
    group.bench_function(BenchmarkId::new("once", name), |b| {
        b.iter_custom(|rounds| {
            timed(rounds, |log| {
                for sequence in 0..u64::from(records) {
                    let stamp = Stamp {
                        producer: 1,
                        epoch: 0,
                        sequence,
                    };
                    log.append_once(stamp, None, payload).expect("appended");
                }
            })
        });
    });
    group.bench_function(BenchmarkId::new("batch_of_100", name), |b| {
        let batch = [payload; 100];
        b.iter_custom(|rounds| {
            timed(rounds, |log| {
                for _ in 0..records / 100 {
                    log.append_batch(batch).expect("appended");
                }
            })
        });
    });
    group.finish();
}

/// The time that `work` takes, each time on a fresh log with one large segment ready.
fn timed(rounds: u64, work: impl Fn(&Log)) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let dir = tempfile::tempdir_in(".").expect("a directory");
        let log = Log::options()
            .segment_bytes_min(SEGMENT_BYTES.into())
            .segment_bytes_max(SEGMENT_BYTES.into())
            .flush(Flush::OnDemand)
            .open(dir.path())
            .expect("a log");
        log.append(b"makes the segment").expect("appended");
        let started = Instant::now();
        work(&log);
        spent += started.elapsed();
    }
    spent
}
