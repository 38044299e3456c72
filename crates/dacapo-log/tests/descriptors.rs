//! A log of more segments than a process may have files open, in a process of its own.

mod support;

use dacapo_log::{Start, Topic};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Listing and compacting held a topics file open for each segment.
#[test]
fn topics_are_listed_and_compacted_though_there_are_more_segments_than_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    let (lobby, kitchen) = (Topic::new("lobby").unwrap(), Topic::new("kitchen").unwrap());
    for _ in 0..300 {
        log.append_to(&lobby, &[7; 7000]).unwrap();
        log.append_to(&kitchen, &[7; 700]).unwrap();
    }
    log.close().unwrap();
    let log = support::small_segments().open(dir.path()).unwrap();
    assert!(support::segments(dir.path()).len() >= 290);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let few = Rlimit {
        current: Some(128),
        maximum,
    };
    setrlimit(Resource::Nofile, few).unwrap();

    assert_eq!(log.replay(Start::Oldest).topic(&lobby).count(), 300);
    let listed: Result<Vec<_>, _> = log.topics().collect();
    assert!(
        matches!(&listed, Ok(topics) if topics.len() == 2),
        "{listed:?}"
    );
    log.delete_topic(&lobby).unwrap();
    assert_eq!(log.compact(|_| ()).unwrap().records, 301);
}
