//! Producers that resend what they have no answer for: each message is in the log once.
//!
//! By hand, for more kills and more lives:
//!
//! ```text
//! DACAPO_RETRY_KILLS=1000 DACAPO_PRODUCER_SEEDS=10000 \
//!     cargo test --release -p dacapo-log --test producers
//! ```

mod support;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use dacapo_log::{
    AppendError, Appended, Log, Offset, ProducerState, ReadError, Stamp, Start, Topic, repair,
};
use support::child::{self, Child};
use support::random::Random;
use support::{as_if_killed, flip, payloads, position_of, quiet, segments, small_segments, tell};
use tempfile::{TempDir, tempdir};

const NAME: u128 = 0xda_ca_90;

fn stamp(epoch: u64, sequence: u64) -> Stamp {
    Stamp {
        producer: NAME,
        epoch,
        sequence,
    }
}

fn new_log() -> (TempDir, Log) {
    let dir = tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    (dir, log)
}

fn new_at(offset: u64) -> Appended {
    Appended::New(Offset::new(offset)..Offset::new(offset + 1))
}

/// Epoch, sequence and offset of a producer's newest append.
fn newest(log: &Log) -> Option<(u64, u64, u64)> {
    let parts = |state: ProducerState| (state.epoch, state.sequence, state.offset.get());
    log.producer(NAME).unwrap().map(parts)
}

/// The same of what an append was told to be a repetition of.
fn duplicate(answer: Result<Appended, AppendError>) -> (u64, u64, u64) {
    match answer.unwrap() {
        Appended::Duplicate(newest) => (newest.epoch, newest.sequence, newest.offset.get()),
        Appended::New(offsets) => panic!("appended at {offsets:?}"),
    }
}

#[test]
fn what_is_sent_again_is_not_appended_again() {
    let (_dir, log) = new_log();
    let lobby = Topic::new("lobby").unwrap();
    log.append(b"of nobody").unwrap();
    let first = log.append_once(stamp(0, 0), Some(&lobby), b"one");
    assert_eq!(first.unwrap(), new_at(1));

    assert_eq!(
        duplicate(log.append_once(stamp(0, 0), Some(&lobby), b"one")),
        (0, 0, 1)
    );
    assert_eq!(
        log.append_once(stamp(0, 1), None, b"two").unwrap(),
        new_at(2)
    );
    // An older one: the original is somewhere before the newest.
    assert_eq!(
        duplicate(log.append_once(stamp(0, 0), Some(&lobby), b"one")),
        (0, 1, 2)
    );

    assert_eq!(payloads(&log), ["of nobody", "one", "two"]);
    let record = log.get(Offset::new(1)).unwrap();
    assert_eq!(record.topic(), "lobby");
    assert_eq!(record.stamp(), Some(stamp(0, 0)));
    assert_eq!(newest(&log), Some((0, 1, 2)));
}

#[test]
fn what_was_sent_before_a_close_a_kill_or_a_repair_is_recognised_after_it() {
    let dir = tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    for sequence in 0..100 {
        log.append_once(stamp(4, sequence), None, &[7; 500])
            .unwrap();
        log.append(b"of nobody").unwrap();
    }
    let other = Stamp {
        producer: 1,
        ..stamp(0, 0)
    };
    log.append_once(other, None, b"other").unwrap();
    assert!(segments(dir.path()).len() > 2);
    let killed = as_if_killed(&log);
    log.close().unwrap();
    let repaired = tempdir().unwrap();
    repair(dir.path(), repaired.path(), |_| ()).unwrap();

    for dir in [dir.path(), killed.path(), repaired.path()] {
        let log = small_segments().open(dir).unwrap();
        let last = duplicate(log.append_once(stamp(4, 99), None, &[7; 500]));
        assert_eq!(last, (4, 99, 198));
        assert_eq!(
            duplicate(log.append_once(stamp(4, 0), None, &[7; 500])),
            last
        );
        assert!(matches!(
            log.append_once(other, None, b"other").unwrap(),
            Appended::Duplicate(_)
        ));
        assert_eq!(log.next_offset(), Offset::new(201));
        let next = log.append_once(stamp(4, 100), None, b"goes on").unwrap();
        assert_eq!(next, new_at(201));
    }
}

