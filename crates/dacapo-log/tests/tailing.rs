//! Following a log: nothing missed, nothing doubled, nobody left asleep.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dacapo_log::{Log, Offset, ReadError, Record, Start, SyncError, Tailer, Topic};
use futures_lite::StreamExt;
use futures_lite::future::{block_on, poll_once};
use support::{quiet, small_segments};

#[test]
fn a_tailer_replays_and_then_follows_without_a_seam() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    const RECORDS: u32 = 20_000;
    for i in 0..RECORDS / 2 {
        log.append(&i.to_le_bytes()).unwrap();
    }
    let mut tailer = log.tail(Start::Oldest);
    let reader = thread::spawn(move || {
        for i in 0..RECORDS {
            assert_eq!(tailer.next_blocking().unwrap().payload(), i.to_le_bytes());
        }
    });
    for i in RECORDS / 2..RECORDS {
        log.append(&i.to_le_bytes()).unwrap();
    }
    reader.join().unwrap();
}

/// Producer and number, in the payload.
fn message(producer: u32, number: u32) -> [u8; 8] {
    let mut message = [0; 8];
    message[..4].copy_from_slice(&producer.to_le_bytes());
    message[4..].copy_from_slice(&number.to_le_bytes());
    message
}

/// Checks the order of one tailer's sequence, and folds it into one number.
#[derive(Default)]
struct Witness {
    seen: u64,
    next_of: [u32; 16],
    digest: u64,
}

impl Witness {
    fn see(&mut self, record: &Record) {
        assert_eq!(
            record.offset(),
            Offset::new(self.seen),
            "dense and in order"
        );
        let producer = u32::from_le_bytes(record.payload()[..4].try_into().unwrap());
        let number = u32::from_le_bytes(record.payload()[4..].try_into().unwrap());
        let next = &mut self.next_of[producer as usize];
        assert_eq!(number, *next, "each producer's own order");
        *next += 1;
        self.seen += 1;
        self.digest = self.digest.wrapping_mul(0x100_0000_01b3)
            ^ u64::from(producer) << 32
            ^ u64::from(number);
    }
}

#[test]
fn sixteen_producers_and_eight_tailers_see_one_sequence() {
    const PRODUCERS: u32 = 16;
    const EACH: u32 = 125_000; // 2 million together
    const TOTAL: u64 = PRODUCERS as u64 * EACH as u64;
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().segment_bytes_max(4 << 20).open(dir.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();

    let blocking: Vec<_> = (0..4)
        .map(|_| {
            let mut tailer = log.tail(Start::Oldest);
            thread::spawn(move || {
                let mut witness = Witness::default();
                while witness.seen < TOTAL {
                    witness.see(&tailer.next_blocking().unwrap());
                }
                witness.digest
            })
        })
        .collect();
    let asynchronous: Vec<_> = (0..4)
        .map(|_| {
            let mut tailer = log.tail(Start::Oldest);
            runtime.spawn(async move {
                let mut witness = Witness::default();
                while witness.seen < TOTAL {
                    witness.see(&tailer.next().await.unwrap());
                }
                witness.digest
            })
        })
        .collect();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let log = log.clone();
            thread::spawn(move || {
                for number in 0..EACH {
                    log.append(&message(producer, number)).unwrap();
                }
            })
        })
        .collect();
    producers
        .into_iter()
        .for_each(|producer| producer.join().unwrap());

    let mut digests: Vec<u64> = blocking
        .into_iter()
        .map(|tailer| tailer.join().unwrap())
        .collect();
    digests.extend(
        asynchronous
            .into_iter()
            .map(|tailer| runtime.block_on(tailer).unwrap()),
    );

    let mut replayed = Witness::default();
    log.replay(Start::Oldest)
        .for_each(|record| replayed.see(&record.unwrap()));
    assert_eq!(replayed.seen, TOTAL);
    assert_eq!(digests, [replayed.digest; 8]);
    assert!(log.status().unwrap().segments > 10);
}

#[test]
fn a_cancelled_wait_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    let mut tailer = log.tail(Start::Oldest);
    block_on(async {
        for i in 0..100_u32 {
            // Begun, and given up, while nothing was there.
            assert!(poll_once(tailer.next()).await.is_none());
            log.append(&i.to_le_bytes()).unwrap();
            assert_eq!(tailer.next().await.unwrap().payload(), i.to_le_bytes());
        }
    });
}

#[test]
fn a_sleeping_tailer_is_woken_by_every_append() {
    // One message back and forth: a lost wake-up would hang here.
    let (dir, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ping = small_segments().open(dir.path()).unwrap();
    let pong = small_segments().open(back.path()).unwrap();
    const ROUNDS: u32 = 5_000;
    let echo = {
        let (mut tailer, pong) = (ping.tail(Start::Oldest), pong.clone());
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                pong.append(block_on(tailer.next()).unwrap().payload())
                    .unwrap();
            }
        })
    };
    let mut tailer = pong.tail(Start::Oldest);
    for i in 0..ROUNDS {
        ping.append(&i.to_le_bytes()).unwrap();
        assert_eq!(tailer.next_blocking().unwrap().payload(), i.to_le_bytes());
    }
    echo.join().unwrap();
}

