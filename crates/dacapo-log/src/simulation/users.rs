//! Who uses a log while it lives: threads that append, that tail, and that read it as another process
//! would. Each checks what it is told against the model.

use std::path::Path;

use shuttle::future::block_on;

use super::model::{Begun, Shared};
use super::random::Random;
use crate::disk::{DIR, Disk};
use crate::{Log, Offset, OpenError, Options, ReadError, Record, Start, Tailer};

/// A thread that appends, syncs and prunes.
pub(super) struct Producer {
    pub(super) random: Random,
    pub(super) disk: Disk,
    pub(super) model: Shared,
    pub(super) log: Log,
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
                _ => self.append_one(),
            }
            if self.random.one_in(syncs_in) {
                self.sync();
            }
            if self.disk.crashed().is_some() {
                return;
            }
            let durable = self.log.durable_offset();
            self.model.get().promised(durable);
        }
    }

    fn sync(&mut self) {
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
        if self.disk.crashed().is_some() {
            return;
        }
        match pruned {
            Ok(oldest) => assert!(oldest <= before.max(self.log.oldest())),
            Err(error) => assert!(self.disk.failed().is_some(), "it does not prune: {error}"),
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
    fn payload(&mut self, longest: usize) -> Vec<u8> {
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
        let begun = self.model.get().begin(vec![payload.clone()]);
        let result = self
            .log
            .append(&payload)
            .map(|offset| offset..offset.next());
        self.returned(&begun, result);
    }

    fn append_batch(&mut self) {
        let count = 1 + self.random.index(20);
        let longest = 1 + self.random.index(6000 / count);
        let payloads: Vec<Vec<u8>> = (0..count).map(|_| self.payload(longest)).collect();
        let begun = self.model.get().begin(payloads.clone());
        let result = self.log.append_batch(&payloads);
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
}

impl Follower {
    pub(super) fn follow(&self, mut tailer: Tailer) {
        if self.durable_only {
            tailer = tailer.durable_only();
        }
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
                    assert_eq!(record.offset(), expected, "no gap and no duplicate");
                    let mut model = self.model.get();
                    model.seen(record.offset(), record.payload());
                    if self.durable_only {
                        model.promised(record.offset().next());
                    }
                    if held.len() < 8 {
                        let copy = record.payload().to_vec();
                        held.push((record, copy));
                    }
                }
                Err(ReadError::Closed | ReadError::Pruned { .. }) => break,
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
                    assert!(next.is_none_or(|next| next == offset), "no gap, {next:?}");
                    next = Some(offset.next());
                    let mut model = self.model.get();
                    model.seen(offset, record.payload());
                    model.tally.spectated += 1;
                    last = Some(record);
                }
                Err(ReadError::Pruned { .. }) if self.model.get().was_pruned() => return,
                Err(error) => panic!("a spectator met: {error}"),
            }
        }
        if let Some(last) = last {
            let whole = self.model.get().ends_unit(last.offset(), last.payload());
            assert!(whole, "a batch that ends at {} for readers", last.offset());
        }
    }
}
