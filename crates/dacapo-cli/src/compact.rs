//! `dacapo compact`: the space of what was deleted, given back.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use dacapo_log::{Compacted, Log};
use serde::Serialize;

use crate::{damage, figures};

/// Give back the space of deleted topics
///
/// Rewrites each segment file that holds records of a topic from before its deletion, one at a time, so
/// that there must be space for the largest once more. Offsets do not change; who reads the log
/// meanwhile goes on. Killed at any moment, it loses nothing, and another run does the rest.
///
/// While a process is writing to the log, that one compacts, and this command is refused.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo compact log                                What was deleted goes
  dacapo compact log --keep-last 1                  And all but the last record of each topic
  dacapo compact log --keep-last 100 --prefix chat: Only of topics that begin so

Fields of --json (more may come; none will change its meaning):
  segments      how many segment files were rewritten
  records       how many records went
  bytes_before  how many bytes those files had
  bytes_after   and how many they have now")]
pub(crate) struct Args {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Keep the newest so many records of each topic only; records without a topic stay
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    keep_last: Option<u64>,

    /// But all records of topics whose names do not begin so
    #[arg(long, value_name = "PREFIX", requires = "keep_last")]
    prefix: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    // Opening for writing would make a log where there is none.
    drop(crate::open_read_only(&args.dir)?);
    let mut options = Log::options();
    if let Some(records) = args.keep_last {
        options = options.topic_limit(args.prefix.as_deref().unwrap_or(""), records);
    }
    let log = options.open(&args.dir)?;
    let progress = damage::progress_bar();
    let compacted = log.compact(|done| damage::advance(&progress, done));
    progress.finish_and_clear();
    // First: what is wrong with a segment is no reason to leave the log unclean.
    log.close().context("cannot close the log")?;
    let compacted = compacted?;
    let text = if args.json {
        serde_json::to_string(&Object::new(&compacted))? + "\n"
    } else {
        describe(&compacted, started.elapsed())
    };
    crate::print(text)?;
    Ok(crate::OK)
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
struct Object {
    segments: usize,
    records: u64,
    bytes_before: u64,
    bytes_after: u64,
}

impl Object {
    fn new(compacted: &Compacted) -> Self {
        Self {
            segments: compacted.segments,
            records: compacted.records,
            bytes_before: compacted.bytes_before,
            bytes_after: compacted.bytes_after,
        }
    }
}

fn describe(compacted: &Compacted, elapsed: Duration) -> String {
    if compacted.segments == 0 {
        return "nothing to compact: no record can go\n".to_owned();
    }
    let given_back = compacted.bytes_before.saturating_sub(compacted.bytes_after);
    format!(
        "removed {} from {} in {}: {} given back\n",
        figures::records(compacted.records),
        figures::counted(compacted.segments as u64, "segment"),
        figures::duration(elapsed),
        figures::bytes(given_back),
    )
}
