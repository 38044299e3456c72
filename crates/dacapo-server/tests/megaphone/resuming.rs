//! What a client gets that lost its connection, or the server: everything, from where it wants.

use std::time::Duration;

use dacapo_log::{Log, Start};
use dacapo_server::megaphone::MegaphoneConfig;
use serde_json::{Value, json};

use crate::server::{Addresses, Clock, Server, start, start_in, start_on, without_expiry};

async fn write_numbers(server: &Server, channel: &Addresses, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(server.write(channel, "s", json!(number)).await.status, 201);
    }
}

fn numbers(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| line["body"].as_u64().unwrap())
        .collect()
}

fn eid(line: &Value) -> &str {
    line["eid"].as_str().unwrap()
}

#[tokio::test]
async fn a_read_that_breaks_off_is_repeated_with_the_same_eids() {
    let server = start(MegaphoneConfig::default()).await;
    let channel = server.create().await;
    write_numbers(&server, &channel, 0..5).await;
    let mut broken = server.read(&channel, "").await;
    let first = broken.lines(3).await;
    drop(broken);
    let repeated = server.read(&channel, "").await.lines(5).await;
    assert_eq!(numbers(&repeated), [0, 1, 2, 3, 4]);
    assert_eq!(repeated[..3], first);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_breaks_off_makes_unread_what_it_had_taken() {
    let mut clock = Clock::hold();
    let config = MegaphoneConfig {
        unread_max: Some(3),
        ..without_expiry()
    };
    let server = start(config).await;
    let channel = server.create().await;
    write_numbers(&server, &channel, 0..3).await;
    let mut broken = server.read(&channel, "").await;
    assert_eq!(numbers(&broken.lines(3).await), [0, 1, 2]);
    drop(broken);
    // Begins once the server has seen that the other one is gone, and is over at once.
    let again = server.read(&channel, "").await;
    drop(again);
    // A reader that is there for good makes space again.
    let mut read = server.read(&channel, "").await;
    assert_eq!(numbers(&read.lines(3).await), [0, 1, 2]);
    write_numbers(&server, &channel, 3..6).await;
    assert_eq!(numbers(&read.lines(3).await), [3, 4, 5]);
    clock.pass_until(&server, read.rest()).await;
    assert_eq!(server.metric("megaphone_messages_received").await, 6);
}

#[tokio::test]
async fn messages_and_positions_survive_a_restart() {
    let server = start(MegaphoneConfig::default()).await;
    let (half, unread) = (server.create().await, server.create().await);
    write_numbers(&server, &half, 0..2).await;
    write_numbers(&server, &unread, 10..12).await;
    let mut read = server.read(&half, "").await;
    assert_eq!(numbers(&read.lines(2).await), [0, 1]);
    // A shutdown ends the read as its time does.
    let reading = tokio::spawn(read.rest());
    let dir = server.stop().await;
    assert_eq!(reading.await.unwrap(), Vec::<Value>::new());

    let server = start_in(dir, MegaphoneConfig::default()).await;
    write_numbers(&server, &half, 2..3).await;
    assert_eq!(numbers(&server.read(&half, "").await.lines(1).await), [2]);
    assert_eq!(
        numbers(&server.read(&unread, "").await.lines(2).await),
        [10, 11]
    );
}

#[tokio::test]
async fn a_channel_is_read_again_from_its_beginning_or_from_a_message() {
    let server = start(MegaphoneConfig::default()).await;
    let (channel, other) = (server.create().await, server.create().await);
    write_numbers(&server, &channel, 0..4).await;
    write_numbers(&server, &other, 0..1).await;
    let lines = server.read(&channel, "").await.lines(4).await;
    let from = format!("?from={}", eid(&lines[2]));
    assert_eq!(
        numbers(&server.read(&channel, &from).await.lines(2).await),
        [2, 3]
    );
    // Who asks for the third has got the first two.
    assert_eq!(
        numbers(&server.read(&channel, "").await.lines(2).await),
        [2, 3]
    );
    let all = server.read(&channel, "?from=oldest").await.lines(4).await;
    assert_eq!(all, lines);

    let foreign = server.read(&other, "").await.lines(1).await;
    let mut beyond = eid(&lines[3]).to_owned();
    beyond.replace_range(20.., "zzz");
    for eid in ["", "0", "latest", eid(&foreign[0]), &beyond] {
        let path = format!("/read/{}?from={eid}", channel.consumer);
        let refused = server.get(&path).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code()),
            (400, "BAD_REQUEST"),
            "{eid}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_explicit_read_repeats_all_that_was_not_acknowledged() {
    let mut clock = Clock::hold();
    let server = start(without_expiry()).await;
    let channel = server.create().await;
    write_numbers(&server, &channel, 0..4).await;
    let mut read = server.read(&channel, "?ack=explicit").await;
    let lines = read.lines(4).await;
    let path = format!("/ack/{}/{}", channel.consumer, eid(&lines[1]));
    let acknowledged = server.post(&path, &json!(null)).await;
    assert_eq!(
        (acknowledged.status.as_u16(), acknowledged.body),
        (200, json!({"status": "OK"}))
    );
    clock.pass_until(&server, read.rest()).await;

    let dir = server.stop().await;
    let server = start_in(dir, MegaphoneConfig::default()).await;
    let repeated = server.read(&channel, "?ack=explicit").await.lines(2).await;
    assert_eq!(repeated, lines[2..]);
    // An older one takes nothing back.
    let path = format!("/ack/{}/{}", channel.consumer, eid(&lines[0]));
    assert_eq!(server.post(&path, &json!(null)).await.status, 200);
    assert_eq!(
        numbers(&server.read(&channel, "").await.lines(2).await),
        [2, 3]
    );

    let path = format!("/ack/{}/{}", channel.producer, eid(&lines[0]));
    assert_eq!(server.post(&path, &json!(null)).await.code(), "BAD_REQUEST");
    let path = format!("/ack/{}/nothing", channel.consumer);
    assert_eq!(server.post(&path, &json!(null)).await.code(), "BAD_REQUEST");
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_makes_space_for_writers() {
    let _clock = Clock::hold();
    let config = MegaphoneConfig {
        unread_max: Some(2),
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    let channel = server.create().await;
    write_numbers(&server, &channel, 0..2).await;
    let lines = server.read(&channel, "?ack=explicit").await.lines(2).await;
    let path = format!("/ack/{}/{}", channel.consumer, eid(&lines[1]));
    assert_eq!(server.post(&path, &json!(null)).await.status, 200);
    write_numbers(&server, &channel, 2..4).await;
    assert_eq!(
        numbers(&server.read(&channel, "").await.lines(2).await),
        [2, 3]
    );
}

/// What retention has dropped was counted as unread for ever, and kept writers waiting.
#[tokio::test(start_paused = true)]
async fn messages_that_retention_has_dropped_keep_nobody_waiting() {
    let mut clock = Clock::hold();
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options().segment_bytes_max(16 << 10).open(dir.path());
    let config = MegaphoneConfig {
        unread_max: Some(40),
        write_timeout: Duration::ZERO,
        ..without_expiry()
    };
    let server = start_on(log.unwrap(), dir, config).await;
    let channel = server.create().await;
    let write = async |number: u64| {
        let written = server
            .write(&channel, "s", json!([number, "x".repeat(1000)]))
            .await;
        written.status.as_u16()
    };
    for number in 0..40 {
        assert_eq!(write(number).await, 201);
    }
    let dropped = server.read(&channel, "").await.line().await.unwrap();
    // There is space for none: now they are counted.
    assert_eq!(write(40).await, 503);
    server.log.prune(server.log.sync().unwrap()).unwrap();

    let mut read = server.read(&channel, "").await;
    let number = |line: Option<Value>| line.unwrap()["body"][0].as_u64().unwrap();
    let mut left = vec![number(read.line().await)];
    assert!(
        (1..40).contains(&left[0]),
        "the first that is left is {}",
        left[0]
    );
    while left.last() != Some(&39) {
        left.push(number(read.line().await));
    }
    assert_eq!(left, (left[0]..40).collect::<Vec<_>>());
    clock.pass_until(&server, read.rest()).await;
    for number in 40..80 {
        assert_eq!(write(number).await, 201, "{number}");
    }
    assert_eq!(write(80).await, 503);
    let path = format!("/read/{}?from={}", channel.consumer, eid(&dropped));
    let refused = server.get(&path).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (410, "GONE"));
}

/// Retention drops whole segments, whatever the records in them are about.
#[tokio::test(start_paused = true)]
async fn a_channel_outlives_the_segment_in_which_it_was_created() {
    let mut clock = Clock::hold();
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options()
        .segment_bytes_max(16 << 10)
        .open(dir.path())
        .unwrap();
    let config = || MegaphoneConfig {
        unread_max: None,
        ..without_expiry()
    };
    let server = start_on(log.clone(), dir, config()).await;
    let (quiet, busy) = (server.create().await, server.create().await);
    let channels = || {
        log.replay(Start::Oldest)
            .prefix("__mp/c/")
            .map(Result::unwrap)
    };
    let created = channels().last().unwrap().offset();
    let mut rounds = 0;
    while log.oldest() <= created || channels().count() < 2 {
        rounds += 1;
        assert!(rounds < 50, "their records are gone");
        for _ in 0..40 {
            server.write(&busy, "s", json!("x".repeat(1000))).await;
        }
        // A quarter, as retention would drop it little by little.
        let oldest = log.oldest();
        log.prune(oldest.plus(log.sync().unwrap().since(oldest) / 4))
            .unwrap();
        clock.advance(10).await;
    }
    let dir = server.stop().await;
    let server = start_in(dir, config()).await;
    assert!(server.exists(&quiet).await);
    assert!(server.exists(&busy).await);
}

#[tokio::test(start_paused = true)]
async fn an_admin_ends_a_channel_under_its_reader() {
    let _clock = Clock::hold();
    let server = start(MegaphoneConfig::default()).await;
    let channel = server.create().await;
    write_numbers(&server, &channel, 0..1).await;
    let mut read = server.read(&channel, "").await;
    assert_eq!(numbers(&read.lines(1).await), [0]);
    let path = format!("/channel/{}", channel.consumer);
    assert_eq!(
        server.admin(reqwest::Method::DELETE, &path).await.status,
        200
    );
    assert_eq!(read.rest().await, Vec::<Value>::new());
    assert_eq!(server.try_read(&channel, "").await.response.status(), 404);
    let dir = server.stop().await;
    let server = start_in(dir, MegaphoneConfig::default()).await;
    assert!(!server.exists(&channel).await);
}

#[tokio::test]
async fn an_admin_lists_the_channels_a_part_at_a_time() {
    let server = start(MegaphoneConfig::default()).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(server.create().await.consumer);
    }
    made.sort();
    let mut listed = Vec::new();
    for skip in [0, 2, 4, 6] {
        let path = format!("/channel/list?skip={skip}&limit=2");
        let answer = server.admin(reqwest::Method::GET, &path).await;
        for channel in answer.body["channels"].as_array().unwrap() {
            assert_eq!(channel["agentId"], "megaphone");
            listed.push(channel["address"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(listed.len(), 5);
    listed.sort();
    assert_eq!(listed, made);
    let others = server
        .admin(reqwest::Method::GET, "/channel/list?agents=other")
        .await;
    assert_eq!(others.body, json!({"channels": []}));
}

#[tokio::test]
async fn addresses_of_older_keys_and_of_another_agents_name_stay_valid() {
    let server = start(MegaphoneConfig::default()).await;
    let channel = server.create().await;
    write_numbers(&server, &channel, 0..1).await;
    let dir = server.stop().await;
    let keys = dir.path().join("megaphone.keys");
    let old = std::fs::read_to_string(&keys).unwrap();
    std::fs::write(&keys, format!("{}\n{old}", "ab".repeat(32))).unwrap();
    let config = || MegaphoneConfig {
        agent: "agent-2".to_owned(),
        ..MegaphoneConfig::default()
    };
    let server = start_in(dir, config()).await;
    let newer = server.create().await;
    assert!(newer.consumer.starts_with("agent-2."), "{}", newer.consumer);
    assert_eq!(
        numbers(&server.read(&channel, "").await.lines(1).await),
        [0]
    );
    let listed = server.admin(reqwest::Method::GET, "/channel/list").await;
    let listed = listed.body["channels"].to_string();
    assert!(
        listed.contains(&channel.consumer) && listed.contains(&newer.consumer),
        "{listed}"
    );

    // The old key is taken out.
    let dir = server.stop().await;
    std::fs::write(&keys, "ab".repeat(32)).unwrap();
    let server = start_in(dir, config()).await;
    assert!(!server.exists(&channel).await);
    assert!(server.exists(&newer).await);
}
