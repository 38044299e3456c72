//! A child process that appends keystrokes, and can be killed.
//!
//! It runs `dacapo append --acks`, is fed through a pipe, and answers with acknowledgements.

use std::env;
use std::io::{BufRead, BufReader, Lines, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::recording::Recording;

/// A process that appends to the demo's log.
pub(crate) struct Writer {
    child: Child,
    /// Holds the pipe open when it has fed everything: the process waits for more.
    feeder: JoinHandle<ChildStdin>,
    acks: Lines<BufReader<ChildStdout>>,
}

/// How many keystrokes go into the pipe at a time.
const CHUNK: usize = 64;

impl Writer {
    /// Starts a process and feeds it the keystrokes `feed`, spread over the time `pace`.
    pub(crate) fn start(
        dir: &Path,
        recording: &Arc<Recording>,
        feed: Range<usize>,
        pace: Duration,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(env::current_exe().context("cannot find this program")?)
            .args(["append", "--acks", "--quiet", "--"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process")?;
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        let recording = Arc::clone(recording);
        let feeder = thread::Builder::new()
            .name("dacapo-feeder".to_owned())
            .spawn(move || feed_paced(stdin, &recording, feed, pace))?;
        Ok(Self {
            child,
            feeder,
            acks: BufReader::new(stdout).lines(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process acknowledges more, and returns how many records the log holds then;
    /// `None` once the process has ended.
    pub(crate) fn acknowledged(&mut self) -> anyhow::Result<Option<u64>> {
        let Some(line) = self.acks.next() else {
            return Ok(None);
        };
        let line = line.context("cannot read acknowledgements")?;
        let last: u64 = line
            .parse()
            .with_context(|| format!("{line:?} acknowledges nothing"))?;
        Ok(Some(last + 1))
    }

    /// Sends SIGKILL, which a process can neither catch nor delay, and waits for its end.
    pub(crate) fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.kill().context("cannot kill the process")?;
        Ok(self.child.wait()?)
    }

    /// Ends the input and waits until the process has ended by itself.
    pub(crate) fn finish(mut self) -> anyhow::Result<ExitStatus> {
        let stdin = self
            .feeder
            .join()
            .map_err(|_| anyhow::anyhow!("feeding failed"))?;
        drop(stdin);
        for ack in self.acks.by_ref() {
            ack.context("cannot read acknowledgements")?;
        }
        Ok(self.child.wait()?)
    }
}

fn feed_paced(
    mut stdin: ChildStdin,
    recording: &Recording,
    feed: Range<usize>,
    pace: Duration,
) -> ChildStdin {
    let started = Instant::now();
    let chunks = u32::try_from(feed.len().div_ceil(CHUNK)).expect("the recording is small");
    for (chunk, from) in (0..).zip(feed.clone().step_by(CHUNK)) {
        let lines = recording.lines(from..feed.end.min(from + CHUNK));
        if stdin.write_all(lines).is_err() {
            break; // the process is gone; whoever reads its acknowledgements sees that
        }
        // Only for show: without a pace there is nothing to wait for.
        let due = started + pace * (chunk + 1) / chunks;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    stdin
}
