//! Opening the right thing, the wrong thing, twice, and with options that cannot work.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use dacapo_log::{AppendError, Log, Offset, OpenError, ReadError, Start, SyncError, WritePath};
use support::{payloads, quiet, small_segments};

#[test]
fn an_empty_or_missing_directory_becomes_a_log() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("a/b/c"), dir.path().join("a")] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.ends_with("a") {
            fs::remove_dir_all(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
        let log = Log::open(&path).unwrap();
        assert_eq!(
            (log.oldest(), log.next_offset()),
            (Offset::ZERO, Offset::ZERO)
        );
        assert_eq!(log.append(b"").unwrap(), Offset::ZERO);
        assert_eq!(payloads(&log), [""]);
    }
}

#[test]
fn a_missing_directory_is_not_made_by_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nothing");
    let opened = Log::options().open_read_only(&path);
    assert!(matches!(opened, Err(OpenError::NotFound { .. })));
    assert!(!path.exists());
    // An empty directory holds no log either.
    let opened = Log::options().open_read_only(dir.path());
    assert!(matches!(opened, Err(OpenError::NotFound { .. })));
}

#[test]
fn a_directory_that_is_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "precious").unwrap();

    for opened in [
        Log::open(dir.path()),
        Log::options().open_read_only(dir.path()),
    ] {
        let error = opened.unwrap_err();
        assert!(matches!(&error, OpenError::NotALog { found, .. } if found == "thesis.tex"));
        assert!(error.to_string().contains("thesis.tex"));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let file = dir.path().join("thesis.tex");
    assert!(matches!(Log::open(&file), Err(OpenError::NotADirectory { path }) if path == file));
}

#[test]
fn a_directory_that_cannot_be_written_says_so() {
    // A place where even root creates nothing.
    let opened = Log::open(Path::new("/sys/kernel/dacapo"));
    assert!(
        matches!(opened, Err(OpenError::NotWritable { .. })),
        "{opened:?}"
    );
}

#[test]
fn a_second_writer_is_refused_and_told_who_holds_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();

    let second = Log::open(dir.path()).unwrap_err();

    assert!(
        matches!(&second, OpenError::Locked { pid: Some(pid), .. } if *pid == std::process::id())
    );
    assert!(second.to_string().contains(&std::process::id().to_string()));
    assert_eq!(log.status().unwrap().writer_pid, Some(std::process::id()));
    // The first one is none the worse, and once it is closed the log is free.
    log.append(b"a").unwrap();
    log.close().unwrap();
    assert_eq!(payloads(&Log::open(dir.path()).unwrap()), ["a"]);
}

#[test]
fn the_last_handle_closes_the_log_and_a_clone_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    let clone = log.clone();
    drop(log);
    clone.append(b"still open").unwrap();
    drop(clone);

    let status = Log::options()
        .open_read_only(dir.path())
        .unwrap()
        .status()
        .unwrap();

    assert!(status.clean && status.writer_pid.is_none());
    assert_eq!(
        (status.next, status.durable),
        (Offset::new(1), Offset::new(1))
    );
}

#[test]
fn a_closed_log_refuses_appends_and_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    log.append(b"a").unwrap();
    log.close().unwrap();
    log.close().unwrap();

    assert!(matches!(log.append(b"b"), Err(AppendError::Closed)));
    assert_eq!(log.sync().unwrap(), Offset::new(1), "all of it is durable");
    assert_eq!(payloads(&log), ["a"]);
}

#[test]
fn a_read_only_log_refuses_to_write() {
    let dir = tempfile::tempdir().unwrap();
    drop(Log::open(dir.path()).unwrap());
    let log = Log::options().open_read_only(dir.path()).unwrap();
    assert!(matches!(log.append(b"a"), Err(AppendError::ReadOnly)));
    assert!(matches!(
        log.append_batch(["a"]),
        Err(AppendError::ReadOnly)
    ));
    assert!(matches!(log.sync(), Err(SyncError::ReadOnly)));
}

#[test]
fn options_that_cannot_work_are_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    for bytes in [0, 4096, (1 << 30) + 1, u64::MAX] {
        let opened = Log::options().segment_bytes_max(bytes).open(&path);
        assert!(matches!(
            opened,
            Err(OpenError::InvalidOption { option: "segment_bytes_max", value, .. }) if value == bytes
        ));
    }
    assert!(!path.exists());
}

