//! Protocols that span several modules, model-checked on the code itself: every interleaving of two or
//! three preemptions, and every outcome that the memory orderings allow.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --target-dir target/loom -p dacapo-log --lib -- \
//!     watermark models
//! ```
//!
//! A lost wake-up shows as a deadlock, a missed record as a failed read, and a byte that is read
//! while another thread may still be storing it as a causality violation: see `Accesses` in `map.rs`.
//! Each test says what makes it fail. Files are not modelled: segments lie in memory.
//!
//! Without loom the same tests run on real threads, and under Miri, which sees the bytes themselves.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};

#[cfg(not(loom))]
use futures_lite::future::block_on;
#[cfg(loom)]
use loom::future::block_on;

use crate::disk::{Disk, DiskFile};
use crate::error::ReadError;
use crate::flusher::Flusher;
use crate::format::{self, Begin, Footer, Kind, NewFrame};
use crate::log::{Opened, Shared};
use crate::map::Memory;
use crate::offset::{Epoch, Offset, Start};
use crate::options::Flush;
use crate::segment::Segment;
use crate::segment_writer::SegmentWriter;
use crate::segments::Segments;
use crate::sync::{AtomicBool, Mutex, OnceLock, thread};
use crate::tailer::Tailer;
use crate::topic::Topic;
use crate::watermark::Watermark;
use crate::writer::turns::Turns;

/// Every order of the threads with so many preemptions; says how many executions that were.
#[cfg(loom)]
fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    use std::sync::atomic::AtomicUsize;

    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    println!("{} executions", executions.load(Relaxed));
}

/// Some orders, as they come.
#[cfg(not(loom))]
fn explore(_: usize, model: impl Fn()) {
    let times = if cfg!(miri) { 1 } else { 200 };
    (0..times).for_each(|_| model());
}

/// No more than the model needs, so that there are few bytes to watch.
const SEGMENT_BYTES: usize =
    format::FRAMES_START + 2 * format::SECTOR_BYTES + format::FOOTER_PAGE_BYTES;

/// What `SegmentWriter` would sync; nothing is.
static FILE: LazyLock<Arc<DiskFile>> = LazyLock::new(|| {
    let file = Disk::default().open(Path::new("/dev/null"));
    Arc::new(file.expect("a file"))
});

/// A new segment in memory, its first frame written.
fn segment_at(base: u64) -> SegmentWriter {
    let (base, nonce) = (Offset::new(base), 7);
    let memory = Arc::new(Memory::new(SEGMENT_BYTES));
    let frontier = memory.grow_from(SEGMENT_BYTES, format::FRAMES_START, true);
    let map = Arc::clone(frontier.map());
    let segment = Segment::growing(PathBuf::from("memory"), base, nonce, map, Vec::new());
    let mut writer = SegmentWriter::new(
        Arc::new(segment),
        Arc::clone(&FILE),
        SEGMENT_BYTES as u64,
        frontier,
        format::FRAMES_START,
    );
    let begin = Begin {
        base,
        epoch: Epoch::FIRST,
        durable: Offset::ZERO,
    };
    writer.begin(&begin, 1).expect("in memory");
    writer
}

/// An open log with one segment and nothing in it.
fn log() -> (Arc<Shared>, SegmentWriter) {
    let segments = Segments::new(Disk::default(), PathBuf::from("memory"), 1);
    let writer = segment_at(0);
    segments.go_on_in(writer.file_bytes(), writer.segment(), None);
    let opened = Opened {
        segments,
        log_id: 1,
        first: Offset::ZERO,
        next: Offset::ZERO,
        durable: Offset::ZERO,
        epochs: Vec::new(),
        follower: None,
        indexer: None,
        noticed: Vec::new(),
    };
    let shared = Shared::new(Disk::default(), PathBuf::from("memory"), opened);
    (Arc::new(shared), writer)
}

/// As `Writer::append`: writes and publishes one record, shows it, and tells those who wait.
fn append(shared: &Shared, writer: &mut SegmentWriter, offset: u64) {
    show(shared, writer, offset);
    shared.visible.announce();
}

