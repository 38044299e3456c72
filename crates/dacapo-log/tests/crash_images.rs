//! Crash images made by hand: what a power cut, or a kill inside recovery, leaves of rolls that no
//! flush had caught up with. Each was once judged wrongly.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dacapo_log::{Log, Offset, OpenError};
use support::{
    as_if_killed, flip, payloads, position_of, quiet, readable, segments, small_segments, zero,
};

/// Segment images by hand: what a crash left of rolls that no flush had caught up with.
mod craft {
    use super::*;

    pub(super) struct Image {
        bytes: Vec<u8>,
        at: usize,
        base: u64,
        records: u32,
        nonce: u32,
    }

    fn sum_block(block: &mut [u8]) {
        let sum = crc32fast::hash(&block[..60]);
        block[60..64].copy_from_slice(&sum.to_le_bytes());
    }

    impl Image {
        /// A segment of 16 KiB of the log whose `meta` is in `dir`.
        pub(super) fn new(dir: &Path, base: u64, durable: u64) -> Self {
            let meta = fs::read(dir.join("meta")).unwrap();
            let mut bytes = vec![0; 16 << 10];
            let nonce = 0x1234_0000 + u32::try_from(base).unwrap();
            bytes[..8].copy_from_slice(b"DACAPOSG");
            bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
            bytes[12..16].copy_from_slice(&nonce.to_le_bytes());
            bytes[16..32].copy_from_slice(&meta[16..32]);
            bytes[32..40].copy_from_slice(&1_u64.to_le_bytes());
            bytes[40..48].copy_from_slice(&(16_u64 << 10).to_le_bytes());
            sum_block(&mut bytes[..64]);
            let mut image = Self {
                bytes,
                at: 4096,
                base,
                records: 0,
                nonce,
            };
            let mut begin = [0; 24];
            begin[..8].copy_from_slice(&base.to_le_bytes());
            begin[8..16].copy_from_slice(&1_u64.to_le_bytes());
            begin[16..].copy_from_slice(&durable.to_le_bytes());
            image.frame(2, &begin);
            image
        }

        fn frame(&mut self, kind: u64, payload: &[u8]) {
            let word = 0xDC_u64 << 56 | kind << 40 | payload.len() as u64;
            let mut frame = vec![0; 24];
            frame[..8].copy_from_slice(&word.to_le_bytes());
            frame[12..16].copy_from_slice(&self.records.to_le_bytes());
            frame[16..24].copy_from_slice(&1_000_u64.to_le_bytes());
            frame.extend_from_slice(payload);
            let halves =
                [word & u64::from(u32::MAX), word >> 32].map(|half| u32::try_from(half).unwrap());
            let salt = self.nonce ^ halves[0] ^ halves[1];
            let mut hasher = crc32fast::Hasher::new_with_initial(salt);
            hasher.update(&frame[12..]);
            frame[8..12].copy_from_slice(&hasher.finalize().to_le_bytes());
            frame.resize(frame.len().next_multiple_of(8), 0);
            self.bytes[self.at..self.at + frame.len()].copy_from_slice(&frame);
            self.at += frame.len();
        }

        pub(super) fn record(mut self, payload: &str) -> Self {
            self.frame(1, payload.as_bytes());
            self.records += 1;
            self
        }

        pub(super) fn footer(mut self) -> Self {
            let at = self.bytes.len() - 4096;
            let end = u32::try_from(self.at).unwrap();
            let footer = &mut self.bytes[at..at + 64];
            footer[..8].copy_from_slice(b"DACAPOFT");
            footer[8..16].copy_from_slice(&self.base.to_le_bytes());
            footer[16..24].copy_from_slice(&(self.base + u64::from(self.records)).to_le_bytes());
            footer[24..28].copy_from_slice(&end.to_le_bytes());
            footer[28..32].copy_from_slice(&self.nonce.to_le_bytes());
            footer[32..40].copy_from_slice(&1_000_u64.to_le_bytes());
            footer[40..48].copy_from_slice(&1_000_u64.to_le_bytes());
            footer[48..56].copy_from_slice(&1_u64.to_le_bytes());
            sum_block(footer);
            self
        }

