//! The example `chat`, as a process that is killed.

#[path = "../../examples/web_chat.rs"]
#[expect(dead_code, reason = "its `main` is another one's")]
mod example;

use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::client::{Frame, Frames, soon};

/// The server's process is this program again, which runs the test below alone.
const DIRECTORY: &str = "DACAPO_CHAT_DIRECTORY";
const ADDRESS: &str = "DACAPO_CHAT_ADDRESS";

#[tokio::test]
async fn serve_where_the_environment_says_so() {
    let (Ok(dir), Ok(address)) = (env::var(DIRECTORY), env::var(ADDRESS)) else {
        return; // nobody has asked for a server
    };
    let listener = TcpListener::bind(address).await.unwrap();
    // Behind what the harness has begun to say.
    println!("\nhttp://{}/lobby", listener.local_addr().unwrap());
    let rooms = example::Rooms::open(dir).unwrap();
    axum::serve(listener, example::app(rooms)).await.unwrap();
}

struct Chat {
    process: Child,
    url: String,
}

impl Chat {
    async fn start(dir: &Path, address: &str) -> Self {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "chat::serve_where_the_environment_says_so"])
            .arg("--nocapture")
            .env(DIRECTORY, dir)
            .env(ADDRESS, address)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = loop {
            let line = soon(said.next_line()).await.unwrap();
            let line = line.expect("it says where it is");
            if line.starts_with("http://") {
                break line;
            }
        };
        Self { process, url }
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
