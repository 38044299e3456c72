//! How near is an append to copying the bytes with a header and a checksum into a mapped file?

use std::time::Instant;

use super::answer::{Answer, Compares, Question};
use super::limit::{MappedFile, frame_bytes};
use super::measure::Sample;
use super::runner::Runner;

const LIMIT: &str = "the limit, copying and checksumming the same bytes into mapped memory";

const ONE_A_CALL: [(Question, usize); 2] = [
    (rates("append_100B", "append 100 B, one a call"), 100),
    (rates("append_1KiB", "append 1 KiB, one a call"), 1024),
];
const BATCHES: [(Question, usize); 2] = [
    (rates("batch_100B", "append 100 B, in batches of 100"), 100),
    (rates("batch_1KiB", "append 1 KiB, in batches of 100"), 1024),
];
pub(crate) const QUESTIONS: usize = ONE_A_CALL.len() + BATCHES.len();

const fn rates(key: &'static str, title: &'static str) -> Question {
    Question {
        key,
        title,
        limit: LIMIT,
        compares: Compares::Rates,
    }
}

pub(crate) fn ask(runner: &Runner) -> anyhow::Result<Vec<Answer>> {
    let mut file = runner.mapped_file(runner.plan.limit_bytes())?;
    let mut answers = Vec::new();
    for (question, bytes) in ONE_A_CALL {
        let payload = super::payload(bytes);
        answers.push(runner.ask(
            question,
            || one_a_call(runner, &payload),
            || Ok(limit(runner, &mut file, &payload)),
        )?);
    }
    for (question, bytes) in BATCHES {
        let payload = super::payload(bytes);
        answers.push(runner.ask(
            question,
            || batches(runner, &payload),
            || Ok(limit(runner, &mut file, &payload)),
        )?);
    }
    Ok(answers)
}

fn one_a_call(runner: &Runner, payload: &[u8]) -> anyhow::Result<Sample> {
    let records = runner.plan.records(payload.len());
    let fresh = runner.fresh_log()?;
    let started = Instant::now();
    for _ in 0..records {
        fresh.log.append(payload)?;
    }
    Ok(Sample::of_all(records.into(), started.elapsed()))
}

fn batches(runner: &Runner, payload: &[u8]) -> anyhow::Result<Sample> {
    let records = runner.plan.records(payload.len());
    let fresh = runner.fresh_log()?;
    let started = Instant::now();
    for _ in 0..records / 100 {
        fresh.log.append_batch([payload; 100])?;
    }
    Ok(Sample::of_all(records.into(), started.elapsed()))
}

fn limit(runner: &Runner, file: &mut MappedFile, payload: &[u8]) -> Sample {
    let records = runner.plan.records(payload.len());
    file.make_room(records as usize * frame_bytes(payload.len()));
    let started = Instant::now();
    for number in 0..records {
        file.append(number, payload);
    }
    Sample::of_all(records.into(), started.elapsed())
}