#[test]
fn closing_ends_tailers_after_they_have_read_everything() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    log.append_batch(["a", "b"]).unwrap();
    let (mut blocking, stream) = (log.tail(Start::Oldest), log.tail(Start::Oldest));
    let waiting = thread::spawn(move || {
        let read = [blocking.next_blocking(), blocking.next_blocking()]
            .map(|r| r.unwrap().payload().to_vec());
        (read, blocking.next_blocking().unwrap_err())
    });
    let collected = thread::spawn(move || block_on(stream.count()));

    drop(log);

    let (read, end) = waiting.join().unwrap();
    assert_eq!(read, [b"a", b"b"]);
    assert!(matches!(end, ReadError::Closed));
    assert_eq!(collected.join().unwrap(), 2);
}

#[test]
fn a_tailer_that_comes_late_reads_the_segment_that_the_last_handle_left_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    for i in 0..100_u32 {
        log.append(&[i.to_le_bytes(); 100].concat()).unwrap();
    }
    let mut tailer = log.tail(Start::Oldest);
    drop(log);
    for i in 0..100_u32 {
        assert_eq!(
            tailer.next_blocking().unwrap().payload()[..4],
            i.to_le_bytes()
        );
    }
    assert!(matches!(tailer.next_blocking(), Err(ReadError::Closed)));
}

#[test]
fn a_durable_tailer_sees_nothing_before_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    let mut durable = log.tail(Start::Oldest).durable_only();
    log.append(b"a").unwrap();

    assert!(durable.try_next().unwrap().is_none());
    assert_eq!(log.replay(Start::Oldest).durable_only().count(), 0);
    assert_eq!(log.replay(Start::Oldest).count(), 1);

    let waiting = thread::spawn(move || durable.next_blocking().unwrap().offset());
    assert_eq!(log.sync().unwrap(), Offset::new(1));
    assert_eq!(waiting.join().unwrap(), Offset::ZERO);
    assert_eq!(log.replay(Start::Oldest).durable_only().count(), 1);
}

