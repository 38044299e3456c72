//! Flipped bits in a closed log: each one is reported with its place, or stands where
//! docs/format.md says that nothing looks.
//!
//! What every byte is for is worked out here from that page, and not with the engine's code. The
//! short form takes a sample. All bits of the last 64 KiB and 10,000 others, by hand:
//!
//! ```text
//! DACAPO_EVERY_BIT=1 cargo test --release -p dacapo-log --test bit_rot
//! ```

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use dacapo_log::{
    Corruption, Damage, Log, Offset, OpenError, Options, ReadError, Start, Topic, repair, verify,
};
use support::random::Random;
use support::tell;
use tempfile::TempDir;

const SEGMENT_BYTES: usize = 32 << 10;
const PAGE_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;
const FRAMES_END: usize = SEGMENT_BYTES - PAGE_BYTES;
const ALL_OF_THE_LAST_BYTES: usize = 64 << 10;

#[test]
fn every_flipped_bit_is_reported_in_its_place_or_means_nothing() {
    let sound = SoundLog::make();
    let every_bit = support::by_hand("DACAPO_EVERY_BIT", 0) == 1;
    let flips = sound.flips(every_bit);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let counts = thread::scope(|scope| {
        let working: Vec<_> = flips
            .chunks(flips.len().div_ceil(workers))
            .map(|flips| {
                let sound = &sound;
                scope.spawn(move || Flipper::new(sound).try_all(flips))
            })
            .collect();
        let mut all = BTreeMap::new();
        for worker in working {
            for (kind, count) in worker.join().unwrap() {
                let sum: &mut Count = all.entry(kind).or_default();
                sum.reported += count.reported;
                sum.harmless += count.harmless;
            }
        }
        all
    });
    tell(format_args!(
        "{} bits flipped in {} files:",
        flips.len(),
        sound.files.len()
    ));
    for (kind, Count { reported, harmless }) in &counts {
        tell(format_args!(
            "  {kind}: {reported} reported, {harmless} harmless"
        ));
    }
    let kinds = [
        "header",
        "frame without a record",
        "record",
        "footer",
        "meta",
    ];
    assert!(kinds.iter().all(|&kind| counts[kind].reported > 0));
    assert!(kinds.iter().all(|&kind| counts[kind].harmless == 0));
}

#[derive(Default)]
struct Count {
    reported: u64,
    harmless: u64,
}

/// What a byte is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Nothing looks at it.
    Nothing(&'static str),
    /// Of an index: whoever needs it makes it again, and verification says so.
    Index,
    /// Of the slot of `meta` that begins there; the other one holds.
    Meta { slot: usize },
    /// Of a segment's header: without it, none of its records can be read.
    Header,
    /// Of the frame that begins there, and the offset of the record in it.
    Frame { start: usize, record: Option<u64> },
    /// Of a footer: all that it says can be found out again.
    Footer,
}

impl Use {
    fn kind(self) -> &'static str {
        match self {
            Self::Nothing(what) => what,
            Self::Index => "index",
            Self::Meta { .. } => "meta",
            Self::Header => "header",
            Self::Frame { record: None, .. } => "frame without a record",
            Self::Frame { .. } => "record",
            Self::Footer => "footer",
        }
    }
}

/// A closed log of several segments, and what is known of it.
struct SoundLog {
    files: Vec<SoundFile>,
    records: Vec<Vec<u8>>,
    topics: Vec<Option<Topic>>,
}

struct SoundFile {
    name: String,
    bytes: Vec<u8>,
    uses: Vec<Use>,
    /// The records that it holds.
    records: Range<u64>,
    sealed: bool,
}

impl SoundFile {
    fn is_segment(&self) -> bool {
        self.name.ends_with(".seg")
    }
}

#[derive(Clone, Copy, Debug)]
struct Flip {
    file: usize,
    bit: usize,
}

