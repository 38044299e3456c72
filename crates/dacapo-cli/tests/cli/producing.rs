//! Inputs with a name: stored once, however often they are given.

use std::path::Path;
use std::process::Output;

use tempfile::tempdir;

use crate::keystrokes;
use crate::process::{Appender, cat, expect_code, run_with_input, stat, text};

fn produce(dir: &Path, name: &str, options: &[&str], input: &[u8]) -> Output {
    let mut args = vec!["append", "--producer", name];
    args.extend(options);
    args.push(dir.to_str().unwrap());
    run_with_input(args, input)
}

/// What it said when it was done.
fn said(output: &Output) -> String {
    expect_code(output, 0);
    text(&output.stderr)
}

#[test]
fn an_input_that_is_given_again_after_each_of_many_kills_is_there_once() {
    let input = keystrokes::unpack();
    let lines = keystrokes::line_starts(&input).len() as u64 - 1;
    let dir = tempdir().unwrap();
    let options = ["--producer", "keys", "--segment-bytes-max", "64K"];
    let mut there = 0;
    for kill in 1..=10 {
        let mut appender = Appender::start(dir.path(), &options);
        // The whole input, from its first line, each time.
        let feeding = appender.feed_in_background(input.clone());
        let until = lines * kill / 12;
        while appender.acknowledged().expect("it was not killed yet") < until {}
        appender.kill();
        feeding.join().unwrap();

        let found = cat(dir.path());
        assert!(input.starts_with(&found), "kill {kill}");
        let records = stat(dir.path())["records"].as_u64().unwrap();
        assert!(records >= until.max(there), "kill {kill}: {records}");
        there = records;
    }

    let output = produce(dir.path(), "keys", &[], &input);

    let said = said(&output);
    assert!(said.contains("there before."), "{said}");
    assert!(cat(dir.path()) == input);
    assert_eq!(
        keystrokes::write_text(&cat(dir.path())),
        keystrokes::FINAL_TEXT
    );
}

#[test]
fn an_input_that_has_grown_goes_on_behind_what_was_stored() {
    let dir = tempdir().unwrap();
    let first = produce(dir.path(), "orders", &[], b"one\ntwo\n");
    assert!(said(&first).starts_with("Stored 2 records, offsets 0 to 1: "));

    let again = produce(dir.path(), "orders", &["--acks"], b"one\ntwo\n");
    assert_eq!(
        said(&again),
        "Stored no records. 2 records were there before.\n"
    );
    assert_eq!(text(&again.stdout), "1\n");
    let grown = produce(dir.path(), "orders", &[], b"one\ntwo\nthree\n");

    let said = said(&grown);
    assert!(said.starts_with("Stored 1 record, offset 2: "), "{said}");
    assert!(said.ends_with(" 2 records were there before.\n"), "{said}");
    assert_eq!(cat(dir.path()), b"one\ntwo\nthree\n");
}

#[test]
fn two_names_are_two_inputs() {
    let dir = tempdir().unwrap();
    for input in ["one\n", "one\ntwo\n"] {
        said(&produce(dir.path(), "left", &[], input.as_bytes()));
        said(&produce(dir.path(), "right", &[], input.as_bytes()));
    }
    assert_eq!(text(&cat(dir.path())), "one\none\ntwo\ntwo\n");
}

#[test]
fn another_input_under_the_same_name_is_refused() {
    let dir = tempdir().unwrap();
    said(&produce(dir.path(), "orders", &[], b"one\ntwo\n"));

    let other = produce(dir.path(), "orders", &[], b"eins\nzwei\ndrei\n");

    expect_code(&other, 1);
    let said = text(&other.stderr);
    assert!(
        said.contains("record 2 of the input: it is not what"),
        "{said}"
    );
    assert_eq!(cat(dir.path()), b"one\ntwo\n");
}

#[test]
fn a_higher_epoch_stores_anew_and_fences_off_the_lower_one() {
    let dir = tempdir().unwrap();
    said(&produce(dir.path(), "orders", &[], b"one\n"));
    let anew = ["--producer-epoch", "2"];
    said(&produce(dir.path(), "orders", &anew, b"uno\ndue\n"));

    let lower = produce(dir.path(), "orders", &[], b"one\ntwo\n");

    expect_code(&lower, 1);
    let told = text(&lower.stderr);
    assert!(told.contains("is in epoch 2"), "{told}");
    said(&produce(dir.path(), "orders", &anew, b"uno\ndue\ntre\n"));
    assert_eq!(cat(dir.path()), b"one\nuno\ndue\ntre\n");
}

#[test]
fn a_whole_input_as_one_record_is_there_once() {
    let dir = tempdir().unwrap();
    for _ in 0..2 {
        said(&produce(dir.path(), "photo", &["--raw"], b"many\nlines"));
    }
    assert_eq!(stat(dir.path())["records"], 1);
}

#[test]
fn a_producer_has_a_name() {
    let dir = tempdir().unwrap();
    expect_code(&produce(dir.path(), "", &[], b"one\n"), 2);
    let dir = dir.path().to_str().unwrap();
    let nameless = run_with_input(["append", "--producer-epoch", "1", dir], b"one\n");
    expect_code(&nameless, 2);
}
