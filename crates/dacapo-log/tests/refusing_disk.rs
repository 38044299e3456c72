//! A real ext4 that takes no more writes: mounted read-only between two opens, or shut down under a
//! live writer.
//!
//! Takes root, `mount` and `mkfs.ext4`, and for the shutdown `python3`, which makes the system call;
//! without them the tests say loudly that they were skipped. By hand, for more shutdowns:
//!
//! ```text
//! DACAPO_SHUTDOWNS=200 cargo test --release -p dacapo-log --test refusing_disk
//! ```

mod support;

use std::io::ErrorKind;
use std::path::Path;

use dacapo_log::{AppendError, Log, Offset, OpenError, ReadError, Start, SyncError, WritePath};
use support::child::{self, Child};
use support::mounted::{self, Mounted};
use support::random::Random;
use support::{payloads, small_segments, tell};

fn ext4() -> Option<Mounted> {
    let mounted = Mounted::ext4("16M");
    if mounted.is_none() {
        tell("SKIPPED: no ext4 that refuses writes: it takes root, mkfs.ext4 and mount");
    }
    mounted
}

// --- Read-only ---------------------------------------------------------------------

#[test]
fn a_log_on_a_disk_that_became_read_only_can_be_read_and_later_goes_on() {
    let Some(disk) = ext4() else { return };
    let dir = disk.at().join("log");
    let mut expected: Vec<String> = (0..300).map(|number| format!("{number:0100}")).collect();
    let log = small_segments().open(&dir).unwrap();
    for record in &expected {
        log.append(record.as_bytes()).unwrap();
    }
    assert!(
        !disk.remount("ro"),
        "a file is open for writing: the kernel refuses"
    );
    log.append(b"meanwhile").unwrap();
    expected.push("meanwhile".to_owned());

    log.close().unwrap();
    drop(log);

    for killed in [false, true] {
        if killed {
            killed_behind(&dir, "killed");
            expected.push("killed".to_owned());
        }
        assert!(disk.remount("ro"));

        let Err(OpenError::NotWritable { source }) = Log::open(&dir) else {
            panic!("opened for writing what cannot be written")
        };
        assert_eq!(source.io().kind(), ErrorKind::ReadOnlyFilesystem);
        let log = Log::options().open_read_only(&dir).unwrap();
        assert_eq!(payloads(&log), expected);
        let middle = log.get(Offset::new(150)).unwrap();
        assert_eq!(middle.payload(), expected[150].as_bytes());
        assert!(dacapo_log::verify(&dir, |_| ()).unwrap().is_sound());
        drop((log, middle));

        assert!(disk.remount("rw"));
        let log = small_segments().open(&dir).unwrap();
        log.append(b"later").unwrap();
        expected.push("later".to_owned());
        assert_eq!(payloads(&log), expected);
        log.close().unwrap();
    }
    tell(format_args!(
        "a read-only ext4: {} records read, of a closed log and of a killed one",
        expected.len()
    ));
}

/// Lets another process append one record, and kills it.
fn killed_behind(dir: &Path, record: &str) {
    let mut child = Child::start("child_that_is_killed", [dir.to_str().unwrap(), record]);
    assert_eq!(child.line().as_deref(), Some("appended"));
    child.kill();
}

/// Not a test of its own: a writer that is killed.
#[test]
fn child_that_is_killed() {
    let Some(orders) = child::orders() else {
        return;
    };
    let log = small_segments().open(&orders[0]).unwrap();
    log.append(orders[1].as_bytes()).unwrap();
    child::say(&["appended".to_owned()]);
    child::wait_for_order();
}

// --- Shut down ---------------------------------------------------------------------

#[test]
fn a_disk_that_goes_away_under_a_writer_ends_its_acknowledgements_and_loses_none() {
    let shutdowns = support::by_hand("DACAPO_SHUTDOWNS", 6);
    let mut random = Random(1);
    let mut acknowledged = 0;
    for shutdown in 0..shutdowns {
        let Some(disk) = ext4() else { return };
        if !can_shut_down() {
            return tell("SKIPPED: no disk that goes away: the system call takes python3");
        }
        let write_path = if shutdown % 2 == 0 { "mapped" } else { "file" };
        let flags = if shutdown % 4 < 2 { "2" } else { "1" }; // without and with the journal
        let behind = random.below(120);
        acknowledged += shut_down_behind(&disk, behind, write_path, flags);
    }
    tell(format_args!(
        "{shutdowns} disks shut down under a writer: {acknowledged} records acknowledged before, \
         none lost, none acknowledged behind it"
    ));
}

