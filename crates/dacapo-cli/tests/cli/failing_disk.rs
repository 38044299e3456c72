//! A disk that fails under the log. strace makes it fail; without strace, this says so loudly.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use tempfile::tempdir;

use crate::process::{Appender, append, cat, text};

#[test]
fn a_failed_sync_ends_the_append_and_loses_nothing_acknowledged() {
    if !can_trace() {
        // Past the test harness, which hides what a passing test prints.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: a failing disk needs strace, and it does not run"
        );
        return;
    }
    for failing_sync in [6, 9, 20] {
        let dir = tempdir().unwrap();
        let mut command = Command::new("strace");
        command
            .args(["-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"])
            .arg(format!("inject=fdatasync:error=EIO:when={failing_sync}"))
            .arg(env!("CARGO_BIN_EXE_dacapo"))
            .args(["append", "--durable", "--acks"])
            .arg(dir.path());
        let mut appender = Appender::spawn(command);

        // One line, one sync: until the one that fails.
        let mut acknowledged = 0;
        for number in 0..40 {
            if !appender.feed(format!("line {number}\n").as_bytes()) {
                break;
            }
            match appender.acknowledged() {
                Some(records) => acknowledged = records,
                None => break,
            }
        }

        let (status, said) = appender.ended();
        assert_eq!(status.code(), Some(1), "{status}: {said}");
        assert!(
            said.contains("dacapo: ") && said.contains("Input/output error"),
            "{said}"
        );
        assert!(acknowledged < 40, "it acknowledged what was not synced");
        assert!(
            failing_sync < 20 || acknowledged > 0,
            "it acknowledged nothing"
        );
        let expected: String = (0..acknowledged)
            .map(|number| format!("line {number}\n"))
            .collect();
        let stored = text(&cat(dir.path()));
        assert!(
            stored.starts_with(&expected),
            "{acknowledged} acknowledged: {stored}"
        );

        append(dir.path(), b"after the failure\n");
        let stored = text(&cat(dir.path()));
        assert!(
            stored.starts_with(&expected),
            "{acknowledged} acknowledged: {stored}"
        );
        assert!(stored.ends_with("after the failure\n"), "{stored}");
    }
}

fn can_trace() -> bool {
    Command::new("strace")
        .args([
            "-f",
            "-o",
            "/dev/null",
            env!("CARGO_BIN_EXE_dacapo"),
            "--version",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
