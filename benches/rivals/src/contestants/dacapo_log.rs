//! The engine, as an application uses it that knows that its log will be large.

use std::path::Path;

use anyhow::Result;
use dacapo_log::{Log, Offset, Start, Tailer};

use super::{Can, Contestant, Place, Survives};
use crate::channels::{self, Channel};
use crate::stores::{self, Promise, Random, Replay, Shared, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "dacapo-log",
    package: "dacapo-log",
    place: Place::Ours,
    appended: Survives {
        kill: "yes",
        power_cut: "but the last 1 s",
    },
    durable: Survives::ALL,
    checks: "CRC-32 of each record",
    how: "Default options but `segment_bytes_min(64 << 20)`; `append`, `append_batch`, `append` and `sync`, \
          borrowed records (`next_ref`, `try_next_ref`), `get`.",
    can,
};

fn can(kind: &Kind) -> Can {
    Ok(match kind {
        Kind::Append | Kind::AppendLong => stores::append::<Engine>,
        Kind::Batches => stores::batches::<Engine>,
        Kind::Durable(1) => stores::durable::<Engine>,
        Kind::Durable(_) => stores::durable_shared::<Engine>,
        Kind::Replay => stores::replay::<Engine>,
        Kind::RandomRead => stores::random::<Engine>,
        Kind::Reopen => stores::reopen::<Engine>,
        Kind::FanOut(_) => channels::fan_out::<Engine>,
        Kind::Wake(_) => channels::wake::<Engine>,
    })
}

struct Engine {
    log: Log,
    promise: Promise,
}

impl Store for Engine {
    fn open(dir: &Path, promise: Promise) -> Result<Self> {
        let log = Log::options().segment_bytes_min(64 << 20).open(dir)?;
        Ok(Self { log, promise })
    }

    #[inline]
    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.append_shared(payload)
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        self.log.append_batch(payloads)?;
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(self.log.close()?)
    }
}

impl Shared for Engine {
    #[inline]
    fn append_shared(&self, payload: &[u8]) -> Result<()> {
        self.log.append(payload)?;
        if self.promise == Promise::Durable {
            self.log.sync()?;
        }
        Ok(())
    }
}

impl Replay for Engine {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        let mut replay = self.log.replay(Start::Oldest);
        while let Some(record) = replay.next_ref() {
            read(record?.payload());
        }
        Ok(())
    }
}

impl Random for Engine {
    fn get(&mut self, number: u64, read: impl FnOnce(&[u8])) -> Result<()> {
        read(self.log.get(Offset::new(number))?.payload());
        Ok(())
    }
}

impl Channel for Engine {
    type Receiver = Tailer;

    fn open(dir: &Path, _messages: u64) -> Result<Self> {
        let engine = <Self as Store>::open(dir, Promise::Usual)?;
        engine.log.append(b"makes the first file")?;
        Ok(engine)
    }

    fn receiver(&mut self) -> Result<Tailer> {
        Ok(self.log.tail(Start::Latest))
    }

    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.log.append(payload)?;
        Ok(())
    }

    async fn receive(tailer: &mut Tailer, mut read: impl FnMut(&[u8]) + Send) -> Result<()> {
        loop {
            if let Some(record) = tailer.try_next_ref()? {
                read(record.payload());
                return Ok(());
            }
            let arrival = tailer.arrival();
            // Look again: a record may have landed before it began to listen.
            if let Some(record) = tailer.try_next_ref()? {
                read(record.payload());
                return Ok(());
            }
            arrival.await;
        }
    }
}
