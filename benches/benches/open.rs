//! How soon is a log open, however large it is, and after a kill?
//!
//! `open_clean` opens logs of 1, 64 and 1,024 GiB that were closed: sparse files of 1 GiB each, which
//! hold one record. The limit reads what says where such a log ends: `LOCK`, `meta`, and header and
//! footer of the last segment. `open_killed` opens what a kill leaves, a segment of 64 MiB that is
//! nearly full: `written_back` with the file on the disk already, `dirty` with all of it in the page cache
//! only, which the opening has to sync. They are held against summing the CRC-32 of as many records in
//! memory, and against syncing the same file, dropping it from the page cache, and summing what is
//! read from the disk: what the page cache holds behind a failed sync is not to be believed.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use dacapo_benches::limit::{MappedFile, frame_bytes};
use dacapo_benches::{payload, ratio, run};
use dacapo_log::{Flush, Log, Start};
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

const SPARSE_BYTES: u64 = 1 << 30;
const GIBIBYTES: [u32; 3] = [1, 64, 1_024];
const PAYLOAD_BYTES: usize = 100;
const SEGMENT_BYTES: usize = 64 << 20;

/// What the disk has of the last segment, and whether that is all of it.
const STATES: [(&str, bool); 2] = [("written_back", true), ("dirty", false)];

fn main() {
    let mut criterion = run::criterion(20);
    clean(&mut criterion);
    killed(&mut criterion);
    criterion.final_summary();
    ratio::print(
        "opening a closed log of so many GiB, against reading the ends of its last segment:",
        &GIBIBYTES.map(|gibibytes| {
            (
                format!("open_clean/log/{gibibytes}"),
                format!("open_clean/limit/{gibibytes}"),
            )
        }),
    );
    ratio::print(
        "opening after a kill, against summing the last segment in memory:",
        &STATES.map(|(state, _)| {
            (
                format!("open_killed/log/{state}"),
                "open_killed/limit".to_owned(),
            )
        }),
    );
    ratio::print(
        "opening after a kill, against summing it from the disk:",
        &STATES.map(|(state, _)| {
            (
                format!("open_killed/log/{state}"),
                format!("open_killed/limit_on_disk/{state}"),
            )
        }),
    );
}

fn clean(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open_clean");
    group.sampling_mode(SamplingMode::Flat);
    for gibibytes in GIBIBYTES {
        if !run::measures() && gibibytes > 1 {
            continue;
        }
        let dir = tempfile::tempdir_in(".").expect("a directory");
        let last = sparse_log(dir.path(), gibibytes).expect("a sparse log");
        group.bench_function(BenchmarkId::new("limit", gibibytes), |b| {
            b.iter(|| read_ends(dir.path(), &last).expect("read"));
        });
        group.bench_function(BenchmarkId::new("log", gibibytes), |b| {
            b.iter_custom(|rounds| {
                let opened = || {
                    let started = Instant::now();
                    let log = Log::open(dir.path()).expect("a log");
                    let spent = started.elapsed();
                    log.close().expect("closed");
                    spent
                };
                (0..rounds).map(|_| opened()).sum()
            });
        });
    }
    group.finish();
}

/// A closed log of so many sealed segments of 1 GiB, and one small one that is not full; returns the
/// last one's path. What the segments hold is a record each: the rest are holes.
fn sparse_log(dir: &Path, segments: u32) -> io::Result<PathBuf> {
    const SMALLEST: u64 = 16 << 10;
    let options = Log::options().segment_bytes_min(SMALLEST);
    let options = options.segment_bytes_max(SMALLEST).flush(Flush::OnDemand);
    let log = options.open(dir).map_err(io::Error::other)?;
    // Two of these do not fit into one segment.
    let payload = payload(5_000);
    for _ in 0..=segments {
        log.append(&payload).map_err(io::Error::other)?;
    }
    log.close().map_err(io::Error::other)?;
    drop(log);
    let mut files = segment_files(dir)?;
    let last = files.pop().ok_or_else(|| io::Error::other("no segment"))?;
    for file in &files {
        stretch(file, SPARSE_BYTES)?;
    }
    let log = Log::open(dir).map_err(io::Error::other)?;
    assert_eq!(log.next_offset().get(), u64::from(segments) + 1);
    let records = log
        .replay(Start::Oldest)
        .map(|record| record.expect("sound"));
    assert_eq!(records.count(), segments as usize + 1);
    log.close().map_err(io::Error::other)?;
    Ok(last)
}