impl SoundLog {
    fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = options().open(dir.path()).unwrap();
        let mut random = Random(7);
        let mut records: Vec<Vec<u8>> = Vec::new();
        let mut topics = Vec::new();
        while support::segments(dir.path()).len() < 5 || !records.len().is_multiple_of(400) {
            let mut record = || {
                let bytes = random.index(400);
                random.next().to_le_bytes().repeat(50)[..bytes].to_vec()
            };
            let batch: Vec<Vec<u8>> = match records.len() % 10 {
                0..8 => vec![record()],
                _ => vec![record(), record()],
            };
            let topic = topic_of(topics.len());
            match &topic {
                None => log.append_batch(&batch).unwrap(),
                Some(topic) => log
                    .append_batch_to(batch.iter().map(|payload| (topic, payload)))
                    .unwrap(),
            };
            topics.extend(batch.iter().map(|_| topic.clone()));
            records.extend(batch);
            if random.below(30) == 0 {
                log.sync().unwrap();
            }
        }
        log.close().unwrap();
        drop(log);
        let mut files: Vec<SoundFile> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != "LOCK")
            .map(|entry| SoundFile::of(&entry.path()))
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let held: u64 = files
            .iter()
            .map(|file| file.records.clone().count() as u64)
            .sum();
        assert_eq!(held, records.len() as u64, "the page says where they are");
        Self {
            files,
            records,
            topics,
        }
    }

    /// The bits to flip: of the end of the log, and of all kinds of files.
    fn flips(&self, every_bit: bool) -> Vec<Flip> {
        let (step, others, each_use) = if every_bit {
            (1, 10_000, 0)
        } else {
            (977, 500, 8)
        };
        let mut flips = Vec::new();
        let mut left_bytes = ALL_OF_THE_LAST_BYTES;
        for (file, sound) in self.files.iter().enumerate().rev() {
            if sound.is_segment() {
                let from = (SEGMENT_BYTES - PAGE_BYTES).min(left_bytes);
                left_bytes -= from;
                let bits = (SEGMENT_BYTES - from) * 8..SEGMENT_BYTES * 8;
                flips.extend(bits.step_by(step).map(|bit| Flip { file, bit }));
            }
        }
        assert_eq!(left_bytes, 0, "there is so much");
        let mut random = Random(11);
        for other in 0..others {
            let end = [".seg", ".idx", ".topics", "meta"][other % 4];
            let of_kind: Vec<usize> = (0..self.files.len())
                .filter(|&file| self.files[file].name.ends_with(end))
                .collect();
            let file = random.pick(&of_kind);
            let bit = random.index(self.files[file].bytes.len() * 8);
            flips.push(Flip { file, bit });
        }
        for _ in 0..each_use {
            for (file, sound) in self.files.iter().enumerate() {
                let mut seen = BTreeMap::new();
                for _ in 0..2000 {
                    let byte = random.index(sound.bytes.len());
                    seen.insert(sound.uses[byte].kind(), byte);
                }
                let bits = seen.into_values().map(|byte| byte * 8 + random.index(8));
                flips.extend(bits.map(|bit| Flip { file, bit }));
            }
        }
        flips
    }
}

/// The topic of the batch that begins with this record.
fn topic_of(record: usize) -> Option<Topic> {
    let name = format!("topic {}", record % 7);
    (!record.is_multiple_of(3)).then(|| Topic::new(name).unwrap())
}

fn options() -> Options {
    let segment_bytes = SEGMENT_BYTES as u64;
    support::quiet()
        .segment_bytes_min(segment_bytes)
        .segment_bytes_max(segment_bytes)
}

// --- What docs/format.md says ------------------------------------------------------

