//! What a log must hold, kept beside it in plain vectors and maps.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{AppendError, Checkpoint, Log, Offset, ReadError, Start};

/// Everything that was told about a log, and that it has to stand by.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// The payloads of appends that returned.
    records: BTreeMap<u64, Vec<u8>>,
    /// Appends that have not returned, or not before the crash, or that poisoned the log: all of
    /// one may be there or nothing.
    doubtful: BTreeMap<u64, Vec<Vec<u8>>>,
    units: u64,
    batches: Vec<Range<u64>>,
    /// Records before this were reported as durable.
    durable: u64,
    /// Records before this were dropped on demand.
    oldest: u64,
    /// The furthest that anybody asked to drop.
    prunable: u64,
    /// Positions that readers keep, and the lowest place to which a crash went back since.
    checkpoints: Vec<(Checkpoint, u64)>,
    /// An append was told that the log takes nothing more.
    poisoned: bool,
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
    pub(crate) rewound: u64,
    pub(crate) tailed: u64,
    pub(crate) refused: u64,
    /// Records read as by another process.
    pub(crate) spectated: u64,
    pub(crate) second_writers: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.records_checked += other.records_checked;
        self.records_undone += other.records_undone;
        self.batches_undone += other.batches_undone;
        self.records_pruned += other.records_pruned;
        self.rewound += other.rewound;
        self.tailed += other.tailed;
        self.refused += other.refused;
        self.spectated += other.spectated;
        self.second_writers += other.second_writers;
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
        self.records
            .last_key_value()
            .map_or(self.oldest, |(last, _)| last + 1)
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable
    }

    /// Before an append: a crash may find it on its way.
    pub(crate) fn begin(&mut self, payloads: Vec<Vec<u8>>) -> Begun {
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

    /// Records before `next` were called durable.
    pub(crate) fn promised(&mut self, next: Offset) {
        self.durable = self.durable.max(next.get());
    }

    pub(crate) fn prune_to(&mut self, before: Offset) {
        self.prunable = self.prunable.max(before.get());
    }

    /// A reader was shown a record of a running log.
    pub(crate) fn seen(&mut self, offset: Offset, payload: &[u8]) {
        self.tally.tailed += 1;
        let known = self.records.get(&offset.get());
        let right = match known {
            Some(known) => known == payload,
            None => self.is_doubtful(payload),
        };
        assert!(right, "record {offset} is a wrong one, live");
    }

    /// Somebody asked to drop records, so that some may be gone.
    pub(crate) fn was_pruned(&self) -> bool {
        self.prunable > 0
    }

    /// Whether this record is the last one of its append: a batch is all or nothing.
    pub(crate) fn ends_unit(&self, offset: Offset, payload: &[u8]) -> bool {
        let next = offset.next().get();
        let mut doubtful = self.doubtful.values();
        if self.records.contains_key(&offset.get()) {
            !self
                .batches
                .iter()
                .any(|batch| batch.start < next && next < batch.end)
        } else {
            doubtful.any(|unit| unit.last().is_some_and(|last| last == payload))
        }
    }

    fn is_doubtful(&self, payload: &[u8]) -> bool {
        self.doubtful
            .values()
            .flatten()
            .any(|other| other == payload)
    }

    /// A log that a crash left is read, without being opened for writing: nothing of `kept` is missing,
    /// nothing is wrong.
    pub(crate) fn check_read_only(&self, log: &Log, kept: u64) {
        let (mut next, mut seen, mut errors) = (log.oldest().get(), 0, 0);
        let retained = kept.saturating_sub(next);
        let mut replay = log.replay(Start::Oldest);
        loop {
            match replay.next() {
                Some(Ok(record)) => {
                    let offset = record.offset().get();
                    assert!(offset >= next, "record {offset} comes behind {next}");
                    let right = match self.records.get(&offset) {
                        Some(known) => known == record.payload(),
                        None => self.is_doubtful(record.payload()),
                    };
                    assert!(
                        right,
                        "record {offset} is a wrong one, read-only; one that was appended: {}",
                        self.records.contains_key(&offset)
                    );
                    next = offset + 1;
                    seen += u64::from(offset < kept);
                }
                Some(Err(_)) => {
                    replay.skip_damage();
                    errors += 1;
                    assert!(errors < 10_000, "skipping damage moves on");
                }
                None => break,
            }
        }
        assert_eq!(
            seen, retained,
            "so many of the kept records can be read before the recovery"
        );
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
        let may = self.oldest..=self.prunable.max(self.oldest);
        assert!(may.contains(&oldest), "begins at {oldest}, not in {may:?}");
        let found: Vec<Vec<u8>> = (oldest..)
            .zip(log.replay(Start::Oldest))
            .map(|(expected, record)| {
                let record = record.unwrap_or_else(|error| panic!("a recovered record: {error}"));
                assert_eq!(record.offset().get(), expected, "offsets are dense");
                record.payload().to_vec()
            })
            .collect();
        assert_eq!(oldest + found.len() as u64, next);
        self.tally.records_checked += found.len() as u64;
        self.tally.records_pruned += oldest - self.oldest;
        self.adopt(oldest, &found);
        self.cut(oldest, next);
        self.check_checkpoints(log);
    }

    /// What was in doubt and is there counts as appended.
    fn adopt(&mut self, oldest: u64, found: &[Vec<u8>]) {
        let mut at = 0;
        while at < found.len() {
            let offset = oldest + at as u64;
            if let Some(known) = self.records.get(&offset) {
                assert!(*known == found[at], "record {offset} is a wrong one");
                at += 1;
                continue;
            }
            let mut doubtful = self.doubtful.iter();
            let Some((&unit, _)) = doubtful.find(|(_, payloads)| payloads[0] == found[at]) else {
                panic!("record {offset} is from nowhere");
            };
            let payloads = self.doubtful.remove(&unit).expect("found");
            let whole = found[at..].starts_with(&payloads);
            assert!(
                whole,
                "a batch is all or nothing: the one at {offset} is not"
            );
            at += payloads.len();
            let range = offset..offset + payloads.len() as u64;
            self.batches.push(range.clone());
            self.records.extend(range.zip(payloads));
        }
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
        (self.oldest, self.prunable, self.durable) = (oldest, oldest, next);
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
