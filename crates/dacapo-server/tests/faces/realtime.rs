//! The realtime face: one numbered sequence, over server-sent events and over WebSocket.

use std::time::Duration;

use axum::Router;
use dacapo::{Json, ReplayChannel};
use dacapo_server::realtime::{RealtimeConfig, router};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::{Frame, Frames, Server, serve, soon, until};
use crate::memory::{EventType, Manager, MemoryEvent, SubscriptionFilter};

fn temporary() -> Manager {
    Manager::new(ReplayChannel::builder().codec(Json).temporary().unwrap())
}

fn app(manager: &Manager) -> Router {
    router(Some(manager.clone()), RealtimeConfig::default())
}

fn created(memory_id: i64) -> MemoryEvent {
    MemoryEvent::new(EventType::MemoryCreated, memory_id)
}

fn deleted(memory_id: i64) -> MemoryEvent {
    MemoryEvent::new(EventType::MemoryDeleted, memory_id)
}

fn create(manager: &Manager, memory_ids: std::ops::RangeInclusive<i64>) {
    for memory_id in memory_ids {
        manager.broadcast(&created(memory_id)).unwrap();
    }
}

/// A log of which the oldest events are dropped; the number of the first one that is still there.
fn pruned() -> (Manager, u64) {
    let channel = ReplayChannel::builder().codec(Json);
    let manager = Manager::new(channel.segment_bytes_max(64 << 10).temporary().unwrap());
    let mut event = created(1);
    event.preview = Some("x".repeat(10_000));
    while manager.log().status().unwrap().segments < 4 {
        manager.broadcast(&event).unwrap();
    }
    manager.log().sync().unwrap();
    manager.log().prune(manager.log().next_offset()).unwrap();
    let oldest = manager.log().oldest().get() + 1;
    assert!(oldest > 4, "something was dropped");
    (manager, oldest)
}

fn ids(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.id().unwrap()).collect()
}

async fn status(server: &Server, path: &str) -> u16 {
    let response = soon(reqwest::get(server.url(path))).await.unwrap();
    response.status().as_u16()
}

async fn health(server: &Server) -> String {
    let response = soon(reqwest::get(server.url("/health"))).await.unwrap();
    response.text().await.unwrap()
}

