//! One seed: a log that is used by several threads, crashes, and is opened again, generation after
//! generation, with a model beside it.

use std::path::Path;
use std::time::Duration;

use shuttle::thread;

use super::Coverage;
use super::cut::Cut;
use super::model::Shared;
use super::random::Random;
use super::resender::Resender;
use super::users::{Follower, Producer, Spectator, some_topic};
use crate::disk::{DIR, Disk, Fault, errnos_of};
use crate::verify::verify_log;
use crate::{Compaction, Flush, Log, Offset, OpenError, Options, Retention, Start, WritePath};

/// How a generation ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Closed,
    Crashed,
    /// Not on purpose: a call failed, and the log would not go on.
    Failed,
}

pub(super) struct Life {
    random: Random,
    disk: Disk,
    options: Options,
    /// How many of the newest records the options' retention keeps in any case, if they have one.
    keeps_newest: Option<u64>,
    model: Shared,
    /// So many records have to be there when the log is opened next.
    kept: u64,
    /// This generation's recovery was seen to its end.
    opened: bool,
    pub(super) coverage: Coverage,
}

impl Life {
    pub(super) fn new(mut random: Random) -> Self {
        let (keeps_newest, retention) = retention(&mut random);
        let model = Shared::default();
        let compaction = random
            .one_in(3)
            .then(|| Compaction::default().wasted_percent(wasted_percent(&mut random)));
        if compaction.is_some() {
            model.get().compacts();
        }
        let options = Options {
            retention,
            compaction,
            segment_bytes_max: *random.pick(&[16 << 10, 32 << 10]),
            segment_bytes_min: 16 << 10,
            flush: Flush::OnDemand,
            write_path: *random.pick(&[WritePath::Mapped, WritePath::Mapped, WritePath::File]),
            ..Options::default()
        };
        Self {
            disk: Disk::new(random.fork()),
            options,
            keeps_newest,
            model,
            kept: 0,
            opened: false,
            coverage: Coverage::default(),
            random,
        }
    }

    /// Lives through some generations; panics at the first thing that must not be.
    pub(super) fn live(&mut self, generations: u64) {
        for _ in 0..generations {
            self.live_once();
        }
        // What the last crash left has to open as well.
        if let Some(log) = self.open(None) {
            drop(log);
        }
        self.coverage.add_calls(&self.disk);
        self.coverage.tally = self.model.get().tally.clone();
    }

    fn live_once(&mut self) {
        self.coverage.generations += 1;
        let ending = self.generation();
        super::trace(|| format!("{ending:?}, during {:?}", self.disk.crashed()));
        self.end(ending);
    }

    /// Meets one fault in its second generation, or in its first; `false` if the call never came.
    pub(super) fn meet(&mut self, fault: Fault) -> bool {
        if self.random.one_in(2) {
            self.live_once();
        }
        self.disk.fail(Some(fault));
        let ending = match self.open(None) {
            Some(log) => self.use_log(log, None),
            None => Ending::Failed,
        };
        let met = self.disk.failed().is_some();
        self.end(ending);
        let log = self.open(None).expect("without a fault it opens");
        let offset = log.append(b"goes on").expect("without a fault it goes on");
        assert_eq!(log.sync().expect("synced"), offset.next());
        met
    }

    fn generation(&mut self) -> Ending {
        self.opened = false;
        if self.random.one_in(2) {
            self.look();
        }
        let crash = self.random.one_in(3).then(|| self.random.below(60));
        if self.random.one_in(5) {
            let action = *self
                .random
                .pick(&["write", "sync", "allocate", "create", "map", "rename"]);
            let fault = Fault {
                after: self.random.below(80),
                errno: *self.random.pick(errnos_of(action)),
                kind: None,
            };
            super::trace(|| format!("{fault:?}"));
            self.disk.fail(Some(fault));
        }
        let Some(log) = self.open(crash) else {
            self.coverage.crashes_in_recovery += u64::from(self.disk.crashed().is_some());
            return match self.disk.crashed() {
                Some(_) => Ending::Crashed,
                None => Ending::Failed,
            };
        };
        let budget = *self.random.pick(&[20, 100, 400]);
        let crash = (!self.random.one_in(4)).then(|| self.random.below(budget));
        self.use_log(log, crash)
    }

