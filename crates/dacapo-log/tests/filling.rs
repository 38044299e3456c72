//! A filesystem filled to the last block by appends: an error, no signal, and nothing lost.
//!
//! Real filesystems, which takes root and `mount`; without them the tests say loudly that they were
//! skipped. At the fill levels, a child process does the work, so that a signal would be seen. By
//! hand, for more of them:
//!
//! ```text
//! DACAPO_FILL_LEVELS=200 cargo test --release -p dacapo-log --test filling -- level
//! ```

mod support;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dacapo_log::{AppendError, Flush, Log, Offset, OpenError, Options, Start, WritePath};
use support::child::{self, Child};
use support::mounted::Mounted;
use support::tell;

#[test]
fn a_full_tmpfs_stops_appends_until_there_is_space() {
    fill("tmpfs", Mounted::tmpfs("64m"), 40_000);
}

#[test]
fn a_full_ext4_stops_appends_until_there_is_space() {
    let ext4 = Mounted::ext4("64M");
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
        skipped(kind);
        return;
    };
    let ballast = mounted.at().join("ballast");
    fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let dir = mounted.at().join("log");
    let log = Log::options().flush(Flush::OnDemand).open(&dir).unwrap();

    let (filled, refused) = append_until_full(&log);

    let writes = log.status().unwrap().writes;
    tell(format_args!(
        "{kind}: {filled} records of 1000 bytes filled the disk, written by {writes:?}: {refused}"
    ));
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

