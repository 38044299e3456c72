//! Failures of the disk, one call at a time: what is refused, what is kept, and what goes on.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use futures_lite::future::block_on;

use crate::disk::Disk;
use crate::error::{AppendError, OpenError, SyncError};
use crate::offset::{Offset, Start};
use crate::options::{Flush, Options, WritePath};
use crate::{
    Appended, CompactError, Compaction, Kept, Log, Pruning, ReadError, Retention, Stamp, Topic,
    clock,
};

fn options(write_path: WritePath) -> Options {
    Options {
        segment_bytes_max: 16 << 10,
        segment_bytes_min: 16 << 10,
        flush: Flush::OnDemand,
        write_path,
        ..Options::default()
    }
}

fn open(disk: &Disk, dir: &std::path::Path, write_path: WritePath) -> Log {
    Log::open_writer_on(disk, dir, &options(write_path)).unwrap()
}

fn count(log: &Log) -> usize {
    log.replay(Start::Oldest).filter(Result::is_ok).count()
}

#[test]
fn a_failed_sync_poisons_the_log_and_reads_go_on() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    log.append(b"durable").unwrap();
    log.sync().unwrap();
    let offset = log.append(b"in doubt").unwrap();
    disk.faults.fail("sync", ".seg", io::ErrorKind::Other);

    assert!(matches!(log.sync(), Err(SyncError::Poisoned { .. })));
    // The disk is well again, but what it lost is unknown: nothing is acknowledged.
    disk.faults.heal();
    assert!(matches!(
        log.append(b"later"),
        Err(AppendError::Poisoned { .. })
    ));
    assert!(matches!(log.sync(), Err(SyncError::Poisoned { .. })));
    assert!(matches!(
        block_on(log.durable(offset)),
        Err(SyncError::Poisoned { .. })
    ));
    assert_eq!(log.durable_offset(), offset);
    assert_eq!(count(&log), 2);
    assert!(matches!(log.close(), Err(SyncError::Poisoned { .. })));

    // Not closed cleanly, so reopening recovers.
    let log = open(&disk, dir.path(), WritePath::Mapped);
    assert_eq!(log.epoch().get(), 2);
    assert_eq!(log.append(b"later").unwrap(), log.durable_offset());
}

#[test]
fn whoever_waits_for_durability_learns_of_the_failure() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    disk.faults.fail("sync", ".seg", io::ErrorKind::Other);
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let log = log.clone();
            thread::spawn(move || {
                let offset = log.append(b"x").map_err(|_| ())?;
                block_on(log.durable(offset)).map_err(|_| ())
            })
        })
        .collect();
    for task in waiting {
        assert_eq!(task.join().unwrap(), Err(()));
    }
    assert_eq!(log.durable_offset(), Offset::ZERO);
}

#[test]
fn a_failed_directory_sync_acknowledges_nothing_of_a_new_segment() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    log.append(b"x").unwrap();
    let name = dir.path().to_str().unwrap();
    disk.faults.fail("sync", name, io::ErrorKind::Other);
    assert!(matches!(log.sync(), Err(SyncError::Poisoned { .. })));
    assert_eq!(log.durable_offset(), Offset::ZERO);
}

#[test]
fn a_failed_write_poisons_a_log_that_writes_through_the_file() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::File);
    log.append(b"a").unwrap();
    disk.faults.fail("write", ".seg", io::ErrorKind::Other);
    assert!(matches!(
        log.append(b"b"),
        Err(AppendError::Poisoned { .. })
    ));
    disk.faults.heal();
    assert!(matches!(
        log.append(b"c"),
        Err(AppendError::Poisoned { .. })
    ));
    assert!(matches!(log.sync(), Err(SyncError::Poisoned { .. })));
    assert_eq!(count(&log), 1);
    assert!(matches!(
        log.get(Offset::new(1)),
        Err(ReadError::BeyondEnd { .. })
    ));
    drop(log);
    assert_eq!(count(&open(&disk, dir.path(), WritePath::File)), 1);
}

/// Appends until the log refuses, and returns how many it took.
fn fill(log: &Log) -> (u64, AppendError) {
    loop {
        if let Err(error) = log.append(&[7; 1000]) {
            return (log.next_offset().get(), error);
        }
    }
}

#[test]
fn a_full_disk_refuses_appends_until_there_is_space() {
    for action in ["create", "allocate", "write", "sync"] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let log = open(&disk, dir.path(), WritePath::Mapped);
        log.append(b"first").unwrap();
        disk.faults
            .fail(action, "next.tmp", io::ErrorKind::StorageFull);

        let (held, error) = fill(&log);

        assert!(
            matches!(error, AppendError::StorageFull { .. }),
            "{action}: {error}"
        );
        assert!(held > 1);
        assert_eq!(count(&log) as u64, held);
        assert!(
            !dir.path().join("next.tmp").exists(),
            "what was begun is given back"
        );
        log.sync().unwrap();
        // The log can be closed and opened on a full disk.
        drop(log);
        let log = open(&disk, dir.path(), WritePath::Mapped);
        assert!(matches!(fill(&log).1, AppendError::StorageFull { .. }));
        disk.faults.heal();
        assert_eq!(log.append(b"goes on").unwrap(), Offset::new(held));
    }
}

