//! What costs no memory: reading and appending a record.

mod support;

use allocation_counter::measure;
use dacapo_log::Start;
use support::quiet;

const RECORDS: u64 = 10_000;

#[test]
fn replay_and_append_allocate_nothing_per_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().segment_bytes_min(4 << 20).open(dir.path()).unwrap();
    log.append(&[1; 100]).unwrap();

    let appending = measure(|| {
        for _ in 1..RECORDS {
            log.append(&[1; 100]).unwrap();
        }
    });
    // The index grows by doubling; a record costs nothing.
    assert!(appending.count_total < 20, "{appending:?}");

    let mut read = 0;
    let borrowing = measure(|| {
        let mut replay = log.replay(Start::Oldest);
        while let Some(record) = replay.next_ref() {
            read += record.unwrap().payload().len() as u64;
        }
    });
    assert_eq!(read, RECORDS * 100);
    assert_eq!(borrowing.count_total, 0, "{borrowing:?}");

    let keeping = measure(|| {
        assert_eq!(
            log.replay(Start::Oldest).filter(Result::is_ok).count() as u64,
            RECORDS
        );
    });
    assert_eq!(keeping.count_total, 0, "{keeping:?}");
}
