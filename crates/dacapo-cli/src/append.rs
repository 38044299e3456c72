//! `dacapo append`: standard input into a log, a record a line.
//!
//! Waiting for input, and for the signal that ends it, is in `input.rs`.

use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::builder::NonEmptyStringValueParser;
use dacapo_log::{AppendError, Log, Offset, Topic};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::amounts::parse_bytes;
use crate::figures;
use crate::input::{Got, Input};
use crate::producer::{Place, Producer};
use crate::topic_field::TopicField;

/// Store standard input in a log, a record a line
///
/// A line becomes a record without its newline; a last line without a newline counts as well.
/// What is there is stored at once: a slow pipe is not held back to fill a block. On SIGINT or
/// SIGTERM, the lines read so far are stored and the log is closed cleanly.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  seq 1000000 | dacapo append log
  tail -F app.log | dacapo append log          Keep what a program writes
  dacapo append --raw log < photo.jpg          One record, newlines and all
  producer | dacapo append --durable --acks log | consumer-of-acknowledgements
  dacapo append --producer orders log < orders    Again after a kill: goes on, stores nothing twice
  echo hello | dacapo append --topic rooms:lobby log
  dacapo append --topic-field user.id log < events.ndjson

What survives what:
  As soon as a line is stored, readers can see it and it survives a kill of this process.
  It survives a power cut within about a second, at the latest when the command ends; with
  --durable, before its acknowledgement is printed and before more input is read.")]
pub(crate) struct Args {
    /// The log's directory; created if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Wait for the disk after each block of input, before reading more
    #[arg(long)]
    durable: bool,

    /// Print acknowledgements: for each block stored, the offset of its last record
    ///
    /// A line `N` on standard output says that every record up to and including offset N is
    /// stored, and with --durable that it is on disk.
    #[arg(long)]
    acks: bool,

    /// Store the whole input as one record
    #[arg(long)]
    raw: bool,

    /// Store each line once, though the same input be given again
    ///
    /// The lines are numbered, and stored with the number and this name. Given again, after a kill or
    /// a power cut too, the input goes on behind what the log holds of it; it must begin with the same
    /// lines. This is so for as long as the log holds the last line that was stored.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    producer: Option<String>,

    /// Raise this to store an input anew, and to refuse lower ones from then on
    #[arg(long, value_name = "N", default_value_t = 0, requires = "producer")]
    producer_epoch: u64,
    /// Give every record this topic, 1 to 255 bytes
    ///
    /// There is nothing to create: a topic is there while it has records.
    #[arg(long, value_name = "NAME")]
    topic: Option<Topic>,

    /// Take each record's topic from a field of its line, which is a JSON object
    ///
    /// `user.id` is the field `id` of the object in the field `user`. The whole line is stored. At a
    /// line without such a text the command fails: the lines before it are stored, and none behind
    /// it.
    #[arg(long, value_name = "FIELD", conflicts_with = "topic")]
    topic_field: Option<TopicField>,

    /// The size of a segment file once the log has grown: 16K to 1G; a record fits into one
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = parse_bytes)]
    segment_bytes_max: u64,

    /// Don't say at the end what was stored
    #[arg(short, long)]
    quiet: bool,
}

/// What one read asks for. A pipe gives 64 KiB at most.
const BLOCK_BYTES: usize = 256 << 10;
/// The most that a record takes on disk beyond its topic and payload: header and alignment.
const FRAME_OVERHEAD_BYTES: u64 = 32;
/// A batch ends here, on disk: it fits into the small first segment of a new log. Larger ones are
/// hardly faster.
const BATCH_BYTES_MAX: u64 = 32 << 10;

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Before the log is opened, so that it is always closed.
    let input = Input::until_signalled().context("cannot listen for signals")?;
    let log = Log::options()
        .segment_bytes_max(args.segment_bytes_max)
        .open(&args.dir)?;
    if io::stdin().is_terminal() && io::stderr().is_terminal() && !args.quiet {
        say("Type lines to store; Ctrl-D ends the input.");
    }

    let started = Instant::now();
    let mut appender = Appender::new(&log, args)?;
    let stored = if args.raw {
        appender.store_whole(&input)
    } else {
        appender.store_lines(&input)
    };
    let closed = log.close();
    appender.progress.finish_and_clear();

    if !args.quiet || stored.is_err() {
        // What came behind the last acknowledgement is not promised to be there.
        let failed = args.durable && stored.is_err();
        let stored = if failed {
            appender.acknowledged
        } else {
            appender.stored
        };
        say(&stored.describe(started.elapsed()));
    }
    let unfinished_bytes = stored?;
    closed.context("cannot close the log")?;
    if unfinished_bytes > 0 {
        let bytes = figures::counted(unfinished_bytes as u64, "byte");
        say(&format!(
            "The last line was unfinished: its {bytes} are not stored."
        ));
    }
    Ok(crate::OK)
}

