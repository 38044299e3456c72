//! Any bytes as the files of a log: never a panic, a hang or a signal, and never a record that
//! nobody appended.
//!
//! The input's first byte chooses a small log of known records and what may be done to it; the rest
//! are edits of its files. Checksums are salted with a random nonce, so that edits alone forge no
//! frame: whatever is read must have been appended. Where the input may also put right checksums on
//! what it wrote, there is nothing left to know a forged record by; then the log has to hold
//! together all the same.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use dacapo_log::fuzzing::{self, Summed};
use dacapo_log::{Flush, Log, Offset, Options, Start};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

type Files = BTreeMap<String, Vec<u8>>;

/// A log as something left it, and what was appended to it.
struct Sample {
    files: Files,
    /// By offset.
    payloads: Vec<Vec<u8>>,
}

/// Of two sealed segments and a growing one, or more: killed, closed, and killed twice.
static SAMPLES: LazyLock<[Sample; 3]> = LazyLock::new(|| {
    let dir = directory();
    let log = open(dir.path());
    let mut payloads = Vec::new();
    append(&log, &mut payloads, 200);
    let killed = Sample::of(dir.path(), &payloads);
    log.close().expect("closed");
    let closed = Sample::of(dir.path(), &payloads);

    let again = directory();
    write(again.path(), &killed.files);
    let log = open(again.path());
    let mut payloads = payloads[..at(log.next_offset())].to_vec();
    append(&log, &mut payloads, 100);
    log.prune(Offset::new(90)).expect("pruned");
    let killed_twice = Sample::of(again.path(), &payloads);
    [killed, closed, killed_twice]
});

impl Sample {
    fn of(dir: &Path, payloads: &[Vec<u8>]) -> Self {
        Self {
            files: read(dir),
            payloads: payloads.to_vec(),
        }
    }

    /// Whether these two are of one batch.
    fn is_batch(&self, first: usize) -> bool {
        self.payloads.get(first + 1) == self.payloads.get(first)
    }
}

/// Payloads of which no two are the same but those of one batch.
fn append(log: &Log, payloads: &mut Vec<Vec<u8>>, count: usize) {
    for _ in 0..count {
        let number = payloads.len();
        let payload = [&number.to_le_bytes()[..], &vec![7; 30 + number % 200]].concat();
        if number % 10 == 9 {
            log.append_batch([&payload, &payload]).expect("appended");
            payloads.push(payload.clone());
        } else {
            log.append(&payload).expect("appended");
        }
        payloads.push(payload);
        if number.is_multiple_of(16) {
            log.sync().expect("flushed");
        }
    }
}

/// In memory, where there is such a place.
fn directory() -> TempDir {
    let builder = tempfile::Builder::new();
    let in_memory = builder.tempdir_in("/dev/shm");
    in_memory
        .or_else(|_| builder.tempdir())
        .expect("a directory")
}

fn options() -> Options {
    Log::options()
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(16 << 10)
        .flush(Flush::OnDemand)
}

fn open(dir: &Path) -> Log {
    options().open(dir).expect("a log")
}

fn at(offset: Offset) -> usize {
    usize::try_from(offset.get()).expect("a small log")
}

/// The files that hold something; what is being made ready does not.
fn read(dir: &Path) -> Files {
    let paths = fs::read_dir(dir)
        .expect("listed")
        .map(|entry| entry.expect("listed").path());
    let holds = |path: &PathBuf| {
        path.extension().is_some_and(|e| e == "seg" || e == "idx") || path.ends_with("meta")
    };
    let name = |path: &Path| {
        path.file_name()
            .expect("named")
            .to_string_lossy()
            .into_owned()
    };
    paths
        .filter(holds)
        .map(|path| (name(&path), fs::read(&path).expect("read")))
        .collect()
}

fn write(dir: &Path, files: &Files) {
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).expect("written");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, edits)) = input.split_first() else {
        return;
    };
    let sample = &SAMPLES[usize::from(choice) % SAMPLES.len()];
    let may_forge = choice & 0x80 != 0;
    let mut files = sample.files.clone();
    edit(&mut files, &mut Edits(edits), may_forge);
    let dir = directory();
    write(dir.path(), &files);
    let known = (!may_forge).then_some(sample);

    if let Ok(log) = Log::options().open_read_only(dir.path()) {
        check(&log, known);
        let mut tailer = log.tail(Start::Oldest).durable_only();
        // To the first error.
        while let Ok(Some(_)) = tailer.try_next() {}
    }
    let _ = dacapo_log::verify(dir.path(), |_| ());
    if let Ok(log) = options().open(dir.path()) {
        check(&log, known);
        if let Some(sample) = known {
            check_end(&log, sample);
        }
        go_on(&log, dir.path(), choice & 0x40 != 0);
    }
});

