//! Times that are set, so that it is known which record is the first of one.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::{Flush, Log, Offset, Options, ReadError, Start, Topic, clock, repair};

/// Records of 1000 bytes of which three each are of one time: 1000, 1010, 1020 µs and so on.
fn append(log: &Log, records: u64) {
    for number in log.next_offset().get()..log.next_offset().get() + records {
        clock::tests::set(micros_of(number));
        log.append(format!("{number:01000}").as_bytes()).unwrap();
    }
}

fn micros_of(number: u64) -> u64 {
    1000 + number / 3 * 10
}

fn time(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

/// Some 40 records fill a segment, and some 4 lie between two points of its index.
fn options() -> Options {
    Log::options()
        .flush(Flush::OnDemand)
        .segment_bytes_min(48 << 10)
        .segment_bytes_max(48 << 10)
}

fn closed_log_of(records: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    append(&options().open(dir.path()).unwrap(), records);
    dir
}

fn files(dir: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == kind))
        .collect();
    files.sort();
    files
}

fn base_of(path: &Path) -> u64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// Flips a bit in the payload of a record.
fn damage(dir: &Path, number: u64) {
    let files = files(dir, "seg");
    let path = files.iter().rfind(|path| base_of(path) <= number).unwrap();
    let mut bytes = fs::read(path).unwrap();
    let payload = format!("{number:01000}");
    let at = bytes
        .windows(payload.len())
        .position(|window| window == payload.as_bytes());
    bytes[at.unwrap()] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The first record of each time, and those of the times just before and after, are found.
fn expect_times(log: &Log) {
    // A read-only log looks where the writer's begins.
    let oldest = log.offset_at(time(0)).unwrap().get();
    let next = log.next_offset().get();
    for micros in 990..micros_of(next) + 20 {
        let first = (oldest..next)
            .find(|&number| micros_of(number) >= micros)
            .unwrap_or(next);
        let found = log.offset_at(time(micros)).unwrap();
        assert_eq!(found, Offset::new(first), "{micros} µs");
    }
}

#[test]
fn the_first_record_of_a_time_is_found_whether_its_segment_grows_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    let other = Log::options().open_read_only(dir.path()).unwrap();
    for _ in 0..10 {
        append(&log, 13);
        expect_times(&log);
        other.offset_at(SystemTime::now()).unwrap(); // and looks how far it is
        expect_times(&other);
    }
    log.sync().unwrap();
    assert!(log.prune(Offset::new(60)).unwrap().oldest > Offset::ZERO);
    expect_times(&log);
    expect_times(&other);
    drop((log, other));
    expect_times(&options().open(dir.path()).unwrap());
}

#[test]
fn an_index_that_is_gone_or_lies_hides_no_time() {
    let dir = closed_log_of(130);
    let indexes = files(dir.path(), "idx");
    assert!(indexes.len() > 1);
    let expect_times = || {
        expect_times(&options().open(dir.path()).unwrap());
        expect_times(&Log::options().open_read_only(dir.path()).unwrap());
    };
    for lie in [
        // A place behind the record's, another record's place, all places in the wrong order.
        (|points| points[4] += 8) as fn(&mut [u8]),
        |points| points.copy_within(8.., 0),
        |points| {
            let reversed: Vec<u8> = points.rchunks(8).flatten().copied().collect();
            points.copy_from_slice(&reversed);
        },
    ] {
        for path in &indexes {
            let mut bytes = fs::read(path).unwrap();
            lie(&mut bytes[32..]);
            bytes[12..16].fill(0);
            let sum = crc32fast::hash(&bytes);
            bytes[12..16].copy_from_slice(&sum.to_le_bytes());
            fs::write(path, bytes).unwrap();
        }
        expect_times();
    }
    for path in indexes {
        fs::remove_file(path).unwrap();
    }
    expect_times();
}

#[test]
fn only_the_segment_of_the_time_is_opened() {
    let dir = closed_log_of(200);
    let log = Log::options().open_read_only(dir.path()).unwrap();
    let files = files(dir.path(), "seg");
    let middle = files.len() / 2;
    for (i, path) in files.iter().enumerate() {
        if i != middle {
            fs::remove_file(path).unwrap();
        }
    }
    for first in base_of(&files[middle]) + 1..base_of(&files[middle + 1]) {
        if micros_of(first - 1) < micros_of(first) {
            let found = log.offset_at(time(micros_of(first))).unwrap();
            assert_eq!(found, Offset::new(first));
        }
    }
}

