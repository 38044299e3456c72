//! What a broadcaster promises: each key's messages to those who subscribe to it, from any place on.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::Duration;

use allocation_counter::measure;
use dacapo::{
    Broadcaster, Json, Lag, Lagged, Log, MessageStream, Offset, OpenError, Raw, ReceiveError,
    ReplayChannel, SendError, Start, Subscription, Topic, TopicError,
};
use dacapo_log::ReadError;
use futures_lite::StreamExt;
use futures_lite::future::{block_on, poll_once};

type Rooms = Broadcaster<String, u64>;

fn rooms() -> Rooms {
    Rooms::temporary().unwrap()
}

/// Everything that is there.
fn drain<T, C>(subscription: &Subscription<T, C>) -> Vec<T>
where
    C: for<'a> dacapo::Decode<'a, T>,
{
    std::iter::from_fn(|| subscription.try_receive().unwrap()).collect()
}

fn is_removed<T>(received: Result<T, ReceiveError>) -> bool {
    matches!(received, Err(ReceiveError::Removed))
}

fn is_closed<T>(received: Result<T, ReceiveError>) -> bool {
    matches!(received, Err(ReceiveError::Closed))
}

fn lagged<T: std::fmt::Debug>(received: Result<T, ReceiveError>) -> Lagged {
    match received {
        Err(error @ ReceiveError::Lagged(lagged)) => {
            assert!(error.is_lagged() && !error.is_end());
            lagged
        }
        received => panic!("it lags: {received:?}"),
    }
}

#[test]
fn acceptance_4_a_send_to_an_unknown_key_reaches_nobody_and_makes_nothing() {
    let rooms = rooms();
    assert_eq!(rooms.send("lobby", &1).unwrap().receivers, 0);
    assert_eq!(rooms.subscriber_count("lobby"), 0);
    assert_eq!(rooms.total_subscribers(), 0);
}

#[test]
fn acceptance_4_subscriptions_are_counted_until_they_are_dropped() {
    let rooms = rooms();
    let one = rooms.subscribe("lobby").unwrap();
    let two = rooms.clone().subscribe("lobby").unwrap();
    assert_eq!(rooms.send("lobby", &1).unwrap().receivers, 2);
    assert_eq!(rooms.send_batch("lobby", &[2]).unwrap().receivers, 2);
    let durable = block_on(rooms.send_durable("lobby", &3)).unwrap();
    assert_eq!((durable.offset, durable.receivers), (Offset::new(2), 2));
    let three = two.clone();
    assert_eq!(rooms.subscriber_count("lobby"), 3);
    assert_eq!(rooms.total_subscribers(), 3);
    drop((one, three));
    assert_eq!(rooms.subscriber_count("lobby"), 1);
    assert_eq!(drain(&two), [1, 2, 3]);
    drop(two);
    assert_eq!(rooms.subscriber_count("lobby"), 0);
    assert_eq!(rooms.send("lobby", &4).unwrap().receivers, 0);
}

#[test]
fn acceptance_4_a_removal_ends_the_streams_of_its_key_alone_after_what_was_sent_before() {
    let rooms = rooms();
    let (lobby, hall) = (
        rooms.subscribe("lobby").unwrap(),
        rooms.subscribe("hall").unwrap(),
    );
    let mut stream = lobby.clone();
    rooms.send_batch("lobby", &[1, 2]).unwrap();
    rooms.send("hall", &3).unwrap();

    assert_eq!(rooms.remove("lobby"), 2);
    rooms.send("lobby", &4).unwrap();
    rooms.send("hall", &5).unwrap();

    assert_eq!(lobby.receive_blocking().unwrap(), 1);
    assert_eq!(lobby.receive_blocking().unwrap(), 2);
    for _ in 0..2 {
        assert!(is_removed(lobby.receive_blocking()));
    }
    assert_eq!(
        lobby.offset(),
        Offset::new(3),
        "the message sent since is next"
    );
    block_on(async {
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert_eq!(stream.next().await.unwrap().unwrap(), 2);
        assert!(stream.next().await.is_none());
    });
    assert_eq!(drain(&hall), [3, 5]);
    assert_eq!(rooms.remove("lobby"), 0);
    assert_eq!(rooms.subscriber_count("hall"), 1);
}

#[test]
fn a_removal_is_told_to_who_waits_and_deletes_nothing() {
    let rooms = rooms();
    rooms.send("lobby", &1).unwrap();
    let [lobby, never_sent_to] = ["lobby", "empty"].map(|key| {
        let subscription = rooms.subscribe(key).unwrap();
        thread::spawn(move || subscription.receive_blocking())
    });
    assert_eq!(rooms.remove("lobby"), 1);
    assert_eq!(rooms.remove("empty"), 1);

    assert!(is_removed(lobby.join().unwrap()));
    assert!(is_removed(never_sent_to.join().unwrap()));
    let again = rooms.subscribe_from("lobby", Start::Oldest).unwrap();
    assert_eq!(drain(&again), [1]);
}

