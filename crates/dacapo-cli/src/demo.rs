//! `dacapo demo`: what a log is for, shown with real keystrokes and a real kill -9.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use console::style;
use dacapo_log::{Log, ReadError, Start, Tailer};
use indicatif::HumanCount;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{UsageError, figures, stat};

mod document;
mod recording;
mod screen;
mod writer;

use document::Document;
use recording::{FINAL_TEXT, Recording};
use screen::Screen;
use writer::Writer;

/// See it work: append, kill -9, recover, replay, follow live
///
/// Plays the recorded keystrokes of somebody writing a web component into a log, kills the writing
/// process in the middle, recovers, goes on, and rebuilds the text from the log while it grows. The
/// text is exact only if every keystroke was kept once and in order. Takes a few seconds.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo demo
  dacapo demo --dir keystrokes && dacapo cat keystrokes | head -n 5")]
pub(crate) struct Args {
    /// Keep the log in this new directory, instead of a temporary one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let temporary;
    let dir = match &args.dir {
        Some(dir) => {
            check_unused(dir)?;
            dir.as_path()
        }
        None => {
            temporary = tempfile::Builder::new().prefix("dacapo-demo-").tempdir()?;
            remove_when_interrupted(temporary.path())?;
            temporary.path()
        }
    };
    let mut demo = Demo {
        dir,
        recording: Arc::new(Recording::unpack().context("cannot unpack the recording")?),
        screen: Screen::new(),
    };

    let total = demo.recording.len() as u64;
    let mut out = io::stdout();
    writeln!(
        out,
        "{} recorded keystrokes, into a log in {}",
        HumanCount(total),
        dir.display()
    )?;
    let acknowledged = demo.write_until_killed()?;
    let recovered = demo.recover(acknowledged)?;
    let text = demo.go_on_and_follow(recovered.records)?;
    demo.compare(&text)?;
    demo.sum_up(&recovered)?;
    demo.say_what_next(args.dir.as_deref())?;
    Ok(crate::OK)
}

struct Demo<'a> {
    dir: &'a Path,
    recording: Arc<Recording>,
    screen: Screen,
}

struct Recovered {
    records: usize,
    recovery: Duration,
}

