//! The example `chat`, as a process that is killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::{Frame, Frames, soon};

/// `cargo test` builds examples beside the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap();
    built.join("examples/chat")
}

struct Chat {
    process: Child,
    url: String,
}

impl Chat {
    async fn start(dir: &Path, address: &str) -> Self {
        let mut process = Command::new(program())
            .arg(dir)
            .arg(address)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("`cargo test --all-targets` builds the example");
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = soon(said.next_line()).await.unwrap();
        Self {
            process,
            url: url.expect("it says where it is"),
        }
    }

    /// The address of it, for the next one.
    fn address(&self) -> SocketAddr {
        let host = self.url.trim_start_matches("http://");
        host.trim_end_matches("/lobby").parse().unwrap()
    }

    async fn kill(mut self) {
        soon(self.process.kill()).await.unwrap();
    }

    async fn say(&self, text: &str) {
        let request = reqwest::Client::new().post(&self.url);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = soon(request.body(format!("name=Ada&text={text}")).send()).await;
        assert_eq!(response.unwrap().status(), 204);
    }

    async fn follow(&self, last_event_id: &str) -> Frames {
        Frames::open(&format!("{}/events", self.url), Some(last_event_id)).await
    }
}

fn line(event: &Frame) -> (&str, Value) {
    let data = serde_json::from_str(event.data()).unwrap();
    (event.id().unwrap(), data)
}

#[tokio::test]
async fn what_was_said_survives_a_killed_server_and_clients_go_on_behind_what_they_have_seen() {
    let dir = tempfile::tempdir().unwrap();
    let chat = Chat::start(dir.path(), "127.0.0.1:0").await;
    chat.say("one").await;
    chat.say("two").await;
    let mut frames = chat.follow("-1").await;
    let [one] = frames.events().await;
    assert_eq!(line(&one), ("0", json!({"name": "Ada", "text": "one"})));
    let address = chat.address().to_string();
    chat.kill().await;

    let chat = Chat::start(dir.path(), &address).await;
    let mut frames = chat.follow("0").await;
    let [two] = frames.events().await;
    assert_eq!(line(&two), ("1", json!({"name": "Ada", "text": "two"})));
    chat.say("three").await;
    let [three] = frames.events().await;
    assert_eq!(line(&three), ("2", json!({"name": "Ada", "text": "three"})));
}
