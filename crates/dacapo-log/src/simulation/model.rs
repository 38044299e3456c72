//! What a log must hold, kept beside it in plain vectors and maps.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::messages::Messages;
use crate::{AppendError, Checkpoint, Log, Offset, ReadError, Record, Stamp, Start, Topic};

/// What a record is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Empty for none.
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) is_deletion: bool,
}

impl Item {
    pub(crate) fn new(topic: Option<&Topic>, payload: Vec<u8>) -> Self {
        Self {
            topic: topic.map_or(String::new(), Topic::to_string),
            payload,
            is_deletion: false,
        }
    }

    fn of(record: &Record) -> Self {
        Self {
            topic: record.topic().to_owned(),
            payload: record.payload().to_vec(),
            is_deletion: record.is_deletion(),
        }
    }
}

/// Everything that was told about a log, and that it has to stand by.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// What was appended, and not found to be removed since.
    records: BTreeMap<u64, Item>,
    /// Appends that have not returned, or not before the crash, or that poisoned the log: all of
    /// one may be there or nothing.
    doubtful: BTreeMap<u64, Vec<Item>>,
    /// Somebody has asked for a compaction.
    compacted: bool,
    /// The offset behind all that was ever acknowledged or found, and not undone.
    end: u64,
    units: u64,
    batches: Vec<Range<u64>>,
    /// Records before this were reported as durable.
    durable: u64,
    /// Records before this were dropped on demand.
    oldest: u64,
    /// The furthest that anybody asked to drop.
    prunable: u64,
    /// The fewest of the newest records that a retention was to keep; `None` if there was none.
    newest_kept: Option<u64>,
    /// What is held, by who holds it.
    holds: BTreeMap<u64, u64>,
    /// Positions that readers keep, and the lowest place to which a crash went back since.
    checkpoints: Vec<(Checkpoint, u64)>,
    /// An append was told that the log takes nothing more.
    poisoned: bool,
    /// What was sent with stamps; of their records, all that is above is true as well.
    pub(super) messages: Messages,
    /// The epoch in which the log was last used.
    epoch: u64,
    pub(crate) tally: Tally,
}

/// The model, as the threads of a life share it. Never locked over a turn.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Model>>);

impl Shared {
    pub(super) fn get(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) records_checked: u64,
    pub(crate) records_undone: u64,
    pub(crate) batches_undone: u64,
    pub(crate) records_pruned: u64,
    pub(crate) records_compacted: u64,
    /// Records that are gone by a compaction, as found by an opening.
    pub(crate) records_removed: u64,
    pub(crate) topics_read: u64,
    pub(crate) rewound: u64,
    pub(crate) tailed: u64,
    pub(crate) refused: u64,
    /// Records read as by another process.
    pub(crate) spectated: u64,
    pub(crate) second_writers: u64,
    pub(crate) times_found: u64,
    /// Prunes that a hold has kept from going on.
    pub(crate) held_back: u64,
    /// Readers that went on behind what was dropped.
    pub(crate) passed_pruned: u64,
    /// Messages that were sent again and not appended again.
    pub(crate) repeated: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.records_checked += other.records_checked;
        self.records_undone += other.records_undone;
        self.batches_undone += other.batches_undone;
        self.records_pruned += other.records_pruned;
        self.records_compacted += other.records_compacted;
        self.records_removed += other.records_removed;
        self.topics_read += other.topics_read;
        self.rewound += other.rewound;
        self.tailed += other.tailed;
        self.refused += other.refused;
        self.spectated += other.spectated;
        self.second_writers += other.second_writers;
        self.times_found += other.times_found;
        self.held_back += other.held_back;
        self.passed_pruned += other.passed_pruned;
        self.repeated += other.repeated;
    }
}

/// An append that has begun.
pub(crate) struct Begun {
    unit: u64,
    poisoned: bool,
}

impl Model {
    /// The offset behind all records whose append has returned.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Before an append: a crash may find it on its way.
    pub(crate) fn begin(&mut self, payloads: Vec<Item>) -> Begun {
        self.units += 1;
        self.doubtful.insert(self.units, payloads);
        Begun {
            unit: self.units,
            poisoned: self.poisoned,
        }
    }

