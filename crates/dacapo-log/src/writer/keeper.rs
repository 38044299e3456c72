//! The log's maintenance thread: what it does is done off everybody else's, at its own time.
//!
//! It decides when; what is dropped, `retention.rs` says, and `prune.rs` drops it; what is rewritten,
//! `compaction` says, and `compact.rs` puts it in place.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Writer;
use crate::clock;
use crate::compaction::{CompactError, Compaction};
use crate::error::{FileError, SyncError};
use crate::offset::Offset;
use crate::retention::{Retention, Rule};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How long the thread sleeps if nobody wakes it, at least and at most.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How often it looks in the time that records are kept.
const LOOKS_PER_AGE: u32 = 16;

/// What the thread is to keep to, and what it was told.
#[derive(Debug)]
pub(super) struct Keeper {
    retention: Retention,
    compaction: Option<Compaction>,
    interval: Duration,
    orders: Mutex<Orders>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Why the last compaction was given up, or what it has left out.
    failure: Mutex<Option<CompactError>>,
}

#[derive(Debug, Default)]
struct Orders {
    /// Look at once.
    woken: bool,
    stopped: bool,
    /// There may be something to compact that was not there before.
    is_compactable: bool,
    /// The newest deletion of a topic, until it is durable.
    deletion: Option<Offset>,
}

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There will be no more.
    Stopped,
    /// There may be something to do.
    Woken,
    /// It is time.
    Due,
}

