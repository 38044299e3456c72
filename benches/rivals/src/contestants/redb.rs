//! The crate `redb`: a copy-on-write tree in one file, with transactions.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Can, Contestant, NO_TAIL, Place, Survives};
use crate::stores::{self, Promise, Random, Replay, Shared, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "redb",
    package: "redb",
    place: Place::Disk,
    appended: Survives::NOTHING,
    durable: Survives::ALL,
    checks: "nothing; after an unclean end XXH3 of each page",
    how: "Default cache; a transaction an append, or a batch, with `Durability::None`, which persists with the \
          next durable one, and `Durability::Immediate` where appends are durable; keys are `u64`.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::Append | Kind::AppendLong => Ok(stores::append::<Table>),
        Kind::Batches => Ok(stores::batches::<Table>),
        Kind::Durable(1) => Ok(stores::durable::<Table>),
        Kind::Durable(_) => Ok(stores::durable_shared::<Table>),
        Kind::Replay => Ok(stores::replay::<Table>),
        Kind::RandomRead => Ok(stores::random::<Table>),
        Kind::Reopen => Ok(stores::reopen::<Table>),
        Kind::FanOut(_) | Kind::Wake(_) => Err(NO_TAIL),
    }
}

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");

struct Table {
    db: Database,
    next: AtomicU64,
    durability: Durability,
}

impl Table {
    fn write(&self, payloads: &[&[u8]]) -> Result<()> {
        let first = self
            .next
            .fetch_add(payloads.len() as u64, Ordering::Relaxed);
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(self.durability)?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for (number, payload) in (first..).zip(payloads) {
                table.insert(number, *payload)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Store for Table {
    fn open(dir: &Path, promise: Promise) -> Result<Self> {
        Ok(Self {
            db: Database::create(dir.join("db"))?,
            next: AtomicU64::new(0),
            durability: match promise {
                Promise::Usual => Durability::None,
                Promise::Durable => Durability::Immediate,
            },
        })
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.write(&[payload])
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        self.write(payloads)
    }
}

impl Shared for Table {
    fn append_shared(&self, payload: &[u8]) -> Result<()> {
        self.write(&[payload])
    }
}

impl Replay for Table {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        let table = self.db.begin_read()?.open_table(RECORDS)?;
        for record in table.iter()? {
            read(record?.1.value());
        }
        Ok(())
    }
}

impl Random for Table {
    fn get(&mut self, number: u64, read: impl FnOnce(&[u8])) -> Result<()> {
        let table = self.db.begin_read()?.open_table(RECORDS)?;
        read(table.get(number)?.context("no such record")?.value());
        Ok(())
    }
}
