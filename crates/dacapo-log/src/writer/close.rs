//! Closing: the last flush, and the clean end in `meta`.

use std::sync::PoisonError;

use super::{Custody, Writer};
use crate::error::SyncError;
use crate::format::CleanEnd;
use crate::meta::MetaFile;
use crate::segment;

impl Writer {
    /// Flushes, marks the log as cleanly closed, and gives up its lock. Does nothing the second time.
    pub(crate) fn close(&self) -> Result<(), SyncError> {
        // With the lock: an append that was let in is done, and is flushed below.
        self.appender().closing = true;
        // Without custody: the threads may be waiting for it, or wake somebody who does.
        self.keeper.stop();
        self.flusher.stop();
        let closed = self.close_in_custody();
        self.shared.close();
        closed
    }

    fn close_in_custody(&self) -> Result<(), SyncError> {
        // A compaction gives up what it is at, without a pause: the keeper was stopped.
        let _rewriting = self
            .rewriting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut custody = self.custody.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Custody { mut meta, lock }) = custody.take() else {
            return Ok(());
        };
        let closed = self.close_cleanly(&mut meta);
        self.preparer.stop();
        self.shared.stop_indexing();
        drop(lock);
        closed
    }

    fn close_cleanly(&self, meta: &mut MetaFile) -> Result<(), SyncError> {
        let _turn = self.turns.take(|| false);
        // With the turn: a flush that was at work is done, and may have failed.
        self.check_poison()?;
        self.leave_spoiled_segment()?;
        let next = self.sync_appended(false)?;
        let appender = self.appender();
        let (base, end_position) = match &appender.segment {
            Some(active) => (active.segment().base(), active.writer.position()),
            None => (next, 0),
        };
        let end_position = u32::try_from(end_position).expect("at most 1 GiB");
        let clean = CleanEnd {
            base,
            end_position,
            next,
        };
        let updated = meta.update(|meta| {
            meta.clean = Some(clean);
            meta.durable = next;
        });
        updated.map_err(|cause| self.poisoned(cause))
    }

    /// A segment in which a write has failed is not gone on in after the next opening either.
    fn leave_spoiled_segment(&self) -> Result<(), SyncError> {
        let mut appender = self.appender();
        let appender = &mut *appender;
        if !appender
            .segment
            .as_ref()
            .is_some_and(|active| active.writer.is_spoiled())
        {
            return Ok(());
        }
        // Without its footer the log has no clean end, and the next opening recovers it.
        self.seal(appender).map_err(|cause| self.poisoned(cause))?;
        if let Some(spoiled) = appender.segment.take() {
            if spoiled.segment().base() == appender.next {
                let path = segment::path(&self.shared.dir, appender.next);
                self.shared
                    .disk
                    .remove(&path)
                    .map_err(|cause| self.poisoned(cause))?;
                appender.names_changed = true;
            }
            spoiled.segment().seal(appender.next);
        }
        Ok(())
    }
}
