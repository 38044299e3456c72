//! What a user of Megaphone would see.

use std::future::IntoFuture;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dacapo_server::megaphone::{MegaphoneConfig, Webhook};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::server::{Clock, start, start_in, without_expiry};

/// Acceptance 18.
#[tokio::test(start_paused = true)]
async fn what_is_written_is_read_and_the_next_read_goes_on_behind_the_end_of_the_last_one() {
    let mut clock = Clock::hold();
    let server = start(without_expiry()).await;
    let asked = json!({"protocols": ["SOMETHING_NEWER", "HTTP_STREAM_NDJSON_V1"]});
    let created = server.post("/create", &asked).await;
    assert_eq!(created.status, 200);
    assert_eq!(created.body["channelId"], created.body["consumerAddress"]);
    assert_eq!(created.body["agentName"], "megaphone");
    assert_eq!(created.body["protocols"], json!(["HTTP_STREAM_NDJSON_V1"]));
    let channel = server.create().await;

    let written = server
        .write(&channel, "room", json!({"hello": [1, "two"]}))
        .await;
    assert_eq!(
        (written.status.as_u16(), written.body),
        (201, json!({"status": "OK"}))
    );

    let mut read = server.read(&channel, "").await;
    assert_eq!(
        read.response.headers()["content-type"],
        "application/x-ndjson"
    );
    let line = read.line().await.unwrap();
    assert_eq!(
        (&line["sid"], &line["body"]),
        (&json!("room"), &json!({"hello": [1, "two"]}))
    );
    let eid = line["eid"].as_str().unwrap();
    assert_eq!(
        (
            eid.len(),
            eid.bytes().all(|byte| byte.is_ascii_alphanumeric())
        ),
        (23, true)
    );
    let ts: jiff::Timestamp = line["ts"].as_str().unwrap().parse().unwrap();
    assert!(ts.as_second() > 1_700_000_000, "{ts}");
    assert_eq!(line.as_object().unwrap().len(), 4);

    let (rest, seconds) = clock.pass_until(&server, read.rest()).await;
    assert_eq!(rest, Vec::<Value>::new());
    assert!(seconds >= 20, "it ended after {seconds} s");

    server
        .write(&channel, "room", json!("between two reads"))
        .await;
    let mut next = server.read(&channel, "").await;
    assert_eq!(next.bodies(1).await, [json!("between two reads")]);
}

#[tokio::test(start_paused = true)]
async fn a_read_ends_on_time_also_where_messages_keep_coming() {
    let mut clock = Clock::hold();
    let server = start(without_expiry()).await;
    let channel = server.create().await;
    let read = server.read(&channel, "").await;
    let reading = tokio::spawn(read.rest());
    let mut written = 0;
    while !reading.is_finished() {
        assert_eq!(
            server.write(&channel, "s", json!(written)).await.status,
            201
        );
        written += 1;
        clock.advance(1).await;
    }
    let got = reading.await.unwrap();
    assert!(got.len() >= 10, "{got:?}");
    // What it had not got comes with the next read.
    let mut bodies: Vec<Value> = got.into_iter().map(|line| line["body"].clone()).collect();
    let left = written - bodies.len();
    bodies.extend(server.read(&channel, "").await.bodies(left).await);
    assert_eq!(bodies, (0..written).map(|n| json!(n)).collect::<Vec<_>>());
}

/// Acceptance 19.
#[tokio::test(start_paused = true)]
async fn a_hundred_unread_messages_pass_and_the_next_one_waits_ten_seconds() {
    let mut clock = Clock::hold();
    let server = start(without_expiry()).await;
    let channel = server.create().await;
    for number in 0..100 {
        assert_eq!(server.write(&channel, "s", json!(number)).await.status, 201);
    }

    let url = server.url(&format!("/write/{}/s", channel.producer));
    let write = |body: &'static str| {
        let request = server
            .client
            .post(&url)
            .header("content-type", "application/json");
        let request = request.body(body);
        async move { request.send().await.unwrap() }
    };
    let (refused, seconds) = clock.pass_until(&server, write("\"refused\"")).await;
    assert_eq!(refused.status(), 503);
    let refused: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(refused["code"], "TIMEOUT");
    assert!(seconds >= 10, "it waited {seconds} s");

    // Released early by a reader: here the clock stands still.
    let waiting = tokio::spawn(write("\"released\""));
    let mut read = server.read(&channel, "").await;
    assert_eq!(waiting.await.unwrap().status(), 201);
    let bodies = read.bodies(101).await;
    assert_eq!(
        bodies[..100],
        (0..100).map(|n| json!(n)).collect::<Vec<_>>()
    );
    assert_eq!(bodies[100], "released");

    let second = server.try_read(&channel, "").await.response;
    assert_eq!(second.status(), 409);
    let second: Value = serde_json::from_str(&second.text().await.unwrap()).unwrap();
    assert_eq!(second["code"], "BUSY");
}

