//! `dacapo repair`: what is sound of a damaged log, in a new one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use console::style;
use dacapo_log::Repair;
use serde::Serialize;

use crate::damage::{self, DamageObject, RangeObject};
use crate::figures;

/// Copy what is sound of a damaged log into a new one
///
/// Every record keeps its offset and its time. What is lost leaves a gap: readers are told of it and
/// go on behind it. The damaged log is only read, and works from a disk that is mounted read-only.
/// The new one is complete once the command ends with 0 or 1; before that there is no log there.
///
/// The rest of an append that a kill or a power cut interrupted is not copied, and is not lost: the
/// next open for writing would have cut it off.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo verify log                        Is it damaged, and where?
  dacapo repair log repaired               Copy what is sound
  dacapo stat repaired                     Which records are missing
  mv log damaged && mv repaired log        Go on with the repaired log; keep the other one
  dacapo repair log repaired --json | jq .lost

Fields of --json (more may come; none will change its meaning):
  complete       true if every record was copied
  records        how many records were copied
  payload_bytes  and how many bytes are in them
  segments       how many segment files were written
  next_offset    the offset of the next append
  torn_bytes     the bytes of an unfinished append, which were left out
  damages        [{path, position, offset, message}]: where the damaged bytes are, and the record
                 there, or null if that is unknown
  lost           [{from, to}]: offsets of records that could not be copied, `to` not included
  gaps           the same of records that were lost before an earlier repair

Exit codes:
  0  every record was copied
  1  some records are lost; all others were copied
  2  nothing was made: SRC is not a log or is being written, DST is not empty, the disk is full")]
pub(crate) struct Args {
    /// The damaged log's directory
    #[arg(value_name = "SRC")]
    src: PathBuf,

    /// The directory for the repaired log: a new or an empty one
    #[arg(value_name = "DST")]
    dst: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let progress = damage::progress_bar();
    let repaired = dacapo_log::repair(&args.src, &args.dst, |done| {
        damage::advance(&progress, done);
    });
    progress.finish_and_clear();

    let found = match repaired {
        Ok(found) => found,
        // 1 is for a new log that is there.
        Err(error) => {
            crate::report(&error.into());
            return Ok(ExitCode::from(2));
        }
    };
    let text = if args.json {
        serde_json::to_string(&Object::new(&found))? + "\n"
    } else {
        describe(&found, &args.dst, started.elapsed())
    };
    crate::print(text)?;
    Ok(if found.is_complete() {
        crate::OK
    } else {
        crate::FAILED
    })
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
struct Object {
    complete: bool,
    records: u64,
    payload_bytes: u64,
    segments: usize,
    next_offset: u64,
    torn_bytes: u64,
    damages: Vec<DamageObject>,
    lost: Vec<RangeObject>,
    gaps: Vec<RangeObject>,
}

impl Object {
    fn new(found: &Repair) -> Self {
        Self {
            complete: found.is_complete(),
            records: found.records,
            payload_bytes: found.payload_bytes,
            segments: found.segments,
            next_offset: found.next.get(),
            torn_bytes: found.torn_bytes,
            damages: found.damages.iter().map(DamageObject::new).collect(),
            lost: found.lost.iter().map(RangeObject::new).collect(),
            gaps: found.gaps.iter().map(RangeObject::new).collect(),
        }
    }
}

fn describe(found: &Repair, dst: &Path, elapsed: Duration) -> String {
    let mut lines = damage::lines(&found.damages);
    lines.extend(found.lost.iter().map(damage::lost));
    lines.extend(damage::gaps(&found.gaps));
    if found.torn_bytes > 0 {
        let bytes = figures::counted(found.torn_bytes, "byte");
        lines.push(format!(
            "left out: {bytes} of an unfinished append, as a kill leaves them"
        ));
    }
    let verdict = match found.is_complete() {
        true => style("repaired, nothing is lost").green(),
        false => style("repaired").yellow(),
    };
    lines.push(format!(
        "{verdict}: {} in {}, {} of payload, copied to {} in {}",
        figures::records(found.records),
        figures::counted(found.segments as u64, "segment"),
        figures::bytes(found.payload_bytes),
        dst.display(),
        figures::duration(elapsed)
    ));
    lines.join("\n") + "\n"
}