/// Shuts the disk down behind so many acknowledgements; returns how many there were in the end.
fn shut_down_behind(disk: &Mounted, behind: u64, write_path: &str, flags: &str) -> u64 {
    let dir = disk.at().join("log");
    let mut writer = Child::start(
        "child_whose_disk_goes_away",
        [dir.to_str().unwrap(), write_path],
    );
    let mut said: Vec<String> = (0..behind).map_while(|_| writer.line()).collect();
    assert!(shut_down(disk.at(), flags));
    said.extend(writer.end());

    let at = said.iter().position(|line| line.starts_with("refused"));
    let at = at.unwrap_or_else(|| panic!("nothing was refused: {said:?}"));
    let (acknowledged, refused) = said.split_at(at);
    assert_eq!(refused.len(), 1, "acknowledged behind a failure: {said:?}");

    disk.unmount_and_mount();
    let log = small_segments().open(&dir).unwrap();
    for (number, line) in (0..).zip(acknowledged) {
        assert_eq!(*line, format!("durable {number}"));
        let record = log.get(Offset::new(number)).unwrap();
        assert_eq!(record.payload(), numbered(number), "of {write_path}");
    }
    let next = log.next_offset();
    assert_eq!(log.append(b"later").unwrap(), next);
    log.close().unwrap();
    assert!(dacapo_log::verify(&dir, |_| ()).unwrap().is_sound());
    acknowledged.len() as u64
}

/// Not a test of its own: the process that is writing when its disk goes away.
#[test]
fn child_whose_disk_goes_away() {
    let Some(orders) = child::orders() else {
        return;
    };
    let write_path = match orders[1].as_str() {
        "file" => WritePath::File,
        _ => WritePath::Mapped,
    };
    let options = small_segments().write_path(write_path);
    let log = options.open(&orders[0]).unwrap();
    let cause = loop {
        let number = log.next_offset().get();
        if let Err(error) = log.append(&numbered(number)) {
            break error.to_string();
        }
        if let Err(error) = log.sync() {
            break error.to_string();
        }
        child::say(&[format!("durable {number}")]);
    };
    child::say(&[format!("refused: {cause}")]);
    // It stays so, and what was stored can still be read.
    for _ in 0..20 {
        let number = log.next_offset().get();
        match log.append(&numbered(number)).map(|_| log.sync()) {
            Err(AppendError::Poisoned { .. } | AppendError::Prepare { .. })
            | Ok(Err(SyncError::Poisoned { .. })) => {}
            other => child::say(&[format!("{other:?} behind the failure")]),
        }
    }
    for read in log.replay(Start::Oldest) {
        match read {
            Ok(record) => assert_eq!(record.payload(), numbered(record.offset().get())),
            // A segment that is not mapped any more.
            Err(error) => assert!(matches!(error, ReadError::Io { .. }), "{error}"),
        }
    }
    assert!(matches!(log.close(), Err(SyncError::Poisoned { .. })));
}

/// Records of 8 to 1000 bytes.
fn numbered(number: u64) -> Vec<u8> {
    let words = usize::try_from(1 + number * 37 % 125).unwrap();
    number.to_le_bytes().repeat(words)
}

fn can_shut_down() -> bool {
    mounted::run("python3", &["-c", "import fcntl"])
}

/// FS_IOC_SHUTDOWN: from now on the filesystem refuses everything, as if the disk were gone.
fn shut_down(at: &Path, flags: &str) -> bool {
    let call = "import fcntl, os, struct, sys
directory = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(directory, 0x8004587d, struct.pack('I', int(sys.argv[2])))";
    mounted::run("python3", &["-c", call, at.to_str().unwrap(), flags])
}