#[test]
fn a_subscription_outlives_the_removal_of_a_key_that_is_born_again() {
    let rooms = rooms();
    let old = rooms.subscribe("lobby").unwrap();
    rooms.send("lobby", &1).unwrap();
    rooms.remove("lobby");
    let older = old.clone();

    let new = rooms.subscribe("lobby").unwrap();
    assert_eq!(rooms.send("lobby", &2).unwrap().receivers, 1);
    assert_eq!(drain(&new), [2]);
    assert_eq!(old.receive_blocking().unwrap(), 1);
    assert!(is_removed(old.receive_blocking()));
    drop((old, older));
    assert_eq!(rooms.subscriber_count("lobby"), 1, "the new one");
    assert_eq!(rooms.total_subscribers(), 1);
    rooms.remove("lobby");
    assert!(is_removed(new.receive_blocking()));
    assert_eq!(rooms.total_subscribers(), 0);
    drop(rooms);
    assert!(
        is_removed(new.receive_blocking()),
        "also with the log closed"
    );
}

#[test]
fn a_deleted_key_ends_and_begins_anew() {
    let rooms = rooms();
    let (lobby, hall) = (
        rooms.subscribe("lobby").unwrap(),
        rooms.subscribe("hall").unwrap(),
    );
    rooms.send("lobby", &1).unwrap();
    assert_eq!(drain(&lobby), [1]);
    rooms.delete("lobby").unwrap();
    assert!(is_removed(lobby.receive_blocking()));
    rooms.send("lobby", &2).unwrap();
    rooms.send("hall", &3).unwrap();
    let again = rooms.subscribe_from("lobby", Start::Oldest).unwrap();
    assert_eq!(drain(&again), [2]);
    assert_eq!(drain(&hall), [3]);
}

#[test]
fn acceptance_5_three_unread_of_a_buffer_of_two_are_an_error_said_once() {
    let rooms = Rooms::builder()
        .on_lag(Lag::Error { buffer: 2 })
        .temporary()
        .unwrap();
    let lobby = rooms.subscribe("lobby").unwrap();
    rooms.send_batch("lobby", &[1, 2, 3]).unwrap();
    let lagged = lagged(lobby.try_receive());
    assert_eq!((lagged.missed, lagged.resume_at), (1, Offset::new(1)));
    assert_eq!(
        lagged.to_string(),
        "1 unread message was passed over; receiving goes on at offset 1"
    );
    assert_eq!(drain(&lobby), [2, 3]);
    rooms.send_batch("lobby", &[4, 5]).unwrap();
    assert_eq!(drain(&lobby), [4, 5], "two are not too many");
}

#[test]
fn acceptance_5_end_ends_and_who_comes_again_gets_exactly_the_missed_ones() {
    let rooms = rooms();
    let mut stream = rooms
        .subscribe("lobby")
        .unwrap()
        .on_lag(Lag::End { buffer: 2 })
        .into_messages();
    rooms.send("lobby", &1).unwrap();
    let last = block_on(stream.next()).unwrap().unwrap();
    assert_eq!(last.decode().unwrap(), 1);
    rooms.send("hall", &2).unwrap();
    rooms.send_batch("lobby", &[3, 4, 5]).unwrap();

    block_on(async {
        assert!(stream.next().await.is_none());
        assert!(stream.next().await.is_none());
    });
    let Err(error @ ReceiveError::FellBehind { buffer, resume_at }) =
        stream.subscription().receive_blocking()
    else {
        panic!("it has ended");
    };
    assert!(error.is_lagged() && error.is_end());
    assert_eq!((buffer, resume_at), (2, Offset::new(2)));

    let again = rooms
        .subscribe_from("lobby", Start::At(last.offset().next()))
        .unwrap();
    assert_eq!(drain(&again), [3, 4, 5]);
    let again = rooms.subscribe_from("lobby", Start::At(resume_at)).unwrap();
    assert_eq!(drain(&again), [3, 4, 5]);
}

#[test]
fn acceptance_5_skip_gives_the_next_and_counts() {
    let rooms = rooms();
    let lobby = rooms
        .subscribe("lobby")
        .unwrap()
        .on_lag(Lag::Skip { buffer: 2 });
    rooms.send_batch("lobby", &[1, 2, 3, 4]).unwrap();
    assert_eq!(lobby.receive_blocking().unwrap(), 3);
    rooms.send_batch("lobby", &[5, 6]).unwrap();
    assert_eq!(lobby.receive_blocking().unwrap(), 5);
    assert_eq!(drain(&lobby), [6]);
    assert_eq!(lobby.skipped(), 3);
}