fn clients(number: usize) -> String {
    format!(r#"{{"status":"ok","clients":{number}}}"#)
}

/// A WebSocket's client, of another project.
struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    async fn open(server: &Server, path: &str) -> Self {
        let url = format!("ws://{}{path}", server.address);
        Self(soon(connect_async(url)).await.unwrap().0)
    }

    async fn next(&mut self) -> Value {
        loop {
            match soon(self.0.next()).await.expect("it goes on").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn say(&mut self, text: impl Into<String>) {
        let text = Message::text(text.into());
        soon(self.0.send(text)).await.unwrap();
    }

    /// Reads on to its end: the code that the server closes with.
    async fn closed(&mut self) -> CloseCode {
        loop {
            match soon(self.0.next())
                .await
                .expect("it is told first")
                .unwrap()
            {
                Message::Close(close) => return close.expect("with a reason").code,
                Message::Text(_) | Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

// --- Server-sent events ------------------------------------------------------------

/// Acceptance 8.
#[tokio::test]
async fn numbers_begin_with_1_and_go_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::open(dir.path()).unwrap();
    assert_eq!(manager.current_seq(), 1);
    create(&manager, 1..=5);
    let server = serve(app(&manager)).await;
    let mut frames = server.frames_behind("/v1/events", "3").await;
    let events: [Frame; 2] = frames.events().await;
    assert_eq!(ids(&events), ["4", "5"]);
    assert_eq!(manager.broadcast(&created(6)).unwrap(), 6);
    let [live] = frames.events().await;
    let expected = json!({
        "seq_id": 6, "type": "memory_created", "timestamp": "2026-11-25T13:00:00Z", "memory_id": 6,
        "preview": null, "changes": null, "data": null,
    });
    assert_eq!(
        (live.id(), live.name()),
        (Some("6"), Some("memory_created"))
    );
    assert_eq!(
        serde_json::from_str::<Value>(live.data()).unwrap(),
        expected
    );
    server.stop(|| manager.close()).await;
    assert_eq!(frames.next().await, None);
    manager.log().close().unwrap();

    let manager = Manager::open(dir.path()).unwrap();
    assert_eq!(manager.current_seq(), 7);
    assert_eq!(manager.broadcast(&created(7)).unwrap(), 7);
    let server = serve(app(&manager)).await;
    let mut frames = server.frames_behind("/v1/events", "6").await;
    let [missed] = frames.events().await;
    assert_eq!(missed.id(), Some("7"));
}

/// Acceptance 8.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_misses_or_repeats_an_event_at_the_seam_of_replay_and_live() {
    const PUBLISHERS: u64 = 4;
    const EACH: u64 = 300;
    let manager = temporary();
    let server = serve(app(&manager)).await;
    let publishing: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let manager = manager.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    manager.broadcast(&created(1)).unwrap();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut following = Vec::new();
    for n in 0..8 {
        let seen = (manager.current_seq() - 1) * n / 8;
        let mut frames = server.frames_behind("/v1/events", &seen.to_string()).await;
        following.push(tokio::spawn(async move {
            for expected in seen + 1..=PUBLISHERS * EACH {
                let [event] = frames.events().await;
                assert_eq!(event.id(), Some(expected.to_string().as_str()));
            }
        }));
    }
    for task in publishing.into_iter().chain(following) {
        soon(task).await.unwrap();
    }
}

/// Acceptance 8.
#[tokio::test]
async fn a_client_says_where_it_goes_on_and_one_that_says_nothing_gets_what_comes() {
    let manager = temporary();
    create(&manager, 1..=3);
    let server = serve(app(&manager)).await;
    let mut absent = server.frames("/v1/events").await;
    let mut junk = server.frames_behind("/v1/events", "junk").await;
    let mut all = server.frames_behind("/v1/events", "0").await;
    let mut from = server.frames("/v1/events?from=3").await;
    let mut both = server.frames_behind("/v1/events?from=1", "2").await;
    let mut oldest = server.frames("/v1/events?from=oldest").await;
    manager.broadcast(&created(4)).unwrap();
    for live in [&mut absent, &mut junk] {
        let [first] = live.events().await;
        assert_eq!(first.id(), Some("4"));
    }
    for all in [&mut all, &mut oldest] {
        let events: [Frame; 4] = all.events().await;
        assert_eq!(ids(&events), ["1", "2", "3", "4"]);
    }
    for two in [&mut from, &mut both] {
        let events: [Frame; 2] = two.events().await;
        assert_eq!(ids(&events), ["3", "4"]);
    }
}

/// Acceptance 9.
#[tokio::test]
async fn the_first_frame_says_how_long_to_wait_and_has_no_id() {
    let manager = temporary();
    let server = serve(app(&manager)).await;
    let mut frames = server.frames("/v1/events").await;
    assert_eq!(frames.next().await.unwrap(), "retry: 3000");
    assert_eq!(frames.position().await, "0");
}

/// Acceptance 9.
#[tokio::test]
async fn a_filter_holds_for_replay_and_live() {
    let manager = temporary();
    let both = |id| {
        manager.broadcast(&created(id)).unwrap();
        manager.broadcast(&deleted(id)).unwrap();
        manager
            .broadcast(&MemoryEvent::new(EventType::SyncStarted, id))
            .unwrap();
    };
    both(1);
    let server = serve(app(&manager)).await;
    let path = "/v1/events?event_types=memory_deleted,sync_started";
    let mut of_types = server.frames_behind(path, "0").await;
    let mut of_memory = server.frames_behind("/v1/events?memory_ids=2,3", "0").await;
    both(2);
    let events: [Frame; 4] = of_types.events().await;
    assert_eq!(ids(&events), ["2", "3", "5", "6"]);
    let events: [Frame; 3] = of_memory.events().await;
    assert_eq!(ids(&events), ["4", "5", "6"]);
    let mut tagged = server.frames("/v1/events?tags=tea,milk").await;
    let mut event = created(3);
    event.data = Some(json!({"tags": ["coffee"]}));
    manager.broadcast(&event).unwrap();
    event.data = Some(json!({"tags": ["sugar", "milk"]}));
    manager.broadcast(&event).unwrap();
    let [only] = tagged.events().await;
    assert_eq!(only.id(), Some("8"));
}

#[tokio::test]
async fn what_cannot_be_read_of_a_query_is_said() {
    let server = serve(app(&temporary())).await;
    for path in [
        "/v1/events?event_types=tea",
        "/v1/events?from=tea",
        "/ws?memory_ids=x",
    ] {
        let response = soon(reqwest::get(server.url(path))).await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let text = response.text().await.unwrap();
        let shown = path.split_once('=').unwrap().1;
        assert!(text.contains(&format!("`{shown}`")), "{path}: {text}");
    }
}

/// Acceptance 9.
#[tokio::test]
async fn without_the_token_nobody_enters_and_without_a_manager_there_is_nothing() {
    let config = RealtimeConfig::default().bearer_token("tea");
    let server = serve(router(Some(temporary()), config.clone())).await;
    for path in ["/v1/events", "/ws"] {
        assert_eq!(status(&server, path).await, 401, "{path}");
        let wrong = format!("{path}?access_token=milk");
        assert_eq!(status(&server, &wrong).await, 401, "{path}");
    }
    let request = reqwest::Client::new().get(server.url("/v1/events"));
    let response = soon(request.header("authorization", "Bearer tea").send()).await;
    let mut frames = Frames::of(response.unwrap());
    assert_eq!(frames.next().await.unwrap(), "retry: 3000");
    let mut client = Client::open(&server, "/ws?access_token=tea").await;
    client.say(r#"{"from":"latest"}"#).await;
    assert_eq!(client.next().await["control"], "ack");

    let nothing = router::<MemoryEvent, SubscriptionFilter>(None, config);
    let server = serve(nothing).await;
    assert_eq!(status(&server, "/v1/events?access_token=tea").await, 503);
    assert_eq!(status(&server, "/ws?access_token=tea").await, 503);
    assert_eq!(status(&server, "/v1/events").await, 401);
    assert_eq!(health(&server).await, clients(0));
}

/// Acceptance 11.
#[tokio::test]
async fn a_number_that_is_not_retained_is_answered_with_a_gap() {
    let (manager, oldest) = pruned();
    let server = serve(app(&manager)).await;
    let expected = json!({"reason": "pruned", "requested": 3, "resume_at": oldest});
    let mut frames = server.frames_behind("/v1/events", "2").await;
    let [gap, first] = frames.events().await;
    assert_eq!((gap.id(), gap.name()), (None, Some("gap")));
    assert_eq!(serde_json::from_str::<Value>(gap.data()).unwrap(), expected);
    assert_eq!(first.id(), Some(oldest.to_string().as_str()));

    let mut client = Client::open(&server, "/ws?from=3").await;
    let mut control = expected;
    control["control"] = json!("gap");
    assert_eq!(client.next().await, control);
    assert_eq!(client.next().await["seq_id"], oldest);
}

#[tokio::test]
async fn a_number_beyond_the_end_is_answered_with_a_gap_and_the_sequence_goes_on() {
    let manager = temporary();
    create(&manager, 1..=2);
    let server = serve(app(&manager)).await;
    let mut frames = server.frames_behind("/v1/events", "9").await;
    let [gap] = frames.events().await;
    assert_eq!(
        gap.data(),
        r#"{"reason":"beyond_end","requested":10,"resume_at":3}"#
    );
    let mut client = Client::open(&server, "/ws?from=18446744073709551615").await;
    assert_eq!(client.next().await["resume_at"], 3);
    manager.broadcast(&created(3)).unwrap();
    let [third] = frames.events().await;
    assert_eq!(third.id(), Some("3"));
    assert_eq!(client.next().await["seq_id"], 3);
}

#[tokio::test]
async fn of_durable_events_alone_a_client_hears_when_they_are_durable() {
    let manager = temporary().durable_only(); // flushes when it is asked to
    let server = serve(app(&manager)).await;
    let mut durable = server.frames_behind("/v1/events", "0").await;
    manager.broadcast(&created(1)).unwrap();
    let mut passed: Vec<u64> = Vec::new();
    passed.extend(manager.events_after(0).map(|event| event.unwrap().seq_id));
    assert_eq!(passed, [0; 0], "nothing is durable");
    assert_eq!(
        soon(manager.broadcast_durable(&created(2))).await.unwrap(),
        2
    );
    let events: [Frame; 2] = durable.events().await;
    assert_eq!(ids(&events), ["1", "2"]);
}

// --- WebSocket ---------------------------------------------------------------------

/// Acceptance 10.
#[tokio::test]
async fn a_clients_filter_narrows_what_it_gets() {
    let manager = temporary();
    let server = serve(app(&manager)).await;
    let mut client = Client::open(&server, "/ws").await;
    let mut other = Client::open(&server, "/ws?event_types=memory_deleted").await;
    manager.broadcast(&created(1)).unwrap();
    assert_eq!(client.next().await["seq_id"], 1);

    client
        .say(r#"{"memory_ids":[2],"tags":null,"event_types":null}"#)
        .await;
    let ack = json!({"control": "ack", "filter": true, "resume_at": 2});
    assert_eq!(client.next().await, ack);
    create(&manager, 1..=3);
    manager.broadcast(&deleted(2)).unwrap();
    assert_eq!(client.next().await["seq_id"], 3);
    assert_eq!(client.next().await["seq_id"], 5);
    assert_eq!(other.next().await["seq_id"], 5);
}

#[tokio::test]
async fn a_client_goes_on_where_it_says_at_first_and_later() {
    let manager = temporary();
    create(&manager, 1..=3);
    let server = serve(app(&manager)).await;
    let mut client = Client::open(&server, "/ws?from=2").await;
    assert_eq!(client.next().await["seq_id"], 2);
    assert_eq!(client.next().await["seq_id"], 3);
    client.say(r#"{"from":1,"memory_ids":[1,3]}"#).await;
    let ack = json!({"control": "ack", "filter": true, "resume_at": 1});
    assert_eq!(client.next().await, ack);
    assert_eq!(client.next().await["seq_id"], 1);
    assert_eq!(client.next().await["seq_id"], 3);
    client.say(r#"{"from":"latest"}"#).await;
    let ack = json!({"control": "ack", "filter": false, "resume_at": 4});
    assert_eq!(client.next().await, ack);
    create(&manager, 3..=3);
    assert_eq!(client.next().await["seq_id"], 4);
}

#[tokio::test]
async fn a_text_that_is_not_understood_is_said_and_changes_nothing() {
    let manager = temporary();
    let server = serve(app(&manager)).await;
    let mut client = Client::open(&server, "/ws?memory_ids=1").await;
    for (text, why) in [
        ("tea", "this is no JSON"),
        ("[1]", "send a JSON object"),
        (r#"{"memory_ids":"1"}"#, "this is no filter"),
        (r#"{"from":-1}"#, "`from` is the number of an event"),
        (r#"{"from":"tea","memory_ids":[2]}"#, "`from` is"),
    ] {
        client.say(text).await;
        let answer = client.next().await;
        assert_eq!(answer["control"], "error");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with(why), "{text}: {message}");
    }
    soon(client.0.send(Message::binary(vec![0, 255])))
        .await
        .unwrap();
    assert_eq!(client.next().await["control"], "error");
    create(&manager, 1..=2);
    create(&manager, 1..=1);
    assert_eq!(client.next().await["seq_id"], 1);
    assert_eq!(client.next().await["seq_id"], 3);
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_said_and_the_sequence_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let manager = Manager::open(dir.path()).unwrap();
    manager.log().append(b"tea").unwrap();
    create(&manager, 1..=1);
    let server = serve(app(&manager)).await;
    let mut client = Client::open(&server, "/ws?from=1&memory_ids=1").await;
    let said = client.next().await;
    assert_eq!(
        (&said["control"], &said["id"]),
        (&json!("unreadable"), &json!(1))
    );
    let error = said["error"].as_str().unwrap();
    assert!(
        error.contains("is no faces::memory::MemoryEvent"),
        "{error}"
    );
    assert_eq!(client.next().await["seq_id"], 2);

    let mut frames = server.frames_behind("/v1/events?memory_ids=1", "0").await;
    let [error, second] = frames.events().await;
    assert_eq!((error.id(), error.name()), (Some("1"), Some("error")));
    assert_eq!(second.id(), Some("2"));

    let mut events = manager.subscribe_after(0);
    assert!(soon(events.next()).await.unwrap().is_err());
    assert_eq!(soon(events.next()).await.unwrap().unwrap().seq_id, 2);
}

/// Acceptance 10.
#[tokio::test]
async fn health_counts_the_clients_that_are_connected() {
    let manager = temporary();
    let server = serve(app(&manager)).await;
    assert_eq!(health(&server).await, clients(0));
    let first = Client::open(&server, "/ws").await;
    let mut second = Client::open(&server, "/ws").await;
    let frames = server.frames("/v1/events").await;
    assert_eq!(health(&server).await, clients(3));
    drop((first, frames));
    until(|| manager.client_count() == 1).await;
    assert_eq!(health(&server).await, clients(1));
    soon(second.0.close(None)).await.unwrap();
    until(|| manager.client_count() == 0).await;
    assert_eq!(health(&server).await, clients(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_keeps_nobody_waiting_and_gets_everything_later() {
    const EVENTS: u64 = 8_000;
    let manager = temporary();
    let server = serve(app(&manager)).await;
    let mut slow = Client::open(&server, "/ws").await;
    let mut event = created(1);
    // More, together, than the buffers between a server and its client take.
    event.preview = Some("x".repeat(2_000));
    for _ in 0..EVENTS {
        manager.broadcast(&event).unwrap();
    }
    let mut other = Client::open(&server, "/ws?from=7999").await;
    assert_eq!(other.next().await["seq_id"], EVENTS - 1);
    for expected in 1..=EVENTS {
        assert_eq!(slow.next().await["seq_id"], expected);
    }
}

#[tokio::test]
async fn who_answers_pings_stays_and_who_does_not_is_closed() {
    let manager = temporary();
    let config = RealtimeConfig::default().keep_alive_interval(Duration::from_millis(20));
    let server = serve(router(Some(manager.clone()), config)).await;
    let mut silent = Client::open(&server, "/ws").await;
    let mut alive = Client::open(&server, "/ws").await;
    // Reading is answering, for this client.
    let mut pings = 0;
    while manager.client_count() > 1 || pings < 5 {
        let message = soon(alive.0.next()).await.expect("it stays").unwrap();
        assert!(matches!(message, Message::Ping(_)), "{message:?}");
        pings += 1;
    }
    assert_eq!(silent.closed().await, CloseCode::Policy);
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_everybody_and_says_so() {
    let manager = temporary();
    let server = serve(app(&manager)).await;
    let mut frames = server.frames("/v1/events").await;
    let mut reading = Client::open(&server, "/ws").await;
    let closed = tokio::spawn(async move { reading.closed().await });
    server.stop(|| manager.close()).await;
    assert_eq!(soon(closed).await.unwrap(), CloseCode::Away);
    while frames.next().await.is_some() {}
    until(|| manager.client_count() == 0).await;
}

#[tokio::test]
async fn a_page_of_a_strange_origin_is_not_let_in() {
    let server = serve(app(&temporary())).await;
    let from = |origin: &'static str| {
        let url = format!("ws://{}/ws", server.address);
        let mut request = url.into_client_request().unwrap();
        request
            .headers_mut()
            .insert("origin", origin.parse().unwrap());
        connect_async(request)
    };
    let refused = soon(from("https://evil.example")).await.unwrap_err();
    let tungstenite::Error::Http(response) = refused else {
        panic!("{refused}")
    };
    assert_eq!(response.status(), 403);
    assert!(soon(from("http://localhost:5173")).await.is_ok());

    let request = reqwest::Client::new().get(server.url("/v1/events"));
    let response = soon(request.header("origin", "http://localhost:5173").send());
    let response = response.await.unwrap();
    let allowed = &response.headers()["access-control-allow-origin"];
    assert_eq!(allowed, "http://localhost:5173");
}

// --- In the server itself ----------------------------------------------------------

#[tokio::test]
async fn the_server_reads_and_follows_the_sequence_too() {
    let manager = temporary();
    let mut live = manager.subscribe();
    create(&manager, 1..=3);
    let seqs = |after| {
        let events = manager.events_after(after);
        events
            .map(|event| event.unwrap().seq_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (seqs(0), seqs(2), seqs(3)),
        (vec![1, 2, 3], vec![3], vec![])
    );
    assert_eq!(manager.events_after(9).filter(Result::is_err).count(), 1);
    let mut behind = manager.subscribe_after(1);
    for expected in [2, 3] {
        assert_eq!(soon(behind.next()).await.unwrap().unwrap().seq_id, expected);
    }
    for expected in [1, 2, 3] {
        assert_eq!(soon(live.next()).await.unwrap().unwrap().seq_id, expected);
    }
    manager.log().close().unwrap();
    assert!(soon(live.next()).await.is_none());
}

#[test]
fn clients_are_registered_by_hand_too() {
    let manager = temporary();
    let (id, wanted) = (uuid::Uuid::new_v4(), SubscriptionFilter::default());
    manager.register_client(id, wanted.clone());
    assert_eq!(*manager.get_client_filter(id).unwrap(), wanted);
    let wanted = SubscriptionFilter {
        memory_ids: Some(vec![1]),
        ..wanted
    };
    manager.register_client(id, wanted.clone());
    assert_eq!(*manager.get_client_filter(id).unwrap(), wanted);
    assert_eq!(manager.client_count(), 1);
    assert!(manager.unregister_client(id));
    assert!(!manager.unregister_client(id));
    assert_eq!(manager.client_count(), 0);
}
