//! Backups: made while the log is written, brought up to date, and never mixed up with other logs.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::channel;
use std::thread;

use dacapo_log::{
    Backup, BackupError, Log, Offset, OpenError, ReadError, Start, SyncError, Topic, verify,
};
use tempfile::TempDir;

use support::mounted::{Mounted, run};
use support::{as_if_killed, flip, payloads, position_of, quiet, segments, small_segments, tell};

/// A place for logs and backups, beside each other.
struct Above(TempDir);

impl Above {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A log of so many records in small segments, all of them durable.
    fn log_of(&self, records: u64) -> Log {
        let log = small_segments().open(self.path("log")).unwrap();
        append(&log, 0..records);
        log
    }
}

fn append(log: &Log, numbers: std::ops::Range<u64>) {
    for number in numbers {
        log.append(text(number).as_bytes()).unwrap();
    }
    log.sync().unwrap();
}

/// So long that a small segment takes about 15 of them.
fn text(number: u64) -> String {
    format!("record number {number}, {}", "x".repeat(500))
}

fn texts(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(text).collect()
}

fn backup(log: &Log, dst: &Path) -> Backup {
    log.backup(dst, |_| ()).unwrap()
}

/// What the backup holds, which must be sound and closed.
fn held(dst: &Path) -> Vec<String> {
    assert!(verify(dst, |_| ()).unwrap().is_sound());
    let log = Log::options().open_read_only(dst).unwrap();
    let status = log.status().unwrap();
    assert!(status.clean && status.durable == status.next);
    payloads(&log)
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// The content of every file of a directory but its lock.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    // Index files are written in the background, whenever that is.
    let is_kept = |path: &PathBuf| {
        path.file_name().unwrap() == "meta" || path.extension().is_some_and(|e| e == "seg")
    };
    entries
        .filter(is_kept)
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect()
}

/// A record as it was read.
type Read = (u64, u64, Vec<u8>);

fn read_all(log: &Log) -> Vec<Read> {
    let read = |record: Result<dacapo_log::Record, ReadError>| {
        let record = record.unwrap();
        (
            record.offset().get(),
            record.timestamp_micros(),
            record.payload().to_vec(),
        )
    };
    log.replay(Start::Oldest).map(read).collect()
}

