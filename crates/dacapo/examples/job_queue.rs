//! A job queue: workers that compete for jobs, retries, and nothing forgotten by a kill.
//!
//! Two topics of one log: jobs, and what has become of them. A job is done when its result is in the
//! log; after a restart, jobs without a result are handed out again. Kill it and run it again.
//!
//! ```text
//! cargo run -p dacapo --example job_queue [DIR]
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use dacapo::{Log, Receiver, ReplayChannel, Sender, Topic};
use serde::{Deserialize, Serialize};

const ATTEMPTS_MAX: u32 = 3;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    id: u64,
    /// 1 for the first.
    attempt: u32,
}

#[derive(Debug, Serialize, Deserialize)]
enum Outcome {
    Done { worker: u32 },
    GivenUp,
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("dacapo-jobs"), PathBuf::from);
    let log = Log::open(dir)?;
    let outcomes = ReplayChannel::<(u64, Outcome)>::on(&log, &Topic::new("outcomes")?)?;
    let history = ReplayChannel::<Job>::on(&log, &Topic::new("jobs")?)?;

    // What was asked for and has no outcome; of several attempts, the last one counts.
    let mut open = BTreeMap::new();
    let (jobs, ended) = (history.receiver(), outcomes.receiver());
    while let Some(job) = jobs.try_receive()? {
        open.insert(job.id, job);
    }
    while let Some((id, _)) = ended.try_receive()? {
        open.remove(&id);
    }
    println!("{} jobs are open", open.len());
    let first_new = log.next_offset().get();
    for id in first_new..first_new + 10 {
        let job = Job { id, attempt: 1 };
        history.sender().send(&job)?;
        open.insert(id, job);
    }

    // The work of this run: whoever is free takes the next job, and puts it back if it fails.
    // `None` tells a worker to stop.
    let work = ReplayChannel::<Option<Job>>::temporary()?;
    let expected = open.len();
    for job in open.into_values() {
        work.sender().send(&Some(job))?;
    }
    let todo = work.receiver();
    thread::scope(|scope| {
        let workers: Vec<_> = (1..=4)
            .map(|worker| {
                let (todo, again) = (&todo, work.sender());
                let (history, outcomes) = (history.sender(), outcomes.sender());
                scope.spawn(move || {
                    while let Some(job) = todo.receive_blocking()? {
                        run(worker, job, &again, &history, &outcomes)?;
                    }
                    Ok::<(), Box<dyn Error + Send + Sync>>(())
                })
            })
            .collect();
        let told = tell_outcomes(&ended, expected);
        for _ in &workers {
            work.sender().send(&None)?;
        }
        for worker in workers {
            let worked = worker.join().expect("it does not panic");
            worked.map_err(|error| error.to_string())?;
        }
        told
    })
}

fn tell_outcomes(ended: &Receiver<(u64, Outcome)>, expected: usize) -> Result<(), Box<dyn Error>> {
    for _ in 0..expected {
        let (id, outcome) = ended.receive_blocking()?;
        writeln!(io::stdout(), "job {id}: {outcome:?}")?;
    }
    Ok(())
}

fn run(
    worker: u32,
    job: Job,
    again: &Sender<Option<Job>>,
    history: &Sender<Job>,
    outcomes: &Sender<(u64, Outcome)>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    // Every third job fails at first, and every ninth for ever.
    let succeeds = match (job.id.is_multiple_of(9), job.id.is_multiple_of(3)) {
        (true, _) => false,
        (false, true) => job.attempt > 1,
        (false, false) => true,
    };
    thread::sleep(Duration::from_millis(1)); // the work
    if succeeds {
        outcomes.send(&(job.id, Outcome::Done { worker }))?;
    } else if job.attempt == ATTEMPTS_MAX {
        outcomes.send(&(job.id, Outcome::GivenUp))?;
    } else {
        let retry = Job {
            attempt: job.attempt + 1,
            ..job
        };
        history.send(&retry)?;
        again.send(&Some(retry))?;
    }
    Ok(())
}
