//! How near is opening a log, which was closed cleanly, to the one durable write that it needs?

use std::time::{Duration, Instant};

use dacapo_log::Log;

use super::answer::{Answer, Compares, Question};
use super::limit::WrittenFile;
use super::measure::{self, Sample};
use super::runner::Runner;

const OPEN: Question = Question {
    key: "open_clean",
    title: "open a log that was closed",
    limit: "the least, the one durable write that marks it as open",
    compares: Compares::Times,
};
pub(crate) const QUESTIONS: usize = 1;

/// What the mark is written as.
const PAGE_BYTES: usize = 4096;
const FILE_PAGES: usize = 256;

pub(crate) fn ask(runner: &Runner) -> anyhow::Result<Vec<Answer>> {
    let slice = runner.plan.slice;
    let payload = super::payload(1024);
    let fresh = runner.fresh_log()?;
    for _ in 0..runner.plan.records(payload.len()) / 100 {
        fresh.log.append_batch([&payload[..]; 100])?;
    }
    fresh.log.close()?;
    let page = super::payload(PAGE_BYTES);
    let bytes = FILE_PAGES * PAGE_BYTES;
    let mut file = WrittenFile::new(runner.dir(), bytes, || runner.go_on())?;

    let answer = runner.ask(
        OPEN,
        || {
            let (started, mut latencies) = (Instant::now(), Vec::new());
            while latencies.is_empty() || started.elapsed() < slice {
                let before = Instant::now();
                let log = Log::open(fresh.dir())?;
                latencies.push(before.elapsed());
                log.close()?;
            }
            let opening: Duration = latencies.iter().sum();
            Ok(Sample::of_each(latencies, opening))
        },
        || measure::each_for(slice, usize::MAX, || Ok(file.write_durably(&page)?)),
    )?;
    Ok(vec![answer])
}
