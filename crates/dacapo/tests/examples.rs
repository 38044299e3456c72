//! The examples, run as their first lines say, and again where they go on from what is there.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Cargo builds examples beside the tests, unless it is asked for one test, or for all targets.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap();
    let path = built.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not built: `cargo build -p dacapo --examples` does that",
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

#[cfg(feature = "cursors")]
#[test]
fn a_consumer_goes_on_where_it_committed_and_a_ledger_knows_what_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = run("resume", Some(dir.path()));
    assert_eq!(
        first,
        "3 orders to bill\nbilled tea\nbilled milk\n1 left for the next run\n"
    );
    let second = run("resume", Some(dir.path()));
    assert_eq!(
        second,
        "4 orders to bill\nbilled sugar\nbilled tea\n2 left for the next run\n"
    );

    let dir = tempfile::tempdir().unwrap();
    run("exactly_once", Some(dir.path()));
    let ledger = dir.path().join("ledger.txt");
    // Killed in the middle of a line, and the cursors gone.
    let mut torn = std::fs::OpenOptions::new()
        .append(true)
        .open(&ledger)
        .unwrap();
    write!(torn, "3 4").unwrap();
    std::fs::remove_dir_all(dir.path().join("cursors")).unwrap();
    std::fs::remove_file(dir.path().join("cursors.list")).unwrap();
    assert_eq!(
        run("exactly_once", Some(dir.path())),
        "entered 3 payments\n"
    );
    let entered = std::fs::read_to_string(&ledger).unwrap();
    assert_eq!(entered, "0 10\n1 20\n2 30\n3 10\n4 20\n5 30\n");
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
