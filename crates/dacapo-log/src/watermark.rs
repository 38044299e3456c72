//! A point in the log that only moves forward, and those who wait for it to move.
//!
//! One watermark says which records are visible, another which are durable. Waiting is always:
//! look, listen, look again, wait.

use std::ops::Range;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

use event_listener::{Event, EventListener};

use crate::offset::Offset;
use crate::sync::{AtomicBool, AtomicU64, fence};
use crate::topics::TopicWaiters;

/// All records before this point are so.
#[derive(Debug)]
pub(crate) struct Watermark {
    next: AtomicU64,
    /// Somebody began to listen since the last notification.
    awaited: AtomicBool,
    moved: Event,
    /// Those who wait for records of some topics only.
    topics: TopicWaiters,
    /// The records before this were told to those, or are being told.
    told: AtomicU64,
}

impl Watermark {
    pub(crate) fn new(next: Offset) -> Self {
        Self {
            next: AtomicU64::new(next.get()),
            awaited: AtomicBool::new(false),
            moved: Event::new(),
            topics: TopicWaiters::default(),
            told: AtomicU64::new(next.get()),
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> Offset {
        Offset::new(self.next.load(Acquire))
    }

    /// Moves the point to `next`. For one caller at a time, who [`announce`](Self::announce)s it
    /// once it holds no lock: a waker is code of the caller's.
    #[inline]
    pub(crate) fn raise(&self, next: Offset) {
        self.next.store(next.get(), Release);
    }

    /// Wakes those who wait for any record, after the point has moved. With nobody waiting: a fence and
    /// two loads.
    ///
    /// Returns whether there is anybody who waits for records of some topics, and is to be told of
    /// them.
    #[inline]
    pub(crate) fn announce(&self) -> bool {
        // Pairs with the fence in `moved`: either we see the listener here, or it sees the new
        // point when it looks again. Without it both could miss each other (loom finds that).
        fence(SeqCst);
        if self.awaited.load(Relaxed) {
            self.wake_everything();
        }
        self.topics.are_there()
    }

    /// Wakes all who wait, though the point may not have moved: something else they look at did.
    #[cold]
    pub(crate) fn wake(&self) {
        self.wake_everything();
        self.topics.wake_all();
    }

    /// The records before `next` that nobody has told of yet: the caller does.
    pub(crate) fn untold(&self, next: Offset) -> Range<Offset> {
        let told = self.told.fetch_max(next.get(), AcqRel);
        Offset::new(told)..next
    }

    pub(crate) fn topics(&self) -> &TopicWaiters {
        &self.topics
    }

    #[cold]
    fn wake_everything(&self) {
        // Before the notification: who begins to listen after it must find its flag standing.
        self.awaited.store(false, Relaxed);
        self.moved.notify(usize::MAX);
    }

    /// Begins to listen; look again before waiting.
    pub(crate) fn moved(&self) -> EventListener {
        let listener = self.moved.listen();
        self.awaited.store(true, Relaxed);
        fence(SeqCst);
        listener
    }

    /// Waits until the point lies behind `offset`, or a `refusal` says that it never will; asks for it
    /// before each wait. Who has a refusal to tell [`wake`](Self::wake)s those who wait. Cancel-safe.
    pub(crate) async fn pass<E>(
        &self,
        offset: Offset,
        refusal: impl Fn() -> Option<E>,
        ask: impl Fn(),
    ) -> Result<(), E> {
        if self.get() > offset {
            return Ok(());
        }
        loop {
            let moved = self.moved();
            // Before the look at the point: what was reached before the refusal counts.
            let refusal = refusal();
            // Look after having begun to listen: it may just have moved.
            if self.get() > offset {
                return Ok(());
            }
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
            ask();
            moved.await;
        }
    }

    /// Whether anybody waits for this point to move.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.moved.total_listeners() > 0 || self.topics.are_waiting()
    }
}

/// Every interleaving and every weak-memory outcome of the protocol, by model checking:
/// `RUSTFLAGS="--cfg loom" cargo test --release -p dacapo-log --lib watermark`.
///
/// A lost wake-up shows as a deadlock. Without the fence in `announce` or the one in `moved`, and
/// with the flag lowered after the notification instead of before, these tests fail.
#[cfg(all(test, loom))]
mod tests {
    use event_listener::Listener;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn explore(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    /// As tailers wait: look, listen, look again, wait.
    fn wait_for(watermark: &Watermark, next: u64) {
        while watermark.get() < Offset::new(next) {
            let moved = watermark.moved();
            if watermark.get() >= Offset::new(next) {
                break;
            }
            moved.wait();
        }
    }

    #[test]
    fn no_wake_up_is_lost_between_one_appender_and_one_tailer() {
        explore(|| {
            let watermark = Arc::new(Watermark::new(Offset::ZERO));
            let tailer = {
                let watermark = Arc::clone(&watermark);
                thread::spawn(move || wait_for(&watermark, 2))
            };
            for next in 1..=2 {
                watermark.raise(Offset::new(next));
                watermark.announce();
            }
            tailer.join().unwrap();
        });
    }

    #[test]
    fn no_wake_up_is_lost_between_one_appender_and_two_tailers() {
        explore(|| {
            let watermark = Arc::new(Watermark::new(Offset::ZERO));
            let tailers: Vec<_> = (1..=2)
                .map(|next| {
                    let watermark = Arc::clone(&watermark);
                    thread::spawn(move || wait_for(&watermark, next))
                })
                .collect();
            for next in 1..=2 {
                watermark.raise(Offset::new(next));
                watermark.announce();
            }
            tailers
                .into_iter()
                .for_each(|tailer| tailer.join().unwrap());
        });
    }

    #[test]
    fn no_wake_up_is_lost_between_two_appenders_and_one_tailer() {
        explore(|| {
            let watermark = Arc::new(Watermark::new(Offset::ZERO));
            // As under the appender's lock: raised by one at a time, announced by both at once.
            let lock = Arc::new(loom::sync::Mutex::new(0));
            let append = |watermark: &Watermark, lock: &loom::sync::Mutex<u64>| {
                let mut next = lock.lock().unwrap();
                *next += 1;
                watermark.raise(Offset::new(*next));
                drop(next);
                watermark.announce();
            };
            let other = {
                let (watermark, lock) = (Arc::clone(&watermark), Arc::clone(&lock));
                thread::spawn(move || append(&watermark, &lock))
            };
            let tailer = {
                let watermark = Arc::clone(&watermark);
                thread::spawn(move || wait_for(&watermark, 2))
            };
            append(&watermark, &lock);
            other.join().unwrap();
            tailer.join().unwrap();
        });
    }
}
