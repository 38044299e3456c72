//! The cursors of consumers: listed, set, deleted and built anew from the command line.

use std::fs;
use std::path::Path;

use dacapo::{Offset, ReplayChannel, Topic};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::process::{append, expect_code, run, text};

fn cursor<const N: usize>(command: &str, dir: &Path, arguments: [&str; N]) -> std::process::Output {
    let dir = dir.to_str().unwrap();
    let command = ["cursor", command, dir].into_iter();
    run(command.chain(arguments))
}

fn said<const N: usize>(command: &str, dir: &Path, arguments: [&str; N]) -> String {
    let output = cursor(command, dir, arguments);
    expect_code(&output, 0);
    text(&output.stdout)
}

fn refused<const N: usize>(command: &str, dir: &Path, arguments: [&str; N]) -> String {
    let output = cursor(command, dir, arguments);
    expect_code(&output, 1);
    text(&output.stderr)
}

#[test]
fn a_consumer_goes_on_where_its_cursor_was_set() {
    let dir = tempdir().unwrap();
    let channel = ReplayChannel::<String>::open(dir.path()).unwrap();
    channel.sender().send_batch(["a", "b", "c", "d"]).unwrap();
    let mut billing = channel.consumer("billing").unwrap();
    billing.receive_blocking().unwrap();
    billing.commit().unwrap();

    // While the program has them.
    let line = said("list", dir.path(), ["--json"]);
    let mut object: Value = serde_json::from_str(&line).unwrap();
    assert!(
        object
            .as_object_mut()
            .unwrap()
            .remove("committed")
            .is_some()
    );
    let expected = json!({"cursor": "billing", "offset": 1, "epoch": 1, "lag": 3, "holds": false});
    assert_eq!(object, expected);
    let error = refused("set", dir.path(), ["billing", "3"]);
    assert!(error.contains("are in use by process"), "{error}");

    drop(billing);
    assert_eq!(
        said("set", dir.path(), ["billing", "3"]),
        "`billing` goes on with record 3.\n"
    );
    assert_eq!(said("get", dir.path(), ["billing"]), "3\n");
    let mut billing = channel.consumer("billing").unwrap();
    assert_eq!(billing.receive_blocking().unwrap(), "d");
    drop(billing);
    said("set", dir.path(), ["billing", "oldest"]);
    said("set", dir.path(), ["audit", "latest", "--holds", "true"]);
    let listed = said("list", dir.path(), []);
    let rows: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["offset", "lag", "committed", "name"]);
    assert_eq!(
        (&rows[1][..2], &rows[1][3..]),
        (&["4", "0"][..], &["audit", "(holds)"][..])
    );
    assert_eq!(
        (&rows[2][..2], &rows[2][3..]),
        (&["0", "4"][..], &["billing"][..])
    );
    assert_eq!(rows[3], ["2", "cursors"]);

    assert_eq!(
        said("delete", dir.path(), ["audit"]),
        "Deleted the cursor of `audit`.\n"
    );
    let error = refused("delete", dir.path(), ["audit"]);
    assert!(
        error.contains("has no cursor `audit`; `dacapo cursor list` lists"),
        "{error}"
    );
}

#[test]
fn the_lag_of_a_topics_consumer_is_that_of_its_topic() {
    let dir = tempdir().unwrap();
    let log = dacapo::Log::open(dir.path()).unwrap();
    let orders = ReplayChannel::<u64>::on(&log, &Topic::new("orders").unwrap()).unwrap();
    let other = ReplayChannel::<u64>::on(&log, &Topic::new("other").unwrap()).unwrap();
    other.sender().send_batch(&[1, 2, 3]).unwrap();
    assert_eq!(orders.sender().send(&4).unwrap(), Offset::new(3));
    drop(orders.consumer("billing").unwrap());
    drop((orders, other, log));
    let listed = said("list", dir.path(), []);
    assert!(listed.contains("billing  (topic orders)"), "{listed}");
    let object: Value =
        serde_json::from_str(&said("get", dir.path(), ["billing", "--json"])).unwrap();
    assert_eq!(
        (&object["lag"], &object["topic"]),
        (&json!(1), &json!("orders"))
    );
    let error = refused("set", dir.path(), ["billing", "0", "--topic", "other"]);
    assert!(error.contains("`billing` reads another topic"), "{error}");
}

#[test]
fn a_cursor_is_not_set_where_there_is_no_record_and_no_store_is_made_by_looking() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"one\ntwo\n");
    assert_eq!(said("list", dir.path(), []), "0 cursors\n");
    let error = refused("get", dir.path(), ["billing"]);
    assert!(error.contains("has no cursor `billing`"), "{error}");
    refused("delete", dir.path(), ["billing"]);
    let error = refused("set", dir.path(), ["billing", "3"]);
    assert!(
        error.contains("there is no record 3; the next one that is appended gets offset 2"),
        "{error}"
    );
    assert!(!dir.path().join("cursors").exists());
    let error = refused("set", dir.path(), ["two\nlines", "0"]);
    assert!(error.contains("no control characters"), "{error}");
    expect_code(&cursor("set", dir.path(), ["billing", "soon"]), 2);
    expect_code(&cursor("list", &dir.path().join("nowhere"), []), 2);
}

#[test]
fn what_a_consumer_holds_is_not_pruned_while_its_program_is_away() {
    let dir = tempdir().unwrap();
    let channel = ReplayChannel::<Vec<u8>>::builder().segment_bytes_max(16 << 10);
    let channel = channel.open(dir.path()).unwrap();
    for i in 0..100 {
        channel.sender().send(&vec![i; 1000]).unwrap();
    }
    drop(
        channel
            .consumer_builder("audit")
            .holds(true)
            .open()
            .unwrap(),
    );
    drop(channel);
    let prune = |arguments: &[&str]| {
        let dir = dir.path().to_str().unwrap();
        let output = run(["prune", "--json", "--max-records", "1", dir]
            .iter()
            .chain(arguments));
        expect_code(&output, 0);
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    for arguments in [&["--dry-run"][..], &[]] {
        let pruned = prune(arguments);
        assert_eq!(
            (&pruned["segments"], &pruned["kept"]),
            (&json!(0), &json!("held"))
        );
    }
    said("set", dir.path(), ["audit", "latest"]);
    assert!(prune(&[])["segments"].as_u64().unwrap() > 0);
}

#[test]
fn damaged_cursors_are_built_anew_and_put_aside() {
    let dir = tempdir().unwrap();
    append(dir.path(), b"one\ntwo\n");
    said("set", dir.path(), ["billing", "1"]);
    fs::write(dir.path().join("cursors.list"), b"nothing that can be read").unwrap();
    let error = refused("list", dir.path(), []);
    assert!(error.contains("`dacapo cursor rebuild`"), "{error}");
    let rebuilt = said("rebuild", dir.path(), []);
    assert!(rebuilt.ends_with("Kept 1 cursor.\n"), "{rebuilt}");
    assert_eq!(said("get", dir.path(), ["billing"]), "1\n");
    assert!(dir.path().join("cursors.list.damaged-1").exists());
}
