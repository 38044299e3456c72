//! What the faults of a disk make of a repair.

use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::error::{Damage, ReadError};
use crate::format::{self, Kind, NewFrame};
use crate::log::Log;
use crate::offset::Start;
use crate::options::{Flush, Options};
use crate::segment;

/// A closed log of 40 records in some segments, and a place beside it.
fn log_and_place(disk: &Disk) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let above = tempfile::tempdir().unwrap();
    let (src, dst) = (above.path().join("old"), above.path().join("new"));
    let options = Options::default()
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(16 << 10)
        .flush(Flush::OnDemand);
    let log = Log::open_writer_on(disk, &src, &options).unwrap();
    for number in 0..40_u8 {
        log.append(&[number; 600]).unwrap();
    }
    log.close().unwrap();
    (above, src, dst)
}

fn bases(disk: &Disk, dir: &Path) -> Vec<Offset> {
    recovery::Listing::read(disk, dir).unwrap().bases
}

fn count(dir: &Path) -> usize {
    let log = Log::open(dir).unwrap();
    log.replay(Start::Oldest).filter(Result::is_ok).count()
}

#[test]
fn no_call_changes_the_damaged_log() {
    let disk = Disk::default();
    let (_above, src, dst) = log_and_place(&disk);
    let changing = [
        "create",
        "write",
        "rename",
        "remove",
        "allocate",
        "punch a hole into",
        "sync",
        "evict",
        "lock",
        "unlock",
    ];
    for action in changing {
        disk.faults.take_calls(action);
    }

    repair_on(&disk, &src, &dst, |_| ()).unwrap();

    for action in changing {
        for path in disk.faults.take_calls(action) {
            assert!(!path.starts_with(&src), "{action} {}", path.display());
        }
    }
}

#[test]
fn what_the_disk_cannot_read_is_lost_and_the_rest_is_not() {
    let disk = Disk::default();
    let (_above, src, dst) = log_and_place(&disk);
    let (base, behind) = (bases(&disk, &src)[1], bases(&disk, &src)[2]);
    let path = segment::path(&src, base);
    let name = path.to_str().unwrap();
    disk.faults.fail("read", name, io::ErrorKind::Other);

    let found = repair_on(&disk, &src, &dst, |_| ()).unwrap();

    assert_eq!(found.lost, [base..behind]);
    assert!(
        matches!(&found.damages[..], [c] if c.path == path && c.damage == Damage::Unreadable),
        "{:?}",
        found.damages
    );
    assert_eq!(count(&dst) as u64, 40 - behind.since(base));
}

#[test]
fn a_repair_that_fails_leaves_nothing_and_can_be_tried_again() {
    for (action, path_end) in [
        ("create", ".repair"),
        ("write", ".repair"),
        ("sync", ".repair"),
        ("rename", ".repair"),
        ("sync", "/new"),
        ("create", "meta.tmp"),
        ("write", "meta.tmp"),
        ("sync", "meta.tmp"),
        ("rename", "meta.tmp"),
    ] {
        let disk = Disk::default();
        let (_above, src, dst) = log_and_place(&disk);
        disk.faults
            .fail(action, path_end, io::ErrorKind::StorageFull);

        let failed = repair_on(&disk, &src, &dst, |_| ()).unwrap_err();

        assert!(
            matches!(failed, RepairError::StorageFull { .. }),
            "{action} {path_end}: {failed}"
        );
        let left = disk.list(&dst).unwrap();
        assert!(left.is_empty(), "{action} {path_end}: {left:?}");
        disk.faults.heal();
        repair_on(&disk, &src, &dst, |_| ()).unwrap();
        assert_eq!(count(&dst), 40);
    }
}

#[test]
fn a_repair_that_is_killed_leaves_nothing_that_passes_for_a_log() {
    for (action, segment) in [
        ("write", Some(2)),
        ("rename", Some(0)),
        ("rename", Some(1)),
        ("create", None),
        ("rename", None),
    ] {
        let disk = Disk::default();
        let (_above, src, dst) = log_and_place(&disk);
        let path_end = match segment {
            Some(number) => format!("{:020}.repair", bases(&disk, &src)[number]),
            None => "meta.tmp".to_owned(),
        };
        disk.faults.fail(action, &path_end, io::ErrorKind::Other);
        // The kill: nothing is tidied up either.
        disk.faults.fail("remove", "", io::ErrorKind::Other);
        repair_on(&disk, &src, &dst, |_| ()).unwrap_err();
        disk.faults.heal();
        let left = disk.list(&dst).unwrap();
        assert!(!left.is_empty(), "{action} {path_end}");

        let opened = Log::open(&dst).unwrap_err();

        assert!(
            matches!(opened, OpenError::NotALog { .. } | OpenError::Corrupt(_)),
            "{action} {path_end}: {opened}"
        );
        if let Ok(verified) = crate::verify(&dst, |_| ()) {
            assert!(!verified.is_sound(), "{action} {path_end}");
        }
        // It is not taken for a log to be repaired, unless all of it is there.
        let again = dst.with_file_name("again");
        match repair_on(&disk, &dst, &again, |_| ()) {
            Err(refused) => assert!(matches!(refused, RepairError::Unfinished { .. })),
            Ok(_) => assert_eq!(count(&again), 40),
        }
        let taken = repair_on(&disk, &src, &dst, |_| ()).unwrap_err();
        assert!(matches!(taken, RepairError::NotEmpty { .. }));
    }
}

