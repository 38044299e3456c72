//! `dacapo serve`: each face by the clients that people have, over the one log.

use std::fs;
use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use futures_util::StreamExt;
use megaphone::client::MegaphoneClient;
use megaphone::client::model::StreamSpec;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::client::Client;
use crate::process::{dacapo, expect_code, stat, text};
use crate::server::{Server, read_head, send};

const JSON: (&str, &str) = ("content-type", "application/json");
const EVENTS: &str = "/v1/stream/events";

impl Server {
    fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    fn ws(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address())
    }

    /// Appends an event, which must be taken.
    fn post(&self, event: &Value) {
        let answer = self.ask("POST", EVENTS, &[JSON], &event.to_string());
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}

/// What curl prints, which must succeed.
fn curl(arguments: &[&str]) -> String {
    let output = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "30"])
        .args(arguments)
        .output()
        .unwrap();
    expect_code(&output, 0);
    text(&output.stdout)
}

#[test]
fn what_one_face_appends_the_others_replay_and_follow() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.ask("PUT", EVENTS, &[JSON], "").status, 201);
    server.post(&json!({"type": "joined", "user": "Ada"}));
    let url = server.http("/v1/events?from=oldest");
    let (Some(mut source), Some(mut socket), Some(mut channel)) = (
        Client::event_source(&url, &["joined", "left"]),
        Client::web_socket(&server.ws("/ws?from=oldest&type=joined,left"), &json!({})),
        Client::phoenix(&server.ws("/socket"), "events", &json!({})),
    ) else {
        return;
    };
    let data = r#"{"type":"joined","user":"Ada","seq_id":2}"#;
    assert_eq!(
        source.next(),
        json!({"name": "joined", "id": "2", "data": data})
    );
    assert_eq!(socket.next(), json!({"opened": true}));
    let joined = json!({"said": {"type": "joined", "user": "Ada", "seq_id": 2}});
    assert_eq!(socket.next(), joined);
    assert_eq!(channel.next(), json!({"joined": true}));
    assert_eq!(
        channel.next(),
        json!({"message": {"type": "joined", "user": "Ada"}})
    );

    channel.send(&json!({"type": "left"}));

    channel.until(&json!({"published": 2}));
    let data = r#"{"type":"left","seq_id":3}"#;
    assert_eq!(
        source.next(),
        json!({"name": "left", "id": "3", "data": data})
    );
    assert_eq!(
        socket.next(),
        json!({"said": {"type": "left", "seq_id": 3}})
    );
    let page = server.ask("GET", EVENTS, &[], "");
    assert_eq!(
        page.json(),
        json!([{"type": "joined", "user": "Ada"}, {"type": "left"}])
    );
    // A stream knows what came by another way, so that its readers go on behind it.
    let next = format!("{EVENTS}?offset={}", page.next_offset());
    assert_eq!(server.ask("GET", &next, &[], "").json(), json!([]));
    server.post(&json!({"type": "joined", "user": "Grace"}));
    assert_eq!(server.ask("GET", &next, &[], "").json()[0]["user"], "Grace");
    channel.until(&json!({"message": {"type": "joined", "user": "Grace"}}));
    assert_eq!(socket.next()["said"]["seq_id"], 4);
}

#[test]
fn a_stream_takes_from_a_channel_what_it_takes_from_others_and_no_more() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.ask("PUT", EVENTS, &[JSON], "[1]").status, 201);
    let Some(mut channel) = Client::phoenix(&server.ws("/socket"), "events", &json!({})) else {
        return;
    };
    channel.until(&json!({"joined": true}));

    channel.send(&json!({"bytes": [255]}));
    channel.until(&json!({"refused": "the stream takes JSON, and this is none"}));
    let end = [("stream-closed", "true")];
    assert_eq!(server.ask("POST", EVENTS, &end, "").status, 204);
    channel.send(&json!({"type": "late"}));

    channel.until(&json!({"refused": "the stream is closed"}));
    assert_eq!(server.ask("GET", EVENTS, &[], "").json(), json!([1]));
}

