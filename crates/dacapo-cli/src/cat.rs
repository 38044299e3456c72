//! `dacapo cat`: what a log holds, from the first record to the end as it is now.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use dacapo_log::{Log, Offset, ReadError, Replay, Start};

use crate::amounts::parse_time;
use crate::line::Form;
use crate::selection::Selection;

/// Print the records of a log, oldest first
///
/// Each payload is printed as it came in, with a newline behind it: what `append` read from lines
/// comes out byte for byte. Works while another process is appending; ends at the end as it is then.
/// Where records were lost before a repair, stderr says which.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo cat log > copy.txt
  dacapo cat log --from 1000 --to 1010        Ten records: 1000 to 1009
  dacapo cat log --since 10m                  What was appended in the last ten minutes
  dacapo cat log --json | jq .time
  dacapo cat log --raw --from 3 --to 4        One record, without a newline behind it
  dacapo cat log --skip-damaged > rescued.txt
  dacapo cat log --topic lobby --topic hall   The records of two topics, in their order in the log
  dacapo cat log --prefix rooms:              Those of all topics that begin so

Lines of --json, where `payload` is there for UTF-8 and `payload_base64` for all else:
  {\"offset\":0,\"time\":\"2026-01-31T12:00:00.000000Z\",\"payload\":\"hello\"}
  {\"offset\":1,\"time\":\"2026-01-31T12:00:00.000000Z\",\"topic\":\"lobby\",\"payload\":\"hello\"}
  {\"offset\":2,\"time\":\"2026-01-31T12:00:00.000000Z\",\"topic\":\"lobby\",\"deleted\":true}

The third one says that all records of the topic before it are deleted. It has no payload, and
without --json nothing is printed for it. What was deleted is shown until a compaction removes it,
but not with --topic or --prefix.")]
pub(crate) struct Args {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Begin with this offset instead of the oldest
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,

    /// Begin with the first record of this time or later: RFC 3339, or how long ago, such as 10m
    #[arg(long, value_name = "TIME", conflicts_with = "from", value_parser = parse_time)]
    since: Option<SystemTime>,

    /// End before this offset; one behind the end is fine
    #[arg(long, value_name = "OFFSET")]
    to: Option<u64>,

    /// Print a JSON object a line: offset, time, topic, and payload or payload_base64
    #[arg(long)]
    json: bool,

    /// Print payloads back to back, without a newline behind each
    #[arg(long, conflicts_with = "json")]
    raw: bool,

    /// Go on behind damaged records, say on stderr which were left out, and exit with 1
    #[arg(long)]
    skip_damaged: bool,

    #[command(flatten)]
    selection: Selection,
}

/// What is handed to the kernel at a time.
const OUT_BYTES: usize = 256 << 10;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let log = crate::open_read_only(&args.dir)?;
    let mut out = BufWriter::with_capacity(OUT_BYTES, io::stdout().lock());
    let printed = print(&log, args, &mut out);
    // What was read before an error is printed before it.
    out.flush().context(crate::CANNOT_PRINT)?;
    printed
}

fn print(log: &Log, args: &Args, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let form = match (args.json, args.raw) {
        (true, _) => Form::Json,
        (_, true) => Form::Raw,
        _ => Form::Line,
    };
    let start = match (args.from, args.since) {
        (Some(from), _) => Start::At(Offset::new(from)),
        (None, Some(since)) => Start::Since(since),
        (None, None) => Start::Oldest,
    };

    let mut replay = log.replay(start);
    let mut next = args.from.unwrap_or_else(|| replay.next_offset().get());
    replay = args.selection.of_replay(replay);
    let mut skipped = false;
    let is_behind = |offset: u64| args.to.is_some_and(|to| offset >= to);
    while !is_behind(next) {
        match replay.next_ref() {
            None => break,
            // The next one of a topic may be far away, and so may be what keeps it from being read.
            Some(Ok(record)) if is_behind(record.offset().get()) => break,
            Some(Err(error)) if place(&error).is_some_and(is_behind) => break,
            Some(Ok(record)) => {
                form.write(out, record).context(crate::CANNOT_PRINT)?;
                next = record.offset().get() + 1;
            }
            Some(Err(damage @ (ReadError::Corrupt(_) | ReadError::SegmentMissing { .. }))) => {
                if !args.skip_damaged {
                    let advice = format!("{damage}; --skip-damaged goes on behind it");
                    return Err(damage).context(advice);
                }
                skipped = true;
                let from = replay.next_offset().get();
                match skip(&mut replay, &damage, from) {
                    Some(sound) => next = sound,
                    None => break,
                }
            }
            // The log is sound, and holds no more of it.
            Some(Err(gap @ ReadError::Lost { to, .. })) => {
                let _ = writeln!(io::stderr(), "dacapo: {gap}");
                next = to.get();
            }
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(if skipped { crate::FAILED } else { crate::OK })
}

/// The record at which reading met the damage, or the gap.
fn place(error: &ReadError) -> Option<u64> {
    match error {
        ReadError::Corrupt(damage) => damage.offset.map(Offset::get),
        ReadError::SegmentMissing { offset, .. } => Some(offset.get()),
        ReadError::Lost { from, .. } => Some(from.get()),
        _ => None,
    }
}

/// Moves behind the damage that begins at offset `from`; returns the next sound record's offset.
fn skip(replay: &mut Replay, damage: &impl Display, from: u64) -> Option<u64> {
    let sound = replay.skip_damage().map(Offset::get);
    let left_out = match sound {
        Some(sound) if sound.saturating_sub(from) > 1 => {
            format!("left out records {from} to {}", sound - 1)
        }
        Some(_) => format!("left out record {from}"),
        None => format!("left out record {from} and what was behind it"),
    };
    let _ = writeln!(io::stderr(), "dacapo: {damage}; {left_out}");
    sound
}
