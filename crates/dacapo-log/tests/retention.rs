//! What is dropped, what is kept, and what readers are told.

mod support;

use std::ops::Range;
use std::time::{Duration, SystemTime};

use dacapo_log::{Kept, Log, Offset, ReadError, Record, Retention, Start, Tailer, Topic};
use futures_lite::future::block_on;
use support::{as_if_killed, payloads, segments, small_segments};

/// Appends numbered records of 1000 bytes: some 7 fill a small segment.
fn append(log: &Log, numbers: Range<u64>) {
    for number in numbers {
        log.append(payload(number).as_bytes()).unwrap();
    }
}

fn payload(number: u64) -> String {
    format!("record {number:0993}")
}

/// A log of 100 durable records in small segments.
fn log_of_100() -> (tempfile::TempDir, Log) {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    append(&log, 0..100);
    log.sync().unwrap();
    (dir, log)
}

fn expect_records(log: &Log, numbers: Range<u64>) {
    let expected: Vec<String> = numbers.map(payload).collect();
    assert!(payloads(log) == expected);
}

// Dropping

#[test]
fn what_was_dropped_stays_dropped_after_a_close_and_after_a_kill() {
    let (dir, log) = log_of_100();
    let before = log.status().unwrap();

    let pruned = log.prune(Offset::new(50)).unwrap();

    let after = log.status().unwrap();
    assert_eq!(after.segments + pruned.segments, before.segments);
    assert_eq!(after.file_bytes + pruned.file_bytes, before.file_bytes);
    assert_eq!(after.oldest, pruned.oldest);
    let oldest = pruned.oldest.get();
    assert!((30..=50).contains(&oldest), "whole files: {oldest}");
    assert_eq!(pruned.records, oldest);
    assert_eq!(segments(dir.path()).len(), after.segments);
    expect_records(&log, oldest..100);

    let killed = as_if_killed(&log);
    drop(log);
    for dir in [dir.path(), killed.path()] {
        let log = small_segments().open(dir).unwrap();
        assert_eq!(log.oldest(), pruned.oldest);
        append(&log, 100..101);
        expect_records(&log, oldest..101);
    }
}

#[test]
fn each_limit_drops_what_it_leaves_out_and_no_more() {
    let (_dir, log) = log_of_100();
    let file_bytes = log.status().unwrap().file_bytes;

    let unlimited = log.retain(&Retention::default()).unwrap();
    assert_eq!((unlimited.segments, unlimited.kept), (0, None));
    let by_bytes = Retention::default().bytes_max(file_bytes - 1);
    let pruned = log.retain(&by_bytes).unwrap();
    assert_eq!((pruned.segments, pruned.kept), (1, None));
    assert!(log.status().unwrap().file_bytes < file_bytes);

    let by_records = Retention::default().records_max(60);
    let pruned = log.retain(&by_records).unwrap();
    assert!((30..=40).contains(&pruned.oldest.get()), "{pruned:?}");
    expect_records(&log, pruned.oldest.get()..100);
    assert_eq!(log.retain(&by_records).unwrap().segments, 0);

    let by_all = by_records.bytes_max(u64::MAX).age_max(Duration::ZERO);
    let newest = log.get(Offset::new(99)).unwrap().timestamp_micros();
    while log
        .append(b"later")
        .is_ok_and(|later| log.get(later).unwrap().timestamp_micros() == newest)
    {}
    log.sync().unwrap();
    let pruned = log.retain(&by_all).unwrap();
    assert!(pruned.oldest > Offset::new(80), "{pruned:?}");
}

#[test]
fn the_newest_segment_stays_whatever_is_asked() {
    let (dir, log) = log_of_100();
    let nothing = Retention::default().bytes_max(0).records_max(0);
    for pruned in [log.prune(Offset::new(u64::MAX)), log.retain(&nothing)] {
        let pruned = pruned.unwrap();
        assert_eq!(pruned.kept, Some(Kept::Newest));
        assert!(pruned.oldest < Offset::new(100));
        expect_records(&log, pruned.oldest.get()..100);
    }
    // A recovery seals all segments: the last one is the newest all the same.
    let killed = as_if_killed(&log);
    drop((log, dir));
    let log = small_segments().open(killed.path()).unwrap();
    let pruned = log.retain(&nothing).unwrap();
    assert_eq!((pruned.segments, pruned.kept), (0, Some(Kept::Newest)));
}

