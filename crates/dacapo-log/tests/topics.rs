//! Records of many topics in one log.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use dacapo_log::{Log, Offset, Options, ReadError, Record, Start, Tailer, Topic, repair, verify};
use futures_core::Stream;
use support::random::Random;

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// Topic and payload of each record, as text.
fn texts(records: impl IntoIterator<Item = Record>) -> Vec<(String, String)> {
    let text = |record: Record| {
        let payload = String::from_utf8(record.payload().to_vec()).unwrap();
        (record.topic().to_owned(), payload)
    };
    records.into_iter().map(text).collect()
}

fn all(log: &Log) -> Vec<(String, String)> {
    texts(log.replay(Start::Oldest).map(Result::unwrap))
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(topic, payload): &(&str, &str)| (topic.to_owned(), payload.to_owned());
    of.iter().map(owned).collect()
}

/// What a kill would leave of an open log.
fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn records_keep_their_topics_across_a_close_a_kill_and_a_repair() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    log.append_to(&topic("lobby"), b"one").unwrap();
    log.append(b"two").unwrap();
    let longest = "ü".repeat(127) + "x";
    let batch = [(topic("kitchen"), "three"), (topic(&longest), "four")];
    assert_eq!(
        log.append_batch_to(batch).unwrap(),
        Offset::new(2)..Offset::new(4)
    );
    log.delete_topic(&topic("lobby")).unwrap();
    let expected = pairs(&[
        ("lobby", "one"),
        ("", "two"),
        ("kitchen", "three"),
        (&longest, "four"),
        ("lobby", ""),
    ]);
    assert_eq!(all(&log), expected);

    let killed = copy_of(dir.path());
    drop(log);

    for dir in [dir.path(), killed.path()] {
        let log = Log::open(dir).unwrap();
        assert_eq!(all(&log), expected);
        assert!(log.get(Offset::new(4)).unwrap().is_deletion());
        drop(log);
        assert_eq!(all(&Log::options().open_read_only(dir).unwrap()), expected);
        let repaired = dir.with_extension("repaired");
        repair(dir, &repaired, |_| ()).unwrap();
        let log = Log::open(&repaired).unwrap();
        assert_eq!(all(&log), expected);
        assert!(log.get(Offset::new(4)).unwrap().is_deletion());
        drop(log);
        std::fs::remove_dir_all(&repaired).unwrap();
    }
}

/// A log beside what should be in it.
struct Mirror {
    records: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    topic: String,
    payload: Vec<u8>,
    is_deletion: bool,
}

/// What a reader is to see.
enum Wish<'a> {
    Topics(&'a [Topic]),
    Prefix(&'a str),
}

impl Wish<'_> {
    fn grants(&self, topic: &str) -> bool {
        match self {
            Self::Topics(topics) => topics.iter().any(|one| one.as_str() == topic),
            Self::Prefix(prefix) => !topic.is_empty() && topic.starts_with(prefix),
        }
    }
}

impl Mirror {
    /// Fills a log with some records of many topics, and many of some.
    fn fill(log: &Log, random: &mut Random, appends: usize) -> Self {
        let mut mirror = Self { records: vec![] };
        for _ in 0..appends {
            match random.index(40) {
                0 => {
                    let topic = some_topic(random);
                    log.delete_topic(&topic).unwrap();
                    mirror.push(topic.as_str(), vec![], true);
                }
                1..4 => {
                    let payload = vec![7; random.index(300)];
                    log.append(&payload).unwrap();
                    mirror.push("", payload, false);
                }
                4..8 => {
                    let batch: Vec<(Topic, Vec<u8>)> = (0..1 + random.index(9))
                        .map(|i| (some_topic(random), vec![u8::try_from(i).unwrap(); 9]))
                        .collect();
                    log.append_batch_to(batch.iter().map(|(t, p)| (t, p)))
                        .unwrap();
                    for (topic, payload) in batch {
                        mirror.push(topic.as_str(), payload, false);
                    }
                }
                _ => {
                    let (topic, payload) = (some_topic(random), vec![1; random.index(200)]);
                    log.append_to(&topic, &payload).unwrap();
                    mirror.push(topic.as_str(), payload, false);
                }
            }
        }
        mirror
    }

