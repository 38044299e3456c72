//! Processes killed for real while four threads append, and while another one recovers.
//!
//! A child prints each acknowledgement to a pipe; whatever arrived there must be in the log. By
//! hand, for more kills:
//!
//! ```text
//! DACAPO_KILLS=500 cargo test --release -p dacapo-log --test killing
//! ```

mod support;

use std::collections::HashMap;
use std::hint;
use std::path::Path;
use std::thread;
use std::time::Duration;

use dacapo_log::{Flush, Log, Offset, Options, Start, WritePath};
use support::child::{self, Child};
use support::random::Random;
use support::tell;

const PRODUCERS: u64 = 4;
/// The kills that one log goes through, those of a recovery not counted.
const KILLS_A_LOG: u64 = 10;

#[test]
fn nothing_acknowledged_is_lost_by_kills_at_random_moments() {
    let kills = support::by_hand("DACAPO_KILLS", 25);
    let mut random = Random(support::by_hand("DACAPO_KILLS_SEED", 0xdaca));
    let mut covered = Covered::default();
    let mut victim = Victim::new();
    for kill in 0..kills {
        if kill % KILLS_A_LOG == KILLS_A_LOG - 1 {
            victim = Victim::new();
        }
        let acknowledgements = random.below(2_000);
        victim.kill_behind(acknowledgements, &mut random, &mut covered);
        for _ in 0..random.below(3) {
            victim.kill_while_recovering(&mut random, &mut covered);
        }
        victim.check_and_go_on(kill);
    }
    tell(covered.summary());
    assert!(covered.killed_recovering > 0 || kills < 25);
}

#[derive(Default)]
struct Covered {
    kills: u64,
    killed_recovering: u64,
    killed_recovered: u64,
    acknowledged: u64,
    ways: HashMap<String, u64>,
}

impl Covered {
    fn summary(&self) -> String {
        let Self {
            kills,
            killed_recovering,
            killed_recovered,
            acknowledged,
            ways,
        } = self;
        format!(
            "{kills} kills while appending, {killed_recovering} during recovery, \
             {killed_recovered} right behind it; {acknowledged} acknowledgements, none lost; {} \
             ways of writing",
            ways.len()
        )
    }
}

/// A log whose writers are killed, and what they acknowledged.
struct Victim {
    dir: tempfile::TempDir,
    /// Producer and sequence of each offset.
    acknowledged: HashMap<u64, (u64, u64)>,
}

impl Victim {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            acknowledged: HashMap::new(),
        }
    }

    fn start(&self, way: &Way) -> Child {
        let dir = self.dir.path().to_str().unwrap();
        Child::start("child_that_appends_until_it_is_killed", [dir, &way.order()])
    }

    /// Kills a writer when so many acknowledgements have been read; more may be on their way.
    fn kill_behind(&mut self, acknowledgements: u64, random: &mut Random, covered: &mut Covered) {
        let way = Way::draw(random);
        let mut writer = self.start(&way);
        assert_eq!(writer.line().as_deref(), Some("opening"));
        assert_eq!(writer.line().as_deref(), Some("opened"));
        let mut seen: Vec<String> = Vec::new();
        for _ in 0..acknowledgements {
            match writer.line() {
                Some(line) => seen.push(line),
                None => panic!("the writer ended: {:?}", writer.end()),
            }
        }
        spin(random);
        seen.extend(writer.kill());
        covered.kills += 1;
        covered.acknowledged += seen.len() as u64;
        *covered.ways.entry(way.order()).or_default() += 1;
        self.note(&seen);
    }

    /// Kills a process that has begun to open the log, mostly before it is done.
    fn kill_while_recovering(&mut self, random: &mut Random, covered: &mut Covered) {
        let mut recovering = self.start(&Way::draw(random));
        assert_eq!(recovering.line().as_deref(), Some("opening"));
        spin(random);
        let said = recovering.kill();
        match said.split_first() {
            None => covered.killed_recovering += 1,
            Some((opened, acknowledged)) => {
                assert_eq!(opened, "opened");
                covered.killed_recovered += 1;
                covered.acknowledged += acknowledged.len() as u64;
                self.note(acknowledged);
            }
        }
    }

    fn note(&mut self, lines: &[String]) {
        for line in lines {
            let mut numbers = line.split(' ').map(|number| number.parse().unwrap());
            let mut next = || numbers.next().unwrap();
            let (offset, record) = (next(), (next(), next()));
            let before = self.acknowledged.insert(offset, record);
            assert_eq!(before, None, "offset {offset} was given twice");
        }
    }

    /// What was acknowledged is there, each producer's records are in order, and the log goes on.
    fn check_and_go_on(&mut self, kill: u64) {
        let dir = self.dir.path();
        // Every other time the next writer finds the log as the kill left it.
        let recovers = kill.is_multiple_of(2);
        let options = Log::options().flush(Flush::OnDemand);
        let log = match recovers {
            true => options.open(dir).unwrap(),
            false => options.open_read_only(dir).unwrap(),
        };
        let held = producers_of(&log);
        for (&offset, record) in &self.acknowledged {
            let index = usize::try_from(offset).unwrap();
            let there = held.records.get(index);
            assert_eq!(there, Some(record), "kill {kill}: record {offset}");
        }
        let mut records = held.records.len() as u64;
        if recovers {
            let sequence = held.next[0];
            let appended = log.append(&payload(0, sequence, 0, 1)).unwrap();
            assert_eq!(appended, Offset::new(records));
            self.acknowledged.insert(records, (0, sequence));
            records += 1;
        }
        log.close().unwrap();
        let verified = dacapo_log::verify(dir, |_| ()).unwrap();
        assert!(verified.is_sound(), "kill {kill}: {verified:?}");
        assert_eq!(verified.records, records);
    }
}

