//! `dacapo backup`: a copy of a log that is a log too, made while it is written.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use console::style;
use dacapo_log::{Backup, BackupError, Verification};
use serde::Serialize;

use crate::damage::{self, DamageObject, RangeObject};
use crate::figures;

/// Make a backup of a log, or bring one up to date
///
/// Works while another process is writing. The backup is a log too: every record that was durable when
/// the command began is in it, and every command reads it. Run again with the same DST, it adds what is
/// new and drops what the log has dropped; interrupted, it goes on. The cursors of consumers come along.
///
/// On the log's own filesystem the full segments are hard links: the backup takes next to no space or
/// time, and protects from deleting and pruning. To be safe from a disk that fails, name a directory
/// on another one. To restore, put the backup in the place of the log: moved, it needs no conversion.
///
/// A backup that was opened for writing is a log of its own, and is never overwritten.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo backup log /mnt/other/log         Make a backup, or bring it up to date
  dacapo backup log before-upgrade         On the same disk: done in no time
  dacapo backup --verify log copy          Then check every byte of it
  mv log broken && mv copy log             Go on with the backup; keep the other one

Fields of --json (more may come; none will change its meaning):
  oldest_offset  the first offset of the backup; next_offset if it holds none
  next_offset    the offset behind its last record
  not_durable    how many records were left out, because they were not durable yet
  segments       how many segment files it holds: linked + copied + kept
  linked         those that take no space of their own
  copied         those that were copied
  copied_bytes   and how many bytes these have
  kept           those that were there from an earlier run
  sound          true or false with --verify, otherwise null
  damages, lost  what --verify has found, as `dacapo verify --json` has it; otherwise empty

Exit codes:
  0  the backup is made
  1  failed; or it is made, and --verify found damage in it
  2  nothing was made: DIR is not a log, or DST is something else than a backup of it")]
pub(crate) struct Args {
    /// The log's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// The backup's directory: a new or an empty one, or an earlier backup of the same log
    #[arg(value_name = "DST")]
    dst: PathBuf,

    /// Check every byte of the backup when it is made
    ///
    /// Full segments are not checked otherwise, so that damage in them comes along.
    #[arg(long)]
    verify: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let log = crate::open_read_only(&args.dir)?;
    let progress = damage::progress_bar();
    let made = dacapo::backup(&log, &args.dst, |done| damage::advance(&progress, done));
    progress.finish_and_clear();
    let made = match made {
        Ok(made) => made,
        Err(dacapo::BackupError::Log(error)) if is_refusal(&error) => {
            crate::report(&error.into());
            return Ok(ExitCode::from(2));
        }
        Err(error) => return Err(error.into()),
    };
    let elapsed = started.elapsed();
    let verified = match args.verify {
        true => {
            let progress = damage::progress_bar();
            let verified = dacapo_log::verify(&args.dst, |done| damage::advance(&progress, done));
            progress.finish_and_clear();
            Some(verified?)
        }
        false => None,
    };
    let text = if args.json {
        serde_json::to_string(&Object::new(&made, verified.as_ref()))? + "\n"
    } else {
        describe(&made, verified.as_ref(), &args.dst, elapsed)
    };
    crate::print(text)?;
    Ok(match verified {
        Some(found) if !found.is_sound() => crate::FAILED,
        _ => crate::OK,
    })
}

/// The place cannot be taken for this log, today or later.
fn is_refusal(error: &BackupError) -> bool {
    matches!(
        error,
        BackupError::NotABackup { .. }
            | BackupError::NotADirectory { .. }
            | BackupError::Inside { .. }
            | BackupError::OtherLog { .. }
            | BackupError::WrittenTo { .. }
            | BackupError::Longer { .. }
            | BackupError::Diverged { .. }
    )
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
struct Object {
    oldest_offset: u64,
    next_offset: u64,
    not_durable: u64,
    segments: usize,
    linked: usize,
    copied: usize,
    copied_bytes: u64,
    kept: usize,
    sound: Option<bool>,
    damages: Vec<DamageObject>,
    lost: Vec<RangeObject>,
}

impl Object {
    fn new(made: &Backup, verified: Option<&Verification>) -> Self {
        let damages = verified.map_or(&[][..], |found| &found.damages);
        let lost = verified.map_or(&[][..], |found| &found.lost);
        Self {
            oldest_offset: made.oldest.get(),
            next_offset: made.next.get(),
            not_durable: made.not_durable,
            segments: made.segments,
            linked: made.linked,
            copied: made.copied,
            copied_bytes: made.copied_bytes,
            kept: made.kept,
            sound: verified.map(Verification::is_sound),
            damages: damages.iter().map(DamageObject::new).collect(),
            lost: lost.iter().map(RangeObject::new).collect(),
        }
    }
}

fn describe(
    made: &Backup,
    verified: Option<&Verification>,
    dst: &Path,
    elapsed: Duration,
) -> String {
    let mut lines = Vec::new();
    if let Some(found) = verified {
        lines.extend(damage::lines(&found.damages));
        lines.extend(found.lost.iter().map(damage::lost));
    }
    if made.not_durable > 0 {
        lines.push(format!(
            "left out: {} behind offset {}, not durable yet; the next backup has what is durable by then",
            figures::records(made.not_durable),
            made.next
        ));
    }
    let held = match made.next.since(made.oldest) {
        0 => "no records".to_owned(),
        _ => format!("offsets {} to {}", made.oldest, made.next.get() - 1),
    };
    let verdict = match verified {
        None => style("backed up").green(),
        Some(found) if found.is_sound() => style("backed up, and sound").green(),
        Some(_) => style("backed up, and damaged").red(),
    };
    let mut parts = vec![format!(
        "{held} in {}",
        figures::counted(made.segments as u64, "segment")
    )];
    for (count, way) in [(made.kept, "kept"), (made.linked, "linked")] {
        if count > 0 {
            parts.push(format!("{count} {way}"));
        }
    }
    if made.copied > 0 {
        let bytes = figures::bytes(made.copied_bytes);
        parts.push(format!("{} copied ({bytes})", made.copied));
    }
    lines.push(format!(
        "{verdict}: {}, into {} in {}",
        parts.join(", "),
        dst.display(),
        figures::duration(elapsed)
    ));
    lines.join("\n") + "\n"
}
