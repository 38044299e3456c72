//! `dacapo backup`: run as its users run it, beside a writer, killed, and against mix-ups.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::damage::{flip_byte_of, lines, log_of_1000};
use crate::process::{Appender, append, can_run, cat, dacapo, expect_code, run, stat, tell, text};

fn place() -> (TempDir, PathBuf) {
    let above = tempdir().unwrap();
    let dst = above.path().join("copy");
    (above, dst)
}

fn backup(log: &Path, dst: &Path) -> Value {
    let output = run([
        "backup",
        "--json",
        log.to_str().unwrap(),
        dst.to_str().unwrap(),
    ]);
    expect_code(&output, 0);
    assert_eq!(
        text(&output.stderr),
        "",
        "no progress bar without a terminal"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_log_is_backed_up_while_it_is_written_and_the_backup_is_a_log() {
    let (log, (_above, dst)) = (tempdir().unwrap(), place());
    let options = ["--durable", "--segment-bytes-max", "16K"];
    let mut appender = Appender::start(log.path(), &options);
    assert!(appender.feed(lines(0..1000).as_bytes()));
    appender.wait_for(1000);

    let first = backup(log.path(), &dst);
    assert_eq!(first["next_offset"], 1000);
    assert_eq!(first["not_durable"], 0);
    assert!(first["linked"].as_u64().unwrap() > 0);
    assert_eq!(first["copied"], 1);
    assert_eq!(first["sound"], Value::Null);
    assert_eq!(text(&cat(&dst)), lines(0..1000));

    assert!(appender.feed(lines(1000..1500).as_bytes()));
    appender.wait_for(1500);
    let output = run([
        "backup",
        "--verify",
        log.path().to_str().unwrap(),
        dst.to_str().unwrap(),
    ]);
    expect_code(&output, 0);
    let said = text(&output.stdout);
    assert!(
        said.starts_with("backed up, and sound: offsets 0 to 1499 in "),
        "{said}"
    );
    assert!(
        said.contains(" kept, ") && said.contains(" copied ("),
        "{said}"
    );
    assert_eq!(stat(&dst)["clean"], true);
    assert_eq!(stat(&dst)["log_id"], stat(log.path())["log_id"]);
    assert!(appender.finish().0.success());

    append(&dst, b"goes on\n");
    assert_eq!(text(&cat(&dst)), lines(0..1500) + "goes on\n");
    assert_eq!(text(&cat(log.path())), lines(0..1500));
}

#[test]
fn what_a_kill_left_in_doubt_is_left_out_and_counted() {
    let (log, (_above, dst)) = (tempdir().unwrap(), place());
    append(log.path(), lines(0..10).as_bytes());
    let mut appender = Appender::start(log.path(), &[]);
    assert!(appender.feed(lines(10..20).as_bytes()));
    appender.wait_for(20);
    appender.kill();
    // A flush in the background may have come before the kill.
    let durable = stat(log.path())["durable_offset"].as_u64().unwrap();

    let output = run([
        "backup",
        log.path().to_str().unwrap(),
        dst.to_str().unwrap(),
    ]);

    expect_code(&output, 0);
    let left_out = format!("left out: {} records behind offset {durable}", 20 - durable);
    assert_eq!(
        text(&output.stdout).contains(&left_out),
        durable < 20,
        "{output:?}"
    );
    assert_eq!(stat(&dst)["records"], durable);
    append(log.path(), b"");
    assert_eq!(backup(log.path(), &dst)["next_offset"], 20);
}

#[test]
fn damage_that_comes_along_is_found_when_asked_for() {
    let (log, (_above, dst)) = (tempdir().unwrap(), place());
    let input = lines(0..5000);
    let mut appender = Appender::start(log.path(), &["--segment-bytes-max", "16K"]);
    assert!(appender.feed(input.as_bytes()));
    assert!(appender.finish().0.success());
    flip_byte_of(log.path(), "record number 1748");
    let (log, dst) = (log.path().to_str().unwrap(), dst.to_str().unwrap());

    expect_code(&run(["backup", log, dst]), 0);
    let output = run(["backup", "--verify", log, dst]);
    expect_code(&output, 1);
    let said = text(&output.stdout);
    assert!(
        said.contains("damaged: ") && said.contains("lost: record 1748\n"),
        "{said}"
    );
    assert!(said.contains("backed up, and damaged: "), "{said}");

    let output = run(["backup", "--verify", "--json", log, dst]);
    expect_code(&output, 1);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["sound"], false);
    assert_eq!(json["lost"], json!([{"from": 1748, "to": 1749}]));
}

#[test]
fn what_is_no_place_for_a_backup_ends_with_2_and_stays_as_it_was() {
    let (log, (above, copy)) = (log_of_1000(), place());
    let taken = above.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("notes.txt"), "mine").unwrap();
    backup(log.path(), &copy);
    append(&copy, b"a log of its own now\n");
    let other = log_of_1000();
    let missing = above.path().join("missing");
    for (src, dst, says) in [
        (log.path(), taken.as_path(), "is no backup of a log"),
        (log.path(), log.path(), "lies in the log"),
        (
            log.path(),
            &copy,
            "was opened for writing since it was made",
        ),
        (other.path(), &copy, "belongs to log"),
        (&missing, &above.path().join("new"), "does not exist"),
        (&taken, &above.path().join("new"), "is not a log"),
    ] {
        let output = run(["backup", src.to_str().unwrap(), dst.to_str().unwrap()]);
        expect_code(&output, 2);
        let said = text(&output.stderr);
        assert!(
            said.starts_with("dacapo: ") && said.contains(says),
            "{said}"
        );
        assert_eq!(text(&output.stdout), "");
    }
    assert!(!above.path().join("new").exists());
    assert_eq!(fs::read_dir(&taken).unwrap().count(), 1);
    assert_eq!(text(&cat(&copy)), lines(0..1000) + "a log of its own now\n");
}