/// A random while, much shorter and much longer than what a recovery takes.
fn spin(random: &mut Random) {
    let longest = random.pick(&[1, 100, 10_000, 100_000, 1_000_000]);
    for _ in 0..random.below(longest) {
        hint::spin_loop();
    }
}

/// Options of a writer.
struct Way {
    segment_kib: u64,
    /// Milliseconds; 0 for flushes on demand only.
    interval: u64,
    through_file: bool,
    batches: bool,
}

impl Way {
    fn draw(random: &mut Random) -> Self {
        Self {
            segment_kib: random.pick(&[16, 64, 1024]),
            interval: random.pick(&[0, 1, 20]),
            through_file: random.below(2) == 0,
            batches: random.below(2) == 0,
        }
    }

    fn order(&self) -> String {
        let Self {
            segment_kib,
            interval,
            through_file,
            batches,
        } = self;
        let (through_file, batches) = (u64::from(*through_file), u64::from(*batches));
        format!("{segment_kib} {interval} {through_file} {batches}")
    }

    fn of_order(order: &str) -> Self {
        let mut numbers = order.split(' ').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Self {
            segment_kib: next(),
            interval: next(),
            through_file: next() == 1,
            batches: next() == 1,
        }
    }

    fn options(&self) -> Options {
        let flush = match self.interval {
            0 => Flush::OnDemand,
            millis => Flush::Interval(Duration::from_millis(millis)),
        };
        let write_path = match self.through_file {
            true => WritePath::File,
            false => WritePath::Mapped,
        };
        Log::options()
            .segment_bytes_min(16 << 10)
            .segment_bytes_max(self.segment_kib << 10)
            .flush(flush)
            .write_path(write_path)
    }
}

/// Not a test of its own: the process that is killed.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(orders) = child::orders() else {
        return;
    };
    let way = Way::of_order(&orders[1]);
    child::say(&["opening".to_owned()]);
    let log = way.options().open(Path::new(&orders[0])).unwrap();
    child::say(&["opened".to_owned()]);
    let held = producers_of(&log);
    thread::scope(|scope| {
        for (producer, sequence) in (0..).zip(held.next) {
            let (log, way) = (&log, &way);
            scope.spawn(move || produce(log, way, producer, sequence));
        }
    });
}

/// Appends for ever, and says what is stored.
fn produce(log: &Log, way: &Way, producer: u64, mut sequence: u64) {
    let mut random = Random(producer << 32 | sequence);
    loop {
        let batch = match way.batches {
            true => 1 + random.below(6),
            false => 1,
        };
        let payloads: Vec<Vec<u8>> = (0..batch)
            .map(|part| payload(producer, sequence + part, part, batch))
            .collect();
        let offsets = match batch {
            1 => log.append(&payloads[0]).map(|first| first..first.next()),
            _ => log.append_batch(&payloads),
        };
        let offsets = offsets.unwrap();
        if way.interval == 0 && random.below(20) == 0 {
            log.sync().unwrap();
        }
        let stored: Vec<String> = (offsets.start.get()..offsets.end.get())
            .zip(sequence..)
            .map(|(offset, sequence)| format!("{offset} {producer} {sequence}"))
            .collect();
        child::say(&stored);
        sequence += batch;
    }
}

/// Who appended it and which one of theirs it is, its place in its batch, and up to 800 more bytes.
fn payload(producer: u64, sequence: u64, part: u64, parts: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = [producer, sequence, part, parts]
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    let mut random = Random(sequence << 3 | producer);
    let filler = random.next().to_le_bytes();
    bytes.extend(filler.iter().cycle().take(random.index(800)));
    bytes
}

/// The records of a log by who appended them.
struct Held {
    /// Producer and sequence, by offset.
    records: Vec<(u64, u64)>,
    /// The sequence that each producer goes on with.
    next: Vec<u64>,
}

/// Reads and checks all of it: dense offsets, each producer's own order, whole batches.
fn producers_of(log: &Log) -> Held {
    let mut held = Held {
        records: Vec::new(),
        next: vec![0; usize::try_from(PRODUCERS).unwrap()],
    };
    let mut open = None; // the part of a batch that comes next, and how many there are
    for record in log.replay(Start::Oldest) {
        let record = record.unwrap();
        assert_eq!(record.offset(), Offset::new(held.records.len() as u64));
        let words: Vec<u64> = record.payload()[..32]
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        let [producer, sequence, part, parts] = words[..] else {
            panic!("four words are there")
        };
        assert_eq!(record.payload(), payload(producer, sequence, part, parts));
        let expected = &mut held.next[usize::try_from(producer).unwrap()];
        assert_eq!(sequence, *expected, "of producer {producer}");
        *expected += 1;
        assert_eq!(
            (part, parts),
            open.unwrap_or((0, parts)),
            "a batch is whole"
        );
        open = (part + 1 < parts).then_some((part + 1, parts));
        held.records.push((producer, sequence));
    }
    assert_eq!(open, None, "the last batch is whole");
    held
}
