//! A read-only log beside its writer: nothing lost, nothing early, nothing stuck.

mod support;

use std::thread;

use dacapo_log::{Log, Offset, ReadError, Start};
use support::{flip, quiet, small_segments};

/// What is durable reaches a tailer in a read-only log, though it fills its segment, and though
/// nothing follows it. (The mark had no room, and no other one came.)
#[test]
fn a_durable_record_that_fills_its_segment_reaches_a_durable_tailer() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let follower = Log::options().open_read_only(dir.path()).unwrap();
    let mut tailer = follower.tail(Start::Oldest).durable_only();
    log.append(&vec![b'x'; log.payload_bytes_max()]).unwrap();
    log.sync().unwrap();
    assert_eq!(tailer.next_blocking().unwrap().offset(), Offset::ZERO);
}

/// A follower stands in a segment, and finds it and the next ones dropped when it looks again. (It
/// opened the file once more to read its footer, and failed with "not found".)
#[test]
fn a_follower_whose_segment_was_dropped_is_told_where_the_log_begins() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    log.append(b"first").unwrap();
    let follower = Log::options().open_read_only(dir.path()).unwrap();
    let mut tailer = follower.tail(Start::Oldest);
    assert_eq!(tailer.next_blocking().unwrap().payload(), b"first");

    for _ in 0..200 {
        log.append(&[7; 1000]).unwrap();
    }
    let next = log.sync().unwrap();
    let first = log.prune(next).unwrap().oldest;

    let left_in_its_segment = loop {
        match tailer.next_blocking() {
            Ok(record) => assert!(record.offset() < first),
            Err(ReadError::Pruned { requested, oldest }) => {
                assert_eq!(oldest, first);
                break requested;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(left_in_its_segment < first);
    let mut late = follower.tail(Start::Oldest);
    assert_eq!(late.next_blocking().unwrap().offset(), first);
}

/// No mark follows the flush of a closing log: `meta` says what is durable.
#[test]
fn a_durable_tailer_sees_what_closing_made_durable() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    let follower = Log::options().open_read_only(dir.path()).unwrap();
    let mut tailer = follower.tail(Start::Oldest).durable_only();
    log.append(b"last words").unwrap();
    assert!(tailer.try_next().unwrap().is_none());
    log.close().unwrap();
    assert_eq!(tailer.next_blocking().unwrap().payload(), b"last words");
}

/// A follower that looks for damage must not take what arrives meanwhile for it: marks were lost,
/// and a durable tailer slept on.
#[test]
fn marks_that_arrive_while_a_follower_looks_are_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let large = quiet()
        .segment_bytes_min(32 << 20)
        .segment_bytes_max(32 << 20);
    let log = large.open(dir.path()).unwrap();
    let follower = Log::options().open_read_only(dir.path()).unwrap();
    let mut tailer = follower.tail(Start::Oldest).durable_only();
    let reader = thread::spawn(move || {
        for offset in 0..400 {
            assert_eq!(
                tailer.next_blocking().unwrap().offset(),
                Offset::new(offset)
            );
        }
    });
    for _ in 0..200 {
        log.append(b"first").unwrap();
        log.append(b"second").unwrap();
        log.sync().unwrap();
    }
    reader.join().unwrap();
}

#[test]
fn a_follower_never_sees_a_part_of_a_batch() {
    const BATCH: u64 = 5_000;
    const ROUNDS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let log = quiet()
        .segment_bytes_min(1 << 20)
        .segment_bytes_max(1 << 20)
        .open(dir.path())
        .unwrap();
    let follower = Log::options().open_read_only(dir.path()).unwrap();
    let watcher = thread::spawn(move || {
        let mut tailer = follower.tail(Start::Oldest);
        while tailer.next_offset() < Offset::new(ROUNDS * (BATCH + 1)) {
            tailer.next_blocking().unwrap();
            // A single record and a batch a round.
            let of_round = follower.next_offset().get() % (BATCH + 1);
            assert!(
                of_round <= 1,
                "{} of {BATCH} records of a batch are visible",
                of_round - 1
            );
        }
    });
    for _ in 0..ROUNDS {
        log.append(b"single").unwrap();
        log.sync().unwrap();
        log.append_batch(vec![b""; usize::try_from(BATCH).unwrap()])
            .unwrap();
    }
    watcher.join().unwrap();
}

/// A follower lives on while its writer is killed and comes back; nothing is undone.
#[test]
fn a_followers_checkpoint_is_of_the_epoch_that_the_record_is_of() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    log.append(b"a").unwrap();
    let follower = Log::options().open_read_only(dir.path()).unwrap();
    let mut tailer = follower.tail(Start::Oldest);
    tailer.next_blocking().unwrap();
    // As unclean as a kill, as far as the next opening can tell.
    log.close().unwrap();
    flip(&dir.path().join("meta"), 4096 + 200);
    let log = quiet().open(dir.path()).unwrap();
    assert_eq!(log.epoch().get(), 2);
    log.append(b"b").unwrap();
    log.append(b"c").unwrap();
    assert_eq!(tailer.next_blocking().unwrap().payload(), b"b");

    let checkpoint = tailer.checkpoint();

    let next = log.tail(Start::Resume(checkpoint)).try_next();
    assert_eq!(next.unwrap().unwrap().payload(), b"c");
}

/// The last segment cannot be opened: `skip_damage` must lead somewhere.
#[test]
fn skipping_damage_in_a_tailer_ends() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    log.append(b"a").unwrap();
    log.close().unwrap();
    flip(&support::segments(dir.path())[0], 20);
    let follower = Log::options().open_read_only(dir.path()).unwrap();
    let mut tailer = follower.tail(Start::Oldest);
    // An error or two, and then it waits for what a repair may bring.
    for _ in 0..10 {
        match tailer.try_next() {
            Ok(None) => return,
            Ok(Some(_)) => {}
            Err(_) => {
                tailer.skip_damage();
            }
        }
    }
    panic!("the same error again and again behind skip_damage");
}
