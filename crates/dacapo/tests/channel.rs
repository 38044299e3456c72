//! What a typed channel promises: everything from the first message, to everybody, once.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use dacapo::{
    Json, Log, Offset, OpenError, Raw, ReceiveError, ReplayChannel, Retention, SendError, Stamp,
    Start, Topic,
};
use dacapo_log::{AppendError, Appended, ReadError};
use futures_lite::StreamExt;
use futures_lite::future::{block_on, poll_once};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
    item: String,
}

fn order(id: u64) -> Order {
    Order {
        id,
        item: format!("item {id}"),
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// Everything that is there.
fn drain<T, C>(receiver: &dacapo::Receiver<T, C>) -> Vec<T>
where
    C: for<'a> dacapo::Decode<'a, T>,
{
    std::iter::from_fn(|| receiver.try_receive().unwrap()).collect()
}

#[test]
fn acceptance_1_each_receiver_gets_what_was_sent_before_it_came_and_after() {
    let channel = ReplayChannel::<u32>::temporary().unwrap();
    let sender = channel.sender();
    sender.send(&1).unwrap();
    sender.send(&2).unwrap();
    let a = channel.receiver();
    assert_eq!(drain(&a), [1, 2]);
    let b = channel.receiver();
    assert_eq!(drain(&b), [1, 2]);
    sender.send(&3).unwrap();
    assert_eq!(block_on(a.receive()).unwrap(), 3);
    assert_eq!(block_on(b.receive()).unwrap(), 3);
}

#[test]
fn acceptance_3_two_senders_and_three_receivers_see_one_sequence() {
    const EACH: u64 = 10_000;
    let channel = ReplayChannel::<(u8, u64)>::temporary().unwrap();
    let senders: Vec<_> = (0..2u8)
        .map(|number| {
            let sender = channel.sender();
            thread::spawn(move || {
                for i in 0..EACH {
                    sender.send(&(number, i)).unwrap();
                }
            })
        })
        .collect();
    let receive = |receiver: dacapo::Receiver<(u8, u64)>| {
        thread::spawn(move || receiver.iter().collect::<Result<Vec<_>, _>>().unwrap())
    };
    let first = receive(channel.receiver());
    let probe = channel.receiver();
    probe.receive_blocking().unwrap();
    let second = receive(channel.receiver());
    for sender in senders {
        sender.join().unwrap();
    }
    let third = receive(channel.receiver());
    drop((channel, probe)); // the last handle: receivers are told

    let sequence = first.join().unwrap();
    assert_eq!(second.join().unwrap(), sequence);
    assert_eq!(third.join().unwrap(), sequence);
    for number in 0..2 {
        let own = sequence.iter().filter(|(sender, _)| *sender == number);
        assert!(own.map(|&(_, i)| i).eq(0..EACH), "sender {number}");
    }
}

#[test]
fn acceptance_3_two_threads_on_one_receiver_split_its_messages() {
    const MESSAGES: u64 = 20_000;
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let receiver = channel.receiver();
    let all = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = None;
                for message in &receiver {
                    let message = message.unwrap();
                    assert!(Some(message) > last, "in order");
                    last = Some(message);
                    assert!(all.lock().unwrap().insert(message), "{message} came twice");
                }
            });
        }
        let sender = channel.sender();
        for i in 0..MESSAGES {
            sender.send(&i).unwrap();
        }
        drop((channel, sender));
    });
    assert!(all.into_inner().unwrap().into_iter().eq(0..MESSAGES));
}

#[test]
fn acceptance_3_a_cancelled_receive_loses_nothing() {
    let channel = ReplayChannel::<u32>::temporary().unwrap();
    let receiver = channel.receiver();
    block_on(async {
        let mut waiting = Box::pin(receiver.receive());
        assert!(poll_once(&mut waiting).await.is_none());
        channel.sender().send(&1).unwrap();
        drop(waiting); // woken, and not polled again
        assert_eq!(receiver.receive().await.unwrap(), 1);
    });
}

