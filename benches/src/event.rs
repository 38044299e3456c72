//! The least that waking a thread must do: a futex, which is left alone while nobody waits.

use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::thread::futex;

/// Something that happens again and again, and that threads wait for.
#[derive(Debug, Default)]
pub struct Event {
    happened: AtomicU32,
    waiting: AtomicU32,
}

impl Event {
    /// It happened: wakes everybody who waits.
    #[inline]
    pub fn notify(&self) {
        // Whoever waits has said so before it looked a last time: either it sees what was stored
        // before this, or this sees it waiting.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.happened.fetch_add(1, Ordering::Release);
            let everybody = i32::MAX.unsigned_abs();
            let woken = futex::wake(&self.happened, futex::Flags::PRIVATE, everybody);
            woken.expect("a futex can be woken");
        }
    }

    /// Waits until `look` finds something, which it does before and after each event.
    pub fn wait<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        if let Some(found) = look() {
            return found;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let found = loop {
            let happened = self.happened.load(Ordering::Acquire);
            fence(Ordering::SeqCst);
            if let Some(found) = look() {
                break found;
            }
            // Returns an error if it has happened meanwhile, or for a signal: look again.
            let _ = futex::wait(&self.happened, futex::Flags::PRIVATE, happened, None);
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        found
    }
}
