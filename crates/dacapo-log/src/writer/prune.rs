//! Giving the oldest segments back.

use std::sync::PoisonError;

use super::Writer;
use crate::error::SyncError;
use crate::guard::{self, Guard};
use crate::index;
use crate::offset::Offset;
use crate::segment;
use crate::topics;

impl Writer {
    /// Drops the segments that hold nothing but records before `before`; returns the oldest record
    /// that is left.
    pub(crate) fn prune(&self, before: Offset) -> Result<Offset, SyncError> {
        let mut custody = self.custody.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(custody) = custody.as_mut() else {
            return Err(SyncError::Closed);
        };
        self.check_poison()?;
        // A power cut must not leave a log that ends before it begins.
        let until = before.min(self.shared.durable.get());
        let dropped = self.shared.segments.sealed_before(until);
        let Some(&(_, first)) = dropped.last() else {
            return Ok(self.shared.oldest());
        };
        if !guard::stands(Guard::MetaBeforeUnlink) {
            self.unlink(&dropped);
        }
        let updated = custody.meta.update(|meta| {
            meta.first = first;
            meta.durable = meta.durable.max(first);
        });
        updated.map_err(|cause| self.poisoned(cause))?;
        // Readers that stand in a dropped segment keep it mapped, and finish with it.
        self.shared.raise_oldest(first);
        self.shared.segments.remove_before(first);
        self.unlink(&dropped);
        Ok(first)
    }

    /// Best effort: what stays is removed by the next opening.
    fn unlink(&self, dropped: &[(Offset, Offset)]) {
        let (disk, dir) = (&self.shared.disk, &self.shared.dir);
        for &(base, _) in dropped {
            let _ = disk.remove(&topics::path(dir, base));
            let _ = disk.remove(&index::path(dir, base));
            let _ = disk.remove(&segment::path(dir, base));
        }
    }
}
