//! How near is a verified replay to summing the same bytes in a mapped file?
//!
//! One loop borrows each record (`next_ref`), the other one takes it to keep (the iterator).

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use dacapo_benches::limit::MappedFile;
use dacapo_benches::{PAYLOADS, payload, ratio, run};
use dacapo_log::{Log, Start};

const RECORDS: u32 = 50_000;

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
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(RECORDS.into()));
    group.bench_function(BenchmarkId::new("limit", name), |b| {
        let mut file = MappedFile::new(64 << 20).expect("a mapped file");
        for number in 0..RECORDS {
            file.append(number, 0, payload);
        }
        b.iter(|| assert_eq!(black_box(&file).sum_all(), u64::from(RECORDS)));
    });
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let log = Log::options()
        .segment_bytes_min(64 << 20)
        .open(dir.path())
        .expect("a log");
    for _ in 0..RECORDS {
        log.append(payload).expect("appended");
    }
    group.bench_function(BenchmarkId::new("borrowed", name), |b| {
        b.iter(|| {
            let (mut replay, mut bytes) = (log.replay(Start::Oldest), 0);
            while let Some(record) = replay.next_ref() {
                bytes += record.expect("sound").payload().len();
            }
            assert_eq!(bytes, payload.len() * RECORDS as usize);
        });
    });
    group.bench_function(BenchmarkId::new("kept", name), |b| {
        b.iter(|| {
            let records = log
                .replay(Start::Oldest)
                .map(|record| record.expect("sound"));
            assert_eq!(
                records.map(|record| record.payload().len()).sum::<usize>(),
                payload.len() * RECORDS as usize
            );
        });
    });
    group.finish();
}
