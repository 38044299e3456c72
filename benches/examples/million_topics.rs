//! What a million topics of three records each cost: time, memory, and bytes beside the segments.
//!
//! ```console
//! $ cargo run --release -p dacapo-benches --example million_topics
//! ```
//!
//! Each step runs in a process of its own, so that its memory is that step's alone.

use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Waker};
use std::time::Instant;

use dacapo_benches::memory::Memory;
use dacapo_benches::payload;
use dacapo_log::{Flush, Log, Start, Topic};

const TOPICS: u32 = 1_000_000;
const RECORDS_EACH: u64 = 3;
const PAYLOAD_BYTES: usize = 100;
const TAILERS: usize = 1000;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => all(),
        [step, dir] => run(step, Path::new(dir)),
        _ => Err("it takes no arguments".into()),
    }
}

fn all() -> Outcome {
    let place = tempfile::tempdir_in(".")?;
    let (million, one) = (place.path().join("million"), place.path().join("one"));
    for (step, dir) in [
        ("build", &million),
        ("build-one", &one),
        ("open-one", &one),
        ("open", &million),
        ("list", &million),
        ("tail", &million),
    ] {
        let step = Command::new(std::env::current_exe()?)
            .arg(step)
            .arg(dir)
            .status()?;
        if !step.success() {
            return Err(format!("a step ended with {step}").into());
        }
    }
    Ok(())
}

fn run(step: &str, dir: &Path) -> Outcome {
    match step {
        "build" => build(dir, TOPICS),
        "build-one" => build(dir, 1),
        "open" => open(dir, "1,000,000 topics").map(drop),
        "open-one" => open(dir, "1 topic of as many records").map(drop),
        "list" => list(&Log::open(dir)?),
        "tail" => tail(&Log::open(dir)?),
        _ => Err(format!("there is no step {step}").into()),
    }
}

fn topic(number: u32) -> Outcome<Topic> {
    Ok(Topic::new(format!("rooms:{number:07}"))?)
}

fn build(dir: &Path, topics: u32) -> Outcome {
    let started = Instant::now();
    let log = Log::options().flush(Flush::OnDemand).open(dir)?;
    let payload = payload(PAYLOAD_BYTES);
    for number in 0..u64::from(TOPICS) * RECORDS_EACH {
        let number = u32::try_from(number % u64::from(topics))?;
        log.append_to(&topic(number)?, &payload)?;
    }
    log.close()?;
    let records = u64::from(TOPICS) * RECORDS_EACH;
    let (segments, indexes) = (bytes_of(dir, "seg")?, bytes_of(dir, "topics")?);
    println!(
        "build, {topics} topics: {records} records in {:.2?}; .seg {} MiB, .topics {} MiB, {:.2} bytes a record; {}",
        started.elapsed(),
        segments >> 20,
        indexes >> 20,
        indexes as f64 / records as f64,
        Memory::now()?
    );
    Ok(())
}

fn bytes_of(dir: &Path, extension: &str) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|e| e == extension) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn open(dir: &Path, what: &str) -> Outcome<Log> {
    let started = Instant::now();
    let log = Log::open(dir)?;
    println!(
        "open, {what}: {:.2?}; {}",
        started.elapsed(),
        Memory::now()?
    );
    Ok(log)
}

fn list(log: &Log) -> Outcome {
    let started = Instant::now();
    let (mut topics, mut records) = (0, 0);
    for topic in log.topics() {
        topics += 1;
        records += topic?.records;
    }
    assert_eq!(
        (topics, records),
        (TOPICS, u64::from(TOPICS) * RECORDS_EACH)
    );
    println!(
        "list, {topics} topics: {:.2?}; {}",
        started.elapsed(),
        Memory::now()?
    );
    Ok(())
}

/// All of them have read their topic, and wait.
fn tail(log: &Log) -> Outcome {
    let before = Memory::now()?;
    let started = Instant::now();
    let mut tailers = Vec::new();
    for number in (0..TOPICS).step_by(TOPICS as usize / TAILERS) {
        let mut tailer = log.tail(Start::Oldest).topic(&topic(number)?);
        for _ in 0..RECORDS_EACH {
            tailer.try_next()?.ok_or("a record is missing")?;
        }
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(tailer.next()).poll(&mut cx).is_pending());
        tailers.push(tailer);
    }
    println!(
        "tail, {} live tailers: {:.2?}; {}; before them {before}",
        tailers.len(),
        started.elapsed(),
        Memory::now()?
    );
    Ok(())
}
