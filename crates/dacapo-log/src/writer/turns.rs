//! Whose turn it is to flush: group commit.
//!
//! One flush runs at a time. Who comes meanwhile sleeps, and finds its records covered by it, or by the
//! next one, which begins as soon as this one has ended.

use std::sync::PoisonError;

use crate::sync::{Condvar, Mutex, MutexGuard, thread};

#[derive(Debug)]
pub(crate) struct Turns {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    waiting: u64,
    /// How many waited for the turn that ended last.
    woken: u64,
}

/// The turn; ends when it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    woken: u64,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn, or until there is no more need of it: `None`.
    pub(crate) fn take(&self, is_done: impl Fn() -> bool) -> Option<Turn<'_>> {
        let mut state = self.state();
        loop {
            if is_done() {
                return None;
            }
            if !state.taken {
                break;
            }
            state.waiting += 1;
            state = self
                .ended
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.taken = true;
        let woken = state.woken;
        Some(Turn { turns: self, woken })
    }
}

impl Turn<'_> {
    /// Lets those who waited for the last turn come, with what they append next: as many as there were,
    /// by `arrived`, or as come while nothing is done but giving them the processor. A sync takes much
    /// longer than that, and covers all who are there when it begins.
    pub(crate) fn gather(&self, arrived: impl Fn() -> u64) {
        for _ in 0..self.woken {
            if arrived() >= self.woken {
                break;
            }
            thread::yield_now();
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.taken = false;
        state.woken = state.waiting;
        let is_waited_for = state.waiting > 0;
        drop(state);
        if is_waited_for {
            self.turns.ended.notify_all();
        }
    }
}
