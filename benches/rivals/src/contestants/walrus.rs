//! The crate `walrus-rust`: topics in blocks of 10 MB, written with `pwrite`.

use std::path::Path;

use anyhow::{Context, Result};
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use super::{Can, Contestant, NO_TAIL, Place, Survives};
use crate::stores::{self, Promise, Replay, Shared, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "walrus-rust",
    package: "walrus-rust",
    place: Place::Disk,
    appended: Survives {
        kill: "yes",
        power_cut: "but the last 200 ms",
    },
    durable: Survives::ALL,
    checks: "FNV-1a of each record",
    how: "One topic, the default backend, `AtLeastOnce` with 1,000, synced every 200 ms as by default, and \
          `SyncEach` where appends are durable; reads with `batch_read_for_topic` of up to 2,000 records. Reading \
          consumes, so a replay has no warm-up.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::Append | Kind::AppendLong => Ok(stores::append::<Topic>),
        Kind::Batches => Ok(stores::batches::<Topic>),
        Kind::Durable(1) => Ok(stores::durable::<Topic>),
        Kind::Durable(_) => Ok(stores::durable_shared::<Topic>),
        Kind::Replay => Ok(stores::replay_once::<Topic>),
        Kind::Reopen => Ok(stores::reopen::<Topic>),
        Kind::RandomRead => Err("a topic is read in its order, and once"),
        Kind::FanOut(_) | Kind::Wake(_) => Err(NO_TAIL),
    }
}

const TOPIC: &str = "records";
/// More than the 2,000 records that it reads at once take: 0.2.0 skips the rest of a full block where a
/// smaller bound ends inside it, and goes on in the block that is written.
const READ_BYTES: usize = 4 << 20;

struct Topic(Walrus);

impl Store for Topic {
    /// It takes a name, and puts the directory of that name where `WALRUS_DATA_DIR` says.
    fn open(dir: &Path, promise: Promise) -> Result<Self> {
        let name = dir.file_name().and_then(|name| name.to_str());
        let walrus = Walrus::with_consistency_and_schedule_for_key(
            name.context("a directory with a name")?,
            ReadConsistency::AtLeastOnce {
                persist_every: 1_000,
            },
            match promise {
                Promise::Usual => FsyncSchedule::Milliseconds(200),
                Promise::Durable => FsyncSchedule::SyncEach,
            },
        )?;
        Ok(Self(walrus))
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.append_shared(payload)
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        Ok(self.0.batch_append_for_topic(TOPIC, payloads)?)
    }
}

impl Shared for Topic {
    fn append_shared(&self, payload: &[u8]) -> Result<()> {
        Ok(self.0.append_for_topic(TOPIC, payload)?)
    }
}

impl Replay for Topic {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        loop {
            let entries = self.0.batch_read_for_topic(TOPIC, READ_BYTES, true)?;
            if entries.is_empty() {
                return Ok(());
            }
            entries.iter().for_each(|entry| read(&entry.data));
        }
    }
}
