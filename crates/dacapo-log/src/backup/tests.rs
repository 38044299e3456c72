//! What failing calls and kills leave of a backup, call by call.

use std::path::{Path, PathBuf};

use super::*;
use crate::disk::Disk;
use crate::disk::faults::Ending;
use crate::error::OpenError;
use crate::offset::Start;
use crate::options::{Flush, Options};

/// A log in small segments, and a place beside it.
struct Given {
    above: tempfile::TempDir,
    log: Log,
}

impl Given {
    fn new() -> Self {
        let above = tempfile::tempdir().unwrap();
        let log = small_segments().open(above.path().join("log")).unwrap();
        let given = Self { above, log };
        given.append(0..40);
        given
    }

    /// With a backup that has become old: the log has appended and pruned.
    fn with_earlier() -> Self {
        let given = Self::new();
        given.log.backup(given.dst(), |_| ()).unwrap();
        given.append(40..80);
        assert!(given.log.prune(Offset::new(20)).unwrap().oldest > Offset::ZERO);
        given
    }

    fn append(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.log.append(&payload(number)).unwrap();
        }
        self.log.sync().unwrap();
    }

    fn dst(&self) -> PathBuf {
        self.above.path().join("copy")
    }

    /// The log as another process reads it, through a disk that fails on demand.
    fn reader(&self, disk: &Disk) -> Log {
        Log::open_reader_on(disk, self.log.dir()).unwrap()
    }
}

fn small_segments() -> Options {
    Options::default()
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(16 << 10)
        .flush(Flush::OnDemand)
}

fn payload(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(75)
}

/// Reads all of a sound log and returns its offsets.
fn check(log: &Log) -> std::ops::Range<u64> {
    let mut next = log.oldest().get();
    for read in log.replay(Start::Oldest) {
        assert_eq!(read.unwrap().payload(), payload(next));
        next += 1;
    }
    log.oldest().get()..next
}

