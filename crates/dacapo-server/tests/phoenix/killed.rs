//! A server that is killed, and started again in the same place.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use dacapo_log::Log;
use dacapo_server::phoenix::Limits;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::{Server, soon};
use crate::npm::{Node, ways};
use crate::rooms::phoenix;

const DIR: &str = "DACAPO_TEST_PHOENIX_DIR";
const ADDRESS: &str = "DACAPO_TEST_PHOENIX_ADDRESS";

/// The server that is killed: this program again.
struct Victim {
    process: Child,
    address: SocketAddr,
}

impl Victim {
    async fn start(dir: &std::path::Path, address: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "killed::the_server_that_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(DIR, dir)
            .env(ADDRESS, address)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut told = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = soon(told.next_line()).await.unwrap().expect("it serves");
            if let Some(address) = line.strip_prefix("serving on ") {
                break address.parse().unwrap();
            }
        };
        Self { process, address }
    }

    async fn kill(mut self) -> String {
        self.process.kill().await.unwrap();
        self.address.to_string()
    }
}

#[tokio::test]
#[ignore = "other tests start it as a process of its own"]
async fn the_server_that_is_killed() {
    let (Ok(dir), Ok(address)) = (std::env::var(DIR), std::env::var(ADDRESS)) else {
        return;
    };
    let log = Log::open(dir).unwrap();
    let mut limits = Limits::default();
    limits.poll = Duration::from_secs(2);
    let (phoenix, _told) = phoenix(&log, limits);
    let server = Server::at(&address, &phoenix).await;
    println!("\nserving on {}", server.address);
    std::future::pending::<()>().await;
}

/// Acceptance 15 and 16.
#[tokio::test]
async fn a_client_comes_back_by_itself_and_gets_exactly_what_it_has_missed() {
    for way in ways() {
        let dir = tempfile::tempdir().unwrap();
        let victim = Victim::start(dir.path(), "127.0.0.1:0").await;
        let Some(mut node) = Node::start(way.package, victim.address) else {
            return;
        };
        node.connect("s", way, json!({})).await;
        node.join("s", "a", "kept:a", json!({})).await;
        node.sees("a", "join ok").await;
        let mut n = 0;
        let mut victim = victim;
        for _ in 0..3 {
            node.push("a", "new:msg", json!({"n": n})).await;
            assert_eq!(node.sees("a", "new:msg").await["n"], n);
            node.sees("a", "push ok").await;
            n += 1;
            let address = victim.kill().await;
            // What it has missed: another writer was there in the meantime.
            let log = Log::open(dir.path()).unwrap();
            let (phoenix, _told) = phoenix(&log, Limits::default());
            for _ in 0..10 {
                phoenix
                    .broadcaster()
                    .broadcast("kept:a", "new:msg", json!({"n": n}))
                    .await
                    .unwrap();
                phoenix
                    .broadcaster()
                    .broadcast("kept:b", "new:msg", json!({}))
                    .await
                    .unwrap();
                n += 1;
            }
            drop((phoenix, log));
            victim = Victim::start(dir.path(), &address).await;
            let mut missed = n - 10;
            while missed < n {
                let told = node.next().await;
                match told["event"].as_str().unwrap() {
                    "new:msg" => {
                        assert_eq!(told["payload"]["n"], missed, "{way:?}");
                        missed += 1;
                    }
                    "open" | "phx_error" | "join ok" | "join timeout" => {}
                    other => panic!("{other}: {told}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn who_was_present_is_present_again_after_a_restart_and_once() {
    for way in ways() {
        let dir = tempfile::tempdir().unwrap();
        let mut victim = Victim::start(dir.path(), "127.0.0.1:0").await;
        let Some(mut node) = Node::start(way.package, victim.address) else {
            return;
        };
        for (socket, user) in [("one", "ann"), ("two", "bob"), ("three", "bob")] {
            let options = json!({"params": {"user": user}});
            node.connect(socket, way, options).await;
        }
        for socket in ["one", "two", "three"] {
            let lobby = json!({"do": "join", "socket": socket, "channel": socket, "topic": "lobby", "presence": true});
            node.tell(lobby).await;
        }
        let both = json!([["ann", 1, null], ["bob", 2, null]]);
        node.until("one", "present", &both).await;
        let address = victim.kill().await;
        victim = Victim::start(dir.path(), &address).await;
        // Not of what it knew before.
        while node.next().await["event"] != "phx_error" {}
        node.until("one", "join ok", &json!({})).await;
        node.until("one", "present", &both).await;
        drop(victim);
    }
}