#[test]
fn durability_is_awaited_on_any_runtime_and_shared() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    assert!(matches!(
        block_on(log.durable(Offset::ZERO)),
        Err(SyncError::BeyondEnd { .. })
    ));
    block_on(async {
        let offset = log.append(b"a").unwrap();
        log.durable(offset).await.unwrap();
        assert!(log.durable_offset() > offset);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let waiting: Vec<_> = (0..64)
        .map(|_| {
            let log = log.clone();
            runtime.spawn(async move {
                let offset = log.append(b"x").unwrap();
                log.durable(offset).await.unwrap();
                assert!(log.durable_offset() > offset);
            })
        })
        .collect();
    for task in waiting {
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn the_background_flush_makes_records_durable_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let interval = std::time::Duration::from_millis(1);
    let log = Log::options()
        .flush(dacapo_log::Flush::Interval(interval))
        .open(dir.path())
        .unwrap();
    let mut durable = log.tail(Start::Oldest).durable_only();
    for i in 0..5_u64 {
        log.append(b"x").unwrap();
        assert_eq!(durable.next_blocking().unwrap().offset(), Offset::new(i));
    }
}

#[test]
fn a_record_outlives_its_reader_its_log_and_its_segment_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    for i in 0..200_u32 {
        log.append(format!("{i:0200}").as_bytes()).unwrap();
    }
    let kept: Vec<Record> = log.replay(Start::Oldest).map(Result::unwrap).collect();
    drop(log);
    drop(dir);

    let sent = thread::spawn(move || kept.into_iter().map(Bytes::from).collect::<Vec<_>>());

    for (i, bytes) in sent.join().unwrap().into_iter().enumerate() {
        assert_eq!(bytes, format!("{i:0200}").as_bytes());
    }
}

#[test]
fn a_read_only_log_follows_a_writer_across_rolls() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let reader = Log::options().open_read_only(dir.path()).unwrap();
    const RECORDS: u32 = 20_000;
    let caught_up = Arc::new(AtomicUsize::new(0));
    let tailers: Vec<_> = (0..3)
        .map(|kind| {
            let (mut tailer, caught_up) = (reader.tail(Start::Oldest), Arc::clone(&caught_up));
            thread::spawn(move || {
                for i in 0..RECORDS {
                    let record = match kind {
                        0 => tailer.next_blocking(),
                        _ => block_on(tailer.next()),
                    };
                    assert_eq!(record.unwrap().payload(), i.to_le_bytes());
                }
                caught_up.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    for i in 0..RECORDS / 2 {
        match i % 2 {
            0 => drop(log.append(&(2 * i).to_le_bytes()).unwrap()),
            _ => drop(
                log.append_batch([
                    (2 * i - 1).to_le_bytes(),
                    (2 * i).to_le_bytes(),
                    (2 * i + 1).to_le_bytes(),
                ])
                .unwrap(),
            ),
        }
    }
    tailers
        .into_iter()
        .for_each(|tailer| tailer.join().unwrap());
    assert_eq!(caught_up.load(Ordering::Relaxed), 3);
    assert!(reader.status().unwrap().segments > 10);
}

#[test]
fn a_read_only_log_sees_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    let reader = Log::options().open_read_only(dir.path()).unwrap();
    let mut durable = reader.tail(Start::Oldest).durable_only();
    log.append(b"a").unwrap();
    assert!(durable.try_next().unwrap().is_none());
    log.sync().unwrap();
    assert_eq!(durable.next_blocking().unwrap().payload(), b"a");
}

#[test]
fn a_read_only_log_follows_across_a_restart_of_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let reader = Log::options().open_read_only(dir.path()).unwrap();
    let mut tailer = reader.tail(Start::Oldest);
    let mut log = Some(log);
    for i in 0..50_u32 {
        let open = log.get_or_insert_with(|| small_segments().open(dir.path()).unwrap());
        for _ in 0..20 {
            open.append(&[i.to_le_bytes(); 20].concat()).unwrap();
        }
        if i % 7 == 0 {
            log = None;
        }
        for _ in 0..20 {
            assert_eq!(
                tailer.next_blocking().unwrap().payload()[..4],
                i.to_le_bytes()
            );
        }
    }
}

#[test]
fn a_tailer_goes_on_from_wherever_it_is_told_to_with_the_same_topics() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    let (lobby, hall) = (Topic::new("lobby").unwrap(), Topic::new("hall").unwrap());
    for i in 0..6u8 {
        let topic = if i % 2 == 0 { &lobby } else { &hall };
        log.append_to(topic, &[i]).unwrap();
    }
    let mut tailer = log.tail(Start::Latest).topic(&lobby);
    assert!(tailer.try_next().unwrap().is_none());

    tailer.seek(Start::At(Offset::new(1)));

    assert_eq!(tailer.next_blocking().unwrap().payload(), [2]);
    let refused = Start::At(Offset::new(7));
    tailer.seek(refused);
    let error = tailer.try_next().unwrap_err();
    assert!(matches!(error, ReadError::BeyondEnd { .. }), "{error}");
    tailer.seek(Start::Oldest);
    assert_eq!(tailer.next_blocking().unwrap().payload(), [0]);
}

#[test]
fn a_clone_of_a_tailer_reads_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    log.append_batch([[0], [1], [2]]).unwrap();
    let mut tailer = log.tail(Start::Oldest);
    tailer.next_blocking().unwrap();

    let mut clone = tailer.clone();

    let rest = |tailer: &mut Tailer| -> Vec<u8> {
        std::iter::from_fn(|| tailer.try_next().unwrap())
            .map(|record| record.payload()[0])
            .collect()
    };
    assert_eq!(rest(&mut clone), [1, 2]);
    assert_eq!(rest(&mut tailer), [1, 2]);
}

#[test]
fn a_wait_ends_with_its_time_or_with_what_came() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    let (lobby, hall) = (Topic::new("lobby").unwrap(), Topic::new("hall").unwrap());
    let tailers = [
        log.tail(Start::Oldest),
        log.tail(Start::Oldest).topic(&lobby),
        log.tail(Start::Oldest).topic(&lobby).topic(&hall),
    ];
    for mut tailer in tailers.clone() {
        let nothing = tailer.next_timeout(Duration::from_millis(1)).unwrap();
        assert!(nothing.is_none());
        assert!(!tailer.arrival().wait_until(Instant::now()));
    }
    let waiting: Vec<_> = tailers
        .into_iter()
        .map(|mut tailer| thread::spawn(move || tailer.next_timeout(Duration::MAX)))
        .collect();
    log.append_to(&lobby, b"came").unwrap();
    for waiting in waiting {
        let record = waiting.join().unwrap().unwrap().expect("it came");
        assert_eq!(record.payload(), b"came");
    }
}

#[test]
fn several_wait_for_one_tailer_and_each_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = quiet().open(dir.path()).unwrap();
    let lobby = Topic::new("lobby").unwrap();
    for mut tailer in [
        log.tail(Start::Oldest),
        log.tail(Start::Oldest).topic(&lobby),
    ] {
        let arrivals = [tailer.arrival(), tailer.arrival()];
        let dropped = tailer.arrival();
        drop(dropped);
        let waiting = arrivals.map(|arrival| thread::spawn(move || arrival.wait()));
        log.append_to(&lobby, b"now").unwrap();
        for waiting in waiting {
            waiting.join().unwrap();
        }
        assert_eq!(tailer.try_next_ref().unwrap().unwrap().payload(), b"now");
    }
}