    /// An append has returned, on a disk that is still there.
    pub(crate) fn appended(
        &mut self,
        begun: &Begun,
        result: Result<Range<Offset>, AppendError>,
        faulty: bool,
    ) {
        match result {
            Ok(offsets) => {
                assert!(!begun.poisoned, "acknowledged by a poisoned log");
                let payloads = self.doubtful.remove(&begun.unit).expect("begun");
                let range = offsets.start.get()..offsets.end.get();
                assert_eq!(range.end - range.start, payloads.len() as u64);
                self.batches.push(range.clone());
                self.end = self.end.max(range.end);
                for (offset, payload) in range.zip(payloads) {
                    let before = self.records.insert(offset, payload);
                    assert_eq!(before, None, "offset {offset} was given twice");
                }
            }
            Err(AppendError::Poisoned { .. }) => {
                assert!(faulty, "poisoned without a fault");
                self.poisoned = true;
                if begun.poisoned {
                    // Not even begun.
                    self.doubtful.remove(&begun.unit);
                }
                self.tally.refused += 1;
            }
            Err(AppendError::TooLarge { .. }) => {
                self.doubtful.remove(&begun.unit);
            }
            Err(error) => {
                assert!(faulty, "an append failed without a fault: {error}");
                self.doubtful.remove(&begun.unit);
                self.tally.refused += 1;
            }
        }
    }

    /// An append has returned, and had changed nothing.
    pub(super) fn not_appended(&mut self, begun: &Begun) {
        self.doubtful.remove(&begun.unit).expect("begun");
    }

    /// Records before `next` were called durable.
    pub(crate) fn promised(&mut self, next: Offset) {
        self.durable = self.durable.max(next.get());
    }

    /// A compaction begins.
    pub(crate) fn compacts(&mut self) {
        self.compacted = true;
    }

    pub(crate) fn was_compacted(&self) -> bool {
        self.compacted
    }

    /// Whether a compaction may have removed a record: its topic was deleted behind it, or may have
    /// been, or it says so itself.
    fn is_removable(&self, offset: u64, item: &Item) -> bool {
        let deletes = |other: &Item| other.is_deletion && other.topic == item.topic;
        let deleted = item.is_deletion
            || self
                .records
                .range(offset + 1..)
                .any(|(_, other)| deletes(other))
            || self.doubtful.values().flatten().any(deletes);
        self.compacted && deleted
    }

    /// A log that was closed holds so many records.
    pub(crate) fn check_count(&self, found: u64) {
        let records = self.records.iter();
        let alive = records.filter(|&(&offset, item)| !self.is_removable(offset, item));
        // What was pruned since the last opening is not told apart.
        let least = match self.was_pruned() {
            true => 0,
            false => alive.count() as u64,
        };
        let range = least..=self.end - self.oldest;
        assert!(
            range.contains(&found),
            "{found} records, where {range:?} were to be found"
        );
    }

    /// A tailer has followed to the end of a log that was closed, through this range, and was shown
    /// these records.
    pub(crate) fn check_tailed(&self, topic: Option<&Topic>, range: Range<Offset>, seen: &[u64]) {
        let range = range.start.get()..range.end.get();
        for (&offset, item) in self.records.range(range.clone()) {
            let wanted = topic.is_none_or(|topic| item.topic == topic.as_str());
            if wanted && !self.is_removable(offset, item) && !self.is_dead(offset, item) {
                assert!(
                    seen.binary_search(&offset).is_ok(),
                    "{offset} was not tailed in {range:?}, of {topic:?}: {seen:?}"
                );
            }
        }
    }

    /// Whether readers of its topic pass over a record.
    fn is_dead(&self, offset: u64, item: &Item) -> bool {
        let deletes = |other: &Item| other.is_deletion && other.topic == item.topic;
        self.records
            .range(offset + 1..)
            .any(|(_, other)| deletes(other))
    }

    pub(crate) fn prune_to(&mut self, before: Offset) {
        self.prunable = self.prunable.max(before.get());
    }

    /// A retention is to drop all but the newest records, so many at least.
    pub(crate) fn prune_but(&mut self, newest: u64) {
        self.newest_kept = Some(self.newest_kept.map_or(newest, |kept| kept.min(newest)));
    }

