//! The crate `commitlog`: segment files written with `write`, and an index in mapped files.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadLimit};

use super::{Can, Contestant, NO_TAIL, Place, Survives};
use crate::stores::{self, Promise, Random, Replay, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "commitlog",
    package: "commitlog",
    place: Place::Disk,
    appended: Survives::KILL,
    durable: Survives::KILL,
    checks: "CRC-32C of each record",
    how: "Default options; `append_msg`, and for batches one `MessageBuf` used again; reads of up to 1 MiB.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::Append | Kind::AppendLong => Ok(stores::append::<Log>),
        Kind::Batches => Ok(stores::batches::<Log>),
        Kind::Replay => Ok(stores::replay::<Log>),
        Kind::RandomRead => Ok(stores::random::<Log>),
        Kind::Reopen => Ok(stores::reopen::<Log>),
        Kind::Durable(_) => Err("its `flush` syncs the index, and not the records"),
        Kind::FanOut(_) | Kind::Wake(_) => Err(NO_TAIL),
    }
}

struct Log {
    log: CommitLog,
    batch: MessageBuf,
    record_bytes: usize,
}

impl Store for Log {
    fn open(dir: &Path, _promise: Promise) -> Result<Self> {
        Ok(Self {
            log: CommitLog::new(LogOptions::new(dir))?,
            batch: MessageBuf::default(),
            record_bytes: 0,
        })
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.log.append_msg(payload)?;
        Ok(())
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        self.batch.clear();
        for payload in payloads {
            let pushed = self.batch.push(payload);
            pushed.map_err(|error| anyhow!("{error:?}"))?;
        }
        self.record_bytes = self.batch.bytes().len() / payloads.len();
        self.log.append(&mut self.batch)?;
        Ok(())
    }

    fn close(mut self) -> Result<()> {
        Ok(self.log.flush()?)
    }
}

impl Replay for Log {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        let mut next = 0;
        loop {
            let messages = self.log.read(next, ReadLimit::max_bytes(1 << 20))?;
            if messages.is_empty() {
                return Ok(());
            }
            for message in messages.iter() {
                read(message.payload());
                next = message.offset() + 1;
            }
        }
    }
}

impl Random for Log {
    fn get(&mut self, number: u64, read: impl FnOnce(&[u8])) -> Result<()> {
        // A byte more than a record: 0.2.0 finds the last one only with room to spare.
        let limit = ReadLimit::max_bytes(self.record_bytes + 1);
        let messages = self.log.read(number, limit)?;
        read(messages.iter().next().context("no such record")?.payload());
        Ok(())
    }
}