    /// Opens the log for writing and checks what it holds; `None` if that was not to be.
    fn open(&mut self, crash: Option<u64>) -> Option<Log> {
        self.disk.crash_in(crash);
        let opened = Log::open_writer_on(&self.disk, Path::new(DIR), &self.options);
        self.disk.crash_in(None);
        if self.disk.crashed().is_some() {
            return None;
        }
        let log = match opened {
            Ok(log) => log,
            Err(error @ (OpenError::Io(_) | OpenError::StorageFull { .. })) => {
                assert!(self.disk.failed().is_some(), "it does not open: {error}");
                return None;
            }
            Err(error) => panic!("it does not open: {error}"),
        };
        super::trace(|| {
            format!(
                "opened, {} kept, {} to {}",
                self.kept,
                log.oldest(),
                log.next_offset()
            )
        });
        self.disk
            .without_fault(|| self.model.get().check_opened(&log, self.kept));
        if let Some(newest) = self.keeps_newest {
            self.model.get().prune_but(newest);
        }
        self.opened = true;
        Some(log)
    }

    /// Reads what a crash left, without recovering it.
    fn look(&mut self) {
        match Log::open_reader_on(&self.disk, Path::new(DIR)) {
            Ok(log) => {
                let promised = log.durable_offset();
                let mut model = self.model.get();
                model.check_read_only(&log, self.kept);
                model.promised(promised);
                self.kept = self.kept.max(promised.get());
                drop(model);
                verify_log(&log, |_| ()).expect("what can be opened can be verified");
            }
            Err(OpenError::NotFound { .. }) => assert_eq!(self.kept, 0, "the log is gone"),
            Err(error) => panic!("it cannot be read: {error}"),
        }
    }

    /// Uses the log from several threads, until they are done or it crashes.
    fn use_log(&mut self, log: Log, crash: Option<u64>) -> Ending {
        self.disk.crash_in(crash);
        let tailers: Vec<_> = (0..self.random.below(3))
            .map(|_| {
                let follower = Follower {
                    disk: self.disk.clone(),
                    model: self.model.clone(),
                    durable_only: self.random.one_in(2),
                    passes_pruned: self.random.one_in(2),
                };
                let (oldest, next) = (log.oldest().get(), log.next_offset().get());
                let start = match follower.passes_pruned {
                    true => Start::AtOrOldest(Offset::new(self.random.below(next + 1))),
                    false => Start::At(Offset::new(oldest + self.random.below(next - oldest + 1))),
                };
                let topic = self.random.one_in(2).then(|| some_topic(&mut self.random));
                let tailer = log.tail(start);
                thread::spawn(move || follower.follow(tailer, topic))
            })
            .collect();
        let producers: Vec<_> = (0..1 + self.random.below(3))
            .map(|_| {
                let mut producer = Producer {
                    random: self.random.fork(),
                    disk: self.disk.clone(),
                    model: self.model.clone(),
                    log: log.clone(),
                    hold: None,
                };
                thread::spawn(move || producer.produce())
            })
            .collect();
        let resenders: Vec<_> = (0..self.random.below(3))
            .map(|name| {
                let producer = Producer {
                    random: self.random.fork(),
                    disk: self.disk.clone(),
                    model: self.model.clone(),
                    log: log.clone(),
                    hold: None,
                };
                let name = name.into();
                let mut resender = Resender { name, producer };
                thread::spawn(move || resender.send())
            })
            .collect();
        let spectators: Vec<_> = (0..self.random.below(4) / 2)
            .map(|_| {
                let mut spectator = Spectator {
                    random: self.random.fork(),
                    disk: self.disk.clone(),
                    model: self.model.clone(),
                };
                thread::spawn(move || spectator.watch())
            })
            .collect();
        for producer in producers {
            producer.join().expect("a producer");
        }
        for resender in resenders {
            resender.join().expect("a producer that resends");
        }
        for spectator in spectators {
            spectator.join().expect("a spectator");
        }
        self.coverage.segments_most = self.coverage.segments_most.max(segments(&self.disk));
        let ending = if self.disk.crashed().is_none() && self.random.one_in(4) {
            self.close(&log)
        } else {
            self.disk.crash_now();
            Ending::Crashed
        };
        drop(log);
        for tailer in tailers {
            tailer.join().expect("a tailer");
        }
        ending
    }