impl SoundFile {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(path).unwrap();
        let mut file = Self {
            uses: vec![Use::Index; bytes.len()],
            name,
            bytes,
            records: 0..0,
            sealed: false,
        };
        if file.name.ends_with(".topics") {
            file.uses[12..16].fill(Use::Nothing("the nonce of an index"));
        } else if file.name.ends_with(".idx") {
            // With another one it passes for the index of an earlier segment, which nobody uses.
            file.uses[16..20].fill(Use::Nothing("the nonce of an index"));
        } else if file.name == "meta" {
            file.uses = (0..file.bytes.len())
                .map(|byte| Use::Meta {
                    slot: byte - byte % PAGE_BYTES,
                })
                .collect();
        } else if file.is_segment() {
            file.lay_out_segment();
        }
        file
    }

    fn lay_out_segment(&mut self) {
        let (bytes, uses) = (&self.bytes, &mut self.uses);
        assert_eq!(bytes.len(), SEGMENT_BYTES);
        let base: u64 = self.name[..20].parse().unwrap();
        uses.fill(Use::Nothing("behind the last frame"));
        uses[..64].fill(Use::Header);
        uses[64..PAGE_BYTES].fill(Use::Nothing("behind the header"));
        let mut record = base;
        let mut start = PAGE_BYTES;
        loop {
            let word = u64_at(bytes, start);
            let next = match word.to_le_bytes() {
                [0, 0, 0, 0, 0, 0, 0, 0] => break,
                [0, 0, 0, 0, 0, 4, 0, 0xDC] => {
                    let next = (start + 8).next_multiple_of(SECTOR_BYTES);
                    uses[start..start + 8].fill(Use::Frame {
                        start,
                        record: None,
                    });
                    uses[start + 8..next].fill(Use::Nothing("behind a pad"));
                    next
                }
                [a, b, c, d, topic, kind, _, 0xDC] => {
                    let payload = u32::from_le_bytes([a, b, c, d]) as usize;
                    let end = start + 24 + usize::from(topic) + payload;
                    let record_here = (kind == 1).then_some(record);
                    record += u64::from(kind == 1);
                    let record = record_here;
                    uses[start..end].fill(Use::Frame { start, record });
                    let next = end.next_multiple_of(8);
                    uses[end..next].fill(Use::Nothing("alignment"));
                    next
                }
                other => panic!("{other:?} at {start} of {}", self.name),
            };
            start = next;
        }
        self.records = base..record;
        self.sealed = &bytes[FRAMES_END..][..8] == b"DACAPOFT";
        if self.sealed {
            assert_eq!(u64_at(bytes, FRAMES_END + 16), record);
            uses[FRAMES_END..FRAMES_END + 64].fill(Use::Footer);
            uses[FRAMES_END + 64..].fill(Use::Nothing("behind the footer"));
        } else {
            uses[FRAMES_END..].fill(Use::Nothing("a footer page without a footer"));
        }
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

// --- Flipping ----------------------------------------------------------------------

/// Two copies of the log, one for readers and one for writers, in which bits are flipped in place.
struct Flipper<'a> {
    sound: &'a SoundLog,
    read: TempDir,
    written: TempDir,
}

/// What one look at the log brought.
struct Seen {
    missing: Vec<u64>,
    errors: Vec<ReadError>,
}

impl<'a> Flipper<'a> {
    fn new(sound: &'a SoundLog) -> Self {
        // In memory where that can be had: the disk is not what this is about.
        let dir = || tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let flipper = Self {
            sound,
            read: dir().unwrap(),
            written: dir().unwrap(),
        };
        flipper.restore(flipper.read.path());
        flipper.restore(flipper.written.path());
        flipper
    }

