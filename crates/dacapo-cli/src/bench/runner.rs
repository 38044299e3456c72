//! Asks one question: Dacapo and its limit in turn, over several rounds, until it is told to stop.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context;
use dacapo_log::{Log, WritePath};
use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

use super::answer::{Answer, Question};
use super::limit::MappedFile;
use super::measure::Sample;
use super::plan::Plan;

/// What every question needs to be asked.
pub(crate) struct Runner {
    /// Where all files go, and which is removed with them.
    dir: PathBuf,
    pub(crate) plan: Plan,
    /// The way in which the engine writes there.
    pub(crate) writes: WritePath,
    bar: ProgressBar,
    interrupt: Interrupt,
}

/// The signal that asks for an end; 0 for none yet.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicUsize>);

/// The user has asked for an end.
#[derive(Debug)]
pub(crate) struct Interrupted(u8);

impl Interrupted {
    /// As shells have it for a process that a signal has ended.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(128 + self.0)
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by signal {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

impl Interrupt {
    /// Takes the place of what these signals do otherwise: what was written must be removed first.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let signalled = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = usize::try_from(signal).expect("signals are positive");
            signal_hook::flag::register_usize(signal, Arc::clone(&signalled), number)
                .context("cannot listen for signals")?;
        }
        Ok(Self(signalled))
    }

    fn check(&self) -> anyhow::Result<()> {
        match u8::try_from(self.0.load(Ordering::Relaxed)).expect("a signal's number") {
            0 => Ok(()),
            signal => Err(Interrupted(signal).into()),
        }
    }
}

/// A log in a directory of its own, which goes with it.
pub(crate) struct FreshLog {
    // Dropped in this order.
    pub(crate) log: Log,
    dir: TempDir,
}

impl FreshLog {
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Runner {
    /// A runner for so many questions.
    pub(crate) fn new(
        dir: &Path,
        plan: Plan,
        questions: usize,
        interrupt: Interrupt,
    ) -> anyhow::Result<Self> {
        let style = ProgressStyle::with_template("{bar:25} {pos} of {len}, {msg}")
            .expect("the template is well-formed");
        let mut runner = Self {
            dir: dir.to_owned(),
            plan,
            writes: WritePath::Auto,
            bar: ProgressBar::new((questions * plan.rounds) as u64).with_style(style),
            interrupt,
        };
        let status = runner.fresh_log()?.log.status()?;
        runner.writes = status.writes.context("a log open for writing")?;
        Ok(runner)
    }

    /// Measures Dacapo and then the limit, and so again for each round.
    pub(crate) fn ask(
        &self,
        question: Question,
        mut dacapo: impl FnMut() -> anyhow::Result<Sample>,
        mut limit: impl FnMut() -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Answer> {
        self.bar.set_message(question.title);
        let (started, before) = (Instant::now(), self.bar.position());
        let (mut ours, mut limits) = (Vec::new(), Vec::new());
        while ours.len() < self.plan.rounds {
            if ours.len() >= 2 && started.elapsed() > self.plan.question_time {
                break;
            }
            self.go_on()?;
            ours.push(dacapo()?);
            self.go_on()?;
            limits.push(limit()?);
            self.bar.inc(1);
        }
        self.bar.set_position(before + self.plan.rounds as u64);
        Ok(Answer::new(question, ours, limits))
    }

    /// An error once the user has asked for an end.
    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        self.interrupt.check()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A log with one full-sized segment ready, flushed as any log is by default.
    pub(crate) fn fresh_log(&self) -> anyhow::Result<FreshLog> {
        let dir = tempfile::tempdir_in(&self.dir)?;
        let log = Log::options()
            .segment_bytes_min(self.plan.segment_bytes as u64)
            .segment_bytes_max(self.plan.segment_bytes as u64)
            .open(dir.path())?;
        log.append(b"makes the segment")?;
        Ok(FreshLog { log, dir })
    }

    /// A mapped file, or memory where the engine does not trust mapped files.
    pub(crate) fn mapped_file(&self, bytes: usize) -> anyhow::Result<MappedFile> {
        match self.writes {
            WritePath::Mapped => MappedFile::new(&self.dir, bytes, || self.go_on()),
            _ => Ok(MappedFile::in_memory(bytes)?),
        }
    }

    /// The bar makes room for the answer.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