        pub(super) fn store(self, dir: &Path) -> PathBuf {
            let path = dir.join(format!("{:020}.seg", self.base));
            fs::write(&path, self.bytes).unwrap();
            path
        }
    }
}
use craft::Image;

/// A directory with the `meta` of a new log that is open.
fn opened_once() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    as_if_killed(&small_segments().open(dir.path()).unwrap())
}

/// Two rolls during one slow fdatasync, then a power cut: every frame reached the disk, and so did
/// the second segment's footer, but not the first one's. Nothing of it is acknowledged.
fn rolled_twice_and_cut() -> tempfile::TempDir {
    let dir = opened_once();
    Image::new(dir.path(), 0, 0).record("a").store(dir.path());
    Image::new(dir.path(), 1, 0)
        .record("b")
        .footer()
        .store(dir.path());
    Image::new(dir.path(), 2, 0).record("c").store(dir.path());
    dir
}

#[test]
fn an_image_of_two_unflushed_rolls_opens() {
    let image = rolled_twice_and_cut();
    assert_eq!(
        payloads(&quiet().open(image.path()).unwrap()),
        ["a", "b", "c"]
    );
}

/// The same image, and a crash inside its recovery, right before `meta`: all is sealed, and nothing
/// says so yet.
#[test]
fn a_crash_between_the_footers_and_meta_of_recovery_opens() {
    let image = rolled_twice_and_cut();
    let before = fs::read(image.path().join("meta")).unwrap();
    drop(quiet().open(image.path()).unwrap());
    fs::write(image.path().join("meta"), before).unwrap();

    let log = quiet().open(image.path()).unwrap();

    assert_eq!(payloads(&log), ["a", "b", "c"]);
    assert_eq!(log.append(b"d").unwrap(), Offset::new(3));
}

/// Two segments were named since the last sync of the directory, and only the later name survived:
/// nothing of either was ever durable.
#[test]
fn an_image_that_lost_the_first_segments_name_opens() {
    let dir = opened_once();
    Image::new(dir.path(), 10, 0).record("b").store(dir.path());

    let log = quiet().open(dir.path()).unwrap();

    assert!(payloads(&log).is_empty());
    assert_eq!(log.append(b"a").unwrap(), Offset::ZERO);
}

/// A segment filled to the last byte has no room for the mark that says it is durable.
#[test]
fn damage_in_a_full_durable_segment_is_an_error_and_not_a_tear() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let offset = log
        .append("x".repeat(log.payload_bytes_max()).as_bytes())
        .unwrap();
    log.sync().unwrap();
    assert!(log.durable_offset() > offset, "acknowledged");
    let left = as_if_killed(&log);
    let segment = &segments(left.path())[0];
    flip(segment, position_of(segment, "xxxx"));

    let opened = small_segments().open(left.path());

    assert!(
        matches!(opened, Err(OpenError::Corrupt(_))),
        "a durable record was cut off as a tear: the log now holds {} records",
        opened.map_or(0, |log| payloads(&log).len())
    );
}

/// What a payload looks like must not decide how long recovery takes: this ran for hours once.
#[test]
fn a_payload_of_commit_words_does_not_hang_recovery() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet()
        .segment_bytes_min(8 << 20)
        .segment_bytes_max(8 << 20)
        .open(dir.path())
        .unwrap();
    log.append(b"sound").unwrap();
    // 1 MiB of "a record of 512 KiB begins here".
    let word = 0xDC_u64 << 56 | 1 << 40 | 1 << 19;
    log.append(&word.to_le_bytes().repeat(1 << 17)).unwrap();
    let left = as_if_killed(&log);
    // Killed before the commit word was stored.
    let segment = &segments(left.path())[0];
    zero(segment, position_of(segment, "sound") - 24 + 32, 8);

    assert_eq!(
        payloads(&Log::options().open_read_only(left.path()).unwrap()),
        ["sound"]
    );
    assert_eq!(payloads(&quiet().open(left.path()).unwrap()), ["sound"]);
}