#[test]
fn by_default_a_slow_subscription_misses_nothing() {
    let rooms = rooms();
    let lobby = rooms.subscribe("lobby").unwrap();
    for message in 0..10_000 {
        rooms.send("lobby", &message).unwrap();
    }
    assert!(drain(&lobby).into_iter().eq(0..10_000));
    assert_eq!(lobby.skipped(), 0);
}

#[test]
fn a_lag_counts_the_messages_of_its_key_whoever_wrote_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let rooms = Rooms::on(&log, "rooms:").unwrap();
    let lobby = rooms
        .subscribe("lobby")
        .unwrap()
        .on_lag(Lag::Error { buffer: 2 });
    for message in 0..10 {
        rooms.send("hall", &message).unwrap();
    }
    rooms.send("lobby", &10).unwrap();
    let topic = rooms.topic("lobby").unwrap();
    let theirs = ReplayChannel::<u64>::on(&log, &topic).unwrap().sender();
    theirs.send(&11).unwrap();
    assert_eq!(lobby.receive_blocking().unwrap(), 10);
    theirs.send_batch(&[12, 13]).unwrap();
    assert_eq!(lagged(lobby.try_receive()).missed, 1);
    assert_eq!(drain(&lobby), [12, 13]);
}

#[test]
fn what_was_deleted_is_not_unread() {
    let rooms = rooms();
    let lobby = rooms
        .subscribe("lobby")
        .unwrap()
        .on_lag(Lag::End { buffer: 3 });
    rooms.send_batch("lobby", &[1, 2, 3]).unwrap();
    assert_eq!(lobby.receive_blocking().unwrap(), 1);
    rooms.send("lobby", &4).unwrap();
    assert_eq!(lobby.receive_blocking().unwrap(), 2);
    assert_eq!(lobby.receive_blocking().unwrap(), 3);
    // Message 4 was counted as unread by now.
    let topic = rooms.topic("lobby").unwrap();
    rooms.log().delete_topic(&topic).unwrap();
    rooms.send_batch("lobby", &[5, 6, 7]).unwrap();
    assert_eq!(drain(&lobby), [5, 6, 7]);
    rooms.send_batch("lobby", &[8, 9, 10, 11]).unwrap();
    assert!(lobby.try_receive().unwrap_err().is_lagged());
}

#[test]
fn a_lag_of_a_prefix_counts_all_of_its_keys() {
    let rooms = rooms();
    let halls = rooms
        .subscribe_prefix("hall:", Start::Latest)
        .on_lag(Lag::Error { buffer: 2 });
    for (key, message) in [("hall:1", 1), ("lobby", 2), ("hall:2", 3), ("hall:3", 4)] {
        rooms.send(key, &message).unwrap();
    }
    assert_eq!(lagged(halls.try_receive()).missed, 1);
    assert_eq!(drain(&halls), [3, 4]);
}

#[test]
fn no_lag_passes_over_damage_without_a_word() {
    const DAMAGED: u64 = 50;
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let builder = Broadcaster::<u8, Vec<u8>>::builder().codec(Raw);
        builder
            .segment_bytes_max(16 << 10)
            .open(dir.path())
            .unwrap()
    };
    let bytes = open();
    for i in 0..100u8 {
        bytes.send(&1, &[i; 1000][..]).unwrap();
    }
    drop(bytes);
    // A byte in the middle of message 50.
    let flipped = std::fs::read_dir(dir.path()).unwrap().any(|file| {
        let path = file.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        let damaged = [u8::try_from(DAMAGED).unwrap(); 1000];
        let found = content.windows(1000).position(|window| window == damaged);
        let is_segment = path.extension().is_some_and(|extension| extension == "seg");
        let Some(position) = found.filter(|_| is_segment) else {
            return false;
        };
        content[position + 500] ^= 0x40;
        std::fs::write(&path, content).unwrap();
        true
    });
    assert!(flipped);

    let bytes = open();
    let late = bytes
        .subscribe_from(&1, Start::Oldest)
        .unwrap()
        .on_lag(Lag::Error { buffer: 10 });
    let first_bytes = |upto: usize| -> Vec<u8> {
        let received = (0..upto).map(|_| late.receive_blocking().unwrap()[0]);
        received.collect()
    };
    assert_eq!(lagged(late.try_receive()).missed, DAMAGED - 10);
    assert!(first_bytes(10).into_iter().eq(40..50));
    for _ in 0..2 {
        let corrupt = late.try_receive();
        assert!(
            matches!(corrupt, Err(ReceiveError::Read(ReadError::Corrupt(_)))),
            "{corrupt:?}"
        );
    }
    assert_eq!(late.skip_damage(), Offset::new(DAMAGED + 1));
    assert_eq!(lagged(late.try_receive()).missed, 99 - DAMAGED - 10);
    assert!(first_bytes(10).into_iter().eq(90..100));
}

/// What a ring of `buffer` messages does, as tokio's broadcast channel has one for each key.
#[derive(Default)]
struct Ring {
    unread: VecDeque<u64>,
    skipped: u64,
}

