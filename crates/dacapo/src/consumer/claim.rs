//! A consumer's name, taken: there is one of each name at a time, and its hold on the log.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dacapo_log::Offset;

use super::Holds;
use crate::error::ConsumeError;

/// By the log's directory. Of several processes, one at a time has the cursors.
static TAKEN: Mutex<Option<HashSet<(PathBuf, String)>>> = Mutex::new(None);

fn taken() -> MutexGuard<'static, Option<HashSet<(PathBuf, String)>>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Claim {
    key: (PathBuf, String),
    holds: Arc<Holds>,
}

impl Claim {
    pub(super) fn take(dir: &Path, name: &str, holds: &Arc<Holds>) -> Result<Self, ConsumeError> {
        // The directory is open: it has such a path.
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let key = (dir, name.to_owned());
        match taken().get_or_insert_default().insert(key.clone()) {
            true => Ok(Self {
                key,
                holds: Arc::clone(holds),
            }),
            false => Err(ConsumeError::InUse {
                name: name.to_owned(),
            }),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.key.1
    }

    /// Where the cursor holds back retention, it holds from here on.
    pub(super) fn hold_from(&self, offset: Offset) {
        self.holds.move_to(self.name(), offset);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        taken().get_or_insert_default().remove(&self.key);
    }
}
