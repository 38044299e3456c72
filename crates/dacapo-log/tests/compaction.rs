//! Giving back the space of what was deleted, under readers and across kills.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use dacapo_log::{Compaction, Log, Offset, Options, ReadError, Start, Tailer, Topic, verify};
use support::random::Random;

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn small() -> Options {
    support::quiet()
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(64 << 10)
}

fn offsets(log: &Log) -> Vec<u64> {
    let records = log.replay(Start::Oldest);
    records
        .map(|record| record.unwrap().offset().get())
        .collect()
}

/// What is to be in a log: by offset, the topic, the payload, and whether it is a deletion.
type Records = BTreeMap<u64, (String, Vec<u8>, bool)>;

fn all(log: &Log) -> Records {
    let records = log.replay(Start::Oldest).map(|record| {
        let record = record.unwrap();
        let topic = record.topic().to_owned();
        let is_deletion = record.is_deletion();
        let what = (topic, record.payload().to_vec(), is_deletion);
        (record.offset().get(), what)
    });
    records.collect()
}

/// Appends to many topics, and deletes some.
fn fill(log: &Log, random: &mut Random, appends: usize) {
    for _ in 0..appends {
        let topic = topic(&format!("t{}", random.below(30)));
        match random.below(60) {
            0 => log.delete_topic(&topic).unwrap(),
            1 => log.append(&[9; 100]).unwrap(),
            2 => {
                let batch = [(&topic, [1; 30]), (&topic, [2; 30])];
                log.append_batch_to(batch).unwrap().start
            }
            _ => log.append_to(&topic, &vec![3; random.index(300)]).unwrap(),
        };
    }
}

/// What a compaction has to leave of these records.
fn alive(records: &Records, limit: usize) -> Records {
    let mut newest: BTreeMap<&str, usize> = BTreeMap::new();
    let mut deleted: BTreeMap<&str, bool> = BTreeMap::new();
    let mut alive = Records::new();
    for (&offset, record) in records.iter().rev() {
        let (topic, _, is_deletion) = record;
        if !topic.is_empty() {
            if *is_deletion || deleted.contains_key(&**topic) {
                deleted.insert(topic, true);
                continue;
            }
            let count = newest.entry(topic).or_default();
            *count += 1;
            if *count > limit {
                continue;
            }
        }
        alive.insert(offset, record.clone());
    }
    alive
}

fn bytes_of(file: &Path) -> u64 {
    std::fs::metadata(file).unwrap().len()
}

/// The first offset of a segment.
fn base_of(file: &Path) -> u64 {
    file.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

/// The length of a segment that was written anew with these records, and with a frame before each one,
/// and behind the last, for removed ones.
fn bytes_needed<'a>(records: impl Iterator<Item = &'a (String, Vec<u8>, bool)>) -> u64 {
    const HEADER: usize = 24;
    const REMOVED: usize = HEADER + 8;
    const BEGIN: usize = HEADER + 24;
    let frames: usize = records
        .map(|(topic, payload, _)| {
            (HEADER + topic.len() + payload.len()).next_multiple_of(8) + REMOVED
        })
        .sum();
    let pages = (BEGIN + REMOVED + frames).div_ceil(4096) + 2; // header and footer
    (pages as u64 * 4096).max(16 << 10)
}

