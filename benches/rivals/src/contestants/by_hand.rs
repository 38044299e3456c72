//! The group commit that one writes without a library: who finds nobody syncing writes and syncs for all.

use std::fs::File;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::limit::prewritten;
use super::{Can, Contestant, Place, Survives};
use crate::stores::{self, Promise, Shared, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "group commit by hand",
    package: "",
    place: Place::Disk,
    appended: Survives::NOTHING,
    durable: Survives::ALL,
    checks: "CRC-32 of each record",
    how: "60 lines: records with a header and a CRC-32 gather in a buffer under a mutex; who finds nobody \
          syncing writes the buffer with `pwrite` on blocks written before, and calls `fdatasync` for all.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::Durable(1) => Ok(stores::durable::<GroupCommit>),
        Kind::Durable(_) => Ok(stores::durable_shared::<GroupCommit>),
        _ => Err("made for durable appends only"),
    }
}

const FILE_BYTES: u64 = 64 << 20;

struct GroupCommit {
    file: File,
    state: Mutex<State>,
    synced: Condvar,
}

#[derive(Default)]
struct State {
    gathered: Vec<u8>,
    /// Bytes ever appended, and bytes that are safe.
    appended: u64,
    durable: u64,
    syncing: bool,
    failed: bool,
}

impl GroupCommit {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for GroupCommit {
    fn open(dir: &Path, _promise: Promise) -> Result<Self> {
        Ok(Self {
            file: prewritten(dir, FILE_BYTES)?,
            state: Mutex::default(),
            synced: Condvar::new(),
        })
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.append_shared(payload)
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        payloads.iter().try_for_each(|payload| self.append(payload))
    }
}

impl Shared for GroupCommit {
    fn append_shared(&self, payload: &[u8]) -> Result<()> {
        use std::os::unix::fs::FileExt;

        let mut state = self.lock();
        let sum = crc32fast::hash(payload);
        state.gathered.extend((payload.len() as u32).to_le_bytes());
        state.gathered.extend(sum.to_le_bytes());
        state.gathered.extend(payload);
        state.appended += 8 + payload.len() as u64;
        let mine = state.appended;
        while state.durable < mine {
            anyhow::ensure!(!state.failed, "another thread could not sync");
            if state.syncing {
                let waited = self.synced.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let group = std::mem::take(&mut state.gathered);
            let (at, end) = (state.durable % (FILE_BYTES / 2), state.appended);
            state.syncing = true;
            drop(state);
            let written = self.file.write_all_at(&group, at);
            let synced = written.and_then(|()| self.file.sync_data());
            state = self.lock();
            state.syncing = false;
            state.failed = synced.is_err();
            self.synced.notify_all();
            synced?;
            state.durable = end;
        }
        Ok(())
    }
}