fn skipped(kind: &str) {
    tell(format_args!(
        "SKIPPED: no {kind} to fill: mounting one takes root, mkfs and mount"
    ));
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

// --- Levels ------------------------------------------------------------------------

#[test]
fn at_every_level_of_a_full_tmpfs_nothing_is_lost_and_space_helps() {
    fill_levels("tmpfs", Mounted::tmpfs("2m"), 200);
}

#[test]
fn at_every_level_of_a_full_ext4_nothing_is_lost_and_space_helps() {
    let ext4 = Mounted::ext4("8M");
    if let Some(ext4) = &ext4 {
        ext4.give_up_reserve();
    }
    fill_levels("ext4", ext4, 800);
}

/// Fills a disk that a ballast leaves from none to `blocks_max` blocks of.
fn fill_levels(kind: &str, disk: Option<Mounted>, blocks_max: u64) {
    let Some(disk) = disk else {
        return skipped(kind);
    };
    let levels = support::by_hand("DACAPO_FILL_LEVELS", 20);
    let mut covered = Levels::default();
    for level in 0..levels {
        // Most of them where only a few blocks are left.
        let blocks = level.max(blocks_max * level * level / (levels * levels));
        for born_there in [true, false] {
            covered.fill(&disk, blocks, born_there);
        }
    }
    let Levels {
        free,
        refused,
        killed,
        appended,
    } = covered;
    let different = free.iter().collect::<std::collections::BTreeSet<_>>().len();
    tell(format_args!(
        "{kind}: {} fills at {different} levels, with {:?} to {:?} blocks free; {refused} opens \
         refused, {killed} writers killed on a full disk, {appended} records appended there",
        free.len(),
        free.iter().min().unwrap_or(&0),
        free.iter().max().unwrap_or(&0),
    ));
    assert!(different as u64 * 10 >= levels * 9, "levels differ");
    assert!(killed > 0, "some levels let a log be opened");
}

/// What the levels so far have met.
#[derive(Default)]
struct Levels {
    free: Vec<u64>,
    refused: u64,
    killed: u64,
    appended: u64,
}

impl Levels {
    /// One log on a disk with so many blocks free. It is made there, or it was there before.
    fn fill(&mut self, disk: &Mounted, blocks: u64, born_there: bool) {
        let (dir, ballast) = (disk.at().join("log"), disk.at().join("ballast"));
        for path in [&dir, &ballast] {
            remove(path);
        }
        let mut held = 0;
        if !born_there {
            let log = tight().open(&dir).unwrap();
            held = append_some(&log, 60);
            log.close().unwrap();
        }
        let free = disk.leave_free(&ballast, blocks);
        self.free.push(free);
        let at = format!("{free} blocks free, {held} records before");
        let (dir, ballast) = (dir.to_str().unwrap(), ballast.to_str().unwrap());

        let mut child = Child::start("child_on_a_full_disk", ["fill", dir, &held.to_string()]);
        match child.line().as_deref() {
            Some("refused") => {
                self.refused += 1;
                child.end();
            }
            Some(full) => {
                let filled: u64 = full.parse().unwrap();
                assert!(filled >= held, "{at}");
                self.appended += filled - held;
                self.killed += 1;
                held = filled;
                child.kill();
            }
            None => panic!("{at}: {:?}", child.end()),
        }

        let reopened = Child::start(
            "child_on_a_full_disk",
            ["reopen", dir, &held.to_string(), ballast],
        );
        let said = reopened.end();
        assert_eq!(said.len(), 1, "{at}");
    }
}

/// Not a test of its own: the process that works on the full disk.
#[test]
fn child_on_a_full_disk() {
    let Some(orders) = child::orders() else {
        return;
    };
    let (dir, held) = (PathBuf::from(&orders[1]), orders[2].parse().unwrap());
    match orders[0].as_str() {
        "fill" => fill_and_wait_for_the_kill(&dir, held),
        _ => go_on_where_it_is_full(&dir, held, Path::new(&orders[3])),
    }
}

fn fill_and_wait_for_the_kill(dir: &Path, held: u64) {
    let log = match tight().open(dir) {
        Err(OpenError::StorageFull { .. }) => {
            read_only_if_it_is_there(dir, held);
            return child::say(&["refused".to_owned()]);
        }
        log => log.unwrap(),
    };
    expect_numbered(&log, held);
    let filled = append_mixed_until_full(&log);
    assert_eq!(log.sync().unwrap(), Offset::new(filled));
    expect_numbered(&log, filled);
    child::say(&[filled.to_string()]);
    child::wait_for_order();
}

fn go_on_where_it_is_full(dir: &Path, held: u64, ballast: &Path) {
    let log = match tight().open(dir) {
        Err(OpenError::StorageFull { .. }) => {
            read_only_if_it_is_there(dir, held);
            remove(ballast);
            tight().open(dir).unwrap()
        }
        log => {
            let log = log.unwrap();
            expect_numbered(&log, held);
            let log = fill_and_reopen(dir, log);
            remove(ballast);
            log
        }
    };
    let held = log.next_offset().get();

    // In the process that was refused before, and without a reopen.
    let more = append_some(&log, 100);

    assert!(more >= held + 100);
    log.close().unwrap();
    expect_numbered(&tight().open(dir).unwrap(), more);
    child::say(&[more.to_string()]);
}

/// Fills the disk, closes the log, and opens and fills it again.
fn fill_and_reopen(dir: &Path, log: Log) -> Log {
    let filled = append_mixed_until_full(&log);
    log.sync().unwrap();
    log.close().unwrap();

    let log = tight().open(dir).unwrap();
    expect_numbered(&log, filled);
    assert!(dacapo_log::verify(dir, |_| ()).unwrap().is_sound());
    append_mixed_until_full(&log);
    log
}

/// Small segments, so that there is always a block to be short of.
fn tight() -> Options {
    support::quiet()
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(64 << 10)
}

/// What a log that could not be opened for writing on a full disk held before.
fn read_only_if_it_is_there(dir: &Path, held: u64) {
    match Log::options().open_read_only(dir) {
        Err(OpenError::NotFound { .. }) if held == 0 => {}
        log => expect_numbered(&log.unwrap(), held),
    }
}

/// Appends at least so many numbered records, some of them in batches; returns how many the log
/// holds then.
fn append_some(log: &Log, records: u64) -> u64 {
    let end = log.next_offset().get() + records;
    while log.next_offset().get() < end {
        append_next(log, true).unwrap();
    }
    log.next_offset().get()
}

/// As [`append_some`], until there is no space, for a single record either.
fn append_mixed_until_full(log: &Log) -> u64 {
    let mut batches = true;
    loop {
        let next = log.next_offset();
        match append_next(log, batches) {
            Ok(offsets) => assert_eq!(offsets, next..log.next_offset()),
            Err(AppendError::StorageFull { .. }) => {
                assert_eq!(log.next_offset(), next, "a refused append leaves nothing");
                if !batches {
                    return next.get();
                }
                batches = false;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn append_next(log: &Log, batches: bool) -> Result<Range<Offset>, AppendError> {
    let next = log.next_offset().get();
    match next % 5 {
        0..2 if batches => log.append_batch((next..next + 4).map(numbered)),
        _ => log
            .append(&numbered(next))
            .map(|offset| offset..offset.next()),
    }
}

/// Records of 8 to 1000 bytes.
fn numbered(number: u64) -> Vec<u8> {
    let words = usize::try_from(1 + number * 37 % 125).unwrap();
    number.to_le_bytes().repeat(words)
}

fn expect_numbered(log: &Log, records: u64) {
    let mut next = 0;
    for read in log.replay(Start::Oldest) {
        assert_eq!(read.unwrap().payload(), numbered(next));
        next += 1;
    }
    assert_eq!(next, records);
}

/// Removes a file or a directory that may be there.
fn remove(path: &Path) {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
}
