//! `dacapo delete-topic`: the end of a topic, as a record that says so.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use dacapo_log::{Log, Topic};

use crate::figures;
use crate::printable::printable;

/// Delete all records of a topic
///
/// By a record that says so, and is on disk when the command ends: whoever reads the topic from
/// then on sees none of what was deleted, and what is appended later begins it anew. The space
/// comes back by a compaction; until then, reading the log as a whole still shows the records.
///
/// A log that another process is appending to cannot be changed by this one.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo delete-topic log rooms:lobby
  dacapo topics log --prefix rooms:           Which ones there are

A topic without records is an error: nothing is appended then.")]
pub(crate) struct Args {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The topic's name
    #[arg(value_name = "NAME")]
    topic: Topic,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Opening for writing would make a log where there is none.
    drop(crate::open_read_only(&args.dir)?);
    let log = Log::open(&args.dir)?;
    let name = printable(args.topic.as_str());
    let records = records_of(&log, &args.topic)?;
    if records == 0 {
        bail!(
            "the log in {} has no topic `{name}`; `dacapo topics` lists those it has",
            args.dir.display()
        );
    }
    let offset = log.delete_topic(&args.topic)?;
    log.close().context("cannot close the log")?;
    let records = figures::records(records);
    crate::print(format!(
        "Deleted {records} of topic `{name}`, by the record at offset {offset}.\n\
         The space comes back by a compaction.\n"
    ))?;
    Ok(crate::OK)
}

fn records_of(log: &Log, topic: &Topic) -> anyhow::Result<u64> {
    // Of the names that begin with it, it is the first.
    let first = log.topics().prefix(topic.as_str()).next().transpose()?;
    Ok(first
        .filter(|found| found.topic == *topic)
        .map_or(0, |found| found.records))
}
