//! A run: every measurement in a process of its own, one after the other, round by round.
//!
//! A process of its own takes nothing along from the one before, no memory and no thread; and one that
//! crashes or hangs costs no more than its own figure.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::contestants::{ALL, Contestant};
use crate::figures::{Entry, WorkFigures};
use crate::ground;
use crate::work::{Extent, Work};

/// No measurement takes as long.
const GIVE_UP_AFTER: Duration = Duration::from_secs(90);
/// What comes before the figures on the output, on which rivals print too.
const MARK: &str = "measured ";
/// Where `walrus-rust` puts its directories: in that of the measurement.
const WALRUS_DIR: &str = "WALRUS_DATA_DIR";

/// What a process has measured.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    rate: f64,
    records: u64,
}

/// What is run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) works: Vec<&'static Work>,
    pub(crate) rounds: u32,
    pub(crate) extent: Extent,
    /// On the disk that is measured.
    pub(crate) dir: PathBuf,
}

/// Runs the plan.
pub(crate) fn run(plan: &Plan) -> Result<Vec<WorkFigures>> {
    let mut figures: Vec<WorkFigures> = plan.works.iter().map(|work| blank(work)).collect();
    let measurements: usize = figures.iter().map(|figures| figures.entries.len()).sum();
    let bar = ProgressBar::new(measurements as u64 * u64::from(plan.rounds));
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {msg:44!} {elapsed}, {eta} to go",
    )?);
    bar.enable_steady_tick(Duration::from_millis(200));
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    for round in 0..plan.rounds {
        for (work, figures) in plan.works.iter().zip(&mut figures) {
            let count = figures.entries.len();
            for turn in 0..count {
                // Ours comes first in one round, and last in the next.
                let at = if round % 2 == 0 {
                    turn
                } else {
                    count - 1 - turn
                };
                let entry = &mut figures.entries[at];
                bar.set_message(format!("{}: {}", work.id, entry.contestant));
                match measure_in_child(plan, work, &entry.contestant, &interrupted) {
                    Ok(outcome) => {
                        entry.rates.push(outcome.rate);
                        entry.records = outcome.records;
                    }
                    Err(error) => {
                        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
                        let failure = format!("{error:#}");
                        let line = format!("{}: {}: {failure}", work.id, entry.contestant);
                        bar.suspend(|| eprintln!("{line}"));
                        entry.failure = Some(failure);
                    }
                }
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(figures)
}

/// Those that can do this work, nothing measured yet.
fn blank(work: &Work) -> WorkFigures {
    let able = ALL.iter().filter(|contestant| contestant.can(work).is_ok());
    let entry = |contestant: &Contestant| Entry {
        contestant: contestant.name.to_owned(),
        version: version(contestant.package).unwrap_or_default(),
        rates: Vec::new(),
        records: 0,
        failure: None,
    };
    WorkFigures {
        work: work.id.to_owned(),
        entries: able.map(entry).collect(),
    }
}

/// The version of a package that was built in.
pub(crate) fn version(package: &str) -> Option<String> {
    let lock = include_str!("../Cargo.lock");
    let (_, found) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    found.split_once('"').map(|(version, _)| version.to_owned())
}

fn measure_in_child(
    plan: &Plan,
    work: &Work,
    contestant: &str,
    interrupted: &AtomicBool,
) -> Result<Outcome> {
    let dir = tempfile::Builder::new()
        .prefix("dacapo-rivals-")
        .tempdir_in(&plan.dir);
    let dir = dir.with_context(|| format!("cannot write to {}", plan.dir.display()))?;
    // What was written before is on the disk, and not written back during this one.
    rustix::fs::syncfs(File::open(dir.path())?)?;
    let errors_path = dir.path().join("errors");
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["measure", work.id, contestant])
        .args(["--extent", plan.extent.name()])
        .current_dir(dir.path())
        .env(WALRUS_DIR, ".")
        .env("WALRUS_QUIET", "1")
        // Nobody pays for backtraces of errors that he expects.
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&errors_path)?);
    let mut child = command.spawn().context("cannot run this program again")?;
    let mut stdout = child.stdout.take().context("it was piped")?;
    // Taken as it comes: a full pipe would stop the child.
    let output = std::thread::spawn(move || {
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).map(|_| output)
    });
    let ended = wait(&mut child, interrupted);
    let output = output.join().expect("it does not panic")?;
    let ended = ended?;
    let output = String::from_utf8_lossy(&output);
    match output.lines().find_map(|line| line.strip_prefix(MARK)) {
        Some(outcome) => Ok(serde_json::from_str(outcome)?),
        None => bail!(
            "{}",
            reason(&errors_path).unwrap_or_else(|| ended.to_string())
        ),
    }
}

/// Waits for a child, and kills it where it takes too long or this process is to end.
fn wait(child: &mut Child, interrupted: &AtomicBool) -> Result<std::process::ExitStatus> {
    let deadline = Instant::now() + GIVE_UP_AFTER;
    while Instant::now() < deadline && !interrupted.load(Ordering::Relaxed) {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    bail!("gave up after {} s", GIVE_UP_AFTER.as_secs())
}

/// What a child that failed had to say.
fn reason(errors: &Path) -> Option<String> {
    first_said(&fs::read_to_string(errors).ok()?)
}

/// The first line, but for that which says where a panic was.
fn first_said(errors: &str) -> Option<String> {
    let said = errors.lines().find(|line| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("note:") && !line.contains(" panicked at ")
    });
    said.map(|line| {
        line.trim_start_matches("Error: ")
            .chars()
            .take(200)
            .collect()
    })
}

/// The part of a child: measures, and prints what it found.
pub(crate) fn measure(work: &str, contestant: &str, extent: Extent) -> Result<()> {
    let work = Work::find(work).with_context(|| format!("there is no work {work}"))?;
    let found = Contestant::find(contestant);
    let contestant = found.with_context(|| format!("there is no contestant {contestant}"))?;
    let once = contestant.can(work).map_err(anyhow::Error::msg)?;
    let measured = ground::measure(work, extent, Path::new("."), once)?;
    ensure!(measured.rate.is_finite(), "it took no time at all");
    let outcome = Outcome {
        rate: measured.rate,
        records: measured.records,
    };
    println!("{MARK}{}", serde_json::to_string(&outcome)?);
    // Background threads of some rivals never end.
    std::process::exit(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_each_rival_stands_in_the_lock_file() {
        for contestant in ALL
            .iter()
            .filter(|contestant| !contestant.package.is_empty())
        {
            assert!(version(contestant.package).is_some(), "{}", contestant.name);
        }
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_one_who_failed() {
        let error = "Error: no space\n\nStack backtrace:\n   0: append";
        assert_eq!(first_said(error).as_deref(), Some("no space"));
        let panic = "\nthread 'main' (7) panicked at src/a.rs:1:2:\npoisoned queue\nnote: run with";
        assert_eq!(first_said(panic).as_deref(), Some("poisoned queue"));
        assert_eq!(first_said("\n"), None);
    }

    #[test]
    fn each_work_has_a_limit_and_ours() {
        for work in &crate::work::WORKS {
            let names: Vec<_> = blank(work)
                .entries
                .into_iter()
                .map(|e| e.contestant)
                .collect();
            assert_eq!(names[..2], ["limit", "dacapo-log"], "{}", work.id);
        }
    }
}