#[test]
fn a_prune_that_only_looks_says_what_the_other_one_does() {
    let (dir, log) = log_of_100();
    let hold = log.hold("backup", Offset::new(70));
    let retention = Retention::default().records_max(20);
    for before in [0, 5, 50, 99] {
        let would = log.would_prune(Offset::new(before)).unwrap();
        assert_eq!(log.would_prune(Offset::new(before)).unwrap(), would);
        let other = Log::options().open_read_only(dir.path()).unwrap();
        let seen = other.would_prune(Offset::new(before)).unwrap();
        let did = log.prune(Offset::new(before)).unwrap();
        assert_eq!(would, did, "before {before}");
        match &did.kept {
            // The holds of another process are not known.
            Some(Kept::Held(_)) => assert!(seen.oldest > did.oldest),
            _ => assert_eq!(seen, did),
        }
    }
    drop(hold);
    let other = Log::options().open_read_only(dir.path()).unwrap();
    let would = log.would_retain(&retention).unwrap();
    assert!(would.segments > 0);
    assert_eq!(other.would_retain(&retention).unwrap(), would);
    assert_eq!(log.retain(&retention).unwrap(), would);
    assert!(other.retain(&retention).is_err(), "it is read-only");
    assert_eq!(other.would_retain(&retention).unwrap().segments, 0);
}

// In the background

#[test]
fn a_log_that_is_appended_to_keeps_to_its_retention_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention::default().bytes_max(64 << 10);
    let log = small_segments()
        .retention(retention)
        .open(dir.path())
        .unwrap();
    append(&log, 0..100);
    // At the end of each segment the thread is told; some may be told of at once.
    while log.status().unwrap().file_bytes > 64 << 10 {
        std::thread::yield_now();
    }
    let oldest = log.oldest().get();
    assert!(oldest > 0);
    expect_records(&log, oldest..100);
    drop(log);

    let log = small_segments().open(dir.path()).unwrap();
    assert!(log.oldest().get() >= oldest);
    expect_records(&log, log.oldest().get()..100);
}

#[test]
fn what_is_held_in_the_background_stays_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention::default().bytes_max(0);
    let log = small_segments()
        .retention(retention)
        .open(dir.path())
        .unwrap();
    let hold = log.hold("consumer", Offset::ZERO);
    let mut tailer = log.tail(Start::Oldest);
    for number in 0..200 {
        append(&log, number..number + 1);
        if number >= 50 {
            let record = tailer.next_blocking().unwrap();
            assert_eq!(record.offset(), hold.offset(), "nothing is missed");
            hold.move_to(record.offset().next());
        }
        assert!(log.oldest() <= hold.offset());
    }
    // The thread has come as far as the holds let it, once it has looked.
    while log.oldest() == Offset::ZERO {
        std::thread::yield_now();
    }
    assert!(log.oldest() <= hold.offset());
}

// Holds

#[test]
fn no_rule_drops_what_is_held() {
    let (_dir, log) = log_of_100();
    let (backup, consumer) = (
        log.hold("backup", Offset::new(70)),
        log.hold("consumer", Offset::new(25)),
    );
    let held: Vec<_> = log.status().unwrap().holds;
    let named: Vec<_> = held
        .iter()
        .map(|hold| (hold.name.as_str(), hold.offset.get()))
        .collect();
    assert_eq!(named, [("consumer", 25), ("backup", 70)]);

    for pruned in [
        log.prune(Offset::new(90)).unwrap(),
        log.retain(&Retention::default().bytes_max(0)).unwrap(),
    ] {
        assert_eq!(pruned.kept, Some(Kept::Held(held[0].clone())));
        assert!(pruned.oldest > Offset::ZERO && pruned.oldest <= Offset::new(25));
        expect_records(&log, pruned.oldest.get()..100);
    }
    assert_eq!(consumer.move_to(Offset::new(80)), Offset::new(80));
    let pruned = log.prune(Offset::new(90)).unwrap();
    assert_eq!(pruned.kept, Some(Kept::Held(held[1].clone())));
    assert!(pruned.oldest > Offset::new(25) && pruned.oldest <= Offset::new(70));
    drop((backup, consumer));
    assert_eq!(log.status().unwrap().holds, []);
    let pruned = log.prune(Offset::new(90)).unwrap();
    assert!(pruned.oldest > Offset::new(70));
    assert!(matches!(pruned.kept, Some(Kept::Segment { end }) if end > Offset::new(90)));
}

