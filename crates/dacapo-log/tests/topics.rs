//! Records of many topics in one log.

use std::path::Path;

use dacapo_log::{Log, Offset, Record, Start, Topic, repair};

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
