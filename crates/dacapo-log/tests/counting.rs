//! How many records a topic has from an offset on, beside a model that counts them one by one.

mod support;

use std::fs;
use std::path::Path;

use dacapo_log::{Log, Offset, Options, Start, Topic};
use support::random::Random;

const TOPICS: usize = 12;

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn some_topic(random: &mut Random) -> Topic {
    topic(&format!("t{}", random.index(TOPICS)))
}

/// What is in a log.
#[derive(Default)]
struct Model {
    /// In order.
    records: Vec<Entry>,
    next: u64,
    deletions: u64,
    removed: u64,
    pruned: u64,
}

#[derive(Clone)]
struct Entry {
    offset: u64,
    /// `None`: of no topic.
    topic: Option<Topic>,
    is_deletion: bool,
}

impl Entry {
    fn is_of(&self, topic: &Topic) -> bool {
        self.topic.as_ref() == Some(topic)
    }
}

impl Model {
    fn push(&mut self, topic: Option<&Topic>, is_deletion: bool) {
        self.records.push(Entry {
            offset: self.next,
            topic: topic.cloned(),
            is_deletion,
        });
        self.next += 1;
    }

    /// Those behind the topic's newest deletion.
    fn alive(&self, topic: &Topic) -> impl DoubleEndedIterator<Item = u64> {
        let of_topic = || self.records.iter().filter(|entry| entry.is_of(topic));
        let deletion = of_topic().rfind(|entry| entry.is_deletion);
        let from = deletion.map_or(0, |deletion| deletion.offset + 1);
        let offsets = of_topic().map(|entry| entry.offset);
        offsets.filter(move |&offset| offset >= from)
    }

    fn count(&self, topic: &Topic, from: u64) -> u64 {
        self.alive(topic).filter(|&offset| offset >= from).count() as u64
    }

    /// What a compaction leaves: of each topic the newest `limit` records.
    fn compact(&mut self, limit: usize) {
        let before = self.records.len();
        let mut kept: Vec<Entry> = self.records.clone();
        kept.retain(|entry| entry.topic.is_none());
        for number in 0..TOPICS {
            let topic = topic(&format!("t{number}"));
            let newest: Vec<u64> = self.alive(&topic).rev().take(limit).collect();
            let is_newest = |entry: &&Entry| entry.is_of(&topic) && newest.contains(&entry.offset);
            kept.extend(self.records.iter().filter(is_newest).cloned());
        }
        kept.sort_by_key(|entry| entry.offset);
        self.records = kept;
        self.removed += (before - self.records.len()) as u64;
    }

    fn prune(&mut self, oldest: u64) {
        let before = self.records.len();
        self.records.retain(|entry| entry.offset >= oldest);
        self.pruned += (before - self.records.len()) as u64;
    }

    fn check(&self, log: &Log, random: &mut Random, times: usize) {
        for _ in 0..times {
            let topic = some_topic(random);
            let mut offsets = self.alive(&topic);
            // Also one of its records, and one behind the end.
            let from = match random.index(4) {
                0 => offsets.next().unwrap_or(0),
                1 => offsets.next_back().map_or(0, |last| last + 1),
                _ => random.below(self.next + 3),
            };
            let counted = log.count(&topic, Offset::new(from)).unwrap();
            assert_eq!(counted, self.count(&topic, from), "{topic} from {from} on");
            let last = log.last(&topic).unwrap();
            let last = last.map(|record| record.offset().get());
            assert_eq!(last, self.alive(&topic).next_back(), "the last of {topic}");
        }
    }

