//! A process killed for real while it sends: what it was told is there for the next one.

#[path = "../../dacapo-log/tests/support/child.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod child;

use child::Child;
use dacapo::{Offset, ReplayChannel};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
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

#[test]
fn acceptance_2_what_a_killed_process_sent_is_received_by_the_next_and_then_live() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut sent = 0;
    for kill in 1..=5 {
        let mut child = Child::start("child_that_sends_until_it_is_killed", [path]);
        while sent < kill * 1_000 {
            let line = child.line().expect("it sends until it is killed");
            sent = line.parse::<u64>().unwrap() + 1;
        }
        // What it had still said was sent too.
        sent = child
            .kill()
            .last()
            .map_or(sent, |line| line.parse::<u64>().unwrap() + 1);

        let channel = ReplayChannel::<Order>::open(dir.path()).unwrap();
        let receiver = channel.receiver();
        let mut received = 0;
        while let Some(message) = receiver.try_receive().unwrap() {
            assert_eq!(message, order(received));
            received += 1;
        }
        assert!(received >= sent, "{received} of {sent} are there");
        channel.sender().send(&order(received)).unwrap();
        assert_eq!(receiver.receive_blocking().unwrap(), order(received));
        sent = received + 1;
    }
}

/// The kills of a consumer; by hand more of them: `DACAPO_CONSUMER_KILLS=100`.
#[cfg(feature = "cursors")]
fn kills() -> u64 {
    std::env::var("DACAPO_CONSUMER_KILLS").map_or(20, |kills| kills.parse().unwrap())
}

#[cfg(feature = "cursors")]
#[test]
fn a_killed_consumer_has_handled_each_message_once_with_its_effect_beside_the_offset() {
    const MESSAGES: u64 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let channel = ReplayChannel::<Order>::open(dir.path()).unwrap();
    let orders: Vec<Order> = (0..MESSAGES).map(order).collect();
    channel.sender().send_batch(&orders).unwrap();
    drop(channel);
    let path = dir.path().to_str().unwrap();
    let (mut repeated, mut moments) = (0, 0x9e37_79b9_u64);
    for _ in 0..kills() {
        let mut child = Child::start("child_that_consumes_until_it_is_killed", [path]);
        let began: u64 = child.line().expect("where it begins").parse().unwrap();
        let entered = effects(dir.path()).len() as u64;
        repeated += u64::from(began < entered);
        // So many lines, of as many messages each; then at once.
        moments = moments.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        for _ in 0..moments >> 60 {
            child.line().expect("it consumes until it is killed");
        }
        child.kill();
    }
    let mut last = Child::start("child_that_consumes_until_it_is_killed", [path]);
    while last.line().as_deref() != Some("all") {}
    last.kill();
    assert!(
        effects(dir.path()).into_iter().eq(0..MESSAGES),
        "each once, in order"
    );
    eprintln!(
        "{} kills, behind {repeated} of which a message came again",
        kills()
    );
}

/// The ids of the orders that were handled.
#[cfg(feature = "cursors")]
fn effects(dir: &std::path::Path) -> Vec<u64> {
    let bytes = std::fs::read(dir.join("effects")).unwrap_or_default();
    let (whole, _cut_off) = bytes.as_chunks::<16>();
    let entry = |bytes: &[u8; 16]| {
        let (offset, id) = (
            u64::from_le_bytes(bytes[..8].try_into().unwrap()),
            &bytes[8..],
        );
        assert_eq!(offset, u64::from_le_bytes(id.try_into().unwrap()));
        offset
    };
    whole.iter().map(entry).collect()
}

#[cfg(feature = "cursors")]
#[test]
fn child_that_consumes_until_it_is_killed() {
    use std::io::Write;

    let Some(orders) = child::orders() else {
        return;
    };
    let dir = std::path::Path::new(&orders[0]);
    let channel = ReplayChannel::<Order>::open(dir).unwrap();
    let mut consumer = channel.consumer("effects").unwrap();
    let done = effects(dir).len() as u64;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .append(true)
        .create(true)
        .open(dir.join("effects"))
        .unwrap();
    file.set_len(done * 16).unwrap();
    assert!(
        consumer.offset() <= Offset::new(done),
        "a cursor is never ahead"
    );
    child::say(&[consumer.offset().to_string()]);
    while let Some(message) = consumer.try_message().unwrap() {
        let offset = message.offset().get();
        if offset >= done {
            let id = message.decode().unwrap().id;
            let entry: Vec<u8> = [offset.to_le_bytes(), id.to_le_bytes()].concat();
            file.write_all(&entry).unwrap();
        }
        consumer.commit().unwrap();
        if offset % 64 == 0 {
            child::say(&[offset.to_string()]);
        }
    }
    child::say(&["all".to_owned()]);
    child::wait_for_order();
}

#[test]
fn child_that_sends_until_it_is_killed() {
    let Some(orders) = child::orders() else {
        return;
    };
    let channel = ReplayChannel::<Order>::open(&orders[0]).unwrap();
    let sender = channel.sender();
    let mut next: Offset = channel.log().next_offset();
    loop {
        next = sender.send(&order(next.get())).unwrap().next();
        child::say(&[(next.get() - 1).to_string()]);
    }
}