/// The part of it for which the appender is locked.
fn show(shared: &Shared, writer: &mut SegmentWriter, offset: u64) {
    let offset = Offset::new(offset);
    let relative = writer.segment().relative(offset);
    let frame = NewFrame::plain(Kind::Record, relative, 1, b"record");
    let total = frame.bytes();
    let written = writer.write(std::iter::once(frame), total);
    written.expect("in memory");
    shared.visible.raise(offset.next());
}

/// As `Writer::roll`: seals the segment, and goes on in the next one.
fn roll(shared: &Shared, filled: &mut SegmentWriter, base: u64) -> SegmentWriter {
    let next = segment_at(base);
    let footer = Footer {
        base: filled.segment().base(),
        next: Offset::new(base),
        end_position: u32::try_from(filled.position()).expect("small"),
        nonce: filled.segment().nonce(),
        first_timestamp_micros: 1,
        last_timestamp_micros: 1,
        epoch: Epoch::FIRST,
        gaps: 0,
    };
    filled.seal(&footer).expect("in memory");
    shared.segments.seal(filled.segment(), footer);
    let segment = next.segment();
    shared
        .segments
        .go_on_in(next.file_bytes(), segment, Some(filled.segment()));
    next
}

/// Fails with a published length, or a visible watermark, that is stored or loaded `Relaxed`, with one
/// that is raised before the frame is written, without either fence of `Watermark`, and when a tailer
/// does not look again before it waits.
#[test]
fn a_tailer_reads_what_it_is_shown_and_nothing_else() {
    explore(3, || {
        let (shared, mut writer) = log();
        let mut tailer = Tailer::new(Arc::clone(&shared), Start::Oldest);
        let reading = thread::spawn(move || {
            for offset in 0..2 {
                let record = tailer.next_blocking().expect("a record");
                assert_eq!(record.offset(), Offset::new(offset));
                assert_eq!(record.payload(), b"record");
            }
        });
        for offset in 0..2 {
            append(&shared, &mut writer, offset);
        }
        reading.join().unwrap();
    });
}

/// Fails when the watermark is raised over a record of a segment that readers were not sent on to. The
/// end that sends them there could be `Relaxed`: who looks for it has seen the watermark.
#[test]
fn a_tailer_at_the_end_of_a_segment_goes_on_in_the_next() {
    explore(3, || {
        let (shared, mut first) = log();
        append(&shared, &mut first, 0);
        let mut tailer = Tailer::new(Arc::clone(&shared), Start::Oldest);
        let reading = thread::spawn(move || {
            for offset in 0..2 {
                let record = tailer.next_blocking().expect("a record");
                assert_eq!(record.offset(), Offset::new(offset));
            }
            assert!(tailer.try_next().expect("no damage").is_none());
        });
        let mut second = roll(&shared, &mut first, 1);
        append(&shared, &mut second, 1);
        reading.join().unwrap();
    });
}

/// Fails when a tailer looks at the end first and then whether the log is closed, when the flag is
/// stored or loaded `Relaxed`, and when closing wakes nobody, or before it sets the flag.
#[test]
fn who_is_told_that_the_log_is_closed_has_read_everything() {
    explore(3, || {
        let (shared, mut writer) = log();
        let mut tailer = Tailer::new(Arc::clone(&shared), Start::Oldest);
        let reading = thread::spawn(move || {
            let mut read = 0;
            loop {
                match tailer.next_blocking() {
                    Ok(_) => read += 1,
                    Err(ReadError::Closed) => return read,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        // Whether the log is closing, as the appender's lock guards it.
        let appender = Arc::new(Mutex::new(false));
        let appending = {
            let (shared, appender) = (Arc::clone(&shared), Arc::clone(&appender));
            thread::spawn(move || {
                let is_closing = appender.lock().unwrap();
                if *is_closing {
                    return 0;
                }
                show(&shared, &mut writer, 0);
                drop(is_closing);
                shared.visible.announce();
                1
            })
        };
        *appender.lock().unwrap() = true;
        shared.close();
        assert_eq!(reading.join().unwrap(), appending.join().unwrap());
    });
}

/// What `Writer` uses for durability: its flags and its flush thread, without the files.
struct Durability {
    durable: Watermark,
    flusher: Flusher,
    poison: OnceLock<&'static str>,
    /// One flush at a time, and what is appended while it runs.
    next: Mutex<u64>,
}

impl Durability {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            durable: Watermark::new(Offset::ZERO),
            flusher: Flusher::new(Flush::OnDemand),
            poison: OnceLock::new(),
            next: Mutex::new(0),
        })
    }

    /// As `Log::durable`.
    fn wait_for(&self, offset: u64) -> Result<(), &'static str> {
        let refusal = || self.poison.get().copied();
        let ask = || self.flusher.request();
        block_on(self.durable.pass(Offset::new(offset), refusal, ask))
    }

    fn append(&self) -> u64 {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        *next - 1
    }

    /// As the flush thread, while the disk works or does not.
    fn flush(&self, works: bool) {
        while self.flusher.next_order() {
            let next = *self.next.lock().unwrap();
            if works {
                self.durable.raise(Offset::new(next));
                self.durable.announce();
            } else {
                self.poison.get_or_init(|| "failed");
                self.durable.wake();
            }
        }
    }
}

