//! Locks, threads and atomics of the engine: the standard library's, under `--cfg loom` the model
//! checker's atomics for the lock-free parts, and under `--cfg simulation` the simulator's locks and
//! threads, which take turns as a seed decides.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, fence};

#[cfg(not(simulation))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

#[cfg(simulation)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};
