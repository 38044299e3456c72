//! What each command prints, refuses and answers with its exit code.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::process::{Appender, append, expect_code, run, run_with_input, stat, text};

#[test]
fn a_second_writer_is_told_who_the_first_is() {
    let dir = tempdir().unwrap();
    let mut first = Appender::start(dir.path(), &[]);
    assert!(first.feed(b"one\n"));
    first.wait_for(1);
    assert_eq!(stat(dir.path())["writer_pid"], first.pid());

    let second = run_with_input(["append", dir.path().to_str().unwrap()], b"two\n");

    expect_code(&second, 1);
    let said = text(&second.stderr);
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert!(first.finish().0.success());
    assert_eq!(stat(dir.path())["records"], 1);
    assert_eq!(stat(dir.path())["writer_pid"], Value::Null);
}

#[test]
fn a_directory_that_is_missing_or_no_log_is_a_usage_error() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "no log").unwrap();
    let other = dir.path().to_str().unwrap();
    let missing = dir.path().join("missing");
    let missing = missing.to_str().unwrap();

    for command in ["cat", "tail", "topics", "stat", "verify"] {
        for path in [missing, other] {
            let output = run([command, path]);
            expect_code(&output, 2);
            let said = text(&output.stderr);
            assert!(
                said.starts_with("dacapo: ") && said.contains(path),
                "{said}"
            );
            assert_eq!(text(&output.stdout), "");
        }
    }
    let output = run_with_input(["append", other], b"one\n");
    expect_code(&output, 2);
    let said = text(&output.stderr);
    assert!(said.contains("notes.txt"), "{said}");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing was created"
    );
}

#[test]
fn nonsense_on_the_command_line_is_a_usage_error() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for args in [
        &["append"][..],
        &["cat", "--from", "-1", path],
        &["cat", "--json", "--raw", path],
        &["tail", "--from", "newest", path],
        &["append", "--segment-bytes-max", "lots", path],
        &["append", "--segment-bytes-max", "1", path],
        &["cat", "--since", "yesterday", path],
        &["cat", "--since", "1h", "--from", "3", path],
        &["tail", "--since", "1h", "--from", "latest", path],
        &["prune", path],
        &["prune", "--before", "3", "--max-age", "1h", path],
        &["prune", "--max-age", "7", path],
        &["prune", "--max-bytes", "much", path],
        &["append", "--topic", "", path],
        &["append", "--topic", &"x".repeat(256), path],
        &["append", "--topic", "a", "--topic-field", "b", path],
        &["append", "--topic-field", "a..b", path],
        &["cat", "--topic", "", path],
        &["tail", "--topic", "", path],
        &["delete-topic", path, ""],
        &["frobnicate"],
    ] {
        expect_code(&run(args), 2);
    }
}

#[test]
fn a_range_of_records_ends_before_its_end() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"zero\none\ntwo\nthree\n");
    let path = dir.path().to_str().unwrap();
    let cat = |options: &[&str]| {
        let output = run([&["cat", path], options].concat());
        expect_code(&output, 0);
        text(&output.stdout)
    };

    assert_eq!(cat(&["--from", "1", "--to", "3"]), "one\ntwo\n");
    assert_eq!(cat(&["--to", "0"]), "");
    assert_eq!(cat(&["--from", "3", "--to", "1"]), "");
    assert_eq!(cat(&["--from", "3", "--to", "1000"]), "three\n");
    assert_eq!(cat(&["--from", "4"]), "");

    for offset in ["5", "18446744073709551615"] {
        let beyond = run(["cat", path, "--from", offset]);
        expect_code(&beyond, 1);
        let said = text(&beyond.stderr);
        assert!(
            said.contains(&format!("record {offset} is not there yet")),
            "{said}"
        );
    }
}