#[test]
fn a_first_append_that_met_a_full_disk_leaves_a_log_that_opens_again() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::File);
    disk.faults
        .fail("write", ".seg", io::ErrorKind::StorageFull);
    assert!(matches!(
        log.append(b"a"),
        Err(AppendError::StorageFull { .. })
    ));
    log.close().unwrap();
    disk.faults.heal();
    let log = open(&disk, dir.path(), WritePath::File);
    assert_eq!(log.append(b"a").unwrap(), Offset::ZERO);
}

#[test]
fn what_a_full_disk_left_of_a_batch_never_comes_back() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::File);
    log.append(b"a").unwrap();
    disk.faults
        .fail("write", ".seg", io::ErrorKind::StorageFull);
    assert!(matches!(
        log.append_batch([b"b", b"c"]),
        Err(AppendError::StorageFull { .. })
    ));
    disk.faults.heal();
    assert_eq!(log.append(b"d").unwrap(), Offset::new(1));
    drop(log);
    assert_eq!(count(&open(&disk, dir.path(), WritePath::File)), 2);
}

/// The kill is a close that could not write `meta`.
fn unclean_end(disk: &Disk, log: &Log) {
    disk.faults.fail("write", "meta", io::ErrorKind::Other);
    assert!(log.close().is_err());
    disk.faults.heal();
}

#[test]
fn recovery_on_a_full_disk_does_not_need_to_punch_a_hole() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    log.append(b"a").unwrap();
    unclean_end(&disk, &log);
    disk.faults
        .fail("punch a hole into", ".seg", io::ErrorKind::StorageFull);
    assert_eq!(count(&open(&disk, dir.path(), WritePath::Mapped)), 1);
}

#[test]
fn recovery_syncs_names_and_footers_before_it_trusts_them() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    // The last flush ends where the last segment begins: the footer before it came later, and
    // no flush behind it succeeds.
    while log.status().unwrap().segments < 2 {
        disk.faults.heal();
        log.sync().unwrap();
        disk.faults.fail("sync", ".seg", io::ErrorKind::Other);
        log.append(&[7; 1000]).unwrap();
    }
    drop(log);
    disk.faults.heal();
    disk.faults.take_calls("sync");

    drop(open(&disk, dir.path(), WritePath::Mapped));

    let synced = disk.faults.take_calls("sync");
    // What the killed process left in `meta` comes first, what recovery says there last.
    assert!(synced[0].ends_with("meta"));
    let before_meta: Vec<_> = synced[1..]
        .iter()
        .take_while(|path| !path.ends_with("meta"))
        .collect();
    for path in [
        dir.path().to_owned(),
        crate::segment::path(dir.path(), Offset::ZERO),
    ] {
        assert!(
            before_meta.contains(&&path),
            "{} was not synced",
            path.display()
        );
    }
}

#[test]
fn a_failure_made_ahead_is_not_the_answer_once_it_is_over() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    log.append(b"first").unwrap();
    disk.faults.take_calls("remove");
    disk.faults
        .fail("create", "next.tmp", io::ErrorKind::StorageFull);
    // Half of the segment, so that the next one is begun, and cannot be made.
    while disk.faults.take_calls("remove").is_empty() {
        if log.next_offset().get() < 6 {
            log.append(&[7; 1000]).unwrap();
        }
        thread::yield_now();
    }
    disk.faults.heal();
    for _ in 0..6 {
        log.append(&[7; 1000]).unwrap();
    }
}

#[test]
fn a_sync_that_fails_while_the_log_is_being_closed_is_not_tried_again() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    log.append(b"a").unwrap();
    log.sync().unwrap();
    log.append(b"in doubt").unwrap();
    let gate = Arc::new(Barrier::new(2));
    disk.faults.hang_and_fail("sync", ".seg", &gate);
    let (syncing, closing) = (log.clone(), log.clone());
    let syncing = thread::spawn(move || syncing.sync());
    gate.wait();
    let closing = thread::spawn(move || closing.close());
    while !matches!(log.append(b"b"), Err(AppendError::Closed)) {
        thread::yield_now();
    }
    gate.wait();

    assert!(matches!(
        syncing.join().unwrap(),
        Err(SyncError::Poisoned { .. })
    ));
    assert!(matches!(
        closing.join().unwrap(),
        Err(SyncError::Poisoned { .. })
    ));
    assert_eq!(log.durable_offset(), Offset::new(1));
}

