//! Flipped bytes: found, said, and stepped over when asked.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::process::{append, expect_code, run, text};

#[test]
fn a_sound_log_verifies() {
    let dir = log_of_1000();
    let path = dir.path().to_str().unwrap();

    let output = run(["verify", path]);
    expect_code(&output, 0);
    assert!(
        text(&output.stdout).starts_with("sound: 1,000 records in "),
        "{output:?}"
    );

    let json = verify_json(path, 0);
    assert_eq!(json["sound"], true);
    assert_eq!(json["records"], 1000);
    assert_eq!(json["damages"], Value::Array(vec![]));
    assert_eq!(json["lost"], Value::Array(vec![]));
}

#[test]
fn a_flipped_byte_is_found_and_named() {
    let dir = log_of_1000();
    let segment = flip_byte_of(dir.path(), "record number 500");
    let path = dir.path().to_str().unwrap();

    let output = run(["verify", path]);
    expect_code(&output, 1);
    let said = text(&output.stdout);
    assert!(said.contains("damaged: "), "{said}");
    assert!(said.contains(segment.to_str().unwrap()), "{said}");
    assert!(said.contains("lost: record 500\n"), "{said}");
    assert!(said.contains("readable: 999 records"), "{said}");

    let json = verify_json(path, 1);
    assert_eq!(json["sound"], false);
    assert_eq!(json["records"], 999);
    assert_eq!(json["damages"][0]["offset"], 500);
    assert_eq!(json["lost"][0]["from"], 500);
    assert_eq!(json["lost"][0]["to"], 501);
}

#[test]
fn a_damaged_record_ends_the_output_unless_it_is_to_be_skipped() {
    let dir = log_of_1000();
    flip_byte_of(dir.path(), "record number 500");
    let path = dir.path().to_str().unwrap();

    let stopped = run(["cat", path]);
    expect_code(&stopped, 1);
    assert_eq!(text(&stopped.stdout), lines(0..500));
    let said = text(&stopped.stderr);
    assert!(
        said.contains("record 500") && said.contains("--skip-damaged"),
        "{said}"
    );

    let skipped = run(["cat", "--skip-damaged", path]);
    expect_code(&skipped, 1);
    assert_eq!(text(&skipped.stdout), lines(0..500) + &lines(501..1000));
    let said = text(&skipped.stderr);
    assert!(said.contains("left out record 500"), "{said}");

    // What is asked for is sound.
    let before = run(["cat", "--skip-damaged", "--to", "500", path]);
    expect_code(&before, 0);
    assert_eq!(text(&before.stdout), lines(0..500));
    let behind = run(["cat", "--from", "501", path]);
    expect_code(&behind, 0);
    assert_eq!(text(&behind.stdout), lines(501..1000));
}

#[test]
fn what_cannot_be_verified_is_not_called_damaged() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("notes.txt");
    fs::write(&file, "no log").unwrap();
    let missing = dir.path().join("missing");

    for path in [dir.path(), &file, &missing] {
        let output = run(["verify", path.to_str().unwrap()]);
        expect_code(&output, 2);
        assert!(text(&output.stderr).starts_with("dacapo: "), "{output:?}");
        assert_eq!(text(&output.stdout), "");
    }
}

pub(crate) fn log_of_1000() -> TempDir {
    let dir = tempdir().unwrap();
    append(dir.path(), lines(0..1000).as_bytes());
    dir
}

pub(crate) fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers
        .map(|number| format!("record number {number}\n"))
        .collect()
}

fn verify_json(path: &str, code: i32) -> Value {
    let output = run(["verify", "--json", path]);
    expect_code(&output, code);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Flips a bit in the middle of a payload; returns the segment file that it is in.
pub(crate) fn flip_byte_of(dir: &Path, payload: &str) -> PathBuf {
    let payload = payload.as_bytes();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "seg") {
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        let found = bytes
            .windows(payload.len())
            .position(|window| window == payload);
        if let Some(position) = found {
            bytes[position + payload.len() / 2] ^= 0x10;
            fs::write(&path, bytes).unwrap();
            return path;
        }
    }
    panic!("no segment holds the payload");
}
