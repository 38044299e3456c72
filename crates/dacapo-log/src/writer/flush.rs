//! Flushing: group commit, and the durable watermark.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Writer;
use super::append::SMALL_FLUSH_BYTES;
use crate::error::{FileError, SyncError};
use crate::offset::Offset;
use crate::sync::thread;

/// On whose behalf a flush is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlushBy {
    /// Of one who waits for it.
    Caller,
    /// Of the interval, or of those who wait for the durable watermark.
    Background,
}

impl Writer {
    /// Makes everything appended so far durable, and returns the offset before which all is.
    ///
    /// One flush runs at a time; those who wait for it find their records covered by it, or by
    /// the next one, which covers all of them: group commit.
    pub(crate) fn flush(&self, by: FlushBy) -> Result<Offset, SyncError> {
        let target = self.shared.visible.get();
        if self.shared.durable.get() >= target {
            return Ok(self.shared.durable.get());
        }
        let is_done = || self.shared.durable.get() >= target;
        let Some(turn) = self.turns.take(is_done) else {
            return Ok(self.shared.durable.get());
        };
        turn.gather(|| self.shared.visible.get().since(self.shared.durable.get()));
        let flushed = self.flush_in_turn(by);
        drop(turn);
        // Without the turn: a waker is code of the caller's.
        match &flushed {
            Ok(_) => {
                if self.rolled.swap(false, Relaxed) {
                    self.shared.announce_roll();
                }
                self.shared.announce(&self.shared.durable);
            }
            Err(_) => self.shared.durable.wake(),
        }
        flushed
    }

    fn flush_in_turn(&self, by: FlushBy) -> Result<Offset, SyncError> {
        self.check_poison()?;
        let is_awaited = by == FlushBy::Caller || self.shared.durable.is_waited_for();
        let durable = self.sync_appended(is_awaited)?;
        self.mark(durable)?;
        Ok(durable)
    }

    /// Says inside the log how far the flush got.
    fn mark(&self, durable: Offset) -> Result<(), SyncError> {
        let mut appender = self.appender();
        let appender = &mut *appender;
        let Some(active) = &mut appender.segment else {
            return Ok(());
        };
        let marked = active
            .writer
            .mark(appender.next, durable, appender.last_timestamp_micros);
        marked.map_err(|cause| self.poisoned(cause))
    }

    /// Syncs all that was appended, oldest first, and raises the durable watermark, which the caller
    /// announces. With the turn.
    pub(super) fn sync_appended(&self, is_awaited: bool) -> Result<Offset, SyncError> {
        let mut appender = self.appender();
        let target = appender.next;
        appender.flush_scheduled = false;
        let flushed_bytes = std::mem::take(&mut appender.unflushed_bytes);
        appender.flushes_are_awaited = is_awaited && flushed_bytes <= SMALL_FLUSH_BYTES;
        let sealed = std::mem::take(&mut appender.unsynced);
        let names_changed = std::mem::take(&mut appender.names_changed);
        let active = match &mut appender.segment {
            Some(active) => {
                active.writer.pad().map_err(|cause| self.poisoned(cause))?;
                Some(Arc::clone(active.writer.file()))
            }
            None => None,
        };
        drop(appender);

        let sync = || {
            sealed.iter().try_for_each(|file| file.sync_data())?;
            if names_changed {
                self.names.sync_names()?;
            }
            active.map_or(Ok(()), |file| file.sync_data())
        };
        let synced = sync();

        let appender = self.appender();
        synced.map_err(|cause| self.poisoned(cause))?;
        self.check_poison()?;
        self.shared.durable.raise(target);
        drop(appender);
        self.keeper.flushed(target, !sealed.is_empty());
        Ok(target)
    }

    /// Starts the thread that flushes in the background.
    pub(crate) fn start_flushing(writer: Arc<Self>) -> Result<(), FileError> {
        let flushing = Arc::clone(&writer);
        let flush = move || {
            while flushing.flusher.next_order() {
                // A failure has poisoned the log, and is told to all who append or wait.
                let _ = flushing.flush(FlushBy::Background);
            }
        };
        let thread = thread::Builder::new()
            .name("dacapo-flush".to_owned())
            .spawn(flush);
        let dir = &writer.shared.dir;
        writer
            .flusher
            .runs_on(thread.map_err(|e| FileError::new("start a thread for", dir, e))?);
        Ok(())
    }
}