#[test]
fn what_does_not_come_next_is_refused_and_changes_nothing() {
    let (_dir, log) = new_log();
    let answer = |stamp| log.append_once(stamp, None, b"refused").unwrap_err();
    assert!(matches!(
        answer(stamp(1, 1)),
        AppendError::UnknownProducer { epoch: 1, found: 1 }
    ));
    log.append_once(stamp(1, 0), None, b"one").unwrap();
    assert!(matches!(
        answer(stamp(1, 2)),
        AppendError::SequenceGap {
            expected: 1,
            found: 2
        }
    ));
    assert!(matches!(
        answer(stamp(0, 1)),
        AppendError::Fenced {
            epoch: 0,
            current: 1
        }
    ));
    assert!(matches!(
        answer(stamp(2, 1)),
        AppendError::EpochNotBegun { epoch: 2, found: 1 }
    ));

    assert_eq!(payloads(&log), ["one"]);
    assert_eq!(newest(&log), Some((1, 0, 0)));
    log.append_once(stamp(1, 1), None, b"two").unwrap();
    log.append_once(stamp(2, 0), None, b"anew").unwrap();
    assert_eq!(newest(&log), Some((2, 0, 2)));
}

#[test]
fn a_batch_is_one_append_and_its_repetition_repeats_all_of_it() {
    let (dir, log) = new_log();
    let lobby = Topic::new("lobby").unwrap();
    let batch = [
        (Some(&lobby), "one"),
        (None, "two"),
        (Some(&lobby), "three"),
    ];
    let appended = log.append_batch_once(stamp(0, 0), batch).unwrap();
    assert_eq!(appended, Appended::New(Offset::ZERO..Offset::new(3)));
    assert_eq!(
        duplicate(log.append_batch_once(stamp(0, 0), batch)),
        (0, 0, 0)
    );
    let stamps: Vec<_> = log
        .replay(Start::Oldest)
        .map(|record| record.unwrap().stamp())
        .collect();
    assert_eq!(stamps, [Some(stamp(0, 0)), None, None]);

    log.close().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    assert_eq!(
        duplicate(log.append_batch_once(stamp(0, 0), batch)),
        (0, 0, 0)
    );
    log.append_batch_once(stamp(0, 1), [(None, "four")])
        .unwrap();
    assert_eq!(payloads(&log), ["one", "two", "three", "four"]);
}

#[test]
fn an_append_that_failed_leaves_its_sequence_free() {
    let dir = tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let none: [(Option<&Topic>, &str); 0] = [];
    assert!(matches!(
        log.append_batch_once(stamp(0, 0), none),
        Err(AppendError::NothingToStamp)
    ));
    assert!(matches!(
        log.append_once(stamp(0, 0), None, &[0; 20_000]),
        Err(AppendError::TooLarge { .. })
    ));
    assert_eq!(newest(&log), None);
    assert_eq!(
        log.append_once(stamp(0, 0), None, b"one").unwrap(),
        new_at(0)
    );
}

#[test]
fn a_repetition_is_durable_when_what_it_names_is() {
    let (_dir, log) = new_log();
    let batch = [(None, "one"), (None, "two")];
    log.append_batch_once(stamp(0, 0), batch).unwrap();
    let again = log.append_batch_once(stamp(0, 0), batch).unwrap();
    assert_eq!(log.durable_offset(), Offset::ZERO);

    futures_lite::future::block_on(log.durable(again.offset())).unwrap();

    // The whole batch: a flush does not end within one.
    assert_eq!(log.durable_offset(), Offset::new(2));
}

#[test]
fn whom_pruning_has_forgotten_is_told_so_at_once_and_after_a_reopen() {
    let dir = tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    log.append_once(stamp(3, 0), None, b"one").unwrap();
    log.append_once(stamp(3, 1), None, b"two").unwrap();
    for _ in 0..100 {
        log.append(&[7; 500]).unwrap();
    }
    let next = log.sync().unwrap();
    assert_eq!(newest(&log), Some((3, 1, 1)));

    assert!(log.prune(next).unwrap().oldest > Offset::new(1));

    let killed = as_if_killed(&log);
    let reopened = small_segments().open(killed.path()).unwrap();
    for log in [log, reopened] {
        assert_eq!(newest(&log), None);
        assert!(matches!(
            log.append_once(stamp(3, 2), None, b"three"),
            Err(AppendError::UnknownProducer { epoch: 3, found: 2 })
        ));
        let begun = log.append_once(stamp(4, 0), None, b"anew").unwrap();
        assert_eq!(begun, Appended::New(next..next.next()));
    }
}