    fn close(&mut self, log: &Log) -> Ending {
        let closed = log.close();
        if self.disk.crashed().is_some() {
            return Ending::Crashed;
        }
        let failed = self.disk.failed();
        if let Err(error) = closed {
            assert!(failed.is_some(), "it does not close: {error}");
            return Ending::Failed;
        }
        let model = self.model.get();
        assert_eq!(
            log.durable_offset().get(),
            model.end(),
            "closed, so durable"
        );
        drop(model);
        if failed.is_none() {
            self.disk.fail(None);
            self.check_closed();
        }
        Ending::Closed
    }

    /// A closed log is sound, its derived files included.
    fn check_closed(&mut self) {
        self.disk.crash_in(None);
        let log = Log::open_reader_on(&self.disk, Path::new(DIR)).expect("a closed log opens");
        let found = verify_log(&log, |_| ()).expect("a closed log can be verified");
        let model = self.model.get();
        model.check_count(found.records);
        assert_eq!((found.lost, found.damages), (vec![], vec![]));
    }

    /// Makes of the disk what the next generation finds.
    fn end(&mut self, ending: Ending) {
        self.coverage.add_calls(&self.disk);
        self.coverage.add_fault(&self.disk);
        let faulty = self.disk.failed().is_some();
        self.disk.fail(None);
        self.disk.crash_in(None);
        let model = self.model.get();
        let (end, durable) = (model.end(), model.durable());
        drop(model);
        if ending == Ending::Closed {
            self.kept = end;
            self.coverage.closes += 1;
        }
        // A process may also go on, after a close or a failure, without a crash.
        let goes_on = ending != Ending::Crashed && self.disk.crashed().is_none();
        if goes_on && self.random.one_in(2) {
            self.kept = if ending == Ending::Closed {
                end
            } else {
                durable
            };
            return;
        }
        self.disk.crash_now();
        self.coverage.add_crash(&self.disk);
        if self.random.one_in(4) {
            self.coverage.kills += 1;
            // What a failed sync has lost may be read from the disk again, as it was.
            super::trace(|| format!("killed {:?}", self.disk.state().names));
            self.kept = match ending {
                Ending::Closed => end,
                _ if faulty => durable,
                Ending::Crashed if self.opened => end,
                _ => self.kept,
            };
            self.disk = self.disk.after_kill();
        } else {
            self.coverage.cuts += 1;
            if ending != Ending::Closed {
                self.kept = durable;
            }
            let mut cut = Cut {
                random: self.random.fork(),
                toll: &mut self.coverage.toll,
            };
            self.disk = self.disk.after_power_cut(&mut cut);
        }
    }
}

/// How much of a segment has to be waste.
pub(super) fn wasted_percent(random: &mut Random) -> u8 {
    u8::try_from(random.below(60)).expect("less than 60")
}

/// A retention, or none, and how many of the newest records it keeps in any case.
pub(super) fn retention(random: &mut Random) -> (Option<u64>, Retention) {
    let unlimited = Retention::default();
    match random.below(6) {
        0 => {
            let newest = random.below(40);
            (Some(newest), unlimited.records_max(newest))
        }
        1 => (Some(0), unlimited.bytes_max(random.below(80 << 10))),
        2 => {
            // Each look at the clock takes a millisecond.
            let age = Duration::from_millis(random.below(200));
            (Some(0), unlimited.age_max(age))
        }
        _ => (None, unlimited),
    }
}

fn segments(disk: &Disk) -> u64 {
    let state = disk.state();
    state
        .names
        .keys()
        .filter(|name| name.ends_with(".seg"))
        .count() as u64
}