#[test]
fn a_hold_that_comes_too_late_says_from_where_it_holds() {
    let (_dir, log) = log_of_100();
    let oldest = log.prune(Offset::new(50)).unwrap().oldest;
    let hold = log.hold("late", Offset::new(3));
    assert_eq!(hold.offset(), oldest);
    hold.move_to(Offset::new(60));
    assert_eq!(
        hold.move_to(Offset::new(3)),
        oldest,
        "and can hold more again"
    );
    let pruned = log.prune(Offset::new(90)).unwrap();
    assert_eq!((pruned.oldest, pruned.segments), (oldest, 0));
}

// Readers of what is dropped

#[test]
fn a_reader_in_a_dropped_segment_finishes_with_it() {
    let (_dir, log) = log_of_100();
    let mut replay = log.replay(Start::Oldest);
    let first = replay.next().unwrap().unwrap();

    let oldest = log.prune(Offset::new(99)).unwrap().oldest;

    let mut read = 1;
    let error = loop {
        match replay.next().unwrap() {
            Ok(record) => assert_eq!(record.payload(), payload(read).as_bytes()),
            Err(error) => break error,
        }
        read += 1;
    };
    assert!((5..20).contains(&read), "its segment, and no more: {read}");
    assert!(
        matches!(error, ReadError::Pruned { requested, oldest: at } if requested.get() == read && at == oldest)
    );
    assert!(replay.next().is_none(), "that ends it");
    assert_eq!(first.payload(), payload(0).as_bytes());
}

