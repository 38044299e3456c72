//! What a request gets that cannot be served: the status of the documentation, and a body that says why.

use std::time::Duration;

use axum::http::StatusCode;
use dacapo_server::megaphone::{self, MegaphoneConfig, MegaphoneError, Statuses, Webhook};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::server::{Clock, start};

#[tokio::test]
async fn malformed_and_foreign_addresses_are_told_from_good_ones() {
    let server = start(MegaphoneConfig::default()).await;
    let other = start(MegaphoneConfig::default()).await;
    let (channel, foreign) = (server.create().await, other.create().await);
    let turned = channel.producer.replacen(".p.", ".c.", 1);
    let cut = &channel.consumer[..channel.consumer.len() - 1];
    for (address, status, code) in [
        (turned.as_str(), 404, "NOT_FOUND"),
        (&foreign.consumer, 404, "NOT_FOUND"),
        (&channel.producer, 400, "BAD_REQUEST"),
        (cut, 400, "BAD_REQUEST"),
        ("nonsense", 400, "BAD_REQUEST"),
        ("%FF", 400, "BAD_REQUEST"),
        ("a.b.c", 400, "BAD_REQUEST"),
    ] {
        let answer = server.get(&format!("/read/{address}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{address}"
        );
    }
    let writes = [
        (foreign.producer.as_str(), 404, "NOT_FOUND"),
        (&channel.consumer, 403, "FORBIDDEN"),
        ("nonsense", 400, "BAD_REQUEST"),
    ];
    for (address, status, code) in writes {
        let answer = server.post(&format!("/write/{address}/s"), &json!(1)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{address}"
        );
    }
    let asked =
        json!({"channels": [channel.producer, channel.consumer, foreign.producer, "x", ""]});
    let expected = json!({"channels": {
        channel.producer.clone(): true,
        channel.consumer.clone(): true,
        foreign.producer.clone(): false,
        "x": false,
        "": false,
    }});
    assert_eq!(server.post("/channelsExists", &asked).await.body, expected);
}

#[tokio::test]
async fn consumers_write_where_that_is_allowed() {
    let config = MegaphoneConfig {
        consumer_writes: true,
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    let channel = server.create().await;
    let path = format!("/write/{}/s", channel.consumer);
    assert_eq!(server.post(&path, &json!("mine")).await.status, 201);
    assert_eq!(
        server.read(&channel, "").await.bodies(1).await,
        [json!("mine")]
    );
    assert_eq!(server.metric("megaphone_consumer_address_writes").await, 1);
}

#[tokio::test]
async fn bodies_that_are_none_or_too_large_are_refused() {
    let config = MegaphoneConfig {
        body_bytes_max: 100,
        stream_id_bytes_max: 8,
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    let channel = server.create().await;
    let path = format!("/write/{}/s", channel.producer);
    let send = |path: &str, kind: Option<&str>, body: String| {
        let request = server.client.post(server.url(path)).body(body);
        let request = match kind {
            Some(kind) => request.header("content-type", kind),
            None => request,
        };
        async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
            (status, body["code"].as_str().map(str::to_owned))
        }
    };
    let refused = |status: u16, code: &str| (status, Some(code.to_owned()));
    let json = Some("application/json");
    let large = format!("\"{}\"", "x".repeat(100));
    assert_eq!(
        send(&path, json, large).await,
        refused(413, "PAYLOAD_TOO_LARGE")
    );
    let fits = format!("\"{}\"", "x".repeat(98));
    assert_eq!(send(&path, json, fits).await, (201, None));
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let sent = send(&path, kind, "1".to_owned()).await;
        assert_eq!(sent, refused(415, "UNSUPPORTED_MEDIA_TYPE"), "{kind:?}");
    }
    for body in ["", "{", "1 2", "nonsense", "\"\u{1}\"", "{\"a\":1}}"] {
        assert_eq!(
            send(&path, json, body.to_owned()).await,
            refused(400, "BAD_REQUEST"),
            "{body}"
        );
    }
    let long = format!("/write/{}/123456789", channel.producer);
    assert_eq!(
        send(&long, json, "1".to_owned()).await,
        refused(400, "BAD_REQUEST")
    );
    for (path, body) in [
        ("/write-batch", "{}"),
        (
            "/write-batch",
            "{\"channels\":[],\"messages\":[{\"streamId\":\"s\"}]}",
        ),
        (
            "/write-batch",
            "{\"channels\":[],\"messages\":[{\"streamId\":\"\",\"body\":1}]}",
        ),
        ("/channelsExists", "[]"),
        ("/channelsExists", "{\"channels\":[1]}"),
        ("/create", "{\"protocols\":1}"),
        ("/create", "nonsense"),
    ] {
        assert_eq!(
            send(path, json, body.to_owned()).await,
            refused(400, "BAD_REQUEST"),
            "{body}"
        );
    }
    assert_eq!(send("/create", None, String::new()).await.0, 200);
}

#[tokio::test]
async fn a_channel_of_an_unknown_protocol_is_not_created() {
    let server = start(MegaphoneConfig::default()).await;
    let answer = server
        .post("/create", &json!({"protocols": ["CARRIER_PIGEON_V1"]}))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (400, "UNSUPPORTED_PROTOCOL")
    );
    assert_eq!(server.metric("megaphone_channel_created").await, 0);
}

