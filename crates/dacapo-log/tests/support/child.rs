//! A test's own program, run again as a child process: one that can be killed, and whose death by a
//! signal is seen.
//!
//! A child says lines on its standard output, and gets orders on its standard input.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Far more than any child takes for a step: one that says nothing for so long hangs.
const HANGS: Duration = Duration::from_secs(120);
const ORDERS: &str = "DACAPO_CHILD";
/// Sets what a child says apart from what its test harness says, on the same line too.
const SAYS: &str = "child> ";

/// What this process was started for, if it is a child.
pub(crate) fn orders() -> Option<Vec<String>> {
    let orders = std::env::var(ORDERS).ok()?;
    Some(orders.split('\n').map(str::to_owned).collect())
}

/// Says lines to the parent, all at once.
pub(crate) fn say(lines: &[String]) {
    let text: String = lines.iter().map(|line| format!("{SAYS}{line}\n")).collect();
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Waits for a line from the parent, which may kill this process instead.
pub(crate) fn wait_for_order() -> String {
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

pub(crate) struct Child {
    process: std::process::Child,
    said: Receiver<String>,
    stderr: JoinHandle<String>,
}

impl Child {
    /// Runs one test of this program, which finds its [`orders`].
    pub(crate) fn start<const N: usize>(test: &str, orders: [&str; N]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(ORDERS, orders.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, said) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(SAYS) {
                    // Nobody listens to the rest where the test has failed.
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        let mut stderr = process.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        });
        Self {
            process,
            said,
            stderr,
        }
    }

    /// What it says next; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        match self.said.recv_timeout(HANGS) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let _ = self.process.kill();
                panic!("process {} hangs", self.process.id());
            }
        }
    }

    pub(crate) fn order(&mut self, line: &str) {
        // A child that is gone is noticed by whoever waits for its answer.
        let _ = writeln!(self.process.stdin.as_mut().unwrap(), "{line}");
    }

    /// Kills it, and returns what it had still said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        let stderr = self.stderr.join().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {stderr}");
        self.said.iter().collect()
    }

    /// Waits for it to end well, and returns what it had still said.
    pub(crate) fn end(mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(line) = self.line() {
            said.push(line);
        }
        let status = self.process.wait().unwrap();
        let stderr = self.stderr.join().unwrap();
        // `status` says it where a signal killed the process.
        assert!(status.success(), "{status} behind {said:?}: {stderr}");
        said
    }
}
