//! `dacapo tail`: a log's records from the first, then live.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;
use std::time::SystemTime;

use anyhow::Context;
use dacapo_log::{Offset, ReadError, Start};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::amounts::parse_time;
use crate::line::Form;
use crate::selection::Selection;

/// Print the records of a log, then follow what is appended, live
///
/// Also while another process is writing. Nothing is left out or doubled where replaying goes over
/// into following. Ends with --count, with SIGINT, or when nobody reads its output any more.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo tail log
  dacapo tail log --from latest --json        Only what is appended from now on
  dacapo tail log --from 1000                 Go on where a reader stopped
  dacapo tail log --since 10m                 The last ten minutes, and then what comes
  dacapo tail log --durable                   Never show what a power cut could undo
  dacapo tail log --from latest -n 1          Wait for one record
  dacapo tail log --topic rooms:lobby         Wakes for the records of this topic alone

A line of --json is that of `dacapo cat`. The deletion of a topic counts as a record, and prints
nothing without --json.")]
pub(crate) struct Args {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Where to begin: oldest, latest (only what is new), or an offset
    #[arg(long, value_name = "WHERE", default_value = "oldest")]
    from: Beginning,

    /// Begin with the first record of this time or later: RFC 3339, or how long ago, such as 10m
    #[arg(long, value_name = "TIME", conflicts_with = "from", value_parser = parse_time)]
    since: Option<SystemTime>,

    /// Exit after this many records
    #[arg(short = 'n', long, value_name = "COUNT")]
    count: Option<u64>,

    /// Show a record only once it survives a power cut
    #[arg(long)]
    durable: bool,

    /// Print a JSON object a line: offset, time, topic, and payload or payload_base64
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    selection: Selection,
}

/// `--from` on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Beginning(Start);

impl FromStr for Beginning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "oldest" => Ok(Self(Start::Oldest)),
            "latest" => Ok(Self(Start::Latest)),
            _ => match text.parse() {
                Ok(offset) => Ok(Self(Start::At(Offset::new(offset)))),
                Err(_) => Err("`oldest`, `latest` or an offset".to_owned()),
            },
        }
    }
}

/// What is handed to the kernel at a time while there is more to print.
const OUT_BYTES: usize = 64 << 10;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let log = crate::open_read_only(&args.dir)?;
    let form = if args.json { Form::Json } else { Form::Line };
    let start = args.since.map_or(args.from.0, Start::Since);
    let mut tailer = args.selection.of_tailer(log.tail(start));
    if args.durable {
        tailer = tailer.durable_only();
    }
    exit_when_unread()?;

    let mut out = BufWriter::with_capacity(OUT_BYTES, io::stdout().lock());
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let read = match tailer.try_next() {
            Ok(None) => {
                // Caught up: a person or a program waits for what is in the buffer.
                out.flush().context(crate::CANNOT_PRINT)?;
                tailer.next_blocking().map(Some)
            }
            read => read,
        };
        let record = match read {
            Ok(Some(record)) => record,
            Ok(None) => continue,
            // The log is sound, and goes on behind it.
            Err(gap @ ReadError::Lost { .. }) => {
                let _ = writeln!(io::stderr(), "dacapo: {gap}");
                continue;
            }
            Err(error) => {
                out.flush().context(crate::CANNOT_PRINT)?;
                return Err(error.into());
            }
        };
        left -= 1;
        form.write(&mut out, &record).context(crate::CANNOT_PRINT)?;
    }
    out.flush().context(crate::CANNOT_PRINT)?;
    Ok(crate::OK)
}

/// Ends the process once the reader of its output is gone.
///
/// Without this, `dacapo tail log | head -n 1` would stay until the next record is appended,
/// which is when a write fails.
fn exit_when_unread() -> io::Result<()> {
    thread::Builder::new()
        .name("dacapo-unread".to_owned())
        .spawn(|| {
            let stdout = io::stdout();
            loop {
                // No event is asked for; errors and hang-ups are always reported.
                let mut output = [PollFd::new(&stdout, PollFlags::empty())];
                match poll(&mut output, None) {
                    Ok(_) if !output[0].revents().is_empty() => std::process::exit(0),
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(_) => return, // the next write will tell
                }
            }
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_begins_at_the_oldest_the_latest_or_an_offset() {
        assert_eq!("oldest".parse(), Ok(Beginning(Start::Oldest)));
        assert_eq!("latest".parse(), Ok(Beginning(Start::Latest)));
        assert_eq!("12".parse(), Ok(Beginning(Start::At(Offset::new(12)))));
        assert!("-1".parse::<Beginning>().is_err());
        assert!("newest".parse::<Beginning>().is_err());
    }
}
