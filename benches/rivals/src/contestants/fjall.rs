//! The crate `fjall`: a log-structured merge tree with a journal.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Can, Contestant, NO_TAIL, Place, Survives};
use crate::stores::{self, Promise, Random, Replay, Shared, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "fjall",
    package: "fjall",
    place: Place::Disk,
    appended: Survives::KILL,
    durable: Survives::ALL,
    checks: "XXH3 of a block when it is loaded",
    how: "Default options, keys of 8 bytes big-endian; `insert`, a batch, `insert` and `persist(SyncData)`.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::Append | Kind::AppendLong => Ok(stores::append::<Tree>),
        Kind::Batches => Ok(stores::batches::<Tree>),
        Kind::Durable(1) => Ok(stores::durable::<Tree>),
        Kind::Durable(_) => Ok(stores::durable_shared::<Tree>),
        Kind::Replay => Ok(stores::replay::<Tree>),
        Kind::RandomRead => Ok(stores::random::<Tree>),
        Kind::Reopen => Ok(stores::reopen::<Tree>),
        Kind::FanOut(_) | Kind::Wake(_) => Err(NO_TAIL),
    }
}

struct Tree {
    db: Database,
    records: Keyspace,
    next: AtomicU64,
    promise: Promise,
}

impl Store for Tree {
    fn open(dir: &Path, promise: Promise) -> Result<Self> {
        let db = Database::builder(dir.join("db")).open()?;
        let records = db.keyspace("records", KeyspaceCreateOptions::default)?;
        Ok(Self {
            db,
            records,
            next: AtomicU64::new(0),
            promise,
        })
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.append_shared(payload)
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        let first = self
            .next
            .fetch_add(payloads.len() as u64, Ordering::Relaxed);
        let mut batch = self.db.batch();
        for (number, payload) in (first..).zip(payloads) {
            batch.insert(&self.records, number.to_be_bytes(), *payload);
        }
        Ok(batch.commit()?)
    }
}

impl Shared for Tree {
    fn append_shared(&self, payload: &[u8]) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.records.insert(number.to_be_bytes(), payload)?;
        if self.promise == Promise::Durable {
            self.db.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Replay for Tree {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        for record in self.records.iter() {
            read(&record.value()?);
        }
        Ok(())
    }
}

impl Random for Tree {
    fn get(&mut self, number: u64, read: impl FnOnce(&[u8])) -> Result<()> {
        let record = self.records.get(number.to_be_bytes())?;
        read(&record.context("no such record")?);
        Ok(())
    }
}