    /// From here on, nothing at or behind `offset` may be dropped.
    pub(crate) fn hold(&mut self, holder: u64, offset: Offset) {
        self.holds.insert(holder, offset.get());
    }

    pub(crate) fn release(&mut self, holder: u64) {
        self.holds.remove(&holder);
    }

    /// The log was seen to begin at `oldest`, before the look at the model.
    pub(crate) fn check_oldest(&self, oldest: Offset) {
        let (oldest, may) = (oldest.get(), self.oldest..=self.droppable());
        assert!(may.contains(&oldest), "begins at {oldest}, not in {may:?}");
    }

    /// The furthest that may be dropped: what was asked for, and is not held.
    fn droppable(&self) -> u64 {
        // The end as it may be, whatever has become of appends that have not returned.
        let doubtful: usize = self.doubtful.values().map(Vec::len).sum();
        let end = self.end() + doubtful as u64;
        let by_retention = self
            .newest_kept
            .map_or(0, |newest| end.saturating_sub(newest));
        let asked = self.prunable.max(by_retention);
        let held = self.holds.values().copied().min().unwrap_or(u64::MAX);
        asked.min(held).max(self.oldest)
    }

    /// A reader was shown a record of a running log.
    pub(crate) fn seen(&mut self, record: &Record) {
        self.tally.tailed += 1;
        let (offset, item) = (record.offset(), Item::of(record));
        let known = self.records.get(&offset.get());
        let right = match known {
            Some(known) => *known == item,
            None => self.is_doubtful(&item),
        };
        assert!(right, "record {offset} is a wrong one, live");
    }

    /// Somebody asked to drop records, so that some may be gone.
    pub(crate) fn was_pruned(&self) -> bool {
        self.prunable > 0 || self.newest_kept.is_some()
    }

    /// Whether this record is the last one of its append: a batch is all or nothing.
    pub(crate) fn ends_unit(&self, record: &Record) -> bool {
        let (offset, item) = (record.offset(), Item::of(record));
        let next = offset.next().get();
        let mut doubtful = self.doubtful.values();
        if self.records.contains_key(&offset.get()) {
            !self
                .batches
                .iter()
                .any(|batch| batch.start < next && next < batch.end)
        } else {
            doubtful.any(|unit| unit.last().is_some_and(|last| *last == item))
        }
    }

    fn is_doubtful(&self, item: &Item) -> bool {
        self.doubtful.values().flatten().any(|other| other == item)
    }

    /// A log that a crash left is read, without being opened for writing: nothing of `kept` is missing,
    /// nothing is wrong.
    ///
    /// Before a recovery, what a power cut left may look damaged, and show more than is kept. Behind
    /// one whose end nobody saw, there is what it kept and nothing else, whatever files it left.
    pub(crate) fn check_read_only(&self, log: &Log, kept: u64) {
        let (mut next, mut errors) = (log.oldest().get(), 0);
        let mut missing: Vec<u64> = Vec::new();
        let mut replay = log.replay(Start::Oldest);
        loop {
            match replay.next() {
                Some(Ok(record)) => {
                    let offset = record.offset().get();
                    assert!(offset >= next, "record {offset} comes behind {next}");
                    let item = Item::of(&record);
                    let right = match self.records.get(&offset) {
                        Some(known) => *known == item,
                        None => self.is_doubtful(&item),
                    };
                    assert!(
                        right,
                        "record {offset} is a wrong one, read-only; one that was appended: {}",
                        self.records.contains_key(&offset)
                    );
                    missing.extend(next..offset);
                    next = offset + 1;
                }
                Some(Err(_)) => {
                    replay.skip_damage();
                    errors += 1;
                    assert!(errors < 10_000, "skipping damage moves on");
                }
                None => break,
            }
        }
        missing.extend(next..kept);
        for offset in missing.into_iter().filter(|&offset| offset < kept) {
            assert!(
                self.may_be_missing(offset),
                "record {offset} cannot be read before the recovery, of {kept} that were kept"
            );
        }
        if log.epoch().get() > self.epoch {
            assert_eq!(errors, 0, "errors in a recovered log");
            assert_eq!(
                log.next_offset(),
                log.durable_offset(),
                "where a recovered log ends"
            );
        }
    }

