//! Giving the oldest segments back.

use std::sync::PoisonError;

use super::Writer;
use crate::error::SyncError;
use crate::guard::{self, Guard};
use crate::index;
use crate::offset::Offset;
use crate::retention::{Pruning, Rule};
use crate::segment;
use crate::topics;

impl Writer {
    /// Drops what is to go by `rule`, as far as nothing keeps it.
    pub(crate) fn prune(&self, rule: Rule<'_>) -> Result<Pruning, SyncError> {
        let pruned = self.prune_in_custody(rule);
        // Whoever waited for a log that is closed was woken by the closing; and it may be one of them
        // that calls, from within its waker.
        if let Err(SyncError::Poisoned { .. }) = &pruned {
            // Without custody: a waker is code of the caller's.
            self.shared.durable.wake();
        }
        pruned
    }

    /// As [`prune`](Self::prune); after a failure, who calls wakes those who wait for durability.
    pub(super) fn prune_in_custody(&self, rule: Rule<'_>) -> Result<Pruning, SyncError> {
        let mut custody = self.custody.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(custody) = custody.as_mut() else {
            return Err(SyncError::Closed);
        };
        self.check_poison()?;
        let shared = &self.shared;
        let pruning = shared
            .holds
            .decide(|lowest_hold| shared.plan_pruning(rule, lowest_hold));
        if pruning.segments == 0 {
            return Ok(pruning);
        }
        let first = pruning.oldest;
        let dropped = self.shared.segments.bases_before(first);
        if !guard::stands(Guard::MetaBeforeUnlink) {
            self.unlink(&dropped);
        }
        let updated = custody.meta.update(|meta| {
            meta.first = first;
            meta.durable = meta.durable.max(first);
        });
        if let Err(cause) = updated {
            // With the lock: nothing is acknowledged afterwards.
            let _appender = self.appender();
            return Err(self.poisoned(cause));
        }
        // Readers that stand in a dropped segment keep it mapped, and finish with it.
        self.shared.raise_oldest(first);
        self.shared.segments.remove_before(first);
        self.unlink(&dropped);
        Ok(pruning)
    }

    /// Best effort: what stays is removed by the next opening.
    fn unlink(&self, dropped: &[Offset]) {
        let (disk, dir) = (&self.shared.disk, &self.shared.dir);
        for &base in dropped {
            let _ = disk.remove(&topics::path(dir, base));
            let _ = disk.remove(&index::path(dir, base));
            let _ = disk.remove(&segment::path(dir, base));
        }
    }
}