/// Acceptance 19, of batches.
#[tokio::test(start_paused = true)]
async fn a_batch_lists_what_has_failed_and_skips_the_rest_behind_a_timeout() {
    let mut clock = Clock::hold();
    let config = MegaphoneConfig {
        unread_max: Some(2),
        ..without_expiry()
    };
    let server = start(config).await;
    let (free, full, gone) = (
        server.create().await,
        server.create().await,
        server.create().await,
    );
    let path = format!("/channel/{}", gone.consumer);
    assert_eq!(
        server.admin(reqwest::Method::DELETE, &path).await.status,
        200
    );
    assert_eq!(server.write(&full, "s", json!("earlier")).await.status, 201);

    let message = |n: u64| json!({"streamId": format!("s{}", n % 2), "body": n});
    let batch = json!({
        "channelIds": [free.producer, full.producer, gone.producer, free.consumer, "nonsense"],
        "messages": [message(0), message(1)],
    });
    let three = json!({
        "channels": [full.producer],
        "messages": [message(0), message(1), message(2)],
    });
    let request = |batch: &Value| {
        let request = server
            .client
            .post(server.url("/write-batch"))
            .body(batch.to_string());
        let request = request.header("content-type", "application/json");
        async move {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 201);
            serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap()
        }
    };
    let (answer, seconds) = clock.pass_until(&server, request(&batch)).await;
    assert!(seconds >= 10, "it waited {seconds} s");
    let reasons = |answer: &Value, channel: &str| {
        let failures = answer["failures"].as_array().unwrap().iter();
        let mine = failures.filter(|failure| failure["channel"] == channel);
        let mine = mine.map(|failure| {
            let reason = failure["reason"].as_str().unwrap().to_owned();
            (failure["index"].as_u64().unwrap(), reason)
        });
        mine.collect::<Vec<_>>()
    };
    let all = |reason: &str| vec![(0, reason.to_owned()), (1, reason.to_owned())];
    assert_eq!(reasons(&answer, &free.producer), []);
    assert_eq!(
        reasons(&answer, &full.producer),
        [(1, "TIMEOUT".to_owned())]
    );
    assert_eq!(reasons(&answer, &gone.producer), all("NOT_FOUND"));
    assert_eq!(reasons(&answer, &free.consumer), all("FORBIDDEN"));
    assert_eq!(reasons(&answer, "nonsense"), all("BAD_REQUEST"));
    assert_eq!(
        server.read(&free, "").await.bodies(2).await,
        [json!(0), json!(1)]
    );

    let (answer, _) = clock.pass_until(&server, request(&three)).await;
    let expected = [(0, "TIMEOUT"), (1, "SKIPPED"), (2, "SKIPPED")];
    let expected = expected.map(|(index, reason)| (index, reason.to_owned()));
    assert_eq!(reasons(&answer, &full.producer), expected);
    assert_eq!(server.metric("megaphone_messages_unroutable").await, 2);
    assert_eq!(server.metric("megaphone_consumer_address_writes").await, 2);
}