/// Fails when a request is not kept for a thread that is flushing, and when a waiter does not look
/// again before it waits.
#[test]
fn all_who_wait_for_durability_are_covered_by_some_flush() {
    explore(2, || {
        let log = Durability::new();
        let flushing = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.flush(true))
        };
        let waiting = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.wait_for(log.append()))
        };
        assert_eq!(log.wait_for(log.append()), Ok(()));
        assert_eq!(waiting.join().unwrap(), Ok(()));
        log.flusher.stop();
        flushing.join().unwrap();
    });
}

/// Fails when a failed flush wakes nobody.
#[test]
fn whoever_waits_for_durability_learns_of_the_failure() {
    explore(2, || {
        let log = Durability::new();
        let flushing = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.flush(false))
        };
        let waiting = {
            let log = Arc::clone(&log);
            thread::spawn(move || log.wait_for(log.append()))
        };
        assert_eq!(log.wait_for(log.append()), Err("failed"));
        assert_eq!(waiting.join().unwrap(), Err("failed"));
        log.flusher.stop();
        flushing.join().unwrap();
    });
}

/// Without a flush that would fail once more, as while the log is being closed. Fails when the poison
/// is looked at before listening, when the failure wakes nobody, and when it does so too early.
#[test]
fn a_failure_that_comes_once_is_learnt_of() {
    explore(3, || {
        let log = Durability::new();
        let failing = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                log.poison.get_or_init(|| "failed");
                log.durable.wake();
            })
        };
        assert_eq!(log.wait_for(0), Err("failed"));
        failing.join().unwrap();
    });
}

/// Fails when the point is looked at before the poison, or that is loaded `Relaxed`: a flush that ended
/// before the failure would be denied.
#[test]
fn what_was_flushed_before_a_failure_counts() {
    explore(3, || {
        let log = Durability::new();
        let offset = log.append();
        let failing = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                log.durable.raise(Offset::new(offset + 1));
                log.durable.announce();
                log.poison.get_or_init(|| "failed");
                log.durable.wake();
            })
        };
        assert_eq!(log.wait_for(offset), Ok(()));
        failing.join().unwrap();
    });
}

/// What `Writer` uses for group commit: the turns, and what they make durable, without the files.
struct GroupCommit {
    turns: Turns,
    visible: Watermark,
    durable: Watermark,
    poison: OnceLock<&'static str>,
    next: Mutex<u64>,
    /// Somebody has the turn.
    is_flushing: AtomicBool,
    works: bool,
}

impl GroupCommit {
    fn new(works: bool) -> Arc<Self> {
        Arc::new(Self {
            turns: Turns::new(),
            visible: Watermark::new(Offset::ZERO),
            durable: Watermark::new(Offset::ZERO),
            poison: OnceLock::new(),
            next: Mutex::new(0),
            is_flushing: AtomicBool::new(false),
            works,
        })
    }

    fn append(&self) -> Offset {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        self.visible.raise(Offset::new(*next));
        Offset::new(*next)
    }

