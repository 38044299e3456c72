//! The npm package `phoenix`, under node.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::client::soon;

/// The packages that clients have: 1.8, and 1.7 under a name of its own.
pub(crate) const PACKAGES: [&str; 2] = ["phoenix", "phoenix17"];

/// How a client of phoenix.js connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) package: &'static str,
    pub(crate) transport: &'static str,
    pub(crate) vsn: &'static str,
}

/// All of them: over long-poll, phoenix.js speaks version 2 only.
pub(crate) fn ways() -> impl Iterator<Item = Way> {
    let transports = [
        ("websocket", "2.0.0"),
        ("websocket", "1.0.0"),
        ("longpoll", "2.0.0"),
    ];
    PACKAGES.into_iter().flat_map(move |package| {
        transports.map(|(transport, vsn)| Way {
            package,
            transport,
            vsn,
        })
    })
}

/// Clients of phoenix.js in one process.
pub(crate) struct Node {
    _node: Child,
    input: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

impl Node {
    /// `None`, and a word of it, where node or the packages are not there.
    pub(crate) fn start(package: &str, address: SocketAddr) -> Option<Self> {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/npm");
        let npm = std::env::var_os("DACAPO_NPM").map_or(here.into(), PathBuf::from);
        for needed in [package, "ws"] {
            if !npm.join("node_modules").join(needed).exists() {
                skipped(&format!("npm's {needed} is not in {}", npm.display()));
                return None;
            }
        }
        let node = Command::new("node")
            .args(["-e", include_str!("phoenix.cjs")])
            .current_dir(npm)
            .envs([("ADDRESS", &*address.to_string()), ("PACKAGE", package)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let Ok(mut node) = node else {
            skipped("there is no node");
            return None;
        };
        let input = node.stdin.take().unwrap();
        let told = BufReader::new(node.stdout.take().unwrap()).lines();
        Some(Self {
            _node: node,
            input,
            told,
        })
    }

    pub(crate) async fn tell(&mut self, what: Value) {
        self.input
            .write_all(format!("{what}\n").as_bytes())
            .await
            .unwrap();
    }

    pub(crate) async fn connect(&mut self, socket: &str, way: Way, options: Value) {
        let Way { transport, vsn, .. } = way;
        self.tell(json!({"do": "connect", "socket": socket, "transport": transport, "vsn": vsn, "options": options}))
            .await;
        self.sees(socket, "open").await;
    }

    pub(crate) async fn join(&mut self, socket: &str, channel: &str, topic: &str, params: Value) {
        self.tell(json!({"do": "join", "socket": socket, "channel": channel, "topic": topic, "params": params}))
            .await;
    }

    pub(crate) async fn push(&mut self, channel: &str, event: &str, payload: Value) {
        self.tell(json!({"do": "push", "channel": channel, "event": event, "payload": payload}))
            .await;
    }

    pub(crate) async fn next(&mut self) -> Value {
        let line = soon(self.told.next_line()).await.unwrap();
        serde_json::from_str(&line.expect("it goes on")).unwrap()
    }

    /// Passes over what is seen until `of` sees this.
    pub(crate) async fn until(&mut self, of: &str, event: &str, payload: &Value) {
        let awaited = json!({"of": of, "event": event, "payload": payload});
        while self.next().await != awaited {}
    }

    /// The next that is seen by `of`: it must be this event. What it carries.
    #[track_caller]
    pub(crate) fn sees(&mut self, of: &str, event: &str) -> impl Future<Output = Value> {
        let line = std::panic::Location::caller().line();
        let (of, event) = (of.to_owned(), event.to_owned());
        async move {
            let told = self.next().await;
            assert_eq!(
                (&told["of"], &told["event"]),
                (&json!(of), &json!(event)),
                "line {line}: {told}"
            );
            told["payload"].clone()
        }
    }
}

/// Says loudly, also where the output of tests that pass is not shown, what was not tested.
fn skipped(why: &str) {
    // The harness catches what `eprintln!` writes, and not this.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: {why}; npm install phoenix@1.8 phoenix17@npm:phoenix@1.7 ws"
    );
}
