//! The rules of the protocol, byte for byte, with a client of our own.

use std::time::Duration;

use dacapo_log::Log;
use dacapo_server::phoenix::{Limits, Phoenix};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::{Client, Server, closed, error, ok, soon};
use crate::rooms::{User, phoenix};

struct World {
    server: Server,
    phoenix: Phoenix<User>,
    told: UnboundedReceiver<String>,
    log: Log,
    _dir: TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let (phoenix, told) = phoenix(&log, limits);
        let server = Server::of(&phoenix).await;
        Self {
            server,
            phoenix,
            told,
            log,
            _dir: dir,
        }
    }

    async fn client(&self) -> Client {
        Client::open(&self.server).await
    }

    async fn told(&mut self) -> String {
        soon(self.told.recv()).await.unwrap()
    }
}

/// Acceptance 12, on the wire: without references, which clients would take for another channel's.
#[tokio::test]
async fn a_broadcast_reaches_all_who_have_joined_whatever_their_references() {
    let world = World::new().await;
    let (mut one, mut other) = (world.client().await, world.client().await);
    assert_eq!(
        one.join("rooms:a", json!({})).await,
        ok(json!({"room": "a", "user": "nobody"}))
    );
    other
        .send(json!(["7", "7", "rooms:a", "phx_join", {}]))
        .await;
    assert_eq!(other.next().await[1], "7");
    one.send(json!(["1", "2", "rooms:a", "new:msg", {"body": "hello"}]))
        .await;
    let expected = r#"[null,null,"rooms:a","new:msg",{"body":"hello"}]"#;
    assert_eq!(one.frame().await.to_text().unwrap(), expected);
    assert_eq!(other.frame().await.to_text().unwrap(), expected);
    let reply = r#"["1","2","rooms:a","phx_reply",{"status":"ok","response":{"count":1}}]"#;
    assert_eq!(one.frame().await.to_text().unwrap(), reply);
}

