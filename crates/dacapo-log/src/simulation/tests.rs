use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use super::*;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// Lives all seeds of a range, on all processors; the first one that violates something ends it.
fn live_all(first: u64, seeds: u64) -> Coverage {
    let next = AtomicU64::new(first);
    let total = Mutex::new(Coverage::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= first + seeds {
                        break;
                    }
                    match catch_unwind(|| live(seed)) {
                        Ok(coverage) => total.lock().unwrap().add(&coverage),
                        Err(violation) => {
                            eprintln!("violated by seed {seed}");
                            std::panic::resume_unwind(violation);
                        }
                    }
                }
            });
        }
    });
    total.into_inner().unwrap()
}

#[test]
fn no_crash_takes_what_is_durable_or_brings_back_what_it_took() {
    let seeds = setting("DACAPO_SIMULATION_SEEDS", 2000);
    let first = setting("DACAPO_SIMULATION_FIRST_SEED", 1);
    let started = Instant::now();
    let coverage = live_all(first, seeds);
    let rate = seeds as f64 / started.elapsed().as_secs_f64();
    println!("{seeds} seeds, {rate:.0} a second: {coverage:#?}");
}