    /// One step of a log's life, which may be the last of this opening.
    fn step(&mut self, log: &Log, limit: usize, random: &mut Random) {
        match random.index(100) {
            0..3 => {
                let topic = some_topic(random);
                log.delete_topic(&topic).unwrap();
                self.push(Some(&topic), true);
                self.deletions += 1;
            }
            3 => {
                log.compact(|_| ()).unwrap();
                self.compact(limit);
            }
            4 => {
                let range = self.next - log.oldest().get();
                let before = log.oldest().plus(random.below(1 + range / 3));
                let oldest = log.prune(before).unwrap().oldest;
                self.prune(oldest.get());
            }
            5..10 => {
                log.append(&[1; 150]).unwrap();
                self.push(None, false);
            }
            10..20 => {
                let batch: Vec<Topic> = (0..5).map(|_| some_topic(random)).collect();
                let records = batch.iter().map(|topic| (topic, [2; 90]));
                log.append_batch_to(records).unwrap();
                batch.iter().for_each(|topic| self.push(Some(topic), false));
            }
            _ => {
                let topic = some_topic(random);
                log.append_to(&topic, &vec![3; random.index(300)]).unwrap();
                self.push(Some(&topic), false);
            }
        }
    }
}

fn topics_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(dir).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "topics"))
        .collect()
}

#[test]
fn the_records_of_a_topic_are_counted_as_a_model_counts_them_wherever_the_index_comes_from() {
    let (mut removed, mut pruned, mut deletions, mut files_read) = (0, 0, 0, 0);
    for seed in 0..support::by_hand("DACAPO_COUNTING_SEEDS", 6) {
        let mut random = Random(seed);
        let limit = [usize::MAX, 1, 20][random.index(3)];
        let options: Options = match limit {
            usize::MAX => support::small_segments(),
            limit => support::small_segments().topic_limit("t", limit as u64),
        };
        let dir = tempfile::tempdir().unwrap();
        let mut model = Model::default();
        for _ in 0..3 {
            let log = options.open(dir.path()).unwrap();
            model.check(&log, &mut random, 20);
            for _ in 0..400 {
                model.step(&log, limit, &mut random);
                model.check(&log, &mut random, 1);
            }
            let killed = support::as_if_killed(&log);
            log.close().unwrap();
            for dir in [killed.path(), dir.path()] {
                let log = Log::options().open_read_only(dir).unwrap();
                model.check(&log, &mut random, 20);
            }
        }
        // Without the files, and with damaged ones.
        let files = topics_files(dir.path());
        for (i, file) in files.iter().enumerate() {
            let bytes = fs::read(file).unwrap();
            match i % 3 {
                0 => fs::remove_file(file).unwrap(),
                1 => support::flip(file, random.index(bytes.len())),
                _ => {}
            }
        }
        let log = options.open(dir.path()).unwrap();
        model.check(&log, &mut random, 40);
        (removed, pruned) = (removed + model.removed, pruned + model.pruned);
        (deletions, files_read) = (deletions + model.deletions, files_read + files.len());
    }
    assert!(removed > 100 && pruned > 100 && deletions > 20 && files_read > 20);
}

#[test]
fn a_deletion_does_not_count_and_hides_all_before_it_from_every_offset() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    let lobby = topic("lobby");
    for _ in 0..40 {
        log.append_to(&lobby, &[7; 1000]).unwrap();
    }
    assert_eq!(log.count(&lobby, Offset::new(3)).unwrap(), 37);
    let deletion = log.delete_topic(&lobby).unwrap();
    for from in [0, 3, 39, 40, 41, u64::MAX] {
        assert_eq!(log.count(&lobby, Offset::new(from)).unwrap(), 0, "{from}");
    }
    for _ in 0..40 {
        log.append_to(&lobby, &[8; 1000]).unwrap();
    }
    for (from, behind) in [(0, 40), (40, 40), (41, 40), (42, 39), (80, 1), (81, 0)] {
        let counted = log.count(&lobby, Offset::new(from)).unwrap();
        assert_eq!(counted, behind, "from {from} on");
    }
    let read = log.replay(Start::At(deletion)).topic(&lobby).count() as u64;
    assert_eq!(read, 1 + log.count(&lobby, deletion).unwrap());
    assert_eq!(log.count(&topic("nobody's"), Offset::ZERO).unwrap(), 0);
}

#[test]
fn a_count_in_another_process_follows_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let lobby = topic("lobby");
    let elsewhere = Log::options().open_read_only(dir.path()).unwrap();
    for number in 0..3 {
        assert_eq!(elsewhere.count(&lobby, Offset::ZERO).unwrap(), number);
        log.append_to(&lobby, b"hello").unwrap();
    }
}