#[tokio::test]
async fn a_broadcast_to_the_others_does_not_reach_its_sender() {
    let world = World::new().await;
    for topic in ["rooms:a", "kept:a", "safe:a"] {
        let (mut one, mut other) = (world.client().await, world.client().await);
        one.join(topic, json!({})).await;
        other.join(topic, json!({})).await;
        one.send(json!(["1", "2", topic, "quietly", {"n": 1}]))
            .await;
        assert_eq!(
            one.next().await,
            json!(["1", "2", topic, "phx_reply", ok(json!({}))])
        );
        assert_eq!(other.next().await[4]["n"], 1);
        other
            .send(json!(["1", "2", topic, "new:msg", {"n": 2}]))
            .await;
        assert_eq!(one.next().await[4]["n"], 2, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_handler_sends_arrives_in_the_order_in_which_it_was_sent() {
    let world = World::new().await;
    for topic in ["rooms:a", "kept:a", "safe:a"] {
        let (mut one, mut other) = (world.client().await, world.client().await);
        one.join(topic, json!({})).await;
        other.join(topic, json!({})).await;
        for _ in 0..50 {
            one.send(json!(["1", "2", topic, "in order", {}])).await;
            for event in ["first", "second", "third", "fourth", "fifth", "phx_reply"] {
                assert_eq!(one.next().await[3], event, "{topic}");
            }
            for event in ["second", "third", "fourth"] {
                assert_eq!(other.next().await[3], event, "{topic}");
            }
        }
    }
}

/// Acceptance 13.
#[tokio::test]
async fn joins_are_refused_and_topics_unmatched_and_left() {
    let mut world = World::new().await;
    let mut client = world.client().await;
    assert_eq!(
        client.join("rooms:private", json!({})).await,
        error("unauthorized")
    );
    assert_eq!(
        client.join("rooms:bomb", json!({})).await,
        error("join crashed")
    );
    assert_eq!(
        client.join("nowhere", json!({})).await,
        error("unmatched topic")
    );
    client
        .send(json!(["1", "2", "rooms:a", "new:msg", {}]))
        .await;
    assert_eq!(
        client.next().await,
        json!(["1", "2", "rooms:a", "phx_reply", error("unmatched topic")])
    );
    client
        .send(json!(["1", "3", "rooms:a", "phx_leave", {}]))
        .await;
    assert_eq!(
        client.next().await,
        json!(["1", "3", "rooms:a", "phx_reply", ok(json!({}))])
    );
    client.join("rooms:a", json!({})).await;
    client
        .send(json!(["1", "4", "rooms:a", "phx_leave", {}]))
        .await;
    assert_eq!(
        client.next().await,
        json!(["1", "4", "rooms:a", "phx_reply", ok(json!({}))])
    );
    assert_eq!(
        client.next().await,
        json!(["1", "1", "rooms:a", "phx_close", {}])
    );
    assert_eq!(world.told().await, "rooms:a Asked");
    client
        .send(json!(["1", "5", "rooms:a", "new:msg", {}]))
        .await;
    assert_eq!(client.next().await[4], error("unmatched topic"));
}

/// Acceptance 14.
#[tokio::test]
async fn a_second_join_closes_the_first_and_stale_references_are_ignored() {
    let mut world = World::new().await;
    let mut client = world.client().await;
    client.join("rooms:a", json!({})).await;
    client
        .send(json!(["2", "2", "rooms:a", "phx_join", {}]))
        .await;
    assert_eq!(
        client.next().await,
        json!(["1", "1", "rooms:a", "phx_close", {}])
    );
    let joined = client.next().await;
    assert_eq!((&joined[0], &joined[1]), (&json!("2"), &json!("2")));
    assert_eq!(world.told().await, "rooms:a Rejoined");
    client
        .send(json!(["1", "3", "rooms:a", "new:msg", {}]))
        .await;
    client
        .send(json!(["1", "4", "rooms:a", "phx_leave", {}]))
        .await;
    client
        .send(json!([null, "5", "rooms:a", "token", {}]))
        .await;
    let reply = json!(["2", "5", "rooms:a", "phx_reply", ok(json!({"token": null}))]);
    assert_eq!(client.next().await, reply);
}

/// Acceptance 14.
#[tokio::test]
async fn the_101st_join_is_refused_and_leaving_makes_room() {
    let world = World::new().await;
    let mut client = world.client().await;
    for room in 0..100 {
        let reply = client.join(&format!("rooms:{room}"), json!({})).await;
        assert_eq!(reply["status"], "ok");
    }
    assert_eq!(
        client.join("rooms:100", json!({})).await,
        error("too many channels joined")
    );
    // To join again is not to join one more.
    client
        .send(json!(["2", "2", "rooms:7", "phx_join", {}]))
        .await;
    assert_eq!(client.next().await[3], "phx_close");
    assert_eq!(client.next().await[4]["status"], "ok");
    client
        .send(json!(["1", "3", "rooms:8", "phx_leave", {}]))
        .await;
    assert_eq!(client.next().await[3], "phx_reply");
    assert_eq!(client.next().await[3], "phx_close");
    assert_eq!(client.join("rooms:100", json!({})).await["status"], "ok");
}

/// Acceptance 14.
#[tokio::test]
async fn heartbeats_are_answered_and_a_silent_client_is_dropped() {
    let mut limits = Limits::default();
    limits.idle = Duration::from_secs(2);
    let mut world = World::with(limits).await;
    let mut client = world.client().await;
    client
        .send(json!([null, "9", "phoenix", "heartbeat", {}]))
        .await;
    let reply = r#"[null,"9","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
    assert_eq!(client.frame().await.to_text().unwrap(), reply);
    client.join("rooms:a", json!({})).await;
    assert_eq!(client.closed().await, Some(1000));
    assert_eq!(world.told().await, "rooms:a Disconnected");
    assert_eq!(world.told().await, "nobody has gone");
    assert_eq!(world.phoenix.broadcaster().connected_clients(), 0);
}

#[tokio::test]
async fn a_refused_connection_and_an_unknown_version_get_a_403() {
    let world = World::new().await;
    for query in [
        "vsn=3.0.0",
        "vsn=2.0.0&user=mallory",
        "user=mallory",
        "vsn=2.0.0&user=bomb",
        "vsn=",
    ] {
        let refused = Client::try_open(&world.server.websocket(query)).await;
        assert_eq!(refused.err(), Some(403), "{query}");
    }
    assert!(Client::try_open(&world.server.websocket("")).await.is_ok());
}

#[tokio::test]
async fn a_token_among_the_subprotocols_is_passed_on_and_phoenix_is_selected() {
    let world = World::new().await;
    let mut request = world
        .server
        .websocket("vsn=2.0.0")
        .into_client_request()
        .unwrap();
    let offered = "phoenix, base64url.bearer.phx.c2VjcmV0";
    request
        .headers_mut()
        .insert("sec-websocket-protocol", offered.parse().unwrap());
    let (stream, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "phoenix");
    let mut client = Client(stream);
    client.join("rooms:a", json!({})).await;
    client.send(json!(["1", "2", "rooms:a", "token", {}])).await;
    assert_eq!(client.next().await[4], ok(json!({"token": "secret"})));
    // "expired"
    let mut request = world.server.websocket("").into_client_request().unwrap();
    let offered = "phoenix, base64url.bearer.phx.ZXhwaXJlZA";
    request
        .headers_mut()
        .insert("sec-websocket-protocol", offered.parse().unwrap());
    let refused = soon(tokio_tungstenite::connect_async(request)).await;
    assert!(matches!(refused, Err(Error::Http(response)) if response.status() == 403));
}

#[tokio::test]
async fn a_handler_that_fails_ends_its_channel_and_no_other() {
    let mut world = World::new().await;
    let mut client = world.client().await;
    client.join("rooms:a", json!({})).await;
    for event in ["fail", "panic"] {
        client.join("rooms:b", json!({})).await;
        client.send(json!(["1", "2", "rooms:b", event, {}])).await;
        let crash = r#"["1","1","rooms:b","phx_error",{"reason":"channel_crash"}]"#;
        assert_eq!(client.frame().await.to_text().unwrap(), crash);
        assert_eq!(world.told().await, "rooms:b Failed");
    }
    client
        .send(json!(["1", "2", "rooms:a", "new:msg", {}]))
        .await;
    assert_eq!(client.next().await[3], "new:msg");
}

#[tokio::test]
async fn a_handler_closes_its_channel_behind_its_reply() {
    let mut world = World::new().await;
    let mut client = world.client().await;
    client.join("rooms:a", json!({})).await;
    client.send(json!(["1", "2", "rooms:a", "close", {}])).await;
    assert_eq!(client.next().await[3], "phx_reply");
    assert_eq!(
        client.next().await,
        json!(["1", "1", "rooms:a", "phx_close", {}])
    );
    assert_eq!(world.told().await, "rooms:a Closed");
}

/// Acceptance 16.
#[tokio::test]
async fn binary_frames_go_both_ways_byte_for_byte() {
    let world = World::new().await;
    for topic in ["rooms:a", "kept:a"] {
        let mut client = world.client().await;
        client.join(topic, json!({})).await;
        let length = u8::try_from(topic.len()).unwrap();
        let frame = |head: &[u8], names: [&str; 3]| {
            [head, names.concat().as_bytes(), &[0, 1, 255]].concat()
        };
        client
            .send_binary(&frame(&[0, 1, 2, length, 3], ["110", topic, "bin"]))
            .await;
        assert_eq!(
            client.binary().await,
            frame(&[0, 1, length, 3], ["1", topic, "bin"])
        );
        assert_eq!(
            client.binary().await,
            frame(&[2, length, 3], ["", topic, "bin"])
        );
        assert_eq!(
            client.binary().await,
            frame(&[1, 1, 2, length, 2], ["110", topic, "ok"])
        );
    }
}

#[tokio::test]
async fn version_1_speaks_in_objects_and_gets_bytes_in_base64() {
    let world = World::new().await;
    let mut old = Client::try_open(&world.server.websocket("vsn=1.0.0"))
        .await
        .unwrap();
    let mut new = world.client().await;
    new.join("rooms:a", json!({})).await;
    old.send(json!({"topic": "rooms:a", "event": "phx_join", "payload": {}, "ref": "1"}))
        .await;
    let reply = r#"{"topic":"rooms:a","event":"phx_reply","payload":{"status":"ok","response":{"room":"a","user":"nobody"}},"ref":"1"}"#;
    assert_eq!(old.frame().await.to_text().unwrap(), reply);
    old.send(json!({"topic": "rooms:a", "event": "new:msg", "payload": {"n": 1}, "ref": "2"}))
        .await;
    let message = r#"{"topic":"rooms:a","event":"new:msg","payload":{"n":1},"ref":null}"#;
    assert_eq!(old.frame().await.to_text().unwrap(), message);
    assert_eq!(new.next().await[4], json!({"n": 1}));
    assert_eq!(old.next().await["payload"]["status"], "ok");
    new.send_binary(b"\x00\x01\x01\x07\x0312rooms:abin\x01\x02\x03")
        .await;
    assert_eq!(old.next().await["payload"], json!({"binary": "AQID"}));
}

#[tokio::test]
async fn what_is_no_message_closes_the_socket_and_no_other() {
    let world = World::new().await;
    let mut other = world.client().await;
    other.join("rooms:a", json!({})).await;
    for junk in [
        Message::text("junk"),
        Message::text("[]"),
        Message::text(r#"["1","1","rooms:a","phx_join"]"#),
        Message::text(format!(
            r#"["1","1","{}","phx_join",{{}}]"#,
            "x".repeat(256)
        )),
        Message::binary(vec![]),
        Message::binary(vec![0, 255, 0, 0, 0]),
        Message::binary(vec![9, 0, 0, 0, 0]),
    ] {
        let mut client = world.client().await;
        client.0.send(junk.clone()).await.unwrap();
        assert_eq!(client.closed().await, Some(1002), "{junk}");
    }
    for raw in [
        // A text that is not UTF-8, and a frame that is of no kind.
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff][..], 1007),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
    ] {
        let mut client = world.client().await;
        let (bytes, code) = raw;
        let MaybeTlsStream::Plain(stream) = client.0.get_mut() else {
            unreachable!("it is loopback");
        };
        stream.write_all(bytes).await.unwrap();
        assert_eq!(client.closed().await, Some(code), "{bytes:?}");
    }
    other
        .send(json!(["1", "2", "rooms:a", "new:msg", [1]]))
        .await;
    assert_eq!(
        other.next().await[3],
        "phx_error",
        "what is no object is not broadcast"
    );
    other.join("rooms:a", json!("not an object")).await;
    other
        .send(json!(["1", "2", "rooms:a", "new:msg", {}]))
        .await;
    assert_eq!(other.next().await[3], "new:msg");
}

#[tokio::test]
async fn a_message_that_is_larger_than_it_may_be_closes_with_1009() {
    let mut limits = Limits::default();
    limits.message_bytes = 1 << 10;
    let mut world = World::with(limits).await;
    let push = |bytes: usize| json!(["1", "2", "rooms:a", "x", "x".repeat(bytes)]).to_string();
    let overhead = push(0).len();
    let mut client = world.client().await;
    client.join("rooms:a", json!({})).await;
    client.send_text(&push(1024 - overhead)).await;
    assert_eq!(client.next().await[4], error("unknown event"));
    // By one byte, and by more than all buffers of a connection hold.
    for bytes in [1025, 32 << 20] {
        let mut client = world.client().await;
        client.join("rooms:a", json!({})).await;
        // Clients read while they write, or they would not see why they cannot.
        let (mut sink, stream) = client.0.split();
        let large = Message::text(push(bytes - overhead));
        let sending = tokio::spawn(async move { sink.send(large).await });
        assert_eq!(closed(stream).await, Some(1009), "{bytes}");
        let _ = soon(sending).await;
        assert_eq!(world.told().await, "rooms:a Disconnected");
        assert_eq!(world.told().await, "nobody has gone");
    }
}

#[tokio::test]
async fn a_flood_is_answered_in_its_order_and_others_are_heard_meanwhile() {
    const PUSHES: usize = 20_000;
    let mut limits = Limits::default();
    limits.pushes = 4;
    limits.frames = 4;
    let world = World::with(limits).await;
    let mut flooder = world.client().await;
    flooder.join("rooms:a", json!({})).await;
    let (mut sink, mut stream) = flooder.0.split();
    let (begun, mut sent) = watch::channel(0);
    let flooding = tokio::spawn(async move {
        let body = "x".repeat(1000);
        for n in 0..PUSHES {
            let push = json!(["1", n.to_string(), "rooms:a", "token", {"body": body}]);
            sink.send(Message::text(push.to_string())).await.unwrap();
            begun.send_replace(n);
        }
    });
    soon(sent.wait_for(|sent| *sent >= 100)).await.unwrap();
    let mut other = world.client().await;
    other.join("rooms:a", json!({})).await;
    for n in 0..100 {
        other
            .send(json!(["1", "2", "rooms:a", "quietly", {"n": n}]))
            .await;
        assert_eq!(other.next().await[4]["status"], "ok");
    }
    let (mut answered, mut told) = (0, 0);
    while answered < PUSHES || told < 100 {
        let frame = soon(stream.next()).await.unwrap().unwrap();
        let message: Value = serde_json::from_str(frame.to_text().unwrap()).unwrap();
        if message[3] == "new:msg" {
            assert_eq!(message[4]["n"], told);
            told += 1;
        } else {
            assert_eq!(message[1], answered.to_string());
            answered += 1;
        }
    }
    flooding.await.unwrap();
}

#[tokio::test]
async fn who_floods_and_takes_no_answer_is_let_go_and_nobody_else() {
    let mut limits = Limits::default();
    limits.idle = Duration::from_secs(2);
    let mut world = World::with(limits).await;
    let mut flooder = world.client().await;
    let mut other = world.client().await;
    let flooding = tokio::spawn(async move {
        let heartbeat = json!([null, "9".repeat(200), "phoenix", "heartbeat", {}]).to_string();
        let heartbeat = Message::text(heartbeat);
        while flooder.0.feed(heartbeat.clone()).await.is_ok() {}
    });
    let gone = async {
        assert_eq!(world.told().await, "nobody has gone");
    };
    let heard = async {
        loop {
            other
                .send(json!([null, "1", "phoenix", "heartbeat", {}]))
                .await;
            assert_eq!(other.next().await[1], "1");
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = gone => {}
        () = heard => {}
    }
    soon(flooding).await.unwrap();
    assert_eq!(world.phoenix.broadcaster().connected_clients(), 1);
}

/// Acceptance 17.
#[tokio::test]
async fn a_broadcaster_publishes_without_a_connection_and_taps_all_events() {
    let world = World::new().await;
    let broadcaster = world.phoenix.broadcaster();
    let mut events = broadcaster.events();
    let mut client = world.client().await;
    client.join("rooms:a", json!({})).await;
    client.join("kept:a", json!({})).await;
    assert_eq!(
        broadcaster
            .broadcast("rooms:a", "tick", json!({"n": 1}))
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        client.next().await,
        json!([null, null, "rooms:a", "tick", {"n": 1}])
    );
    let offset = broadcaster
        .broadcast("kept:a", "tick", json!({"n": 2}))
        .await
        .unwrap();
    assert_eq!(offset.unwrap().get(), 0);
    assert_eq!(
        client.next().await,
        json!([null, null, "kept:a", "tick", {"n": 2, "offset": 0}])
    );
    client
        .send(json!(["1", "2", "rooms:a", "new:msg", {"n": 3}]))
        .await;
    broadcaster
        .info("rooms:a", "told", json!({"n": 4}))
        .unwrap();
    let mut events_of_rooms = [
        client.next().await,
        client.next().await,
        client.next().await,
    ];
    events_of_rooms.sort_by_key(|event| event[3].to_string());
    assert_eq!(
        events_of_rooms[2],
        json!(["1", null, "rooms:a", "told", {"n": 4}])
    );
    for (topic, event, n, offset) in [
        ("rooms:a", "tick", 1, None),
        ("kept:a", "tick", 2, Some(0)),
        ("rooms:a", "new:msg", 3, None),
    ] {
        let tapped = soon(events.next()).await.unwrap().unwrap();
        assert_eq!((&*tapped.topic, &*tapped.event), (topic, event));
        assert_eq!(tapped.payload.parse::<Value>().unwrap(), json!({"n": n}));
        assert_eq!(tapped.offset.map(dacapo_log::Offset::get), offset);
    }
    assert!(
        broadcaster
            .broadcast("rooms:a", "tick", json!([1]))
            .await
            .is_err()
    );
    assert!(
        broadcaster
            .broadcast(&"x".repeat(256), "tick", json!({}))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn who_has_missed_messages_gets_exactly_those_and_then_live_ones() {
    let world = World::new().await;
    let broadcaster = world.phoenix.broadcaster();
    for (topic, offset, since) in [
        ("kept:a", "offset", "last_seen_id"),
        ("safe:a", "id", "since"),
    ] {
        let first = world.log.next_offset().get();
        for n in 0..100 {
            broadcaster
                .broadcast(topic, "new:msg", json!({"n": n}))
                .await
                .unwrap();
            // Of others there is nothing to be seen.
            broadcaster
                .broadcast("kept:other", "new:msg", json!({}))
                .await
                .unwrap();
        }
        let mut client = world.client().await;
        // The 40th.
        let seen = first + 2 * 39;
        assert_eq!(
            client.join(topic, json!({since: seen})).await["status"],
            "ok"
        );
        for n in 100..110 {
            broadcaster
                .broadcast(topic, "new:msg", json!({"n": n}))
                .await
                .unwrap();
        }
        for n in 40..110 {
            let message = client.next().await;
            assert_eq!(message[4]["n"], n, "{topic}");
            assert!(message[4][offset].as_u64().unwrap() > seen);
        }
        let mut live = world.client().await;
        live.join(topic, json!({})).await;
        client
            .send(json!(["1", "2", topic, "new:msg", {"n": 110}]))
            .await;
        assert_eq!(live.next().await[4]["n"], 110);
    }
}

#[tokio::test]
async fn joins_while_others_publish_see_neither_a_gap_nor_a_double() {
    let world = World::new().await;
    let broadcaster = world.phoenix.broadcaster();
    let publishing = tokio::spawn(async move {
        for n in 0..2_000 {
            broadcaster
                .broadcast("kept:a", "new:msg", json!({"n": n}))
                .await
                .unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut seen: Option<u64> = None;
    let mut expected = 0;
    while expected < 2_000 {
        let mut client = world.client().await;
        client
            .join(
                "kept:a",
                json!({"last_seen_id": seen.map_or(json!(-1), |seen| json!(seen))}),
            )
            .await;
        for _ in 0..100.min(2_000 - expected) {
            let message = client.next().await;
            assert_eq!(message[4]["n"], expected);
            seen = message[4]["offset"].as_u64();
            expected += 1;
        }
    }
    publishing.await.unwrap();
}

#[tokio::test]
async fn what_is_no_longer_there_is_said_in_the_reply() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options()
        .segment_bytes_max(16 << 10)
        .open(dir.path())
        .unwrap();
    let (phoenix, _told) = phoenix(&log, Limits::default());
    let server = Server::of(&phoenix).await;
    let broadcaster = phoenix.broadcaster();
    for n in 0..100 {
        let body = "x".repeat(1000);
        broadcaster
            .broadcast("kept:a", "new:msg", json!({"n": n, "body": body}))
            .await
            .unwrap();
    }
    let next = log.sync().unwrap();
    let oldest = log.prune(next).unwrap().oldest.get();
    assert!(oldest > 10);
    let mut client = Client::open(&server).await;
    let gap = json!({"reason": "pruned", "requested": 6, "resume_at": oldest});
    let expected = ok(json!({"room": "a", "user": "nobody", "gap": gap}));
    assert_eq!(
        client.join("kept:a", json!({"last_seen_id": 5})).await,
        expected
    );
    for n in oldest..100 {
        assert_eq!(client.next().await[4]["n"], n);
    }
    let mut client = Client::open(&server).await;
    let gap = json!({"reason": "beyond_end", "requested": 501, "resume_at": 100});
    let reply = client.join("kept:a", json!({"last_seen_id": "500"})).await;
    assert_eq!(reply["response"]["gap"], gap);
    broadcaster
        .broadcast("kept:a", "new:msg", json!({"n": 100}))
        .await
        .unwrap();
    assert_eq!(client.next().await[4]["n"], 100);
    let mut client = Client::open(&server).await;
    let reply = client.join("kept:a", json!({"last_seen_id": "junk"})).await;
    assert_eq!(reply, error("last_seen_id is no offset"));
}

#[tokio::test]
async fn a_slow_client_is_sent_away_from_memory_and_waited_for_by_the_log() {
    let mut limits = Limits::default();
    limits.frames = 4;
    limits.broadcasts = 16;
    let mut world = World::with(limits).await;
    let broadcaster = world.phoenix.broadcaster();
    let mut client = world.client().await;
    client.join("rooms:a", json!({})).await;
    client.join("kept:a", json!({})).await;
    // More than all buffers of a connection hold.
    let body = "x".repeat(1 << 18);
    for _ in 0..100 {
        broadcaster
            .broadcast("rooms:a", "new:msg", json!({"body": body}))
            .await
            .unwrap();
    }
    for n in 0..100 {
        broadcaster
            .broadcast("kept:a", "new:msg", json!({"n": n, "body": body}))
            .await
            .unwrap();
    }
    let (mut kept, mut told) = (0, false);
    while kept < 100 || !told {
        let message = client.next().await;
        match message[2].as_str().unwrap() {
            "kept:a" => {
                assert_eq!(message[4]["n"], kept);
                kept += 1;
            }
            _ => told |= message[3] == "phx_error" && message[4]["reason"] == "too_slow",
        }
    }
    assert_eq!(world.told().await, "rooms:a Failed");
}

#[tokio::test]
async fn the_server_disconnects_one_client_and_drains_all() {
    let world = World::new().await;
    let mut one = world.client().await;
    one.join("rooms:a", json!({})).await;
    let mut other = Client::try_open(&world.server.websocket("vsn=2.0.0&user=u"))
        .await
        .unwrap();
    other.join("rooms:a", json!({})).await;
    world.phoenix.disconnect(|user| user.name() == "u");
    assert_eq!(other.closed().await, Some(1001));
    one.send(json!(["1", "2", "rooms:a", "new:msg", {}])).await;
    assert_eq!(one.next().await[3], "new:msg");
    let (code, ()) = tokio::join!(one.closed(), soon(world.phoenix.drain()));
    assert_eq!(code, Some(1012));
    let refused = Client::try_open(&world.server.websocket("vsn=2.0.0")).await;
    assert_eq!(refused.err(), Some(403));
}