impl Keeper {
    pub(super) fn new(retention: Retention, compaction: Option<Compaction>) -> Self {
        let by_age = retention.age().map(|age| age / LOOKS_PER_AGE);
        let interval = by_age.map_or(INTERVAL_MAX, |by_age| {
            by_age.clamp(INTERVAL_MIN, INTERVAL_MAX)
        });
        Self {
            retention,
            compaction,
            interval,
            orders: Mutex::default(),
            changed: Condvar::new(),
            thread: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All before `durable` is so now; `rolled`: and a segment that was filled.
    pub(super) fn flushed(&self, durable: Offset, rolled: bool) {
        let mut orders = self.orders();
        let deleted = orders.deletion.is_some_and(|deletion| deletion < durable);
        if deleted {
            orders.deletion = None;
        }
        // Only now can what was filled or deleted be dropped.
        if rolled || deleted {
            orders.is_compactable = true;
            orders.woken = true;
            self.changed.notify_one();
        }
    }

    /// The deletion of a topic was appended, and is waited for to become durable.
    pub(super) fn deleted(&self, deletion: Offset) {
        let mut orders = self.orders();
        orders.deletion = orders.deletion.max(Some(deletion));
    }

    /// Waits until `due`, and no longer than until it is woken or stopped.
    pub(super) fn wait_until(&self, due: Duration) -> Turn {
        let mut orders = self.orders();
        loop {
            if orders.stopped {
                return Turn::Stopped;
            }
            if std::mem::take(&mut orders.woken) {
                return Turn::Woken;
            }
            let wait = due.saturating_sub(clock::uptime());
            if wait.is_zero() {
                return Turn::Due;
            }
            let waited = self.changed.wait_timeout(orders, wait);
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until it is time to look; `false` when there will be no more.
    fn next_look(&self) -> bool {
        self.wait_until(clock::uptime() + self.interval) != Turn::Stopped
    }

    /// Whether there may be something to compact that was not there the last time.
    fn takes_up_compacting(&self) -> bool {
        std::mem::take(&mut self.orders().is_compactable)
    }

    /// Why the last compaction in the background has not done all that it was to do.
    pub(super) fn failure(&self) -> MutexGuard<'_, Option<CompactError>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread, after the look that it is at.
    pub(super) fn stop(&self) {
        self.orders().stopped = true;
        self.changed.notify_one();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = thread.take();
        // As the flusher's thread, it may be the one that drops the log's last handle.
        if let Some(thread) = thread.filter(|t| t.thread().id() != thread::current().id()) {
            // A panic there was printed there; the log is closed all the same.
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Starts the thread, if there is something for it to do.
    pub(crate) fn start_keeping(writer: Arc<Self>) -> Result<(), FileError> {
        let keeper = &writer.keeper;
        if keeper.retention.is_unlimited() && keeper.compaction.is_none() {
            return Ok(());
        }
        let keeping = Arc::clone(&writer);
        let keep = move || keeping.keep();
        let thread = thread::Builder::new()
            .name("dacapo-keep".to_owned())
            .spawn(keep)
            .map_err(|e| FileError::new("start a thread for", &writer.shared.dir, e))?;
        let mut running = writer
            .keeper
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *running = Some(thread);
        Ok(())
    }

    /// What the thread does.
    fn keep(&self) {
        while self.keeper.next_look() {
            self.retain_in_background();
            let Some(compaction) = &self.keeper.compaction else {
                continue;
            };
            // Anew, where something has come meanwhile.
            while self.keeper.takes_up_compacting() {
                let failure = match self.compact_in_background(compaction) {
                    // The log is closed, or poisoned: that is told to all who append or wait.
                    Err(CompactError::Refused(_)) => break,
                    compacted => compacted.err(),
                };
                *self.keeper.failure() = failure;
            }
        }
    }

    fn retain_in_background(&self) {
        if self.retain_silently().is_err() {
            // It has poisoned the log, and is told to all who append or wait.
            self.shared.durable.wake();
        }
    }

    /// As the options say. After a failure, who calls wakes those who wait for durability, without a lock.
    pub(super) fn retain_silently(&self) -> Result<(), SyncError> {
        if !self.keeper.retention.is_unlimited() {
            self.prune_in_custody(Rule::Retention(&self.keeper.retention))?;
        }
        Ok(())
    }

    /// A topic was deleted, by the record at this offset.
    pub(crate) fn note_deletion(&self, deletion: Offset) {
        self.keeper.deleted(deletion);
        // A flush may have come before the note.
        self.keeper.flushed(self.shared.durable.get(), false);
    }

    /// See [`Status::compaction_failure`](crate::Status::compaction_failure).
    pub(crate) fn compaction_failure(&self) -> Option<CompactError> {
        self.keeper.failure().clone()
    }
}

#[cfg(all(test, not(any(simulation, loom))))]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_two_looks_follows_the_age() {
        let interval = |retention: Retention| Keeper::new(retention, None).interval.as_secs();
        let of_age = |seconds| Retention::default().age_max(Duration::from_secs(seconds));
        assert_eq!(interval(Retention::default().bytes_max(1)), 60);
        assert_eq!(interval(of_age(0)), 1);
        assert_eq!(interval(of_age(160)), 10);
        assert_eq!(interval(of_age(u64::MAX)), 60);
    }

    fn looking_every(interval: Duration) -> Keeper {
        Keeper {
            interval,
            ..Keeper::new(Retention::default(), None)
        }
    }

    #[test]
    fn it_looks_when_it_is_woken_when_it_is_time_and_not_once_it_is_stopped() {
        let keeper = looking_every(Duration::from_secs(3600));
        keeper.flushed(Offset::new(5), true);
        assert!(keeper.next_look());
        keeper.flushed(Offset::new(9), true);
        keeper.stop();
        assert!(!keeper.next_look());

        let keeper = looking_every(Duration::from_millis(1));
        assert!(keeper.next_look());
        assert!(keeper.next_look());
    }

    #[test]
    fn it_compacts_when_a_segment_or_a_deletion_has_become_durable_and_once_for_each() {
        let keeper = looking_every(Duration::from_millis(1));
        assert_eq!(keeper.wait_until(Duration::ZERO), Turn::Due);
        assert!(!keeper.takes_up_compacting());

        keeper.flushed(Offset::new(5), true);
        assert_eq!(keeper.wait_until(Duration::ZERO), Turn::Woken);
        assert!(keeper.takes_up_compacting() && !keeper.takes_up_compacting());

        keeper.deleted(Offset::new(7));
        keeper.deleted(Offset::new(6));
        keeper.flushed(Offset::new(7), false);
        assert_eq!(keeper.wait_until(Duration::ZERO), Turn::Due);
        assert!(!keeper.takes_up_compacting());
        keeper.flushed(Offset::new(8), false);
        assert_eq!(keeper.wait_until(Duration::ZERO), Turn::Woken);
        assert!(keeper.takes_up_compacting());
        keeper.flushed(Offset::new(9), false);
        assert_eq!(keeper.wait_until(Duration::ZERO), Turn::Due);
    }
}
