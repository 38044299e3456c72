//! Following a log from another process.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use tempfile::{TempDir, tempdir};

use crate::keystrokes;
use crate::process::{Appender, append, dacapo, expect_code, run, spawn_watched, stat, text};

#[test]
fn a_tailer_in_another_process_sees_each_of_a_million_records_once() {
    const RECORDS: u64 = 1_000_000;
    let dir = tempdir().unwrap();
    let mut appender = Appender::start(dir.path(), &["--segment-bytes-max", "1M"]);
    assert!(appender.feed(b"record 0\n"));
    appender.wait_for(1);
    let mut tail = tail(&dir, &["--count", "1000000"]);

    let mut input = String::new();
    for number in 1..RECORDS {
        writeln!(input, "record {number}").unwrap();
    }
    let feeding = appender.feed_in_background(input.into_bytes());
    let mut expected = String::new();
    let mut lines = BufReader::with_capacity(1 << 20, tail.stdout.take().unwrap());
    let mut line = String::new();
    for number in 0..RECORDS {
        expected.clear();
        writeln!(expected, "record {number}").unwrap();
        line.clear();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }

    assert_eq!(lines.read_line(&mut line).unwrap(), 0, "one more: {line}");
    assert!(tail.wait().unwrap().success());
    appender.wait_for(RECORDS);
    drop(feeding.join().unwrap());
    assert!(appender.ended().0.success());
    assert!(stat(dir.path())["segments"].as_u64().unwrap() > 10);
}

#[test]
fn a_tail_that_is_counted_ends_after_so_many_records() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"zero\none\ntwo\n");
    let path = dir.path().to_str().unwrap();

    let all = run(["tail", "--count", "3", path]);
    expect_code(&all, 0);
    assert_eq!(text(&all.stdout), "zero\none\ntwo\n");

    let some = run(["tail", "-n", "1", "--from", "1", path]);
    assert_eq!(text(&some.stdout), "one\n");

    let json = run(["tail", "-n1", "--from=2", "--json", path]);
    let record: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(record["offset"], 2);
    assert_eq!(record["payload"], "two");

    let none = run(["tail", "-n0", path]);
    expect_code(&none, 0);
    assert_eq!(text(&none.stdout), "");
}

#[test]
fn a_tail_from_the_latest_shows_only_what_is_new() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"old\nold\nold\n");
    let mut appender = Appender::start(dir.path(), &[]);
    let mut tail = tail(&dir, &["--from", "latest", "-n", "3"]);

    // It begins at some time; from then on it sees everything.
    let mut number = 0;
    while tail.try_wait().unwrap().is_none() {
        number += 1;
        assert!(appender.feed(format!("{number}\n").as_bytes()));
        appender.acknowledged().unwrap();
    }

    let mut seen = String::new();
    tail.stdout.unwrap().read_to_string(&mut seen).unwrap();
    let seen: Vec<u64> = seen.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(seen, [seen[0], seen[0] + 1, seen[0] + 2]);
}

#[test]
fn a_tail_of_durable_records_sees_what_was_synced() {
    let dir = tempdir().unwrap();
    let mut appender = Appender::start(dir.path(), &["--durable"]);
    assert!(appender.feed(b"one\ntwo\n"));
    appender.wait_for(2);
    let mut tail = tail(&dir, &["--durable", "-n", "3"]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();

    // What is there is shown before the tail waits for more.
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    assert!(appender.feed(b"three\n"));
    assert_eq!(lines.next().unwrap().unwrap(), "three");
    assert!(tail.wait().unwrap().success());
}

#[test]
fn a_tail_of_durable_records_sees_all_of_a_log_that_was_closed() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"one\n");
    append(dir.path(), b"two\nthree\n");
    assert_eq!(stat(dir.path())["durable_offset"], 3);

    let mut tail = tail(&dir, &["--durable", "-n", "3"]);

    let mut seen = String::new();
    tail.stdout
        .take()
        .unwrap()
        .read_to_string(&mut seen)
        .unwrap();
    assert_eq!(seen, "one\ntwo\nthree\n");
    assert!(tail.wait().unwrap().success());
}

#[test]
fn a_tail_of_durable_records_that_waits_sees_what_closing_made_durable() {
    let dir = tempdir().unwrap();
    let mut appender = Appender::start(dir.path(), &["--durable"]);
    assert!(appender.feed(b"one\n"));
    appender.wait_for(1);
    let mut tail = tail(&dir, &["--durable", "-n", "2"]);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert!(appender.finish().0.success());

    // Without --durable: nothing syncs it before the end.
    append(dir.path(), b"two\n");

    assert_eq!(lines.next().unwrap().unwrap(), "two");
    assert!(tail.wait().unwrap().success());
}

#[test]
fn a_tail_goes_on_when_its_writer_is_killed_and_another_takes_over() {
    let input = keystrokes::unpack();
    let starts = keystrokes::line_starts(&input);
    let dir = tempdir().unwrap();
    append(dir.path(), b"");
    let mut tail = tail(&dir, &["--count", "19749"]);

    let mut stored = 0;
    for part in 1..=4 {
        let end = input.len() * part / 5;
        let mut appender = Appender::start(dir.path(), &["--segment-bytes-max", "128K"]);
        assert!(appender.feed(&input[starts[stored]..end]));
        appender.acknowledged().unwrap();
        appender.kill();
        stored = usize::try_from(stat(dir.path())["records"].as_u64().unwrap()).unwrap();
    }
    append(dir.path(), &input[starts[stored]..]);

    let mut seen = Vec::new();
    tail.stdout.take().unwrap().read_to_end(&mut seen).unwrap();
    assert!(
        seen == input,
        "{} bytes instead of {}",
        seen.len(),
        input.len()
    );
    assert!(tail.wait().unwrap().success());
}

fn tail(dir: &TempDir, options: &[&str]) -> Child {
    spawn_watched(
        dacapo(["tail"])
            .args(options)
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped()),
    )
}
