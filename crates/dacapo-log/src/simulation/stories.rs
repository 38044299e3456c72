//! Single stories on the simulated disk: what a seed once found, told on purpose, so that it stays
//! found when seeds come to mean other lives.

use std::path::Path;

use rustix::io::Errno;
use shuttle::thread;

use super::cut::{Cut, Toll};
use super::random::Random;
use super::simulate;
use crate::disk::{DIR, Disk, Fault};
use crate::{Flush, Log, Offset, OpenError, Options, ReadError, Start, WritePath};

fn open(disk: &Disk) -> Result<Log, OpenError> {
    let options = Options {
        segment_bytes_max: 16 << 10,
        segment_bytes_min: 16 << 10,
        flush: Flush::OnDemand,
        write_path: WritePath::Mapped,
        ..Options::default()
    };
    Log::open_writer_on(disk, Path::new(DIR), &options)
}

/// Ends the process, and leaves the log as it is.
fn kill(disk: &Disk, log: Log) -> Disk {
    disk.crash_now();
    drop(log);
    disk.after_kill()
}

fn cut_the_power(disk: &Disk, log: Log, seed: u64) -> Disk {
    disk.crash_now();
    drop(log);
    let mut toll = Toll::default();
    disk.after_power_cut(&mut Cut {
        random: Random::seeded(seed),
        toll: &mut toll,
    })
}

/// The next sync of a segment.
const FAILED_SYNC: Fault = Fault {
    after: 0,
    errno: Errno::IO,
    kind: Some("sync segment"),
};

/// Tells a story many times, each time with another end: the seed is for the power cut.
fn tell(story: impl Fn(u64) + Copy + Send + Sync + 'static) {
    for seed in 0..100 {
        simulate(Random::seeded(seed), move || story(seed));
    }
}

fn assert_holds(log: &Log, records: u64) {
    let read = log.replay(Start::Oldest).map(|record| record.unwrap());
    let offsets: Vec<u64> = read.map(|record| record.offset().get()).collect();
    assert!(offsets.len() as u64 >= records, "{offsets:?}");
}

/// The footer that a recovery could not sync was in the page cache, and looked written to the next
/// recovery, which did not write it again. A power cut took it, and what followed could not be reached.
#[test]
fn a_footer_that_a_failed_sync_left_behind_is_written_again() {
    tell(|seed| {
        let disk = Disk::new(Random::seeded(seed));
        let log = open(&disk).unwrap();
        log.append(b"first").unwrap();
        let disk = kill(&disk, log);
        disk.fail(Some(FAILED_SYNC));
        open(&disk).unwrap_err();
        disk.fail(None);
        let log = open(&disk).unwrap();
        log.append(b"second").unwrap();
        let next = log.sync().unwrap();

        let disk = cut_the_power(&disk, log, seed);

        assert_holds(&open(&disk).expect("it opens"), next.get());
    });
}

/// The mark of a flush was in the page cache only, because the next sync failed. Recovery put the end of
/// the segment behind it; a power cut took the mark, and left a footer behind a hole.
#[test]
fn a_mark_that_a_failed_sync_left_behind_is_not_believed() {
    tell(|seed| {
        let disk = Disk::new(Random::seeded(seed));
        let log = open(&disk).unwrap();
        log.append(&[1; 6000]).unwrap();
        log.sync().unwrap(); // and its mark, which the next one syncs
        disk.fail(Some(FAILED_SYNC));
        log.append(&[2; 6000]).unwrap(); // in the next segment
        log.sync().unwrap_err();
        disk.fail(None);
        let disk = kill(&disk, log);
        let log = open(&disk).unwrap();
        log.append(b"third").unwrap();
        let next = log.sync().unwrap();

        let disk = cut_the_power(&disk, log, seed);

        assert_holds(&open(&disk).expect("it opens"), next.get());
    });
}

/// What was dropped is dropped for good, whatever the power cut leaves of its files.
#[test]
fn a_dropped_segment_does_not_come_back() {
    tell(|seed| {
        let disk = Disk::new(Random::seeded(seed));
        let log = open(&disk).unwrap();
        for _ in 0..100 {
            log.append(&[7; 1000]).unwrap();
        }
        let next = log.sync().unwrap();
        let oldest = log.prune(next).unwrap().oldest;
        assert!(oldest > Offset::ZERO);

        let disk = cut_the_power(&disk, log, seed);

        let log = open(&disk).expect("it opens");
        assert_eq!((log.oldest(), log.next_offset()), (oldest, next));
    });
}

/// The segment that a follower read was sealed and dropped between its look for the footer and its look
/// for the name. It went on in the next one and left this one without an end, where readers met damage.
#[test]
fn a_segment_that_is_sealed_and_dropped_between_two_looks_ends_for_readers() {
    for seed in 0..3000 {
        simulate(Random::seeded(seed), move || {
            let disk = Disk::new(Random::seeded(seed));
            let log = open(&disk).unwrap();
            for _ in 0..6 {
                log.append(&[7; 1000]).unwrap();
            }
            let follower = Log::open_reader_on(&disk, Path::new(DIR)).unwrap();
            let reading = thread::spawn(move || {
                for _ in 0..20 {
                    for read in follower.replay(Start::Oldest) {
                        match read {
                            Err(ReadError::Pruned { .. }) => break,
                            read => drop(read.expect("a sound record")),
                        }
                    }
                }
            });
            for _ in 0..8 {
                for _ in 0..8 {
                    log.append(&[7; 1000]).unwrap();
                }
                let next = log.sync().unwrap();
                log.prune(next).unwrap();
            }
            reading.join().unwrap();
        });
    }
}

/// A reader in another PID namespace does not see the writer's lock. What came while it looked for damage
/// it took for damage, and let readers at bytes that were still being stored.
#[test]
fn a_follower_that_cannot_see_the_writer_takes_nothing_of_a_live_log_for_damage() {
    for seed in 0..1000 {
        simulate(Random::seeded(seed), move || {
            let disk = Disk::new(Random::seeded(seed));
            disk.hide_locks();
            let log = open(&disk).unwrap();
            let follower = Log::open_reader_on(&disk, Path::new(DIR)).unwrap();
            let reading = thread::spawn(move || {
                let mut tailer = follower.tail(Start::Oldest);
                for offset in 0..40 {
                    let record = loop {
                        match tailer.try_next().expect("a sound log") {
                            Some(record) => break record,
                            None => thread::yield_now(),
                        }
                    };
                    assert_eq!(record.offset(), Offset::new(offset));
                    assert_eq!(record.payload(), [7; 300]);
                }
            });
            for _ in 0..10 {
                log.append(&[7; 300]).unwrap();
                log.sync().unwrap();
                log.append_batch([[7; 300]; 3]).unwrap();
            }
            reading.join().unwrap();
        });
    }
}