#[test]
fn a_backup_killed_at_many_moments_is_whole_or_says_that_it_is_not() {
    if !can_run("strace", &["-V"]) {
        return;
    }
    let log = tempdir().unwrap();
    let mut appender = Appender::start(log.path(), &["--segment-bytes-max", "16K"]);
    assert!(appender.feed(lines(0..2000).as_bytes()));
    assert!(appender.finish().0.success());
    let (above, old) = place();
    backup(log.path(), &old);
    let mut appender = Appender::start(log.path(), &["--segment-bytes-max", "16K"]);
    assert!(appender.feed(lines(2000..3000).as_bytes()));
    assert!(appender.finish().0.success());
    let (mut unfinished, mut still_old, mut killed) = (0, 0, 0);
    // Real kills, each at one more call of a kind that changes something: by the kernel, on the spot.
    for call in [
        "linkat",
        "rename",
        "unlink",
        "fsync",
        "fdatasync",
        "pwrite64",
    ] {
        for number in 1..=40 {
            let dst = above.path().join(format!("{call}-{number}"));
            fs::create_dir(&dst).unwrap();
            for entry in fs::read_dir(&old).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), dst.join(entry.file_name())).unwrap();
            }
            let mut strace = std::process::Command::new("strace");
            let status = strace
                .args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")])
                .args(["-e", &format!("inject={call}:signal=KILL:when={number}")])
                .arg(env!("CARGO_BIN_EXE_dacapo"))
                .args([Path::new("backup"), log.path(), &dst])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            let done = status.success();
            killed += u64::from(!done);
            let output = run(["cat", dst.to_str().unwrap()]);
            if output.status.success() {
                let held = text(&output.stdout);
                assert!(held == lines(0..3000) || (!done && held == lines(0..2000)));
                still_old += u64::from(held == lines(0..2000));
                expect_code(&run(["verify", dst.to_str().unwrap()]), 0);
            } else {
                expect_code(&output, 2);
                let said = text(&output.stderr);
                assert!(said.contains("run the backup again"), "{said}");
                unfinished += 1;
            }
            backup(log.path(), &dst);
            assert_eq!(text(&cat(&dst)), lines(0..3000));
            expect_code(&run(["verify", dst.to_str().unwrap()]), 0);
            if done {
                break; // so often it is not called
            }
        }
    }
    tell(format_args!(
        "{killed} kills of a backup: the old one was still there {still_old} times, and {unfinished} times none"
    ));
    assert!(killed > 20 && still_old > 0 && unfinished > 0);
}

#[test]
fn a_backup_killed_from_outside_is_completed_by_another_run() {
    let (log, (above, _)) = (log_of_1000(), place());
    for number in 0..20 {
        let dst = above.path().join(number.to_string());
        let mut child = dacapo([Path::new("backup"), log.path(), &dst])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At whatever moment: the directory is there, or the process has ended.
        while !dst.exists() && child.try_wait().unwrap().is_none() {}
        for _ in 0..number * 200 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        backup(log.path(), &dst);

        assert_eq!(text(&cat(&dst)), lines(0..1000));
    }
}
