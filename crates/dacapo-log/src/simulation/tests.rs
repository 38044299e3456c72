//! Seeds, guards that are taken out, and faults one after the other. What each prints goes into
//! docs/durability.md.

use std::panic::{UnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Instant;

use rustix::io::Errno;

use super::*;
use crate::guard::Guard;

/// All ways in which some call can fail.
const ERRNOS: [Errno; 6] = [
    Errno::IO,
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::MFILE,
    Errno::NOMEM,
    Errno::NOLCK,
];

/// A number that the environment may set.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// A violation, and the seed that shows it again.
#[derive(Debug)]
struct Violation {
    seed: u64,
    message: String,
}

thread_local! {
    static SIMULATING: Cell<bool> = const { Cell::new(false) };
    /// What the first panic of this simulation said: the violation, and others are those of the threads
    /// that it ends.
    static MESSAGE: Cell<String> = const { Cell::new(String::new()) };
}

/// Keeps the first panic of each simulation, and prints none: a seed that violates something is
/// reported once, with its message.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !SIMULATING.get() {
                return print(info);
            }
            let first = MESSAGE.take();
            MESSAGE.set(match first.is_empty() {
                true => format!("{info}"),
                false => first,
            });
        }));
    });
}

/// Lives one seed, in whichever way.
fn attempt<T>(seed: u64, live: impl FnOnce() -> T + UnwindSafe) -> Result<T, Violation> {
    keep_panics();
    SIMULATING.set(true);
    let lived = catch_unwind(live);
    SIMULATING.set(false);
    let message = MESSAGE.take();
    lived.map_err(|_| Violation { seed, message })
}

/// Lives the seeds from `first` on, on all processors; ends at a violation.
fn live_all(first: u64, seeds: u64, without: Option<Guard>) -> Result<Coverage, Violation> {
    let (next, ended) = (AtomicU64::new(first), AtomicBool::new(false));
    let total = Mutex::new(Ok(Coverage::default()));
    let live_some = || {
        while !ended.load(Relaxed) {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= first + seeds {
                break;
            }
            guards::take_out(without);
            let lived = attempt(seed, || live(seed));
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            match (lived, &mut *total) {
                (Ok(coverage), Ok(total)) => total.add(&coverage),
                (Err(violation), Ok(_)) => {
                    *total = Err(violation);
                    ended.store(true, Relaxed);
                }
                (_, Err(_)) => {}
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(live_some);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn no_crash_takes_what_is_durable_or_brings_back_what_it_took() {
    let seeds = setting("DACAPO_SIMULATION_SEEDS", 2000);
    let first = setting("DACAPO_SIMULATION_FIRST_SEED", 1);
    let started = Instant::now();
    match live_all(first, seeds, None) {
        Ok(coverage) => {
            let rate = seeds as f64 / started.elapsed().as_secs_f64();
            println!("{seeds} seeds, {rate:.0} a second: {coverage:#?}");
        }
        Err(Violation { seed, message }) => panic!("violated by seed {seed}: {message}"),
    }
}

#[test]
fn a_seed_always_lives_the_same_life() {
    for seed in 1..40 {
        let (once, again) = (live(seed), live(seed));
        assert_eq!(format!("{once:?}"), format!("{again:?}"), "seed {seed}");
    }
}

/// What the simulator is worth: it finds each of these within 10,000 seeds.
/// The sum of its bytes overflowed, found by the first one that fuzzing tried.
#[test]
fn a_script_of_large_bytes_is_lived() {
    attempt(0, || live_script(&[0xFF; 64])).unwrap();
}

#[test]
fn a_guard_that_is_taken_out_is_missed() {
    for guard in [
        Guard::ChecksumSalt,
        Guard::NewSegmentAfterUncleanEnd,
        Guard::DirectorySync,
        Guard::SyncBeforeTrust,
        Guard::BatchEndMark,
        Guard::MetaBeforeUnlink,
        Guard::RepetitionRefused,
    ] {
        match live_all(1, 10_000, Some(guard)) {
            Ok(_) => panic!("nobody noticed that {guard:?} was gone"),
            Err(Violation { seed, message }) => {
                let message = message.lines().last().unwrap_or_default();
                println!("without {guard:?}: violated by seed {seed}: {message}");
            }
        }
    }
}

#[test]
fn every_call_that_can_fail_fails_once_and_nothing_is_lost() {
    let lives = setting("DACAPO_SIMULATION_FAULT_LIVES", 40);
    let mut met = Coverage::default();
    let mut faults = 0;
    for seed in 0..lives {
        for errno in ERRNOS {
            for after in 0.. {
                let fault = Fault {
                    after,
                    errno,
                    kind: None,
                };
                match attempt(seed, || live_with_fault(seed, fault)) {
                    Ok(Some(coverage)) => met.add(&coverage),
                    Ok(None) => break,
                    Err(Violation { message, .. }) => panic!("{fault:?} in life {seed}: {message}"),
                }
                faults += 1;
            }
        }
    }
    println!("{faults} faults in {lives} lives: {:#?}", met.faults);
    assert!(faults > 100);
}