    fn push(&mut self, topic: &str, payload: Vec<u8>, is_deletion: bool) {
        self.records.push(Entry {
            topic: topic.to_owned(),
            payload,
            is_deletion,
        });
    }

    /// Where the topic begins: behind its last deletion.
    fn deletion(&self, topic: &str) -> Option<usize> {
        let is_it = |entry: &Entry| entry.is_deletion && entry.topic == topic;
        self.records.iter().rposition(is_it)
    }

    /// What a reader sees that begins at `from`, or with the oldest record.
    fn seen(&self, wish: &Wish<'_>, from: Option<usize>) -> Vec<(usize, &Entry)> {
        let wanted = |&(i, entry): &(usize, &Entry)| {
            let alive = self
                .deletion(&entry.topic)
                .is_none_or(|deletion| match from {
                    None => i > deletion,
                    Some(_) => i >= deletion,
                });
            wish.grants(&entry.topic) && alive
        };
        let all = self.records.iter().enumerate().skip(from.unwrap_or(0));
        all.filter(wanted).collect()
    }

    fn check(&self, log: &Log, random: &mut Random) {
        for _ in 0..6 {
            let topics: Vec<Topic> = (0..1 + random.index(3))
                .map(|_| some_topic(random))
                .collect();
            let prefix = ["", "rooms:", "rooms:1", "u"][random.index(4)];
            let from = (random.index(3) > 0).then(|| random.index(self.records.len() + 1));
            let start = from.map_or(Start::Oldest, |from| Start::At(Offset::new(from as u64)));
            for wish in [
                Wish::Topics(&topics[..1]),
                Wish::Topics(&topics),
                Wish::Prefix(prefix),
            ] {
                let replay = log.replay(start);
                let replay = match &wish {
                    Wish::Topics(topics) => topics.iter().fold(replay, |r, topic| r.topic(topic)),
                    Wish::Prefix(prefix) => replay.prefix(prefix),
                };
                let read: Vec<_> = replay.map(|read| entry_of(&read.unwrap())).collect();
                let seen = self.seen(&wish, from);
                let expected: Vec<_> = seen.iter().map(|&(i, e)| (i, e.clone())).collect();
                assert_eq!(read, expected, "from {from:?}");
            }
            self.check_last(log, &topics[0]);
        }
        self.check_listing(log, "");
        self.check_listing(log, "rooms:1");
    }

    fn check_last(&self, log: &Log, topic: &Topic) {
        let last = log.last(topic).unwrap().map(|record| entry_of(&record));
        let wish = Wish::Topics(std::slice::from_ref(topic));
        let expected = self.seen(&wish, None).last().map(|&(i, e)| (i, e.clone()));
        assert_eq!(last, expected, "{topic}");
    }

    fn check_listing(&self, log: &Log, prefix: &str) {
        let mut expected: BTreeMap<&str, (u64, usize, usize)> = BTreeMap::new();
        for (i, entry) in self.seen(&Wish::Prefix(prefix), None) {
            let known = expected.entry(&entry.topic).or_insert((0, i, i));
            *known = (known.0 + 1, known.1, i);
        }
        let listed: Vec<_> = log.topics().prefix(prefix).map(Result::unwrap).collect();
        let ends = |offset: Offset| usize::try_from(offset.get()).unwrap();
        let listed: Vec<_> = listed
            .iter()
            .map(|one| {
                (
                    one.topic.as_str(),
                    (one.records, ends(one.first), ends(one.last)),
                )
            })
            .collect();
        assert_eq!(listed, expected.into_iter().collect::<Vec<_>>());
    }
}

fn some_topic(random: &mut Random) -> Topic {
    match random.index(4) {
        0 => topic("users"),
        1 => topic(&format!("rooms:{}", random.index(5))),
        2 => topic(&format!("rooms:{}", random.index(400))),
        _ => topic(&"x".repeat(1 + random.index(255))),
    }
}

