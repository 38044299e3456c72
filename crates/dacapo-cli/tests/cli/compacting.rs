//! `dacapo compact`: what goes and what stays, under a reader in another process, and across kills.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::tempdir;

use crate::damage::flip_byte_of;
use crate::process::{
    Appender, cat, dacapo, expect_code, run, run_with_input, spawn_watched, tell, text,
};

/// A log of `lines` records of two topics in turn, in small segments.
fn fill(dir: &Path, lines: u64) {
    let input: String = (0..lines)
        .map(|i| {
            format!(
                "{{\"to\":\"{}\",\"n\":\"{i:0100}\"}}\n",
                ["kept", "gone"][usize::from(i % 2 == 1)]
            )
        })
        .collect();
    let dir = dir.to_str().unwrap();
    let options = [
        "append",
        "-q",
        "--topic-field",
        "to",
        "--segment-bytes-max",
        "64K",
        dir,
    ];
    expect_code(&run_with_input(options, input.as_bytes()), 0);
}

fn delete(dir: &Path, topic: &str) {
    expect_code(&run(["delete-topic", dir.to_str().unwrap(), topic]), 0);
}

fn topic(dir: &Path, topic: &str) -> String {
    let output = run(["cat", dir.to_str().unwrap(), "--topic", topic]);
    expect_code(&output, 0);
    text(&output.stdout)
}

fn compact(dir: &Path, options: &[&str]) -> Value {
    let output = run([&["compact", "--json", dir.to_str().unwrap()], options].concat());
    expect_code(&output, 0);
    assert_eq!(
        text(&output.stderr),
        "",
        "no progress bar without a terminal"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn verify(dir: &Path) {
    expect_code(&run(["verify", dir.to_str().unwrap()]), 0);
}

#[test]
fn what_was_deleted_goes_while_another_process_reads_on() {
    let log = tempdir().unwrap();
    fill(log.path(), 2000);
    let kept = topic(log.path(), "kept");
    let mut tail = dacapo(["tail", "--topic", "kept", "--count", "1001"]);
    let mut tail = spawn_watched(tail.arg(log.path()).stdout(Stdio::piped()));
    let mut tailed = BufReader::new(tail.stdout.take().unwrap());
    let mut read = String::new();
    for _ in 0..10 {
        tailed.read_line(&mut read).unwrap();
    }
    delete(log.path(), "gone");

    let output = run(["compact", log.path().to_str().unwrap()]);
    expect_code(&output, 0);
    let said = text(&output.stdout);
    assert!(said.starts_with("removed 1,001 records from "), "{said}");
    assert!(said.ends_with(" given back\n"), "{said}");

    assert_eq!(text(&cat(log.path())), kept);
    verify(log.path());
    let again = run(["compact", log.path().to_str().unwrap()]);
    expect_code(&again, 0);
    assert_eq!(
        text(&again.stdout),
        "nothing to compact: no record can go\n"
    );
    fill(log.path(), 1);
    while tailed.read_line(&mut read).unwrap() > 0 {}
    assert!(tail.wait().unwrap().success());
    assert_eq!(read, topic(log.path(), "kept"));
}

#[test]
fn the_last_records_of_each_topic_stay_and_all_of_the_other_topics() {
    let log = tempdir().unwrap();
    fill(log.path(), 1000);

    let compacted = compact(log.path(), &["--keep-last", "3", "--prefix", "go"]);

    assert_eq!(compacted["records"], 497);
    let bytes = |field: &str| compacted[field].as_u64().unwrap();
    assert!(bytes("segments") > 1 && bytes("bytes_after") < bytes("bytes_before"));
    assert_eq!(topic(log.path(), "gone").lines().count(), 3);
    assert_eq!(topic(log.path(), "kept").lines().count(), 500);
    assert_eq!(compact(log.path(), &["--keep-last", "1"])["records"], 501);
    assert_eq!(text(&cat(log.path())).lines().count(), 2);
    verify(log.path());
}

#[test]
fn what_cannot_be_compacted_ends_with_the_usual_codes() {
    let above = tempdir().unwrap();
    let (log, missing) = (above.path().join("log"), above.path().join("missing"));
    expect_code(&run(["compact", missing.to_str().unwrap()]), 2);
    assert!(!missing.exists());
    let log = log.to_str().unwrap();
    expect_code(&run(["compact", log, "--keep-last", "0"]), 2);
    expect_code(&run(["compact", log, "--prefix", "a"]), 2);

    fill(Path::new(log), 1000);
    delete(Path::new(log), "gone");
    let mut appender = Appender::start(Path::new(log), &[]);
    assert!(appender.feed(b"more\n"));
    appender.wait_for(1);
    expect_code(&run(["compact", log]), 1);
    assert!(appender.finish().0.success());

    flip_byte_of(Path::new(log), &format!("{:0100}", 400));
    let output = run(["compact", log]);
    expect_code(&output, 1);
    let said = text(&output.stderr);
    assert!(said.contains("left as it is"), "{said}");
}

#[test]
fn a_compaction_killed_at_20_moments_loses_nothing_and_another_one_does_the_rest() {
    let source = tempdir().unwrap();
    fill(source.path(), 2000);
    delete(source.path(), "gone");
    let kept = topic(source.path(), "kept");
    let (mut killed, mut random) = (0, 0xdaca_u64);
    for moment in 0..20 {
        let log = tempdir().unwrap();
        for entry in fs::read_dir(source.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), log.path().join(entry.file_name())).unwrap();
        }
        let mut child = dacapo([Path::new("compact"), log.path()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // From when it is at work: it takes the first steps under this name.
        let temporary = log.path().join("compact.tmp");
        while !temporary.exists() && child.try_wait().unwrap().is_none() {}
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        for _ in 0..(random >> 33) % 2_000_000 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        killed += u64::from(!child.wait().unwrap().success());

        verify(log.path());
        assert_eq!(topic(log.path(), "kept"), kept, "moment {moment}");
        assert_eq!(topic(log.path(), "gone"), "", "moment {moment}");

        compact(log.path(), &[]);
        assert_eq!(text(&cat(log.path())), kept, "moment {moment}");
        verify(log.path());
    }
    tell(format_args!(
        "{killed} of 20 compactions were killed at work"
    ));
    assert!(killed > 0);
}
