//! Who uses a log while it lives: threads that append, that tail, and that read it as another process
//! would. Each checks what it is told against the model.

use std::path::Path;
use std::time::{Duration, SystemTime};

use shuttle::future::block_on;

use super::life;
use super::model::{Begun, Item, Shared};
use super::random::Random;
use crate::disk::{DIR, Disk};
use crate::{
    Hold, Kept, Log, Offset, OpenError, Options, Pruning, ReadError, Record, Start, SyncError,
    Tailer, Topic,
};

/// One of a few topics, of which some names begin with others.
pub(super) fn some_topic(random: &mut Random) -> Topic {
    let name = *random.pick(&[
        "a",
        "b",
        "ab",
        "abc",
        "long enough to take more than one word",
    ]);
    Topic::new(name).expect("a topic")
}

/// A thread that appends, syncs, prunes, holds, looks back, deletes topics and compacts.
pub(super) struct Producer {
    pub(super) random: Random,
    pub(super) disk: Disk,
    pub(super) model: Shared,
    pub(super) log: Log,
    /// With the number under which the model knows it.
    pub(super) hold: Option<(u64, Hold)>,
}

impl Producer {
    pub(super) fn produce(&mut self) {
        let syncs_in = *self.random.pick(&[3, 10, 40]);
        for _ in 0..self.random.below(40) {
            match self.random.below(60) {
                0 | 1 => self.prune(),
                2..10 => self.append_batch(),
                10 => {
                    let checkpoint = self.log.tail(Start::Latest).checkpoint();
                    if self.disk.crashed().is_none() {
                        self.model.get().keep(checkpoint);
                    }
                }
                11 => self.meet_the_lock(),
                12 => self.delete_topic(),
                13 => self.compact(),
                14 => self.retain(),
                15 | 16 => self.hold(),
                17 | 18 => self.read_since(),
                _ => self.append_one(),
            }
            if self.random.one_in(syncs_in) {
                self.sync();
            }
            if self.disk.crashed().is_some() {
                return;
            }
            let (durable, oldest) = (self.log.durable_offset(), self.log.oldest());
            let mut model = self.model.get();
            model.promised(durable);
            model.check_oldest(oldest);
        }
        self.release();
    }

    pub(super) fn sync(&mut self) {
        let next = self.log.next_offset();
        let synced = match next.get().checked_sub(1) {
            Some(last) if self.random.one_in(2) => {
                block_on(self.log.durable(Offset::new(last))).map(|()| next)
            }
            _ => self.log.sync(),
        };
        if self.disk.crashed().is_some() {
            return;
        }
        match synced {
            Ok(durable) => self.model.get().promised(durable),
            Err(error) => assert!(self.disk.failed().is_some(), "it does not sync: {error}"),
        }
    }

    fn prune(&mut self) {
        let next = self.log.next_offset().get();
        let before = Offset::new(self.random.below(next + 2));
        self.model.get().prune_to(before);
        let pruned = self.log.prune(before);
        if let Some(pruning) = self.pruned(pruned) {
            assert!(pruning.oldest <= before.max(self.log.oldest()));
        }
    }

    fn retain(&mut self) {
        let (Some(newest), retention) = life::retention(&mut self.random) else {
            return;
        };
        self.model.get().prune_but(newest);
        let retained = self.log.retain(&retention);
        self.pruned(retained);
    }

    fn pruned(&self, pruned: Result<Pruning, SyncError>) -> Option<Pruning> {
        if self.disk.crashed().is_some() {
            return None;
        }
        match &pruned {
            Ok(pruning) => {
                let held = matches!(pruning.kept, Some(Kept::Held(_)));
                self.model.get().tally.held_back += u64::from(held);
            }
            Err(error) => assert!(self.disk.failed().is_some(), "it does not prune: {error}"),
        }
        pruned.ok()
    }

    /// Takes a hold, moves the one that there is, or drops it.
    fn hold(&mut self) {
        let offset = Offset::new(self.random.below(self.log.next_offset().get() + 1));
        match &self.hold {
            None => {
                let (id, hold) = (self.random.next(), self.log.hold("producer", offset));
                let held = hold.offset();
                self.model.get().hold(id, held);
                self.hold = Some((id, hold));
            }
            Some(_) if self.random.one_in(3) => self.release(),
            Some((id, hold)) => {
                // What is held no more may be dropped before the move has returned.
                let least = offset.max(hold.offset());
                self.model.get().hold(*id, least);
                let moved = hold.move_to(offset);
                self.model.get().hold(*id, moved);
            }
        }
    }

    fn release(&mut self) {
        if let Some((id, hold)) = self.hold.take() {
            self.model.get().release(id);
            drop(hold);
        }
    }

