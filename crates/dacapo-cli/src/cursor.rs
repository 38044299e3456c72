//! `dacapo cursor`: how far each consumer of a log has come.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Subcommand;
use dacapo::{Checkpoint, Cursor, Cursors, Position};
use dacapo_log::{Log, Offset, Topic};
use jiff::Timestamp;
use serde::Serialize;

use crate::figures;
use crate::printable::printable;

/// List, set and delete the cursors of consumers
///
/// A cursor is the name of a consumer and the next record that it has not handled yet. Listing works
/// while a program has the cursors open; setting and deleting do not.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo cursor list log                  How far each has come, and what is left
  dacapo cursor set log billing oldest    Let one begin anew
  dacapo cursor set log billing 5000      Let it go on from a record
  dacapo cursor delete log billing")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(List),
    Get(Get),
    Set(Set),
    Delete(Delete),
    Rebuild(Rebuild),
}

/// List the consumers of a log, and how many records are left for each
#[derive(clap::Args)]
#[command(after_help = "\
A line of --json (more fields may come; none will change its meaning):
  cursor     the consumer's name
  offset     the next record that it has not handled
  epoch      the log's epoch when that was said
  lag        how many records there are that it has not handled
  topic      the topic that it reads; not there if it reads all records
  holds      whether retention keeps what it has not handled
  committed  when it was committed, in RFC 3339")]
struct List {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Print a JSON object a line
    #[arg(long)]
    json: bool,
}

/// Print the offset at which a consumer goes on
#[derive(clap::Args)]
struct Get {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The consumer's name
    #[arg(value_name = "NAME")]
    name: String,

    /// Print it as a line of `list --json`
    #[arg(long)]
    json: bool,
}

/// Set the record with which a consumer goes on, or make a new one
#[derive(clap::Args)]
struct Set {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The consumer's name
    #[arg(value_name = "NAME")]
    name: String,

    /// An offset, `oldest`, or `latest`: behind all records
    #[arg(value_name = "OFFSET")]
    to: Place,

    /// The topic that a new consumer reads; one that is there keeps its own
    #[arg(long, value_name = "TOPIC")]
    topic: Option<Topic>,

    /// Whether retention keeps what the consumer has not handled; as it was, or not, by default
    #[arg(long, value_name = "YES")]
    holds: Option<bool>,
}

/// Delete a consumer's cursor: it begins with the oldest record, if it comes again
#[derive(clap::Args)]
struct Delete {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The consumer's name
    #[arg(value_name = "NAME")]
    name: String,
}

/// Build damaged cursors anew, and keep what of them can still be read
///
/// The damaged files are put aside in the log's directory, under names that end in `.damaged-1` or the
/// next number that is free. A consumer that has lost its cursor begins with the oldest record; no
/// record is lost.
#[derive(clap::Args)]
struct Rebuild {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Clone, Copy)]
enum Place {
    Oldest,
    Latest,
    At(Offset),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "oldest" => Ok(Self::Oldest),
            "latest" => Ok(Self::Latest),
            _ => match text.parse() {
                Ok(offset) => Ok(Self::At(Offset::new(offset))),
                Err(_) => Err("it is an offset, `oldest` or `latest`".to_owned()),
            },
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::List(args) => list(args),
        Command::Get(args) => get(args),
        Command::Set(args) => set(args),
        Command::Delete(args) => delete(args),
        Command::Rebuild(args) => rebuild(args),
    }
}

