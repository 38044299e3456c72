//! A server that is killed, and started again in the same place.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use dacapo_log::{Log, Start, Topic};
use dacapo_server::phoenix::Limits;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use tokio::sync::watch;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Server, soon};
use crate::npm::{Node, Way, ways};
use crate::rooms::phoenix;

const DIR: &str = "DACAPO_TEST_PHOENIX_DIR";
const ADDRESS: &str = "DACAPO_TEST_PHOENIX_ADDRESS";
/// For how many seconds a client may be silent.
const PATIENCE: &str = "DACAPO_TEST_PHOENIX_PATIENCE";

/// The server that is killed: this program again.
struct Victim {
    process: Child,
    address: SocketAddr,
}

impl Victim {
    async fn start(dir: &std::path::Path, address: &str) -> Self {
        let minute = Duration::from_secs(60);
        Self::with_patience(dir, address, minute).await
    }

    /// One that gives up clients of whom it has heard nothing for so long.
    async fn with_patience(dir: &std::path::Path, address: &str, patience: Duration) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "killed::the_server_that_is_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(DIR, dir)
            .env(ADDRESS, address)
            .env(PATIENCE, patience.as_secs().to_string())
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
    let patience = std::env::var(PATIENCE).unwrap().parse().unwrap();
    limits.idle = Duration::from_secs(patience);
    limits.poll_session = limits.idle;
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

/// What five tabs see of who is there.
struct Tabs {
    node: Node,
    way: Way,
    /// What each was told last, since its channel broke.
    seen: HashMap<String, Value>,
}

impl Tabs {
    /// Another tab of a user.
    async fn open(&mut self, tab: &str, user: &str) {
        let Way { transport, vsn, .. } = self.way;
        // More often than the server gives up the silent.
        let options = json!({"params": {"user": user}, "heartbeatIntervalMs": 200});
        for what in [
            json!({"do": "connect", "socket": tab, "transport": transport, "vsn": vsn, "options": options}),
            json!({"do": "join", "socket": tab, "channel": tab, "topic": "lobby", "presence": true}),
        ] {
            self.node.tell(what).await;
        }
    }

    /// A tab ends: in silence, or so that the server sees its connection vanish, or while it is gone.
    async fn end(&mut self, tab: &str, how: &str) {
        let how = match (how, self.way.transport) {
            // It has no connection that could.
            ("vanish", "longpoll") => "silence",
            _ => how,
        };
        self.node.tell(json!({"do": how, "socket": tab})).await;
        while how == "gone" && self.next().await != (tab.to_owned(), how.to_owned()) {}
    }

    async fn next(&mut self) -> (String, String) {
        let told = self.node.next().await;
        let [tab, event] = ["of", "event"].map(|key| told[key].as_str().unwrap().to_owned());
        match event.as_str() {
            "present" => drop(self.seen.insert(tab.clone(), told["payload"].clone())),
            "phx_error" => drop(self.seen.remove(&tab)),
            _ => {}
        }
        (tab, event)
    }

    /// Waits until these tabs see this, and the same.
    async fn see(&mut self, tabs: &[&str], there: Value) {
        while !tabs.iter().all(|tab| self.seen.get(*tab) == Some(&there)) {
            self.next().await;
        }
    }