#[test]
fn damage_that_may_be_of_the_time_is_met_and_not_passed_over() {
    let dir = closed_log_of(130);
    for number in [60, 63, 64] {
        damage(dir.path(), number);
    }
    let log = Log::options().open_read_only(dir.path()).unwrap();
    let met = |micros| match log.replay(Start::Since(time(micros))).next().unwrap() {
        Ok(record) => Ok(record.offset().get()),
        Err(ReadError::Corrupt(corruption)) => Err(corruption.offset.unwrap().get()),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(met(micros_of(57)), Ok(57));
    // 60 may be of its own time or of that of 59, and 61 and 62 are of its time.
    assert_eq!(met(micros_of(60)), Err(60));
    assert_eq!(met(micros_of(60) - 5), Err(60));
    assert_eq!(met(micros_of(63)), Err(63));
    // What is certainly older is not told of.
    assert_eq!(met(micros_of(65) + 1), Ok(66));

    // A repair leaves gaps there; the same holds, and reading goes on behind them.
    let repaired = tempfile::tempdir().unwrap();
    repair(dir.path(), repaired.path(), |_| ()).unwrap();
    let log = options().open(repaired.path()).unwrap();
    let lost = |micros| {
        let mut replay = log.replay(Start::Since(time(micros)));
        let lost = match replay.next().unwrap() {
            Err(ReadError::Lost { from, to }) => Some((from.get(), to.get())),
            read => return (None, read.unwrap().offset().get()),
        };
        (lost, replay.next().unwrap().unwrap().offset().get())
    };
    assert_eq!(lost(micros_of(57)), (None, 57));
    assert_eq!(lost(micros_of(60)), (Some((60, 61)), 61));
    assert_eq!(lost(micros_of(63)), (Some((63, 65)), 65));
    assert_eq!(lost(micros_of(66)), (None, 66));
}

#[test]
fn a_segment_that_is_gone_is_met_by_who_reads_since_its_time() {
    for gone in [0, 1, 2] {
        let dir = closed_log_of(200);
        let files = files(dir.path(), "seg");
        let (from, to) = (base_of(&files[gone]), base_of(&files[gone + 1]));
        fs::remove_file(&files[gone]).unwrap();
        let since = Start::Since(time(from.checked_sub(1).map_or(0, micros_of) + 1));

        let log = Log::options().open_read_only(dir.path()).unwrap();
        let mut replay = log.replay(since);
        let missing = replay.next().unwrap().unwrap_err();
        assert!(
            matches!(missing, ReadError::SegmentMissing { offset, .. } if offset.get() == from),
            "{missing}"
        );
        assert_eq!(replay.skip_damage(), Some(Offset::new(to)));

        // Repaired, the hole is a gap at the end of the segment before, or one of its own.
        let repaired = tempfile::tempdir().unwrap();
        repair(dir.path(), repaired.path(), |_| ()).unwrap();
        let log = options().open(repaired.path()).unwrap();
        let mut replay = log.replay(since);
        let lost = replay.next().unwrap().unwrap_err();
        assert!(
            matches!(lost, ReadError::Lost { from: lost, .. } if lost.get() == from),
            "{lost}"
        );
        assert_eq!(replay.next().unwrap().unwrap().offset().get(), to);
        // Since a time behind it, it is not told of.
        let later = (to + 1..)
            .find(|&i| micros_of(i - 1) < micros_of(i))
            .unwrap();
        let mut replay = log.replay(Start::Since(time(micros_of(later))));
        assert_eq!(replay.next().unwrap().unwrap().offset().get(), later);
    }
}

#[test]
fn what_a_compaction_has_removed_is_not_the_first_record_of_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    let gone = Topic::new("gone").unwrap();
    for number in 0..130 {
        clock::tests::set(micros_of(number));
        match number {
            // Across the ends of segments.
            25..100 => log.append_to(&gone, &[7; 1000]).unwrap(),
            _ => log.append(&[7; 1000]).unwrap(),
        };
    }
    log.delete_topic(&gone).unwrap();
    assert!(log.compact(|_| ()).unwrap().records > 70);

    let left: Vec<_> = log.replay(Start::Oldest).map(Result::unwrap).collect();
    for micros in 990..micros_of(130) {
        let first = left
            .iter()
            .find(|record| record.timestamp_micros() >= micros);
        let expected = first.map_or(log.next_offset(), |record| record.offset());
        assert_eq!(
            log.offset_at(time(micros)).unwrap(),
            expected,
            "{micros} µs"
        );
    }
}
