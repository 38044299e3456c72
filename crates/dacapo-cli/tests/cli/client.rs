//! Clients of npm, each under node: what others have written, and people use.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::process::{spawn_watched, tell};

/// One client; killed when it is dropped.
pub(crate) struct Client {
    child: Child,
    input: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// An `EventSource`, which tells of events of these names.
    pub(crate) fn event_source(url: &str, names: &[&str]) -> Option<Self> {
        Self::start("eventsource", "eventsource", url, &json!({"names": names}))
    }

    pub(crate) fn web_socket(url: &str, headers: &Value) -> Option<Self> {
        Self::start("websocket", "ws", url, &json!({"headers": headers}))
    }

    /// A socket of phoenix.js with one channel, which it joins from the oldest message, or behind the
    /// last one that it has seen.
    pub(crate) fn phoenix(url: &str, topic: &str, socket: &Value) -> Option<Self> {
        let options = json!({"topic": topic, "socket": socket});
        Self::start("phoenix", "phoenix", url, &options)
    }

    /// `None`, and a word of it, where node or a package is not there.
    fn start(kind: &str, package: &str, url: &str, options: &Value) -> Option<Self> {
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/npm");
        let npm = std::env::var_os("DACAPO_NPM").map_or(here.into(), PathBuf::from);
        for needed in [package, "ws"] {
            if !npm.join("node_modules").join(needed).exists() {
                tell(format_args!(
                    "SKIPPED: this test needs npm's {needed} in {}: npm install eventsource phoenix@1.8 ws",
                    npm.display()
                ));
                return None;
            }
        }
        let mut child = spawn_watched(
            Command::new("node")
                .args(["--input-type=module", "-e", include_str!("client.mjs")])
                .current_dir(npm)
                .envs([
                    ("KIND", kind),
                    ("URL", url),
                    ("OPTIONS", &options.to_string()),
                ])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let input = child.stdin.take().unwrap();
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self { child, input, told })
    }

    /// What it sees next.
    pub(crate) fn next(&mut self) -> Value {
        let line = self.told.next().expect("it ended").unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Passes over what it sees until it is this.
    pub(crate) fn until(&mut self, awaited: &Value) {
        while self.next() != *awaited {}
    }

    pub(crate) fn send(&mut self, what: &Value) {
        writeln!(self.input, "{what}").unwrap();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
