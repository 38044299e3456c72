//! The log's maintenance thread: what it does is done off everybody else's, at its own time.
//!
//! It decides when; what is dropped, `retention.rs` says, and `prune.rs` drops it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Writer;
use crate::clock;
use crate::error::FileError;
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
    interval: Duration,
    orders: Mutex<Orders>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Orders {
    /// Look at once.
    woken: bool,
    stopped: bool,
}

impl Keeper {
    pub(super) fn new(retention: Retention) -> Self {
        let by_age = retention.age().map(|age| age / LOOKS_PER_AGE);
        let interval = by_age.map_or(INTERVAL_MAX, |by_age| {
            by_age.clamp(INTERVAL_MIN, INTERVAL_MAX)
        });
        Self::looking_every(interval, retention)
    }

    fn looking_every(interval: Duration, retention: Retention) -> Self {
        Self {
            retention,
            interval,
            orders: Mutex::default(),
            changed: Condvar::new(),
            thread: Mutex::default(),
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be something to drop.
    pub(super) fn wake(&self) {
        self.orders().woken = true;
        self.changed.notify_one();
    }

    /// Waits until it is time to look; `false` when there will be no more.
    fn next_look(&self) -> bool {
        let due = clock::uptime() + self.interval;
        let mut orders = self.orders();
        loop {
            if orders.stopped {
                return false;
            }
            let wait = due.saturating_sub(clock::uptime());
            if orders.woken || wait.is_zero() {
                orders.woken = false;
                return true;
            }
            let waited = self.changed.wait_timeout(orders, wait);
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
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
        if writer.keeper.retention.is_unlimited() {
            return Ok(());
        }
        let keeping = Arc::clone(&writer);
        let keep = move || {
            while keeping.keeper.next_look() {
                // A failure has poisoned the log, and is told to all who append or wait.
                let _ = keeping.prune(Rule::Retention(&keeping.keeper.retention));
            }
        };
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
}

#[cfg(all(test, not(any(simulation, loom))))]
mod tests {
    use super::*;

    #[test]
    fn the_time_between_two_looks_follows_the_age() {
        let interval = |retention: Retention| Keeper::new(retention).interval.as_secs();
        let of_age = |seconds| Retention::default().age_max(Duration::from_secs(seconds));
        assert_eq!(interval(Retention::default().bytes_max(1)), 60);
        assert_eq!(interval(of_age(0)), 1);
        assert_eq!(interval(of_age(160)), 10);
        assert_eq!(interval(of_age(u64::MAX)), 60);
    }

    #[test]
    fn it_looks_when_it_is_woken_when_it_is_time_and_not_once_it_is_stopped() {
        let keeper = Keeper::looking_every(Duration::from_secs(3600), Retention::default());
        keeper.wake();
        assert!(keeper.next_look());
        keeper.wake();
        keeper.stop();
        assert!(!keeper.next_look());

        let keeper = Keeper::looking_every(Duration::from_millis(1), Retention::default());
        assert!(keeper.next_look());
        assert!(keeper.next_look());
    }
}