#[test]
fn a_read_only_and_a_closed_log_refuse_and_can_still_be_asked() {
    let (dir, log) = new_log();
    log.append_once(stamp(0, 0), None, b"one").unwrap();
    let reader = Log::options().open_read_only(dir.path()).unwrap();
    assert!(matches!(
        reader.append_once(stamp(0, 0), None, b"one"),
        Err(AppendError::ReadOnly)
    ));
    assert_eq!(newest(&reader), Some((0, 0, 0)));
    log.append_once(stamp(0, 1), None, b"two").unwrap();
    assert_eq!(newest(&reader), Some((0, 1, 1)));

    log.close().unwrap();
    assert!(matches!(
        log.append_once(stamp(0, 1), None, b"two"),
        Err(AppendError::Closed)
    ));
    assert_eq!(newest(&log), Some((0, 1, 1)));
}

#[test]
fn a_stamp_that_cannot_be_read_is_an_error_until_a_repair_says_what_is_lost() {
    let dir = tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    for sequence in 0..3 {
        let payload = format!("message {sequence}");
        log.append_once(stamp(0, sequence), None, payload.as_bytes())
            .unwrap();
    }
    for _ in 0..100 {
        log.append(&[7; 500]).unwrap();
    }
    log.close().unwrap();
    let first = &segments(dir.path())[0];
    flip(first, position_of(first, "message 2"));

    // The topics file still knows of it.
    let log = small_segments().open(dir.path()).unwrap();
    let again = log.append_once(stamp(0, 2), None, b"message 2").unwrap();
    assert!(matches!(again, Appended::Duplicate(_)));
    log.close().unwrap();
    std::fs::remove_file(first.with_extension("topics")).unwrap();

    let log = small_segments().open(dir.path()).unwrap();
    let refused = log.append_once(stamp(0, 3), None, b"message 3");
    let Err(AppendError::ProducersUnreadable { source }) = refused else {
        panic!("{refused:?}");
    };
    let ReadError::Corrupt(damage) = &*source else {
        panic!("{source:?}");
    };
    assert_eq!((&damage.path, damage.offset), (first, Some(Offset::new(2))));
    assert!(log.producer(NAME).is_err());
    log.append(b"goes on").unwrap();
    log.close().unwrap();

    let repaired = tempdir().unwrap();
    repair(dir.path(), repaired.path(), |_| ()).unwrap();
    let log = small_segments().open(repaired.path()).unwrap();
    // The producer learns of the loss, and sends it again.
    assert!(matches!(
        log.append_once(stamp(0, 3), None, b"message 3"),
        Err(AppendError::SequenceGap {
            expected: 2,
            found: 3
        })
    ));
    log.append_once(stamp(0, 2), None, b"message 2").unwrap();
    log.append_once(stamp(0, 3), None, b"message 3").unwrap();
}

#[test]
fn of_many_who_send_the_same_at_once_one_appends_and_the_others_find_it_there() {
    const SENDERS: usize = 8;
    const MESSAGES: u64 = 200;
    let dir = tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let together = Barrier::new(SENDERS);
    let new: u64 = thread::scope(|scope| {
        let send = || {
            let mut new = 0;
            for sequence in 0..MESSAGES {
                together.wait();
                let payload = sequence.to_le_bytes();
                match log.append_once(stamp(0, sequence), None, &payload).unwrap() {
                    Appended::New(_) => new += 1,
                    Appended::Duplicate(newest) => {
                        assert_eq!(newest.sequence, sequence);
                        // Not told before it can be read.
                        let original = log.get(newest.offset).unwrap();
                        assert_eq!(original.payload(), payload);
                    }
                }
            }
            new
        };
        let senders: Vec<_> = (0..SENDERS).map(|_| scope.spawn(send)).collect();
        senders
            .into_iter()
            .map(|sender| sender.join().unwrap())
            .sum()
    });
    assert_eq!(new, MESSAGES);
    assert_eq!(log.next_offset(), Offset::new(MESSAGES));
}