/// Tells a person. Where that fails, it changes nothing that is stored.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Cuts the input into records and appends them, a batch at a time.
struct Appender<'a> {
    log: &'a Log,
    args: &'a Args,
    /// `None` where the input has no name.
    producer: Option<Producer<'a>>,
    progress: ProgressBar,
    stored: Stored,
    acknowledged: Stored,
}

impl<'a> Appender<'a> {
    fn new(log: &'a Log, args: &'a Args) -> anyhow::Result<Self> {
        let resume = |name| Producer::resume(log, name, args.producer_epoch);
        Ok(Self {
            log,
            args,
            producer: args.producer.as_deref().map(resume).transpose()?,
            progress: progress(args),
            stored: Stored::default(),
            acknowledged: Stored::default(),
        })
    }

    /// Returns how many bytes it read of a line that a signal kept from being finished.
    fn store_lines(&mut self, input: &Input) -> anyhow::Result<usize> {
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut filled = 0; // bytes of a line whose end has not come yet
        loop {
            if filled == buffer.len() {
                self.check_fits(filled)?;
                buffer.resize(2 * filled, 0);
            }
            match self.read(input, &mut buffer[filled..])? {
                Got::Bytes(bytes) => {
                    let read = filled..filled + bytes;
                    filled = read.end;
                    if let Some(newline) = memchr::memrchr(b'\n', &buffer[read.clone()]) {
                        let end = read.start + newline + 1;
                        self.store_block(&buffer[..end])?;
                        buffer.copy_within(end..filled, 0);
                        filled -= end;
                    }
                }
                Got::End => {
                    if filled > 0 {
                        self.store_record(&buffer[..filled])?;
                    }
                    return Ok(0);
                }
                Got::Stopped => return Ok(filled),
            }
        }
    }

    /// As [`store_lines`](Self::store_lines), but a signal keeps all of it from being stored.
    fn store_whole(&mut self, input: &Input) -> anyhow::Result<usize> {
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut filled = 0;
        loop {
            if filled == buffer.len() {
                self.check_fits(filled)?;
                buffer.resize(2 * filled, 0);
            }
            match self.read(input, &mut buffer[filled..])? {
                Got::Bytes(bytes) => filled += bytes,
                Got::End => {
                    self.store_record(&buffer[..filled])?;
                    return Ok(0);
                }
                Got::Stopped => anyhow::bail!("stopped before the input ended: nothing is stored"),
            }
        }
    }

    fn read(&self, input: &Input, buffer: &mut [u8]) -> anyhow::Result<Got> {
        let got = input.read(buffer).context("cannot read standard input")?;
        if let Got::Bytes(bytes) = got {
            self.progress.inc(bytes as u64);
        }
        Ok(got)
    }

    /// Stops an endless line before it takes all memory.
    fn check_fits(&self, line_bytes: usize) -> anyhow::Result<()> {
        let max = self.args.segment_bytes_max;
        if line_bytes as u64 > max {
            let record = self.next_record();
            anyhow::bail!(
                "{record} is longer than a segment of {max} bytes; \
                 split it, or raise --segment-bytes-max"
            );
        }
        Ok(())
    }