/// What a tailer says before it waits; `Err` for a range of dropped records.
fn told(tailer: &mut Tailer) -> Vec<Result<u64, (u64, u64)>> {
    let mut told = Vec::new();
    loop {
        match tailer.try_next() {
            Ok(Some(record)) => told.push(Ok(record.offset().get())),
            Ok(None) => return told,
            Err(ReadError::Pruned { requested, oldest }) => {
                told.push(Err((requested.get(), oldest.get())));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_start_before_the_oldest_is_reported_once_where_that_is_asked_for() {
    let (dir, log) = log_of_100();
    let oldest = log.prune(Offset::new(50)).unwrap().oldest.get();
    let expected: Vec<_> = std::iter::once(Err((3, oldest)))
        .chain((oldest..100).map(Ok))
        .collect();
    let start = Start::AtOrOldest(Offset::new(3));
    let other = Log::options().open_read_only(dir.path()).unwrap();
    for log in [&log, &other] {
        let pair = |read: Result<Record, ReadError>| match read {
            Ok(record) => Ok(record.offset().get()),
            Err(ReadError::Pruned { requested, oldest }) => Err((requested.get(), oldest.get())),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(log.replay(start).map(pair).collect::<Vec<_>>(), expected);
        assert_eq!(told(&mut log.tail(start)), expected);

        let mut plain = log.replay(Start::At(Offset::new(3)));
        assert!(matches!(plain.next(), Some(Err(ReadError::Pruned { .. }))));
        assert!(plain.next().is_none());
        let mut plain = log.tail(Start::At(Offset::new(3)));
        for _ in 0..2 {
            assert!(matches!(plain.try_next(), Err(ReadError::Pruned { .. })));
            assert_eq!(plain.skip_damage(), log.oldest());
            assert_eq!(plain.checkpoint().offset, log.oldest());
        }
        let left = log.next_offset().since(log.oldest());
        assert_eq!(plain.remaining().unwrap(), left);
        assert_eq!(log.tail(start).remaining().unwrap(), left);
        // Otherwise it is like any other start.
        let mut there = log.replay(Start::AtOrOldest(Offset::new(70)));
        assert_eq!(there.next().unwrap().unwrap().offset(), Offset::new(70));
        let mut beyond = log.replay(Start::AtOrOldest(Offset::new(101)));
        assert!(matches!(
            beyond.next(),
            Some(Err(ReadError::BeyondEnd { .. }))
        ));
        assert!(beyond.next().is_none());
    }
}

#[test]
fn a_reader_that_falls_behind_while_it_is_not_reading_is_told_and_goes_on() {
    for in_another_process in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let log = small_segments().open(dir.path()).unwrap();
        append(&log, 0..50);
        let log_of_reader = match in_another_process {
            true => Log::options().open_read_only(dir.path()).unwrap(),
            false => log.clone(),
        };
        let start = Start::AtOrOldest(Offset::new(5));
        let (mut tailer, mut replay) = (log_of_reader.tail(start), log_of_reader.replay(start));
        assert_eq!(block_on(tailer.next()).unwrap().offset(), Offset::new(5));
        assert_eq!(replay.next().unwrap().unwrap().offset(), Offset::new(5));

        append(&log, 50..100);
        log.sync().unwrap();
        let oldest = log.prune(Offset::new(99)).unwrap().oldest.get();

        let told = told(&mut tailer);
        let gap = told.iter().position(Result::is_err).expect("it is told");
        let left_at = 6 + gap as u64;
        let expected: Vec<_> = (6..left_at)
            .map(Ok)
            .chain([Err((left_at, oldest))])
            .chain((oldest..100).map(Ok))
            .collect();
        assert_eq!(told, expected);

        // The end of the replay was dropped with the rest.
        assert!(oldest > replay.end_offset().get());
        let rest: Vec<_> = replay.collect();
        assert_eq!(rest.iter().filter(|read| read.is_err()).count(), 1);
        assert!(matches!(rest.last(), Some(Err(ReadError::Pruned { .. }))));
    }
}

#[test]
fn skipping_damage_does_nothing_behind_dropped_records() {
    let (_dir, log) = log_of_100();
    let oldest = log.prune(Offset::new(50)).unwrap().oldest;
    let mut replay = log.replay(Start::AtOrOldest(Offset::ZERO));
    assert!(matches!(replay.next(), Some(Err(ReadError::Pruned { .. }))));
    assert_eq!(replay.skip_damage(), Some(oldest));
    assert_eq!(replay.next().unwrap().unwrap().offset(), oldest);
    let mut tailer = log.tail(Start::AtOrOldest(Offset::ZERO));
    assert!(matches!(tailer.try_next(), Err(ReadError::Pruned { .. })));
    assert_eq!(tailer.skip_damage(), oldest);
    assert_eq!(tailer.try_next().unwrap().unwrap().offset(), oldest);
}

// Time

/// Appends until the log has records of so many times, a few of each at least.
fn append_for_ticks(log: &Log, ticks: usize) {
    let mut times = 0;
    let mut last = None;
    while times < ticks {
        for _ in 0..3 {
            let offset = log
                .append(payload(log.next_offset().get()).as_bytes())
                .unwrap();
            let time = log.get(offset).unwrap().timestamp_micros();
            times += usize::from(last.replace(time) != Some(time));
        }
        std::thread::yield_now();
    }
}

fn time(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

/// For each time that a record of the log has, and those just before and after, reading since then
/// begins with the first record that is not older.
fn expect_every_time_is_found(log: &Log) {
    let records: Vec<(Offset, u64)> = log
        .replay(Start::Oldest)
        .filter_map(Result::ok)
        .map(|record| (record.offset(), record.timestamp_micros()))
        .collect();
    let mut times: Vec<u64> = records
        .iter()
        .flat_map(|(_, micros)| [micros - 1, *micros, micros + 1])
        .collect();
    times.dedup();
    for micros in times {
        let expected = records.iter().find(|(_, of)| *of >= micros);
        let mut replay = log.replay(Start::Since(time(micros)));
        let found = replay.find_map(Result::ok).map(|record| record.offset());
        assert_eq!(found, expected.map(|(offset, _)| *offset), "{micros}");
    }
}

#[test]
fn reading_since_a_time_begins_with_the_first_record_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    assert_eq!(log.offset_at(SystemTime::now()).unwrap(), Offset::ZERO);
    append_for_ticks(&log, 40);
    assert!(log.status().unwrap().segments > 3);
    let other = Log::options().open_read_only(dir.path()).unwrap();
    expect_every_time_is_found(&log);
    expect_every_time_is_found(&other);

    log.sync().unwrap();
    let oldest = log.prune(Offset::new(20)).unwrap().oldest;
    assert!(oldest > Offset::ZERO);
    expect_every_time_is_found(&log);
    for log in [&log, &other] {
        assert_eq!(log.offset_at(SystemTime::UNIX_EPOCH).unwrap(), oldest);
        let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
        assert_eq!(log.offset_at(in_an_hour).unwrap(), log.next_offset());
        let mut late = log.tail(Start::Since(in_an_hour));
        assert_eq!(late.next_offset(), log.next_offset());
        assert!(late.try_next().unwrap().is_none());
    }
    let mut waiting = log.tail(Start::Since(SystemTime::now() + Duration::from_secs(3600)));
    let appended = log.append(b"behind all others").unwrap();
    assert_eq!(waiting.next_blocking().unwrap().offset(), appended);

    // Closed, and killed.
    let killed = as_if_killed(&log);
    drop(log);
    for dir in [dir.path(), killed.path()] {
        expect_every_time_is_found(&small_segments().open(dir).unwrap());
    }
}

#[test]
fn a_reader_of_a_topic_is_told_as_any_other_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let (mine, others) = (Topic::new("mine").unwrap(), Topic::new("others").unwrap());
    let append = |numbers: Range<u64>| {
        for number in numbers {
            let topic = if number % 3 == 0 { &mine } else { &others };
            log.append_to(topic, payload(number).as_bytes()).unwrap();
        }
        log.sync().unwrap();
    };
    append(0..50);
    let other = Log::options().open_read_only(dir.path()).unwrap();
    let start = Start::AtOrOldest(Offset::ZERO);
    let mut tailers = [&log, &other].map(|log| log.tail(start).topic(&mine));
    let mut plain = [&log, &other].map(|log| log.tail(Start::Oldest).topic(&mine));
    for tailer in tailers.iter_mut().chain(&mut plain) {
        for number in [0, 3] {
            assert_eq!(tailer.try_next().unwrap().unwrap().offset().get(), number);
        }
    }

    append(50..100);
    let oldest = log.prune(Offset::new(99)).unwrap().oldest.get();

    for tailer in &mut tailers {
        let told = told(tailer);
        let gap = told.iter().position(Result::is_err).expect("it is told");
        let at = |read: &Result<u64, _>| *read.as_ref().unwrap();
        let last = gap.checked_sub(1).map_or(3, |last| at(&told[last]));
        assert!(matches!(told[gap], Err((requested, at)) if requested > last && at == oldest));
        let behind: Vec<u64> = told[gap + 1..].iter().map(at).collect();
        let expected: Vec<u64> = (oldest..100).filter(|number| number % 3 == 0).collect();
        assert_eq!(behind, expected, "once, and then it goes on");
    }
    for tailer in &mut plain {
        let error = loop {
            match tailer.try_next() {
                Ok(record) => assert!(record.unwrap().offset().get() < oldest),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ReadError::Pruned { .. }), "{error}");
    }
    let pruned = log.replay(start).topic(&mine).next().unwrap();
    assert!(matches!(pruned, Err(ReadError::Pruned { .. })));
    let since = Start::Since(log.get(Offset::new(99)).unwrap().timestamp());
    let mut mine_since = log.replay(since).topic(&mine);
    assert_eq!(mine_since.next().unwrap().unwrap().topic(), "mine");
}
