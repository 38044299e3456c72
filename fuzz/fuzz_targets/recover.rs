//! Any bytes as the files of a log: never a panic, a hang or a signal, and never a record that
//! nobody appended.
//!
//! The input's first byte chooses a small log of known records and what may be done to it; the rest
//! are edits of its files. Checksums are salted with a random nonce, so that edits alone forge no
//! frame: whatever is read, or is in a repaired copy, must have been appended. Where the input may
//! also put right checksums on what it wrote, there is nothing left to know a forged record by; then
//! the log has to hold together all the same.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use dacapo_log::fuzzing::{self, Summed};
use dacapo_log::{Flush, Log, Offset, Options, Start, Topic, repair, verify};
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
    append(&log, &mut payloads, 200, false);
    let killed = Sample::of(dir.path(), &payloads);
    log.close().expect("closed");
    let closed = Sample::of(dir.path(), &payloads);

    let again = directory();
    write(again.path(), &killed.files);
    let log = open(again.path());
    let mut payloads = payloads[..at(log.next_offset())].to_vec();
    append(&log, &mut payloads, 100, false);
    log.prune(Offset::new(90)).expect("pruned");
    let killed_twice = Sample::of(again.path(), &payloads);
    [killed, closed, killed_twice]
});

/// The same with records of topics, one of which was deleted, and with the topics files; closed.
static LABELLED: LazyLock<Sample> = LazyLock::new(|| {
    let dir = directory();
    let log = open(dir.path());
    let mut payloads = Vec::new();
    append(&log, &mut payloads, 150, true);
    log.delete_topic(&topic_of(0)).expect("deleted");
    payloads.push(Vec::new());
    append(&log, &mut payloads, 100, true);
    log.close().expect("closed");
    let mut sample = Sample::of(dir.path(), &payloads);
    let all = fs::read_dir(dir.path()).expect("listed");
    for path in all.map(|entry| entry.expect("listed").path()) {
        if path.extension().is_some_and(|e| e == "topics") {
            let name = path.file_name().expect("named").to_string_lossy();
            let bytes = fs::read(&path).expect("read");
            sample.files.insert(name.into_owned(), bytes);
        }
    }
    sample
});

fn topic_of(number: usize) -> Topic {
    Topic::new(format!("topic {}", number % 7)).expect("a topic")
}

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
fn append(log: &Log, payloads: &mut Vec<Vec<u8>>, count: usize, is_labelled: bool) {
    for _ in 0..count {
        let number = payloads.len();
        let payload = [&number.to_le_bytes()[..], &vec![7; 30 + number % 200]].concat();
        if number % 10 == 9 {
            log.append_batch([&payload, &payload]).expect("appended");
            payloads.push(payload.clone());
        } else if is_labelled && number % 3 < 2 {
            log.append_to(&topic_of(number), &payload)
                .expect("appended");
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
    let sample = match choice & 0x10 {
        0 => &SAMPLES[usize::from(choice) % SAMPLES.len()],
        _ => &LABELLED,
    };
    let may_forge = choice & 0x80 != 0;
    let mut files = sample.files.clone();
    let mut edits = Edits {
        rest: edits,
        may_forge,
        has_moved: false,
    };
    edits.apply(&mut files);
    let dir = directory();
    write(dir.path(), &files);
    let is_known = !may_forge && (!edits.has_moved || is_told_apart(sample, &files));
    let known = is_known.then_some(sample);

    if choice & 0x20 != 0 {
        mend(dir.path(), known);
    }

    if let Ok(log) = Log::options().open_read_only(dir.path()) {
        check(&log, known);
        let mut tailer = log.tail(Start::Oldest).durable_only();
        // To the first error.
        while let Ok(Some(_)) = tailer.try_next() {}
    }
    let _ = verify(dir.path(), |_| ());
    if let Ok(log) = options().open(dir.path()) {
        check(&log, known);
        if let Some(sample) = known {
            check_end(&log, sample);
        }
        go_on(&log, dir.path(), choice & 0x40 != 0);
    }
});

/// Whether it can be told which segment each file was: by its header, and, under another one's name,
/// by its first frame. Only bytes that were moved can pass for others where that is gone.
fn is_told_apart(sample: &Sample, files: &Files) -> bool {
    let header = |bytes: &[u8]| bytes.get(..64).map(<[u8]>::to_vec);
    let begin = |bytes: &[u8]| bytes.get(4096..4096 + 48).map(<[u8]>::to_vec);
    let mut segments = files.iter().filter(|(name, _)| name.ends_with(".seg"));
    segments.all(|(name, bytes)| {
        let mut origins = sample.files.iter();
        let origin = origins.find(|(_, origin)| header(origin) == header(bytes));
        origin.is_some_and(|(own, origin)| own == name || begin(origin) == begin(bytes))
    })
}

/// A repaired copy holds what is sound, is sound itself, and goes on as any other log.
fn mend(dir: &Path, known: Option<&Sample>) {
    let parent = directory();
    let mended = parent.path().join("mended");
    let Ok(found) = repair(dir, &mended, |_| ()) else {
        return;
    };
    let verified = verify(&mended, |_| ()).expect("a repaired log can be verified");
    assert_eq!(verified.damages, vec![], "a repaired log is sound");
    assert_eq!(verified.records, found.records);
    let log = open(&mended);
    assert_eq!(log.next_offset(), found.next);
    check(&log, known);
    go_on(&log, &mended, false);
}

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
    check_topics(log, sample);
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

/// Reads by topic, as the topics files say: what is read is of that topic, and was appended there.
fn check_topics(log: &Log, sample: Option<&Sample>) {
    // To the first error.
    let listed = log.topics().map_while(Result::ok).count();
    assert!(listed <= 1000, "{listed} topics");
    for number in 0..7 {
        let topic = topic_of(number);
        let mut before = None;
        let of_topic = log.replay(Start::Oldest).topic(&topic);
        for record in of_topic.map_while(Result::ok) {
            assert_eq!(record.topic(), topic.as_str());
            assert!(before < Some(record.offset()), "offsets ascend");
            before = Some(record.offset());
            if let Some(sample) = sample {
                let appended = sample.payloads.get(at(record.offset()));
                let is_it = appended.is_some_and(|payload| payload == record.payload());
                assert!(is_it, "record {} is invented", record.offset());
            }
        }
        let _ = log.last(&topic);
    }
}

/// What the input says is to be done to the files.
struct Edits<'a> {
    rest: &'a [u8],
    /// Right checksums may be put on what was written.
    may_forge: bool,
    /// Bytes were put where others of the log were.
    has_moved: bool,
}