#[test]
fn the_new_log_is_durable_before_its_meta_says_so() {
    let disk = Disk::default();
    let (_above, src, dst) = log_and_place(&disk);
    disk.faults.take_calls("sync");

    repair_on(&disk, &src, &dst, |_| ()).unwrap();

    let synced = disk.faults.take_calls("sync");
    let at = |name: &Path| synced.iter().position(|path| path == name).unwrap();
    let meta = at(&dst.join("meta.tmp"));
    for base in bases(&disk, &src) {
        let file = dst.join(format!("{base:020}.repair"));
        assert!(at(&file) < meta);
    }
    // The names: those of the segments before `meta`, and that one behind it.
    assert!(at(&dst) < meta);
    assert!(synced[meta..].contains(&dst));
    let above = dst.canonicalize().unwrap().parent().unwrap().to_owned();
    assert!(
        synced
            .iter()
            .any(|path| path.canonicalize().ok().as_ref() == Some(&above))
    );
}

#[test]
fn a_gap_wider_than_a_segment_can_number_is_kept_in_one_frame() {
    let disk = Disk::default();
    let (above, src, dst) = log_and_place(&disk);
    // A segment far behind: its records are there, those between are not.
    let far = Offset::new(1 << 40);
    let mut target = Target::new(&disk, &dst, Offset::ZERO, crate::offset::Epoch::FIRST);
    disk.create_dir(&dst).unwrap();
    take(&mut target, 1, b"near");
    target.leave_out(far).unwrap();
    take(&mut target, 2, b"far");
    target.leave_out(far.plus(1 << 33)).unwrap();
    target
        .finish(Offset::ZERO, Source::read(&disk, &src).unwrap().epochs)
        .unwrap();

    let log = Log::open(&dst).unwrap();

    assert_eq!(log.append(b"behind").unwrap(), far.plus(1 << 33));
    let read: Vec<_> = log
        .replay(Start::Oldest)
        .map(|read| read.map(|r| r.offset()))
        .collect();
    assert!(matches!(read[0], Ok(Offset::ZERO)));
    assert!(matches!(read[1], Err(ReadError::Lost { to, .. }) if to == far));
    assert!(matches!(read[2], Ok(offset) if offset == far));
    assert!(matches!(read[3], Err(ReadError::Lost { from, .. }) if from == far.next()));
    assert_eq!(read.len(), 5);
    let within = Offset::new(1 << 39);
    assert!(matches!(log.get(within), Err(ReadError::Lost { from, .. }) if from.get() == 1));
    log.close().unwrap();
    let again = above.path().join("again");
    let found = repair_on(&disk, &dst, &again, |_| ()).unwrap();
    assert!(found.is_complete() && found.gaps.len() == 2 && found.damages.is_empty());
    // Also where the segment that the gap is in has lost its footer.
    for unclean in [false, true] {
        let file = disk
            .open_writable(&segment::path(&again, Offset::ZERO))
            .unwrap();
        file.write_at(&[0; 64], file.bytes().unwrap() - 4096)
            .unwrap();
        if unclean {
            disk.remove(&again.join("meta")).unwrap();
        }
        let reader = Options::default().open_read_only(&again).unwrap();
        let lost = reader.replay(Start::Oldest).filter(Result::is_err).count();
        assert_eq!(lost, 2);
        assert_eq!(reader.next_offset(), found.next);
    }
}

fn take(target: &mut Target<'_>, timestamp_micros: u64, payload: &[u8]) {
    let new = NewFrame::plain(Kind::Record, 0, timestamp_micros, payload);
    let mut bytes = vec![0; new.bytes()];
    let word = new.encode(1, &mut bytes[8..]);
    bytes[..8].copy_from_slice(&word.to_le_bytes());
    let frame = format::decode_frame(&bytes, 0, 1).unwrap();
    target.record(&frame, &bytes).unwrap();
}
