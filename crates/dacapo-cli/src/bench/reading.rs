//! How near is reading to walking over the same bytes in a mapped file and summing them?

use anyhow::ensure;
use dacapo_log::{Log, Offset, Start};

use super::answer::{Answer, Compares, Question};
use super::limit::MappedFile;
use super::measure;
use super::runner::Runner;

const WALK: &str = "the limit, a bare walk that checksums the same bytes";
const LOOK: &str = "the limit, a bare look at a record that checksums it";

/// Replay and random read, for each size.
const BY_SIZE: [(Question, Question, usize); 2] = [
    (
        rates("replay_100B", "replay 100 B, each verified", WALK),
        rates("get_100B", "read 100 B at random, verified", LOOK),
        100,
    ),
    (
        rates("replay_1KiB", "replay 1 KiB, each verified", WALK),
        rates("get_1KiB", "read 1 KiB at random, verified", LOOK),
        1024,
    ),
];
pub(crate) const QUESTIONS: usize = 2 * BY_SIZE.len();

/// Reads between two looks at the clock.
const READS: u64 = 1000;

const fn rates(key: &'static str, title: &'static str, limit: &'static str) -> Question {
    Question {
        key,
        title,
        limit,
        compares: Compares::Rates,
    }
}

pub(crate) fn ask(runner: &Runner) -> anyhow::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    let slice = runner.plan.slice;
    for (replay, get, bytes) in BY_SIZE {
        let payload = super::payload(bytes);
        let records = runner.plan.records(bytes);
        let fresh = runner.fresh_log()?;
        let first = fresh.log.next_offset();
        for _ in 0..records / 100 {
            fresh.log.append_batch([&payload[..]; 100])?;
        }
        let mut file = runner.mapped_file(runner.plan.segment_bytes)?;
        for number in 0..records {
            file.append(number, &payload);
        }

        answers.push(runner.ask(
            replay,
            || measure::all_for(slice, || replay_all(&fresh.log, first, records)),
            || measure::all_for(slice, || walk_all(&file, records)),
        )?);
        answers.push(runner.ask(
            get,
            || {
                measure::all_for(slice, || {
                    for _ in 0..READS {
                        let offset = Offset::new(first.get() + u64::from(fastrand::u32(..records)));
                        let record = fresh.log.get(offset)?;
                        ensure!(record.payload().len() == bytes, "record {offset} is cut");
                    }
                    Ok(READS)
                })
            },
            || {
                measure::all_for(slice, || {
                    for _ in 0..READS {
                        let number = fastrand::u32(..records) as usize;
                        ensure!(file.is_sound_number(number, bytes), "memory has changed");
                    }
                    Ok(READS)
                })
            },
        )?);
    }
    Ok(answers)
}

fn replay_all(log: &Log, first: Offset, records: u32) -> anyhow::Result<u64> {
    let (mut replay, mut count) = (log.replay(Start::At(first)), 0);
    while let Some(record) = replay.next_ref() {
        record?;
        count += 1;
    }
    ensure!(
        count == u64::from(records),
        "{records} records were appended, and {count} were replayed"
    );
    Ok(count)
}

fn walk_all(file: &MappedFile, records: u32) -> anyhow::Result<u64> {
    let sound = file.count_sound();
    ensure!(sound == u64::from(records), "memory has changed");
    Ok(sound)
}
