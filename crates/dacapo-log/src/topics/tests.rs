//! What is read of topics files, and of segments instead, for what is asked.

use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::offset::{Offset, Start};
use crate::options::{Flush, Options};
use crate::{Log, Topic, topics};

const RECORDS: u64 = 600;

fn options() -> Options {
    Options {
        segment_bytes_min: 16 << 10,
        segment_bytes_max: 16 << 10,
        flush: Flush::OnDemand,
        ..Options::default()
    }
}

fn topic(number: u64) -> Topic {
    Topic::new(format!("t{}", number % 7)).unwrap()
}

/// A closed log of some sealed segments, in which seven topics take turns.
fn closed_log(dir: &Path) {
    let log = Log::open_writer_on(&Disk::default(), dir, &options()).unwrap();
    for number in 0..RECORDS {
        log.append_to(&topic(number), &[5; 200]).unwrap();
    }
    log.close().unwrap();
}

fn topics_files(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|end| end == "topics"))
        .collect();
    files.sort();
    files
}

/// Changes a byte in the page behind that of the dictionary, of each file.
fn damage_postings(dir: &Path) {
    for file in topics_files(dir) {
        let mut bytes = fs::read(&file).unwrap();
        assert_eq!(bytes[28], 1, "dictionary pages");
        bytes[64 + 4096 + 1] ^= 1;
        fs::write(file, bytes).unwrap();
    }
}

/// How many sealed segments were mapped since this was last asked.
fn mapped(disk: &Disk) -> usize {
    let paths = disk.faults.take_calls("map");
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .count()
}

#[test]
fn listings_last_records_and_counts_of_whole_segments_read_no_postings_and_no_records() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    closed_log(dir.path());
    damage_postings(dir.path());
    let log = Log::open_writer_on(&disk, dir.path(), &options()).unwrap();
    mapped(&disk);

    let listed: Vec<_> = log.topics().map(Result::unwrap).collect();
    assert_eq!(listed.len(), 7);
    for (number, one) in (0..).zip(&listed) {
        let last = (0..RECORDS).rfind(|n| n % 7 == number).unwrap();
        let expected = (Offset::new(number), Offset::new(last), 1 + last / 7);
        assert_eq!((one.first, one.last, one.records), expected);
        let last_of = topics::last_of(log.shared(), &one.topic).unwrap();
        assert_eq!(last_of, Some(one.last));
        assert_eq!(log.count(&one.topic, Offset::ZERO).unwrap(), one.records);
    }
    assert_eq!(mapped(&disk), 0);

    // In the middle of a segment, the postings are needed, and then the frames.
    assert_eq!(log.count(&topic(0), Offset::new(15)).unwrap(), 86 - 3);
    assert_eq!(mapped(&disk), 1);
}

#[test]
fn a_compaction_keeps_to_a_limit_though_all_postings_are_damaged() {
    for left in [0, 1, 5] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        closed_log(dir.path());
        damage_postings(dir.path());
        let log = Log::open_writer_on(&disk, dir.path(), &options().topic_limit("t", left));
        let log = log.unwrap();

        log.compact(|_| ()).unwrap();

        let offsets: Vec<u64> = log
            .replay(Start::Oldest)
            .map(|record| record.unwrap().offset().get())
            .collect();
        let expected: Vec<u64> = (RECORDS - 7 * left..RECORDS).collect();
        assert_eq!(offsets, expected);
    }
}

#[test]
fn of_a_log_without_deletions_a_second_reader_opens_the_file_of_its_segment_alone() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    closed_log(dir.path());
    let files = topics_files(dir.path());
    let log = Log::open_writer_on(&disk, dir.path(), &options()).unwrap();
    let opened = || {
        let paths = disk.faults.take_calls("open");
        paths.iter().filter(|path| files.contains(path)).count()
    };
    let first = || {
        let first = log.replay(Start::Oldest).topic(&topic(3)).next();
        first.unwrap().unwrap().offset()
    };
    opened();

    assert_eq!((first(), opened()), (Offset::new(3), files.len() + 1));
    assert_eq!((first(), opened()), (Offset::new(3), 1));

    // A deletion in the segment that is appended to is seen all the same.
    let deletion = log.delete_topic(&topic(3)).unwrap();
    assert_eq!(log.replay(Start::Oldest).topic(&topic(3)).count(), 0);
    log.append_to(&topic(3), b"anew").unwrap();
    assert_eq!(first(), deletion.next());
}

#[test]
fn waste_counts_against_the_records_that_are_there() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = Log::open_writer_on(&disk, dir.path(), &options()).unwrap();
    for number in 0..RECORDS {
        log.append_to(&topic(number), &[5; 200]).unwrap();
    }
    let delete = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            log.delete_topic(&topic(number)).unwrap();
        }
        log.sync().unwrap();
    };
    // Those of no topic keep the deletions out of the segments that are looked at.
    for _ in 0..200 {
        log.append(&[6; 200]).unwrap();
    }
    // Four of seven records in each segment, and then two of the three that are left.
    delete(0..4);
    assert!(log.compact_wasted(50).unwrap().records > 250);
    assert_eq!(log.compact_wasted(50).unwrap().records, 0);
    delete(4..6);
    assert_eq!(log.compact_wasted(90).unwrap().records, 0);
    assert!(log.compact_wasted(60).unwrap().records > 120);
}
