//! `--since`: records from a time on.

use serde_json::Value;
use tempfile::tempdir;

use crate::process::{append, expect_code, run, text};

#[test]
fn reading_begins_with_the_first_record_of_a_time() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"zero\n");
    // Each a process of its own: later ones have later times, or the same one.
    append(dir.path(), b"one\n");
    append(dir.path(), b"two\n");
    let path = dir.path().to_str().unwrap();
    let output = run(["cat", "--json", path]);
    let times: Vec<String> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|record| record["time"].as_str().unwrap().to_owned())
        .collect();
    let lines = ["zero\n", "one\n", "two\n"];
    for time in &times {
        let first = times.iter().position(|other| other == time).unwrap();
        let expected = lines[first..].concat();
        let count = (lines.len() - first).to_string();
        for args in [
            &["cat", path, "--since", time][..],
            &["tail", path, "--since", time, "-n", &count],
        ] {
            let output = run(args);
            expect_code(&output, 0);
            assert_eq!(text(&output.stdout), expected, "{args:?}");
        }
    }
    for (since, expected) in [("1d", "zero\none\n"), ("2100-01-01T00:00:00Z", "")] {
        let output = run(["cat", path, "--since", since, "--to", "2"]);
        expect_code(&output, 0);
        assert_eq!(text(&output.stdout), expected, "since {since}");
    }
}
