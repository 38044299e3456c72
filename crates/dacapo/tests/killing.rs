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