fn list(args: &List) -> anyhow::Result<ExitCode> {
    let (log, cursors) = read(&args.dir)?;
    if args.json {
        let mut lines = String::new();
        for cursor in &cursors {
            lines += &json_line(&log, cursor)?;
        }
        crate::print(lines)?;
        return Ok(crate::OK);
    }
    let mut rows = vec![["offset", "lag", "committed", "name"].map(str::to_owned)];
    for cursor in &cursors {
        let mut name = printable(&cursor.name);
        if let Some(topic) = &cursor.topic {
            name += &format!("  (topic {})", printable(topic.as_str()));
        }
        if cursor.holds {
            name += "  (holds)";
        }
        let lag = cursor.lag(&log)?.to_string();
        let offset = cursor.checkpoint.offset.to_string();
        rows.push([offset, lag, committed(cursor)?, name]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (offsets, lags, times) = (width(0), width(1), width(2));
    let mut text = String::new();
    if rows.len() > 1 {
        for [offset, lag, time, name] in &rows {
            text += &format!("{offset:>offsets$}  {lag:>lags$}  {time:<times$}  {name}\n");
        }
    }
    let count = u64::try_from(cursors.len()).expect("few enough");
    text += &format!("{}\n", figures::counted(count, "cursor"));
    crate::print(text)?;
    Ok(crate::OK)
}

fn get(args: &Get) -> anyhow::Result<ExitCode> {
    let (log, cursors) = read(&args.dir)?;
    let Some(cursor) = cursors.iter().find(|cursor| cursor.name == args.name) else {
        return none(&args.dir, &args.name);
    };
    match args.json {
        true => crate::print(json_line(&log, cursor)?)?,
        false => crate::print(format!("{}\n", cursor.checkpoint.offset))?,
    }
    Ok(crate::OK)
}

fn set(args: &Set) -> anyhow::Result<ExitCode> {
    let log = crate::open_read_only(&args.dir)?;
    let (oldest, next) = (log.oldest(), log.next_offset());
    let offset = match args.to {
        Place::Oldest => oldest,
        Place::Latest => next,
        Place::At(offset) if offset < oldest => {
            bail!("offset {offset} was dropped; the oldest record is {oldest}");
        }
        Place::At(offset) if offset > next => {
            bail!("there is no record {offset}; the next one that is appended gets offset {next}");
        }
        Place::At(offset) => offset,
    };
    let cursors = Cursors::of(&log)?;
    let known = cursors.get(&args.name);
    let topic = match (&known, &args.topic) {
        (Some(known), Some(asked)) if known.topic.as_ref() != Some(asked) => bail!(
            "`{}` reads another topic; delete it first, or use another name",
            printable(&args.name)
        ),
        (Some(known), _) => known.topic.clone(),
        (None, asked) => asked.clone(),
    };
    let holds = args.holds.or(known.map(|known| known.holds));
    let epoch = log.epoch();
    let mut position = Position::new(Checkpoint { offset, epoch }).holds(holds.unwrap_or(false));
    position.topic = topic;
    cursors.set(&args.name, position)?;
    let name = printable(&args.name);
    crate::print(format!("`{name}` goes on with record {offset}.\n"))?;
    Ok(crate::OK)
}

fn delete(args: &Delete) -> anyhow::Result<ExitCode> {
    let log = crate::open_read_only(&args.dir)?;
    // Opening them would make a store where there is none.
    let published = Cursors::published(&args.dir)?;
    if published.log_id.is_none() || !Cursors::of(&log)?.delete(&args.name)? {
        return none(&args.dir, &args.name);
    }
    let name = printable(&args.name);
    crate::print(format!("Deleted the cursor of `{name}`.\n"))?;
    Ok(crate::OK)
}

fn rebuild(args: &Rebuild) -> anyhow::Result<ExitCode> {
    let log = crate::open_read_only(&args.dir)?;
    let log_id = log.id();
    let cursors = Cursors::rebuild(&args.dir, log_id)?;
    let mut text = String::new();
    for notice in cursors.notices() {
        text += &format!("{notice}\n");
    }
    let kept = u64::try_from(cursors.list().len()).expect("few enough");
    text += &format!("Kept {}.\n", figures::counted(kept, "cursor"));
    crate::print(text)?;
    Ok(crate::OK)
}

/// The log, and its cursors as they were last committed.
fn read(dir: &Path) -> anyhow::Result<(Log, Vec<Cursor>)> {
    let log = crate::open_read_only(dir)?;
    let published = Cursors::published(dir)?;
    let log_id = log.id();
    if published.log_id.is_some_and(|found| found != log_id) {
        bail!(
            "the cursors in {} belong to another log; `dacapo cursor rebuild` puts them aside",
            dir.display()
        );
    }
    Ok((log, published.cursors))
}

fn none(dir: &Path, name: &str) -> anyhow::Result<ExitCode> {
    bail!(
        "the log in {} has no cursor `{}`; `dacapo cursor list` lists those it has",
        dir.display(),
        printable(name)
    )
}

fn committed(cursor: &Cursor) -> anyhow::Result<String> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(cursor.committed_micros);
    let time = Timestamp::try_from(time).context("the cursor's time is out of range")?;
    Ok(time.to_string())
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
struct Object<'a> {
    cursor: &'a str,
    offset: u64,
    epoch: u64,
    lag: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    holds: bool,
    committed: String,
}

fn json_line(log: &Log, cursor: &Cursor) -> anyhow::Result<String> {
    let object = Object {
        cursor: &cursor.name,
        offset: cursor.checkpoint.offset.get(),
        epoch: cursor.checkpoint.epoch.get(),
        lag: cursor.lag(log)?,
        topic: cursor.topic.as_ref().map(Topic::as_str),
        holds: cursor.holds,
        committed: committed(cursor)?,
    };
    Ok(serde_json::to_string(&object)? + "\n")
}