impl Ring {
    fn pass_over(&mut self, buffer: usize) -> u64 {
        let missed = self.unread.len().saturating_sub(buffer);
        self.unread.drain(..missed);
        missed as u64
    }
}

#[test]
fn whatever_is_sent_and_received_a_lag_is_that_of_a_ring_of_messages() {
    let rooms = Rooms::builder()
        .segment_bytes_max(16 << 10)
        .temporary()
        .unwrap();
    let keys = ["a", "b"];
    let policies = [
        Lag::Error { buffer: 1 },
        Lag::Error { buffer: 3 },
        Lag::Skip { buffer: 4 },
        Lag::Error { buffer: 40 },
        Lag::Never,
    ];
    let mut all: Vec<_> = keys
        .iter()
        .flat_map(|key| policies.map(|lag| (*key, lag)))
        .map(|(key, lag)| {
            let subscription = rooms.subscribe(key).unwrap().on_lag(lag);
            (key, lag, subscription, Ring::default())
        })
        .collect();
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut lags = 0;
    for message in 0..4_000 {
        let to = keys[usize::try_from(random(2)).unwrap()];
        rooms.send(to, &message).unwrap();
        for (key, lag, subscription, ring) in &mut all {
            if *key == to {
                ring.unread.push_back(message);
            }
            for _ in 0..random(3) {
                let missed = lag.buffer().map_or(0, |buffer| ring.pass_over(buffer));
                let received = subscription.try_receive();
                if let Lag::Skip { .. } = lag {
                    ring.skipped += missed;
                    assert_eq!(subscription.skipped(), ring.skipped);
                } else if missed > 0 {
                    assert_eq!(lagged(received).missed, missed);
                    lags += 1;
                    continue;
                }
                assert_eq!(received.unwrap(), ring.unread.pop_front());
            }
        }
    }
    assert!(lags > 100, "{lags}");
}

#[test]
fn what_a_retention_has_dropped_is_said_to_who_lags() {
    let bytes = Broadcaster::<u8, Vec<u8>>::builder()
        .segment_bytes_max(16 << 10)
        .temporary()
        .unwrap();
    let late = bytes
        .subscribe(&1)
        .unwrap()
        .on_lag(Lag::Error { buffer: 2 });
    assert_eq!(late.try_receive().unwrap(), None);
    for i in 0..100u8 {
        bytes.send(&1, &[i; 1000][..]).unwrap();
    }
    bytes.log().sync().unwrap();
    bytes.log().prune(Offset::new(50)).unwrap();
    let pruned = late.try_receive();
    assert!(
        matches!(
            pruned,
            Err(ReceiveError::Read(ReadError::Pruned { requested, .. })) if requested == Offset::ZERO
        ),
        "{pruned:?}"
    );
    let oldest = bytes.log().oldest();
    let lagged = lagged(late.try_receive());
    assert_eq!(lagged.missed, 98 - oldest.get());
    assert_eq!(lagged.resume_at, Offset::new(98));
    let newest: Vec<u8> = drain(&late).iter().map(|message| message[0]).collect();
    assert_eq!(newest, [98, 99]);
}

#[test]
fn a_subscription_that_ended_by_its_lag_is_not_brought_back() {
    let rooms = rooms();
    let lobby = rooms
        .subscribe("lobby")
        .unwrap()
        .on_lag(Lag::End { buffer: 0 }); // is 1
    rooms.send("lobby", &1).unwrap();
    assert_eq!(lobby.receive_blocking().unwrap(), 1);
    rooms.send_batch("lobby", &[2, 3]).unwrap();
    for _ in 0..2 {
        assert!(lobby.receive_blocking().unwrap_err().is_end());
        lobby.seek(Start::Latest);
    }
    drop(lobby);
    assert_eq!(rooms.subscriber_count("lobby"), 0);
}

#[test]
fn a_thousand_keys_reach_their_own_subscriptions_only() {
    const KEYS: u64 = 1_000;
    let numbers = Broadcaster::<u64, (u64, u64)>::temporary().unwrap();
    let subscriptions: Vec<_> = (0..KEYS)
        .flat_map(|key| (0..3).map(move |_| key))
        .map(|key| (key, numbers.subscribe(&key).unwrap()))
        .collect();
    let everything = numbers.subscribe_prefix("", Start::Latest);
    assert_eq!(numbers.total_subscribers(), 3_001);
    for round in 0..5 {
        for key in 0..KEYS {
            assert_eq!(numbers.send(&key, &(key, round)).unwrap().receivers, 3);
        }
    }
    for (key, subscription) in &subscriptions {
        let expected: Vec<_> = (0..5).map(|round| (*key, round)).collect();
        assert_eq!(drain(subscription), expected);
    }
    assert_eq!(drain(&everything).len(), 5_000);
    drop((subscriptions, everything));
    assert_eq!(numbers.total_subscribers(), 0);
}

