//! What the themed tests share: looking into a log, and leaving one behind as a crash would.

#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod child;
pub(crate) mod mounted;
pub(crate) mod random;

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dacapo_log::{Flush, Log, Options, ReadError, Start};
use tempfile::TempDir;

/// Says what a test covered, past the test harness, which hides what a passing test prints.
pub(crate) fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A number that the environment may give, for the long form of a test.
pub(crate) fn by_hand<T: FromStr>(variable: &str, otherwise: T) -> T {
    std::env::var(variable).map_or(otherwise, |value| match value.parse() {
        Ok(number) => number,
        Err(_) => panic!("{variable} is {value:?}, and no number"),
    })
}

/// Options under which nothing is flushed unless the test says so.
pub(crate) fn quiet() -> Options {
    Log::options().flush(Flush::OnDemand)
}

/// Small segments, so that a few records roll.
pub(crate) fn small_segments() -> Options {
    quiet()
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(16 << 10)
}

/// The payloads of the whole log, as text.
pub(crate) fn payloads(log: &Log) -> Vec<String> {
    log.replay(Start::Oldest)
        .map(|record| String::from_utf8(record.unwrap().payload().to_vec()).unwrap())
        .collect()
}

/// The log's directory as a process killed now would leave it: all that was appended is in the
/// page cache, nothing is closed, and the lock is free.
pub(crate) fn as_if_killed(log: &Log) -> TempDir {
    let left = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(log.dir()).unwrap() {
        let entry = entry.unwrap();
        // Files come and go while the log works.
        if let Ok(bytes) = fs::read(entry.path()) {
            fs::write(left.path().join(entry.file_name()), bytes).unwrap();
        }
    }
    left
}

/// The segment files in a directory, oldest first.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    found.sort();
    found
}

/// The bytes that the files in a directory take on the disk.
pub(crate) fn taken_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap();
    files
        .map(|entry| entry.unwrap().metadata().map_or(0, |m| m.blocks() * 512))
        .sum()
}

/// The memory of this process that no file is behind, in KiB.
pub(crate) fn anonymous_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// The only or last place where `needle` stands in a file.
pub(crate) fn position_of(path: &Path, needle: &str) -> usize {
    let bytes = fs::read(path).unwrap();
    let found = bytes
        .windows(needle.len())
        .rposition(|window| window == needle.as_bytes());
    found.unwrap_or_else(|| panic!("{needle:?} is not in {}", path.display()))
}

/// Changes one byte of a file.
pub(crate) fn flip(path: &Path, position: usize) {
    overwrite(path, position, |byte| byte ^ 0x40);
}

/// Makes `bytes` bytes zero, as if they had never reached the disk.
pub(crate) fn zero(path: &Path, position: usize, bytes: usize) {
    for position in position..position + bytes {
        overwrite(path, position, |_| 0);
    }
}

fn overwrite(path: &Path, position: usize, change: impl Fn(u8) -> u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[position] = change(bytes[position]);
    fs::write(path, bytes).unwrap();
}

/// What can be read around the damage, as text, and the errors met.
pub(crate) fn readable(log: &Log) -> (Vec<String>, Vec<ReadError>) {
    let (mut sound, mut errors) = (Vec::new(), Vec::new());
    let mut replay = log.replay(Start::Oldest);
    loop {
        match replay.next() {
            Some(Ok(record)) => sound.push(String::from_utf8_lossy(record.payload()).into_owned()),
            Some(Err(error)) => {
                errors.push(error);
                replay.skip_damage();
            }
            None => return (sound, errors),
        }
        assert!(errors.len() < 10_000, "skipping damage moves on");
    }
}

/// Puts the right checksum on a header or a footer that was changed.
pub(crate) fn sum_block(block: &mut [u8]) {
    let sum = crc32fast::hash(&block[..60]);
    block[60..64].copy_from_slice(&sum.to_le_bytes());
}

/// Changes both slots of `meta`, with the right checksums.
pub(crate) fn rewrite_meta(dir: &Path, change: impl Fn(&mut [u8])) {
    let path = dir.join("meta");
    let mut bytes = fs::read(&path).unwrap();
    for slot in bytes.chunks_exact_mut(4096) {
        change(slot);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&slot[..12]);
        hasher.update(&slot[16..]);
        let sum = hasher.finalize();
        slot[12..16].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
}

/// Changes the points of an index file, each one a relative offset and a position, and makes its
/// checksum fit.
pub(crate) fn rewrite_index(path: &Path, change: impl Fn(u32, u32) -> (u32, u32)) {
    let mut bytes = fs::read(path).unwrap();
    for point in bytes[32..].chunks_exact_mut(8) {
        let number = |at: usize| u32::from_le_bytes(point[at..at + 4].try_into().unwrap());
        let (relative, position) = change(number(0), number(4));
        point[..4].copy_from_slice(&relative.to_le_bytes());
        point[4..].copy_from_slice(&position.to_le_bytes());
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(&bytes[..12]);
    sum.update(&bytes[16..]);
    bytes[12..16].copy_from_slice(&sum.finalize().to_le_bytes());
    fs::write(path, bytes).unwrap();
}
