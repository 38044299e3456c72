//! The crate `raft-engine`: logs of many Raft groups in one file, with all indexes in memory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use raft_engine::{Config, Engine, LogBatch, MessageExt};
use raft_proto::eraftpb::Entry;

use super::{Can, Contestant, NO_TAIL, Place, Survives};
use crate::stores::{self, Promise, Random, Replay, Shared, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "raft-engine",
    package: "raft-engine",
    place: Place::Disk,
    appended: Survives::KILL,
    durable: Survives::ALL,
    checks: "CRC-32 of each write",
    how: "Default configuration; records are `Entry` of one Raft group, or of one for each thread where threads \
          append; `write` with and without `sync`; `fetch_entries_to` of 1,000, `get_entry`.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::Append | Kind::AppendLong => Ok(stores::append::<Group>),
        Kind::Batches => Ok(stores::batches::<Group>),
        Kind::Durable(1) => Ok(stores::durable::<Group>),
        Kind::Durable(_) => Ok(stores::durable_shared::<Group>),
        Kind::Replay => Ok(stores::replay::<Group>),
        Kind::RandomRead => Ok(stores::random::<Group>),
        Kind::Reopen => Ok(stores::reopen::<Group>),
        Kind::FanOut(_) | Kind::Wake(_) => Err(NO_TAIL),
    }
}

const GROUP: u64 = 1;

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

struct Group {
    engine: Engine,
    batch: LogBatch,
    next: u64,
    sync: bool,
    /// The next group of a thread that appends, and the next index in its group.
    groups: AtomicU64,
}

thread_local! {
    /// Group and next index of a thread that appends, and its batch.
    static MINE: std::cell::RefCell<Option<(u64, u64, LogBatch)>> =
        const { std::cell::RefCell::new(None) };
}

fn entry(index: u64, payload: &[u8]) -> Entry {
    Entry {
        index,
        data: payload.to_vec().into(),
        ..Entry::default()
    }
}

impl Store for Group {
    fn open(dir: &Path, promise: Promise) -> Result<Self> {
        let config = Config {
            dir: dir.to_str().context("a path in UTF-8")?.to_owned(),
            ..Config::default()
        };
        let engine = Engine::open(config)?;
        let next = engine.last_index(GROUP).map_or(0, |last| last + 1);
        Ok(Self {
            engine,
            batch: LogBatch::with_capacity(256),
            next,
            sync: promise == Promise::Durable,
            groups: AtomicU64::new(GROUP + 1),
        })
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.append_batch(&[payload])
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        let numbered = (self.next..).zip(payloads);
        let entries: Vec<Entry> = numbered.map(|(n, payload)| entry(n, payload)).collect();
        self.batch.add_entries::<Entries>(GROUP, &entries)?;
        self.engine.write(&mut self.batch, self.sync)?;
        self.next += payloads.len() as u64;
        Ok(())
    }
}

impl Shared for Group {
    fn append_shared(&self, payload: &[u8]) -> Result<()> {
        MINE.with_borrow_mut(|mine| {
            let (group, next, batch) = mine.get_or_insert_with(|| {
                let group = self.groups.fetch_add(1, Ordering::Relaxed);
                (group, 0, LogBatch::with_capacity(16))
            });
            batch.add_entries::<Entries>(*group, &[entry(*next, payload)])?;
            *next += 1;
            self.engine.write(batch, self.sync)?;
            Ok(())
        })
    }
}

impl Replay for Group {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        const AT_ONCE: u64 = 1_000;
        let mut entries: Vec<Entry> = Vec::new();
        for first in (0..self.next).step_by(AT_ONCE as usize) {
            let end = (first + AT_ONCE).min(self.next);
            entries.clear();
            self.engine
                .fetch_entries_to::<Entries>(GROUP, first, end, None, &mut entries)?;
            entries.iter().for_each(|entry| read(&entry.data));
        }
        Ok(())
    }
}

impl Random for Group {
    fn get(&mut self, number: u64, read: impl FnOnce(&[u8])) -> Result<()> {
        let entry = self.engine.get_entry::<Entries>(GROUP, number)?;
        read(&entry.context("no such record")?.data);
        Ok(())
    }
}
