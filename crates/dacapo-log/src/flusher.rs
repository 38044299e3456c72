//! The thread that flushes in the background: after an interval, or when an async caller asks.
//!
//! It decides when; what a flush does is `writer.rs`.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::options::Flush;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// What the flush thread was told.
#[derive(Debug)]
pub(crate) struct Flusher {
    interval: Option<Duration>,
    orders: Mutex<Orders>,
    changed: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Orders {
    /// Flush at once.
    requested: bool,
    /// Flush no later than this.
    due: Option<Instant>,
    stopped: bool,
}

impl Flusher {
    pub(crate) fn new(flush: Flush) -> Self {
        let interval = match flush {
            Flush::Interval(interval) => Some(interval),
            Flush::OnDemand => None,
        };
        Self {
            interval,
            orders: Mutex::default(),
            changed: Condvar::new(),
            thread: Mutex::default(),
        }
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the thread that runs [`next_order`](Self::next_order) in a loop, for `stop` to wait for.
    pub(crate) fn runs_on(&self, thread: JoinHandle<()>) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    /// There is something to flush, after the interval.
    pub(crate) fn schedule(&self) {
        let Some(interval) = self.interval else {
            return;
        };
        let mut orders = self.orders();
        if orders.due.is_none() {
            orders.due = Instant::now().checked_add(interval);
            self.changed.notify_one();
        }
    }

    /// Somebody waits for a flush, or a segment is full.
    pub(crate) fn request(&self) {
        self.orders().requested = true;
        self.changed.notify_one();
    }

    /// Waits until it is time to flush; `false` when there will be no more.
    pub(crate) fn next_order(&self) -> bool {
        let mut orders = self.orders();
        loop {
            let wait = orders
                .due
                .map(|due| due.saturating_duration_since(Instant::now()));
            if orders.stopped {
                return false;
            }
            if orders.requested || wait == Some(Duration::ZERO) {
                orders.requested = false;
                orders.due = None;
                return true;
            }
            orders = match wait {
                None => self
                    .changed
                    .wait(orders)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    let waited = self.changed.wait_timeout(orders, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Ends the thread, after the flush that it is at.
    pub(crate) fn stop(&self) {
        self.orders().stopped = true;
        self.changed.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The thread itself may be the one that drops the log's last handle.
        if let Some(thread) = thread.filter(|t| t.thread().id() != thread::current().id()) {
            // A panic there was printed there; the log is closed all the same.
            let _ = thread.join();
        }
    }
}