    fn try_all(&self, flips: &[Flip]) -> BTreeMap<&'static str, Count> {
        let mut counts: BTreeMap<&'static str, Count> = BTreeMap::new();
        for &flip in flips {
            let count = counts.entry(self.use_of(flip).kind()).or_default();
            let reported = self.try_reading(flip) | self.try_writing(flip);
            if reported {
                count.reported += 1;
            } else {
                count.harmless += 1;
            }
        }
        counts
    }

    fn use_of(&self, flip: Flip) -> Use {
        self.sound.files[flip.file].uses[flip.bit / 8]
    }

    /// Flips the bit for readers, and returns whether they report it.
    fn try_reading(&self, flip: Flip) -> bool {
        let dir = self.read.path();
        let sound = &self.sound.files[flip.file];
        let path = self.flip(dir, flip);

        let found = verify(dir, |_| ()).unwrap_or_else(|error| panic!("{flip:?}: {error}"));
        let log = Log::options().open_read_only(dir).unwrap();
        let seen = self.read_all(&log, flip);
        if sound.name.ends_with(".idx") || sound.name.ends_with(".topics") {
            self.get_some(&log);
        }

        let place = self.expected_place(flip);
        let is_there = |damage: &Corruption| {
            damage.path == path && Some(damage.position) == place.map(|place| place as u64)
        };
        let used = self.use_of(flip);
        let at = || format!("{flip:?} in {}, {used:?}: {found:?}", sound.name);
        match used {
            Use::Nothing(_) => assert!(found.is_sound(), "{}", at()),
            _ => assert!(found.damages.iter().any(is_there), "{}", at()),
        }
        self.expect_only_its_own_missing(flip, &seen);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&sound.bytes[flip.bit / 8..][..1], flip.bit as u64 / 8)
            .unwrap();
        !found.is_sound()
    }

    /// Flips the bit for a writer, and returns whether it is told.
    fn try_writing(&self, flip: Flip) -> bool {
        let dir = self.written.path();
        let sound = &self.sound.files[flip.file];
        let used = self.use_of(flip);
        let path = self.flip(dir, flip);
        let place = self.expected_place(flip);
        let at = || format!("{flip:?} in {}, {used:?}", sound.name);
        let reported = match options().open(dir) {
            Err(OpenError::Corrupt(damage)) => {
                assert_eq!(damage.path, path, "{}", at());
                assert_eq!(Some(damage.position), place.map(|p| p as u64), "{}", at());
                let needed = match used {
                    Use::Header | Use::Footer => true,
                    Use::Frame { .. } => !sound.sealed,
                    _ => false,
                };
                assert!(needed, "{}", at());
                true
            }
            Err(error) => panic!("{}: {error}", at()),
            Ok(log) => {
                let harmless = match used {
                    Use::Header | Use::Footer => false,
                    // A sealed segment is not read through for opening.
                    Use::Frame { .. } => sound.sealed,
                    _ => true,
                };
                assert!(harmless, "{}: opened", at());
                let seen = self.read_all(&log, flip);
                self.expect_only_its_own_missing(flip, &seen);
                let next = Offset::new(self.sound.records.len() as u64);
                assert_eq!(log.append(b"more").unwrap(), next, "{}", at());
                assert_eq!(log.get(next).unwrap().payload(), b"more", "{}", at());
                !seen.errors.is_empty()
            }
        };
        self.restore(dir);
        reported
    }

    /// Where damage to this byte is reported; `None` where it is not.
    fn expected_place(&self, flip: Flip) -> Option<usize> {
        match self.use_of(flip) {
            Use::Nothing(_) => None,
            Use::Index | Use::Header => Some(0),
            Use::Meta { slot } => Some(slot),
            Use::Frame { start, .. } => Some(start),
            Use::Footer => Some(FRAMES_END),
        }
    }

    /// A damaged record cannot be read, nor can those of a segment without a header; all others can.
    fn expect_only_its_own_missing(&self, flip: Flip, seen: &Seen) {
        let expected: Vec<u64> = match self.use_of(flip) {
            Use::Header => self.sound.files[flip.file].records.clone().collect(),
            Use::Frame { record, .. } => record.into_iter().collect(),
            _ => Vec::new(),
        };
        let used = self.use_of(flip);
        assert_eq!(
            seen.missing, expected,
            "{flip:?}, {used:?}: {:?}",
            seen.errors
        );
    }

    /// Reads all that can be read, and compares it.
    fn read_all(&self, log: &Log, flip: Flip) -> Seen {
        let mut seen = Seen {
            missing: Vec::new(),
            errors: Vec::new(),
        };
        let mut next = 0;
        let mut replay = log.replay(Start::Oldest);
        loop {
            match replay.next_ref() {
                Some(Ok(record)) => {
                    let offset = record.offset().get();
                    assert!(offset >= next, "{flip:?}: records go back");
                    seen.missing.extend(next..offset);
                    next = offset + 1;
                    let expected = &self.sound.records[usize::try_from(offset).unwrap()];
                    assert_eq!(record.payload(), expected, "{flip:?}: a wrong byte");
                }
                Some(Err(error)) => {
                    seen.errors.push(error);
                    replay.skip_damage();
                }
                None => break,
            }
            assert!(
                seen.errors.len() < 1000,
                "{flip:?}: skipping damage moves on"
            );
        }
        seen.missing.extend(next..self.sound.records.len() as u64);
        seen
    }

    /// Reads single records, for which the indexes are used.
    fn get_some(&self, log: &Log) {
        for offset in (0..self.sound.records.len()).step_by(41) {
            let record = log.get(Offset::new(offset as u64)).unwrap();
            assert_eq!(record.payload(), self.sound.records[offset]);
        }
        for number in 0..7 {
            let topic = Topic::new(format!("topic {number}")).unwrap();
            let read = log.replay(Start::Oldest).topic(&topic);
            let read: Vec<u64> = read.map(|record| record.unwrap().offset().get()).collect();
            let is_its = |of: &Option<Topic>| of.as_ref() == Some(&topic);
            let sound = (0..).zip(&self.sound.topics).filter(|(_, of)| is_its(of));
            let expected: Vec<u64> = sound.map(|(offset, _)| offset).collect();
            assert_eq!(read, expected, "{topic}");
        }
    }

    fn flip(&self, dir: &Path, flip: Flip) -> PathBuf {
        let sound = &self.sound.files[flip.file];
        let path = dir.join(&sound.name);
        let byte = sound.bytes[flip.bit / 8] ^ 1 << (flip.bit % 8);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[byte], flip.bit as u64 / 8).unwrap();
        path
    }

    /// Brings a copy back to what the sound log holds.
    fn restore(&self, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if !self
                .sound
                .files
                .iter()
                .any(|file| entry.file_name() == *file.name)
            {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        for file in &self.sound.files {
            let path = dir.join(&file.name);
            if fs::read(&path).ok().as_ref() != Some(&file.bytes) {
                fs::write(&path, &file.bytes).unwrap();
            }
        }
    }
}

