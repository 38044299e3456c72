//! `dacapo prune`: the oldest records, given up.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dacapo_log::{Kept, Log, Offset, Pruning, Retention};
use serde::Serialize;

use crate::amounts::{parse_bytes, parse_duration};
use crate::{figures, open_read_only};

/// Drop the oldest records of a log
///
/// Only whole segment files are dropped, and the newest one never: what is left can begin before
/// the limit. Offsets do not change. Of several limits, each one counts. While a process is writing
/// to the log, that one drops, and this command is refused; --dry-run looks all the same.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo prune log --max-age 7d --dry-run     What is older than a week, and would go
  dacapo prune log --max-age 7d --max-bytes 10G
  dacapo prune log --max-records 1000000      Keep the newest million
  dacapo prune log --before 5000              Keep record 5000 and all behind it
  dacapo prune log --max-age 7d --json | jq .file_bytes

Fields of --json (more may come; none will change its meaning):
  dry_run        true if nothing was dropped, and the others say what would have been
  segments       how many segment files were dropped
  records        how many records were in them
  file_bytes     and how many bytes these files had
  oldest_offset  the first record that is left
  kept           why records are left that were to be dropped, null if there are none:
                 `segment` (they share a file with others), `newest` (they are in the newest file),
                 `not_durable`, or `held`")]
#[command(group = clap::ArgGroup::new("limit").required(true).multiple(true))]
pub(crate) struct Args {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Drop the records before this offset
    #[arg(long, value_name = "OFFSET", group = "limit")]
    #[arg(conflicts_with_all = ["max_bytes", "max_age", "max_records"])]
    before: Option<u64>,

    /// Drop the oldest until the files have no more than this together: a number, or 64K, 16M, 1G
    #[arg(long, value_name = "SIZE", group = "limit", value_parser = parse_bytes)]
    max_bytes: Option<u64>,

    /// Drop what is older than this: 30s, 10m, \"2h 30m\", 7d
    #[arg(long, value_name = "DURATION", group = "limit", value_parser = parse_duration)]
    max_age: Option<Duration>,

    /// Drop all but the newest so many records
    #[arg(long, value_name = "COUNT", group = "limit")]
    max_records: Option<u64>,

    /// Only say what would be dropped
    #[arg(long)]
    dry_run: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // First, because an open for writing creates a log where there is none.
    let log = open_read_only(&args.dir)?;
    let (retention, before) = (args.retention(), args.before.map(Offset::new));
    let pruning = match (args.dry_run, before) {
        (true, before) => {
            let _held = dacapo::hold_for_consumers(&log);
            match before {
                Some(before) => log.would_prune(before)?,
                None => log.would_retain(&retention)?,
            }
        }
        (false, before) => {
            drop(log);
            let log = Log::open(&args.dir)?;
            let _held = dacapo::hold_for_consumers(&log);
            let pruning = match before {
                Some(before) => log.prune(before)?,
                None => log.retain(&retention)?,
            };
            log.close()?;
            pruning
        }
    };
    let text = if args.json {
        serde_json::to_string(&Object::new(&pruning, args.dry_run))? + "\n"
    } else {
        describe(&pruning, args.dry_run)
    };
    crate::print(text)?;
    Ok(crate::OK)
}

impl Args {
    fn retention(&self) -> Retention {
        let mut retention = Retention::default();
        if let Some(bytes) = self.max_bytes {
            retention = retention.bytes_max(bytes);
        }
        if let Some(age) = self.max_age {
            retention = retention.age_max(age);
        }
        if let Some(records) = self.max_records {
            retention = retention.records_max(records);
        }
        retention
    }
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
struct Object {
    dry_run: bool,
    segments: usize,
    records: u64,
    file_bytes: u64,
    oldest_offset: u64,
    kept: Option<&'static str>,
}

impl Object {
    fn new(pruning: &Pruning, dry_run: bool) -> Self {
        let kept = pruning.kept.as_ref().map(|kept| match kept {
            Kept::Segment { .. } => "segment",
            Kept::Held(_) => "held",
            Kept::NotDurable { .. } => "not_durable",
            Kept::Newest => "newest",
            _ => "other",
        });
        Self {
            dry_run,
            segments: pruning.segments,
            records: pruning.records,
            file_bytes: pruning.file_bytes,
            oldest_offset: pruning.oldest.get(),
            kept,
        }
    }
}

fn describe(pruning: &Pruning, dry_run: bool) -> String {
    let dropped = if dry_run { "would drop" } else { "dropped" };
    let oldest = pruning.oldest;
    let mut text = match pruning.segments {
        0 => format!("{dropped} nothing: the oldest record is {oldest}\n"),
        segments => format!(
            "{dropped} {} in {}, {}: the oldest record is now {oldest}\n",
            figures::records(pruning.records),
            figures::counted(segments as u64, "segment"),
            figures::bytes(pruning.file_bytes),
        ),
    };
    text += &match &pruning.kept {
        None if pruning.segments == 0 => "all that is there is to be kept\n".to_owned(),
        None => String::new(),
        Some(Kept::Segment { end }) => {
            let last = end.get() - 1;
            format!(
                "kept records {oldest} to {last}: they are in one file, and some are to be kept\n"
            )
        }
        Some(Kept::Newest) => {
            format!("kept the records from {oldest} on: the newest segment always stays\n")
        }
        Some(Kept::NotDurable { durable }) => {
            format!("kept the records from {oldest} on: they are durable only up to {durable}\n")
        }
        Some(Kept::Held(hold)) => format!(
            "kept the records from {oldest} on: {:?} holds them from {} on\n",
            hold.name, hold.offset
        ),
        Some(_) => format!("kept the records from {oldest} on\n"),
    };
    text
}