#[test]
fn a_higher_epoch_in_one_process_fences_off_the_lower_one_in_another() {
    let dir = tempdir().unwrap();
    let sender = |epoch: &str| {
        let dir = dir.path().to_str().unwrap();
        let mut sender = Child::start("child_that_sends_as_it_is_told", [dir, epoch]);
        assert_eq!(sender.line().as_deref(), Some("opened"));
        sender
    };
    let send = |sender: &mut Child, sequence: u64| {
        sender.order(&sequence.to_string());
        sender.line().unwrap()
    };
    let mut old = sender("1");
    assert_eq!(send(&mut old, 0), "New(Offset(0)..Offset(1))");
    old.kill();
    let mut successor = sender("2");
    assert_eq!(send(&mut successor, 0), "New(Offset(1)..Offset(2))");
    successor.kill();

    let mut old = sender("1");

    assert_eq!(send(&mut old, 1), "Fenced { epoch: 1, current: 2 }");
    assert_eq!(send(&mut old, 0), "Fenced { epoch: 1, current: 2 }");
    old.kill();
    let mut successor = sender("2");
    let again = send(&mut successor, 0);
    assert!(again.starts_with("Duplicate("), "{again}");
    assert_eq!(send(&mut successor, 1), "New(Offset(2)..Offset(3))");
    successor.kill();
}

/// Not a test of its own: the process that sends.
#[test]
fn child_that_sends_as_it_is_told() {
    let Some(orders) = child::orders() else {
        return;
    };
    let log = quiet().open(&orders[0]).unwrap();
    let epoch = orders[1].parse().unwrap();
    child::say(&["opened".to_owned()]);
    loop {
        let sequence = child::wait_for_order().parse().unwrap();
        child::say(
            &[match log.append_once(stamp(epoch, sequence), None, b"x") {
                Ok(appended) => format!("{appended:?}"),
                Err(error) => format!("{error:?}"),
            }],
        );
    }
}

const PRODUCERS: u64 = 8;

/// Eight producers in one process send each message one to three times. It is killed again and again;
/// the next process resends from what was answered, and some from before it.
#[test]
fn in_a_storm_of_retries_and_kills_each_message_is_there_once_and_in_order() {
    let kills = support::by_hand("DACAPO_RETRY_KILLS", 50);
    let mut random = Random(support::by_hand("DACAPO_RETRY_SEED", 0xdaca));
    let mut storm = Storm::default();
    let mut dir = tempdir().unwrap();
    for kill in 0..kills {
        if kill > 0 && kill % 50 == 0 {
            // One log would grow without end.
            (dir, storm.answered) = (tempdir().unwrap(), BTreeMap::new());
        }
        storm.rage(dir.path(), &mut random);
        // Every other time the next process finds the log as the kill left it.
        let log = match kill % 2 {
            0 => small_segments().open(dir.path()).unwrap(),
            _ => Log::options().open_read_only(dir.path()).unwrap(),
        };
        storm.check(&log);
    }
    let Storm {
        answers,
        duplicates,
        ..
    } = storm;
    tell(format!(
        "{kills} kills: {answers} answers, {duplicates} of them to messages that an earlier process had sent"
    ));
    assert!(answers > 0 && (duplicates > 0 || kills < 50));
}

#[derive(Default)]
struct Storm {
    /// The sequence behind the last one that each producer has an answer for.
    answered: BTreeMap<u64, u64>,
    answers: u64,
    /// First answers of a process that said "there already".
    duplicates: u64,
}

impl Storm {
    fn rage(&mut self, dir: &Path, random: &mut Random) {
        let resume: Vec<String> = (0..PRODUCERS)
            .map(|producer| {
                let answered = self.answered.get(&producer).copied().unwrap_or(0);
                answered.saturating_sub(random.below(4)).to_string()
            })
            .collect();
        let orders = [
            dir.to_str().unwrap(),
            &random.next().to_string(),
            &resume.join(" "),
        ];
        let mut process = Child::start("child_that_resends_until_it_is_killed", orders);
        assert_eq!(process.line().as_deref(), Some("opened"));
        let mut said = Vec::new();
        for _ in 0..random.below(400) {
            match process.line() {
                Some(line) => said.push(line),
                None => panic!("it ended: {:?}", process.end()),
            }
        }
        said.extend(process.kill());
        for line in said {
            let mut words = line.split(' ');
            let mut number = || words.next().unwrap().parse::<u64>().unwrap();
            let (producer, sequence, was_there) = (number(), number(), number());
            let behind = self.answered.entry(producer).or_default();
            *behind = (*behind).max(sequence + 1);
            self.answers += 1;
            self.duplicates += was_there;
        }
    }