fn segment_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Makes a sealed segment longer: its header says how long it is, and its footer stands in the last
/// page (docs/format.md).
fn stretch(path: &Path, bytes: u64) -> io::Result<()> {
    const PAGE: usize = 4096;
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let (mut header, mut footer) = ([0; 64], [0; PAGE]);
    let before = file.metadata()?.len();
    file.read_exact_at(&mut header, 0)?;
    file.read_exact_at(&mut footer, before - PAGE as u64)?;
    file.set_len(bytes)?;
    file.write_all_at(&[0; PAGE], before - PAGE as u64)?;
    file.write_all_at(&footer, bytes - PAGE as u64)?;
    header[40..48].copy_from_slice(&bytes.to_le_bytes());
    let sum = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&sum.to_le_bytes());
    file.write_all_at(&header, 0)
}

/// The least that says where a closed log ends.
fn read_ends(dir: &Path, last: &Path) -> io::Result<()> {
    let lock = File::open(dir.join("LOCK"))?;
    lock.lock()?;
    let meta = fs::read(dir.join("meta"))?;
    let file = File::open(last)?;
    let (mut header, mut footer) = ([0; 64], [0; 64]);
    file.read_exact_at(&mut header, 0)?;
    file.read_exact_at(&mut footer, file.metadata()?.len() - 4096)?;
    black_box((crc32fast::hash(&meta), header, footer));
    Ok(())
}

fn killed(criterion: &mut Criterion) {
    let payload = payload(PAYLOAD_BYTES);
    let records = run::scaled(500_000);
    let mut group = criterion.benchmark_group("open_killed");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("limit", |b| {
        let mut file = MappedFile::new(SEGMENT_BYTES).expect("a mapped file");
        for number in 0..records {
            file.append(number, 0, &payload);
        }
        b.iter(|| assert_eq!(black_box(&file).sum_all(), u64::from(records)));
    });
    // What a killed process leaves is what its files are while it still runs.
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let options = Log::options().segment_bytes_min(SEGMENT_BYTES as u64);
    let log = options.flush(Flush::OnDemand).open(dir.path());
    let log = log.expect("a log");
    for _ in 0..records {
        log.append(&payload).expect("appended");
    }
    for (state, is_written_back) in STATES {
        let on_a_copy = |rounds, work: &dyn Fn(&Path) -> Option<Log>| {
            let worked = |_| {
                let copy = copy(dir.path(), is_written_back).expect("a copy");
                let started = Instant::now();
                let log = work(copy.path());
                let spent: Duration = started.elapsed();
                drop(log);
                spent
            };
            (0..rounds).map(worked).sum()
        };
        group.bench_function(BenchmarkId::new("limit_on_disk", state), |b| {
            b.iter_custom(|rounds| {
                on_a_copy(rounds, &|dir| {
                    let files = segment_files(dir).expect("segments");
                    sum_from_disk(&files[0]).expect("synced and read");
                    None
                })
            });
        });
        group.bench_function(BenchmarkId::new("log", state), |b| {
            b.iter_custom(|rounds| {
                on_a_copy(rounds, &|dir| {
                    let log = Log::open(dir).expect("a log");
                    assert_eq!(log.next_offset().get(), u64::from(records));
                    Some(log)
                })
            });
        });
    }
    group.finish();
}

/// Syncs a file, drops it from the page cache, and sums it in pieces as long as a record.
fn sum_from_disk(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    file.sync_data()?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        for piece in buffer[..read].chunks(frame_bytes(PAYLOAD_BYTES)) {
            black_box(crc32fast::hash(piece));
        }
    }
}

/// A copy of a log's files, in the page cache, and on the disk too if that is wanted.
fn copy(dir: &Path, is_written_back: bool) -> io::Result<TempDir> {
    let copy = tempfile::tempdir_in(".")?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let to = copy.path().join(entry.file_name());
        fs::copy(entry.path(), &to)?;
        if is_written_back {
            File::open(&to)?.sync_all()?;
        }
    }
    Ok(copy)
}