#[test]
fn too_many_files_or_mappings_refuse_appends_until_there_are_fewer() {
    for action in ["create", "map", "rename"] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let log = open(&disk, dir.path(), WritePath::Mapped);
        log.append(b"first").unwrap();
        disk.faults.fail(action, "next.tmp", io::ErrorKind::Other);

        let (held, error) = fill(&log);

        assert!(
            matches!(error, AppendError::Prepare { .. }),
            "{action}: {error}"
        );
        disk.faults.heal();
        assert_eq!(log.append(b"goes on").unwrap(), Offset::new(held));
        assert_eq!(count(&log) as u64, held + 1);
    }
}

#[test]
fn a_failed_open_leaves_the_log_as_it_was() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    fill_segments(&log);
    drop(log);
    for action in [
        "list", "open", "read", "stat", "map", "write", "sync", "lock", "create",
    ] {
        disk.faults.fail(action, "", io::ErrorKind::Other);
        let opened = Log::open_writer_on(&disk, dir.path(), &Options::default());
        assert!(
            matches!(opened, Err(OpenError::Io(_))),
            "{action}: {opened:?}"
        );
        disk.faults.heal();
        assert_eq!(
            count(&open(&disk, dir.path(), WritePath::Mapped)),
            100,
            "{action}"
        );
    }
}

fn fill_segments(log: &Log) {
    for _ in 0..100 {
        log.append(&[7; 1000]).unwrap();
    }
}

/// A log of which a compaction can remove 100 records, and has 100 to keep.
fn half_deleted(disk: &Disk, dir: &std::path::Path) -> Log {
    let log = open(disk, dir, WritePath::Mapped);
    let (kept, gone) = (Topic::new("kept").unwrap(), Topic::new("gone").unwrap());
    for _ in 0..100 {
        log.append_batch_to([(&kept, [1; 300]), (&gone, [2; 300])])
            .unwrap();
    }
    log.sync().unwrap();
    log.delete_topic(&gone).unwrap();
    log
}

#[test]
fn what_a_power_cut_may_undo_lets_nothing_be_removed() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let options = Options {
        flush: Flush::OnDemand,
        ..Options::default()
    };
    let log = half_deleted(&disk, dir.path());
    assert_eq!(log.compact_wasted(0).unwrap().records, 0);
    log.sync().unwrap();
    assert!(log.compact_wasted(0).unwrap().records > 0);
    log.close().unwrap();

    // The same with a limit: the last durable record stays, though there is a newer one.
    let options = options
        .topic_limit("kept", 1)
        .segment_bytes_max(16 << 10)
        .segment_bytes_min(16 << 10);
    let log = Log::open_writer_on(&disk, dir.path(), &options).unwrap();
    let kept = Topic::new("kept").unwrap();
    let last = log.last(&kept).unwrap().unwrap().offset();
    log.append_to(&kept, b"newer, not durable").unwrap();
    log.compact_wasted(0).unwrap();
    assert_eq!(log.get(last).unwrap().payload(), [1; 300]);
}

#[test]
fn a_compaction_that_fails_anywhere_loses_nothing_and_can_be_tried_again() {
    for (action, path_end, poisons) in [
        ("create", "compact.tmp", false),
        ("write", "compact.tmp", false),
        ("sync", "compact.tmp", false),
        ("rename", "compact.tmp", false),
        ("sync", "", true),
    ] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let log = half_deleted(&disk, dir.path());
        log.sync().unwrap();
        disk.faults
            .fail(action, path_end, io::ErrorKind::StorageFull);
        // The directory's sync is what fails first, once files can be made.
        if poisons {
            disk.faults.heal();
            let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
            disk.faults.fail("sync", &name, io::ErrorKind::Other);
        }

        let failed = log.compact_wasted(0);

        disk.faults.heal();
        match failed {
            Err(CompactError::Refused(SyncError::Poisoned { .. })) if poisons => {
                assert!(log.append(b"x").is_err(), "nothing is acknowledged");
            }
            Err(CompactError::StorageFull { .. }) if !poisons => {
                log.append(b"x").unwrap();
                assert!(log.compact_wasted(0).unwrap().records > 0);
            }
            other => panic!("{action} of {path_end}: {other:?}"),
        }
        let kept = |log: &Log| {
            let records = log.replay(Start::Oldest).map(Result::unwrap);
            records.filter(|record| record.topic() == "kept").count()
        };
        assert_eq!(kept(&log), 100);
        drop(log);
        let log = open(&disk, dir.path(), WritePath::Mapped);
        assert_eq!(kept(&log), 100);
        assert!(!dir.path().join("compact.tmp").exists());
    }
}