#[test]
fn a_prefix_receives_all_keys_that_begin_with_it_and_tells_them_apart() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let rooms = Rooms::on(&log, "rooms:").unwrap();
    let others = Rooms::on(&log, "users:").unwrap();
    rooms.send("hall:1", &1).unwrap();
    let halls = rooms.subscribe_prefix("hall:", Start::Oldest);
    let all = rooms.subscribe_prefix("", Start::Oldest);
    rooms.send("hall:2", &2).unwrap();
    rooms.send("lobby", &3).unwrap();
    others.send("hall:", &4).unwrap();
    assert_eq!(rooms.send("hall:1", &5).unwrap().receivers, 0);
    rooms.remove("hall:1");

    let keyed = |subscription: &Subscription<u64>| -> Vec<(String, u64)> {
        std::iter::from_fn(|| subscription.try_message().unwrap())
            .map(|message| {
                let key = subscription.key_of(&message).to_owned();
                (key, message.decode().unwrap())
            })
            .collect()
    };
    let expected = |keyed: &[(&str, u64)]| -> Vec<(String, u64)> {
        keyed.iter().map(|&(k, m)| (k.to_owned(), m)).collect()
    };
    assert_eq!(
        keyed(&halls),
        expected(&[("hall:1", 1), ("hall:2", 2), ("hall:1", 5)])
    );
    assert_eq!(
        keyed(&all),
        expected(&[("hall:1", 1), ("hall:2", 2), ("lobby", 3), ("hall:1", 5)])
    );
    assert_eq!(rooms.total_subscribers(), 2);
    drop(rooms);
    assert!(is_closed(all.receive_blocking()));
    drop(all);
    assert!(is_closed(halls.receive_blocking()));
}

#[test]
fn after_a_restart_the_messages_of_a_key_are_replayed() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let rooms = Rooms::open(dir.path()).unwrap();
        let lobby = rooms.subscribe_from("lobby", Start::Oldest).unwrap();
        assert!(drain(&lobby).into_iter().eq(0..run));
        rooms.send("hall", &100).unwrap();
        rooms.send("lobby", &run).unwrap();
        assert_eq!(lobby.receive_blocking().unwrap(), run);
        if run == 2 {
            let checkpoint = lobby.checkpoint();
            rooms.send("lobby", &3).unwrap();
            let resumed = rooms
                .subscribe_from("lobby", Start::Resume(checkpoint))
                .unwrap();
            assert_eq!(drain(&resumed), [3]);
        }
    }
}

#[test]
fn when_the_last_handle_is_gone_subscriptions_receive_what_is_there_and_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let rooms = Rooms::on(&log, "rooms:").unwrap();
    let waiting = rooms.subscribe("lobby").unwrap();
    let waiting = thread::spawn(move || {
        let mut received = Vec::new();
        loop {
            match waiting.receive_blocking() {
                Ok(message) => received.push(message),
                Err(error) => return (received, error),
            }
        }
    });
    let late = rooms.subscribe("lobby").unwrap();
    let other = rooms.clone();
    drop(rooms);
    other.send("lobby", &1).unwrap();
    drop(other);
    let (received, error) = waiting.join().unwrap();
    assert_eq!(received, [1]);
    assert!(matches!(error, ReceiveError::Closed), "{error}");
    assert_eq!(late.receive_blocking().unwrap(), 1);
    assert!(is_closed(late.receive_blocking()));
    assert!(is_closed(late.clone().receive_blocking()));
}

#[test]
fn handles_and_subscriptions_are_shared_by_threads_whatever_keys_and_messages_are() {
    fn is_shared<X: Clone + Send + Sync + 'static>() {}
    is_shared::<Broadcaster<Rc<str>, Rc<u64>>>();
    is_shared::<Subscription<Rc<u64>>>();
    is_shared::<MessageStream<Rc<u64>>>();
}

#[test]
fn a_temporary_broadcaster_goes_with_its_last_subscription() {
    let rooms = rooms();
    let dir = rooms.log().dir().to_owned();
    let lobby = rooms.subscribe("lobby").unwrap();
    rooms.send("lobby", &1).unwrap();
    drop(rooms);
    assert!(dir.exists());
    assert_eq!(lobby.receive_blocking().unwrap(), 1);
    drop(lobby);
    assert!(!dir.exists());
}

