//! `dacapo verify`: every byte of a log against its checksum.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use console::style;
use dacapo_log::{OpenError, Verification};
use serde::Serialize;

use crate::damage::{self, DamageObject, RangeObject};
use crate::figures;

/// Check every byte of a log
///
/// Reads the whole log, changes nothing, and says where damage is and which records it took. The
/// rest of an append that a kill interrupted is no damage: the next open for writing cuts it off. Nor
/// are the gaps that `dacapo repair` left in place of records that were lost.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo verify log
  dacapo verify log --json | jq .sound

Fields of --json (more may come; none will change its meaning):
  sound          true if nothing is damaged
  records        how many sound records there are
  payload_bytes  and how many bytes are in them
  segments       how many segment files
  torn_bytes     the bytes of an unfinished append behind the end
  damages        [{path, position, offset, message}]: where the damaged bytes are, and the record
                 there, or null if that is unknown
  lost           [{from, to}]: offsets of records that cannot be read, `to` not included
  gaps           the same of records that were lost before a repair: no damage

Exit codes:
  0  sound
  1  damaged
  2  not a log, or it cannot be opened")]
pub(crate) struct Args {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let progress = damage::progress_bar();
    let verified = dacapo_log::verify(&args.dir, |done| {
        damage::advance(&progress, done);
    });
    progress.finish_and_clear();

    let found = match verified {
        Ok(found) => found,
        Err(error) => return unopened(error),
    };
    let text = if args.json {
        serde_json::to_string(&Object::new(&found))? + "\n"
    } else {
        describe(&found, &args.dir, started.elapsed())
    };
    crate::print(text)?;
    Ok(if found.is_sound() {
        crate::OK
    } else {
        crate::FAILED
    })
}

/// A log so damaged that it cannot be opened is damaged; all else is not a log that we can check.
fn unopened(error: OpenError) -> anyhow::Result<ExitCode> {
    if matches!(
        error,
        OpenError::Corrupt(_) | OpenError::SegmentMissing { .. }
    ) {
        return Err(error.into());
    }
    crate::report(&error.into());
    Ok(ExitCode::from(2))
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
struct Object {
    sound: bool,
    records: u64,
    payload_bytes: u64,
    segments: usize,
    torn_bytes: u64,
    damages: Vec<DamageObject>,
    lost: Vec<RangeObject>,
    gaps: Vec<RangeObject>,
}

impl Object {
    fn new(found: &Verification) -> Self {
        Self {
            sound: found.is_sound(),
            records: found.records,
            payload_bytes: found.payload_bytes,
            segments: found.segments,
            torn_bytes: found.torn_bytes,
            damages: found.damages.iter().map(DamageObject::new).collect(),
            lost: found.lost.iter().map(RangeObject::new).collect(),
            gaps: found.gaps.iter().map(RangeObject::new).collect(),
        }
    }
}

fn describe(found: &Verification, dir: &Path, elapsed: Duration) -> String {
    let mut lines = damage::lines(&found.damages);
    lines.extend(found.lost.iter().map(damage::lost));
    let contents = format!(
        "{} in {}, {} of payload",
        figures::records(found.records),
        figures::counted(found.segments as u64, "segment"),
        figures::bytes(found.payload_bytes)
    );
    if found.is_sound() {
        let verdict = style("sound").green();
        lines.push(format!(
            "{verdict}: {contents}, checked in {}",
            figures::duration(elapsed)
        ));
    } else {
        lines.push(format!("readable: {contents}"));
        lines.push(format!(
            "read it with: dacapo cat --skip-damaged {}",
            dir.display()
        ));
        lines.push(format!(
            "repair it with: dacapo repair {} NEW_DIR",
            dir.display()
        ));
    }
    lines.extend(damage::gaps(&found.gaps));
    if found.torn_bytes > 0 {
        let bytes = figures::counted(found.torn_bytes, "byte");
        lines.push(format!(
            "behind the end: {bytes} of an unfinished append, as a kill leaves them; no record is damaged"
        ));
    }
    lines.join("\n") + "\n"
}