    /// As `Writer::flush`.
    fn flush(&self) -> Result<(), &'static str> {
        let target = self.visible.get();
        let Some(turn) = self.turns.take(|| self.durable.get() >= target) else {
            return Ok(());
        };
        turn.gather(|| self.visible.get().since(self.durable.get()));
        self.flush_in_turn()
    }

    /// As `Writer::close`, which has no record of its own to be covered.
    fn close(&self) -> Result<(), &'static str> {
        let _turn = self.turns.take(|| false);
        self.flush_in_turn()
    }

    fn flush_in_turn(&self) -> Result<(), &'static str> {
        assert!(!self.is_flushing.swap(true, Relaxed), "one at a time");
        let refusal = self.poison.get().copied();
        let flushed = match (refusal, self.works) {
            (Some(refusal), _) => Err(refusal),
            (None, true) => {
                let next = *self.next.lock().unwrap();
                self.durable.raise(Offset::new(next));
                Ok(())
            }
            (None, false) => Err(*self.poison.get_or_init(|| "failed")),
        };
        self.is_flushing.store(false, Relaxed);
        flushed
    }
}

/// Fails when the turn is given to somebody while another one has it, and when its end wakes nobody, or
/// only one of those who wait, which shows as a deadlock: that one may have no more need of it.
#[test]
fn all_who_wait_for_their_turn_are_covered_by_some_flush() {
    explore(3, || {
        let log = GroupCommit::new(true);
        let append_and_flush = |log: &GroupCommit| {
            let end = log.append();
            assert_eq!(log.flush(), Ok(()));
            assert!(log.durable.get() >= end);
        };
        let others = [0; 2].map(|_| {
            let log = Arc::clone(&log);
            thread::spawn(move || append_and_flush(&log))
        });
        append_and_flush(&log);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// Fails when a flush that failed ends without waking those who wait for their turn.
#[test]
fn all_who_wait_for_their_turn_learn_of_the_failure() {
    explore(3, || {
        let log = GroupCommit::new(false);
        let others = [0; 2].map(|_| {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                log.append();
                assert_eq!(log.flush(), Err("failed"));
            })
        });
        log.append();
        assert_eq!(log.flush(), Err("failed"));
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// Fails when who closes the log is not woken for its turn by those who flush, or the other way round.
#[test]
fn who_closes_the_log_gets_a_turn_among_those_who_flush() {
    explore(3, || {
        let log = GroupCommit::new(true);
        let others = [0; 2].map(|_| {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                let end = log.append();
                assert_eq!(log.flush(), Ok(()));
                assert!(log.durable.get() >= end);
            })
        });
        assert_eq!(log.close(), Ok(()));
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// An appender of two topics, in turn, and a tailer of the second one, which registers, listens, and looks
/// again while the records come. Fails without the fence in `Registration::listen`, which shows as a
/// deadlock: the appender sees nobody registered, and the tailer does not see the record.
#[test]
fn a_tailer_of_a_topic_is_woken_by_its_records() {
    explore(3, || {
        let (shared, mut writer) = log();
        let topics = ["other", "mine"].map(|name| Topic::new(name).expect("a topic"));
        let mut tailer = Tailer::new(Arc::clone(&shared), Start::Oldest).topic(&topics[1]);
        let reading = thread::spawn(move || {
            let record = tailer.next_blocking().expect("a record");
            assert_eq!((record.offset(), record.topic()), (Offset::new(1), "mine"));
            tailer
        });
        for (offset, topic) in (0..).zip(&topics) {
            append_to(&shared, &mut writer, topic, offset);
        }
        // It ends here: the model checker does not see that an `Arc` orders the end of what it holds.
        drop(reading.join().unwrap());
    });
}

/// As `Writer::append` does it for a record of a topic.
fn append_to(shared: &Shared, writer: &mut SegmentWriter, topic: &Topic, offset: u64) {
    let relative = writer.segment().relative(Offset::new(offset));
    let frame = NewFrame {
        topic: topic.as_str(),
        ..NewFrame::plain(Kind::Record, relative, 1, b"record")
    };
    let written = writer.write(std::iter::once(frame), frame.bytes());
    written.expect("in memory");
    shared.visible.raise(Offset::new(offset + 1));
    if shared.visible.announce() {
        let waiters = shared.visible.topics();
        waiters.wake(topic.as_str().as_bytes(), topic.name_hash());
    }
}