#[test]
fn a_meta_that_cannot_be_updated_drops_nothing_and_poisons_the_log() {
    for action in ["write", "sync"] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let log = open(&disk, dir.path(), WritePath::Mapped);
        fill_segments(&log);
        let next = log.sync().unwrap();
        let segments = log.status().unwrap().segments;
        disk.faults.take_calls("remove");
        disk.faults.fail(action, "meta", io::ErrorKind::Other);

        let pruned = log.prune(next);

        assert!(
            matches!(pruned, Err(SyncError::Poisoned { .. })),
            "{action}"
        );
        assert_eq!(disk.faults.take_calls("remove"), Vec::<PathBuf>::new());
        assert_eq!((count(&log), log.oldest()), (100, Offset::ZERO));
        disk.faults.heal();
        assert!(matches!(
            log.append(b"later"),
            Err(AppendError::Poisoned { .. })
        ));
        drop(log);
        // What `meta` says now is unknown, as after a power cut; what is not there is not missed.
        let log = open(&disk, dir.path(), WritePath::Mapped);
        let kept = count(&log) as u64;
        assert_eq!(kept, next.since(log.oldest()));
        assert!(log.status().unwrap().segments <= segments + 1);
    }
}

#[test]
fn a_retention_that_fails_in_the_background_poisons_the_log() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let options = Options {
        retention: Retention::default().bytes_max(0),
        ..options(WritePath::Mapped)
    };
    let log = Log::open_writer_on(&disk, dir.path(), &options).unwrap();
    disk.faults.fail("write", "meta", io::ErrorKind::Other);
    let error = loop {
        // Rolls wake the thread.
        if let Err(error) = log.append(&[7; 1000]) {
            break error;
        }
    };
    assert!(matches!(error, AppendError::Poisoned { .. }));
    assert_eq!(log.oldest(), Offset::ZERO);
    assert_eq!(count(&log) as u64, log.next_offset().get());
}

#[test]
fn a_file_that_cannot_be_removed_is_removed_by_the_next_opening() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    fill_segments(&log);
    let next = log.sync().unwrap();
    disk.faults.fail("remove", ".seg", io::ErrorKind::Other);

    let oldest = log.prune(next).unwrap().oldest;

    disk.faults.heal();
    assert!(oldest > Offset::ZERO);
    let first = crate::segment::path(dir.path(), Offset::ZERO);
    assert!(first.exists());
    drop(log);
    let log = open(&disk, dir.path(), WritePath::Mapped);
    assert_eq!(log.oldest(), oldest);
    assert!(!first.exists());
}

#[test]
fn records_are_dropped_by_their_age() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    clock::tests::set(0);
    let log = open(&disk, dir.path(), WritePath::Mapped);
    // A record a second.
    for second in 0..100 {
        clock::tests::set(second * 1_000_000);
        log.append(&[7; 1000]).unwrap();
    }
    log.sync().unwrap();
    let kept_for = |seconds| Retention::default().age_max(Duration::from_secs(seconds));
    for seconds in 0..100 {
        let would = log.would_retain(&kept_for(seconds)).unwrap();
        let (oldest, oldest_kept) = (would.oldest.get(), 99 - seconds);
        let whole_files = oldest_kept.saturating_sub(10)..=oldest_kept;
        assert!(whole_files.contains(&oldest), "{oldest} for {seconds} s");
    }

    let pruned = log.retain(&kept_for(50)).unwrap();
    assert!((39..=49).contains(&pruned.oldest.get()), "{pruned:?}");
    assert_eq!(pruned.kept, None);
    clock::tests::set(1_000_000_000_000);
    let pruned = log.retain(&kept_for(50)).unwrap();
    assert!((80..100).contains(&pruned.oldest.get()), "{pruned:?}");
    let left = count(&log) as u64;
    assert_eq!(left, 100 - pruned.oldest.get(), "the newest segment stays");
}

#[test]
fn nothing_is_dropped_before_it_is_durable() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    let gate = Arc::new(Barrier::new(2));
    disk.faults.hang_and_fail("sync", ".seg", &gate);
    fill_segments(&log);
    gate.wait(); // the flush that the first roll has asked for
    let pruned = log.prune(log.next_offset()).unwrap();
    let durable = Offset::ZERO;
    assert_eq!(pruned.kept, Some(Kept::NotDurable { durable }));
    assert_eq!((pruned.oldest, count(&log)), (Offset::ZERO, 100));
    gate.wait();
    while log.sync().is_ok() {}
}

fn stamp(sequence: u64) -> Stamp {
    Stamp {
        producer: 7,
        epoch: 0,
        sequence,
    }
}

#[test]
fn a_poisoned_log_does_not_answer_repetitions_either() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    log.append_once(stamp(0), None, b"one").unwrap();
    log.sync().unwrap();
    log.append_once(stamp(1), None, b"in doubt").unwrap();
    disk.faults.fail("sync", ".seg", io::ErrorKind::Other);
    log.sync().unwrap_err();
    disk.faults.heal();

    for sequence in [0, 1, 2, 9] {
        let refused = log.append_once(stamp(sequence), None, b"again");
        assert!(matches!(refused, Err(AppendError::Poisoned { .. })));
    }
}

