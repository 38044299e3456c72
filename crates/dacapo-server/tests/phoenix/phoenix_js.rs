//! What users of phoenix.js see, over every transport and version.

use std::time::Duration;

use dacapo_log::Log;
use dacapo_server::phoenix::Limits;
use serde_json::json;

use crate::client::Server;
use crate::npm::{Node, Way, ways};
use crate::rooms::phoenix;

/// Runs a story over each way that clients have.
async fn over_each_way(story: impl AsyncFn(Way, &mut Node)) {
    for way in ways() {
        let dir = tempfile::tempdir().unwrap();
        let mut limits = Limits::default();
        limits.poll = Duration::from_secs(2);
        let (phoenix, _told) = phoenix(&Log::open(dir.path()).unwrap(), limits);
        let server = Server::of(&phoenix).await;
        let Some(mut node) = Node::start(way.package, server.address) else {
            return;
        };
        story(way, &mut node).await;
    }
}

/// Acceptance 12 and 16.
#[tokio::test]
async fn two_clients_get_a_rebroadcast_and_the_sender_too() {
    over_each_way(async |way, node| {
        node.connect("s1", way, json!({})).await;
        node.connect("s2", way, json!({})).await;
        // Other references than the first client's.
        node.join("s2", "x", "rooms:x", json!({})).await;
        node.sees("x", "join ok").await;
        for topic in ["rooms:a", "kept:a"] {
            node.join("s1", "one", topic, json!({})).await;
            node.sees("one", "join ok").await;
            node.join("s2", "two", topic, json!({})).await;
            assert_eq!(node.sees("two", "join ok").await["room"], "a");
            node.push("one", "new:msg", json!({"body": "hello"})).await;
            let mut seen = [node.next().await, node.next().await, node.next().await];
            seen.sort_by_key(|told| told["of"].to_string() + &told["event"].to_string());
            let [message, reply, other] = &seen;
            assert_eq!(
                (&message["of"], &message["event"]),
                (&json!("one"), &json!("new:msg"))
            );
            assert_eq!(
                (&reply["of"], &reply["event"]),
                (&json!("one"), &json!("push ok"))
            );
            assert_eq!(
                (&other["of"], &other["event"]),
                (&json!("two"), &json!("new:msg"))
            );
            assert_eq!(other["payload"]["body"], "hello", "{way:?}");
        }
    })
    .await;
}

/// Acceptance 13 and 16.
#[tokio::test]
async fn a_refusal_is_received_and_a_leave_closes() {
    over_each_way(async |way, node| {
        node.connect(
            "s",
            way,
            json!({"rejoinAfterMs": null, "params": {"user": "u"}}),
        )
        .await;
        node.join("s", "refused", "rooms:private", json!({})).await;
        assert_eq!(
            node.sees("refused", "join error").await,
            json!({"reason": "unauthorized"})
        );
        node.tell(json!({"do": "leave", "channel": "refused"}))
            .await;
        let mut rest = Vec::new();
        loop {
            let told = node.next().await;
            if told["event"] == "left" {
                break;
            }
            rest.push(told["event"].clone());
        }
        node.join("s", "a", "rooms:a", json!({})).await;
        while node.next().await
            != json!({"of": "a", "event": "join ok", "payload": {"room": "a", "user": "u"}})
        {
        }
        node.push("a", "no such", json!({})).await;
        assert_eq!(
            node.sees("a", "push error").await,
            json!({"reason": "unknown event"})
        );
        node.tell(json!({"do": "leave", "channel": "a"})).await;
        let (one, other) = (node.next().await, node.next().await);
        let events = [&one["event"], &other["event"]];
        assert!(
            events.contains(&&json!("left")) && events.contains(&&json!("phx_close")),
            "{events:?}"
        );
    })
    .await;
}