    /// Appends and acknowledges whole lines.
    fn store_block(&mut self, block: &[u8]) -> anyhow::Result<()> {
        // A batch stays far below a segment, so that a roll leaves little of one unused.
        let batch_bytes_max = BATCH_BYTES_MAX.min(self.args.segment_bytes_max / 8);
        let mut batch = Batch::default();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', block) {
            let line = &block[start..end];
            let topic = match self.topic_of(line) {
                Ok(topic) => topic,
                Err(error) => {
                    let number = self.stored.records + batch.payloads.len() as u64 + 1;
                    // The lines before it are as good as any.
                    if !batch.payloads.is_empty() {
                        self.append(&batch)?;
                        self.acknowledge()?;
                    }
                    return Err(error.context(format!("line {number} of the input")));
                }
            };
            let bytes = Batch::bytes_of(topic.as_ref(), line);
            if !batch.payloads.is_empty() && batch.bytes + bytes > batch_bytes_max {
                self.append(&batch)?;
                batch.clear();
            }
            batch.push(topic, line);
            start = end + 1;
        }
        assert_eq!(start, block.len(), "a block ends with a line");
        self.append(&batch)?;
        self.acknowledge()
    }

    /// Appends and acknowledges what has no newline behind it.
    fn store_record(&mut self, record: &[u8]) -> anyhow::Result<()> {
        let topic = self.topic_of(record).with_context(|| {
            let number = self.stored.records + 1;
            format!("line {number} of the input")
        })?;
        let mut batch = Batch::default();
        batch.push(topic, record);
        self.append(&batch)?;
        self.acknowledge()
    }

    fn topic_of(&self, line: &[u8]) -> anyhow::Result<Option<Topic>> {
        match &self.args.topic_field {
            Some(field) => field.topic_of(line).map(Some),
            None => Ok(self.args.topic.clone()),
        }
    }

    fn append(&mut self, batch: &Batch<'_>) -> anyhow::Result<()> {
        if self.producer.is_some() {
            return self.append_once(batch);
        }
        let Batch {
            payloads, topics, ..
        } = batch;
        let appended = match topics.is_empty() {
            true => self.log.append_batch(payloads),
            false => self.log.append_batch_to(topics.iter().zip(payloads)),
        };
        let offsets = appended.map_err(|error| self.explain(error))?;
        self.stored.add(&offsets, payloads);
        Ok(())
    }

    /// One by one: a batch has a single number, and where the input is cut into batches is chance.
    fn append_once(&mut self, batch: &Batch<'_>) -> anyhow::Result<()> {
        for (i, record) in batch.payloads.iter().enumerate() {
            let topic = batch.topics.get(i);
            let producer = self.producer.as_mut().expect("the input has a name");
            let stored = producer.store(topic, record);
            let place = stored.with_context(|| self.next_record())?;
            match place {
                Place::New(offset) => self.stored.add(&(offset..offset.next()), &[record]),
                Place::Before(offset) => self.stored.pass_over(offset),
            }
        }
        Ok(())
    }

    /// What is to be stored next, for a message.
    fn next_record(&self) -> String {
        let record = self.stored.before + self.stored.records + 1;
        format!("record {record} of the input")
    }

    /// A batch is cut to fit: one that is too large is a single line.
    fn explain(&self, error: AppendError) -> anyhow::Error {
        match error {
            AppendError::TooLarge { .. } => anyhow::Error::new(error).context(self.next_record()),
            _ => error.into(),
        }
    }

    fn acknowledge(&mut self) -> anyhow::Result<()> {
        if self.args.durable {
            self.log.sync()?;
        }
        self.acknowledged = self.stored;
        self.progress
            .set_message(HumanCount(self.acknowledged.records).to_string());
        if let (true, Some(last)) = (self.args.acks, self.acknowledged.last) {
            let mut out = io::stdout().lock();
            writeln!(out, "{last}")
                .and_then(|()| out.flush())
                // As text: where acknowledgements go unread, ending quietly would lose input.
                .map_err(|error| anyhow::anyhow!("cannot print an acknowledgement: {error}"))?;
        }
        Ok(())
    }
}