#[test]
fn a_write_that_failed_is_sent_again_to_the_reopened_log_and_there_once() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::File);
    log.append_once(stamp(0), None, b"one").unwrap();
    disk.faults.fail("write", ".seg", io::ErrorKind::Other);
    assert!(matches!(
        log.append_once(stamp(1), None, b"two"),
        Err(AppendError::Poisoned { .. })
    ));
    disk.faults.heal();
    drop(log);

    let log = open(&disk, dir.path(), WritePath::File);
    for _ in 0..2 {
        log.append_once(stamp(0), None, b"one").unwrap();
    }
    for _ in 0..2 {
        log.append_once(stamp(1), None, b"two").unwrap();
    }
    assert_eq!(count(&log), 2);
}

#[test]
fn a_full_disk_leaves_the_sequence_free() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    disk.faults
        .fail("allocate", "next.tmp", io::ErrorKind::StorageFull);
    assert!(matches!(
        log.append_once(stamp(0), None, b"one"),
        Err(AppendError::StorageFull { .. })
    ));
    disk.faults.heal();

    let appended = log.append_once(stamp(0), None, b"one").unwrap();

    assert_eq!(appended, Appended::New(Offset::ZERO..Offset::new(1)));
}

#[test]
fn appends_go_on_while_the_stamps_are_read_and_a_read_that_fails_is_tried_again() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    log.append_once(stamp(0), None, b"one").unwrap();
    for _ in 0..40 {
        log.append(&[7; 1000]).unwrap();
    }
    drop(log);
    // So that the segments are walked.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "topics")
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    let log = open(&disk, dir.path(), WritePath::Mapped);
    let gate = Arc::new(Barrier::new(2));
    disk.faults.hang_and_fail("map", ".seg", &gate);
    let resending = log.clone();
    let resending = thread::spawn(move || resending.append_once(stamp(0), None, b"one"));
    gate.wait();

    let next = log.next_offset();
    assert_eq!(log.append(b"of nobody").unwrap(), next);

    gate.wait();
    assert!(matches!(
        resending.join().unwrap(),
        Err(AppendError::ProducersUnreadable { .. })
    ));
    let again = log.append_once(stamp(0), None, b"one").unwrap();
    assert!(matches!(again, Appended::Duplicate(_)));
}

/// A recovery has cut the first of two segments, and cannot remove the second: `meta` calls that one
/// void by then. (A reader waited for what would follow the void segment, and met a hole before it.)
#[test]
fn a_segment_that_a_recovery_has_voided_is_not_followed() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    let mut second = log.append(&[7; 1000]).unwrap();
    // Before it is full: a full segment is flushed unasked.
    let first = format!("{:020}.seg", Offset::ZERO);
    disk.faults.fail("sync", &first, io::ErrorKind::Other);
    while log.status().unwrap().segments < 2 {
        second = log.append(&[7; 1000]).unwrap();
    }
    assert!(log.close().is_err());
    drop(log);
    disk.faults.heal();
    // What a power cut took: nothing was ever flushed.
    let torn = disk
        .open_writable(&crate::segment::path(dir.path(), Offset::ZERO))
        .unwrap();
    torn.write_at(&[0; 512], 8192).unwrap();
    let name = format!("{second:020}.seg");
    disk.faults.fail("remove", &name, io::ErrorKind::Other);
    assert!(Log::open_writer_on(&disk, dir.path(), &Options::default()).is_err());
    disk.faults.heal();

    let reader = Log::open_reader_on(&disk, dir.path()).unwrap();
    let read: Vec<_> = reader.replay(Start::Oldest).collect();

    assert!(read.iter().all(Result::is_ok), "{:?}", read.last());
    let found = crate::verify(dir.path(), |_| ()).unwrap();
    assert!(found.is_sound(), "{found:?}");
    let writer = open(&disk, dir.path(), WritePath::Mapped);
    assert_eq!(writer.next_offset(), Offset::new(read.len() as u64));
    let offset = writer.append(b"new").unwrap();
    assert_eq!(reader.get(offset).unwrap().payload(), b"new");
}

/// A durable record's sector was stored into once more, and a power cut could tear both. (The simulation
/// found it as well.)
#[test]
fn a_pad_that_met_a_full_disk_is_not_followed_in_its_sector_after_a_close() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::File);
    log.append(b"durable").unwrap();
    disk.faults
        .fail("write", ".seg", io::ErrorKind::StorageFull);
    log.close().unwrap();
    disk.faults.heal();
    drop(log);

    let log = open(&disk, dir.path(), WritePath::File);
    log.append(b"later").unwrap();

    assert_eq!(count(&log), 2);
    let bytes = std::fs::read(crate::segment::path(dir.path(), Offset::ZERO)).unwrap();
    let position = |text: &[u8]| bytes.windows(text.len()).position(|found| found == text);
    assert!(position(b"durable").is_some());
    assert_eq!(position(b"later"), None, "it is in a segment of its own");
}