#[test]
fn a_key_that_is_too_long_for_a_topic_is_named() {
    let rooms = Rooms::builder().prefix("rooms:").temporary().unwrap();
    let key = "x".repeat(250);
    let Err(SendError::Key(error)) = rooms.send(&key, &1) else {
        panic!("256 bytes are too long");
    };
    assert_eq!(error.source, TopicError::TooLong { bytes: 256 });
    assert_eq!(
        error.to_string(),
        format!(
            "key `rooms:{}` names no topic: a topic has at most 255 bytes, and this name has 256",
            "x".repeat(74)
        )
    );
    assert_eq!(rooms.subscribe(&key).unwrap_err(), error);
    assert!(rooms.delete(&key).is_err());
    assert_eq!(rooms.remove(&key), 0);
    assert_eq!(rooms.subscriber_count(&key), 0);
    assert_eq!(rooms.log().next_offset(), Offset::ZERO, "nothing was sent");
    let longest = &key[1..];
    let lobby = rooms.subscribe(longest).unwrap();
    rooms.send(longest, &1).unwrap();
    assert_eq!(drain(&lobby), [1]);

    let bare = self::rooms();
    let Err(SendError::Key(error)) = bare.send("", &1) else {
        panic!("it has no name");
    };
    assert_eq!(error.source, TopicError::Empty);
    let refused = Rooms::builder().prefix("x".repeat(255)).temporary();
    assert!(matches!(refused, Err(OpenError::Prefix { .. })));
}

#[test]
fn what_a_prefix_holds_is_recorded_once_and_guarded() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let rooms = Rooms::on(&log, "rooms:").unwrap();
    let users = Broadcaster::<u64, String>::builder()
        .prefix("users:")
        .codec(Json)
        .on(&log)
        .unwrap();
    for key in ["lobby", "hall"] {
        rooms.send(key, &1).unwrap();
    }
    users.send(&7, "Ada").unwrap();
    let recorded = std::fs::read_to_string(dir.path().join("channels.json")).unwrap();
    let recorded: serde_json::Value = serde_json::from_str(&recorded).unwrap();
    assert_eq!(
        recorded,
        serde_json::json!({"channels": {
            "rooms:*": {"codec": "postcard", "schema": "u64"},
            "users:*": {"codec": "json", "schema": "String"},
        }})
    );
    let error = Broadcaster::<String, String>::on(&log, "rooms:").unwrap_err();
    assert!(
        error.to_string().starts_with("topic `rooms:*` holds `u64`"),
        "{error}"
    );
    drop(Rooms::on(&log, "rooms:").unwrap());
}

#[test]
fn another_process_or_handle_subscribes_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let rooms = Rooms::open(dir.path()).unwrap();
    rooms.send("lobby", &1).unwrap();
    let other = Rooms::builder().open_read_only(dir.path()).unwrap();
    let lobby = other
        .subscribe_from("lobby", Start::Oldest)
        .unwrap()
        .on_lag(Lag::Error { buffer: 2 });
    assert_eq!(lobby.receive_blocking().unwrap(), 1);
    rooms.send_batch("lobby", &[2, 3, 4, 5]).unwrap();
    assert_eq!(lagged(lobby.receive_blocking()).missed, 2);
    assert_eq!(lobby.receive_blocking().unwrap(), 4);
    assert_eq!(rooms.total_subscribers(), 0, "they are not seen from here");
    other.remove("lobby");
    assert_eq!(lobby.receive_blocking().unwrap(), 5);
    assert!(is_removed(lobby.receive_blocking()));
    assert!(other.send("lobby", &6).is_err());
}

#[test]
fn a_durable_subscription_sees_no_message_before_it_is_durable() {
    let rooms = rooms();
    let lobby = rooms.subscribe("lobby").unwrap().durable_only();
    rooms.send("lobby", &1).unwrap();
    assert_eq!(lobby.try_receive().unwrap(), None);
    assert_eq!(rooms.remove("lobby"), 1);
    assert_eq!(lobby.try_receive().unwrap(), None, "it is not over yet");
    rooms.log().sync().unwrap();
    assert_eq!(lobby.receive_blocking().unwrap(), 1);
    assert!(is_removed(lobby.receive_blocking()));
}

#[test]
fn the_end_of_a_durable_subscription_waits_for_no_message_of_another_key() {
    let rooms = rooms();
    let lobby = rooms.subscribe("lobby").unwrap().durable_only();
    block_on(rooms.send_durable("lobby", &1)).unwrap();
    rooms.send("hall", &2).unwrap(); // and nothing flushes it
    rooms.remove("lobby");
    assert_eq!(lobby.try_receive().unwrap(), Some(1));
    assert!(is_removed(lobby.try_receive()));
}

#[test]
fn a_message_that_does_not_decode_counts_as_received() {
    let rooms = rooms();
    let lobby = rooms
        .subscribe("lobby")
        .unwrap()
        .on_lag(Lag::Error { buffer: 2 });
    let topic = Topic::new("lobby").unwrap();
    rooms.log().append_to(&topic, b"\xff").unwrap();
    rooms.send("lobby", &1).unwrap();
    let received = lobby.receive_blocking();
    assert!(
        matches!(received, Err(ReceiveError::Decode(_))),
        "{received:?}"
    );
    rooms.send("lobby", &2).unwrap();
    assert_eq!(drain(&lobby), [1, 2]);
}