#[test]
fn what_was_deleted_goes_and_everything_else_stays_under_its_offset() {
    for seed in 0..support::by_hand("DACAPO_COMPACTION_SEEDS", 3) {
        let mut random = Random(seed);
        let limit = [usize::MAX, 1, 7][random.index(3)];
        let dir = tempfile::tempdir().unwrap();
        let options = match limit {
            usize::MAX => small(),
            limit => small().topic_limit("t", limit as u64),
        };
        let mut log = options.open(dir.path()).unwrap();
        for round in 0..4 {
            fill(&log, &mut random, 600);
            let before = all(&log);
            let expected = alive(&before, limit);
            let files: Vec<(PathBuf, u64)> = support::segments(dir.path())
                .into_iter()
                .map(|file| (file.clone(), bytes_of(&file)))
                .collect();

            let compacted = log.compact(|_| ()).unwrap();

            assert_eq!(all(&log), expected, "seed {seed}, round {round}");
            assert_eq!(compacted.records, (before.len() - expected.len()) as u64);
            // In whole pages of each segment that has lost something; the one that the log goes on in is
            // new, and as long as any.
            let (mut size, mut size_now) = (0, 0);
            for (i, (file, bytes)) in files.iter().enumerate() {
                let end = files.get(i + 1).map_or(u64::MAX, |(next, _)| base_of(next));
                let here = base_of(file)..end;
                let left = expected.range(here.clone()).map(|(_, record)| record);
                let now = bytes_of(file);
                match left.clone().count() == before.range(here).count() {
                    true => assert_eq!(now, *bytes, "nothing was to be removed"),
                    false => assert!(now <= bytes_needed(left), "space is given back"),
                }
                (size, size_now) = (size + bytes, size_now + now);
            }
            let given_back = compacted.bytes_before - compacted.bytes_after;
            assert_eq!(given_back, size - size_now, "seed {seed}, round {round}");
            for offset in [before.keys().next().unwrap(), before.keys().last().unwrap()] {
                match (log.get(Offset::new(*offset)), expected.get(offset)) {
                    (Ok(record), Some(known)) => assert_eq!(record.payload(), known.1),
                    (Err(ReadError::Removed { .. }), None) => {}
                    (got, known) => panic!("{offset}: {got:?} where {known:?} belongs"),
                }
            }
            for number in 0..30 {
                let name = format!("t{number}");
                let read = log.replay(Start::Oldest).topic(&topic(&name));
                let read: Vec<u64> = read.map(|r| r.unwrap().offset().get()).collect();
                let known = expected.iter().filter(|(_, record)| record.0 == name);
                assert_eq!(read, known.map(|(offset, _)| *offset).collect::<Vec<_>>());
            }
            // Killed, or closed; read by another process, and opened again.
            let killed = support::as_if_killed(&log);
            log.close().unwrap();
            for dir in [killed.path(), dir.path()] {
                assert_eq!(all(&Log::options().open_read_only(dir).unwrap()), expected);
                assert!(verify(dir, |_| ()).unwrap().is_sound());
            }
            assert_eq!(all(&options.open(killed.path()).unwrap()), expected);
            log = options.open(dir.path()).unwrap();
            assert_eq!(all(&log), expected);
            assert_eq!(
                log.compact(|_| ()).unwrap().records,
                0,
                "nothing is left to do"
            );
        }
    }
}

#[test]
fn readers_that_stand_in_a_segment_go_on_while_it_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let (kept, gone) = (topic("kept"), topic("gone"));
    for i in 0..2000_u64 {
        let to = if i % 2 == 0 { &kept } else { &gone };
        log.append_to(to, &[7; 100]).unwrap();
    }
    let follower = Log::options().open_read_only(dir.path()).unwrap();
    let mut all = log.tail(Start::Oldest);
    let mut of_kept = log.tail(Start::Oldest).topic(&kept);
    let mut elsewhere = follower.tail(Start::Oldest);
    for i in 0..301 {
        assert_eq!(all.next_blocking().unwrap().offset().get(), i);
        assert_eq!(of_kept.next_blocking().unwrap().offset().get(), i * 2);
        assert_eq!(elsewhere.next_blocking().unwrap().offset().get(), i);
    }
    log.delete_topic(&gone).unwrap();
    let compacted = log.compact(|_| ()).unwrap();
    assert!(compacted.records > 900);
    log.append_to(&kept, b"the last").unwrap();

    // What they have mapped may still show what is gone.
    for tailer in [&mut all, &mut elsewhere] {
        let (mut last, mut kept_seen) = (300, 0);
        while last < 2001 {
            let record = tailer.next_blocking().unwrap();
            assert!(record.offset().get() > last);
            last = record.offset().get();
            kept_seen += u64::from(record.topic() == "kept");
        }
        assert_eq!(kept_seen, (2000 - 302) / 2 + 1);
    }
    for i in 301..1000 {
        assert_eq!(of_kept.next_blocking().unwrap().offset().get(), i * 2);
    }
    assert_eq!(of_kept.next_blocking().unwrap().payload(), b"the last");
}

#[test]
fn appends_go_on_while_a_log_is_compacted_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random(3);
            fill(&log, &mut random, 10_000);
            done.store(true, SeqCst);
        });
        scope.spawn(|| {
            while !done.load(SeqCst) {
                log.compact(|_| ()).unwrap();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut replayed = 0;
                while !done.load(SeqCst) || replayed == 0 {
                    let read = offsets(&log);
                    assert!(read.is_sorted_by(|a, b| a < b));
                    replayed += 1;
                }
            });
        }
    });
    let before = all(&log);
    log.compact(|_| ()).unwrap();
    assert_eq!(all(&log), alive(&before, usize::MAX));
}

