//! `dacapo bench`: what a disk's limit is, and how near Dacapo comes to it.
//!
//! Each question has Dacapo and the least that any log must do take turns: what else the machine does
//! meanwhile then meets both.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use console::style;
use dacapo_log::WritePath;
use serde::Serialize;
use tempfile::TempDir;

use crate::{UsageError, figures};

mod answer;
mod appending;
mod durable;
mod filesystem;
mod limit;
mod measure;
mod opening;
mod plan;
mod reading;
mod runner;
mod tailing;

use answer::Answer;
use filesystem::Filesystem;
use plan::Plan;
use runner::{Interrupt, Interrupted, Runner};

/// Measure this disk, and how near Dacapo comes to its limit
///
/// Appends, reads, opens and follows logs in DIR, and in turn does the least that any log must do for
/// the same work: a copy with a checksum, a write with a sync, the waking of a thread. Says the medians
/// of a few rounds, and the ratio. Takes about 30 seconds and at most 448 MiB, less on a small disk, and
/// removes all of it, also when it is interrupted; only `kill -9` leaves a directory `dacapo-bench-…`.
///
/// Other work on the machine changes the figures, and the ratios too: run it when there is none.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo bench                 The disk that this directory is on
  dacapo bench /var/lib/app    The disk that a log is to be on
  dacapo bench --quick         A first impression, in a few seconds
  dacapo bench --json | jq '.answers[] | {question, ratio}'

How to read an answer:
  0.65 of the limit            As many per second as 0.65 times what the limit does; 1 is the most
  1.05 times the disk's time   It takes 5 percent longer than the limit; 1 is the least
  5 times what ... get         5 times as many, because the threads share what the limit does for each

Fields of --json (more may come; none will change its meaning):
  dir            the directory
  filesystem     what it is on, as the kernel calls it; \"unknown\" if it does not say
  device         and what is mounted there
  free_bytes     the space that there was
  space_bytes    how much of it was used at once, at most
  writes         \"mapped\" or \"file\": how Dacapo's records get into the page cache there
  quick          true with --quick
  seconds        how long it took
  remarks        what to know before believing the figures
  answers        one for each question:
    question     its name
    compares     \"rates\": ratio is dacapo.per_second / limit.per_second, more is better
                 \"times\": ratio is dacapo.p50_micros / limit.p50_micros, less is better
    ratio        as above
    dacapo       {per_second, p50_micros, p99_micros}: medians of the rounds; null where single
                 operations were not timed
    limit        the same of the limit
    rounds       how many there were; fewer on a slow disk
    noisy        true if the limit took twice as long in one round as in another
    says         all that as a sentence

Exit codes:
  0    measured
  1    failed
  2    DIR is not there, is a log, or has too little space
  130  interrupted; 128 and the signal's number for others")]
pub(crate) struct Args {
    /// A directory on the disk to measure
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,

    /// Fewer and smaller rounds, in a few seconds: less to be trusted
    #[arg(long)]
    quick: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    check_directory(&args.dir)?;
    let filesystem = Filesystem::of(&args.dir)
        .with_context(|| format!("cannot tell the filesystem of {}", args.dir.display()))?;
    let plan = Plan::within(filesystem.free_bytes, args.quick)
        .ok_or_else(|| too_little_space(&args.dir, filesystem.free_bytes))?;
    // Before anything is there that would have to be removed.
    let interrupt = Interrupt::listen()?;
    let scratch = tempfile::Builder::new()
        .prefix("dacapo-bench-")
        .tempdir_in(&args.dir)
        .map_err(plain)
        .with_context(|| format!("cannot write to {}", args.dir.display()))?;

    let measured = measure(scratch.path(), plan, interrupt);
    let removed = remove(scratch);
    let (answers, writes) = match measured {
        Ok(measured) => measured,
        Err(error) => {
            if let Err(error) = removed {
                crate::report(&error);
            }
            return match error.downcast_ref::<Interrupted>() {
                Some(interrupted) => Ok(interrupted.exit_code()),
                None => Err(error),
            };
        }
    };
    removed?;

    let report = Report {
        args,
        filesystem: &filesystem,
        plan,
        writes,
        answers: &answers,
        elapsed: started.elapsed(),
    };
    crate::print(if args.json {
        serde_json::to_string(&report.object())? + "\n"
    } else {
        report.describe()
    })?;
    Ok(crate::OK)
}

/// All answers, and how the engine writes here. Everything lies in `dir`.
fn measure(
    dir: &Path,
    plan: Plan,
    interrupt: Interrupt,
) -> anyhow::Result<(Vec<Answer>, WritePath)> {
    let questions = appending::QUESTIONS
        + durable::QUESTIONS
        + reading::QUESTIONS
        + opening::QUESTIONS
        + tailing::QUESTIONS;
    let runner = Runner::new(dir, plan, questions, interrupt)?;
    let mut answers = appending::ask(&runner)?;
    answers.extend(durable::ask(&runner)?);
    answers.extend(reading::ask(&runner)?);
    answers.extend(opening::ask(&runner)?);
    answers.extend(tailing::ask(&runner)?);
    assert_eq!(answers.len(), questions);
    let writes = runner.writes;
    runner.finish();
    Ok((answers, writes))
}

