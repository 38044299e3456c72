//! How near is the way from an append to a sleeping reader to the waking of a thread?

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use dacapo_log::{Log, Start};

use super::answer::{Answer, Compares, Question};
use super::measure::Sample;
use super::runner::Runner;

const TAIL: Question = Question {
    key: "tail_wake",
    title: "wake a sleeping reader by an append",
    limit: "the limit, the waking of a thread",
    compares: Compares::Times,
};
pub(crate) const QUESTIONS: usize = 1;

/// Long enough that the reader sleeps again.
const PAUSE: Duration = Duration::from_micros(200);

pub(crate) fn ask(runner: &Runner) -> anyhow::Result<Vec<Answer>> {
    let slice = runner.plan.slice;
    let answer = runner.ask(
        TAIL,
        || {
            let fresh = runner.fresh_log()?;
            wake_tailer(&fresh.log, slice)
        },
        || wake_thread(slice),
    )?;
    Ok(vec![answer])
}

/// Each record says when it was appended.
fn wake_tailer(log: &Log, slice: Duration) -> anyhow::Result<Sample> {
    let epoch = Instant::now();
    let mut tailer = log.tail(Start::Latest);
    let (sender, latencies) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            // Ends with the log.
            while let Ok(record) = tailer.next_blocking() {
                let arrived = epoch.elapsed();
                let Some(sent) = record.payload().first_chunk() else {
                    break;
                };
                let sent = Duration::from_nanos(u64::from_le_bytes(*sent));
                if sender.send(arrived.saturating_sub(sent)).is_err() {
                    break;
                }
            }
        });
        let woken = wake_for(slice, &latencies, || {
            log.append(&nanos_since(epoch).to_le_bytes())?;
            Ok(())
        });
        log.close()?;
        woken
    })
}

/// What the word says when the thread is to end; it is never a time.
const END: u64 = u64::MAX;
/// And when there is nothing new.
const NOTHING: u64 = 0;

fn wake_thread(slice: Duration) -> anyhow::Result<Sample> {
    let epoch = Instant::now();
    let word = AtomicU64::new(NOTHING);
    let (sender, latencies) = mpsc::channel();
    thread::scope(|scope| {
        let word = &word;
        let sleeper = scope.spawn(move || {
            loop {
                match word.swap(NOTHING, Ordering::Acquire) {
                    NOTHING => thread::park(),
                    END => break,
                    sent => {
                        let latency = epoch.elapsed().saturating_sub(Duration::from_nanos(sent));
                        if sender.send(latency).is_err() {
                            break;
                        }
                    }
                }
            }
        });
        let wake = |value: u64| {
            word.store(value, Ordering::Release);
            sleeper.thread().unpark();
        };
        let woken = wake_for(slice, &latencies, || {
            wake(nanos_since(epoch).max(NOTHING + 1));
            Ok(())
        });
        wake(END);
        woken
    })
}

/// Lets the other thread fall asleep, wakes it, and hears from it how long that took; again and
/// again until `slice` is over.
fn wake_for(
    slice: Duration,
    latencies: &Receiver<Duration>,
    mut wake: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Sample> {
    let (started, mut heard) = (Instant::now(), Vec::new());
    while heard.is_empty() || started.elapsed() < slice {
        thread::sleep(PAUSE);
        wake()?;
        heard.push(
            latencies
                .recv()
                .context("the other thread has ended early")?,
        );
    }
    let waking: Duration = heard.iter().sum();
    Ok(Sample::of_each(heard, waking))
}

fn nanos_since(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX - 1)
}