#[test]
fn a_record_takes_up_to_a_whole_segment_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet()
        .segment_bytes_max(128 << 10)
        .open(dir.path())
        .unwrap();
    let max = log.payload_bytes_max();
    let largest = vec![b'x'; max];
    let larger = vec![b'x'; max + 8];
    log.append(b"first, in a small segment").unwrap();

    assert!(matches!(
        log.append(&larger),
        Err(AppendError::TooLarge { .. })
    ));
    assert!(matches!(
        log.append_batch([&larger[..], b"x"]),
        Err(AppendError::TooLarge { .. })
    ));
    assert_eq!(log.append(&largest).unwrap(), Offset::new(1));
    assert_eq!(
        log.append_batch([&largest[..max / 2], &largest[..max / 4]])
            .unwrap()
            .start,
        Offset::new(2)
    );
    assert_eq!(
        log.append_batch::<[&[u8]; 0]>([]).unwrap(),
        Offset::new(4)..Offset::new(4)
    );

    let sizes: Vec<usize> = log
        .replay(Start::Oldest)
        .map(|r| r.unwrap().payload().len())
        .collect();
    assert_eq!(sizes, [25, max, max / 2, max / 4]);
}

#[test]
fn a_start_that_cannot_be_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    log.append_batch(["a", "b"]).unwrap();
    let beyond = Offset::new(3);

    let mut replay = log.replay(Start::At(beyond));
    assert!(
        matches!(replay.next(), Some(Err(ReadError::BeyondEnd { requested, next }))
        if requested == beyond && next == Offset::new(2))
    );
    assert!(replay.next().is_none());
    assert!(matches!(
        log.tail(Start::At(beyond)).try_next(),
        Err(ReadError::BeyondEnd { .. })
    ));
    assert!(matches!(
        log.get(Offset::new(2)),
        Err(ReadError::BeyondEnd { .. })
    ));
    // One past the newest is where a reader that has seen everything goes on.
    assert!(log.replay(Start::At(Offset::new(2))).next().is_none());
    assert!(log.replay(Start::Latest).next().is_none());
    assert_eq!(log.get(Offset::new(1)).unwrap().payload(), b"b");
}

#[test]
fn small_logs_are_small_and_segments_double() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().segment_bytes_max(1 << 20).open(dir.path()).unwrap();
    for _ in 0..4000 {
        log.append(&[1; 1000]).unwrap();
    }
    let sizes: Vec<u64> = support::segments(dir.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len() >> 10)
        .collect();
    assert_eq!(sizes[..5], [64, 128, 256, 512, 1024]);
    assert!(sizes[5..].iter().all(|&kib| kib == 1024));
    // Blocks are there for all of it, so that a store never needs one.
    for path in support::segments(dir.path()) {
        let metadata = fs::metadata(path).unwrap();
        let allocated = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
        assert!(allocated >= metadata.len());
    }
}

#[test]
fn both_ways_to_the_page_cache_leave_the_same_log() {
    let mut logs = Vec::new();
    for path in [WritePath::Mapped, WritePath::File] {
        let dir = tempfile::tempdir().unwrap();
        let log = small_segments().write_path(path).open(dir.path()).unwrap();
        assert_eq!(log.status().unwrap().writes, Some(path));
        for i in 0..300_u32 {
            match i % 3 {
                0 => drop(
                    log.append_batch([vec![1; 30], vec![2; i as usize]])
                        .unwrap(),
                ),
                _ => drop(log.append(&vec![3; i as usize]).unwrap()),
            }
            if i % 50 == 0 {
                log.sync().unwrap();
            }
        }
        drop(log);
        assert!(dacapo_log::verify(dir.path(), |_| ()).unwrap().is_sound());
        let log = small_segments().open(dir.path()).unwrap();
        logs.push(
            log.replay(Start::Oldest)
                .map(|r| r.unwrap().payload().to_vec())
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(logs[0].len(), 400);
    assert_eq!(logs[0], logs[1]);
}

/// Between its fork and its exec, a child has all files of its parent open, `LOCK` too.
#[test]
fn a_closed_log_can_be_opened_while_other_threads_start_processes() {
    let dir = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        let opened: Result<(), _> = (0..200).try_for_each(|_| quiet().open(dir.path()).map(drop));
        done.store(true, Relaxed);
        opened.unwrap();
    });
}
