//! The long-poll transport, request by request.

use std::time::Duration;

use dacapo_log::Log;
use dacapo_server::phoenix::{Limits, Phoenix};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::client::{Server, error, ok, soon};
use crate::rooms::{User, phoenix};

struct World {
    server: Server,
    phoenix: Phoenix<User>,
    told: UnboundedReceiver<String>,
    http: reqwest::Client,
    _dir: TempDir,
}

impl World {
    async fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (phoenix, told) = phoenix(&Log::open(dir.path()).unwrap(), limits);
        let server = Server::of(&phoenix).await;
        Self {
            server,
            phoenix,
            told,
            http: reqwest::Client::new(),
            _dir: dir,
        }
    }

    fn request(&self, method: Method, query: &str) -> RequestBuilder {
        self.http.request(method, self.server.longpoll(query))
    }

    async fn poll(&self, token: &str) -> Value {
        // As phoenix.js writes it.
        let url = format!("vsn=2.0.0&&token={token}");
        answer(self.request(Method::GET, &url)).await
    }

    /// A new session.
    async fn session(&self) -> String {
        let begun = self.poll("null").await;
        assert_eq!(
            (&begun["status"], &begun["messages"]),
            (&json!(410), &json!([]))
        );
        begun["token"].as_str().unwrap().to_owned()
    }

    async fn post(&self, token: &str, body: impl Into<reqwest::Body>) -> Value {
        let request = self.request(Method::POST, &format!("vsn=2.0.0&token={token}"));
        answer(
            request
                .header("content-type", "application/x-ndjson")
                .body(body),
        )
        .await
    }
}

async fn sent(request: RequestBuilder) -> Response {
    soon(request.send()).await.unwrap()
}