/// With `DACAPO_COMPACTION_MIB=1024`, and in a release build, this is how a large log is compacted: it
/// prints the time, the space that is given back, and the most memory that no file is behind.
#[test]
fn nothing_that_stays_is_missed_or_doubled_while_half_of_a_log_is_deleted_and_compacted() {
    const TOPICS: usize = 1000;
    const APPENDED_MEANWHILE: u64 = 20_000;
    let mib: u64 = support::by_hand("DACAPO_COMPACTION_MIB", 64);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let log = support::quiet()
        .segment_bytes_max(mib << 16) // at least 16 of them
        .open(dir.path())
        .unwrap();
    let name = |number| match number % 2 {
        0 => format!("kept:{number}"),
        _ => format!("gone:{number}"),
    };
    let topics: Vec<Topic> = (0..TOPICS).map(|number| topic(&name(number))).collect();
    // Each record says how many its topic had before.
    let append = |round: u64, topic: &Topic| {
        let mut payload = [5; 1000];
        payload[..8].copy_from_slice(&round.to_le_bytes());
        log.append_to(topic, &payload).unwrap();
    };
    let rounds = (mib << 20).div_ceil(1040 * TOPICS as u64);
    for round in 0..rounds {
        topics.iter().for_each(|topic| append(round, topic));
    }
    for topic in topics.iter().skip(1).step_by(2) {
        log.delete_topic(topic).unwrap();
    }
    log.sync().unwrap();
    let (first, mut kept) = (topics[0].clone(), topics.iter().step_by(2).cycle());
    let (taken_before, built) = (support::taken_bytes(dir.path()), log.next_offset());
    let (began, most) = (support::anonymous_kib(), AtomicU64::new(0));
    let (all_begin, done) = (Barrier::new(6), AtomicBool::new(false));
    let kept_rounds = rounds + APPENDED_MEANWHILE / (TOPICS as u64 / 2);

    let (compacted, spent) = std::thread::scope(|scope| {
        let tailers: [(Tailer, usize); 4] = [
            (log.tail(Start::Oldest), TOPICS / 2),
            (log.tail(Start::Oldest).durable_only(), TOPICS / 2),
            (log.tail(Start::Oldest).prefix("kept:"), TOPICS / 2),
            (log.tail(Start::Oldest).topic(&first), 1),
        ];
        for (mut tailer, kept_topics) in tailers {
            let all_begin = &all_begin;
            scope.spawn(move || {
                all_begin.wait();
                follow(&mut tailer, kept_topics, kept_rounds);
            });
        }
        scope.spawn(|| {
            all_begin.wait();
            for number in 0..APPENDED_MEANWHILE {
                let round = rounds + number / (TOPICS as u64 / 2);
                append(round, kept.next().unwrap());
            }
            log.sync().unwrap();
        });
        scope.spawn(|| {
            while !done.load(SeqCst) {
                most.fetch_max(support::anonymous_kib(), SeqCst);
                std::thread::yield_now();
            }
        });
        all_begin.wait();
        let started = Instant::now();
        let compacted = log.compact(|_| ()).unwrap();
        let spent = started.elapsed();
        done.store(true, SeqCst);
        (compacted, spent)
    });

    let gone = TOPICS as u64 / 2 * (rounds + 1);
    assert_eq!(compacted.records, gone);
    assert_eq!(
        offsets(&log).len() as u64,
        built.get() - gone + APPENDED_MEANWHILE
    );
    let given_back = compacted.bytes_before - compacted.bytes_after;
    assert!(given_back > (mib << 20) * 2 / 5, "{compacted:?}");
    support::tell(format_args!(
        "compacted {} segments in {spent:.2?}: {} MiB became {} MiB; the directory took {} MiB and \
         takes {} MiB; at most {} KiB of anonymous memory, {began} KiB before",
        compacted.segments,
        compacted.bytes_before >> 20,
        compacted.bytes_after >> 20,
        taken_before >> 20,
        support::taken_bytes(dir.path()) >> 20,
        most.load(SeqCst),
    ));
}

/// Reads until every kept topic has had so many records, each behind the one before.
fn follow(tailer: &mut Tailer, kept_topics: usize, kept_rounds: u64) {
    let mut had: BTreeMap<String, u64> = BTreeMap::new();
    let (mut last, mut left) = (None, kept_topics as u64 * kept_rounds);
    while left > 0 {
        let record = tailer.next_blocking().unwrap();
        assert!(last < Some(record.offset()), "doubled, or out of order");
        last = Some(record.offset());
        if record.topic().starts_with("kept:") {
            let had = had.entry(record.topic().to_owned()).or_default();
            assert_eq!(record.payload()[..8], had.to_le_bytes());
            *had += 1;
            left -= 1;
        }
    }
    assert_eq!(had.len(), kept_topics);
    assert!(had.values().all(|&had| had == kept_rounds));
}

