//! The engine on a simulated disk, under a simulated scheduler: a seed decides everything, so that a
//! crash that loses something can be seen again.
//!
//! ```text
//! DACAPO_SIMULATION_SEEDS=100000 DACAPO_SIMULATION_FIRST_SEED=1 RUSTFLAGS="--cfg simulation" \
//!     cargo test --release --target-dir target/simulation -p dacapo-log --lib simulation -- --nocapture
//! ```
//!
//! In this build `disk.rs` is replaced by `simulation/disk.rs`, and the locks and threads of
//! `sync.rs` by those of [shuttle](https://docs.rs/shuttle), which run one at a time. `turns.rs` says
//! whose turn it is, `life.rs` how a log lives, `users.rs` and `resender.rs` what its threads do,
//! `cut.rs` what a power cut leaves, and `model.rs` and `messages.rs` what must be true. What is
//! modelled, and what is not: docs/durability.md.

pub(crate) mod cut;
pub(crate) mod guards;
mod life;
mod messages;
mod model;
pub(crate) mod random;
mod resender;
mod turns;
mod users;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use self::cut::Toll;
use self::life::Life;
use self::model::Tally;
use self::random::Random;
use self::turns::Turns;
use crate::disk::{Disk, Fault};

/// What some lives have met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    generations: u64,
    cuts: u64,
    kills: u64,
    closes: u64,
    crashes_in_recovery: u64,
    segments_most: u64,
    calls: u64,
    /// Crashes by the call during which they came.
    crashes: BTreeMap<String, u64>,
    /// Failed calls.
    faults: BTreeMap<String, u64>,
    toll: Toll,
    tally: Tally,
}

impl Coverage {
    fn add_calls(&mut self, disk: &Disk) {
        self.calls += disk.calls();
    }

    fn add_crash(&mut self, disk: &Disk) {
        if let Some(during) = disk.crashed() {
            *self.crashes.entry(during).or_default() += 1;
        }
    }

    fn add_fault(&mut self, disk: &Disk) {
        if let Some(failed) = disk.failed() {
            *self.faults.entry(failed).or_default() += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        self.generations += other.generations;
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.closes += other.closes;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.segments_most = self.segments_most.max(other.segments_most);
        self.calls += other.calls;
        for (into, from) in [
            (&mut self.crashes, &other.crashes),
            (&mut self.faults, &other.faults),
        ] {
            for (kind, count) in from {
                *into.entry(kind.clone()).or_default() += count;
            }
        }
        self.toll.add(&other.toll);
        self.tally.add(&other.tally);
    }
}

thread_local! {
    static TRACING: Cell<bool> = Cell::new(std::env::var_os("DACAPO_SIMULATION_TRACE").is_some());
}

/// Says what happens, if somebody wants to know.
pub(crate) fn trace(what: impl FnOnce() -> String) {
    if TRACING.get() {
        eprintln!("{}", what());
    }
}

/// Runs one execution of `life` in which the seed decides whose turn it is.
fn simulate<T: Send + 'static>(turns: Random, life: impl Fn() -> T + Send + Sync + 'static) -> T {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(5_000_000);
    config.silence_warnings = true;
    config
        .ungraceful_shutdown_config
        .immediately_return_on_panic = true;
    let outcome = Arc::new(Mutex::new(None));
    let told = Arc::clone(&outcome);
    Runner::new(Turns::new(turns), config).run(move || {
        let value = life();
        *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    });
    let value = outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    value.expect("the execution has ended")
}

/// Lives one seed; panics at a violation.
fn live(seed: u64) -> Coverage {
    let mut random = Random::seeded(seed);
    let turns = random.fork();
    let generations = 4 + random.below(4);
    simulate(turns, move || {
        let mut life = Life::new(random.clone());
        life.live(generations);
        life.coverage.clone()
    })
}

/// Opens and uses a log in which one call fails, and opens it again; `None` if the call never came.
fn live_with_fault(seed: u64, fault: Fault) -> Option<Coverage> {
    let mut random = Random::seeded(seed);
    let turns = random.fork();
    simulate(turns, move || {
        let mut life = Life::new(random.clone());
        life.meet(fault).then(|| life.coverage.clone())
    })
}

/// Lives what a fuzzer made up, one byte a decision; panics at a violation.
pub fn live_script(script: &[u8]) {
    let random = Random::scripted(script);
    let sum = |sum: u64, &byte: &u8| sum.wrapping_mul(31).wrapping_add(byte.into());
    let turns = Random::seeded(script.iter().fold(0, sum));
    simulate(turns, move || Life::new(random.clone()).live(4));
}

#[cfg(test)]
mod stories;
#[cfg(test)]
mod tests;