#[tokio::test]
async fn requests_that_name_too_many_channels_are_refused_whole() {
    let config = MegaphoneConfig {
        request_channels_max: 2,
        batch_writes_max: 3,
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    let (one, other) = (server.create().await, server.create().await);
    let three = json!({"channels": ["a", "b", "c"], "messages": []});
    assert_eq!(
        server.post("/channelsExists", &three).await.code(),
        "BAD_REQUEST"
    );
    assert_eq!(
        server.post("/write-batch", &three).await.code(),
        "BAD_REQUEST"
    );
    let message = json!({"streamId": "s", "body": 1});
    let four = json!({"channels": [one.producer, other.producer], "messages": [message, message]});
    assert_eq!(
        server.post("/write-batch", &four).await.code(),
        "BAD_REQUEST"
    );
    assert_eq!(server.metric("megaphone_messages_received").await, 0);
    // A channel that is named twice is one.
    let twice = json!({"channels": [one.producer, one.producer], "messages": [message]});
    assert_eq!(
        server.post("/write-batch", &twice).await.body,
        json!({"failures": []})
    );
    assert_eq!(server.metric("megaphone_messages_received").await, 1);
}

#[tokio::test(start_paused = true)]
async fn creates_are_limited_in_rate_and_in_number() {
    let mut clock = Clock::hold();
    let config = MegaphoneConfig {
        creates_per_second: Some(2),
        channels_max: 3,
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    server.create().await;
    server.create().await;
    let refused = server.post("/create", &json!({})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (429, "TOO_MANY_REQUESTS")
    );
    clock.advance(1).await;
    server.create().await;
    let refused = server.post("/create", &json!({})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (503, "TOO_MANY_CHANNELS")
    );
}

#[tokio::test]
async fn only_an_admin_lists_and_deletes() {
    let server = start(MegaphoneConfig::default()).await;
    let channel = server.create().await;
    let answer = server.get("/channel/list").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (401, "UNAUTHORIZED")
    );
    let url = server.url(&format!("/channel/{}", channel.consumer));
    let request = server.client.delete(url).bearer_auth("another text");
    assert_eq!(request.send().await.unwrap().status(), 401);
    assert!(server.exists(&channel).await);
    for query in ["skip=-1", "limit=many"] {
        let answer = server
            .admin(Method::GET, &format!("/channel/list?{query}"))
            .await;
        assert_eq!(answer.code(), "BAD_REQUEST", "{query}");
    }
    let answer = server.admin(Method::DELETE, "/channel/nonsense").await;
    assert_eq!(answer.code(), "BAD_REQUEST");
}

#[tokio::test]
async fn statuses_are_those_of_the_configuration() {
    let config = MegaphoneConfig {
        statuses: Statuses {
            not_found: StatusCode::GONE,
            bad_request: StatusCode::UNPROCESSABLE_ENTITY,
            ..Statuses::default()
        },
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    let foreign = start(MegaphoneConfig::default()).await.create().await;
    let answer = server.get(&format!("/read/{}", foreign.consumer)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (410, "NOT_FOUND"));
    let answer = server.get("/read/nonsense").await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (422, "BAD_REQUEST")
    );
}

/// A consumer that never takes anything from its socket: the server cannot even end its read.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_reads_nothing_stops_its_writers_and_loses_its_place_but_no_message() {
    const WRITES_MAX: u32 = 2000; // of 64 KiB: far more than sockets hold
    let mut clock = Clock::hold();
    let config = MegaphoneConfig {
        write_timeout: Duration::ZERO,
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    let channel = server.create().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /read/{} HTTP/1.1\r\nhost: here\r\n\r\n",
        channel.consumer
    );
    idle.write_all(request.as_bytes()).await.unwrap();
    let text = "x".repeat(64 << 10);
    let (mut accepted, mut refused_in_turn) = (0, 0);
    while refused_in_turn < 10 {
        let written = server.write(&channel, "s", json!([accepted, text])).await;
        if written.status == 201 {
            accepted += 1;
            refused_in_turn = 0;
        } else {
            refused_in_turn += 1;
        }
        assert!(accepted < WRITES_MAX, "nothing stops the writer");
    }
    assert_eq!(server.try_read(&channel, "").await.response.status(), 409);
    clock.advance(20).await;
    let mut read = server.try_read(&channel, "").await;
    assert_eq!(read.response.status(), 200);
    for number in 0..accepted {
        let line = read.line().await.unwrap();
        assert_eq!(line["body"][0], number);
    }
    drop(idle);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_served_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = dacapo_log::Log::open(dir.path()).unwrap();
    for agent in ["", "a.b", "a/b", "ä", &"a".repeat(65)] {
        let config = MegaphoneConfig {
            agent: agent.to_owned(),
            ..MegaphoneConfig::default()
        };
        let refused = megaphone::router(log.clone(), config).unwrap_err();
        assert!(matches!(refused, MegaphoneError::Agent { .. }), "{refused}");
    }
    for url in ["http://127.0.0.1:1/", "http://[::1]/", "nonsense"] {
        let config = MegaphoneConfig {
            webhooks: vec![Webhook::new(url)],
            ..MegaphoneConfig::default()
        };
        let refused = megaphone::router(log.clone(), config).unwrap_err();
        assert!(matches!(refused, MegaphoneError::Webhook(_)), "{refused}");
    }
}
