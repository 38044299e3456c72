//! Being asked to stop, and talking to somebody who has gone.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;

use crate::process::{Appender, append, cat, dacapo, stat};

#[test]
fn an_append_that_is_asked_to_stop_keeps_every_line_it_read() {
    for signal in [Signal::INT, Signal::TERM] {
        let dir = tempdir().unwrap();
        let mut appender = Appender::start(dir.path(), &[]);
        assert!(appender.feed(b"one\ntwo\n"));
        appender.wait_for(2);

        // Its input stays open, and it waits for more.
        kill_process(pid(&appender), signal).unwrap();

        let (status, said) = appender.ended();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(
            said.starts_with("Stored 2 records, offsets 0 to 1: "),
            "{said}"
        );
        assert_eq!(cat(dir.path()), b"one\ntwo\n");
        assert_eq!(stat(dir.path())["clean"], true);
    }
}

#[test]
fn half_a_line_is_not_stored_when_a_signal_comes_and_that_is_said() {
    let dir = tempdir().unwrap();
    let mut appender = Appender::start(dir.path(), &[]);
    assert!(appender.feed(b"one\nhalf"));
    appender.wait_for(1);

    kill_process(pid(&appender), Signal::TERM).unwrap();

    let (status, said) = appender.ended();
    assert_eq!(status.code(), Some(0));
    assert!(said.contains("its 4 bytes are not stored"), "{said}");
    assert_eq!(cat(dir.path()), b"one\n");
}

#[test]
fn a_reader_that_has_enough_ends_the_output_quietly() {
    let dir = tempdir().unwrap();
    let input: String = (0..200_000).map(|number| format!("{number}\n")).collect();
    append(dir.path(), input.as_bytes());

    // A tail has nothing more to write when its reader goes, and ends all the same.
    for command in ["cat", "tail"] {
        let mut child = dacapo([command])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "0");
        if command == "tail" {
            assert_eq!(lines.by_ref().take(199_999).count(), 199_999);
        }
        drop(lines);

        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{command}");
        assert_eq!(said, "", "{command}");
    }
}

fn pid(appender: &Appender) -> Pid {
    Pid::from_raw(appender.pid().try_into().unwrap()).unwrap()
}