#[test]
fn json_has_a_string_or_base64() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"say \"hi\"\n\xff\x00\n\n");

    let output = run(["cat", "--json", dir.path().to_str().unwrap()]);

    let records: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), 3);
    assert_eq!(records[0]["payload"], "say \"hi\"");
    assert_eq!(records[1]["payload_base64"], "/wA=");
    assert_eq!(records[1].get("payload"), None);
    assert_eq!(records[2]["payload"], "");
    for (offset, record) in records.iter().enumerate() {
        assert_eq!(record["offset"], offset);
        let time: jiff::Timestamp = record["time"].as_str().unwrap().parse().unwrap();
        let age = jiff::Timestamp::now().duration_since(time);
        assert!((0..600).contains(&age.as_secs()), "{time}");
    }
}

#[test]
fn stat_says_what_a_log_holds() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"");
    let empty = stat(dir.path());
    assert_eq!(empty["records"], 0);
    assert_eq!(empty["newest_offset"], Value::Null);
    assert_eq!(empty["oldest_time"], Value::Null);

    append(dir.path(), b"one\ntwo\nthree\n");
    let full = stat(dir.path());
    assert_eq!(full["records"], 3);
    assert_eq!(full["next_offset"], 3);
    assert_eq!(full["oldest_offset"], 0);
    assert_eq!(full["newest_offset"], 2);
    assert_eq!(full["segments"], 1);
    assert!(full["file_bytes"].as_u64().unwrap() > 0);
    assert!(full["oldest_time"].as_str().unwrap() <= full["newest_time"].as_str().unwrap());
    assert_eq!(full["log_id"].as_str().unwrap().len(), 32);
    assert_eq!(full["log_id"], empty["log_id"]);
    assert!(full["format_version"].is_u64());
    assert_eq!(full["clean"], true);
    assert_eq!(full["writer_pid"], Value::Null);
    assert_eq!(full["last_recovery_micros"], Value::Null);
    assert_eq!(full["epochs"].as_array().unwrap().len(), 1);

    let for_people = run(["stat", dir.path().to_str().unwrap()]);
    expect_code(&for_people, 0);
    assert!(
        text(&for_people.stdout).contains("records   3\n"),
        "{for_people:?}"
    );
}

#[test]
fn stat_tells_of_a_kill_and_of_the_recovery_after_it() {
    let dir = tempdir().unwrap();
    let mut appender = Appender::start(dir.path(), &[]);
    assert!(appender.feed(b"one\ntwo\n"));
    appender.wait_for(2);
    appender.kill();

    let killed = stat(dir.path());
    assert_eq!(killed["records"], 2);
    assert_eq!(killed["clean"], false);
    assert_eq!(killed["writer_pid"], Value::Null);

    append(dir.path(), b"three\n");
    let recovered = stat(dir.path());
    assert_eq!(recovered["records"], 3);
    assert_eq!(recovered["clean"], true);
    assert!(recovered["last_recovery_micros"].is_u64());
    let epochs = recovered["epochs"].as_array().unwrap();
    assert_eq!(epochs.len(), 2);
    assert_eq!(epochs[1]["start_offset"], 2);
    assert!(epochs[1]["cut_bytes"].is_u64() && epochs[1]["opened"].is_string());
}

#[test]
fn quiet_says_nothing_and_silence_stores_nothing() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();

    let quiet = run_with_input(["append", "--quiet", path], b"one\n");
    expect_code(&quiet, 0);
    assert_eq!(text(&quiet.stderr), "");

    let silent = run_with_input(["append", path], b"");
    expect_code(&silent, 0);
    assert_eq!(text(&silent.stderr), "Stored no records.\n");
}

#[test]
fn completions_are_there_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(["completions", shell]);
        expect_code(&output, 0);
        let script = text(&output.stdout);
        for name in ["skip-damaged", "topic-field", "delete-topic", "quick"] {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[test]
fn help_has_examples_and_exit_codes() {
    let output = run(["--help"]);
    expect_code(&output, 0);
    let help = text(&output.stdout);
    assert!(
        help.contains("Examples:") && help.contains("Exit codes:"),
        "{help}"
    );
    for command in [
        "append",
        "cat",
        "tail",
        "topics",
        "delete-topic",
        "stat",
        "verify",
        "repair",
        "prune",
        "demo",
        "bench",
        "completions",
    ] {
        let output = run([command, "--help"]);
        expect_code(&output, 0);
        assert!(text(&output.stdout).contains("Examples:"), "{command}");
    }
}
