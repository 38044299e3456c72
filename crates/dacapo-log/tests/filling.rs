//! A filesystem filled to the last block by appends: an error, no signal, and nothing lost.
//!
//! Real filesystems of 64 MiB, which takes root and `mount`; without them the tests say loudly
//! that they were skipped.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dacapo_log::{AppendError, Flush, Log, OpenError, Start, WritePath};

/// A filesystem of 64 MiB, mounted until dropped.
struct Mounted {
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    fn tmpfs() -> Option<Self> {
        Self::mount(|at, _| {
            run(
                "mount",
                &["-t", "tmpfs", "-o", "size=64m", "dacapo-test", at],
            )
        })
    }

    /// A filesystem in a file, made by `mkfs`.
    fn in_file(mkfs: &str, flags: &[&str], size: &str) -> Option<Self> {
        Self::mount(|at, image| {
            run("truncate", &["-s", size, image])
                && run(mkfs, &[flags, &[image]].concat())
                && run("mount", &["-o", "loop", image, at])
        })
    }

    fn mount(mount: impl FnOnce(&str, &str) -> bool) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (at, image) = (dir.path().join("mounted"), dir.path().join("image"));
        fs::create_dir(&at).unwrap();
        let mounted = mount(at.to_str().unwrap(), image.to_str().unwrap());
        mounted.then_some(Self { at, _dir: dir })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &["-l", self.at.to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success())
}

#[test]
fn a_full_tmpfs_stops_appends_until_there_is_space() {
    fill("tmpfs", Mounted::tmpfs(), 40_000);
}

#[test]
fn a_full_ext4_stops_appends_until_there_is_space() {
    let ext4 = Mounted::in_file("mkfs.ext4", &["-q", "-F"], "64M");
    fill("ext4", ext4, 30_000);
}

#[test]
fn a_full_btrfs_stops_appends_until_there_is_space() {
    // The smallest that mkfs makes; its copy-on-write is why the log writes through the file, and
    // why it writes no zeros first: they took half of the disk, and gave it back when they liked.
    let btrfs = Mounted::in_file("mkfs.btrfs", &["-q", "--mixed"], "114M");
    fill("btrfs", btrfs, 70_000);
}

/// Fills the disk with at least `least` records, then gives it some space, and fills that.
fn fill(kind: &str, mounted: Option<Mounted>, least: u64) {
    let Some(mounted) = mounted else {
        eprintln!("SKIPPED: no {kind} of 64 MiB to fill: mounting one takes root, mkfs and mount");
        return;
    };
    let ballast = mounted.at.join("ballast");
    fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let dir = mounted.at.join("log");
    let log = Log::options().flush(Flush::OnDemand).open(&dir).unwrap();

    let (filled, refused) = append_until_full(&log);

    let writes = log.status().unwrap().writes;
    eprintln!(
        "{kind}: {filled} records of 1000 bytes filled the disk, written by {writes:?}: {refused}"
    );
    assert!(filled > least, "most of the disk is used");
    check(&log, filled);
    log.sync().unwrap();

    fs::remove_file(&ballast).unwrap();
    let (more, _) = append_until_full(&log);
    assert!(
        more > filled + 5_000,
        "appends went on with the space that was freed"
    );
    check(&log, more);

    // Closed and opened again on a disk that is full.
    drop(log);
    let log = match Log::open(&dir) {
        // A copy-on-write filesystem has not even the blocks to overwrite one.
        Err(OpenError::StorageFull { .. }) if writes == Some(WritePath::File) => {
            check(&Log::options().open_read_only(&dir).unwrap(), more);
            return;
        }
        log => log.unwrap(),
    };
    check(&log, more);
    drop(log);
    assert!(dacapo_log::verify(&dir, |_| ()).unwrap().is_sound());
    check_after_kill(&dir, more);
}

/// Appends numbered records until one is refused; returns how many the log holds then.
fn append_until_full(log: &Log) -> (u64, AppendError) {
    loop {
        let next = log.next_offset().get();
        match log.append(&record(next)) {
            Ok(offset) => assert_eq!(offset.get(), next),
            Err(error @ AppendError::StorageFull { .. }) => return (next, error),
            Err(error) => panic!("{error}"),
        }
    }
}

fn record(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(125)
}

fn check(log: &Log, records: u64) {
    let mut next = 0;
    for read in log.replay(Start::Oldest) {
        assert_eq!(read.unwrap().payload(), record(next));
        next += 1;
    }
    assert_eq!(next, records);
}

/// Recovery after a kill has to work on a full disk as well.
fn check_after_kill(dir: &Path, records: u64) {
    let log = Log::open(dir).unwrap();
    let killed = support::as_if_killed(&log);
    drop(log);
    // In place: the log's own files, as the kill left them.
    for entry in fs::read_dir(killed.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() == "meta" {
            overwrite(&dir.join("meta"), &fs::read(entry.path()).unwrap());
        }
    }
    let log = Log::open(dir).unwrap();
    assert!(log.epoch().get() >= 2, "the end was taken for unclean");
    check(&log, records);
}

/// Writes over a file without needing new blocks for it.
fn overwrite(path: &Path, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).unwrap();
}