#[test]
fn a_damaged_segment_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    for i in 0..1000 {
        let to = if i % 2 == 0 { "kept" } else { "gone" };
        log.append_to(&topic(to), format!("{i:0100}").as_bytes())
            .unwrap();
    }
    log.delete_topic(&topic("gone")).unwrap();
    log.close().unwrap();
    let files = support::segments(dir.path());
    let position = support::position_of(&files[1], &format!("{:0100}", 200));
    support::flip(&files[1], position);
    let damaged = std::fs::read(&files[1]).unwrap();
    let log = small().open(dir.path()).unwrap();

    let refused = log.compact(|_| ()).unwrap_err();

    let text = refused.to_string();
    assert!(
        text.contains(".seg") && text.contains("left as it is"),
        "{text}"
    );
    assert_eq!(std::fs::read(&files[1]).unwrap(), damaged);
    // The others are compacted; the damage is still reported as what it is.
    let (read, errors) = support::readable(&log);
    assert_eq!(errors.len(), 1);
    let damaged = base_of(&files[1])..base_of(&files[2]);
    let gone = |offset: &u64| offset % 2 == 1 && *offset < 1000;
    let mut offsets = Vec::new();
    let mut replay = log.replay(Start::Oldest);
    while let Some(record) = replay.next() {
        match record {
            Ok(record) => offsets.push(record.offset().get()),
            Err(_) => drop(replay.skip_damage()),
        }
    }
    assert_eq!(offsets.len(), read.len());
    assert!(
        offsets
            .iter()
            .filter(|o| gone(o))
            .all(|o| damaged.contains(o))
    );
    assert_eq!(offsets.iter().filter(|o| !gone(o)).count(), 500);
    // Not the deletion: there is still something that it deletes.
    assert!(log.get(Offset::new(1000)).unwrap().is_deletion());
    assert_eq!(log.replay(Start::Oldest).topic(&topic("gone")).count(), 0);
    assert_eq!(
        log.append_to(&topic("kept"), b"more").unwrap(),
        Offset::new(1001)
    );
}

#[test]
fn a_compaction_on_demand_makes_durable_what_it_acts_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    for _ in 0..200 {
        log.append_to(&topic("gone"), &[1; 200]).unwrap();
    }
    log.delete_topic(&topic("gone")).unwrap();
    assert_eq!(log.durable_offset(), Offset::ZERO);
    assert_eq!(log.compact(|_| ()).unwrap().records, 201);
    assert_eq!(log.durable_offset(), Offset::new(201));
    assert_eq!(offsets(&log), []);
    assert_eq!(log.append(b"more").unwrap(), Offset::new(201));
}

/// It wrote into the file of the same name that the next writer was writing, and durable records were
/// lost.
#[test]
fn a_compaction_that_outlives_its_log_leaves_the_next_writers_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    for _ in 0..45 {
        log.append_to(&topic("gone"), &[7; 1000]).unwrap();
    }
    log.delete_topic(&topic("gone")).unwrap();
    let theirs = dir.path().join("compact.tmp");
    let mut next_writer = None;
    let given_up = log.compact(|_| {
        if next_writer.is_none() {
            log.close().unwrap();
            next_writer = Some(support::small_segments().open(dir.path()).unwrap());
            std::fs::write(&theirs, b"half a segment").unwrap();
        }
    });
    assert!(next_writer.is_some());
    assert!(given_up.is_err());
    assert_eq!(std::fs::read(&theirs).unwrap(), b"half a segment");
}

// In the background

#[test]
fn what_was_deleted_goes_by_itself_once_that_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().compaction(Compaction::default().wasted_percent(40));
    let log = options.open(dir.path()).unwrap();
    for i in 0..1000 {
        let to = if i % 2 == 0 { "kept" } else { "gone" };
        log.append_to(&topic(to), &[7; 100]).unwrap();
    }
    let deletion = log.delete_topic(&topic("gone")).unwrap();
    assert_eq!(offsets(&log).len(), 1001);
    let active = base_of(&support::segments(dir.path()).pop().unwrap());

    log.sync().unwrap();

    let expected: Vec<u64> = (0..1000)
        .filter(|offset| offset % 2 == 0 || *offset >= active)
        .chain([deletion.get()])
        .collect();
    while offsets(&log) != expected {
        std::thread::yield_now();
    }
    assert!(log.status().unwrap().compaction_failure.is_none());
    log.close().unwrap();
    assert!(verify(dir.path(), |_| ()).unwrap().is_sound());
    assert_eq!(offsets(&small().open(dir.path()).unwrap()), expected);
}