/// Acceptance 14.
#[tokio::test]
async fn a_channel_that_crashes_is_joined_again_by_itself() {
    over_each_way(async |way, node| {
        node.connect("s", way, json!({})).await;
        node.join("s", "a", "rooms:a", json!({})).await;
        node.sees("a", "join ok").await;
        node.push("a", "fail", json!({})).await;
        let crash = node.sees("a", "phx_error").await;
        assert_eq!(crash, json!({"reason": "channel_crash"}));
        node.sees("a", "join ok").await;
        node.push("a", "new:msg", json!({"n": 1})).await;
        assert_eq!(node.sees("a", "new:msg").await, json!({"n": 1}));
    })
    .await;
}

/// Acceptance 16.
#[tokio::test]
async fn bytes_are_pushed_answered_and_broadcast() {
    over_each_way(async |way, node| {
        if way.vsn == "1.0.0" {
            // It has no bytes.
            return;
        }
        node.connect("s", way, json!({})).await;
        node.join("s", "a", "rooms:a", json!({})).await;
        node.sees("a", "join ok").await;
        node.push("a", "bin", json!({"bytes": [0, 1, 255]})).await;
        let expected = match way.transport {
            "websocket" => json!({"bytes": [0, 1, 255]}),
            _ => json!({"binary": "AAH/"}),
        };
        assert_eq!(node.sees("a", "bin").await, expected);
        assert_eq!(node.sees("a", "bin").await, expected);
        assert_eq!(node.sees("a", "push ok").await, expected);
    })
    .await;
}

#[tokio::test]
async fn many_pushes_are_broadcast_in_their_order() {
    over_each_way(async |way, node| {
        node.connect("s", way, json!({})).await;
        node.join("s", "a", "kept:a", json!({})).await;
        node.sees("a", "join ok").await;
        node.tell(json!({"do": "push", "channel": "a", "event": "new:msg", "times": 500}))
            .await;
        for n in 0..500 {
            assert_eq!(node.sees("a", "new:msg").await["n"], n, "{way:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_token_of_a_client_arrives() {
    over_each_way(async |way, node| {
        if way.package == "phoenix17" {
            // It has none.
            return;
        }
        node.connect("s", way, json!({"authToken": "s3cret?>"}))
            .await;
        node.join("s", "a", "rooms:a", json!({})).await;
        node.sees("a", "join ok").await;
        node.push("a", "token", json!({})).await;
        assert_eq!(
            node.sees("a", "push ok").await,
            json!({"token": "s3cret?>"}),
            "{way:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn presence_knows_users_and_their_tabs_until_they_die_without_a_word() {
    over_each_way(async |way, node| {
        let lobby = |socket: &str, channel: &str| {
            json!({"do": "join", "socket": socket, "channel": channel, "topic": "lobby", "presence": true})
        };
        for (socket, user) in [("s1", "ann"), ("s2", "bob"), ("s3", "bob")] {
            let options = json!({"params": {"user": user}});
            node.tell(json!({"do": "connect", "socket": socket, "transport": way.transport, "vsn": way.vsn, "options": options})).await;
        }
        node.tell(lobby("s1", "one")).await;
        node.until("one", "present", &json!([["ann", 1, null]])).await;
        node.tell(lobby("s2", "two")).await;
        node.until("one", "present", &json!([["ann", 1, null], ["bob", 1, null]])).await;
        node.tell(lobby("s3", "three")).await;
        node.until("one", "present", &json!([["ann", 1, null], ["bob", 2, null]])).await;
        node.push("one", "mood", json!({"mood": "fine"})).await;
        node.until("one", "present", &json!([["ann", 1, "fine"], ["bob", 2, null]])).await;
        node.tell(json!({"do": "leave", "channel": "two"})).await;
        node.until("one", "present", &json!([["ann", 1, "fine"], ["bob", 1, null]])).await;
        if way.transport == "websocket" {
            node.tell(json!({"do": "vanish", "socket": "s3"})).await;
            node.until("one", "present", &json!([["ann", 1, "fine"]])).await;
        }
    })
    .await;
}