fn entry_of(record: &Record) -> (usize, Entry) {
    let entry = Entry {
        topic: record.topic().to_owned(),
        payload: record.payload().to_vec(),
        is_deletion: record.is_deletion(),
    };
    (usize::try_from(record.offset().get()).unwrap(), entry)
}

fn small() -> Options {
    Log::options()
        .segment_bytes_min(16 << 10)
        .segment_bytes_max(64 << 10)
}

/// The topics files of a log.
fn topics_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "topics"))
        .collect()
}

#[test]
fn a_reader_of_topics_sees_their_records_wherever_the_index_comes_from() {
    for seed in 0..support::by_hand("DACAPO_TOPIC_SEEDS", 2) {
        let mut random = Random(seed);
        let dir = tempfile::tempdir().unwrap();
        let log = small().open(dir.path()).unwrap();
        let mirror = Mirror::fill(&log, &mut random, 2000);
        mirror.check(&log, &mut random);
        let killed = copy_of(dir.path());
        log.close().unwrap();
        drop(log);
        let files = topics_files(dir.path());
        assert!(files.len() > 5, "sealed segments have topics files");

        // In the process that goes on, and in another one, with the files.
        mirror.check(&small().open(dir.path()).unwrap(), &mut random);
        mirror.check(&small().open_read_only(dir.path()).unwrap(), &mut random);
        // After a kill, some are not there.
        mirror.check(&small().open_read_only(killed.path()).unwrap(), &mut random);
        let recovered = small().open(killed.path()).unwrap();
        mirror.check(&recovered, &mut random);
        // Damaged, or gone.
        for (i, file) in files.iter().enumerate() {
            let mut bytes = fs::read(file).unwrap();
            match i % 3 {
                0 => fs::remove_file(file).unwrap(),
                1 => {
                    let at = random.index(bytes.len());
                    bytes[at] ^= 1 << random.index(8);
                    fs::write(file, bytes).unwrap();
                }
                _ => fs::write(file, &bytes[..random.index(bytes.len())]).unwrap(),
            }
        }
        mirror.check(&small().open_read_only(dir.path()).unwrap(), &mut random);
        let log = small().open(dir.path()).unwrap();
        mirror.check(&log, &mut random);
        // All postings are needed for this; a listing reads none.
        let all = Wish::Prefix("");
        let read = log.replay(Start::Oldest).prefix("").map(Result::unwrap);
        assert_eq!(read.count(), mirror.seen(&all, None).len());
        log.close().unwrap();
        // Who needed them has had them written again.
        assert!(verify(dir.path(), |_| ()).unwrap().is_sound());
        assert_eq!(topics_files(dir.path()).len(), files.len());
    }
}

