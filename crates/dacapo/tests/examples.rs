//! The examples, run as their first lines say, and again where they go on from what is there.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Cargo builds examples beside the tests, unless one test alone is asked for.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap();
    let path = built.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: `cargo test -p dacapo` does that",
        path.display()
    );
    Command::new(path)
}

fn run(name: &str, dir: Option<&Path>) -> String {
    let output = example(name).args(dir).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn replay_then_follow_begins_with_what_the_last_run_sent() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        run("replay_then_follow", Some(dir.path())).lines().count(),
        3
    );
    let again = run("replay_then_follow", Some(dir.path()));
    let lines: Vec<&str> = again.lines().collect();
    assert_eq!(lines.len(), 6);
    assert_eq!(lines[0], r#"Order { id: 0, item: "tea" }"#);
    assert_eq!(lines[5], r#"Order { id: 5, item: "sugar" }"#);
}

#[test]
fn threads_and_smol_need_no_directory() {
    let threads = run("std_threads", None);
    assert_eq!(
        threads.matches("adds up to 2002000").count(),
        3,
        "{threads}"
    );
    let smol = run("smol", None);
    assert!(smol.contains("received safe from a power cut"), "{smol}");
}

#[test]
fn event_sourcing_replays_only_what_its_snapshot_has_not_seen() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = dir.path().join("snapshot.json");
    let last_line = |text: String| text.lines().last().unwrap().to_owned();
    let first = run("event_sourcing", Some(dir.path()));
    assert_eq!(
        last_line(first),
        r#"now Accounts({"ada": 10, "grace": 10})"#
    );
    let second = run("event_sourcing", Some(dir.path()));
    assert!(
        second.contains("snapshot before event 4\nreplayed 0 events"),
        "{second}"
    );
    std::fs::remove_file(snapshot).unwrap();
    let third = run("event_sourcing", Some(dir.path()));
    assert!(third.starts_with("replayed 8 events"), "{third}");
    assert_eq!(
        last_line(third),
        r#"now Accounts({"ada": 30, "grace": 30})"#
    );
}

#[test]
fn each_job_has_one_outcome_and_none_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let text = run("job_queue", Some(dir.path()));
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("0 jobs are open"));
        let mut jobs: Vec<&str> = lines.map(|line| line.split(':').next().unwrap()).collect();
        jobs.sort_unstable();
        jobs.dedup();
        assert_eq!(jobs.len(), 10, "{text}");
    }
}

#[test]
fn a_chat_is_seen_by_all_and_read_again_by_who_comes_late() {
    let dir = tempfile::tempdir().unwrap();
    let join = |name: &str| {
        let mut child = example("chat")
            .args([PathBuf::from(dir.path()), name.into()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        (child, input, output)
    };
    /// Reads until all of `lines` were said, in whatever order.
    fn hears(output: &mut impl Read, lines: &[&str]) {
        let (mut heard, mut byte) = (String::new(), [0]);
        while !lines.iter().all(|line| heard.contains(line)) {
            assert_eq!(
                output.read(&mut byte).unwrap(),
                1,
                "only {heard:?} was said"
            );
            heard.push(byte[0].into());
        }
    }
    let (mut ada, mut says, mut output) = join("ada");
    writeln!(says, "hello").unwrap();
    hears(&mut output, &["ada: hello\n"]);
    let (mut grace, mut answers, mut hearing) = join("grace");
    hears(&mut hearing, &["ada: hello\n"]);
    writeln!(answers, "good morning").unwrap();
    hears(&mut output, &["grace: good morning\n"]);
    drop((says, answers));
    assert!(ada.wait().unwrap().success());
    assert!(grace.wait().unwrap().success());
}