#[test]
fn acceptance_3_the_last_sender_gone_and_all_read_a_receiver_is_told() {
    let channel = ReplayChannel::<u32>::temporary().unwrap();
    let (sender, receiver) = (channel.sender(), channel.receiver());
    drop(channel);
    let waiting = {
        let receiver = receiver.clone();
        thread::spawn(move || receiver.iter().map(Result::unwrap).collect::<Vec<_>>())
    };
    sender.clone().send(&1).unwrap();
    drop(sender);
    assert_eq!(waiting.join().unwrap(), [1]);
    assert_eq!(receiver.receive_blocking().unwrap(), 1);
    for _ in 0..2 {
        assert!(matches!(
            receiver.receive_blocking(),
            Err(ReceiveError::Closed)
        ));
    }
}

#[test]
fn a_channel_of_a_shared_log_is_closed_while_the_log_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let names = ReplayChannel::<String>::on(&log, &topic("names")).unwrap();
    let ages = ReplayChannel::<u32>::on(&log, &topic("ages")).unwrap();
    let receiver = names.receiver();
    let waiting = thread::spawn(move || receiver.iter().count());
    names.sender().send("Ada").unwrap();
    drop(names);
    assert_eq!(waiting.join().unwrap(), 1);
    ages.sender().send(&36).unwrap();
    assert_eq!(drain(&ages.receiver()), [36]);
}

#[test]
fn a_restarted_channel_replays_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let channel = ReplayChannel::<Order>::open(dir.path()).unwrap();
        let expected: Vec<Order> = (0..run).map(order).collect();
        assert_eq!(drain(&channel.receiver()), expected);
        assert_eq!(
            channel.sender().send(&order(run)).unwrap(),
            Offset::new(run)
        );
    }
}

#[test]
fn a_temporary_channel_goes_with_its_last_part() {
    let channel = ReplayChannel::<u32>::temporary().unwrap();
    let dir = channel.log().dir().to_owned();
    let (sender, receiver) = (channel.sender(), channel.receiver());
    sender.send(&1).unwrap();
    drop((channel, sender));
    assert!(dir.exists());
    assert_eq!(receiver.receive_blocking().unwrap(), 1);
    drop(receiver);
    assert!(!dir.exists());
}

#[test]
fn a_message_that_does_not_decode_says_where_it_is_and_the_next_one_comes() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let orders = ReplayChannel::<Order>::on(&log, &topic("orders")).unwrap();
    orders.sender().send(&order(0)).unwrap();
    log.append_to(&topic("orders"), b"\xff").unwrap();
    orders.sender().send(&order(2)).unwrap();
    let receiver = orders.receiver();

    assert_eq!(receiver.receive_blocking().unwrap(), order(0));
    let Err(ReceiveError::Decode(error)) = receiver.receive_blocking() else {
        panic!("it is no order");
    };
    assert_eq!(error.offset(), Offset::new(1));
    assert_eq!(error.topic(), "orders");
    let text = error.to_string();
    assert!(
        text.starts_with("message 1 of topic `orders` is no channel::Order in postcard: "),
        "{text}"
    );
    assert_eq!(receiver.receive_blocking().unwrap(), order(2));
}

