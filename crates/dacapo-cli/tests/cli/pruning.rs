//! `dacapo prune`: what goes, what stays and why, and what is left alone.

use std::path::Path;

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::process::{Appender, append, cat, dacapo, expect_code, run, run_with_input, stat, text};

/// A log of 1000 numbered lines in segments of 16 KiB.
fn log_of_1000() -> TempDir {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    // Less than a batch at a time, so that no segment is larger than it has to be.
    let input: String = (0..1000).map(line).collect();
    let output = run_with_input(
        ["append", "--segment-bytes-max", "16K", path],
        input.as_bytes(),
    );
    expect_code(&output, 0);
    dir
}

fn line(number: u64) -> String {
    format!("line {number:0>100}\n")
}

fn prune(dir: &Path, options: &[&str]) -> String {
    let output = run([&["prune", dir.to_str().unwrap()], options].concat());
    expect_code(&output, 0);
    text(&output.stdout)
}

fn prune_json(dir: &Path, options: &[&str]) -> Value {
    serde_json::from_str(&prune(dir, &[options, &["--json"]].concat())).unwrap()
}

fn expect_lines_from(dir: &Path, oldest: u64) {
    let expected: String = (oldest..1000).map(line).collect();
    assert!(text(&cat(dir)) == expected);
}

#[test]
fn what_would_be_dropped_is_dropped_without_dry_run() {
    for limit in [
        &["--before", "500"][..],
        &["--max-bytes", "64K"],
        &["--max-records", "400"],
        &["--max-records", "600", "--max-bytes", "64K"],
    ] {
        let dir = log_of_1000();
        let before = stat(dir.path());
        let would = prune_json(dir.path(), &[limit, &["--dry-run"]].concat());
        assert_eq!(stat(dir.path())["file_bytes"], before["file_bytes"]);
        expect_lines_from(dir.path(), 0);

        let did = prune_json(dir.path(), limit);

        assert_eq!(
            (&would["dry_run"], &did["dry_run"]),
            (&true.into(), &false.into())
        );
        for field in ["segments", "records", "file_bytes", "oldest_offset", "kept"] {
            assert_eq!(would[field], did[field], "{field} by {limit:?}");
        }
        let oldest = did["oldest_offset"].as_u64().unwrap();
        assert!(oldest > 0, "{limit:?}");
        assert_eq!(did["records"], oldest);
        let after = stat(dir.path());
        assert_eq!(after["oldest_offset"], oldest);
        assert_eq!(after["clean"], true);
        let left = |field: &str| before[field].as_u64().unwrap() - did[field].as_u64().unwrap();
        assert_eq!(after["file_bytes"], left("file_bytes"));
        assert_eq!(after["segments"], left("segments"));
        expect_lines_from(dir.path(), oldest);
        append(dir.path(), b"goes on\n");
        assert_eq!(stat(dir.path())["next_offset"], 1001);
    }
}

#[test]
fn it_says_what_was_dropped_and_why_no_more_was() {
    let dir = log_of_1000();
    let nothing = prune(dir.path(), &["--max-age", "1d"]);
    assert_eq!(
        nothing,
        "dropped nothing: the oldest record is 0\nall that is there is to be kept\n"
    );
    let would = prune(dir.path(), &["--before", "5", "--dry-run"]);
    assert!(
        would.starts_with("would drop nothing: the oldest record is 0\n"),
        "{would}"
    );
    assert!(would.contains("kept records 0 to "), "{would}");
    assert!(would.contains("they are in one file"), "{would}");

    let some = prune(dir.path(), &["--before", "500"]);
    assert!(some.starts_with("dropped "), "{some}");
    assert!(some.contains(" segments, "), "{some}");
    let all = prune(dir.path(), &["--max-age", "0s"]);
    let most = prune(dir.path(), &["--max-records", "0"]);
    for said in [all, most.clone()] {
        assert!(said.contains("the oldest record is "), "{said}");
    }
    assert!(most.contains("the newest segment always stays"), "{most}");
    assert!(stat(dir.path())["records"].as_u64().unwrap() > 0);
}

#[test]
fn a_log_that_is_being_written_or_is_none_is_left_alone() {
    let dir = tempdir().unwrap();
    let mut appender = Appender::start(dir.path(), &["--segment-bytes-max", "16K"]);
    let input: String = (0..1000).map(line).collect();
    assert!(appender.feed(input.as_bytes()));
    appender.wait_for(1000);
    let path = dir.path().to_str().unwrap();

    let refused = run(["prune", path, "--max-records", "1"]);
    expect_code(&refused, 1);
    let said = text(&refused.stderr);
    assert!(
        said.contains(&format!("process {}", appender.pid())),
        "{said}"
    );
    expect_lines_from(dir.path(), 0);
    let would = prune_json(dir.path(), &["--max-records", "1", "--dry-run"]);
    assert_eq!(would["dry_run"], true);
    assert!(appender.finish().0.success());

    let missing = dir.path().join("missing");
    let output = dacapo(["prune", "--before", "1"])
        .arg(&missing)
        .output()
        .unwrap();
    expect_code(&output, 2);
    assert!(!missing.exists());
}