/// Where the log may grow, nobody waits for a reader.
#[tokio::test(start_paused = true)]
async fn writers_of_a_channel_without_a_limit_never_wait() {
    let _clock = Clock::hold();
    let config = MegaphoneConfig {
        unread_max: None,
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    let channel = server.create().await;
    let messages: Vec<Value> = (0..150)
        .map(|n| json!({"streamId": "s", "body": n}))
        .collect();
    let batch = json!({"channels": [channel.producer], "messages": messages});
    let answer = server.post("/write-batch", &batch).await;
    assert_eq!(answer.body, json!({"failures": []}));
    let bodies = server.read(&channel, "").await.bodies(150).await;
    assert_eq!(bodies, (0..150).map(|n| json!(n)).collect::<Vec<_>>());
}

/// Acceptance 20.
#[tokio::test(start_paused = true)]
async fn a_channel_that_nobody_reads_for_a_minute_goes_and_the_webhook_is_told() {
    let mut clock = Clock::hold();
    let mut hook = Hook::start([500, 200]).await;
    let config = MegaphoneConfig {
        webhooks: vec![Webhook {
            secret: Some(b"between us".to_vec()),
            allow_private: true,
            ..Webhook::new(hook.url.clone())
        }],
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    let (idle, read) = (server.create().await, server.create().await);
    server.write(&idle, "s", json!("never read")).await;
    let mut seconds = 0;
    let mut reading = server.read(&read, "").await;
    while server.exists(&idle).await {
        // Always being read, or read a moment ago.
        if seconds % 20 == 15 {
            let read_on = tokio::spawn(reading.rest());
            clock.advance(5).await;
            read_on.await.unwrap();
            reading = server.read(&read, "").await;
        } else {
            clock.advance(5).await;
        }
        seconds += 5;
    }
    assert!(seconds >= 60, "it went after {seconds} s");
    assert!(server.exists(&read).await);
    assert_eq!(server.write(&idle, "s", json!(1)).await.code(), "NOT_FOUND");
    assert_eq!(server.try_read(&idle, "").await.response.status(), 404);

    let first = hook.calls.recv().await.unwrap();
    assert_eq!(server.metric("megaphone_channel_created").await, 2);
    assert_eq!(server.metric("megaphone_channel_disposed").await, 1);
    let duration = server.metric("megaphone_channel_duration_count").await;
    assert_eq!(duration, 1);
    assert_eq!(server.metric("megaphone_messages_lost").await, 1);
    assert_eq!(server.metric("megaphone_messages_received").await, 1);

    // It has answered that it could not: it is told again, after a while.
    let again = async move { hook.calls.recv().await.unwrap() };
    let (second, _) = clock.pass_until(&server, again).await;
    for call in [&first, &second] {
        let told = json!({"channels": [idle.consumer]}).to_string();
        assert_eq!(call.body, told);
        assert_eq!(call.signature, call.signed_with(b"between us"));
    }
    assert_eq!(first.id, second.id);
}

/// A webhook that is down, and a server that is stopped before it comes up again.
#[tokio::test(start_paused = true)]
async fn what_a_webhook_has_not_heard_is_told_after_a_restart_and_once() {
    let mut clock = Clock::hold();
    let mut hook = Hook::start([503]).await;
    let config = || MegaphoneConfig {
        webhooks: vec![Webhook {
            allow_private: true,
            ..Webhook::new(hook.url.clone())
        }],
        ..MegaphoneConfig::default()
    };
    let server = start(config()).await;
    let channel = server.create().await;
    let path = format!("/channel/{}", channel.producer);
    assert_eq!(
        server.admin(reqwest::Method::DELETE, &path).await.status,
        200
    );
    assert_eq!(
        server.admin(reqwest::Method::DELETE, &path).await.code(),
        "NOT_FOUND"
    );
    let refused = hook.calls.recv().await.unwrap();

    let dir = server.stop().await;
    let server = start_in(dir, config()).await;
    let heard = hook.calls.recv().await.unwrap();
    assert_eq!((&heard.body, &heard.id), (&refused.body, &refused.id));
    assert!(!server.exists(&channel).await);

    // The next call is of the next channel alone.
    let other = server.create().await;
    while server.exists(&other).await {
        clock.advance(5).await;
    }
    let next = hook.calls.recv().await.unwrap();
    assert_eq!(next.body, json!({"channels": [other.consumer]}).to_string());
}

/// Who is told, and what it answers: each of the statuses once, and then 200.
struct Hook {
    url: String,
    calls: mpsc::UnboundedReceiver<Call>,
}

struct Call {
    body: String,
    id: String,
    timestamp: String,
    signature: String,
}

impl Hook {
    async fn start<const N: usize>(answers: [u16; N]) -> Self {
        type Shared = std::sync::Arc<std::sync::Mutex<(Vec<u16>, mpsc::UnboundedSender<Call>)>>;
        async fn hear(
            State(shared): State<Shared>,
            headers: HeaderMap,
            body: String,
        ) -> axum::http::StatusCode {
            let text = |name: &str| {
                headers
                    .get(name)
                    .map_or(String::new(), |value| value.to_str().unwrap().to_owned())
            };
            let call = Call {
                body,
                id: text("webhook-id"),
                timestamp: text("webhook-timestamp"),
                signature: text("webhook-signature"),
            };
            let mut shared = shared.lock().unwrap();
            shared.1.send(call).unwrap();
            let status = shared.0.pop().unwrap_or(200);
            axum::http::StatusCode::from_u16(status).unwrap()
        }
        let (sender, calls) = mpsc::unbounded_channel();
        let answers = answers.into_iter().rev().collect();
        let shared: Shared = std::sync::Arc::new(std::sync::Mutex::new((answers, sender)));
        let app = Router::new()
            .route("/on-channel-deleted", post(hear))
            .with_state(shared);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "http://{}/on-channel-deleted",
            listener.local_addr().unwrap()
        );
        tokio::spawn(axum::serve(listener, app).into_future());
        Self { url, calls }
    }
}

impl Call {
    fn signed_with(&self, secret: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        mac.update(format!("{}.{}.{}", self.id, self.timestamp, self.body).as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}