#[test]
fn a_message_has_its_offset_and_time_and_can_be_peeked_at() {
    let channel = ReplayChannel::<Order>::builder()
        .codec(Json)
        .temporary()
        .unwrap();
    let sender = channel.sender();
    let range = sender.send_batch(&[order(0), order(1)]).unwrap();
    assert_eq!(range, Offset::ZERO..Offset::new(2));
    let receiver = channel.receiver();
    receiver.receive_blocking().unwrap();

    let peeked = receiver.peek().unwrap().unwrap();
    assert_eq!(receiver.offset(), Offset::new(1));
    let message = block_on(receiver.message()).unwrap();

    assert_eq!(
        (peeked.offset(), message.offset()),
        (Offset::new(1), Offset::new(1))
    );
    assert!(message.time() <= std::time::SystemTime::now());
    assert_eq!(message.payload(), br#"{"id":1,"item":"item 1"}"#);
    assert_eq!(message.decode().unwrap(), order(1));
    #[derive(Deserialize)]
    struct View<'a> {
        item: &'a str,
    }
    assert_eq!(message.view::<View<'_>>().unwrap().item, "item 1");
    assert!(message.view::<u64>().is_err());
    assert!(receiver.peek().unwrap().is_none());
    assert!(receiver.message_timeout(Duration::ZERO).unwrap().is_none());
}

#[test]
fn a_receiver_can_be_cloned_and_moved() {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    channel.sender().send_batch(&[0, 1, 2, 3]).unwrap();
    let receiver = channel.receiver();
    receiver.receive_blocking().unwrap();
    let clone = receiver.clone();
    assert_eq!(drain(&clone), [1, 2, 3]);
    assert_eq!(drain(&receiver), [1, 2, 3]);

    let waiting = {
        let receiver = receiver.clone();
        let shared = std::sync::Arc::new(receiver);
        let theirs = std::sync::Arc::clone(&shared);
        (
            shared,
            thread::spawn(move || theirs.receive_blocking().unwrap()),
        )
    };
    waiting.0.seek(Start::At(Offset::new(2)));
    assert_eq!(waiting.1.join().unwrap(), 2, "who waits is told of a seek");

    let resumed = channel.receiver_at(Start::Resume(waiting.0.checkpoint()));
    assert_eq!(resumed.receive_blocking().unwrap(), 3);
}

#[test]
fn a_receiver_is_a_stream_that_ends_with_the_channel() {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    channel.sender().send_batch(&[0, 1]).unwrap();
    let mut receiver = channel.receiver();
    block_on(async {
        assert_eq!(receiver.next().await.unwrap().unwrap(), 0);
        assert_eq!(receiver.next().await.unwrap().unwrap(), 1);
        assert!(poll_once(receiver.next()).await.is_none());
        channel.sender().send(&2).unwrap();
        assert_eq!(receiver.next().await.unwrap().unwrap(), 2);
        drop(channel);
        assert!(receiver.next().await.is_none());
    });
}

#[test]
fn a_channel_without_a_topic_shares_its_log_with_topics() {
    let dir = tempfile::tempdir().unwrap();
    let plain = ReplayChannel::<u64>::open(dir.path()).unwrap();
    let names = ReplayChannel::<String>::on(plain.log(), &topic("names")).unwrap();
    plain.sender().send(&0).unwrap();
    names.sender().send("Ada").unwrap();
    plain.sender().send(&2).unwrap();
    assert_eq!(drain(&plain.receiver()), [0, 2]);
    assert_eq!(drain(&names.receiver()), ["Ada"]);
}

#[test]
fn a_deleted_topic_begins_anew_for_its_channel() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let names = ReplayChannel::<String>::on(&log, &topic("names")).unwrap();
    let early = names.receiver();
    names.sender().send("Ada").unwrap();
    log.delete_topic(&topic("names")).unwrap();
    names.sender().send("Grace").unwrap();
    assert_eq!(drain(&early), ["Grace"]);
    assert_eq!(drain(&names.receiver()), ["Grace"]);
}

#[test]
fn what_was_dropped_is_said_once_and_receiving_goes_on() {
    let channel = ReplayChannel::<Vec<u8>>::builder()
        .codec(Raw)
        .segment_bytes_max(16 << 10)
        .retention(Retention::default())
        .temporary()
        .unwrap();
    let late = channel.receiver();
    let sender = channel.sender();
    for i in 0..100u8 {
        sender.send(&[i; 1000][..]).unwrap();
    }
    channel.log().sync().unwrap();
    let oldest = channel.log().prune(Offset::new(50)).unwrap().oldest;
    assert!(oldest > Offset::ZERO);

    let Err(ReceiveError::Read(ReadError::Pruned { requested, .. })) = late.receive_blocking()
    else {
        panic!("it was dropped");
    };
    assert_eq!(requested, Offset::ZERO);
    assert_eq!(u64::from(late.receive_blocking().unwrap()[0]), oldest.get());
}

#[test]
fn a_message_that_is_too_large_is_refused_and_the_next_one_goes() {
    let channel = ReplayChannel::<Vec<u8>>::builder()
        .segment_bytes_max(16 << 10)
        .temporary()
        .unwrap();
    let sender = channel.sender();
    let Err(SendError::Append(error @ AppendError::TooLarge { .. })) =
        sender.send(&vec![7; 1 << 20])
    else {
        panic!("it does not fit");
    };
    assert!(
        error.to_string().contains("raise segment_bytes_max"),
        "{error}"
    );
    sender.send(&vec![8]).unwrap();
    assert_eq!(drain(&channel.receiver()), [vec![8]]);
}

