//! Tokens for URLs: for an EventSource and a WebSocket, which cannot send a header.

use std::time::{Duration, SystemTime};

use dacapo_server::auth::{Authorizer, Right};
use futures_util::StreamExt;
use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::server::{self, EVENTS, Files, Options, World, problem, soon};

const TOKENS: &str = "ada read,append rooms/\nada read events\na11 admin\n";
const ROOM: &str = "/v1/stream/rooms/a";

async fn world(files: &Files) -> (World, Authorizer) {
    let auth = files.tokens(TOKENS);
    let options = Options {
        auth: Some(auth.clone()),
        ..Options::default()
    };
    (options.serve().await, auth)
}

async fn asked_for(world: &World, token: &str, wanted: Value) -> reqwest::Response {
    let request = world.request(Method::POST, "/v1/url-tokens");
    let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    soon(request.body(wanted.to_string()).send()).await.unwrap()
}

async fn issued(world: &World, wanted: Value) -> String {
    let response = asked_for(world, "ada", wanted).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let issued = server::json(response).await;
    let expires: jiff::Timestamp = issued["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(expires > jiff::Timestamp::now());
    issued["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_for_a_url_is_good_for_its_topic_and_rights_alone() {
    let files = Files::new();
    let (world, _) = world(&files).await;
    assert_eq!(world.status(Method::PUT, ROOM, Some("ada")).await, 201);
    let reading = issued(&world, json!({"topic": "rooms/a"})).await;
    let url = |path: &str| format!("{path}?offset=-1&access_token={reading}");
    assert_eq!(world.status(Method::GET, &url(ROOM), None).await, 200);
    for (method, path) in [
        (Method::POST, ROOM),
        (Method::DELETE, ROOM),
        (Method::GET, "/v1/stream/rooms/ab"),
        (Method::GET, "/v1/stream/rooms/"),
        (Method::GET, "/v1/events"),
        (Method::GET, "/all"),
    ] {
        problem(world.ask(method, &url(path), None).await, 403).await;
    }
    let writing = json!({"topic": "rooms/a", "rights": ["append"], "seconds": 5});
    let writing = issued(&world, writing).await;
    let post = world.request(Method::POST, &format!("{ROOM}?access_token={writing}"));
    let post = post.header("content-type", "text/plain").body("hello");
    assert_eq!(soon(post.send()).await.unwrap().status(), 204);
    let read = format!("{ROOM}?access_token={writing}");
    problem(world.get(&read, None).await, 403).await;
}

#[tokio::test]
async fn one_that_was_changed_has_expired_or_is_of_another_key_is_good_for_nothing() {
    let files = Files::new();
    let (world, auth) = world(&files).await;
    assert_eq!(world.status(Method::PUT, ROOM, Some("ada")).await, 201);
    let status = async |token: &str| {
        let path = format!("{ROOM}?access_token={token}");
        world.get(&path, None).await.status().as_u16()
    };
    let good = issued(&world, json!({"topic": "rooms/a"})).await;
    assert_eq!(status(&good).await, 200);

    let over = SystemTime::now() - Duration::from_secs(1);
    let over = auth
        .sign_url_token("rooms/a", &[Right::Read], over)
        .unwrap();
    let path = format!("{ROOM}?access_token={over}");
    let (detail, _) = problem(world.get(&path, None).await, 401).await;
    assert!(detail.contains("expired"), "{detail}");

    let (claims, signature) = good.rsplit_once('.').unwrap();
    let (other, _) = over.rsplit_once('.').unwrap();
    for forged in [
        format!("{other}.{signature}"),
        claims.to_owned(),
        format!("{claims}."),
        good.to_uppercase(),
    ] {
        assert_eq!(status(&forged).await, 401, "{forged}");
    }
    // A static token is no token for a URL.
    assert_eq!(status("ada").await, 401);
    assert_eq!(status("").await, 401);

    std::fs::remove_file(files.path("url.keys")).unwrap();
    auth.reload().unwrap();
    assert_eq!(status(&good).await, 401);
}

#[tokio::test]
async fn nobody_gets_one_for_more_than_what_is_theirs() {
    let files = Files::new();
    let (world, _) = world(&files).await;
    for (token, wanted, status) in [
        ("ada", json!({"topic": "users/a"}), 403),
        (
            "ada",
            json!({"topic": "events", "rights": ["read", "append"]}),
            403,
        ),
        ("a11", json!({"topic": "rooms/a", "rights": ["admin"]}), 400),
        ("a11", json!({"topic": "rooms/a", "rights": []}), 400),
        ("a11", json!({"topic": ""}), 400),
        ("a11", json!({"topic": "rooms/a", "seconds": 0}), 400),
        ("a11", json!({"topic": "rooms/a", "seconds": 3601}), 400),
        ("a11", json!({"topic": "rooms/a", "prefix": true}), 400),
        ("a11", json!({"topic": "__ds/rooms/a"}), 403),
        ("a11", json!("rooms/a"), 400),
        ("eve", json!({"topic": "rooms/a"}), 401),
    ] {
        let refused = asked_for(&world, token, wanted.clone()).await;
        assert_eq!(refused.status(), status, "{wanted}");
        let kind = &refused.headers()["content-type"];
        assert_eq!(kind, "application/problem+json", "{wanted}");
    }
    let own = issued(&world, json!({"topic": "rooms/a"})).await;
    let again = asked_for(&world, &own, json!({"topic": "rooms/a"})).await;
    assert_eq!(again.status(), 403);
    let large = "x".repeat(5000);
    let large = asked_for(&world, "a11", json!({"topic": large})).await;
    assert_eq!(large.status(), 413);
}

#[tokio::test]
async fn a_web_socket_and_server_sent_events_are_followed_with_one_and_end_with_it() {
    let files = Files::new();
    let (world, auth) = world(&files).await;
    assert_eq!(world.status(Method::PUT, ROOM, Some("ada")).await, 201);
    let expires = SystemTime::now() + Duration::from_secs(2);
    let token = |topic| auth.sign_url_token(topic, &[Right::Read], expires).unwrap();
    let events = token(EVENTS);
    let address = world.address;

    let url = format!("ws://{address}/ws?access_token={events}");
    let (mut socket, _) = soon(tokio_tungstenite::connect_async(url)).await.unwrap();
    let sse = world
        .get(&format!("/v1/events?access_token={events}"), None)
        .await;
    assert_eq!(sse.status(), 200);
    let room = token("rooms/a");
    let stream = format!("{ROOM}?offset=-1&live=sse&access_token={room}");
    let stream = world.get(&stream, None).await;
    assert_eq!(stream.status(), 200);

    // Both responses end by themselves, though the streams go on.
    soon(sse.text()).await.unwrap();
    assert!(
        soon(stream.text())
            .await
            .unwrap()
            .contains("event: control")
    );
    let closed = loop {
        if let Message::Close(frame) = soon(socket.next()).await.unwrap().unwrap() {
            break frame.unwrap();
        }
    };
    assert!(closed.reason.contains("expired"), "{closed}");
}