    /// Reads from about the time of some record on.
    fn read_since(&mut self) {
        let (oldest, next) = (self.log.oldest().get(), self.log.next_offset().get());
        let some = Offset::new(oldest + self.random.below(next - oldest + 1));
        // It may be gone by now, or not be there yet.
        let Ok(some) = self.log.get(some) else {
            return;
        };
        let some_offset = some.offset();
        let micros = some.timestamp_micros() + self.random.below(3) - 1;
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
        let first = self.log.replay(Start::Since(time)).next();
        let before = match &first {
            Some(Ok(first)) => {
                let before = first.offset().get().checked_sub(1).map(Offset::new);
                before.and_then(|before| self.log.get(before).ok())
            }
            // Unless a compaction has removed it meanwhile.
            _ => self.log.get(some.offset()).ok(),
        };
        if self.disk.crashed().is_some() {
            return;
        }
        let is_not_older = |record: &Record| record.timestamp_micros() >= micros;
        match first {
            Some(Err(ReadError::Pruned { .. })) if self.model.get().was_pruned() => return,
            Some(Err(error)) => {
                assert!(self.disk.failed().is_some(), "since a time: {error}");
                return;
            }
            Some(Ok(first)) => assert!(is_not_older(&first), "{} is older", first.offset()),
            // Dropped since it was read, and what is left came behind the end of the replay.
            None if self.log.oldest() > some_offset => return,
            None => {}
        }
        let missed = before.filter(is_not_older);
        assert!(
            missed.is_none(),
            "{missed:?} is not older, and was left out"
        );
        self.model.get().tally.times_found += 1;
    }

    fn delete_topic(&mut self) {
        let topic = some_topic(&mut self.random);
        let deletion = Item {
            topic: topic.to_string(),
            payload: Vec::new(),
            is_deletion: true,
        };
        let begun = self.model.get().begin(vec![deletion]);
        let result = self.log.delete_topic(&topic);
        self.returned(&begun, result.map(|offset| offset..offset.next()));
    }

    fn compact(&mut self) {
        self.model.get().compacts();
        let compacted = match self.random.one_in(2) {
            true => self.log.compact(|_| ()),
            false => self
                .log
                .compact_wasted(life::wasted_percent(&mut self.random)),
        };
        if self.disk.crashed().is_some() {
            return;
        }
        match compacted {
            Ok(compacted) => self.model.get().tally.records_compacted += compacted.records,
            Err(error) => assert!(self.disk.failed().is_some(), "it does not compact: {error}"),
        }
    }

    /// A second writer is refused, and changes nothing.
    fn meet_the_lock(&self) {
        let second = Log::open_writer_on(&self.disk, Path::new(DIR), &Options::default());
        if self.disk.crashed().is_none() && self.disk.failed().is_none() {
            let refused = matches!(second, Err(OpenError::Locked { .. }));
            assert!(refused, "a second writer: {second:?}");
            self.model.get().tally.second_writers += 1;
        }
    }

    /// No two are the same.
    pub(super) fn payload(&mut self, longest: usize) -> Vec<u8> {
        let len = self.random.index(longest);
        let mut payload = match self.random.below(4) {
            0 => vec![0; len],
            // Words that begin a frame, and that pad.
            1 => {
                let kind = 1 + self.random.below(5);
                let word = 0xDC_u64 << 56 | kind << 40 | self.random.below(64);
                word.to_le_bytes().repeat(len.div_ceil(8))
            }
            _ => self.random.bytes(len),
        };
        payload.extend_from_slice(&self.random.next().to_le_bytes());
        payload
    }

    fn append_one(&mut self) {
        let longest = *self.random.pick(&[40, 600, 3000]);
        let payload = self.payload(longest);
        let topic = (!self.random.one_in(3)).then(|| some_topic(&mut self.random));
        let item = Item::new(topic.as_ref(), payload.clone());
        let begun = self.model.get().begin(vec![item]);
        let result = match &topic {
            None => self.log.append(&payload),
            Some(topic) => self.log.append_to(topic, &payload),
        };
        self.returned(&begun, result.map(|offset| offset..offset.next()));
    }

    fn append_batch(&mut self) {
        let count = 1 + self.random.index(20);
        let longest = 1 + self.random.index(6000 / count);
        let payloads: Vec<Vec<u8>> = (0..count).map(|_| self.payload(longest)).collect();
        if self.random.one_in(2) {
            let items = payloads
                .iter()
                .map(|p| Item::new(None, p.clone()))
                .collect();
            let begun = self.model.get().begin(items);
            let result = self.log.append_batch(&payloads);
            self.returned(&begun, result);
            return;
        }
        let batch: Vec<(Topic, Vec<u8>)> = payloads
            .into_iter()
            .map(|payload| (some_topic(&mut self.random), payload))
            .collect();
        let item = |(topic, payload): &(Topic, Vec<u8>)| Item::new(Some(topic), payload.clone());
        let begun = self.model.get().begin(batch.iter().map(item).collect());
        let result = self
            .log
            .append_batch_to(batch.iter().map(|(topic, payload)| (topic, payload)));
        self.returned(&begun, result);
    }