#[test]
fn clients_of_each_face_come_back_after_a_kill_and_miss_nothing() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--realtime-retry", "20ms"]);
    let address = server.address();
    assert_eq!(server.ask("PUT", EVENTS, &[JSON], "").status, 201);
    let url = server.http("/v1/events?from=oldest");
    let (Some(mut source), Some(mut channel)) = (
        Client::event_source(&url, &["message"]),
        Client::phoenix(&server.ws("/socket"), "events", &json!({})),
    ) else {
        return;
    };
    let created: Value = serde_json::from_str(&curl(&["-XPOST", &server.http("/create")])).unwrap();
    let (producer, consumer) = (&created["producerAddress"], &created["consumerAddress"]);
    let write = format!("/write/{}/room", producer.as_str().unwrap());
    let read = format!("/read/{}", consumer.as_str().unwrap());
    channel.until(&json!({"joined": true}));
    let mut server = server;
    let mut last_id = 0;

    for round in 0..4 {
        let event = json!({"round": round});
        server.post(&event);
        assert_eq!(
            server
                .ask("POST", &write, &[JSON], &event.to_string())
                .status,
            201
        );
        channel.until(&json!({"message": event}));
        let seen = source.next();
        let id: u64 = seen["id"].as_str().unwrap().parse().unwrap();
        assert!(id > last_id, "{seen}");
        last_id = id;
        let data = format!(r#"{{"round":{round},"seq_id":{id}}}"#);
        assert_eq!(seen["data"], data);

        server.kill();
        server = Server::start_at(address, dir.path(), &["--realtime-retry", "20ms"]);
    }

    let mut lines = send(server.address(), "GET", &read, &[], "").unwrap();
    assert_eq!(read_head(&mut lines).unwrap().status, 200);
    let mut rounds = Vec::new();
    while rounds.len() < 4 {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0);
        // Between the lines are the sizes of the chunks.
        if let Ok(Value::Object(message)) = serde_json::from_str(&line) {
            rounds.push(message["body"]["round"].clone());
        }
    }
    assert_eq!(rounds, [0, 1, 2, 3]);
}

#[test]
fn a_server_that_stops_tells_its_clients_to_come_back_and_takes_what_is_on_its_way() {
    let dir = tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    assert_eq!(server.ask("PUT", EVENTS, &[JSON], "").status, 201);
    let (Some(mut socket), Some(mut channel)) = (
        Client::web_socket(&server.ws("/ws"), &json!({})),
        Client::phoenix(&server.ws("/socket"), "events", &json!({})),
    ) else {
        return;
    };
    socket.until(&json!({"opened": true}));
    channel.until(&json!({"joined": true}));
    let mut events = send(server.address(), "GET", "/v1/events", &[], "").unwrap();
    assert_eq!(read_head(&mut events).unwrap().status, 200);
    let mut half = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n"
    );
    half.write_all(head.as_bytes()).unwrap();
    let mut answer = std::io::BufReader::new(half.try_clone().unwrap());
    // It is at it by then, and waits for the rest.
    assert_eq!(read_head(&mut answer).unwrap().status, 100);

    server.signal(Signal::TERM);
    server.wait_until_it_says("shutting down");

    let away = json!({"closed": 1001, "reason": "the server shuts down; connect again"});
    assert_eq!(socket.next(), away);
    assert_eq!(channel.next(), json!({"closed": 1012}));
    events.read_to_string(&mut String::new()).unwrap();
    half.write_all(b"{\"a\": 1}").unwrap();
    assert_eq!(read_head(&mut answer).unwrap().status, 204);
    let (status, log_lines) = server.ended();
    assert_eq!(status.code(), Some(0), "{log_lines}");
    assert!(!log_lines.contains("cut off"), "{log_lines}");
    assert_eq!(stat(dir.path())["clean"], true);
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.ask("GET", EVENTS, &[], "").json(), json!([{"a": 1}]));
}