/// Behind the first segment that was ready, the flag of a poisoned log was up before an append that had
/// passed it was acknowledged.
#[test]
fn nothing_is_acknowledged_behind_a_prune_that_has_poisoned_the_log() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::File);
    fill_segments(&log);
    log.sync().unwrap();
    let gate = Arc::new(Barrier::new(2));
    disk.faults.hang("write", ".seg", &gate);
    let appending = log.clone();
    let appending = thread::spawn(move || appending.append(b"on its way"));
    gate.wait();
    disk.faults.fail("write", "meta", io::ErrorKind::Other);
    disk.faults.take_calls("write");
    let pruning = log.clone();
    let pruning = thread::spawn(move || {
        let failed = pruning.prune(Offset::new(50));
        assert!(matches!(failed, Err(SyncError::Poisoned { .. })));
        pruning.next_offset()
    });
    while disk.faults.take_calls("write").is_empty() {
        thread::yield_now();
    }
    // Time for one that does not wait for the append.
    for _ in 0..10_000 {
        thread::yield_now();
    }
    gate.wait();

    let at_the_failure = pruning.join().unwrap();

    let _ = appending.join().unwrap();
    assert_eq!(log.next_offset(), at_the_failure);
    assert!(matches!(
        log.append(b"later"),
        Err(AppendError::Poisoned { .. })
    ));
}

#[test]
fn whoever_waits_for_durability_learns_of_a_prune_that_failed() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    fill_segments(&log);
    log.sync().unwrap();
    let offset = log.append(b"in doubt").unwrap();
    let gate = Arc::new(Barrier::new(2));
    disk.faults.hang_and_fail("sync", ".seg", &gate);
    let waiting = log.clone();
    let waiting = thread::spawn(move || block_on(waiting.durable(offset)));
    gate.wait();
    // The flush hangs; what fails first is the prune.
    disk.faults.fail("write", "meta", io::ErrorKind::Other);
    log.prune(Offset::new(50)).unwrap_err();

    let refused = waiting.join().unwrap();

    assert!(matches!(refused, Err(SyncError::Poisoned { .. })));
    gate.wait();
}

/// The directory above was synced behind the making of `meta`. Where that sync failed, the next opening
/// found a log, and never tried it again.
#[test]
fn a_name_whose_sync_failed_is_synced_by_the_next_opening() {
    let (parent, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let above = parent.path().canonicalize().unwrap();
    let (a, b) = (above.join("a"), above.join("a/b"));
    let dir = b.join("log");
    for (is_made, unsynced) in [(false, &above), (false, &a), (false, &b), (true, &b)] {
        if is_made {
            std::fs::create_dir_all(&dir).unwrap();
        }
        let name = unsynced.to_str().unwrap();
        disk.faults.fail("sync", name, io::ErrorKind::Other);
        Log::open_writer_on(&disk, &dir, &Options::default()).unwrap_err();
        disk.faults.heal();
        disk.faults.take_calls("sync");

        let log = open(&disk, &dir, WritePath::Mapped);

        let synced = disk.faults.take_calls("sync");
        assert!(synced.contains(unsynced), "{synced:?}");
        drop(log);
        std::fs::remove_dir_all(&a).unwrap();
        // Made by an opening that was killed before its sync.
        if unsynced == &above {
            std::fs::create_dir(&a).unwrap();
            disk.faults.take_calls("sync");
            drop(open(&disk, &dir, WritePath::Mapped));
            assert!(disk.faults.take_calls("sync").contains(&above));
            std::fs::remove_dir_all(&a).unwrap();
        }
    }
}

/// Wakes by dropping what is old, once the log is being closed.
struct PruningWaker {
    log: Log,
    pruned: std::sync::mpsc::Sender<Result<Pruning, SyncError>>,
}

impl std::task::Wake for PruningWaker {
    fn wake(self: Arc<Self>) {
        while !matches!(self.log.append(b"late"), Err(AppendError::Closed)) {
            thread::yield_now();
        }
        self.pruned.send(self.log.prune(Offset::new(50))).unwrap();
    }
}

/// Closing waited for the flusher and held what the flusher's waker waited for.
#[test]
fn a_waker_may_drop_old_segments_while_the_log_is_being_closed() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    fill_segments(&log);
    let (pruned, heard) = std::sync::mpsc::channel();
    let waking = PruningWaker {
        log: log.clone(),
        pruned,
    };
    let waker = std::task::Waker::from(Arc::new(waking));
    let durable = log.durable(Offset::new(99));
    let mut durable = std::pin::pin!(durable);
    let waiting = std::future::Future::poll(
        durable.as_mut(),
        &mut std::task::Context::from_waker(&waker),
    );
    assert!(waiting.is_pending());

    log.close().unwrap();

    let pruned = heard.recv().unwrap();
    assert!(
        matches!(pruned, Ok(_) | Err(SyncError::Closed)),
        "{pruned:?}"
    );
}