/// `get` met the damage to the frame that begins the segment, and gave up the record behind it.
#[test]
fn a_sound_record_behind_a_damaged_begin_frame_can_be_got() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::quiet().open(dir.path()).unwrap();
    log.append_batch(["zero", "one"]).unwrap();
    log.close().unwrap();
    drop(log);
    support::flip(&support::segments(dir.path())[0], 4096 + 24);
    let log = Log::options().open_read_only(dir.path()).unwrap();
    assert_eq!(log.get(Offset::ZERO).unwrap().payload(), b"zero");
    assert_eq!(log.get(Offset::new(1)).unwrap().payload(), b"one");
    let (sound, errors) = support::readable(&log);
    assert_eq!((sound.len(), errors.len()), (2, 1), "the damage is told");
}

/// A log that ends with a sealed segment: `verify` took the segment for one that is still appended to.
#[test]
fn a_flipped_bit_in_the_last_footer_is_reported_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::quiet().open(dir.path()).unwrap();
    log.append(b"zero").unwrap();
    let left = support::as_if_killed(&log);
    let log = support::quiet().open(left.path()).unwrap();
    log.close().unwrap();
    drop(log);
    let above = tempfile::tempdir().unwrap();
    let repaired = above.path().join("repaired");
    repair(left.path(), &repaired, |_| ()).unwrap();
    for dir in [left.path(), &repaired] {
        assert!(verify(dir, |_| ()).unwrap().is_sound());
        let last = support::segments(dir).pop().unwrap();
        let footer = usize::try_from(fs::metadata(&last).unwrap().len()).unwrap() - 4096;
        for byte in 0..64 {
            support::flip(&last, footer + byte);
            let found = verify(dir, |_| ()).unwrap();
            let [damage] = &found.damages[..] else {
                panic!("byte {byte} of the footer: {found:?}");
            };
            assert_eq!(damage.damage, Damage::Footer);
            assert!(support::quiet().open(dir).is_err());
            support::flip(&last, footer + byte);
        }
    }
}