impl Demo<'_> {
    /// Returns how many records the killed process had acknowledged.
    fn write_until_killed(&mut self) -> anyhow::Result<u64> {
        self.screen
            .step("A process appends the keystrokes, one record each.")?;
        let total = self.recording.len();
        // It gets somewhat more than the half after which it is killed, and no end of input: so it
        // is at work when the kill comes, and never done.
        let feed = 0..total * 6 / 10;
        let mut writer = Writer::start(self.dir, &self.recording, feed, self.pace(2_400))?;

        let bar = self.screen.bar(total as u64);
        let mut acknowledged = 0;
        while acknowledged < total as u64 / 2 {
            let Some(records) = writer.acknowledged()? else {
                bail!("the writing process ended early: {}", writer.finish()?);
            };
            acknowledged = records;
            bar.set_position(records);
        }
        let status = writer.kill()?;
        // It may have acknowledged more before it was gone.
        while let Some(records) = writer.acknowledged()? {
            acknowledged = records;
        }
        bar.abandon();

        ensure!(
            status.signal() == Some(9),
            "the process was to be killed, but: {status}"
        );
        let pid = writer.pid();
        self.screen.say(&format!(
            "Process {pid} acknowledged {} …",
            figures::records(acknowledged)
        ))?;
        self.screen.pause();
        self.screen
            .step(&format!("kill -9 {pid}, halfway through."))?;
        self.screen.say("It had no chance to clean up.")?;
        self.screen.pause();
        Ok(acknowledged)
    }

    fn recover(&mut self, acknowledged: u64) -> anyhow::Result<Recovered> {
        self.screen.step("Open the log again.")?;
        let log = Log::open(self.dir)?;
        let status = log.status()?;
        let recovery = stat::last_recovery(&status).context("the log was not recovered")?;

        let mut records = 0;
        for record in log.replay(Start::Oldest) {
            let record = record?;
            self.check(records, record.offset().get(), record.payload())?;
            records += 1;
        }
        log.close()?;

        ensure!(
            records as u64 >= acknowledged,
            "{acknowledged} records were acknowledged, and only {records} are there"
        );
        self.screen.say(&format!(
            "Recovered in {}: {} are there, the {} acknowledged ones among them.",
            figures::duration(recovery),
            figures::records(records as u64),
            HumanCount(acknowledged),
        ))?;
        self.screen.pause();
        Ok(Recovered { records, recovery })
    }

    /// Returns the text that the log's records write.
    fn go_on_and_follow(&mut self, stored: usize) -> anyhow::Result<String> {
        self.screen
            .step("A second process appends the rest; this one replays, then follows live.")?;
        let total = self.recording.len();
        let writer = Writer::start(self.dir, &self.recording, stored..total, self.pace(3_200))?;
        let log = crate::open_read_only(self.dir)?;
        let tailer = log.tail(Start::Oldest);
        let writing = finish_then_close(writer, total as u64, log)?;

        let text = self.rebuild(tailer, stored)?;
        let status = writing
            .join()
            .map_err(|_| anyhow::anyhow!("watching the process failed"))??;
        ensure!(status.success(), "the second process failed: {status}");
        Ok(text)
    }

    /// Follows the log until its writer is done and everything is read.
    fn rebuild(&self, mut tailer: Tailer, stored: usize) -> anyhow::Result<String> {
        let started = Instant::now();
        let mut replayed = None;
        let mut document = Document::default();
        let mut window = self.screen.window(self.recording.len() as u64);
        let mut records = 0;
        loop {
            let record = match tailer.next_blocking() {
                Ok(record) => record,
                Err(ReadError::Closed) => break,
                Err(error) => return Err(error.into()),
            };
            self.check(records, record.offset().get(), record.payload())?;
            document.apply(record.payload())?;
            records += 1;
            if records == stored {
                replayed = Some(started.elapsed());
            }
            window.show(records as u64, &document);
        }
        window.close();

        let total = self.recording.len();
        ensure!(
            records == total,
            "{total} records were appended, and {records} were read"
        );
        let replayed = replayed.context("fewer records were replayed than are stored")?;
        self.screen.say(&format!(
            "Replayed the first {} in {}, then {} as they came.",
            figures::records(stored as u64),
            figures::duration(replayed),
            HumanCount((total - stored) as u64),
        ))?;
        Ok(document.text())
    }

    /// The record must be the one that was sent at this place.
    fn check(&self, index: usize, offset: u64, payload: &[u8]) -> anyhow::Result<()> {
        ensure!(
            offset == index as u64,
            "record {offset} came where record {index} belongs"
        );
        ensure!(
            index < self.recording.len(),
            "there are more records than were sent"
        );
        ensure!(
            payload == self.recording.event(index),
            "record {offset} is not what was sent"
        );
        Ok(())
    }

    fn compare(&mut self, text: &str) -> anyhow::Result<()> {
        self.screen
            .step("Compare the text that the log's records write with the original.")?;
        ensure!(
            text == FINAL_TEXT,
            "the text is not the original: a record was lost or changed"
        );
        self.screen.say(&format!(
            "{} {} characters, identical.",
            style("✓").green().bold(),
            HumanCount(text.chars().count() as u64)
        ))?;
        Ok(())
    }

    fn sum_up(&self, recovered: &Recovered) -> anyhow::Result<()> {
        let log = crate::open_read_only(self.dir)?;
        let started = Instant::now();
        let mut replay = log.replay(Start::Oldest);
        let (mut records, mut payload_bytes) = (0, 0);
        while let Some(record) = replay.next_ref() {
            payload_bytes += record?.payload().len() as u64;
            records += 1;
        }
        let elapsed = started.elapsed();
        let status = log.status()?;

        let mut out = io::stdout();
        writeln!(out)?;
        self.screen.say(&format!(
            "records   {}, {} of payload",
            HumanCount(records),
            figures::bytes(payload_bytes)
        ))?;
        self.screen.say(&format!(
            "on disk   {} in {}",
            figures::bytes(status.file_bytes),
            figures::counted(status.segments as u64, "segment")
        ))?;
        self.screen.say(&format!(
            "recovery  {}",
            figures::duration(recovered.recovery)
        ))?;
        self.screen.say(&format!(
            "replay    everything in {}: {} records/s",
            figures::duration(elapsed),
            HumanCount(figures::per_second(records, elapsed))
        ))?;
        Ok(())
    }

    fn say_what_next(&self, kept: Option<&Path>) -> io::Result<()> {
        // As it was called: it need not be installed yet.
        let dacapo = std::env::args()
            .next()
            .unwrap_or_else(|| "dacapo".to_owned());
        let lines = match kept.map(Path::display) {
            Some(dir) => vec![
                format!("{dacapo} stat {dir}"),
                format!("{dacapo} cat {dir} --json | tail -n 3"),
                format!("{dacapo} verify {dir}"),
            ],
            None => vec![
                format!("seq 1000000 | {dacapo} append numbers"),
                format!("{dacapo} tail numbers        # and append more meanwhile"),
                format!("{dacapo} verify numbers"),
                format!("{dacapo} demo --dir keystrokes        # keeps this demo's log"),
            ],
        };
        writeln!(io::stdout(), "\nTry next:")?;
        lines.iter().try_for_each(|line| self.screen.say(line))
    }

    /// How long a step takes where a person is watching.
    fn pace(&self, millis: u64) -> Duration {
        if self.screen.is_animated() {
            Duration::from_millis(millis)
        } else {
            Duration::ZERO
        }
    }
}

/// Waits in the background until the process has appended everything or failed; then closes the
/// reader's log, so that its tailer ends once everything is read instead of waiting for more.
fn finish_then_close(
    mut writer: Writer,
    total: u64,
    log: Log,
) -> io::Result<JoinHandle<anyhow::Result<ExitStatus>>> {
    thread::Builder::new()
        .name("dacapo-watcher".to_owned())
        .spawn(move || {
            let status = loop {
                match writer.acknowledged() {
                    Ok(Some(records)) if records < total => {}
                    Ok(_) => break writer.finish(),
                    Err(error) => break Err(error),
                }
            };
            log.close()?;
            status
        })
}

/// The demo compares what it finds with what it wrote, so nothing may be there before.
fn check_unused(dir: &Path) -> anyhow::Result<()> {
    let name = dir.display();
    match fs::read_dir(dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(UsageError(format!("{name} is not empty; name a new directory")).into()),
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot read {name}")),
    }
}

/// Leaves nothing behind on Ctrl-C either.
fn remove_when_interrupted(dir: &Path) -> anyhow::Result<()> {
    let dir = dir.to_owned();
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    thread::Builder::new()
        .name("dacapo-signals".to_owned())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // What cannot be removed stays in the directory for temporary files.
                let _ = fs::remove_dir_all(&dir);
                let _ = writeln!(io::stderr()); // the shell goes on below the bar
                std::process::exit(128 + signal);
            }
        })?;
    Ok(())
}