/// As above, woken by the closing itself: the refusal woke those who wait once more, and that waited for
/// the wake-up that it was in.
#[test]
fn a_waker_that_a_closing_wakes_may_drop_old_segments() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::Mapped);
    // No flush is left that could wake it: no segment is full.
    log.append(b"durable").unwrap();
    log.sync().unwrap();
    let (pruned, heard) = std::sync::mpsc::channel();
    let waking = PruningWaker {
        log: log.clone(),
        pruned,
    };
    let waker = std::task::Waker::from(Arc::new(waking));
    let mut tailer = log.tail(Start::Latest).durable_only();
    let mut arrival = std::pin::pin!(tailer.arrival());
    let waiting = std::future::Future::poll(
        arrival.as_mut(),
        &mut std::task::Context::from_waker(&waker),
    );
    assert!(waiting.is_pending());

    log.close().unwrap();

    let pruned = heard.recv().unwrap();
    assert!(matches!(pruned, Err(SyncError::Closed)), "{pruned:?}");
}

/// Found by the simulation: such a segment was sealed, and nothing could be found behind it.
#[test]
fn an_empty_segment_whose_sector_was_flushed_is_not_sealed() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = open(&disk, dir.path(), WritePath::File);
    let topic = Topic::new("kept").unwrap();
    log.append_to(&topic, b"first").unwrap();
    // Goes on in a segment without a record, whose pad then meets a full disk.
    log.compact(|_| ()).unwrap();
    disk.faults
        .fail("write", ".seg", io::ErrorKind::StorageFull);
    log.close().unwrap();
    disk.faults.heal();
    drop(log);

    let log = open(&disk, dir.path(), WritePath::File);

    assert_eq!(log.topics().map(Result::unwrap).count(), 1);
    assert_eq!(log.append(b"second").unwrap(), Offset::new(1));
    assert_eq!(count(&log), 2);
}

/// A log with records of a topic that are worth a compaction once it is deleted, durable.
fn compacting(disk: &Disk, dir: &std::path::Path, compaction: Option<Compaction>) -> (Log, Topic) {
    let options = Options {
        compaction,
        segment_bytes_max: 256 << 10,
        segment_bytes_min: 256 << 10,
        ..options(WritePath::Mapped)
    };
    let log = Log::open_writer_on(disk, dir, &options).unwrap();
    let (kept, gone) = (Topic::new("kept").unwrap(), Topic::new("gone").unwrap());
    for i in 0..700 {
        let topic = if i % 2 == 0 { &kept } else { &gone };
        log.append_to(topic, &[7; 1000]).unwrap();
    }
    log.sync().unwrap();
    (log, gone)
}

#[test]
fn what_a_compaction_in_the_background_cannot_do_is_told_and_done_the_next_time() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let eager = Compaction::default().wasted_percent(10);
    let (log, gone) = compacting(&disk, dir.path(), Some(eager));
    disk.faults
        .fail("create", "compact.tmp", io::ErrorKind::StorageFull);
    log.delete_topic(&gone).unwrap();
    log.sync().unwrap();
    let failure = loop {
        if let Some(failure) = log.status().unwrap().compaction_failure {
            break failure;
        }
        thread::yield_now();
    };
    assert!(
        matches!(failure, CompactError::StorageFull { .. }),
        "{failure}"
    );
    assert_eq!(count(&log), 701);

    disk.faults.heal();
    log.append_to(&gone, b"begins anew").unwrap();
    log.delete_topic(&gone).unwrap();
    log.sync().unwrap();

    while log.status().unwrap().compaction_failure.is_some() {
        thread::yield_now();
    }
    assert!(matches!(
        log.get(Offset::new(1)),
        Err(ReadError::Removed { .. })
    ));
    log.close().unwrap();
}

#[test]
fn a_log_that_is_closed_does_not_wait_for_a_compaction_with_a_limit() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let slow = Compaction::default()
        .wasted_percent(10)
        .bytes_per_second_max(1);
    let (log, gone) = compacting(&disk, dir.path(), Some(slow));
    disk.faults.take_calls("open");
    log.delete_topic(&gone).unwrap();
    log.sync().unwrap();
    let is_topics = |path: &PathBuf| path.extension().is_some_and(|end| end == "topics");
    // It looks at what there is to do, which would take it a week.
    while !disk.faults.take_calls("open").iter().any(is_topics) {
        thread::yield_now();
    }

    log.close().unwrap();

    let log = open(&disk, dir.path(), WritePath::Mapped);
    assert_eq!(count(&log), 701);
    assert_eq!(log.epoch().get(), 1, "it was closed cleanly");
}