/// A segment that lost its footer to a power cut, and a tear in a segment that has one: a
/// `Record` of the read-only log that was opened first must not change when recovery cuts.
#[test]
fn recovery_does_not_change_bytes_that_a_reader_holds() {
    let image = opened_once();
    let first = Image::new(image.path(), 0, 0)
        .record("keep")
        .record("torn")
        .record("held")
        .footer()
        .store(image.path());
    flip(&first, position_of(&first, "torn"));
    Image::new(image.path(), 3, 0)
        .record("void")
        .store(image.path());
    let reader = Log::options().open_read_only(image.path()).unwrap();
    let held = reader.get(Offset::new(2)).unwrap();
    let bytes: &[u8] = held.payload();
    assert_eq!(bytes, b"held");

    let log = quiet().open(image.path()).unwrap();

    assert_eq!(payloads(&log), ["keep"]);
    assert_eq!(
        held.payload(),
        b"held",
        "the bytes behind a `&[u8]` changed"
    );
}

#[test]
fn a_segment_that_lost_its_footer_is_readable_read_only() {
    let image = rolled_twice_and_cut();
    let (sound, errors) = readable(&Log::options().open_read_only(image.path()).unwrap());
    assert_eq!(sound, ["a", "b", "c"], "{errors:?}");
}

#[test]
fn damage_to_the_last_segments_header_leaves_the_others_readable() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    for i in 0..100_u32 {
        log.append(format!("{i:0200}").as_bytes()).unwrap();
    }
    log.close().unwrap();
    let last = segments(dir.path()).pop().unwrap();
    let base: u64 = last.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    flip(&last, 20);

    let found = dacapo_log::verify(dir.path(), |_| ()).unwrap();
    assert_eq!((found.records, found.is_sound()), (base, false));
    let (sound, errors) = readable(&Log::options().open_read_only(dir.path()).unwrap());
    assert_eq!(sound.len() as u64, base, "{errors:?}");
}

// --- On a real filesystem ------------------------------------------------------

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        run(
            "mount",
            &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()],
        );
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

/// Not a test of its own: the process that is killed.
#[test]
fn child_appends_and_dies() {
    let Some(dir) = std::env::var_os("DACAPO_CHILD_DIR") else {
        return;
    };
    let log = quiet().open(dir).unwrap();
    log.append(b"appended").unwrap();
    std::process::abort();
}

/// Killed behind a roll and before the directory sync, reopened, acknowledged, power cut.
#[test]
fn a_name_that_recovery_believed_survives_a_power_cut() {
    if !Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|o| o.stdout == b"0\n")
    {
        eprintln!("SKIPPED: a power cut on a real ext4 takes root, to mount one");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let image = work.path().join("image");
    run("truncate", &["-s", "64M", image.to_str().unwrap()]);
    run("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
    let disk = Mounted::new(&image, work.path().join("mnt"));
    let dir = disk.0.join("log");
    drop(quiet().open(&dir).unwrap());
    run("sync", &["-f", disk.0.to_str().unwrap()]);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_appends_and_dies"])
        .env("DACAPO_CHILD_DIR", &dir)
        .output()
        .unwrap();
    assert!(!child.status.success());

    let log = quiet().open(&dir).unwrap();
    assert_eq!(
        log.sync().unwrap(),
        Offset::new(1),
        "acknowledged as durable"
    );
    // The power cut: what the device was given until now.
    let cut = work.path().join("cut");
    fs::copy(&image, &cut).unwrap();
    drop(log);
    drop(disk);

    let disk = Mounted::new(&cut, work.path().join("mnt2"));
    let log = quiet().open(disk.0.join("log")).unwrap();
    assert_eq!(payloads(&log), ["appended"]);
}
