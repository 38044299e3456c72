//! The demo, as a script runs it: without a terminal.

use tempfile::tempdir;

use crate::keystrokes;
use crate::process::{cat, dacapo, expect_code, run, stat, text};

#[test]
fn the_demo_succeeds_and_leaves_nothing_behind() {
    let temporary = tempdir().unwrap();

    let output = dacapo(["demo"])
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();

    expect_code(&output, 0);
    let said = text(&output.stdout);
    assert!(said.contains("18,451 characters, identical."), "{said}");
    assert!(!said.contains('\x1b'), "colours are for terminals");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(temporary.path().read_dir().unwrap().count(), 0);
}

#[test]
fn the_demo_keeps_its_log_where_it_is_told_to() {
    let dir = tempdir().unwrap();
    let kept = dir.path().join("kept");

    expect_code(&run(["demo", "--dir", kept.to_str().unwrap()]), 0);

    let stored = cat(&kept);
    assert!(stored == keystrokes::unpack());
    assert_eq!(keystrokes::write_text(&stored), keystrokes::FINAL_TEXT);
    assert_eq!(stat(&kept)["epochs"].as_array().unwrap().len(), 2);

    // A second one would find what the first one wrote.
    let again = run(["demo", "--dir", kept.to_str().unwrap()]);
    expect_code(&again, 2);
    assert!(text(&again.stderr).contains("is not empty"), "{again:?}");
}
