//! `dacapo stat`: what a log holds, in figures.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dacapo_log::{EpochStatus, Offset, Status};
use indicatif::HumanCount;
use serde::Serialize;

use crate::damage::{self, RangeObject};
use crate::figures;

/// Show how much a log holds, since when, and how it ended last
///
/// Reads only, also while another process is writing.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo stat log
  dacapo stat log --json | jq .records

Fields of --json (more may come; none will change its meaning):
  records               how many records it holds: next_offset - oldest_offset, less the gaps
  next_offset           the offset of the next append
  oldest_offset         the first offset that was not pruned; next_offset if there is none
  newest_offset         the last offset; null if there is none
  gaps                  [{from, to}]: offsets of records that were lost before a repair, `to` not
                        included
  durable_offset        the records before it are known to survive a power cut
  segments, file_bytes  how many segment files, and the bytes of all its files
  oldest_time           when the oldest record was appended, RFC 3339; null if there is none
  newest_time           the same for the newest
  log_id                32 hexadecimal digits, for as long as the log lives
  format_version        of the bytes on disk
  clean                 closed cleanly and not opened since; false while a process is writing
  writer_pid            the process that is writing now; null if none is
  last_recovery_micros  how long the last recovery after an unclean end took; null if there was none
  epochs                [{epoch, start_offset, opened, recovery_micros, cut_bytes}], oldest first:
                        a new one begins with each recovery, which may cut off an unfinished append")]
pub(crate) struct Args {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let status = crate::open_read_only(&args.dir)?.status()?;
    let text = if args.json {
        serde_json::to_string(&Object::new(&status))? + "\n"
    } else {
        describe(&status)
    };
    crate::print(text)?;
    Ok(crate::OK)
}

/// How many records the log holds.
pub(crate) fn records(status: &Status) -> u64 {
    let lost: u64 = status.gaps.iter().map(damage::count).sum();
    status.next.since(status.oldest).saturating_sub(lost)
}

/// How long the last recovery took. The first epoch began with a new log, not with a recovery.
pub(crate) fn last_recovery(status: &Status) -> Option<Duration> {
    match status.epochs.as_slice() {
        [_, .., last] => Some(last.recovery),
        _ => None,
    }
}

fn newest(status: &Status) -> Option<Offset> {
    (status.next > status.oldest).then(|| Offset::new(status.next.get() - 1))
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
struct Object {
    records: u64,
    next_offset: u64,
    oldest_offset: u64,
    newest_offset: Option<u64>,
    gaps: Vec<RangeObject>,
    durable_offset: u64,
    segments: usize,
    file_bytes: u64,
    oldest_time: Option<String>,
    newest_time: Option<String>,
    log_id: String,
    format_version: u32,
    clean: bool,
    writer_pid: Option<u32>,
    last_recovery_micros: Option<u64>,
    epochs: Vec<EpochObject>,
}

#[derive(Serialize)]
struct EpochObject {
    epoch: u64,
    start_offset: u64,
    opened: String,
    recovery_micros: u64,
    cut_bytes: u64,
}

impl Object {
    fn new(status: &Status) -> Self {
        Self {
            records: records(status),
            next_offset: status.next.get(),
            oldest_offset: status.oldest.get(),
            newest_offset: newest(status).map(Offset::get),
            gaps: status.gaps.iter().map(RangeObject::new).collect(),
            durable_offset: status.durable.get(),
            segments: status.segments,
            file_bytes: status.file_bytes,
            oldest_time: status.oldest_timestamp_micros.map(figures::time),
            newest_time: status.newest_timestamp_micros.map(figures::time),
            log_id: log_id(status),
            format_version: status.format_version,
            clean: status.clean,
            writer_pid: status.writer_pid,
            last_recovery_micros: last_recovery(status).map(micros),
            epochs: status.epochs.iter().map(EpochObject::new).collect(),
        }
    }
}

impl EpochObject {
    fn new(epoch: &EpochStatus) -> Self {
        Self {
            epoch: epoch.epoch.get(),
            start_offset: epoch.start.get(),
            opened: figures::time(epoch.opened_micros),
            recovery_micros: micros(epoch.recovery),
            cut_bytes: epoch.cut_bytes,
        }
    }
}

fn log_id(status: &Status) -> String {
    format!("{:032x}", status.log_id)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn describe(status: &Status) -> String {
    let mut lines = Lines(String::new());
    lines.add(
        "log",
        &format!("{}, format {}", log_id(status), status.format_version),
    );
    lines.add("state", &state(status));
    lines.add("records", &HumanCount(records(status)).to_string());
    if let Some(newest) = newest(status) {
        lines.add("offsets", &format!("{} to {newest}", status.oldest));
    }
    if let Some(gaps) = damage::gaps(&status.gaps) {
        lines.add("lost", &gaps);
    }
    if let (Some(oldest), Some(newest)) = (
        status.oldest_timestamp_micros,
        status.newest_timestamp_micros,
    ) {
        lines.add(
            "times",
            &format!("{} to {}", figures::time(oldest), figures::time(newest)),
        );
    }
    lines.add(
        "on disk",
        &format!(
            "{} in {}",
            figures::bytes(status.file_bytes),
            figures::counted(status.segments as u64, "segment")
        ),
    );
    lines.add(
        "durable",
        &match status.next.since(status.durable) {
            0 => "everything".to_owned(),
            later => format!(
                "everything before offset {}; {later} behind it",
                status.durable
            ),
        },
    );
    for epoch in &status.epochs {
        lines.add(
            &format!("epoch {}", epoch.epoch.get()),
            &describe_epoch(epoch),
        );
    }
    lines.0
}

fn state(status: &Status) -> String {
    match (status.writer_pid, status.clean) {
        (Some(pid), _) => format!("process {pid} is writing"),
        (None, true) => "closed cleanly".to_owned(),
        (None, false) => "not closed cleanly: the next append recovers it".to_owned(),
    }
}

fn describe_epoch(epoch: &EpochStatus) -> String {
    let mut text = format!(
        "from offset {}, {}",
        epoch.start,
        figures::time(epoch.opened_micros)
    );
    if !epoch.recovery.is_zero() {
        // Writing to a string cannot fail.
        let _ = write!(text, ", recovered in {}", figures::duration(epoch.recovery));
    }
    if epoch.cut_bytes > 0 {
        let cut = figures::counted(epoch.cut_bytes, "byte");
        let _ = write!(text, ", cut off {cut} of an unfinished append");
    }
    text
}

/// Lines of a name and a value, in two columns.
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.0, "{name:<10}{value}");
    }
}