impl<'a> Edits<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// Up to so many bytes.
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(self.rest.len().min(len));
        self.rest = rest;
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

    /// Does to the files what the input says, until it ends.
    fn apply(&mut self, files: &mut Files) -> Option<()> {
        loop {
            let (action, which) = (self.byte()?, usize::from(self.byte()?));
            let name = files.keys().nth(which % files.len().max(1))?.clone();
            let other = files.values().nth(which / 16 % files.len())?.clone();
            let bytes = files.get_mut(&name)?;
            match action % 16 {
                0 => {
                    let end = self.place(bytes.len())?;
                    bytes.truncate(end);
                }
                1 => {
                    let fill = self.byte()?;
                    let count = usize::from(self.byte()?) * 64;
                    bytes.extend(std::iter::repeat_n(fill, count));
                }
                2 => {
                    let start = self.place(bytes.len())? / 512 * 512;
                    let end = bytes.len().min(start + 512);
                    bytes[start..end].fill(0);
                }
                3 => drop(files.remove(&name)),
                4 => {
                    // A segment, or an index, under another base.
                    let base = self.byte()?;
                    if let Some(ends) = name.find('.').map(|dot| &name[dot..]) {
                        let renamed = format!("{base:020}{ends}");
                        self.has_moved = true;
                        let moved = files.remove(&name)?;
                        files.insert(renamed, moved);
                    }
                }
                5 => {
                    let base = u64::from_le_bytes(*self.bytes(8).first_chunk()?);
                    self.has_moved = true;
                    files.insert(format!("{base:020}.seg"), other);
                }
                6 => {
                    // Nothing of what was there.
                    let len = usize::from(self.byte()?) * 16;
                    *bytes = self.bytes(len).to_vec();
                }
                7 => {
                    let from = self.place(other.len())?;
                    let len = usize::from(self.byte()?) * 8;
                    let to = self.place(bytes.len())?;
                    let len = len.min(other.len() - from).min(bytes.len() - to);
                    self.has_moved = true;
                    bytes[to..to + len].copy_from_slice(&other[from..from + len]);
                }
                8 if self.may_forge => fuzzing::sum(bytes, Summed::Header),
                9 if self.may_forge => fuzzing::sum(bytes, Summed::Footer),
                10 if self.may_forge => {
                    let slot = self.byte()?;
                    fuzzing::sum(bytes, Summed::MetaSlot(usize::from(slot % 2)));
                }
                11 if self.may_forge && name.ends_with(".topics") => {
                    fuzzing::sum(bytes, Summed::Topics);
                }
                11 if self.may_forge => fuzzing::sum(bytes, Summed::Index),
                12 if self.may_forge => {
                    let place = self.place(bytes.len())? / 8 * 8;
                    fuzzing::sum(bytes, Summed::Frame(place));
                }
                13 => {
                    let place = self.place(bytes.len())?;
                    if let Some(byte) = bytes.get_mut(place) {
                        *byte = self.byte()?;
                    }
                }
                _ => {
                    let place = self.place(bytes.len())?;
                    let len = usize::from(self.byte()? % 64);
                    let new = self.bytes(len.min(bytes.len() - place));
                    bytes[place..place + new.len()].copy_from_slice(new);
                }
            }
        }
    }
}
