//! What the bench answers, and that it leaves nothing behind. Never how fast anything is.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::tempdir;

use crate::process::{append, dacapo, expect_code, run, spawn_watched, text};

const QUESTIONS: [&str; 12] = [
    "append_100B",
    "append_1KiB",
    "batch_100B",
    "batch_1KiB",
    "durable_16_threads",
    "durable_1_thread",
    "get_100B",
    "get_1KiB",
    "open_clean",
    "replay_100B",
    "replay_1KiB",
    "tail_wake",
];

#[test]
fn the_bench_answers_every_question_and_leaves_nothing_behind() {
    let dir = tempdir().unwrap();

    let output = run(["bench", "--quick", "--json", path(dir.path())]);

    expect_code(&output, 0);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(entries(dir.path()), 0);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["dir"], path(dir.path()));
    assert_eq!(answer["quick"], true);
    assert!(["mapped", "file"].contains(&answer["writes"].as_str().unwrap()));
    let space = answer["space_bytes"].as_u64().unwrap();
    assert!(space > 0 && space < answer["free_bytes"].as_u64().unwrap());
    let answers = answer["answers"].as_array().unwrap();
    let asked: BTreeSet<&str> = answers
        .iter()
        .map(|answer| answer["question"].as_str().unwrap())
        .collect();
    assert_eq!(asked, BTreeSet::from(QUESTIONS));
    assert_eq!(answers.len(), QUESTIONS.len());
    answers.iter().for_each(expect_consistent);
}

/// The ratio is the one of the two figures, and each figure is one.
fn expect_consistent(answer: &Value) {
    let figure = |side: &str, name: &str| answer[side][name].as_f64();
    for side in ["dacapo", "limit"] {
        assert!(figure(side, "per_second").unwrap() > 0.0, "{answer}");
        if let Some(p50) = figure(side, "p50_micros") {
            assert!(p50 > 0.0, "{answer}");
            assert!(figure(side, "p99_micros").unwrap() >= p50, "{answer}");
        }
    }
    let compared = match answer["compares"].as_str().unwrap() {
        "rates" => "per_second",
        "times" => "p50_micros",
        other => panic!("{other}"),
    };
    let ratio = figure("dacapo", compared).unwrap() / figure("limit", compared).unwrap();
    let said = answer["ratio"].as_f64().unwrap();
    assert!(
        (said - ratio).abs() <= 0.001 + ratio * 0.01,
        "{ratio}: {answer}"
    );
    let rounds = answer["rounds"].as_u64().unwrap();
    assert!((2..=3).contains(&rounds), "{answer}");
    assert!(answer["says"].as_str().unwrap().contains(": "), "{answer}");
}

#[test]
fn the_bench_tells_a_person_what_the_disk_is_and_what_each_figure_means() {
    let dir = tempdir().unwrap();

    // The directory that it is started in.
    let output = dacapo(["bench", "--quick"])
        .current_dir(dir.path())
        .output()
        .unwrap();

    expect_code(&output, 0);
    assert_eq!(entries(dir.path()), 0);
    let said = text(&output.stdout);
    assert!(said.starts_with(".: "), "{said}");
    assert!(said.contains("This disk makes a record durable"), "{said}");
    assert!(said.contains("append 100 B, one a call: "), "{said}");
    assert!(!said.contains('\x1b'), "colours are for terminals");
    let meanings = said.lines().filter(|line| line.starts_with("   "));
    assert_eq!(meanings.count(), QUESTIONS.len(), "{said}");
}

#[test]
fn an_interrupted_bench_removes_what_it_has_written() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let dir = tempdir().unwrap();
        let created = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        let flags = inotify::WatchFlags::CREATE;
        inotify::add_watch(&created, dir.path(), flags).unwrap();
        let mut command = dacapo(["bench", "--quick", path(dir.path())]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = spawn_watched(&mut command);
        wait_for_creations(&created, 1);
        let scratch = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
        inotify::add_watch(&created, scratch.path(), flags).unwrap();
        // Logs, of which there are many: it is in the middle of something.
        wait_for_creations(&created, 2);

        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();

        let output = child.wait_with_output().unwrap();
        expect_code(&output, code);
        assert_eq!(text(&output.stdout), "");
        assert_eq!(text(&output.stderr), "");
        assert_eq!(entries(dir.path()), 0);
    }
}

fn wait_for_creations(watched: &OwnedFd, count: usize) {
    let minute = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watched, &mut buffer);
    for _ in 0..count {
        if events.is_buffer_empty() {
            let ready = poll(&mut [PollFd::new(watched, PollFlags::IN)], Some(&minute));
            assert_eq!(ready, Ok(1), "nothing was created");
        }
        events.next().unwrap();
    }
}

#[test]
fn a_bench_that_fails_on_the_way_removes_what_it_has_written() {
    let dir = tempdir().unwrap();

    // No file may have more than 1 or 2 MiB, as the shell counts.
    let output = Command::new("sh")
        .args(["-c", "ulimit -f 2048; exec \"$0\" bench --quick \"$1\""])
        .arg(env!("CARGO_BIN_EXE_dacapo"))
        .arg(dir.path())
        .output()
        .unwrap();

    expect_code(&output, 1);
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    assert!(said.starts_with("dacapo: "), "{said}");
    assert!(said.contains("too large"), "{said}");
    assert_eq!(entries(dir.path()), 0);
}

#[test]
fn a_bench_is_refused_where_there_is_no_place_for_one() {
    let dir = tempdir().unwrap();
    let (file, log) = (dir.path().join("file"), dir.path().join("log"));
    fs::write(&file, "no directory").unwrap();
    append(&log, b"one\n");
    let before = entries(&log);

    for (place, why) in [
        (&*dir.path().join("missing"), "is not there"),
        (&*file, "is not a directory"),
        (&*log, "is a log"),
        (
            Path::new("/proc"),
            "0 B of free space; 56.00 MiB are needed",
        ),
    ] {
        let output = run(["bench", "--quick", path(place)]);
        expect_code(&output, 2);
        let said = text(&output.stderr);
        assert!(
            said.starts_with(&format!("dacapo: {} ", place.display())) && said.contains(why),
            "{said}"
        );
    }
    assert_eq!(entries(dir.path()), 2);
    assert_eq!(entries(&log), before);
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

fn entries(dir: &Path) -> usize {
    dir.read_dir().unwrap().count()
}