#[test]
fn a_reader_of_topics_reports_damage_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let (lobby, other) = (topic("lobby"), topic("other"));
    for i in 0..1000_u64 {
        let to = if i % 10 == 0 { &lobby } else { &other };
        log.append_to(to, format!("payload {i:050}").as_bytes())
            .unwrap();
    }
    drop(log);
    // One of the lobby's, and one of another topic.
    for number in [500, 501] {
        damage(dir.path(), format!("payload {number:050}").as_bytes());
    }
    for with_files in [true, false] {
        if !with_files {
            topics_files(dir.path())
                .iter()
                .for_each(|path| fs::remove_file(path).unwrap());
        }
        let log = Log::options().open_read_only(dir.path()).unwrap();
        let mut replay = log.replay(Start::Oldest).topic(&lobby);
        let before = replay.by_ref().map_while(Result::ok).count();
        assert_eq!(before, 50);
        // The iterator has ended with the error: the record is asked for again.
        let next = replay.skip_damage().unwrap();
        assert!(next > Offset::new(500), "behind the damage, at {next}");
        let mut behind = vec![];
        while let Some(read) = replay.next() {
            match read {
                Ok(record) => behind.push(record.offset().get()),
                // Without an index, the other one is met as well.
                Err(ReadError::Corrupt(damage)) => {
                    assert_eq!(damage.offset, Some(Offset::new(501)));
                    replay.skip_damage();
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(behind, (51..100).map(|i| i * 10).collect::<Vec<_>>());
    }
}

/// Changes a byte of the record with this payload.
fn damage(dir: &Path, payload: &[u8]) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let found = bytes
            .windows(payload.len())
            .position(|window| window == payload);
        if let Some(at) = found.filter(|_| path.extension().is_some_and(|e| e == "seg")) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("there is no such payload");
}

/// Counts how often it is woken.
#[derive(Default)]
struct Alarm(AtomicUsize);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A tailer that has caught up, and waits.
struct Waiting {
    tailer: Tailer,
    alarm: Arc<Alarm>,
}

impl Waiting {
    fn new(tailer: Tailer) -> Self {
        let mut waiting = Self {
            tailer,
            alarm: Arc::default(),
        };
        assert_eq!(waiting.poll(), None);
        waiting
    }

    /// Offset and payload of the next record, if it is there.
    fn poll(&mut self) -> Option<u64> {
        let waker = Waker::from(Arc::clone(&self.alarm));
        let polled = std::pin::pin!(&mut self.tailer).poll_next(&mut Context::from_waker(&waker));
        match polled {
            Poll::Ready(record) => Some(record.unwrap().unwrap().offset().get()),
            Poll::Pending => None,
        }
    }

    fn alarms(&self) -> usize {
        self.alarm.0.swap(0, SeqCst)
    }
}

#[test]
fn an_append_wakes_its_topics_tailers_and_those_of_everything_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let (lobby, kitchen) = (topic("rooms:lobby"), topic("rooms:kitchen"));
    let tail = || log.tail(Start::Latest);
    let mut all = Waiting::new(tail());
    let mut of_lobby = Waiting::new(tail().topic(&lobby));
    let mut of_kitchen = Waiting::new(tail().topic(&kitchen));
    let mut of_both = Waiting::new(tail().topic(&lobby).topic(&kitchen));
    let mut of_rooms = Waiting::new(tail().prefix("rooms:"));
    let of_users = Waiting::new(tail().prefix("users:"));

    log.append_to(&lobby, b"hello").unwrap();
    for (waiting, woken) in [
        (&all, 1),
        (&of_lobby, 1),
        (&of_kitchen, 0),
        (&of_both, 1),
        (&of_rooms, 1),
        (&of_users, 0),
    ] {
        assert_eq!(waiting.alarms(), woken);
    }
    for waiting in [&mut all, &mut of_lobby, &mut of_both, &mut of_rooms] {
        assert_eq!((waiting.poll(), waiting.poll()), (Some(0), None));
    }
    log.append(b"of no topic").unwrap();
    log.append_batch_to([(&topic("users:1"), "x"), (&kitchen, "y")])
        .unwrap();

    assert_eq!(of_lobby.alarms(), 0);
    assert!(of_users.alarms() > 0 && of_both.alarms() > 0);
    assert_eq!((of_kitchen.poll(), of_kitchen.poll()), (Some(3), None));
    assert_eq!((of_both.poll(), of_both.poll()), (Some(3), None));
    assert_eq!((of_rooms.poll(), of_rooms.poll()), (Some(3), None));
    assert_eq!(
        (all.poll(), all.poll(), all.poll()),
        (Some(1), Some(2), Some(3))
    );
}

#[test]
fn a_durable_tailer_of_a_topic_is_woken_by_the_flush_of_its_records_alone() {
    let dir = tempfile::tempdir().unwrap();
    let options = Log::options().flush(dacapo_log::Flush::OnDemand);
    let log = options.open(dir.path()).unwrap();
    let (lobby, kitchen) = (topic("lobby"), topic("kitchen"));
    let mut of_lobby = Waiting::new(log.tail(Start::Latest).durable_only().topic(&lobby));
    let of_kitchen = Waiting::new(log.tail(Start::Latest).durable_only().topic(&kitchen));

    log.append_to(&lobby, b"hello").unwrap();
    assert_eq!((of_lobby.alarms(), of_lobby.poll()), (0, None));
    log.sync().unwrap();

    assert_eq!((of_lobby.alarms(), of_kitchen.alarms()), (1, 0));
    assert_eq!(of_lobby.poll(), Some(0));
}