#[test]
fn at_the_seam_of_replay_and_live_nothing_is_missed_and_nothing_comes_twice() {
    const MESSAGES: u64 = 30_000;
    let rooms = Rooms::builder()
        .segment_bytes_max(64 << 10)
        .temporary()
        .unwrap();
    // How many sends have begun, and how many are done.
    let (begun, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let over = AtomicBool::new(false);
    let rounds = thread::scope(|scope| {
        let subscribing: Vec<_> = (0..3)
            .map(|number| {
                let (rooms, begun, done, over) = (rooms.clone(), &begun, &done, &over);
                scope.spawn(move || {
                    let mut rounds = 0u64;
                    while !over.load(SeqCst) {
                        let before = done.load(SeqCst);
                        let lobby = match number {
                            0 => rooms.subscribe("lobby"),
                            _ => rooms.subscribe_from("lobby", Start::Oldest),
                        }
                        .unwrap();
                        let after = begun.load(SeqCst);
                        // What is there, and some of what comes.
                        let mut received = Vec::new();
                        let enough = MESSAGES.min(after + 50);
                        while received.last().is_none_or(|&last| last + 1 < enough) {
                            if after == MESSAGES && number == 0 {
                                break;
                            }
                            received.push(lobby.receive_blocking().unwrap());
                        }
                        if let (0, Some(&first)) = (number, received.first()) {
                            assert!(
                                (before..=after).contains(&first),
                                "{before} {first} {after}"
                            );
                        }
                        let first = if number == 0 {
                            received.first().copied()
                        } else {
                            Some(0)
                        };
                        let expected =
                            first.map_or(0..0, |first| first..first + received.len() as u64);
                        assert!(received.into_iter().eq(expected), "round {rounds}");
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        for message in 0..MESSAGES {
            begun.store(message + 1, SeqCst);
            rooms.send("lobby", &message).unwrap();
            done.store(message + 1, SeqCst);
            rooms.send("hall", &message).unwrap();
        }
        over.store(true, SeqCst);
        subscribing.into_iter().map(|s| s.join().unwrap()).min()
    });
    assert!(rounds.unwrap() > 0);
    assert_eq!(rooms.total_subscribers(), 0);
}

#[test]
fn who_is_counted_when_a_message_is_sent_receives_it() {
    const KEYS: u64 = 500;
    let numbers = Broadcaster::<u64, ()>::temporary().unwrap();
    let current = AtomicU64::new(0);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            // Of each key, the first message that somebody was counted for.
            let mut counted: Vec<Option<Offset>> = vec![None; usize::try_from(KEYS).unwrap()];
            loop {
                let key = current.load(SeqCst);
                let Some(counted) = counted.get_mut(usize::try_from(key).unwrap()) else {
                    return counted;
                };
                let sent = numbers.send(&key, &()).unwrap();
                if sent.receivers > 0 {
                    counted.get_or_insert(sent.offset);
                }
            }
        });
        let received: Vec<Offset> = (0..KEYS)
            .map(|key| {
                let subscription = numbers.subscribe(&key).unwrap();
                let first = subscription.message_blocking().unwrap().offset();
                current.store(key + 1, SeqCst);
                first
            })
            .collect();
        let counted = sending.join().unwrap();
        for (key, (received, counted)) in received.into_iter().zip(counted).enumerate() {
            assert!(
                counted.is_none_or(|counted| received <= counted),
                "key {key}: {received} came first, and {counted:?} was counted"
            );
        }
    });
}

#[test]
fn however_keys_come_and_go_at_once_each_subscription_is_counted_or_removed() {
    let numbers = Broadcaster::<u64, u64>::temporary().unwrap();
    let kept: Vec<Subscription<u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|number| {
                let numbers = numbers.clone();
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for round in 0..500 {
                        let key = (number + round) % 3;
                        let subscription = numbers.subscribe(&key).unwrap();
                        let sent = numbers.send(&key, &round).unwrap();
                        // Another thread may have removed it before the send: its end says so.
                        loop {
                            match subscription.message_blocking() {
                                Ok(message) if message.offset() == sent.offset => break,
                                Ok(message) => assert!(message.offset() < sent.offset),
                                Err(ReceiveError::Removed) => break,
                                Err(error) => panic!("{error}"),
                            }
                        }
                        match round % 7 {
                            0 => drop(numbers.remove(&key)),
                            1 => kept.push(subscription.clone()),
                            _ => {}
                        }
                    }
                    kept
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect()
    });
    let counted: usize = (0..3).map(|key| numbers.subscriber_count(&key)).sum();
    assert_eq!(numbers.total_subscribers(), counted);
    let alive = kept.iter().filter(|subscription| {
        loop {
            match subscription.try_receive() {
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(ReceiveError::Removed) => return false,
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(alive.count(), counted);
    drop(kept);
    assert_eq!(numbers.total_subscribers(), 0);
}

#[test]
fn a_key_without_a_subscription_leaves_nothing_in_memory() {
    const KEYS: u64 = 1_000;
    let numbers = Broadcaster::<u64, u64>::temporary().unwrap();
    for key in 0..KEYS {
        numbers.send(&key, &key).unwrap();
    }
    let come_and_go = || {
        for key in 0..KEYS {
            let one = numbers
                .subscribe_from(&key, Start::Oldest)
                .unwrap()
                .on_lag(Lag::Error { buffer: 2 });
            assert_eq!(one.receive_blocking().unwrap(), key);
            assert!(one.receive_timeout(Duration::ZERO).unwrap().is_none());
            let two = one.clone();
            numbers.remove(&key);
            assert!(is_removed(two.receive_blocking()));
        }
        let all: Vec<_> = (0..KEYS).map(|key| numbers.subscribe(&key)).collect();
        assert_eq!(numbers.total_subscribers(), all.len());
    };
    come_and_go();

    let again = measure(come_and_go);

    assert_eq!(again.bytes_current, 0, "{again:?}");
}

#[test]
fn a_send_to_a_live_key_allocates_nothing_in_the_steady_state() {
    const MESSAGES: u64 = 10_000;
    let numbers = Broadcaster::<u64, u64>::builder()
        .log_options(Log::options().segment_bytes_min(4 << 20))
        .temporary()
        .unwrap();
    let subscription = numbers.subscribe(&7).unwrap();
    numbers.send(&7, &0).unwrap();

    let sending = measure(|| {
        for message in 1..MESSAGES {
            numbers.send(&7, &message).unwrap();
        }
    });

    // The indexes of the segment grow by doubling.
    assert!(sending.count_total < 40, "{sending:?}");
    assert!(drain(&subscription).into_iter().eq(0..MESSAGES));
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs on each runtime; `spawn` starts a task, and returns what waits for its end.
async fn suite(spawn: &dyn Fn(Task) -> Task) {
    const MESSAGES: u64 = 2_000;
    const KEYS: u64 = 4;
    let numbers = Broadcaster::<u64, u64>::temporary().unwrap();
    let subscribed: Vec<Task> = (0..KEYS * 3)
        .map(|number| {
            let subscription = numbers.subscribe(&(number % KEYS)).unwrap();
            spawn(Box::pin(async move {
                for expected in 0..MESSAGES {
                    assert_eq!(subscription.receive().await.unwrap(), expected);
                }
                assert!(is_removed(subscription.receive().await));
            }))
        })
        .collect();
    let shared = Arc::new(numbers.subscribe(&0).unwrap());
    let split = Broadcaster::<u64, u64>::temporary().unwrap();
    let collected = split.subscribe(&0).unwrap();
    let competing: Vec<Task> = (0..2)
        .map(|_| {
            let (shared, split) = (Arc::clone(&shared), split.clone());
            spawn(Box::pin(async move {
                while let Ok(message) = shared.receive().await {
                    split.send(&0, &message).unwrap();
                }
            }))
        })
        .collect();
    let sending: Vec<Task> = (0..KEYS)
        .map(|key| {
            let numbers = numbers.clone();
            spawn(Box::pin(async move {
                for message in 0..MESSAGES {
                    numbers.send(&key, &message).unwrap();
                }
                numbers.send_durable(&100, &key).await.unwrap();
                assert_eq!(numbers.remove(&key), if key == 0 { 4 } else { 3 });
            }))
        })
        .collect();
    for task in sending.into_iter().chain(subscribed).chain(competing) {
        task.await;
    }
    drop(split);
    let mut all: Vec<u64> = collected.map(Result::unwrap).collect().await;
    all.sort_unstable();
    assert!(all.into_iter().eq(0..MESSAGES), "each once");

    let cancelled = numbers.subscribe(&1).unwrap();
    for message in 0..100 {
        let mut waiting = Box::pin(cancelled.receive());
        assert!(poll_once(&mut waiting).await.is_none());
        numbers.send(&1, &message).unwrap();
        drop(waiting);
        assert_eq!(cancelled.receive().await.unwrap(), message);
    }
    let waiting = spawn(Box::pin(async move {
        assert!(is_closed(cancelled.receive().await));
    }));
    drop(numbers);
    waiting.await;
}

fn on_tokio(task: Task) -> Task {
    let handle = tokio::spawn(task);
    Box::pin(async move { handle.await.unwrap() })
}

#[tokio::test]
async fn under_tokio_on_one_thread() {
    suite(&on_tokio).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_tokio_on_several_threads() {
    suite(&on_tokio).await;
}

#[test]
fn under_smol() {
    smol::block_on(suite(&|task| Box::pin(smol::spawn(task))));
}

#[test]
fn with_plain_threads() {
    block_on(suite(&|task| {
        let thread = thread::spawn(|| block_on(task));
        Box::pin(async move { thread.join().unwrap() })
    }));
}