    fn returned(&self, begun: &Begun, result: Result<std::ops::Range<Offset>, crate::AppendError>) {
        // Behind a crash nobody is there to be told.
        if self.disk.crashed().is_none() {
            let faulty = self.disk.failed().is_some();
            self.model.get().appended(begun, result, faulty);
        }
    }
}

/// A thread that tails.
pub(super) struct Follower {
    pub(super) disk: Disk,
    pub(super) model: Shared,
    pub(super) durable_only: bool,
    /// Goes on behind what is dropped before it has read it.
    pub(super) passes_pruned: bool,
}

impl Follower {
    /// Follows everything, or one topic.
    pub(super) fn follow(&self, mut tailer: Tailer, topic: Option<Topic>) {
        if self.durable_only {
            tailer = tailer.durable_only();
        }
        let mut begun_at = tailer.next_offset();
        if let Some(topic) = &topic {
            tailer = tailer.topic(topic);
        }
        let mut offsets = Vec::new();
        // What a reader holds must stay as it was.
        let mut held: Vec<(Record, Vec<u8>)> = Vec::new();
        loop {
            let expected = tailer.next_offset();
            let read = block_on(tailer.next());
            if self.disk.crashed().is_some() {
                break;
            }
            match read {
                Ok(record) => {
                    let mut model = self.model.get();
                    let may_skip = topic.is_some() || model.was_compacted();
                    assert!(
                        record.offset() == expected || may_skip && record.offset() > expected,
                        "no gap and no duplicate: {} where {expected} belongs",
                        record.offset()
                    );
                    if let Some(topic) = &topic {
                        assert_eq!(record.topic(), topic.as_str(), "another topic's record");
                    }
                    offsets.push(record.offset().get());
                    model.seen(&record);
                    if self.durable_only {
                        model.promised(record.offset().next());
                    }
                    if held.len() < 8 {
                        let copy = record.payload().to_vec();
                        held.push((record, copy));
                    }
                }
                Err(ReadError::Closed) => {
                    let model = self.model.get();
                    let range = begun_at..tailer.next_offset();
                    let whole = range.end.get() >= model.end();
                    assert!(whole || self.durable_only, "{range:?} is not all");
                    model.check_tailed(topic.as_ref(), range, &offsets);
                    break;
                }
                Err(ReadError::Pruned { requested, oldest }) if self.passes_pruned => {
                    assert!(requested >= expected);
                    begun_at = oldest;
                    offsets.clear();
                    assert_eq!(tailer.next_offset(), oldest);
                    assert!(requested < oldest, "nothing is told twice");
                    let mut model = self.model.get();
                    model.check_oldest(oldest);
                    model.tally.passed_pruned += 1;
                }
                Err(ReadError::Pruned { .. }) => break,
                Err(error) => {
                    assert!(self.disk.failed().is_some(), "a tailer met: {error}");
                    break;
                }
            }
        }
        for (record, copy) in held {
            assert!(
                record.payload() == copy,
                "a record changed in a reader's hands"
            );
        }
    }
}

/// A thread that opens the log read-only again and again, as another process does, while others
/// append, and drop what is old.
pub(super) struct Spectator {
    pub(super) random: Random,
    pub(super) disk: Disk,
    pub(super) model: Shared,
}

impl Spectator {
    pub(super) fn watch(&mut self) {
        for _ in 0..self.random.below(6) {
            let opened = Log::open_reader_on(&self.disk, Path::new(DIR));
            if self.is_over() {
                return;
            }
            match opened {
                Ok(log) => self.read(&log),
                Err(error) => panic!("a live log cannot be read: {error}"),
            }
        }
    }

    /// Faults are for who writes, but cannot tell one thread from another.
    fn is_over(&self) -> bool {
        self.disk.crashed().is_some() || self.disk.failed().is_some()
    }

    fn read(&self, log: &Log) {
        let mut next = None;
        let mut last = None;
        for read in log.replay(Start::Oldest) {
            if self.is_over() {
                return;
            }
            match read {
                Ok(record) => {
                    let offset = record.offset();
                    let mut model = self.model.get();
                    let may_skip = model.was_compacted();
                    let in_order = |next| offset == next || may_skip && offset > next;
                    assert!(next.is_none_or(in_order), "no gap, {next:?}");
                    next = Some(offset.next());
                    model.seen(&record);
                    model.tally.spectated += 1;
                    last = Some(record);
                }
                Err(ReadError::Pruned { .. }) if self.model.get().was_pruned() => return,
                Err(error) => panic!("a spectator met: {error}"),
            }
        }
        if let Some(last) = last {
            let whole = self.model.get().ends_unit(&last);
            assert!(whole, "a batch that ends at {} for readers", last.offset());
        }
    }
}