async fn answer(request: RequestBuilder) -> Value {
    let response = sent(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(
        response
            .headers()
            .contains_key("access-control-allow-origin")
    );
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

fn messages(answer: &Value) -> Vec<Value> {
    assert_eq!(answer["status"], 200, "{answer}");
    let texts = answer["messages"].as_array().unwrap();
    texts
        .iter()
        .map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap())
        .collect()
}

#[tokio::test]
async fn a_session_begins_with_410_and_carries_messages_both_ways() {
    let world = World::new(Limits::default()).await;
    let token = world.session().await;
    let lines = "[\"1\",\"1\",\"rooms:a\",\"phx_join\",{}]\n[\"1\",\"2\",\"rooms:a\",\"new:msg\",{\"n\":1}]";
    assert_eq!(world.post(&token, lines).await, json!({"status": 200}));
    let mut all = Vec::new();
    while all.len() < 3 {
        let answer = world.poll(&token).await;
        assert_eq!(answer["token"], json!(token));
        all.extend(messages(&answer));
    }
    assert_eq!(all[0][4], ok(json!({"room": "a", "user": "nobody"})));
    assert_eq!(all[1], json!([null, null, "rooms:a", "new:msg", {"n": 1}]));
    assert_eq!(
        all[2],
        json!(["1", "2", "rooms:a", "phx_reply", ok(json!({"count": 1}))])
    );
}

#[tokio::test]
async fn a_poll_without_messages_ends_with_204_and_the_session_goes_on() {
    let mut limits = Limits::default();
    limits.poll = Duration::from_millis(50);
    let world = World::new(limits).await;
    let token = world.session().await;
    assert_eq!(
        world.poll(&token).await,
        json!({"status": 204, "token": token, "messages": []})
    );
    world
        .post(&token, r#"["1","1","rooms:a","phx_join",{}]"#)
        .await;
    loop {
        let polled = world.poll(&token).await;
        if polled["status"] != 204 {
            assert_eq!(messages(&polled).len(), 1);
            return;
        }
    }
}

#[tokio::test]
async fn a_line_of_base64_is_a_binary_push() {
    let world = World::new(Limits::default()).await;
    let token = world.session().await;
    // 00 01 01 07 03, "1" "2" "rooms:a" "bin", 01 02 03.
    let lines = "[\"1\",\"1\",\"rooms:a\",\"phx_join\",{}]\nAAEBBwMxMnJvb21zOmFiaW4BAgM=";
    assert_eq!(world.post(&token, lines).await, json!({"status": 200}));
    let mut all = Vec::new();
    while all.len() < 4 {
        all.extend(messages(&world.poll(&token).await));
    }
    assert_eq!(
        all[2],
        json!([null, null, "rooms:a", "bin", {"binary": "AQID"}])
    );
}

#[tokio::test]
async fn version_1_is_spoken_too_and_a_body_may_be_one_message() {
    let world = World::new(Limits::default()).await;
    let begun = answer(world.request(Method::GET, "")).await;
    let query = format!("token={}", begun["token"].as_str().unwrap());
    let join = json!({"topic": "rooms:a", "event": "phx_join", "payload": {}, "ref": "1"});
    let post = world
        .request(Method::POST, &query)
        .header("content-type", "application/json");
    assert_eq!(
        answer(post.body(join.to_string())).await,
        json!({"status": 200})
    );
    let all = messages(&answer(world.request(Method::GET, &query)).await);
    assert_eq!(all[0]["payload"]["status"], "ok");
}

#[tokio::test]
async fn the_token_in_the_header_counts_before_that_of_the_query() {
    let world = World::new(Limits::default()).await;
    let token = world.session().await;
    let header = |request: RequestBuilder| request.header("x-phoenix-longpoll-token", &token);
    let join = r#"["1","1","rooms:a","phx_join",{}]"#;
    let post = header(world.request(Method::POST, "vsn=2.0.0&token=other"));
    assert_eq!(answer(post.body(join)).await, json!({"status": 200}));
    let polled = answer(header(world.request(Method::GET, "vsn=2.0.0&token=other"))).await;
    assert_eq!(messages(&polled).len(), 1);
}

#[tokio::test]
async fn refusals_unknown_sessions_and_bodies_of_the_wrong_kind_are_told() {
    let mut world = World::new(Limits::default()).await;
    for query in ["vsn=3.0.0", "vsn=2.0.0&user=mallory", "vsn=2.0.0&user=bomb"] {
        assert_eq!(
            answer(world.request(Method::GET, query)).await,
            json!({"status": 403})
        );
    }
    assert_eq!(world.post("no such", "[]").await, json!({"status": 410}));
    let many = vec![r#"["1","1","rooms:a","phx_join",{}]"#; 101].join("\n");
    let join = r#"["1","1","rooms:a","phx_join",{}]"#;
    let large = format!(r#"["1","1","rooms:a","x","{}"]"#, "x".repeat(1 << 20));
    let v1 = r#"{"topic":"rooms:a","event":"phx_join","payload":{},"ref":"1"}"#;
    for junk in [
        &b"junk"[..],
        b"",
        b"[]",
        b"\xff",
        b"AAAA",
        b"\0\0\0\0\0",
        v1.as_bytes(),
        format!("{join}\n\n{join}").as_bytes(),
        many.as_bytes(),
        large.as_bytes(),
    ] {
        let token = world.session().await;
        assert_eq!(
            world.post(&token, junk.to_vec()).await,
            json!({"status": 400})
        );
        // It has ended, and the next poll begins another one.
        assert_eq!(soon(world.told.recv()).await.unwrap(), "nobody has gone");
        let next = world.poll(&token).await;
        assert_eq!(next["status"], 410);
        assert_ne!(next["token"], json!(token));
        world.phoenix.disconnect(|_| true);
        assert_eq!(soon(world.told.recv()).await.unwrap(), "nobody has gone");
    }
    // Lines where one message was said to come, and bytes where lines were.
    for (kind, body) in [
        ("application/json", format!("{join}\n{join}").into_bytes()),
        ("text/plain", b"junk".to_vec()),
        ("application/octet-stream", vec![0, 0, 0, 1, 1, b't', b'e']),
        ("application/x-ndjson; charset=utf-8", vec![0xff]),
    ] {
        let token = world.session().await;
        let post = world.request(Method::POST, &format!("token={token}"));
        let post = post.header("content-type", kind).body(body);
        assert_eq!(answer(post).await, json!({"status": 400}), "{kind}");
        assert_eq!(soon(world.told.recv()).await.unwrap(), "nobody has gone");
    }
    let expired = world
        .request(Method::GET, "")
        .header("x-phoenix-authtoken", "expired");
    assert_eq!(answer(expired).await, json!({"status": 403}));
    let preflight = sent(
        world
            .request(Method::OPTIONS, "")
            .header("origin", "http://a.example"),
    )
    .await;
    assert_eq!(preflight.status(), 200);
    assert_eq!(
        preflight.headers()["access-control-allow-origin"],
        "http://a.example"
    );
    assert_eq!(sent(world.request(Method::PUT, "")).await.status(), 405);
}

#[tokio::test]
async fn the_101st_join_is_refused_over_long_poll_too() {
    let world = World::new(Limits::default()).await;
    let token = world.session().await;
    let join = |room: usize| format!(r#"["{room}","{room}","rooms:{room}","phx_join",{{}}]"#);
    let first: Vec<_> = (0..100).map(join).collect();
    assert_eq!(world.post(&token, first.join("\n")).await["status"], 200);
    assert_eq!(world.post(&token, join(100)).await["status"], 200);
    let mut replies = Vec::new();
    while replies.len() < 101 {
        replies.extend(messages(&world.poll(&token).await));
    }
    for reply in replies {
        let expected = match reply[1].as_str() {
            Some("100") => error("too many channels joined"),
            Some(room) => ok(json!({"room": room, "user": "nobody"})),
            None => panic!("{reply}"),
        };
        assert_eq!(reply[4], expected);
    }
}

#[tokio::test]
async fn a_session_that_is_not_polled_ends_with_its_channels() {
    let mut limits = Limits::default();
    limits.poll_session = Duration::from_secs(2);
    let mut world = World::new(limits).await;
    let token = world.session().await;
    world
        .post(&token, r#"["1","1","rooms:a","phx_join",{}]"#)
        .await;
    messages(&world.poll(&token).await);
    assert_eq!(
        soon(world.told.recv()).await.unwrap(),
        "rooms:a Disconnected"
    );
    assert_eq!(soon(world.told.recv()).await.unwrap(), "nobody has gone");
    assert_eq!(world.poll(&token).await["status"], 410);
}

#[tokio::test]
async fn a_server_that_goes_away_ends_the_polls() {
    let world = World::new(Limits::default()).await;
    let token = world.session().await;
    let (polled, ()) = tokio::join!(world.poll(&token), soon(world.phoenix.drain()));
    assert!(
        polled["status"] == 410 || polled["status"] == 403,
        "{polled}"
    );
    assert_eq!(world.poll(&token).await, json!({"status": 403}));
}