/// Records that are appended as one.
#[derive(Default)]
struct Batch<'a> {
    payloads: Vec<&'a [u8]>,
    /// As many, or none where the records have no topic.
    topics: Vec<Topic>,
    /// What they take on disk, at most.
    bytes: u64,
}

impl<'a> Batch<'a> {
    fn bytes_of(topic: Option<&Topic>, payload: &[u8]) -> u64 {
        let topic_bytes = topic.map_or(0, |topic| topic.as_str().len());
        (topic_bytes + payload.len()) as u64 + FRAME_OVERHEAD_BYTES
    }

    /// All records of a batch have a topic, or none has.
    fn push(&mut self, topic: Option<Topic>, payload: &'a [u8]) {
        self.bytes += Self::bytes_of(topic.as_ref(), payload);
        self.topics.extend(topic);
        self.payloads.push(payload);
        assert!(self.topics.is_empty() || self.topics.len() == self.payloads.len());
    }

    fn clear(&mut self) {
        self.payloads.clear();
        self.topics.clear();
        self.bytes = 0;
    }
}

/// What this process has appended so far.
#[derive(Clone, Copy, Default)]
struct Stored {
    first: Option<Offset>,
    last: Option<Offset>,
    /// Records of the input that an earlier run has stored.
    before: u64,
    records: u64,
    payload_bytes: u64,
}

impl Stored {
    fn add(&mut self, offsets: &Range<Offset>, batch: &[&[u8]]) {
        assert_eq!(offsets.end.since(offsets.start), batch.len() as u64);
        self.first.get_or_insert(offsets.start);
        self.last = offsets.end.get().checked_sub(1).map(Offset::new);
        self.records += batch.len() as u64;
        self.payload_bytes += batch.iter().map(|record| record.len() as u64).sum::<u64>();
    }

    /// A record was stored by an earlier run, at this offset if it is known.
    fn pass_over(&mut self, offset: Option<Offset>) {
        self.before += 1;
        self.last = offset.or(self.last);
    }

    fn describe(&self, elapsed: Duration) -> String {
        let stored = self.describe_new(elapsed);
        match self.before {
            0 => stored,
            1 => format!("{stored} 1 record was there before."),
            before => format!("{stored} {} were there before.", figures::records(before)),
        }
    }

    fn describe_new(&self, elapsed: Duration) -> String {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            return "Stored no records.".to_owned();
        };
        let offsets = if first == last {
            format!("offset {first}")
        } else {
            format!("offsets {first} to {last}")
        };
        format!(
            "Stored {}, {offsets}: {} in {}{}.",
            figures::records(self.records),
            figures::bytes(self.payload_bytes),
            figures::duration(elapsed),
            self.rate(elapsed),
        )
    }

    /// Nothing where it would say nothing about the log: little or slow input.
    fn rate(&self, elapsed: Duration) -> String {
        let records_per_second = figures::per_second(self.records, elapsed);
        if self.records < 1_000 || records_per_second < 100 {
            return String::new();
        }
        format!(
            ", {} records/s, {}/s",
            HumanCount(records_per_second),
            figures::bytes(figures::per_second(self.payload_bytes, elapsed)),
        )
    }
}

/// Shown on a terminal only, and not where somebody is typing the input.
fn progress(args: &Args) -> ProgressBar {
    if args.quiet || io::stdin().is_terminal() {
        return ProgressBar::hidden();
    }
    let (progress, template) = match input_bytes() {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:25} {msg} records, {bytes} of {total_bytes}, {bytes_per_sec}, {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {msg} records, {bytes}, {bytes_per_sec}",
        ),
    };
    let style = ProgressStyle::with_template(template).expect("the template is well-formed");
    progress.with_style(style).with_message("0")
}

/// How much is left to read, where standard input is a file.
fn input_bytes() -> Option<u64> {
    let stdin = io::stdin();
    let stat = rustix::fs::fstat(&stdin).ok()?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return None;
    }
    let position = rustix::fs::tell(&stdin).ok()?;
    Some(u64::try_from(stat.st_size).ok()?.saturating_sub(position))
}