    /// Whether a compaction may have removed what was appended at an offset.
    fn may_be_missing(&self, offset: u64) -> bool {
        match self.records.get(&offset) {
            Some(item) => self.is_removable(offset, item),
            // It was found to be removed, or its append has never returned.
            None => self.compacted,
        }
    }

    /// A log was opened, behind a crash or not, and `kept` records had to survive. What did is what
    /// the model holds from here on.
    pub(crate) fn check_opened(&mut self, log: &Log, kept: u64) {
        let (oldest, next) = (log.oldest().get(), log.next_offset().get());
        assert!(next >= kept, "{kept} records were to be kept, {next} were");
        assert_eq!(
            log.durable_offset().get(),
            next,
            "recovery syncs what it keeps"
        );
        self.check_oldest(log.oldest());
        let records: Vec<Record> = log
            .replay(Start::Oldest)
            .map(|record| record.unwrap_or_else(|error| panic!("a recovered record: {error}")))
            .collect();
        self.check_times(log, &records);
        let found: BTreeMap<u64, Item> = records
            .iter()
            .map(|record| (record.offset().get(), Item::of(record)))
            .collect();
        let stamps: BTreeMap<u64, Stamp> = records
            .iter()
            .filter_map(|record| Some((record.offset().get(), record.stamp()?)))
            .collect();
        self.epoch = log.epoch().get();
        self.tally.records_checked += found.len() as u64;
        self.tally.records_pruned += oldest - self.oldest;
        self.adopt(&found);
        self.check_missing(oldest..next, &found);
        self.check_topics(log, &found);
        self.cut(oldest, next);
        let range = oldest..next;
        let compacted = self.compacted;
        self.messages
            .check_opened(log, range, compacted, &stamps, &found);
        self.check_checkpoints(log);
    }

    /// The first record of a time is found, as a look at all records finds it.
    fn check_times(&mut self, log: &Log, records: &[Record]) {
        for record in records.iter().step_by(13) {
            let time = record.timestamp();
            let older = records.partition_point(|other| other.timestamp() < time);
            let found = log.offset_at(time);
            let found = found.unwrap_or_else(|error| panic!("a time of the log: {error}"));
            assert_eq!(found, records[older].offset(), "the first one of {time:?}");
            self.tally.times_found += 1;
        }
    }

    /// What was in doubt and is there counts as appended.
    fn adopt(&mut self, found: &BTreeMap<u64, Item>) {
        for (&offset, item) in found {
            if let Some(known) = self.records.get(&offset) {
                assert!(known == item, "record {offset} is a wrong one");
                continue;
            }
            let place = |items: &Vec<Item>| items.iter().position(|other| other == item);
            let mut doubtful = self.doubtful.iter();
            let Some((&unit, at)) = doubtful.find_map(|(u, items)| Some((u, place(items)?))) else {
                panic!("record {offset} is from nowhere");
            };
            let items = self.doubtful.remove(&unit).expect("found");
            let start = offset - at as u64;
            let range = start..start + items.len() as u64;
            self.batches.push(range.clone());
            self.records.extend(range.zip(items));
        }
    }

    /// What is not there must have been removed by a compaction; it never comes back.
    fn check_missing(&mut self, range: Range<u64>, found: &BTreeMap<u64, Item>) {
        let missing: Vec<u64> = range.filter(|offset| !found.contains_key(offset)).collect();
        for &offset in &missing {
            assert!(self.may_be_missing(offset), "offset {offset} is missing");
            let Some(item) = self.records.get(&offset).filter(|item| item.is_deletion) else {
                continue;
            };
            let of_topic = |(_, other): &(&u64, &Item)| other.topic == item.topic;
            // A later deletion does for this one too.
            let mut newer = found.range(offset..).filter(of_topic);
            if newer.any(|(_, other)| other.is_deletion) {
                continue;
            }
            let mut older = found.range(..offset);
            let survivor = older.find(of_topic);
            assert_eq!(
                survivor, None,
                "what {offset} has deleted is there, and it is not"
            );
        }
        for offset in missing {
            self.tally.records_removed += u64::from(self.records.remove(&offset).is_some());
        }
    }