    fn check(&self, log: &Log) {
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        let mut records = log.replay(Start::Oldest).map(Result::unwrap);
        while let Some(record) = records.next() {
            let stamp = record.stamp().expect("an append begins with its stamp");
            let producer = u64::try_from(stamp.producer).unwrap();
            let behind = found.entry(producer).or_default();
            assert_eq!(stamp.sequence, *behind, "of producer {producer}");
            *behind += 1;
            let mut message = message(producer, stamp.sequence).into_iter();
            assert_eq!(record.payload(), message.next().unwrap());
            for part in message {
                let record = records.next().expect("a batch is whole");
                assert_eq!((record.payload(), record.stamp()), (&part[..], None));
            }
        }
        for (producer, behind) in &self.answered {
            let there = found.get(producer).copied().unwrap_or(0);
            assert!(there >= *behind, "producer {producer}: {there} of {behind}");
        }
        for (&producer, behind) in &found {
            let newest = log.producer(producer.into()).unwrap().unwrap();
            assert_eq!(newest.sequence + 1, *behind, "of producer {producer}");
        }
    }
}

/// One to three payloads, which say whose and which they are.
fn message(producer: u64, sequence: u64) -> Vec<Vec<u8>> {
    let mut random = Random(producer << 32 | sequence);
    let part = |part: u64, filler: usize| {
        let mut bytes = format!("{producer} {sequence} {part} ").into_bytes();
        bytes.resize(bytes.len() + filler, b'x');
        bytes
    };
    let parts = 1 + random.below(5).saturating_sub(2);
    (0..parts).map(|i| part(i, random.index(300))).collect()
}

/// Not a test of its own: the process that is killed.
#[test]
fn child_that_resends_until_it_is_killed() {
    let Some(orders) = child::orders() else {
        return;
    };
    let log = small_segments().open(&orders[0]).unwrap();
    let seed: u64 = orders[1].parse().unwrap();
    child::say(&["opened".to_owned()]);
    thread::scope(|scope| {
        for (producer, resume) in (0..).zip(orders[2].split(' ')) {
            let (log, resume) = (&log, resume.parse().unwrap());
            let random = Random(seed ^ producer);
            scope.spawn(move || resend(log, producer, resume, random));
        }
    });
}

/// Sends for ever, and says what was answered.
fn resend(log: &Log, producer: u64, resume: u64, mut random: Random) {
    for sequence in resume.. {
        let stamp = Stamp {
            producer: producer.into(),
            epoch: 0,
            sequence,
        };
        let message = message(producer, sequence);
        let send = || {
            let appended = match &message[..] {
                [payload] => log.append_once(stamp, None, payload),
                _ => log.append_batch_once(stamp, message.iter().map(|part| (None, part))),
            };
            appended.unwrap()
        };
        let first = send();
        for _ in 0..random.below(3) {
            let Appended::Duplicate(newest) = send() else {
                panic!("{sequence} of producer {producer} was appended twice");
            };
            assert!(newest.sequence >= sequence);
            assert_eq!(newest.offset, first.offset());
        }
        let was_there = u64::from(matches!(first, Appended::Duplicate(_)));
        child::say(&[format!("{producer} {sequence} {was_there}")]);
    }
}

/// What a log must answer, in a map.
#[derive(Default)]
struct Model {
    /// Payloads by offset, of those that were not pruned.
    records: BTreeMap<u64, Vec<u8>>,
    next: u64,
    newest: HashMap<u128, (u64, u64, u64)>,
}

impl Model {
    /// The answer to an append, as text; the payloads are in the log behind it if it is new.
    fn append(&mut self, stamp: Stamp, payloads: &[Vec<u8>]) -> String {
        let Stamp {
            producer,
            epoch,
            sequence,
        } = stamp;
        let refusal = match self.newest.get(&producer) {
            None if sequence > 0 => Some("unknown".to_owned()),
            Some(&(current, ..)) if epoch < current => Some(format!("fenced by {current}")),
            Some(&(current, ..)) if epoch > current && sequence > 0 => Some("not begun".to_owned()),
            Some(&(current, last, at)) if epoch == current && sequence <= last => {
                Some(format!("newest is {last} at {at}"))
            }
            Some(&(current, last, _)) if epoch == current && sequence > last + 1 => {
                Some(format!("expected {}", last + 1))
            }
            _ => None,
        };
        refusal.unwrap_or_else(|| {
            let first = self.next;
            self.newest.insert(producer, (epoch, sequence, first));
            for payload in payloads {
                self.records.insert(self.next, payload.clone());
                self.next += 1;
            }
            format!("new at {first}")
        })
    }

    fn prune(&mut self, oldest: u64) {
        self.records = self.records.split_off(&oldest);
        self.newest.retain(|_, &mut (_, _, at)| at >= oldest);
    }

