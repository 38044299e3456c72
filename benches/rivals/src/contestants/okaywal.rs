//! The crate `okaywal`: a write-ahead log whose every commit waits for the disk.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use okaywal::{
    Configuration, Entry, EntryId, LogManager, LogPosition, SegmentReader, WriteAheadLog,
};

use super::{Can, Contestant, Place, Survives};
use crate::stores::{self, Promise, Random, Replay, Shared, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "okaywal",
    package: "okaywal",
    place: Place::Disk,
    appended: Survives::ALL,
    durable: Survives::ALL,
    checks: "CRC-32C of each chunk",
    how: "64 MiB preallocated and no checkpoint, so that nothing is given back; one chunk an entry \
          for appends, many for filling. It replays when it opens, so its replay is a reopening that reads all.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::Durable(1) => Ok(stores::durable::<Wal>),
        Kind::Durable(_) => Ok(stores::durable_shared::<Wal>),
        Kind::Replay => Ok(stores::replay::<Wal>),
        Kind::RandomRead => Ok(stores::random::<Wal>),
        Kind::Reopen => Ok(stores::reopen::<Wal>),
        Kind::Append | Kind::AppendLong | Kind::Batches => Err("every commit waits for the disk"),
        Kind::FanOut(_) | Kind::Wake(_) => Err(super::NO_TAIL),
    }
}

const FILE_BYTES: u32 = 64 << 20;

struct Wal {
    /// Taken while it replays.
    wal: Option<WriteAheadLog>,
    config: Configuration,
    positions: Vec<LogPosition>,
}

impl Wal {
    fn wal(&self) -> Result<&WriteAheadLog> {
        self.wal.as_ref().context("could not be opened again")
    }
}

impl Store for Wal {
    fn open(dir: &Path, _promise: Promise) -> Result<Self> {
        let config = Configuration::default_for(dir)
            .preallocate_bytes(FILE_BYTES)
            .checkpoint_after_bytes(u64::MAX);
        let wal = config.clone().open(Recovered::default())?;
        Ok(Self {
            wal: Some(wal),
            config,
            positions: Vec::new(),
        })
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.append_shared(payload)
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        let wal = self.wal.as_ref().context("could not be opened again")?;
        let mut entry = wal.begin_entry()?;
        for payload in payloads {
            self.positions.push(entry.write_chunk(payload)?.position);
        }
        entry.commit()?;
        Ok(())
    }

    fn close(mut self) -> Result<()> {
        Ok(self
            .wal
            .take()
            .context("could not be opened again")?
            .shutdown()?)
    }
}

impl Shared for Wal {
    fn append_shared(&self, payload: &[u8]) -> Result<()> {
        let mut entry = self.wal()?.begin_entry()?;
        entry.write_chunk(payload)?;
        entry.commit()?;
        Ok(())
    }
}

impl Replay for Wal {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        self.wal
            .take()
            .context("could not be opened again")?
            .shutdown()?;
        let recovered = Recovered::default();
        self.wal = Some(self.config.clone().open(recovered.clone())?);
        let mut entries = recovered.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(chunks) = entries.pop_front() {
            chunks.iter().for_each(|chunk| read(chunk));
        }
        Ok(())
    }
}

impl Random for Wal {
    fn get(&mut self, number: u64, read: impl FnOnce(&[u8])) -> Result<()> {
        let mut reader = self.wal()?.read_at(self.positions[number as usize])?;
        let mut payload = vec![0; reader.chunk_length() as usize];
        reader.read_exact(&mut payload)?;
        ensure!(reader.crc_is_valid()?, "record {number} is damaged");
        read(&payload);
        Ok(())
    }
}

/// Keeps the entries that are there when the log is opened.
#[derive(Clone, Debug, Default)]
struct Recovered(Arc<Mutex<VecDeque<Vec<Vec<u8>>>>>);

impl LogManager for Recovered {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        if let Some(chunks) = entry.read_all_chunks()? {
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            entries.push_back(chunks);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last_checkpointed_id: EntryId,
        _checkpointed_entries: &mut SegmentReader,
        _wal: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}