#[test]
fn a_compaction_that_is_at_work_when_the_log_is_closed_is_given_up() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let (log, gone) = compacting(&disk, dir.path(), None);
    log.delete_topic(&gone).unwrap();
    let gate = Arc::new(Barrier::new(2));
    disk.faults.hang("create", "compact.tmp", &gate);
    let compacting = {
        let log = log.clone();
        thread::spawn(move || log.compact(|_| ()))
    };
    gate.wait();
    let closing = {
        let (log, written) = (log.clone(), dir.path().join("compact.tmp"));
        thread::spawn(move || {
            log.close().unwrap();
            assert!(!written.exists(), "the compaction has outlived the log");
        })
    };
    while log.append(b"more").is_ok() {
        thread::yield_now();
    }
    gate.wait();

    let given_up = compacting.join().unwrap();
    closing.join().unwrap();

    assert!(
        matches!(given_up, Err(CompactError::Refused(SyncError::Closed))),
        "{given_up:?}"
    );
    let log = open(&disk, dir.path(), WritePath::Mapped);
    assert!(count(&log) >= 701);
    assert!(log.compact(|_| ()).unwrap().records > 300);
}

/// A mapped log whose next small appends go through its file: somebody waited for the last flush.
fn mapped_with_awaited_flushes(disk: &Disk, dir: &std::path::Path) -> Log {
    let log = open(disk, dir, WritePath::Mapped);
    log.append(b"a").unwrap();
    log.sync().unwrap();
    log
}

#[test]
fn a_failed_write_of_a_mapped_log_lets_no_store_follow() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = mapped_with_awaited_flushes(&disk, dir.path());
    disk.faults.fail("write", ".seg", io::ErrorKind::Other);
    assert!(matches!(
        log.append(b"b"),
        Err(AppendError::Poisoned { .. })
    ));
    disk.faults.heal();
    // Large enough for the mapping.
    for payload in [&b"c"[..], &[7; 7000]] {
        let refused = log.append(payload);
        assert!(matches!(refused, Err(AppendError::Poisoned { .. })));
    }
    assert_eq!(log.sync().unwrap(), Offset::new(1), "durable before that");
    assert_eq!(count(&log), 1);
    drop(log);
    assert_eq!(count(&open(&disk, dir.path(), WritePath::Mapped)), 1);
}

#[test]
fn a_mapped_log_stores_nothing_behind_what_a_full_disk_left() {
    for of_whole_batch in [false, true] {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let log = mapped_with_awaited_flushes(&disk, dir.path());
        disk.faults
            .fail("write", "0.seg", io::ErrorKind::StorageFull);
        let refused = match of_whole_batch {
            // Its second frame begins a sector.
            true => log.append_batch([&[1; 400][..], &[2; 400]]).map(drop),
            false => log.append(b"b").map(drop),
        };
        assert!(matches!(refused, Err(AppendError::StorageFull { .. })));
        log.sync().unwrap();
        disk.faults.heal();

        // Beyond what goes through the file, and then not.
        for payload in [&[7; 7000][..], b"c", b"d"] {
            log.append(payload).unwrap();
            log.sync().unwrap();
        }

        assert!(crate::segment::path(dir.path(), Offset::new(1)).exists());
        assert_eq!(count(&log), 4);
        unclean_end(&disk, &log);
        drop(log);
        let log = open(&disk, dir.path(), WritePath::Mapped);
        assert_eq!((count(&log), log.next_offset().get()), (4, 4));
    }
}

#[test]
fn a_mapped_log_stores_nothing_into_a_sector_whose_pad_met_a_full_disk() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = mapped_with_awaited_flushes(&disk, dir.path());
    log.append(b"b").unwrap();
    disk.faults
        .fail("write", ".seg", io::ErrorKind::StorageFull);
    assert_eq!(log.sync().unwrap(), Offset::new(2));
    disk.faults.heal();

    log.append(b"c").unwrap();

    assert!(crate::segment::path(dir.path(), Offset::new(2)).exists());
    assert_eq!(count(&log), 3);
    log.sync().unwrap();
    unclean_end(&disk, &log);
    drop(log);
    assert_eq!(count(&open(&disk, dir.path(), WritePath::Mapped)), 3);
}

#[test]
fn whoever_waits_for_a_turn_while_a_sync_fails_learns_of_it() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
    let log = mapped_with_awaited_flushes(&disk, dir.path());
    let gate = Arc::new(Barrier::new(2));
    disk.faults.hang_and_fail("sync", ".seg", &gate);
    let appended = Arc::new(Barrier::new(5));
    let syncing = {
        let log = log.clone();
        log.append(b"b").unwrap();
        thread::spawn(move || log.sync())
    };
    gate.wait();
    // Some wait for the turn; one of them closes the log.
    let waiting = [0; 4].map(|_| {
        let (log, appended) = (log.clone(), Arc::clone(&appended));
        thread::spawn(move || {
            log.append(b"c").unwrap();
            appended.wait();
            log.sync()
        })
    });
    appended.wait();
    let closing = thread::spawn(move || log.close());
    gate.wait();

    for waiting in waiting.into_iter().chain([syncing]) {
        assert!(waiting.join().unwrap().is_err());
    }
    assert!(closing.join().unwrap().is_err());
}
