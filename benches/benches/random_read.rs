//! How near is reading one record, wherever it is, to reading it at a known position?
//!
//! Offsets at random in a log of 256 MiB, by `Log::get` and as the first record of a replay, against
//! verified reads at known positions in one mapped file of as many bytes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use dacapo_benches::limit::frame_bytes;
use dacapo_benches::{PAYLOADS, payload, ratio, run, shared};
use dacapo_log::{Flush, Log, Offset, Start};

const BYTES: usize = 256 << 20;

fn main() {
    let mut criterion = run::criterion(20);
    for (name, bytes) in PAYLOADS {
        bench(&mut criterion, name, &payload(bytes));
    }
    criterion.final_summary();
    let question = "read at a random offset, verified, against at a known position:";
    let pairs = ["get", "replay"].map(|ours| {
        PAYLOADS.map(|(name, _)| {
            (
                format!("random_read/{ours}/{name}"),
                format!("random_read/limit/{name}"),
            )
        })
    });
    ratio::print(question, &pairs.concat());
}

fn bench(criterion: &mut Criterion, name: &str, payload: &[u8]) {
    let whole = BYTES / frame_bytes(payload.len());
    let records = run::scaled(u32::try_from(whole).expect("a number of records"));
    let mut group = criterion.benchmark_group("random_read");
    group.bench_function(BenchmarkId::new("limit", name), |b| {
        let bytes = records as usize * frame_bytes(payload.len());
        let (mut writer, reader) = shared::frames(bytes).expect("a mapped file");
        let positions: Vec<_> = (0..records).map(|n| writer.append(n, payload)).collect();
        let mut random = Random(1);
        b.iter(|| {
            let position = positions[random.below(records) as usize];
            black_box(reader.verified_at(position).len())
        });
    });
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let options = Log::options().segment_bytes_min(64 << 20);
    let log = options.flush(Flush::OnDemand).open(dir.path());
    let log = log.expect("a log");
    for _ in 0..records {
        log.append(payload).expect("appended");
    }
    group.bench_function(BenchmarkId::new("get", name), |b| {
        let mut random = Random(1);
        b.iter(|| {
            let offset = Offset::new(random.below(records).into());
            black_box(log.get(offset).expect("a record").payload().len())
        });
    });
    group.bench_function(BenchmarkId::new("replay", name), |b| {
        let mut random = Random(1);
        b.iter(|| {
            let offset = Offset::new(random.below(records).into());
            let mut replay = log.replay(Start::At(offset));
            let record = replay.next_ref().expect("a record").expect("sound");
            black_box(record.payload().len())
        });
    });
    group.finish();
}

/// xorshift64 (Marsaglia: Xorshift RNGs, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let scaled = ((self.0 >> 32) * u64::from(end)) >> 32;
        u32::try_from(scaled).expect("below a number of 32 bits")
    }
}