    /// Waits until these tabs know that their server has died.
    async fn break_off(&mut self, tabs: &[&str]) {
        let mut whole: HashSet<_> = tabs.iter().map(|tab| (*tab).to_owned()).collect();
        while !whole.is_empty() {
            let (tab, event) = self.next().await;
            if event == "phx_error" {
                whole.remove(&tab);
            }
        }
    }
}

#[tokio::test]
async fn presence_is_right_for_three_users_in_five_tabs_through_deaths_of_clients_and_of_the_server()
 {
    for way in ways() {
        let dir = tempfile::tempdir().unwrap();
        let patience = Duration::from_secs(3);
        let victim = Victim::with_patience(dir.path(), "127.0.0.1:0", patience).await;
        let Some(node) = Node::start(way.package, victim.address) else {
            return;
        };
        let seen = HashMap::new();
        let mut tabs = Tabs { node, way, seen };
        for (tab, user) in [
            ("a1", "ann"),
            ("b1", "bob"),
            ("b2", "bob"),
            ("c1", "cleo"),
            ("c2", "cleo"),
        ] {
            tabs.open(tab, user).await;
        }
        let there = |bobs: u32, cleos: u32| {
            let all = [("ann", 1), ("bob", bobs), ("cleo", cleos)];
            let all = all.into_iter().filter(|(_, tabs)| *tabs > 0);
            all.map(|(user, tabs)| json!([user, tabs, null])).collect()
        };
        tabs.see(&["a1", "b1", "b2", "c1", "c2"], there(2, 2)).await;
        tabs.end("b2", "silence").await;
        tabs.see(&["a1", "b1", "c1", "c2"], there(1, 2)).await;

        let address = victim.kill().await;
        tabs.break_off(&["a1", "b1", "c1", "c2"]).await;
        let victim = Victim::with_patience(dir.path(), &address, patience).await;
        tabs.see(&["a1", "b1", "c1", "c2"], there(1, 2)).await;
        tabs.end("c1", "vanish").await;
        tabs.see(&["a1", "b1", "c2"], there(1, 1)).await;
        tabs.open("b3", "bob").await;
        tabs.see(&["a1", "b1", "b3", "c2"], there(2, 1)).await;

        // Who dies while there is no server is not there afterwards, and nobody was told.
        let address = victim.kill().await;
        tabs.break_off(&["a1", "b1", "b3", "c2"]).await;
        tabs.end("c2", "gone").await;
        let _victim = Victim::with_patience(dir.path(), &address, patience).await;
        tabs.see(&["a1", "b1", "b3"], there(2, 0)).await;
    }
}

/// A topic that many publish to.
const TOPIC: &str = "kept:storm";

/// Where the server is, again and again: the number of its life.
#[derive(Clone)]
struct Lives {
    address: SocketAddr,
    life: watch::Receiver<u32>,
}

impl Lives {
    /// Joins the topic, in this life or a later one.
    async fn join(&mut self, params: Value) -> Client {
        loop {
            self.life.borrow_and_update();
            let url = format!("ws://{}/socket/websocket?vsn=2.0.0", self.address);
            if let Ok((stream, _)) = connect_async(url).await {
                let mut client = Client(stream);
                let join = json!(["1", "1", TOPIC, "phx_join", params]);
                if told(&mut client, join).await && answered(&mut client, "1").await {
                    return client;
                }
            }
            soon(self.life.changed()).await.unwrap();
        }
    }
}

/// Whether the server could be told.
async fn told(client: &mut Client, message: Value) -> bool {
    let sent = client.0.send(Message::text(message.to_string())).await;
    sent.is_ok()
}

/// What a server says next, unless it is killed before.
async fn heard(client: &mut Client) -> Option<Value> {
    let frame = soon(client.0.next()).await?.ok()?;
    serde_json::from_str(frame.to_text().ok()?).ok()
}

/// Whether a server says ok to this reference.
async fn answered(client: &mut Client, reference: &str) -> bool {
    while let Some(said) = heard(client).await {
        if said[1] == reference {
            return said[4]["status"] == "ok";
        }
    }
    false
}

/// Publishes until it is told that all is over; what was acknowledged.
async fn publish(
    mut lives: Lives,
    name: usize,
    acknowledged: watch::Sender<usize>,
    over: CancellationToken,
) -> Vec<Value> {
    let mut kept = Vec::new();
    let mut n = 0;
    while !over.is_cancelled() {
        let mut client = lives.join(json!({})).await;
        while !over.is_cancelled() {
            let message = json!({"of": name, "n": n});
            n += 1;
            let push = json!(["1", "2", TOPIC, "new:msg", message]);
            if !told(&mut client, push).await || !answered(&mut client, "2").await {
                break;
            }
            kept.push(message);
            acknowledged.send_modify(|acknowledged| *acknowledged += 1);
        }
    }
    kept
}

/// Reads from the first message to the one that is the last, through all lives of the server.
async fn follow(mut lives: Lives) -> Vec<Value> {
    let mut history = Vec::new();
    let mut seen = json!(-1);
    loop {
        let mut client = lives.join(json!({"last_seen_id": seen})).await;
        while let Some(said) = heard(&mut client).await {
            assert_eq!(said[3], "new:msg", "{said}");
            seen = said[4]["offset"].clone();
            history.push(said[4].clone());
            if said[4]["last"] == true {
                return history;
            }
        }
    }
}

#[tokio::test]
async fn through_many_kills_every_client_ends_with_the_same_complete_history() {
    const KILLS: u32 = 8;
    let dir = tempfile::tempdir().unwrap();
    let mut victim = Victim::start(dir.path(), "127.0.0.1:0").await;
    let (living, life) = watch::channel(0);
    let lives = Lives {
        address: victim.address,
        life,
    };
    let (acknowledged, mut count) = watch::channel(0);
    let over = CancellationToken::new();
    let publishers: Vec<_> = (0..5)
        .map(|name| {
            tokio::spawn(publish(
                lives.clone(),
                name,
                acknowledged.clone(),
                over.clone(),
            ))
        })
        .collect();
    let followers: Vec<_> = (0..20)
        .map(|_| tokio::spawn(follow(lives.clone())))
        .collect();
    for life in 1..=KILLS {
        // In the midst of it.
        let enough = *count.borrow() + 50;
        soon(count.wait_for(|count| *count >= enough))
            .await
            .unwrap();
        let address = victim.kill().await;
        victim = Victim::start(dir.path(), &address).await;
        living.send_replace(life);
    }
    over.cancel();
    let mut kept = Vec::new();
    for publisher in publishers {
        kept.extend(publisher.await.unwrap());
    }
    let mut last = lives.clone().join(json!({})).await;
    let push = json!(["1", "2", TOPIC, "new:msg", {"last": true}]);
    assert!(told(&mut last, push).await && answered(&mut last, "2").await);

    let mut histories = Vec::new();
    for follower in followers {
        histories.push(follower.await.unwrap());
    }
    victim.kill().await;
    let log = Log::open(dir.path()).unwrap();
    let stored = log.replay(Start::Oldest).topic(&Topic::new(TOPIC).unwrap());
    let stored: Vec<Value> = stored
        .map(|record| {
            let record = record.unwrap();
            let (_, mut payload): (String, Value) =
                serde_json::from_slice(record.payload()).unwrap();
            payload["offset"] = json!(record.offset().get());
            payload
        })
        .collect();
    for history in histories {
        assert!(
            history == stored,
            "{} messages of {}",
            history.len(),
            stored.len()
        );
    }
    for message in kept {
        let found = stored
            .iter()
            .any(|stored| stored["of"] == message["of"] && stored["n"] == message["n"]);
        assert!(found, "{message} was acknowledged");
    }
}
