//! Any bytes as the files of a log: never a panic, a hang or a signal, and never a record that
//! nobody appended.
//!
//! A small log of known records is damaged in the places that the input names, then read, verified,
//! repaired and opened for writing. Checksums are salted with a random nonce, so that no input can forge one.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use dacapo_log::{Flush, Log, Start};
use libfuzzer_sys::fuzz_target;

/// The files of a log of two sealed segments and a growing one, as a kill left them.
static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let log = options().open(dir.path()).expect("a log");
    for number in 0..RECORDS {
        if number % 10 == 9 {
            log.append_batch([payload(number), payload(number)])
                .expect("appended");
        } else {
            log.append(&payload(number)).expect("appended");
        }
        if number % 16 == 0 {
            log.sync().expect("flushed");
        }
    }
    let mut files: Vec<_> = fs::read_dir(dir.path())
        .expect("listed")
        .map(|entry| entry.expect("listed").path())
        .filter(|path| {
            path.extension().is_some_and(|e| e == "seg" || e == "idx") || path.ends_with("meta")
        })
        .map(|path| (name(&path), fs::read(&path).expect("read")))
        .collect();
    files.sort();
    files
});

const RECORDS: u8 = 200;

fn name(path: &std::path::Path) -> String {
    path.file_name()
        .expect("a file")
        .to_string_lossy()
        .into_owned()
}

fn payload(number: u8) -> Vec<u8> {
    vec![number; 40 + usize::from(number)]
}

fn options() -> dacapo_log::Options {
    Log::options()
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(16 << 10)
        .flush(Flush::OnDemand)
}

fuzz_target!(|input: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    let mut files = FILES.clone();
    // Each five bytes: a file, a place, and what to do there.
    for edit in input.chunks_exact(5) {
        let count = files.len();
        let Some((_, bytes)) = files.get_mut(usize::from(edit[0]) % count.max(1)) else {
            break;
        };
        let place = usize::from(u16::from_le_bytes([edit[1], edit[2]]));
        match edit[3] % 8 {
            0 => bytes.truncate(place),
            1 => bytes.extend(std::iter::repeat_n(edit[4], place)),
            2 => zero_sector(bytes, place),
            3 => drop(files.remove(usize::from(edit[0]) % count)),
            _ => {
                let len = bytes.len();
                if let Some(byte) = bytes.get_mut(place % len.max(1)) {
                    *byte = edit[4];
                }
            }
        }
    }
    for (name, bytes) in &files {
        fs::write(PathBuf::from(dir.path()).join(name), bytes).expect("written");
    }
    if let Ok(log) = Log::options().open_read_only(dir.path()) {
        check(&log);
    }
    let _ = dacapo_log::verify(dir.path(), |_| ());
    let repaired = tempfile::tempdir().expect("a directory");
    if dacapo_log::repair(dir.path(), repaired.path(), |_| ()).is_ok() {
        let log = options()
            .open(repaired.path())
            .expect("a repaired log opens");
        check(&log);
    }
    if let Ok(log) = options().open(dir.path()) {
        check(&log);
        let offset = log
            .append(&payload(0))
            .expect("a log that opens takes a record");
        assert_eq!(
            log.get(offset).expect("just appended").payload(),
            payload(0)
        );
    }
});

fn zero_sector(bytes: &mut [u8], place: usize) {
    let len = bytes.len();
    let start = (place % len.max(1)) / 512 * 512;
    bytes[start..len.min(start + 512)].fill(0);
}

/// Reads all that can be read: each record is one that was appended.
fn check(log: &Log) {
    let mut replay = log.replay(Start::Oldest);
    let mut before = None;
    let mut errors = 0;
    loop {
        match replay.next() {
            Some(Ok(record)) => {
                assert!(before < Some(record.offset()), "offsets ascend");
                before = Some(record.offset());
                let number = record.payload()[0];
                assert!(
                    number < RECORDS && record.payload() == payload(number),
                    "an invented record"
                );
            }
            Some(Err(_)) => {
                errors += 1;
                assert!(errors < 100_000, "skipping damage moves on");
                replay.skip_damage();
            }
            None => break,
        }
    }
}