#[test]
fn a_tailer_in_another_process_is_woken_for_its_topic() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    log.append(b"first").unwrap();
    let follower = Log::options().open_read_only(dir.path()).unwrap();
    let lobby = topic("lobby");
    let mut tailer = follower.tail(Start::Oldest).topic(&lobby);
    let reading = std::thread::spawn(move || {
        (
            tailer.next_blocking().unwrap().offset(),
            tailer.next_blocking().unwrap().offset(),
        )
    });
    for i in 0..1000 {
        let to = if i % 500 == 499 { "lobby" } else { "other" };
        log.append_to(&topic(to), b"x").unwrap();
    }
    assert_eq!(
        reading.join().unwrap(),
        (Offset::new(500), Offset::new(1000))
    );
}

#[test]
fn tailers_of_a_hundred_topics_each_see_theirs_across_rolls() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let topics: Vec<Topic> = (0..100).map(|i| topic(&format!("t{i}"))).collect();
    std::thread::scope(|scope| {
        for (i, topic) in topics.iter().enumerate() {
            let mut tailer = log.tail(Start::Oldest).topic(topic);
            scope.spawn(move || {
                for round in 0..200 {
                    let record = tailer.next_blocking().unwrap();
                    assert_eq!(record.offset().get(), round * 100 + i as u64);
                }
            });
        }
        for _ in 0..200 {
            for topic in &topics {
                log.append_to(topic, &[0; 100]).unwrap();
            }
        }
    });
}

#[test]
fn a_tailer_meets_the_deletion_of_its_topic_and_then_its_new_life() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let lobby = topic("lobby");
    let mut tailer = log.tail(Start::Oldest).topic(&lobby);
    log.append_to(&lobby, b"old").unwrap();
    assert_eq!(tailer.next_blocking().unwrap().payload(), b"old");
    log.delete_topic(&lobby).unwrap();
    log.append_to(&lobby, b"new").unwrap();

    assert!(tailer.next_blocking().unwrap().is_deletion());
    assert_eq!(tailer.next_blocking().unwrap().payload(), b"new");
    let from_oldest = log.replay(Start::Oldest).topic(&lobby);
    assert_eq!(
        texts(from_oldest.map(Result::unwrap)),
        pairs(&[("lobby", "new")])
    );
    let resumed = log.replay(Start::At(Offset::ZERO)).topic(&lobby);
    let expected = pairs(&[("lobby", ""), ("lobby", "new")]);
    assert_eq!(texts(resumed.map(Result::unwrap)), expected);
}

/// Found by the simulation: the reader went on from where it had stood in a segment that was dropped.
#[test]
fn a_reader_that_is_told_of_dropped_records_goes_on_where_the_log_begins() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let lobby = topic("lobby");
    let mut tailer = log.tail(Start::AtOrOldest(Offset::ZERO)).topic(&lobby);
    let payload = |number: u64| format!("payload {number:0200}");
    log.append_to(&lobby, payload(0).as_bytes()).unwrap();
    assert_eq!(tailer.try_next().unwrap().unwrap().offset(), Offset::ZERO);
    for number in 1..600 {
        log.append_to(&lobby, payload(number).as_bytes()).unwrap();
    }
    log.sync().unwrap();
    let oldest = log.prune(Offset::new(300)).unwrap().oldest;
    log.close().unwrap();
    // Read as a whole: it cannot say what it holds.
    let file = support::segments(dir.path()).remove(0);
    fs::remove_file(file.with_extension("topics")).unwrap();
    damage(dir.path(), payload(oldest.get() + 3).as_bytes());

    let told = tailer.try_next().unwrap_err();

    assert!(matches!(told, ReadError::Pruned { oldest: at, .. } if at == oldest));
    for number in 0..3 {
        let record = tailer.try_next().unwrap().unwrap();
        assert_eq!(record.offset(), oldest.plus(number));
    }
    assert!(matches!(tailer.try_next(), Err(ReadError::Corrupt(_))));
}