/// A payload of `bytes` bytes that does not compress to nothing.
fn payload(bytes: usize) -> Vec<u8> {
    (0_u8..=250).cycle().take(bytes).collect()
}

fn check_directory(dir: &Path) -> anyhow::Result<()> {
    let name = dir.display();
    let is_dir = match dir.metadata() {
        Ok(metadata) => metadata.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{name} is not there; name a directory on the disk to measure");
            return Err(UsageError(text).into());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot look at {name}")),
    };
    if !is_dir {
        let text = format!("{name} is not a directory; name one on the disk to measure");
        return Err(UsageError(text).into());
    }
    if crate::open_read_only(dir).is_ok() {
        let text = format!("{name} is a log; name the directory that it is in, or another one");
        return Err(UsageError(text).into());
    }
    Ok(())
}

fn too_little_space(dir: &Path, free_bytes: u64) -> UsageError {
    UsageError(format!(
        "{} has {} of free space; {} are needed, of which half stays free",
        dir.display(),
        figures::bytes(free_bytes),
        figures::bytes(Plan::free_bytes_min()),
    ))
}

/// Without the random name that nobody knows.
fn plain(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.kind().into(),
    }
}

fn remove(scratch: TempDir) -> anyhow::Result<()> {
    let path = scratch.path().to_owned();
    scratch
        .close()
        .with_context(|| format!("cannot remove {}; remove it by hand", path.display()))
}

/// What was measured, and where.
struct Report<'a> {
    args: &'a Args,
    filesystem: &'a Filesystem,
    plan: Plan,
    writes: WritePath,
    answers: &'a [Answer],
    elapsed: Duration,
}

/// Part of the command's face: described in `--help`.
#[derive(Serialize)]
struct Object {
    dir: String,
    filesystem: String,
    device: String,
    free_bytes: u64,
    space_bytes: u64,
    writes: &'static str,
    quick: bool,
    seconds: f64,
    remarks: Vec<String>,
    answers: Vec<answer::Object>,
}

impl Report<'_> {
    fn object(&self) -> Object {
        Object {
            dir: self.args.dir.display().to_string(),
            filesystem: self.filesystem.kind.clone(),
            device: self.filesystem.source.clone(),
            free_bytes: self.filesystem.free_bytes,
            space_bytes: self.plan.space_bytes(),
            writes: match self.writes {
                WritePath::Mapped => "mapped",
                _ => "file",
            },
            quick: self.args.quick,
            seconds: (self.elapsed.as_secs_f64() * 10.0).round() / 10.0,
            remarks: self.remarks(),
            answers: self.answers.iter().map(Answer::object).collect(),
        }
    }

    fn describe(&self) -> String {
        let mut text = format!(
            "{}: {} on {}, {} free\n{}\n",
            self.args.dir.display(),
            self.filesystem.kind,
            self.filesystem.source,
            figures::bytes(self.filesystem.free_bytes),
            self.disk(),
        );
        for remark in self.remarks() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}: {remark}", style("note").yellow());
        }
        for answer in self.answers {
            let _ = writeln!(
                text,
                "\n{}: {}\n   {}",
                answer.title(),
                style(answer.figure()).bold(),
                answer.meaning(),
            );
        }
        let _ = writeln!(
            text,
            "\nMeasured in {}, in at most {}, all of which is removed.",
            figures::duration(self.elapsed),
            figures::bytes(self.plan.space_bytes()),
        );
        text
    }

    /// "This disk makes a record durable in 107 µs, 9,300/s one after another; …"
    fn disk(&self) -> String {
        let find = |key| {
            let answer = self.answers.iter().find(|answer| answer.key() == key);
            answer.expect("the question was asked")
        };
        let (alone, shared) = (find(durable::ONE_THREAD), find(durable::THREADS));
        format!(
            "This disk makes a record durable in {}, {} one after another; Dacapo does {}, and {} for \
             16 threads.",
            answer::time(alone.limit().typical()),
            answer::rate(&alone.limit()),
            answer::rate(&alone.dacapo()),
            answer::rate(&shared.dacapo()),
        )
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::from_iter(self.filesystem.remark());
        if self.writes != WritePath::Mapped {
            remarks.push(format!(
                "{} is not known to overwrite blocks in place, so Dacapo writes through the file: each \
                 append is a system call, and is compared with stores to memory.",
                self.filesystem.kind
            ));
        }
        if self.plan.is_reduced(self.args.quick) {
            remarks.push(format!(
                "There is little space, so files are of {} instead of 64 MiB: more of the work is done \
                 in the processor's caches.",
                figures::bytes(self.plan.segment_bytes as u64)
            ));
        }
        let noisy = self.answers.iter().filter(|answer| answer.is_noisy());
        match noisy.count() {
            0 => {}
            count => remarks.push(format!(
                "The machine has other work: for {count} of the {} questions even the limit took twice \
                 as long in one round as in another. Run it again when it is quiet.",
                self.answers.len()
            )),
        }
        remarks
    }
}