#[test]
fn every_backup_made_while_producers_append_and_a_thread_prunes_is_a_part_of_the_log() {
    const BACKUPS: usize = 40;
    let above = Above::new();
    let dir = above.path("log");
    let log = quiet()
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(64 << 10)
        .open(&dir)
        .unwrap();
    let stop = AtomicBool::new(false);
    let (read, to_prune) = channel();
    let mut made: Vec<(u64, Backup, Vec<Read>)> = Vec::new();
    let all = thread::scope(|scope| {
        let producers = [0, 1, 2, 3].map(|producer| {
            let (log, stop) = (&log, &stop);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Relaxed) {
                    for _ in 0..10 {
                        log.append(format!("{producer} {round}").as_bytes())
                            .unwrap();
                    }
                    let size = usize::try_from(round % 7 * 300).unwrap();
                    // The last one of a batch says so.
                    let batch = ["part", "part", "end"].map(|s| format!("{s}{}", "x".repeat(size)));
                    log.append_batch(batch).unwrap();
                    log.sync().unwrap();
                    round += 1;
                }
            })
        });
        // Reads every record before it may be pruned.
        let tailing_log = &log;
        let tailing = scope.spawn(move || {
            let mut tailer = tailing_log.tail(Start::Oldest);
            let mut all: Vec<Read> = Vec::new();
            loop {
                match tailer.next_blocking() {
                    Ok(record) => {
                        let offset = record.offset();
                        all.push((
                            offset.get(),
                            record.timestamp_micros(),
                            record.payload().to_vec(),
                        ));
                        if offset.get().is_multiple_of(500) {
                            // Nobody prunes any more once the log is closed.
                            let _ = read.send(offset);
                        }
                    }
                    Err(ReadError::Closed) => break all,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let pruning_log = &log;
        let pruning = scope.spawn(move || {
            let mut pruned = 0;
            for before in to_prune {
                let oldest = pruning_log.oldest();
                match pruning_log.prune(before) {
                    Ok(now) => pruned += u64::from(now.oldest > oldest),
                    Err(SyncError::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            pruned
        });
        let long_opened = Log::options().open_read_only(&dir).unwrap();
        for number in 0..BACKUPS {
            let reader = match number % 3 {
                0 => log.clone(),
                1 => long_opened.clone(),
                _ => Log::options().open_read_only(&dir).unwrap(),
            };
            // Some are new, most bring an earlier one up to date.
            let dst = above.path(&format!("copy-{}", number % 5 + number / 20 * 5));
            // Another process knows what is durable by the marks behind the flushes, one flush late.
            let promised = match number % 3 {
                0 => log.next_offset().get(),
                _ => 0,
            };
            let backup = backup(&reader, &dst);
            let copy = Log::options().open_read_only(&dst).unwrap();
            assert!(verify(&dst, |_| ()).unwrap().is_sound());
            assert!(copy.status().unwrap().clean);
            made.push((promised, backup, read_all(&copy)));
        }
        stop.store(true, Relaxed);
        for producer in producers {
            producer.join().unwrap();
        }
        log.close().unwrap();
        let all = tailing.join().unwrap();
        assert!(pruning.join().unwrap() > 0, "nothing was pruned meanwhile");
        all
    });

    let (mut linked, mut pruned) = (0, 0);
    for (promised, backup, records) in &made {
        let (oldest, next) = (backup.oldest.get(), backup.next.get());
        assert!(next >= *promised, "{next} behind {promised}");
        let range = usize::try_from(oldest).unwrap()..usize::try_from(next).unwrap();
        assert!(records[..] == all[range], "{oldest} to {next}");
        let last = records.last().map(|(_, _, payload)| payload);
        assert!(
            !last.is_some_and(|last| last.starts_with(b"part")),
            "half a batch"
        );
        assert_eq!(backup.segments, backup.linked + backup.copied + backup.kept);
        linked += backup.linked;
        pruned += u64::from(oldest > 0);
    }
    tell(format_args!(
        "{} backups of a log of {} records: {linked} segments linked, {pruned} began behind the first",
        made.len(),
        all.len()
    ));
    assert!(linked > 0 && pruned > 0);
}

#[test]
fn a_backup_is_brought_up_to_date_with_what_is_new_and_without_what_was_pruned() {
    let above = Above::new();
    let (log, dst) = (above.log_of(100), above.path("copy"));
    let first = backup(&log, &dst);
    assert_eq!(first.segments, segments(log.dir()).len());
    assert_eq!(
        (first.linked, first.copied, first.kept),
        (first.segments - 1, 1, 0)
    );
    assert_eq!((first.oldest, first.next), (Offset::ZERO, Offset::new(100)));
    assert_eq!(held(&dst), texts(0..100));

    append(&log, 100..150);
    let oldest = log.prune(Offset::new(40)).unwrap().oldest;
    assert!(oldest > Offset::ZERO);
    let second = backup(&log, &dst);

    assert_eq!(held(&dst), texts(oldest.get()..150));
    let names = |dir: &Path| {
        let files = segments(dir);
        files
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&dst), names(log.dir()));
    assert!(second.kept > 0 && second.linked > 0 && second.copied == 1);

    // Nothing has changed: nothing is done.
    let before = contents(&dst);
    let third = backup(&log, &dst);
    assert_eq!(
        (third.segments, third.kept),
        (second.segments, second.segments)
    );
    assert_eq!(third.copied_bytes, 0);
    assert_eq!(contents(&dst), before);
}

#[test]
fn a_backup_has_the_indexes_of_its_segments() {
    let above = Above::new();
    let (log, dst) = (above.log_of(0), above.path("copy"));
    let lamps = Topic::new("lamps").unwrap();
    for number in 0..100 {
        log.append_to(&lamps, text(number).as_bytes()).unwrap();
    }
    log.close().unwrap(); // waits for the index files
    backup(&Log::options().open_read_only(log.dir()).unwrap(), &dst);

    for path in segments(&dst) {
        assert!(path.with_extension("idx").exists(), "{}", path.display());
    }
    let derived = |dir: &Path| {
        let names = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let names: BTreeSet<_> = names.collect();
        names
            .into_iter()
            .filter(|name| !name.to_string_lossy().ends_with(".seg"))
            .collect::<BTreeSet<_>>()
    };
    let missing: Vec<_> = derived(log.dir())
        .difference(&derived(&dst))
        .cloned()
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_backup_is_the_same_log_for_those_who_resume() {
    let above = Above::new();
    let log = above.log_of(50);
    let killed = as_if_killed(&log);
    let log = small_segments().open(killed.path()).unwrap();
    append(&log, 50..70);
    let mut tailer = log.tail(Start::At(Offset::new(60)));
    tailer.next_blocking().unwrap();
    let checkpoint = tailer.checkpoint();
    let dst = above.path("copy");
    backup(&log, &dst);

    let copy = small_segments().open(&dst).unwrap();

    assert_eq!(copy.epoch(), log.epoch());
    let (ours, theirs) = (log.status().unwrap(), copy.status().unwrap());
    assert_eq!(ours.log_id, theirs.log_id);
    assert_eq!(ours.epochs.len(), theirs.epochs.len());
    let resumed: Vec<_> = copy
        .replay(Start::Resume(checkpoint))
        .map(Result::unwrap)
        .collect();
    assert_eq!(resumed.len(), 9);
    assert_eq!(resumed[0].offset(), Offset::new(61));
}

#[test]
fn an_opened_backup_and_its_log_never_change_each_others_files() {
    let above = Above::new();
    let (log, dst) = (above.log_of(100), above.path("copy"));
    backup(&log, &dst);
    let pairs: Vec<(PathBuf, PathBuf)> = segments(log.dir())
        .into_iter()
        .zip(segments(&dst))
        .collect();
    let (last, full) = pairs.split_last().unwrap();
    assert!(full.len() > 3);
    for (ours, theirs) in full {
        assert_eq!(inode(ours), inode(theirs), "{}", theirs.display());
    }
    assert_ne!(inode(&last.0), inode(&last.1));
    let mut ours = contents(log.dir());

    // Appended to, closed, resumed, killed and recovered, and pruned.
    let copy = small_segments().open(&dst).unwrap();
    append(&copy, 100..130);
    let unclean = fs::read(dst.join("meta")).unwrap();
    copy.close().unwrap();
    append(&small_segments().open(&dst).unwrap(), 130..140);
    fs::write(dst.join("meta"), unclean).unwrap();
    let copy = small_segments().open(&dst).unwrap();
    assert!(copy.epoch() > log.epoch(), "recovered");
    append(&copy, 140..150);
    assert_eq!(payloads(&copy), texts(0..150));
    copy.prune(Offset::new(60)).unwrap();
    assert_eq!(contents(log.dir()), ours);

    // And the other way round.
    copy.close().unwrap();
    let theirs = contents(&dst);
    log.prune(Offset::new(30)).unwrap();
    append(&log, 100..120);
    let unclean = fs::read(log.dir().join("meta")).unwrap();
    log.close().unwrap();
    fs::write(log.dir().join("meta"), unclean).unwrap();
    let log = small_segments().open(log.dir()).unwrap();
    append(&log, 120..170);
    assert_eq!(contents(&dst), theirs);
    ours.retain(|path, _| path.extension().is_some_and(|e| e == "seg") && path.exists());
    ours.remove(&last.0);
    for (path, bytes) in ours {
        assert_eq!(fs::read(&path).unwrap(), bytes, "{}", path.display());
    }
}

#[test]
fn what_is_not_durable_is_left_out_until_it_is() {
    let above = Above::new();
    let dst = above.path("copy");
    // One segment: a roll would have it flushed.
    let log = quiet().open(above.path("log")).unwrap();
    append(&log, 0..40);
    log.sync().unwrap();
    for number in 40..75 {
        log.append(text(number).as_bytes()).unwrap();
    }
    // Left by a kill, and not opened for writing since.
    let killed = as_if_killed(&log);
    let reader = Log::options().open_read_only(killed.path()).unwrap();
    let made = backup(&reader, &dst);
    assert_eq!((made.next, made.not_durable), (Offset::new(40), 35));
    assert_eq!(held(&dst), texts(0..40));

    // A recovery keeps them, and then they are durable.
    let log = small_segments().open(killed.path()).unwrap();
    let made = backup(&log, &dst);

    assert_eq!((made.next, made.not_durable), (Offset::new(75), 0));
    assert_eq!(held(&dst), texts(0..75));
}

#[test]
fn a_log_that_is_open_for_writing_is_made_durable_first() {
    let above = Above::new();
    let log = quiet().open(above.path("log")).unwrap();
    log.append_batch(["a", "b"]).unwrap();
    log.append_to(&Topic::new("t").unwrap(), b"c").unwrap();

    let made = backup(&log, &above.path("copy"));

    assert_eq!((made.next, made.not_durable), (Offset::new(3), 0));
    assert_eq!(log.durable_offset(), Offset::new(3));
    assert_eq!(held(&above.path("copy")), ["a", "b", "c"]);
    let copy = Log::options().open_read_only(above.path("copy")).unwrap();
    assert_eq!(copy.get(Offset::new(2)).unwrap().topic(), "t");
}

#[test]
fn an_empty_log_has_an_empty_backup_that_can_be_brought_up_to_date() {
    let above = Above::new();
    let (log, dst) = (above.log_of(0), above.path("copy"));
    let made = backup(&log, &dst);
    assert_eq!((made.segments, made.next), (0, Offset::ZERO));
    assert_eq!(held(&dst), [""; 0]);

    append(&log, 0..3);
    backup(&log, &dst);

    assert_eq!(held(&dst), texts(0..3));
    assert_eq!(
        small_segments().open(&dst).unwrap().append(b"x").unwrap(),
        Offset::new(3)
    );
}

#[test]
fn a_backup_can_be_backed_up_and_can_take_the_place_of_the_log() {
    let above = Above::new();
    let (log, first, second) = (above.log_of(50), above.path("first"), above.path("second"));
    backup(&log, &first);
    drop(log);
    backup(&Log::options().open_read_only(&first).unwrap(), &second);
    assert_eq!(held(&second), texts(0..50));

    // Restored: goes on as the log, and has backups of its own, into the untouched one as well.
    let restored = small_segments().open(&first).unwrap();
    append(&restored, 50..90);
    backup(&restored, &second);

    assert_eq!(held(&second), texts(0..90));
}

#[test]
fn a_backup_that_was_opened_for_writing_is_never_overwritten() {
    let above = Above::new();
    let (log, dst) = (above.log_of(50), above.path("copy"));
    backup(&log, &dst);
    let copy = small_segments().open(&dst).unwrap();
    let busy = log.backup(&dst, |_| ()).unwrap_err();
    assert!(
        matches!(busy, BackupError::InUse { pid: Some(_), .. }),
        "{busy}"
    );
    append(&copy, 50..51);
    copy.close().unwrap();
    append(&log, 50..80);
    let before = contents(&dst);

    let refused = log.backup(&dst, |_| ()).unwrap_err();

    assert!(
        matches!(refused, BackupError::WrittenTo { .. }),
        "{refused}"
    );
    assert_eq!(contents(&dst), before);
}

#[test]
fn a_backup_that_holds_more_than_the_log_is_never_overwritten() {
    let above = Above::new();
    let (log, dst, older) = (above.log_of(40), above.path("copy"), above.path("older"));
    backup(&log, &older);
    append(&log, 40..60);
    backup(&log, &dst);
    let before = contents(&dst);

    // The log is lost, and an older backup takes its place: first it is shorter, and then it is
    // another one.
    let restored = small_segments().open(&older).unwrap();
    let refused = restored.backup(&dst, |_| ()).unwrap_err();
    assert!(
        matches!(refused, BackupError::Longer { from, .. } if from == Offset::new(40)),
        "{refused}"
    );
    append(&restored, 1000..1050);
    let refused = restored.backup(&dst, |_| ()).unwrap_err();

    assert!(
        matches!(refused, BackupError::Diverged { at, .. } if at == Offset::new(59)),
        "{refused}"
    );
    assert_eq!(contents(&dst), before);
}

#[test]
fn only_a_new_place_or_a_backup_of_this_log_is_taken() {
    let above = Above::new();
    let log = above.log_of(20);
    let refusal = |name: &str| {
        let dst = above.path(name);
        let before = dst.is_dir().then(|| contents(&dst));
        let refused = log.backup(&dst, |_| ()).unwrap_err();
        assert_eq!(dst.is_dir().then(|| contents(&dst)), before, "{refused}");
        refused
    };

    fs::create_dir(above.path("notes")).unwrap();
    fs::write(above.path("notes/mine.txt"), "mine").unwrap();
    assert!(
        matches!(refusal("notes"), BackupError::NotABackup { found, .. } if found == "mine.txt")
    );
    fs::write(above.path("file"), "mine").unwrap();
    assert!(matches!(refusal("file"), BackupError::NotADirectory { .. }));
    assert!(matches!(refusal("log"), BackupError::Inside { .. }));
    assert!(matches!(refusal("log/copy"), BackupError::Inside { .. }));

    let other = small_segments().open(above.path("other")).unwrap();
    append(&other, 0..30);
    backup(&other, &above.path("of-other"));
    assert!(matches!(refusal("of-other"), BackupError::OtherLog { .. }));
    // Also what was interrupted, at any time.
    fs::rename(
        above.path("of-other/meta"),
        above.path("of-other/meta.backup"),
    )
    .unwrap();
    assert!(matches!(refusal("of-other"), BackupError::OtherLog { .. }));
    fs::remove_file(above.path("of-other/meta.backup")).unwrap();
    assert!(matches!(
        refusal("of-other"),
        BackupError::NotABackup { .. }
    ));
    let first = segments(&above.path("of-other"))[0].clone();
    for path in &segments(&above.path("of-other"))[1..] {
        fs::remove_file(path).unwrap();
    }
    fs::rename(&first, first.with_extension("backup")).unwrap();
    assert!(matches!(refusal("of-other"), BackupError::OtherLog { .. }));

    // An empty directory is as good as none.
    fs::create_dir(above.path("empty")).unwrap();
    backup(&log, &above.path("empty"));
    assert_eq!(held(&above.path("empty")), texts(0..20));
}

#[test]
fn an_interrupted_backup_says_so_to_whoever_opens_it() {
    let above = Above::new();
    let (log, dst) = (above.log_of(50), above.path("copy"));
    backup(&log, &dst);
    fs::rename(dst.join("meta"), dst.join("meta.backup")).unwrap();

    for refused in [Log::open(&dst), Log::options().open_read_only(&dst)] {
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, OpenError::UnfinishedBackup { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains("run the backup again"));
    }
    let made = backup(&log, &dst);

    assert_eq!(made.kept, made.segments);
    assert_eq!(held(&dst), texts(0..50));
}

#[test]
fn damage_in_a_full_segment_comes_along_and_damage_in_the_last_one_is_refused() {
    let above = Above::new();
    let (log, dst) = (above.log_of(100), above.path("copy"));
    log.close().unwrap();
    let files = segments(log.dir());
    flip(&files[1], position_of(&files[1], "record number 2"));
    let reader = Log::options().open_read_only(log.dir()).unwrap();

    backup(&reader, &dst);
    assert_eq!(verify(&dst, |_| ()).unwrap().lost.len(), 1);

    let last = files.last().unwrap();
    flip(last, position_of(last, "record number 9"));
    let before = contents(&dst);
    let reader = Log::options().open_read_only(log.dir()).unwrap();
    let refused = reader.backup(&dst, |_| ()).unwrap_err();
    let BackupError::Damaged(ReadError::Corrupt(damage)) = &refused else {
        panic!("{refused}");
    };
    assert_eq!(&damage.path, last);
    assert!(refused.to_string().contains("repair it into a new log"));
    assert_eq!(contents(&dst), before);
}

#[test]
fn a_damaged_end_of_an_earlier_backup_is_not_believed() {
    let above = Above::new();
    let (log, dst) = (above.log_of(50), above.path("copy"));
    backup(&log, &dst);
    append(&log, 50..60);
    let last = segments(&dst).pop().unwrap();
    flip(&last, position_of(&last, "record number 49"));

    let refused = log.backup(&dst, |_| ()).unwrap_err();

    assert!(
        matches!(refused, BackupError::Unreadable(OpenError::Corrupt(_))),
        "{refused}"
    );
}

#[test]
fn a_full_segment_that_is_gone_from_a_backup_is_put_back() {
    let above = Above::new();
    let (log, dst) = (above.log_of(100), above.path("copy"));
    backup(&log, &dst);
    for gone in [0, 2, segments(&dst).len() - 1] {
        fs::remove_file(&segments(&dst)[gone]).unwrap();
        backup(&log, &dst);
        assert_eq!(held(&dst), texts(0..100));
    }
}

#[test]
fn a_backup_on_another_filesystem_is_a_copy() {
    let Some(mounted) = Mounted::tmpfs("16m") else {
        tell("SKIPPED: no other filesystem: mounting a tmpfs takes root");
        return;
    };
    let above = Above::new();
    let (log, dst) = (above.log_of(100), mounted.at().join("copy"));

    let made = backup(&log, &dst);

    assert_eq!((made.linked, made.copied), (0, made.segments));
    assert!(made.copied_bytes > 0);
    assert_eq!(held(&dst), texts(0..100));
    append(&log, 100..150);
    let oldest = log.prune(Offset::new(40)).unwrap().oldest;
    let more = backup(&log, &dst);
    assert!(more.kept > 0 && more.copied > 0 && more.linked == 0);
    assert_eq!(held(&dst), texts(oldest.get()..150));
}

#[test]
fn a_full_disk_is_an_error_and_another_run_goes_on_once_there_is_space() {
    let Some(mounted) = Mounted::tmpfs("1m") else {
        tell("SKIPPED: no small filesystem: mounting a tmpfs takes root");
        return;
    };
    let above = Above::new();
    let (log, dst) = (above.log_of(2000), mounted.at().join("copy"));

    let full = log.backup(&dst, |_| ()).unwrap_err();

    assert!(matches!(full, BackupError::StorageFull { .. }), "{full}");
    assert!(matches!(
        Log::open(&dst),
        Err(OpenError::UnfinishedBackup { .. })
    ));
    assert!(mounted.remount("size=16m"));
    let made = backup(&log, &dst);
    assert!(made.kept > 10 && made.copied > 0, "{made:?}");
    assert_eq!(held(&dst), texts(0..2000));
}

#[test]
fn where_a_filesystem_shares_blocks_and_no_files_a_backup_shares_blocks() {
    let mounted = Mounted::in_file("mkfs.btrfs", &["-q", "--mixed"], "114M");
    let made_of = |mounted: &Mounted, name: &str| {
        let path = mounted.at().join(name);
        run("btrfs", &["subvolume", "create", path.to_str().unwrap()]).then_some(path)
    };
    let place = mounted.and_then(|mounted| {
        let (one, other) = (made_of(&mounted, "one")?, made_of(&mounted, "other")?);
        Some((one, other, mounted))
    });
    let Some((one, other, _mounted)) = place else {
        tell("SKIPPED: no btrfs: mounting one takes root, mkfs.btrfs and btrfs");
        return;
    };
    let log = small_segments().open(one.join("log")).unwrap();
    append(&log, 0..100);
    let dst = other.join("copy");

    let made = backup(&log, &dst);

    assert_eq!((made.linked, made.copied), (made.segments - 1, 1));
    let files = segments(log.dir()).into_iter().zip(segments(&dst));
    for (ours, theirs) in files {
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        assert_ne!(
            device(&ours),
            device(&theirs),
            "no hard links between subvolumes"
        );
    }
    assert_eq!(held(&dst), texts(0..100));
    append(&small_segments().open(&dst).unwrap(), 100..110);
    assert_eq!(payloads(&log), texts(0..100));
}

#[test]
fn progress_comes_to_its_end() {
    let above = Above::new();
    let log = above.log_of(100);
    let mut seen = Vec::new();

    log.backup(above.path("copy"), |done| seen.push(done))
        .unwrap();

    assert!(seen.is_sorted_by_key(|done| done.checked_bytes));
    let last = seen.last().unwrap();
    assert_eq!(last.checked_bytes, last.total_bytes);
}

// While a log is compacted

/// Fills about one small segment.
fn fill(log: &Log) {
    (0..15).for_each(|_| assert!(log.append(&[7; 1000]).is_ok()));
}

fn topic_names(log: &Log) -> Vec<String> {
    let topics = log.topics();
    topics
        .map(|found| found.unwrap().topic.to_string())
        .collect()
}

/// It took the old file of what is deleted, and the new one from which the deletion was removed.
#[test]
fn a_backup_made_during_a_compaction_does_not_bring_back_a_deleted_topic() {
    let above = Above::new();
    let log = small_segments().open(above.path("log")).unwrap();
    let room = Topic::new("room").unwrap();
    log.append_to(&room, b"secret").unwrap();
    fill(&log);
    log.delete_topic(&room).unwrap();
    fill(&log);
    fill(&log);
    let mut compacted = false;
    let made = log.backup(above.path("copy"), |_| {
        if !std::mem::replace(&mut compacted, true) {
            assert!(log.compact(|_| ()).unwrap().records > 0);
        }
    });
    made.unwrap();

    let copy = Log::options().open_read_only(above.path("copy")).unwrap();
    assert_eq!(topic_names(&copy), [""; 0]);
    assert!(copy.last(&room).unwrap().is_none());
    assert_eq!(copy.replay(Start::Oldest).topic(&room).count(), 0);
}

/// It kept the old file of what is deleted, which was the same when the plan was made.
#[test]
fn a_backup_brought_up_to_date_during_a_compaction_does_not_either() {
    let above = Above::new();
    let log = small_segments().open(above.path("log")).unwrap();
    let room = Topic::new("room").unwrap();
    log.append_to(&room, b"secret").unwrap();
    fill(&log);
    fill(&log);
    let earlier = above.path("earlier");
    backup(&log, &earlier);
    log.delete_topic(&room).unwrap();
    (0..3).for_each(|_| fill(&log));
    log.sync().unwrap();

    for at in 0..8 {
        let copy = above.path(&format!("copy{at}"));
        fs::create_dir(&copy).unwrap();
        for file in fs::read_dir(&earlier).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
        let left = as_if_killed(&log);
        let log = small_segments().open(left.path()).unwrap();
        let mut calls = 0;
        let made = log.backup(&copy, |_| {
            if calls == at {
                log.compact(|_| ()).unwrap();
            }
            calls += 1;
        });
        made.unwrap();
        let copy = Log::options().open_read_only(&copy).unwrap();
        assert_eq!(topic_names(&copy), [""; 0], "compacted at call {at}");
    }
}
