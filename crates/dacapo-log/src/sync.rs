//! Locks, threads and atomics of the engine: the standard library's; under `--cfg loom` the model
//! checker's, which tries every order; and under `--cfg simulation` the simulator's locks and
//! threads, which take turns as a seed decides.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, fence},
};

#[cfg(not(any(loom, simulation)))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

#[cfg(simulation)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

#[cfg(loom)]
pub(crate) use self::model_checked::*;

#[cfg(loom)]
mod model_checked {
    use std::sync::atomic::Ordering::{Acquire, Release};

    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

    pub(crate) mod thread {
        #[cfg(test)]
        pub(crate) use loom::thread::spawn;
        pub(crate) use loom::thread::{Builder, JoinHandle, current, yield_now};

        pub(crate) fn sleep(_: std::time::Duration) {
            yield_now();
        }
    }

    /// The model checker has none: a value, and an atomic that says whether it can be seen.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        is_set: AtomicBool,
        value: std::sync::OnceLock<T>,
    }

    impl<T> OnceLock<T> {
        pub(crate) fn new() -> Self {
            Self {
                is_set: AtomicBool::new(false),
                value: std::sync::OnceLock::new(),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            let is_set = self.is_set.load(Acquire);
            self.value.get().filter(|_| is_set)
        }

        pub(crate) fn get_or_init(&self, value: impl FnOnce() -> T) -> &T {
            let value = self.value.get_or_init(value);
            self.is_set.store(true, Release);
            value
        }
    }
}