    /// Reading by topic shows what reading everything does.
    fn check_topics(&mut self, log: &Log, found: &BTreeMap<u64, Item>) {
        let names: std::collections::BTreeSet<&str> =
            found.values().map(|item| &*item.topic).collect();
        let mut listed = log.topics().map(|one| one.expect("a listing"));
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            let topic = Topic::new(name).expect("it was one");
            let of_topic = found.iter().filter(|(_, item)| item.topic == name);
            let deletion = of_topic.clone().rfind(|(_, item)| item.is_deletion);
            let alive = |&(offset, _): &(&u64, &Item)| deletion.is_none_or(|(d, _)| offset > d);
            let expected: Vec<u64> = of_topic.filter(alive).map(|(&offset, _)| offset).collect();
            let read = log.replay(Start::Oldest).topic(&topic);
            let read: Vec<u64> = read
                .map(|record| record.expect("a record of a topic").offset().get())
                .collect();
            assert_eq!(read, expected, "the records of {name}");
            self.tally.topics_read += 1;
            for from in [0, expected.len() / 2, expected.len()] {
                let start = match from {
                    0 => 0,
                    _ => expected[from - 1] + 1,
                };
                let counted = log.count(&topic, Offset::new(start)).expect("a count");
                let behind = (expected.len() - from) as u64;
                assert_eq!(counted, behind, "records of {name} from {start} on");
            }
            let last = log.last(&topic).expect("a look for the last one");
            let last = last.map(|record| record.offset().get());
            assert_eq!(last, expected.last().copied(), "the last of {name}");
            if let (Some(&first), Some(&last)) = (expected.first(), expected.last()) {
                let one = listed.next().expect("it is listed");
                let ends = (
                    one.topic.as_str(),
                    one.records,
                    one.first.get(),
                    one.last.get(),
                );
                assert_eq!(ends, (name, expected.len() as u64, first, last));
            }
        }
        assert_eq!(listed.next(), None, "a topic that is not there");
    }

    /// Forgets what did not survive: none of it may ever come back.
    fn cut(&mut self, oldest: u64, next: u64) {
        self.doubtful.clear();
        let undone = self.records.split_off(&next);
        self.tally.records_undone += undone.len() as u64;
        for batch in &self.batches {
            let torn = batch.start < next && next < batch.end;
            assert!(
                !torn,
                "a batch is all or nothing; {next} are left of {batch:?}"
            );
        }
        let before = self.batches.len();
        self.batches.retain(|batch| batch.end <= next);
        self.tally.batches_undone += (before - self.batches.len()) as u64;
        self.batches.retain(|batch| batch.end + 1000 > next);
        for (_, undone) in &mut self.checkpoints {
            *undone = next.min(*undone);
        }
        self.records = self.records.split_off(&oldest);
        self.newest_kept = None;
        self.holds.clear();
        (self.oldest, self.prunable, self.durable, self.end) = (oldest, oldest, next, next);
        self.poisoned = false;
    }

    /// A reader keeps where it is.
    pub(crate) fn keep(&mut self, checkpoint: Checkpoint) {
        self.checkpoints.push((checkpoint, u64::MAX));
    }

    /// Who was ahead of what a crash left is told where to go on.
    fn check_checkpoints(&mut self, log: &Log) {
        let oldest = log.oldest();
        for (checkpoint, undone) in &self.checkpoints {
            let first = log.replay(Start::Resume(*checkpoint)).next();
            if *undone < checkpoint.offset.get() {
                self.tally.rewound += 1;
                let Some(Err(ReadError::Rewound { resume_at, .. })) = first else {
                    panic!("{checkpoint:?} was not rewound to {undone}: {first:?}");
                };
                assert_eq!(resume_at, Offset::new(*undone));
            } else if checkpoint.offset < oldest {
                let pruned = matches!(first, Some(Err(ReadError::Pruned { .. })));
                assert!(pruned, "{checkpoint:?} before {oldest}: {first:?}");
            } else {
                assert!(!matches!(first, Some(Err(_))), "{checkpoint:?}: {first:?}");
            }
        }
        self.keep(log.tail(Start::Latest).checkpoint());
    }
}
