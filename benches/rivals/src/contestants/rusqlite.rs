//! SQLite, through the crate `rusqlite`: a table in write-ahead-log mode.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use rusqlite::{Connection, params};

use super::{Can, Contestant, NO_TAIL, Place, Survives};
use crate::stores::{self, Promise, Random, Replay, Shared, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "rusqlite",
    package: "rusqlite",
    place: Place::Disk,
    appended: Survives::KILL,
    durable: Survives::ALL,
    checks: "nothing; of its write-ahead log a checksum",
    how: "The bundled SQLite, `journal_mode = WAL`, `synchronous = NORMAL`, and `FULL` where appends are durable; \
          cached statements, a transaction for a batch; one connection, under a mutex where threads append.",
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

const INSERT: &str = "INSERT INTO records (payload) VALUES (?1)";

struct Table(Mutex<Connection>);

impl Table {
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Table {
    fn open(dir: &Path, promise: Promise) -> Result<Self> {
        let connection = Connection::open(dir.join("db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = match promise {
            Promise::Usual => "NORMAL",
            Promise::Durable => "FULL",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS records (number INTEGER PRIMARY KEY, payload BLOB NOT NULL)",
        )?;
        Ok(Self(Mutex::new(connection)))
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.append_shared(payload)
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for payload in payloads {
                insert.execute([payload])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Shared for Table {
    fn append_shared(&self, payload: &[u8]) -> Result<()> {
        self.lock().prepare_cached(INSERT)?.execute([payload])?;
        Ok(())
    }
}

impl Replay for Table {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        let connection = self.lock();
        let mut select =
            connection.prepare_cached("SELECT payload FROM records ORDER BY number")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            read(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    }
}

impl Random for Table {
    fn get(&mut self, number: u64, read: impl FnOnce(&[u8])) -> Result<()> {
        let connection = self.lock();
        // Its numbers begin with 1.
        let mut select =
            connection.prepare_cached("SELECT payload FROM records WHERE number = ?1")?;
        let mut rows = select.query(params![number as i64 + 1])?;
        let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        read(row.get_ref(0)?.as_blob()?);
        Ok(())
    }
}
