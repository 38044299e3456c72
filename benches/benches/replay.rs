//! How near is a verified replay to summing the same bytes in a mapped file?
//!
//! One loop borrows each record (`next_ref`), the other one takes it to keep (the iterator).

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use dacapo_benches::limit::{MappedFile, frame_bytes};
use dacapo_benches::{PAYLOADS, payload, ratio, run};
use dacapo_log::{Log, Start};

/// More than the processor's own caches hold: a log that is replayed is in memory at best.
const STORED_BYTES: usize = 48 << 20;

fn main() {
    let mut criterion = run::criterion(20);
    for (name, bytes) in PAYLOADS {
        bench(&mut criterion, name, &payload(bytes));
    }
    criterion.final_summary();
    let pairs = |bench: &'static str| {
        PAYLOADS.map(|(name, _)| {
            (
                format!("replay/{bench}/{name}"),
                format!("replay/limit/{name}"),
            )
        })
    };
    ratio::print(
        "replay, verified, borrowed records, against summing CRC-32 over mapped bytes:",
        &pairs("borrowed"),
    );
    ratio::print(
        "replay, verified, records to keep, against the same:",
        &pairs("kept"),
    );
}

fn bench(criterion: &mut Criterion, name: &str, payload: &[u8]) {
    let records =
        u32::try_from(STORED_BYTES / frame_bytes(payload.len())).expect("a number of records");
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(records.into()));
    group.bench_function(BenchmarkId::new("limit", name), |b| {
        let mut file = MappedFile::new(64 << 20).expect("a mapped file");
        for number in 0..records {
            file.append(number, 0, payload);
        }
        b.iter(|| assert_eq!(black_box(&file).sum_all(), u64::from(records)));
    });
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let log = Log::options()
        .segment_bytes_min(64 << 20)
        .open(dir.path())
        .expect("a log");
    for _ in 0..records {
        log.append(payload).expect("appended");
    }
    group.bench_function(BenchmarkId::new("borrowed", name), |b| {
        b.iter(|| {
            let (mut replay, mut bytes) = (log.replay(Start::Oldest), 0);
            while let Some(record) = replay.next_ref() {
                bytes += record.expect("sound").payload().len();
            }
            assert_eq!(bytes, payload.len() * records as usize);
        });
    });
    group.bench_function(BenchmarkId::new("kept", name), |b| {
        b.iter(|| {
            let kept = log
                .replay(Start::Oldest)
                .map(|record| record.expect("sound"));
            assert_eq!(
                kept.map(|record| record.payload().len()).sum::<usize>(),
                payload.len() * records as usize
            );
        });
    });
    group.finish();
}