#[test]
fn the_published_client_of_megaphone_reads_what_curl_writes() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--megaphone-agent", "here"]);
    let created: Value = serde_json::from_str(&curl(&["-XPOST", &server.http("/create")])).unwrap();
    assert_eq!(created["agentName"], "here");
    let producer = created["producerAddress"].as_str().unwrap();
    let consumer = created["consumerAddress"].as_str().unwrap().to_owned();
    let url = server.http(&format!("/write/{producer}/numbers"));
    for number in ["1", "2", "3"] {
        let said = curl(&["-H", "content-type: application/json", "-d", number, &url]);
        assert_eq!(said, r#"{"status":"OK"}"#);
    }

    let mut client = MegaphoneClient::new(&server.http("/read"), 10);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let numbers: Vec<u64> = runtime.block_on(async {
        let open = move |known: Option<String>| {
            let channel = known.unwrap_or_else(|| consumer.clone());
            let streams = vec!["numbers".to_owned()];
            async move { Ok::<_, anyhow::Error>(StreamSpec { channel, streams }) }
        };
        let numbers = client
            .new_unbounded_stream::<_, _, _, u64>(open)
            .await
            .unwrap();
        numbers.take(3).map(Result::unwrap).collect().await
    });

    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn a_server_that_stops_does_not_keep_a_writer_waiting_for_a_reader() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--megaphone-unread-max", "1"]);
    let created = server.ask("POST", "/create", &[], "").json();
    let write = format!("/write/{}/a", created["producerAddress"].as_str().unwrap());
    assert_eq!(server.ask("POST", &write, &[JSON], "1").status, 201);
    let expect = [JSON, ("expect", "100-continue")];
    let mut waiting = send(server.address(), "POST", &write, &expect, "2").unwrap();
    // It is at it by then.
    assert_eq!(read_head(&mut waiting).unwrap().status, 100);

    server.signal(Signal::TERM);

    assert_eq!(read_head(&mut waiting).unwrap().status, 503);
    let mut body = String::new();
    waiting.read_to_string(&mut body).unwrap();
    assert!(body.contains("UNAVAILABLE"), "{body}");
    assert_eq!(server.ended().0.code(), Some(0));
}

const TOKENS: &str = "all read,append\nadmin admin\nroom read,append rooms/\n";

fn with_tokens(dir: &Path) -> Server {
    let file = dir.join("tokens");
    fs::write(&file, TOKENS).unwrap();
    Server::start(&dir.join("log"), &["--token-file", file.to_str().unwrap()])
}

#[test]
fn tokens_count_at_every_face() {
    let dir = tempdir().unwrap();
    let server = with_tokens(dir.path());
    for (method, path, token, status) in [
        ("GET", "/v1/events", None, 401),
        ("GET", "/v1/events", Some("al"), 401),
        ("GET", "/v1/events", Some("room"), 403),
        ("GET", "/v1/events", Some("all"), 200),
        ("GET", "/v1/events?access_token=all", None, 200),
        ("GET", "/v1/events?access_token=room", None, 403),
        ("GET", "/ws", None, 401),
        ("GET", "/socket/websocket?vsn=2.0.0", None, 400),
        ("POST", "/create", None, 401),
        ("POST", "/create", Some("room"), 403),
        ("POST", "/create", Some("all"), 200),
        ("GET", "/channel/list", Some("all"), 403),
        ("GET", "/channel/list", Some("admin"), 200),
        ("PUT", EVENTS, Some("room"), 403),
        ("PUT", "/v1/stream/rooms/a", Some("room"), 201),
        ("GET", "/metrics", None, 401),
        ("GET", "/metrics", Some("room"), 403),
        ("GET", "/metrics", Some("all"), 200),
        ("GET", "/health", None, 200),
    ] {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let bearer = bearer.as_deref().map(|bearer| ("authorization", bearer));
        let headers: Vec<_> = bearer.into_iter().collect();
        let mut answer = send(server.address(), method, path, &headers, "").unwrap();
        let answer = read_head(&mut answer).unwrap();
        assert_eq!(answer.status, status, "{method} {path} {token:?}");
    }
}

#[test]
fn a_channel_is_joined_and_published_to_with_the_rights_of_the_token() {
    let dir = tempdir().unwrap();
    let server = with_tokens(dir.path());
    let url = server.ws("/socket");
    let with = |token: &str| json!({"authToken": token});
    let (Some(mut own), Some(mut other), Some(mut unknown)) = (
        Client::phoenix(&url, "rooms/a", &with("room")),
        Client::phoenix(&url, "users/a", &with("room")),
        Client::phoenix(&url, "rooms/a", &with("moor")),
    ) else {
        return;
    };
    assert_eq!(other.next(), json!({"refused": "unauthorized"}));
    assert_eq!(unknown.next(), json!({"closed": 1006}));
    assert_eq!(own.next(), json!({"joined": true}));
    own.send(&json!({"a": 1}));
    own.until(&json!({"published": 0}));

    // The token may read now, and is unknown in the end.
    fs::write(dir.path().join("tokens"), "room read rooms/\n").unwrap();
    let mut server = server;
    server.signal(Signal::HUP);
    server.wait_until_it_says("the tokens were read again");
    own.send(&json!({"a": 2}));
    own.until(&json!({"refused": "unauthorized"}));
    fs::write(dir.path().join("tokens"), "other read\n").unwrap();
    server.signal(Signal::HUP);
    server.wait_until_it_says("the tokens were read again");

    own.until(&json!({"closed": 1001}));
    own.until(&json!({"closed": 1006}));
}