/// What somebody finds who opens the directory: all of a log, or that there is none.
fn look(dir: &Path) -> Option<std::ops::Range<u64>> {
    let opened = Options::default().open_read_only(dir);
    match opened {
        Ok(log) => {
            assert!(crate::verify(dir, |_| ()).unwrap().is_sound());
            assert!(log.status().unwrap().clean);
            Some(check(&log))
        }
        Err(OpenError::UnfinishedBackup { .. }) => {
            // It is none for a writer either.
            assert!(matches!(
                Log::open(dir),
                Err(OpenError::UnfinishedBackup { .. })
            ));
            None
        }
        // Nothing that a log has was made yet.
        Err(OpenError::NotFound { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}

/// Makes the same backup again and again, and lets it end one call later each time.
fn ends_at_every_call(given: &Given, ending: Ending) {
    let disk = Disk::default();
    let reader = given.reader(&disk);
    let whole = check(&given.log);
    let before = look(&given.dst());
    let place = |name: &str| {
        let dst = given.dst().with_file_name(name);
        if before.is_some() {
            copy_files(&given.dst(), &dst);
        }
        dst
    };
    let counted = place("counted");
    disk.faults.take_all_calls();
    reader.backup(counted, |_| ()).unwrap();
    let calls = disk.faults.take_all_calls().len();
    let (mut failed, mut unfinished) = (0, 0);
    for passed in 0..calls {
        let dst = place(&format!("behind-{passed}"));
        disk.faults.end_after(passed, ending);

        let made = reader.backup(&dst, |_| ());

        disk.faults.heal();
        let left = look(&dst);
        failed += usize::from(made.is_err());
        match &left {
            None => unfinished += 1,
            Some(left) => assert!(
                *left == whole || (made.is_err() && before.as_ref() == Some(left)),
                "behind {passed} calls: {left:?}"
            ),
        }
        assert!(made.is_err() || left.is_some());
        // Another run completes it.
        reader.backup(&dst, |_| ()).unwrap();
        assert_eq!(look(&dst), Some(whole.clone()), "behind {passed} calls");
        for name in disk.list(&dst).unwrap() {
            assert!(!name.to_string_lossy().ends_with(STAGED), "{name:?} stays");
        }
    }
    // Only those of index files are not met by anybody; how many there are is chance.
    assert!(failed > calls / 2, "{failed} of {calls} runs failed");
    let expected = match before {
        None => failed / 2..failed,
        Some(_) => 1..failed / 2,
    };
    assert!(expected.contains(&unfinished), "{unfinished} of {failed}");
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_first_backup_that_is_killed_at_any_call_is_no_log_and_is_completed_by_another_run() {
    ends_at_every_call(&Given::new(), Ending::Kill);
}

#[test]
fn a_first_backup_in_which_any_call_fails_is_no_log_and_is_completed_by_another_run() {
    ends_at_every_call(&Given::new(), Ending::Failure);
}

#[test]
fn an_increment_that_is_killed_at_any_call_leaves_the_old_backup_or_says_that_it_was_interrupted() {
    ends_at_every_call(&Given::with_earlier(), Ending::Kill);
}

#[test]
fn an_increment_in_which_any_call_fails_leaves_the_old_backup_or_says_that_it_was_interrupted() {
    ends_at_every_call(&Given::with_earlier(), Ending::Failure);
}

#[test]
fn no_call_changes_the_log() {
    let (given, disk) = (Given::with_earlier(), Disk::default());
    let reader = given.reader(&disk);
    disk.faults.take_all_calls();

    reader.backup(given.dst(), |_| ()).unwrap();

    for (action, path) in disk.faults.take_all_calls() {
        let only_looks = ["open", "stat", "list", "read", "map"].contains(&action);
        let elsewhere = !path.starts_with(given.log.dir());
        assert!(only_looks || elsewhere, "{action} {}", path.display());
    }
}

#[test]
fn everything_is_durable_before_meta_gets_its_name() {
    let (given, disk) = (Given::with_earlier(), Disk::default());
    let (reader, dst) = (given.reader(&disk), given.dst());
    disk.faults.take_all_calls();

    reader.backup(&dst, |_| ()).unwrap();

    let calls = disk.faults.take_all_calls();
    let change = |action: &str| matches!(action, "write" | "rename" | "remove" | "link" | "create");
    let at = |action, name: &str| {
        let path = dst.join(name);
        calls
            .iter()
            .position(|call| *call == (action, path.clone()))
            .unwrap()
    };
    let is_sync = |call: &(&str, PathBuf)| *call == ("sync", dst.clone());
    // The earlier `meta` goes durably, when all that is to be named is there durably.
    let (gone, named) = (at("remove", "meta"), at("rename", "meta.backup"));
    assert!(is_sync(&calls[gone - 1]), "{:?}", calls[gone - 1]);
    assert!(is_sync(&calls[gone + 2]), "opened, and synced");
    // Nothing but names changes between, and they are durable before the new one comes.
    assert!(is_sync(&calls[named - 1]), "{:?}", calls[named - 1]);
    assert!(calls[named..].iter().any(is_sync));
    assert!(calls[named + 1..].iter().all(|(action, _)| !change(action)));
    // What was written under a name that nobody relies on was synced before it got another one.
    let unsynced = dst.join("unsynced.backup");
    let mut written = false;
    for (action, path) in &calls {
        match *action {
            "write" if *path == unsynced => written = true,
            "sync" if *path == unsynced => written = false,
            "rename" => assert!(!written, "{}", path.display()),
            _ => {}
        }
    }
}

#[test]
fn a_segment_that_is_pruned_before_it_is_linked_is_left_out() {
    let (given, disk) = (Given::new(), Disk::default());
    let reader = given.reader(&disk);
    let mut pruned = false;

    let made = reader
        .backup(given.dst(), |_| {
            if !pruned {
                given.log.prune(Offset::new(30)).unwrap();
                pruned = true;
            }
        })
        .unwrap();

    assert_eq!(made.oldest, given.log.oldest());
    assert!(made.oldest > Offset::ZERO);
    assert_eq!(made.segments, made.linked + made.copied + made.kept);
    assert_eq!(look(&given.dst()), Some(made.oldest.get()..40));
}

#[test]
fn a_segment_that_is_missing_and_was_not_pruned_is_an_error() {
    let (given, disk) = (Given::new(), Disk::default());
    let reader = given.reader(&disk);
    let second = reader.shared().segments.summaries()[1].base;
    disk.remove(&crate::segment::path(given.log.dir(), second))
        .unwrap();

    let refused = reader.backup(given.dst(), |_| ()).unwrap_err();

    let BackupError::Damaged(ReadError::SegmentMissing { offset, .. }) = refused else {
        panic!("{refused}");
    };
    assert_eq!(offset, second);
    assert_eq!(look(&given.dst()), None);
}