#[test]
fn a_log_of_last_records_by_key_stays_small_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let options = small().topic_limit("", 1).compaction(Compaction::default());
    let log = options.open(dir.path()).unwrap();
    let key = |i: u64| topic(&format!("key {}", i % 50));
    for i in 0..20_000 {
        log.append_to(&key(i), &i.to_le_bytes().repeat(10)).unwrap();
    }
    // A segment holds some 500; the last ones stay as they are.
    while offsets(&log).len() > 2000 {
        std::thread::yield_now();
    }
    for i in 19_950..20_000 {
        let last = log.last(&key(i)).unwrap().unwrap();
        assert_eq!(last.offset(), Offset::new(i));
    }
    log.close().unwrap();
    assert!(verify(dir.path(), |_| ()).unwrap().is_sound());
}

/// It reported the damage of the record behind it.
#[test]
fn a_removed_record_is_said_to_be_removed_though_the_one_behind_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::quiet().open(dir.path()).unwrap();
    log.append_to(&topic("room"), b"secret").unwrap();
    log.append(b"a public record").unwrap();
    log.delete_topic(&topic("room")).unwrap();
    log.compact(|_| ()).unwrap();
    log.close().unwrap();
    let file = &support::segments(dir.path())[0];
    support::flip(file, support::position_of(file, "public"));

    let log = Log::options().open_read_only(dir.path()).unwrap();
    let found = log.get(Offset::ZERO);
    assert!(matches!(found, Err(ReadError::Removed { .. })), "{found:?}");
}

/// A limit took records that a slow reader had held.
#[test]
fn a_hold_keeps_records_from_a_topic_limit_and_not_from_a_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().topic_limit("", 1).open(dir.path()).unwrap();
    for _ in 0..4 {
        log.append_to(&topic("room"), b"x").unwrap();
    }
    let hold = log.hold("a slow reader", Offset::new(1));
    log.compact(|_| ()).unwrap();
    assert_eq!(offsets(&log), [1, 2, 3]);
    log.delete_topic(&topic("room")).unwrap();
    log.compact(|_| ()).unwrap();
    assert_eq!(offsets(&log), []);
    drop(hold);
}

/// A topics file with right checksums, in which a topic's first record is called its deletion,
/// and nothing is said to be behind it.
/// (Everything before that was removed on its word.)
#[test]
fn a_topics_file_that_lies_takes_no_record_that_was_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    for _ in 0..40 {
        log.append_to(&topic("room"), &[7; 1000]).unwrap();
    }
    log.close().unwrap();
    let files = std::fs::read_dir(dir.path()).unwrap();
    let topics = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "topics"));
    let newest = topics.max().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let nonce = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
    // The first page of the dictionary: behind its head of 12 bytes a length and the name; then no
    // records but a deletion, the first of the segment, before which there was none.
    let page = &mut bytes[64..64 + 4096];
    page[13 + "room".len()..4092].fill(0);
    page[13 + "room".len()] = 1;
    let mut sum = crc32fast::Hasher::new_with_initial(nonce);
    sum.update(&page[..4092]);
    page[4092..].copy_from_slice(&sum.finalize().to_le_bytes());
    std::fs::write(&newest, bytes).unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();

    assert_eq!(log.compact(|_| ()).unwrap().records, 0);

    assert_eq!(offsets(&log), (0..40).collect::<Vec<_>>());
    log.close().unwrap();
    assert!(
        verify(dir.path(), |_| ()).unwrap().is_sound(),
        "written anew"
    );
}

/// The deletion was looked for where the index pointed, and was not there: nothing was ever removed.
#[test]
fn an_index_that_lies_keeps_no_deleted_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    for _ in 0..12 {
        log.append_to(&topic("room"), &[7; 1000]).unwrap();
    }
    log.delete_topic(&topic("room")).unwrap();
    while support::segments(dir.path()).len() < 3 {
        log.append(&[8; 1000]).unwrap();
    }
    log.close().unwrap();
    for segment in &support::segments(dir.path())[..2] {
        // All but the first.
        let shift = |relative| if relative > 0 { 8 } else { 0 };
        support::rewrite_index(&segment.with_extension("idx"), |relative, position| {
            (relative, position + shift(relative))
        });
    }
    let log = support::small_segments().open(dir.path()).unwrap();

    assert_eq!(log.compact(|_| ()).unwrap().records, 13);
}