/// A power cut undoes the deletion, and whoever resumes behind it had missed the record.
#[test]
fn a_reader_of_durable_records_does_not_act_on_a_deletion_that_is_not_durable() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::quiet().open(dir.path()).unwrap();
    log.append_to(&topic("room"), b"kept").unwrap();
    log.sync().unwrap();

    log.delete_topic(&topic("room")).unwrap();

    for start in [Start::At(Offset::ZERO), Start::Oldest] {
        let records = log.replay(start).durable_only().topic(&topic("room"));
        assert_eq!(records.count(), 1, "replay from {start:?}");
        let mut tailer = log.tail(start).durable_only().prefix("ro");
        let found = tailer.try_next().unwrap();
        assert!(found.is_some(), "tail from {start:?}");
    }
}

/// As above, where the records are in a sealed segment, and the deletion in another.
#[test]
fn nor_on_a_deletion_in_another_segment() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    log.append_to(&topic("room"), b"kept").unwrap();
    for _ in 0..20 {
        log.append(&[7; 1000]).unwrap();
    }
    log.sync().unwrap();
    log.delete_topic(&topic("room")).unwrap();
    let records = log.replay(Start::Oldest).durable_only();
    assert_eq!(records.topic(&topic("room")).count(), 1);
}

/// It read each of them, and showed none: damage to one ended its reading.
#[test]
fn a_reader_passes_by_what_a_deletion_in_a_later_segment_hides() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    let (room, other) = (topic("room"), topic("other"));
    for i in 0..100_u64 {
        let to = if i % 10 == 0 { &other } else { &room };
        log.append_to(to, format!("{i:0200}").as_bytes()).unwrap();
    }
    log.delete_topic(&room).unwrap();
    log.append_to(&room, b"new").unwrap();
    log.close().unwrap();
    damage(dir.path(), format!("{:0200}", 5).as_bytes());
    for with_files in [true, false] {
        if !with_files {
            topics_files(dir.path())
                .iter()
                .for_each(|path| fs::remove_file(path).unwrap());
        }
        let log = Log::options().open_read_only(dir.path()).unwrap();
        let read = |start| -> Vec<u64> {
            let records = log.replay(start).topic(&room).map(Result::unwrap);
            records.map(|record| record.offset().get()).collect()
        };
        assert_eq!(read(Start::Oldest), [101]);
        assert_eq!(read(Start::At(Offset::ZERO)), [100, 101]);
        assert_eq!(read(Start::At(Offset::new(101))), [101]);
        // Of two topics, as far as both are deleted: of the other, all is to be read.
        let both = log.replay(Start::Oldest).topic(&room).topic(&other);
        assert_eq!(both.map_while(Result::ok).count(), 1, "up to the damage");
    }
}

/// Only who read a topic had them written again.
#[test]
fn topics_files_that_are_gone_are_written_again_by_a_listing() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    for _ in 0..40 {
        log.append_to(&topic("room"), &[7; 1000]).unwrap();
    }
    log.close().unwrap();
    let files = || {
        let files = fs::read_dir(dir.path()).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let is_it = |file: &std::path::PathBuf| file.extension().is_some_and(|e| e == "topics");
        files.filter(is_it).collect::<Vec<_>>()
    };
    let before = files().len();
    assert!(before > 1);
    files()
        .iter()
        .for_each(|file| fs::remove_file(file).unwrap());
    let log = support::small_segments().open(dir.path()).unwrap();
    assert_eq!(log.topics().count(), 1);
    log.close().unwrap();
    assert_eq!(files().len(), before);
}