#[test]
fn what_the_codec_cannot_express_is_refused() {
    #[derive(Serialize, Deserialize)]
    struct Ages(std::collections::HashMap<Vec<u8>, u8>);
    let channel = ReplayChannel::<Ages>::builder()
        .codec(Json)
        .temporary()
        .unwrap();
    let ages = Ages([(vec![1], 2)].into());
    let error = channel.sender().send(&ages).unwrap_err();
    assert_eq!(
        error.to_string(),
        "json cannot express this channel::what_the_codec_cannot_express_is_refused::Ages: key must be a string"
    );
    assert_eq!(channel.log().next_offset(), Offset::ZERO);
}

#[test]
fn another_type_or_codec_is_refused_until_one_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let open = |text: &str| match ReplayChannel::<u64>::open(dir.path()) {
        Ok(_) => panic!("{text}"),
        Err(error @ OpenError::Schema(_)) => error.to_string(),
        Err(error) => panic!("{text}: {error}"),
    };
    drop(ReplayChannel::<Order>::open(dir.path()).unwrap());
    let error = open("another type");
    let path = dir.path().join("channels.json");
    assert_eq!(
        error,
        format!(
            "the channel without a topic holds `Order` in postcard, as {} says, and is opened for `u64` in postcard; open it for what it holds, name that with `schema` if only the type has another name, or call `replace_schema` if new messages are to be as you say",
            path.display()
        )
    );
    let named = ReplayChannel::<u64>::builder().schema("Order");
    drop(named.open(dir.path()).unwrap());
    let as_json = || ReplayChannel::<Order>::builder().codec(Json);
    assert!(matches!(
        as_json().open(dir.path()),
        Err(OpenError::Schema(_))
    ));
    assert!(matches!(
        as_json().open_read_only(dir.path()),
        Err(OpenError::Schema(_))
    ));
    drop(as_json().replace_schema().open(dir.path()).unwrap());
    drop(as_json().open(dir.path()).unwrap());
    open("another codec");

    fs::write(&path, "{").unwrap();
    let Err(error @ OpenError::SchemaFile { .. }) = as_json().open(dir.path()) else {
        panic!("it is no JSON");
    };
    assert!(error.to_string().contains("delete it"), "{error}");
    fs::remove_file(&path).unwrap();
    drop(as_json().open(dir.path()).unwrap());
}

#[test]
fn another_process_or_handle_follows_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let channel = ReplayChannel::<u64>::open(dir.path()).unwrap();
    channel.sender().send(&1).unwrap();
    let other = ReplayChannel::<u64>::builder()
        .open_read_only(dir.path())
        .unwrap();
    let receiver = other.receiver();
    assert_eq!(receiver.receive_blocking().unwrap(), 1);
    channel.sender().send(&2).unwrap();
    assert_eq!(receiver.receive_blocking().unwrap(), 2);
    let refused = other.sender().send(&3).unwrap_err();
    assert!(
        matches!(refused, SendError::Append(AppendError::ReadOnly)),
        "{refused}"
    );
}

#[test]
fn a_durable_send_is_seen_by_those_who_want_durable_messages_only() {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let receiver = channel.receiver().durable_only();
    channel.sender().send(&1).unwrap();
    assert_eq!(receiver.try_receive().unwrap(), None);
    block_on(channel.sender().send_durable(&2)).unwrap();
    assert_eq!(drain(&receiver), [1, 2]);
}

#[test]
fn a_message_that_is_sent_again_is_there_once() {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let stamp = Stamp {
        producer: 7,
        epoch: 0,
        sequence: 0,
    };
    for again in [false, true] {
        let sent = channel.sender().send_once(stamp, &5).unwrap();
        assert_eq!(
            matches!(sent, Appended::Duplicate { .. }),
            again,
            "{sent:?}"
        );
    }
    assert_eq!(drain(&channel.receiver()), [5]);
}

#[test]
fn a_message_that_sends_another_while_it_is_encoded_is_whole() {
    thread_local! {
        static INNER: ReplayChannel<u64> = ReplayChannel::temporary().unwrap();
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer(u64);
    impl Serialize for Outer {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            INNER.with(|inner| inner.sender().send(&self.0).unwrap());
            self.0.serialize(serializer)
        }
    }
    let channel = ReplayChannel::<Outer>::temporary().unwrap();
    channel
        .sender()
        .send_batch(&[Outer(300), Outer(5)])
        .unwrap();
    assert_eq!(drain(&channel.receiver()), [Outer(300), Outer(5)]);
    INNER.with(|inner| assert_eq!(drain(&inner.receiver()), [300, 5]));
}