/// An opened log takes records, and keeps them over the next opening, after a kill or a closing.
fn go_on(log: &Log, dir: &Path, is_killed: bool) {
    let offset = log.append(b"goes on").expect("what opens takes a record");
    assert_eq!(log.get(offset).expect("appended").payload(), b"goes on");
    let before = log.oldest();
    let copy = directory();
    let dir = if is_killed {
        write(copy.path(), &read(dir));
        copy.path()
    } else {
        log.close().expect("closed");
        dir
    };
    let again = open(dir);
    assert_eq!(
        (again.oldest(), again.next_offset()),
        (before, offset.next())
    );
    assert_eq!(again.get(offset).expect("kept").payload(), b"goes on");
}

/// The log ends between two batches, and holds no more than was appended.
fn check_end(log: &Log, sample: &Sample) {
    let end = at(log.next_offset());
    assert!(end <= sample.payloads.len(), "the log has grown");
    let is_torn = end > 0 && end < sample.payloads.len() && sample.is_batch(end - 1);
    assert!(!is_torn, "a batch is all or nothing");
}

/// Reads all that can be read: each record is the one that was appended there.
fn check(log: &Log, sample: Option<&Sample>) {
    let mut replay = log.replay(Start::Oldest);
    let mut before = None;
    let mut errors = 0;
    loop {
        match replay.next() {
            Some(Ok(record)) => {
                assert!(before < Some(record.offset()), "offsets ascend");
                before = Some(record.offset());
                if let Some(sample) = sample {
                    let appended = sample.payloads.get(at(record.offset()));
                    let is_it = appended.is_some_and(|payload| payload == record.payload());
                    assert!(is_it, "record {} is invented", record.offset());
                }
            }
            Some(Err(_)) => {
                errors += 1;
                assert!(errors < 10_000, "skipping damage moves on");
                replay.skip_damage();
            }
            None => break,
        }
    }
}

/// What is left of the input.
struct Edits<'a>(&'a [u8]);

impl<'a> Edits<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// Up to so many bytes.
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(self.0.len().min(len));
        self.0 = rest;
        bytes
    }

    /// A place in a file: one of those where something stands, and up to 255 bytes behind it.
    fn place(&mut self, len: usize) -> Option<usize> {
        let (unit, fine) = (usize::from(self.byte()?), usize::from(self.byte()?));
        let landmark = match unit {
            0 => 0,
            // A page from the end: the footer.
            1 => len.saturating_sub(4096),
            2 => 4096,
            3 => len.saturating_sub(256),
            // Anywhere.
            unit => len / 256 * unit,
        };
        Some((landmark + fine).min(len))
    }
}

/// Does to the files what the input says, until it ends.
fn edit(files: &mut Files, edits: &mut Edits<'_>, may_forge: bool) -> Option<()> {
    loop {
        let (action, which) = (edits.byte()?, usize::from(edits.byte()?));
        let name = files.keys().nth(which % files.len().max(1))?.clone();
        let other = files.values().nth(which / 16 % files.len())?.clone();
        let bytes = files.get_mut(&name)?;
        match action % 16 {
            0 => {
                let end = edits.place(bytes.len())?;
                bytes.truncate(end);
            }
            1 => {
                let fill = edits.byte()?;
                let count = usize::from(edits.byte()?) * 64;
                bytes.extend(std::iter::repeat_n(fill, count));
            }
            2 => {
                let start = edits.place(bytes.len())? / 512 * 512;
                let end = bytes.len().min(start + 512);
                bytes[start..end].fill(0);
            }
            3 => drop(files.remove(&name)),
            4 => {
                // A segment, or an index, under another base.
                let (base, ends) = (edits.byte()?, &name[name.len() - 4..]);
                if ends != "meta" {
                    let renamed = format!("{base:020}{ends}");
                    let moved = files.remove(&name)?;
                    files.insert(renamed, moved);
                }
            }
            5 => {
                let base = u64::from_le_bytes(*edits.bytes(8).first_chunk()?);
                files.insert(format!("{base:020}.seg"), other);
            }
            6 => {
                // Nothing of what was there.
                let len = usize::from(edits.byte()?) * 16;
                *bytes = edits.bytes(len).to_vec();
            }
            7 => {
                let from = edits.place(other.len())?;
                let len = usize::from(edits.byte()?) * 8;
                let to = edits.place(bytes.len())?;
                let len = len.min(other.len() - from).min(bytes.len() - to);
                bytes[to..to + len].copy_from_slice(&other[from..from + len]);
            }
            8 if may_forge => fuzzing::sum(bytes, Summed::Header),
            9 if may_forge => fuzzing::sum(bytes, Summed::Footer),
            10 if may_forge => {
                let slot = edits.byte()?;
                fuzzing::sum(bytes, Summed::MetaSlot(usize::from(slot % 2)));
            }
            11 if may_forge => fuzzing::sum(bytes, Summed::Index),
            12 if may_forge => {
                let place = edits.place(bytes.len())? / 8 * 8;
                fuzzing::sum(bytes, Summed::Frame(place));
            }
            13 => {
                let place = edits.place(bytes.len())?;
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = edits.byte()?;
                }
            }
            _ => {
                let place = edits.place(bytes.len())?;
                let len = usize::from(edits.byte()? % 64);
                let new = edits.bytes(len.min(bytes.len() - place));
                bytes[place..place + new.len()].copy_from_slice(new);
            }
        }
    }
}