#[test]
fn pages_of_other_sites_are_not_let_in_unless_they_are_named() {
    let dir = tempdir().unwrap();
    let page = json!({"origin": "https://app.example"});
    for (options, paths) in [
        (&[] as &[&str], json!({"refused": 403})),
        (
            &["--allow-origin", "https://app.example"],
            json!({"opened": true}),
        ),
        (&["--cors"], json!({"opened": true})),
    ] {
        let server = Server::start(dir.path(), options);
        for path in ["/ws", "/socket/websocket?vsn=2.0.0"] {
            let Some(mut client) = Client::web_socket(&server.ws(path), &page) else {
                return;
            };
            assert_eq!(client.next(), paths, "{path} {options:?}");
        }
    }
}

#[test]
fn what_the_servers_keep_for_themselves_is_out_of_reach() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    for topic in ["__mp/c/x", "__ds/x", "__x"] {
        let answer = server.ask("PUT", &format!("/v1/stream/{topic}"), &[JSON], "");
        assert_eq!(answer.status, 400, "{answer:?}");
        let Some(mut channel) = Client::phoenix(&server.ws("/socket"), topic, &json!({})) else {
            return;
        };
        let refused = json!({"refused": "the topic is the server's own"});
        assert_eq!(channel.next(), refused);
    }
}

#[test]
fn a_face_that_is_left_out_is_not_there() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &["--faces", "streams"]);
    for (method, path) in [
        ("GET", "/v1/events"),
        ("GET", "/ws"),
        ("GET", "/socket/websocket"),
        ("POST", "/create"),
    ] {
        assert_eq!(server.ask(method, path, &[], "").status, 404, "{path}");
    }
    assert_eq!(server.ask("PUT", EVENTS, &[JSON], "").status, 201);
    let health = server.ask("GET", "/health", &[], "");
    assert_eq!(health.json(), json!({"status": "ok", "clients": 0}));
    assert!(
        !server
            .ask("GET", "/metrics", &[], "")
            .body
            .contains("megaphone")
    );
    drop(server);

    let server = Server::start(dir.path(), &["--faces", "realtime,megaphone"]);
    assert_eq!(server.ask("GET", EVENTS, &[], "").status, 404);
    assert_eq!(server.ask("POST", "/create", &[], "").status, 200);
}

#[test]
fn all_faces_are_counted_in_one_place() {
    let dir = tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    server.ask("PUT", EVENTS, &[JSON], "[1]");
    server.ask("POST", "/create", &[], "");
    server.ask("GET", "/read/nobody", &[], "");
    server.ask("GET", "/v1/events?from=never", &[], "");
    let mut events = send(server.address(), "GET", "/v1/events", &[], "").unwrap();
    assert_eq!(read_head(&mut events).unwrap().status, 200);

    let metrics = server.ask("GET", "/metrics", &[], "");

    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
    for line in [
        "dacapo_appends_total 1",
        "dacapo_errors_total{status=\"400\"} 2",
        "dacapo_realtime_clients 1",
        "dacapo_phoenix_clients 0",
        "megaphone_channel_created 1",
        "# TYPE megaphone_channel_created counter",
    ] {
        let mut lines = metrics.body.lines();
        assert!(lines.any(|other| other == line), "{line}\n{}", metrics.body);
    }
}

#[test]
fn a_topic_of_another_type_is_not_served_as_events() {
    let dir = tempdir().unwrap();
    let topic = "numbers".parse().unwrap();
    let log = dacapo_log::Log::open(dir.path()).unwrap();
    dacapo::ReplayChannel::<u64>::on(&log, &topic).unwrap();
    log.close().unwrap();
    let log = dir.path().to_str().unwrap();

    let refused = dacapo([
        "serve",
        log,
        "--listen",
        "127.0.0.1:0",
        "--realtime-topic",
        "numbers",
    ]);

    let output = { refused }.output().unwrap();
    expect_code(&output, 1);
    let said = text(&output.stderr);
    assert!(
        said.contains("cannot serve topic numbers as realtime events"),
        "{said}"
    );
    assert!(said.contains("--realtime-topic"), "{said}");
}
