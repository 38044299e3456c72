//! Limits: on how often somebody asks, on who is connected and follows, and on how slow a request may be.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use dacapo_server::connections::ConnectionsConfig;
use dacapo_server::limits::{RateLimits, Subscriptions};
use reqwest::Method;
use reqwest::header::{ORIGIN, RETRY_AFTER};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{Files, Options, problem, soon};

/// So many at once, and one more in a second.
fn rate(burst: u32) -> Option<RateLimits> {
    let one = NonZeroU32::new(1).unwrap();
    Some(RateLimits::new(one, NonZeroU32::new(burst).unwrap()))
}

/// All that comes until the server closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    text
}

async fn said(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// A response with a problem document, as it came.
fn problem_in(text: &str) -> (String, Value) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/problem+json"),
        "{head}"
    );
    (head, serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_ask_again() {
    let options = Options {
        rate: rate(3),
        cors: true,
        ..Options::default()
    };
    let world = options.serve().await;
    for path in ["/v1/stream/a", "/v1/events", "/v1/stream/b"] {
        assert_ne!(world.status(Method::GET, path, None).await, 429, "{path}");
    }
    for path in ["/v1/stream/a", "/v1/events"] {
        let request = world.request(Method::GET, path);
        let request = request.header(ORIGIN, "http://localhost:5173");
        let (_, headers) = problem(soon(request.send()).await.unwrap(), 429).await;
        assert_eq!(headers[RETRY_AFTER], "1", "{path}");
        // A page hears it, too.
        assert!(
            headers.contains_key("access-control-allow-origin"),
            "{path}"
        );
    }
    assert_eq!(world.status(Method::GET, "/health", None).await, 200);
    soon(async { while world.status(Method::GET, "/v1/stream/a", None).await == 429 {} }).await;
}

#[tokio::test]
async fn each_token_has_its_own_rate_and_whoever_has_none_that_is_good_shares_that_of_the_address()
{
    let files = Files::new();
    let auth = files.tokens("ada admin\nbob admin\n");
    let options = Options {
        auth: Some(auth.clone()),
        rate: rate(2),
        ..Options::default()
    };
    let world = options.serve().await;
    let room = "/v1/stream/a";
    assert_eq!(world.status(Method::PUT, room, Some("ada")).await, 201);
    assert_eq!(world.status(Method::GET, room, Some("ada")).await, 200);
    assert_eq!(world.status(Method::GET, room, Some("ada")).await, 429);
    assert_eq!(world.status(Method::GET, room, Some("bob")).await, 200);
    // Guesses are of one address, whatever they are.
    assert_eq!(world.status(Method::GET, room, Some("guess 1")).await, 401);
    assert_eq!(world.status(Method::GET, room, Some("guess 2")).await, 401);
    assert_eq!(world.status(Method::GET, room, Some("guess 3")).await, 429);
    assert_eq!(world.status(Method::GET, room, Some("bob")).await, 200);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_answered_and_one_that_did_not_begin_is_not() {
    let options = Options {
        connections: ConnectionsConfig {
            head_timeout: Duration::from_millis(200),
            ..ConnectionsConfig::default()
        },
        ..Options::default()
    };
    let world = options.serve().await;
    let half = said(world.address, "GET /health HTTP/1.1\r\nHost: a\r\nX-").await;
    let silent = said(world.address, "").await;
    let second = said(world.address, "GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET").await;

    let (head, problem) = problem_in(&rest(half).await);
    assert!(head.starts_with("http/1.1 408 "), "{head}");
    assert_eq!(problem["status"], 408);
    assert_eq!(rest(silent).await, "");
    let both = rest(second).await;
    assert!(both.starts_with("HTTP/1.1 200 "), "{both}");
    assert_eq!(world.status(Method::GET, "/health", None).await, 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_cut_off() {
    let options = Options {
        connections: ConnectionsConfig {
            idle_timeout: Duration::from_millis(200),
            ..ConnectionsConfig::default()
        },
        ..Options::default()
    };
    let world = options.serve().await;
    let head = "PUT /v1/stream/a HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n";
    let half = said(
        world.address,
        &format!("{head}Content-Length: 9\r\n\r\nhalf"),
    )
    .await;
    let answer = rest(half).await;
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    let read = world.status(Method::GET, "/v1/stream/a", None).await;
    assert_eq!(read, 404, "nothing of it was stored");
}

#[tokio::test]
async fn a_client_beyond_the_limit_is_told_so_and_served_once_there_is_room() {
    let options = Options {
        connections: ConnectionsConfig {
            connections_max: 1,
            ..ConnectionsConfig::default()
        },
        ..Options::default()
    };
    let world = options.serve().await;
    let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = said(world.address, request).await;
    soon(first.read_exact(&mut [0; 12])).await.unwrap();

    let (head, problem) = problem_in(&rest(said(world.address, request).await).await);
    assert!(head.starts_with("http/1.1 503 "), "{head}");
    assert!(head.contains("\r\nretry-after: "), "{head}");
    assert_eq!(problem["status"], 503);

    drop(first);
    soon(async {
        while !rest_of_one(world.address)
            .await
            .starts_with("HTTP/1.1 200 ")
        {}
    })
    .await;
}

/// The answer to a request that ends its connection.
async fn rest_of_one(address: SocketAddr) -> String {
    let request = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    rest(said(address, request).await).await
}

#[tokio::test]
async fn one_address_has_so_many_connections() {
    let options = Options {
        connections: ConnectionsConfig {
            connections_per_address_max: Some(1),
            ..ConnectionsConfig::default()
        },
        ..Options::default()
    };
    let world = options.serve().await;
    let mut first = said(world.address, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    soon(first.read_exact(&mut [0; 12])).await.unwrap();
    let (head, _) = problem_in(&rest_of_one(world.address).await);
    assert!(head.starts_with("http/1.1 429 "), "{head}");
    assert!(head.contains("\r\nretry-after: "), "{head}");
}

#[tokio::test]
async fn no_more_follow_than_may_and_the_next_one_may_when_one_has_gone() {
    let options = Options {
        subscriptions: Subscriptions::at_most(1),
        ..Options::default()
    };
    let world = options.serve().await;
    assert_eq!(world.status(Method::PUT, "/v1/stream/a", None).await, 201);
    let following = world.get("/v1/events", None).await;
    assert_eq!(following.status(), 200);
    for path in [
        "/v1/events",
        "/v1/stream/a?offset=now&live=sse",
        "/v1/stream/a?offset=now&live=long-poll",
    ] {
        let (_, headers) = problem(world.get(path, None).await, 503).await;
        assert!(headers.contains_key(RETRY_AFTER), "{path}");
    }
    assert_eq!(world.status(Method::GET, "/v1/stream/a", None).await, 200);

    drop(following);

    soon(async {
        while world
            .status(Method::GET, "/v1/stream/a?offset=now&live=sse", None)
            .await
            != 200
        {}
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_ends_idle_connections_and_accepts_no_more() {
    let mut world = Options::default().serve().await;
    let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut idle = said(world.address, request).await;
    soon(idle.read_exact(&mut [0; 12])).await.unwrap();
    world.shutdown.cancel();
    soon(&mut world.serving).await.unwrap();
    // The connection has ended, and no other one is accepted.
    assert!(rest(idle).await.ends_with("}"));
    assert!(TcpStream::connect(world.address).await.is_err());
}
