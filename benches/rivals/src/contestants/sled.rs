//! The crate `sled`, 0.34: a tree whose log is written in the background.

use std::path::Path;

use anyhow::{Context, Result};
use sled::{Batch, Db};

use super::{Can, Contestant, Place, Survives};
use crate::stores::{self, Promise, Random, Replay, Shared, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "sled",
    package: "sled",
    place: Place::Disk,
    appended: Survives {
        kill: "but the last 500 ms",
        power_cut: "no",
    },
    durable: Survives {
        kill: "yes",
        power_cut: "not always",
    },
    checks: "CRC-32 of what is read from the disk, and not from its cache",
    how: "Default configuration, keys of 8 bytes big-endian; `insert`, `apply_batch`, `insert` and `flush`. Its \
          `flush` calls `sync_file_range` and no `fdatasync` on Linux, so that a power cut can still lose what \
          it has acknowledged.",
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
        Kind::FanOut(_) | Kind::Wake(_) => {
            Err("a subscriber gets what comes from now on, and a full one stops the writer")
        }
    }
}

struct Tree {
    db: Db,
    next: u64,
    promise: Promise,
}

impl Store for Tree {
    fn open(dir: &Path, promise: Promise) -> Result<Self> {
        let db = sled::open(dir.join("db"))?;
        Ok(Self {
            db,
            next: 0,
            promise,
        })
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.db.insert(self.next.to_be_bytes(), payload)?;
        self.next += 1;
        if self.promise == Promise::Durable {
            self.db.flush()?;
        }
        Ok(())
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        let mut batch = Batch::default();
        for (number, payload) in (self.next..).zip(payloads) {
            batch.insert(&number.to_be_bytes(), *payload);
        }
        self.db.apply_batch(batch)?;
        self.next += payloads.len() as u64;
        Ok(())
    }

    fn close(self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }
}

impl Shared for Tree {
    fn append_shared(&self, payload: &[u8]) -> Result<()> {
        self.db
            .insert(self.db.generate_id()?.to_be_bytes(), payload)?;
        if self.promise == Promise::Durable {
            self.db.flush()?;
        }
        Ok(())
    }
}

impl Replay for Tree {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        for record in &*self.db {
            read(&record?.1);
        }
        Ok(())
    }
}

impl Random for Tree {
    fn get(&mut self, number: u64, read: impl FnOnce(&[u8])) -> Result<()> {
        read(
            &self
                .db
                .get(number.to_be_bytes())?
                .context("no such record")?,
        );
        Ok(())
    }
}
