//! What one measurement stands on: payloads made beforehand, fresh directories, and a bound on its time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::work::{BATCH, Extent, Kind, Work};

/// Different payloads; each record takes the next one.
const PAYLOADS: u64 = 256;
/// A contestant for which the usual number of records would take longer does fewer.
const PASS_MAX: Duration = Duration::from_secs(2);
/// No further pass begins later than this.
const PASSES_MAX: Duration = Duration::from_millis(1_200);
/// So much measured time is enough.
const MEASURED_ENOUGH: Duration = Duration::from_millis(300);

/// Work for one contestant.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: usize,
    /// How many records, or messages, a pass has.
    pub(crate) records: u64,
    payloads: Vec<Vec<u8>>,
    dir: PathBuf,
    dirs: AtomicU32,
}

/// How long so many operations took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timed {
    pub(crate) operations: u64,
    pub(crate) spent: Duration,
}

/// One pass of some work on a fresh directory.
pub(crate) type Measure = fn(&Ground) -> Result<Timed>;

/// What a measurement came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Operations a second: the median of the passes.
    pub(crate) rate: f64,
    /// The records of each pass.
    pub(crate) records: u64,
}

/// Measures: a warm-up, then passes until there is enough of them, in directories under `dir`.
pub(crate) fn measure(work: &Work, extent: Extent, dir: &Path, once: Measure) -> Result<Measured> {
    let usual = work.records(extent);
    let mut ground = Ground::new(work, dir);
    ground.records = usual;
    // How long opening takes depends on what is there: it has the same for all.
    if work.kind != Kind::Reopen {
        ground.records = whole_batches(work.kind, usual / warm_up_part(work.kind));
        let began = Instant::now();
        let timed = once(&ground)?;
        let took = match work.kind {
            // With what was filled for it.
            Kind::Replay | Kind::RandomRead => began.elapsed(),
            _ => timed.spent,
        };
        ground.records = whole_batches(work.kind, bounded(usual, ground.records, took));
    }
    let began = Instant::now();
    let (mut rates, mut measured) = (Vec::new(), Duration::ZERO);
    while rates.is_empty() || (measured < MEASURED_ENOUGH && began.elapsed() < PASSES_MAX) {
        let timed = once(&ground)?;
        ensure!(timed.operations > 0, "a pass without an operation");
        measured += timed.spent;
        rates.push(timed.operations as f64 / timed.spent.as_secs_f64());
    }
    Ok(Measured {
        rate: median(&mut rates),
        records: ground.records,
    })
}

/// The warm-up does one in so many records. What is filled first costs something for every number of
/// records, which must not be taken for a part of the time.
fn warm_up_part(kind: Kind) -> u64 {
    match kind {
        Kind::Replay | Kind::RandomRead => 4,
        _ => 16,
    }
}

/// So many of `usual` records that a pass takes no longer than it may, as so many took so long.
fn bounded(usual: u64, records: u64, took: Duration) -> u64 {
    let all = took.as_secs_f64() * usual as f64 / records as f64;
    (usual as f64 * (PASS_MAX.as_secs_f64() / all).min(1.0)) as u64
}

/// Whole batches, or as many for each of the threads, and at least one.
fn whole_batches(kind: Kind, records: u64) -> u64 {
    let step = match kind {
        Kind::Wake(_) => 1,
        Kind::Durable(threads) => threads as u64,
        _ => BATCH,
    };
    (records / step).max(1) * step
}

/// The middle one, or the mean of the two.
///
/// # Panics
/// Where there is none.
pub(crate) fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    let (lower, upper) = (rates[(rates.len() - 1) / 2], rates[rates.len() / 2]);
    f64::midpoint(lower, upper)
}

impl Ground {
    fn new(work: &Work, dir: &Path) -> Self {
        // The same for all; random, so that nobody gains by compressing.
        let mut random = fastrand::Rng::with_seed(7);
        let mut payload = || {
            let mut bytes = vec![0; work.payload_bytes];
            random.fill(&mut bytes);
            bytes
        };
        Self {
            kind: work.kind,
            payload_bytes: work.payload_bytes,
            records: 0,
            payloads: (0..PAYLOADS).map(|_| payload()).collect(),
            dir: dir.to_owned(),
            dirs: AtomicU32::new(0),
        }
    }

    /// The payload of the record with this number.
    #[inline]
    pub(crate) fn payload(&self, number: u64) -> &[u8] {
        &self.payloads[(number % PAYLOADS) as usize]
    }

    /// The payloads of so many records, beginning with this number.
    pub(crate) fn payloads(&self, first: u64, count: u64) -> Vec<&[u8]> {
        (first..first + count)
            .map(|number| self.payload(number))
            .collect()
    }

    /// Receivers of a work that has any.
    pub(crate) fn receivers(&self) -> u64 {
        match self.kind {
            Kind::FanOut(receivers) | Kind::Wake(receivers) => receivers,
            _ => 1,
        }
    }

    /// Threads that write.
    pub(crate) fn threads(&self) -> usize {
        match self.kind {
            Kind::Durable(threads) => threads,
            _ => 1,
        }
    }

    /// A directory that nobody has used, deleted when it is dropped. Its name is letters, digits and `_`.
    pub(crate) fn fresh_dir(&self) -> Result<FreshDir> {
        let number = self.dirs.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("pass_{number}"));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(FreshDir(path))
    }
}

/// A directory of one pass.
#[derive(Debug)]
pub(crate) struct FreshDir(PathBuf);

impl FreshDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for FreshDir {
    fn drop(&mut self) {
        // What a background thread still writes to goes with the directory around it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_two() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn who_would_take_too_long_does_fewer_records_in_whole_batches() {
        assert_eq!(bounded(160_000, 10_000, PASS_MAX / 16), 160_000);
        assert_eq!(bounded(160_000, 10_000, Duration::from_millis(1)), 160_000);
        assert_eq!(bounded(160_000, 10_000, PASS_MAX / 8), 80_000);
        assert_eq!(whole_batches(Kind::Append, 1_234), 1_200);
        assert_eq!(whole_batches(Kind::Durable(16), 3), 16);
    }
}