    fn check(&self, log: &Log) {
        let found: BTreeMap<u64, Vec<u8>> = log
            .replay(Start::Oldest)
            .map(|record| record.unwrap())
            .map(|record| (record.offset().get(), record.payload().to_vec()))
            .collect();
        assert!(found == self.records, "other records than were appended");
    }
}

/// The same answer of the log.
fn answer_of(answer: Result<Appended, AppendError>) -> String {
    match answer {
        Ok(Appended::New(offsets)) => format!("new at {}", offsets.start),
        Ok(Appended::Duplicate(newest)) => {
            format!("newest is {} at {}", newest.sequence, newest.offset)
        }
        Err(AppendError::UnknownProducer { .. }) => "unknown".to_owned(),
        Err(AppendError::Fenced { current, .. }) => format!("fenced by {current}"),
        Err(AppendError::EpochNotBegun { .. }) => "not begun".to_owned(),
        Err(AppendError::SequenceGap { expected, .. }) => format!("expected {expected}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn whatever_producers_send_the_log_answers_as_a_model_does() {
    let seeds = support::by_hand("DACAPO_PRODUCER_SEEDS", 20);
    let first = support::by_hand("DACAPO_PRODUCER_FIRST_SEED", 1);
    let mut answers: BTreeMap<String, u64> = BTreeMap::new();
    for seed in first..first + seeds {
        live(seed, &mut answers);
    }
    tell(format!("{seeds} seeds: {answers:?}"));
    for kind in ["new", "newest", "unknown", "fenced", "not", "expected"] {
        assert!(answers.contains_key(kind) || seeds < 20, "no answer {kind}");
    }
}

fn live(seed: u64, answers: &mut BTreeMap<String, u64>) {
    let mut random = Random(seed);
    let mut dir = tempdir().unwrap();
    let mut log = small_segments().open(dir.path()).unwrap();
    let mut model = Model::default();
    for step in 0..300 {
        match random.below(120) {
            0 => {
                log.close().unwrap();
                log = small_segments().open(dir.path()).unwrap();
            }
            1 => {
                let killed = as_if_killed(&log);
                drop(log);
                dir = killed;
                log = small_segments().open(dir.path()).unwrap();
            }
            2 => {
                log.close().unwrap();
                let repaired = tempdir().unwrap();
                repair(dir.path(), repaired.path(), |_| ()).unwrap();
                dir = repaired;
                log = small_segments().open(dir.path()).unwrap();
            }
            3 => {
                log.sync().unwrap();
                let before = Offset::new(random.below(model.next + 1));
                model.prune(log.prune(before).unwrap().oldest.get());
            }
            4..16 => {
                let payload = vec![b'n'; random.index(800)];
                assert_eq!(log.append(&payload).unwrap().get(), model.next);
                model.records.insert(model.next, payload);
                model.next += 1;
            }
            _ => {
                let stamp = near(&model, &mut random);
                let parts = 1 + random.index(3);
                let payloads: Vec<Vec<u8>> = (0..parts)
                    .map(|part| {
                        let mut payload = format!("{seed} {step} {part}").into_bytes();
                        payload.resize(payload.len() + random.index(800), b'x');
                        payload
                    })
                    .collect();
                let answer = answer_of(match &payloads[..] {
                    [payload] => log.append_once(stamp, None, payload),
                    _ => log.append_batch_once(stamp, payloads.iter().map(|part| (None, part))),
                });
                let expected = model.append(stamp, &payloads);
                assert_eq!(answer, expected, "seed {seed}, step {step}, {stamp:?}");
                let kind = answer.split(' ').next().unwrap().to_owned();
                *answers.entry(kind).or_default() += 1;
            }
        }
    }
    model.check(&log);
    for producer in 0..4 {
        let newest = log.producer(producer).unwrap();
        let parts = newest.map(|state| (state.epoch, state.sequence, state.offset.get()));
        assert_eq!(parts, model.newest.get(&producer).copied(), "seed {seed}");
    }
}

/// A stamp that comes next, or not quite.
fn near(model: &Model, random: &mut Random) -> Stamp {
    let producer = u128::from(random.below(4));
    let (epoch, last, _) = model.newest.get(&producer).copied().unwrap_or((1, 0, 0));
    let epoch = match random.below(12) {
        0 => epoch + 1,
        1 => epoch.saturating_sub(1),
        _ => epoch,
    };
    let sequence = match random.below(8) {
        0 => 0,
        1 => last,
        2 => last + 2,
        3 => last.saturating_sub(1),
        _ => last + 1,
    };
    Stamp {
        producer,
        epoch,
        sequence,
    }
}
