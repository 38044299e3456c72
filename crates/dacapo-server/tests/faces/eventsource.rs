//! The `EventSource` of npm, as browsers have it, under node.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use dacapo::{Broadcaster, Start};
use dacapo_server::{Event, LastEventId, Sse, SseConfig};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::client::{serve, serve_on, skipped, soon};

struct EventSource {
    /// Ends with its input.
    _node: Child,
    told: Lines<BufReader<ChildStdout>>,
}

impl EventSource {
    /// `None` where node or the package is not there.
    fn open(url: &str, names: &str) -> Option<Self> {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/npm");
        let npm = std::env::var_os("DACAPO_NPM").map_or(here.into(), PathBuf::from);
        if !npm.join("node_modules/eventsource").exists() {
            skipped(&format!(
                "a real EventSource takes node, and npm's eventsource in {}",
                npm.display()
            ));
            return None;
        }
        let node = Command::new("node")
            .args(["--input-type=module", "-e"])
            .arg(include_str!("eventsource.mjs"))
            .current_dir(npm)
            .envs([("ADDRESS", url), ("NAMES", names)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut node) = node else {
            skipped("a real EventSource takes node");
            return None;
        };
        let told = BufReader::new(node.stdout.take().unwrap()).lines();
        Some(Self { _node: node, told })
    }

    async fn next(&mut self) -> Value {
        let line = soon(self.told.next_line()).await.unwrap();
        serde_json::from_str(&line.expect("it goes on")).unwrap()
    }
}

/// Acceptance 6.
#[tokio::test]
async fn an_event_source_puts_lines_together_again() {
    let texts = [
        "tea\nmilk",
        "",
        " indented\r\n\ncolon: x\n",
        "id: 9\rretry: 1",
    ];
    let all = move || async move {
        let texts = stream::iter(texts.into_iter().zip(1..));
        let events =
            texts.map(|(text, id)| Event::new(id.to_string(), "order").map(|e| e.data(text)));
        Sse::new(events.chain(stream::pending()))
    };
    let server = serve(Router::new().route("/", get(all))).await;
    let Some(mut source) = EventSource::open(&server.url("/"), "order") else {
        return;
    };
    assert_eq!(source.next().await, json!({"opened": true}));
    let arrived = [
        "tea\nmilk",
        "",
        " indented\n\ncolon: x\n",
        "id: 9\nretry: 1",
    ];
    for (text, id) in arrived.into_iter().zip(1..) {
        let expected = json!({"name": "order", "id": id.to_string(), "data": text});
        assert_eq!(source.next().await, expected);
    }
}

type Rooms = Broadcaster<String, String>;

fn lobby(rooms: &Rooms) -> Router {
    let rooms = rooms.clone();
    let follow = async move |last: LastEventId| {
        let start = match last.0.as_deref() {
            // As an id that it has from another log.
            Some("2") => Start::AtOrOldest(dacapo::Offset::new(100)),
            _ => last.start(),
        };
        let subscription = rooms.subscribe_from("lobby", start).unwrap();
        let config = SseConfig::default().retry(Duration::from_millis(10));
        let line = |text: String| Ok(Event::named("line")?.data(text));
        Sse::subscription(subscription, line).config(config)
    };
    Router::new().route("/", get(follow))
}

/// Acceptance 5.
#[tokio::test]
async fn an_event_source_comes_back_by_itself_after_a_restart_and_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let rooms = Rooms::open(dir.path()).unwrap();
    let server = serve(lobby(&rooms)).await;
    let address = server.address;
    let Some(mut source) = EventSource::open(&server.url("/"), "line,gap") else {
        return;
    };
    assert_eq!(source.next().await, json!({"opened": true}));
    // Before the first message.
    server.stop(|| rooms.log().close().unwrap()).await;

    let rooms = Rooms::open(dir.path()).unwrap();
    rooms.send("lobby", "one").unwrap();
    rooms.send("lobby", "two\nlines").unwrap();
    let server = serve_on(address, lobby(&rooms)).await;
    assert_eq!(source.next().await, json!({"opened": true}));
    let line = |id: u64, text: &str| json!({"name": "line", "id": id.to_string(), "data": text});
    assert_eq!(source.next().await, line(0, "one"));
    assert_eq!(source.next().await, line(1, "two\nlines"));
    rooms.send("lobby", "three").unwrap();
    assert_eq!(source.next().await, line(2, "three"));
    server.stop(|| rooms.log().close().unwrap()).await;

    let rooms = Rooms::open(dir.path()).unwrap();
    let _server = serve_on(address, lobby(&rooms)).await;
    assert_eq!(source.next().await, json!({"opened": true}));
    let gap = r#"{"reason":"beyond_end","requested":100,"resume_at":3}"#;
    let told = source.next().await;
    assert_eq!((&told["name"], &told["data"]), (&json!("gap"), &json!(gap)));
    rooms.send("lobby", "four").unwrap();
    assert_eq!(source.next().await, line(3, "four"));
}
