//! `dacapo topics`: which topics a log has.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use dacapo_log::{Log, TopicSummary};
use indicatif::HumanCount;
use serde::Serialize;

use crate::figures;
use crate::printable::printable;

/// List the topics of a log, with how many records each has
///
/// In the order of their names, byte by byte. A topic is there while it has records: one that was
/// deleted is not. Works while another process is appending, and for any number of topics.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo topics log
  dacapo topics log --prefix rooms:
  dacapo topics log --json | jq -r .topic

A line of --json (more fields may come; none will change its meaning):
  topic         its name
  records       how many records it has
  first_offset  its first record
  last_offset   its last record

Without --json, control characters in names are escaped.")]
pub(crate) struct Args {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Only topics that begin with this
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,

    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// What is handed to the kernel at a time.
const OUT_BYTES: usize = 64 << 10;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let log = crate::open_read_only(&args.dir)?;
    let mut out = BufWriter::with_capacity(OUT_BYTES, io::stdout().lock());
    let listed = match args.json {
        true => list_json(&log, args, &mut out),
        false => list(&log, args, &mut out),
    };
    // What was read before an error is printed before it.
    out.flush().context(crate::CANNOT_PRINT)?;
    listed
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
struct Object<'a> {
    topic: &'a str,
    records: u64,
    first_offset: u64,
    last_offset: u64,
}

fn list_json(log: &Log, args: &Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    for found in log.topics().prefix(&args.prefix) {
        let found = found?;
        let object = Object {
            topic: found.topic.as_str(),
            records: found.records,
            first_offset: found.first.get(),
            last_offset: found.last.get(),
        };
        let line = serde_json::to_string(&object)? + "\n";
        out.write_all(line.as_bytes())
            .context(crate::CANNOT_PRINT)?;
    }
    Ok(crate::OK)
}

fn list(log: &Log, args: &Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let table = Table::of(log);
    let (mut topics, mut records) = (0, 0);
    for found in log.topics().prefix(&args.prefix) {
        let found = found?;
        if topics == 0 {
            table.head(out).context(crate::CANNOT_PRINT)?;
        }
        table.row(out, &found).context(crate::CANNOT_PRINT)?;
        topics += 1;
        records += found.records;
    }
    let (topics, records) = (figures::counted(topics, "topic"), figures::records(records));
    writeln!(out, "{topics}, {records}").context(crate::CANNOT_PRINT)?;
    Ok(crate::OK)
}

/// Columns that are wide enough before a row is known: none has a larger number than the log. Names
/// may be long, so they come last.
struct Table {
    records: usize,
    offset: usize,
}

impl Table {
    fn of(log: &Log) -> Self {
        let next = log.next_offset();
        Self {
            records: HumanCount(next.get()).to_string().len().max(7),
            offset: next.to_string().len().max(5),
        }
    }

    fn head(&self, out: &mut impl Write) -> io::Result<()> {
        self.line(out, ["records", "first", "last", "topic"])
    }

    fn row(&self, out: &mut impl Write, found: &TopicSummary) -> io::Result<()> {
        let records = HumanCount(found.records).to_string();
        let (first, last) = (found.first.to_string(), found.last.to_string());
        let name = printable(found.topic.as_str());
        self.line(out, [&records, &first, &last, &name])
    }

    fn line(&self, out: &mut impl Write, columns: [&str; 4]) -> io::Result<()> {
        let (wide, narrow) = (self.records, self.offset);
        let [records, first, last, topic] = columns;
        writeln!(
            out,
            "{records:>wide$}  {first:>narrow$}  {last:>narrow$}  {topic}"
        )
    }
}