#[test]
fn topics_files_of_an_earlier_build_are_not_used_and_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    for _ in 0..40 {
        log.append_to(&topic("room"), &[7; 1000]).unwrap();
    }
    log.close().unwrap();
    let files = topics_files(dir.path());
    assert!(files.len() > 1);
    let version = |file: &std::path::PathBuf| fs::read(file).unwrap()[8];
    for file in &files {
        assert_eq!(version(file), 2);
        let mut bytes = fs::read(file).unwrap();
        bytes[8] = 1;
        support::sum_block(&mut bytes[..64]);
        // It would be a wrong count, if that were read.
        bytes[64..].fill(0xAB);
        fs::write(file, bytes).unwrap();
    }
    assert!(verify(dir.path(), |_| ()).unwrap().is_sound());

    let log = support::small_segments().open(dir.path()).unwrap();
    let listed: Vec<_> = log.topics().map(Result::unwrap).collect();
    assert_eq!((listed.len(), listed[0].records), (1, 40));
    log.close().unwrap();
    assert!(files.iter().all(|file| version(file) == 2));
    assert!(verify(dir.path(), |_| ()).unwrap().is_sound());
}

/// Found by fuzzing: only readers of everything looked whose records a file holds, so that those of a
/// topic were given the offsets of others.
#[test]
fn a_segment_under_another_ones_name_gives_a_topic_no_records() {
    let dir = tempfile::tempdir().unwrap();
    let log = small().open(dir.path()).unwrap();
    let lobby = topic("lobby");
    for number in 0..300 {
        log.append_to(&lobby, format!("payload {number:0200}").as_bytes())
            .unwrap();
    }
    log.close().unwrap();
    let files = support::segments(dir.path());
    let base = |path: &Path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>();
    let (to, other) = (&files[1], base(&files[1]).unwrap());
    // Header, frames and footer of the first one; only the footer's base is the second one's.
    let mut bytes = fs::read(&files[0]).unwrap();
    let footer = bytes.len() - 4096;
    let next = u64::from_le_bytes(fs::read(to).unwrap()[footer..][16..24].try_into().unwrap());
    bytes[footer + 8..footer + 16].copy_from_slice(&other.to_le_bytes());
    bytes[footer + 16..footer + 24].copy_from_slice(&next.to_le_bytes());
    let sum = crc32fast::hash(&bytes[footer..footer + 60]);
    bytes[footer + 60..footer + 64].copy_from_slice(&sum.to_le_bytes());
    fs::write(to, bytes).unwrap();
    topics_files(dir.path())
        .iter()
        .for_each(|path| fs::remove_file(path).unwrap());

    let log = Log::options().open_read_only(dir.path()).unwrap();
    let mut replay = log.replay(Start::Oldest).topic(&lobby);
    let mut errors = 0;
    while let Some(read) = replay.next() {
        match read {
            Ok(record) => {
                let expected = format!("payload {:0200}", record.offset().get());
                assert_eq!(record.payload(), expected.as_bytes());
            }
            Err(ReadError::Corrupt(_)) => {
                errors += 1;
                replay.skip_damage();
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(errors > 0, "it is reported");
}

/// The reader took what stands in a payload for a damaged record, where an index pointed to it.
#[test]
fn an_index_that_lies_leads_no_reader_of_topics_into_a_payload() {
    const WANTED: u32 = 5;
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    let (mine, other) = (Topic::new("mine").unwrap(), Topic::new("other").unwrap());
    // As the head of a frame, with any sum: 100 bytes, the record that is wanted.
    let mut head = 0xDC00_0100_0000_0064_u64.to_le_bytes().to_vec();
    head.extend([9; 4]);
    head.extend(WANTED.to_le_bytes());
    for relative in 0..40 {
        match relative {
            WANTED => log.append_to(&mine, b"here").unwrap(),
            _ => log.append_to(&other, &head.repeat(60)).unwrap(),
        };
    }
    log.close().unwrap();
    let segment = &support::segments(dir.path())[0];
    let bytes = fs::read(segment).unwrap();
    let payload = bytes.windows(head.len()).position(|at| at == head).unwrap();
    let payload = u32::try_from(payload).unwrap();
    support::rewrite_index(&segment.with_extension("idx"), |relative, _| {
        (relative, payload)
    });
    let log = support::small_segments().open(dir.path()).unwrap();

    let records: Vec<_> = log.replay(Start::Oldest).topic(&mine).collect();

    assert_eq!(records.len(), 1);
    assert_eq!(records[0].as_ref().unwrap().payload(), b"here");
}
