//! Processes killed at every kind of moment, and what the log holds afterwards.

use std::path::Path;

use dacapo_log::{Log, Start};
use tempfile::tempdir;

use crate::keystrokes;
use crate::process::{Appender, append, cat, stat};

#[test]
fn a_writer_killed_at_50_moments_loses_nothing_it_acknowledged() {
    let input = keystrokes::unpack();
    let starts = keystrokes::line_starts(&input);
    let mut random = Random(0xdaca);
    for moment in 0..50 {
        let dir = tempdir().unwrap();
        let mut survived = 0;
        // Once in five times, the process that recovers is killed as well.
        for _ in 0..if moment % 5 == 4 { 2 } else { 1 } {
            if survived == starts.len() - 1 {
                break; // the first kill came too late to leave anything
            }
            let feed = Feed {
                input: &input[starts[survived]..],
                end: starts.len() as u64 - 1,
            };
            let acknowledged = append_and_kill(dir.path(), &feed, moment, &mut random);

            survived = match dir.path().join("meta").exists() {
                true => usize::try_from(stat(dir.path())["records"].as_u64().unwrap()).unwrap(),
                false => 0,
            };
            assert!(
                survived as u64 >= acknowledged,
                "moment {moment}: {acknowledged} acknowledged, {survived} there"
            );
        }

        append(dir.path(), &input[starts[survived]..]);

        assert!(
            cat(dir.path()) == input,
            "moment {moment}, {survived} survived the kill"
        );
    }
    // What came out was the input, 50 times.
    assert_eq!(keystrokes::write_text(&input), keystrokes::FINAL_TEXT);
}

struct Feed<'a> {
    input: &'a [u8],
    /// How many records the log would hold with all of it.
    end: u64,
}

/// Returns how many records the log holds as far as the killed process acknowledged.
fn append_and_kill(dir: &Path, feed: &Feed<'_>, moment: u64, random: &mut Random) -> u64 {
    let options: &[&str] = match moment % 4 {
        0 => &[],
        1 => &["--segment-bytes-max", "32K"],
        2 => &["--durable"],
        _ => &["--durable", "--segment-bytes-max", "64K"],
    };
    let mut appender = Appender::start(dir, options);
    match moment % 3 {
        // So many acknowledgements have come, and mostly more input is there.
        0 => {
            let feeding = appender.feed_in_background(feed.input.to_vec());
            let mut acknowledged = 0;
            for _ in 0..1 + random.below(15) {
                if acknowledged < feed.end {
                    acknowledged = appender.acknowledged().expect("it was not killed yet");
                }
            }
            let later = appender.kill();
            feeding.join().unwrap();
            later.unwrap_or(acknowledged)
        }
        // So many bytes went into the pipe, up to the middle of a line.
        1 => {
            let bytes = random.below(feed.input.len() as u64);
            appender.feed(&feed.input[..usize::try_from(bytes).unwrap()]);
            appender.kill().unwrap_or(0)
        }
        // Another process has seen so many records.
        _ => {
            let feeding = appender.feed_in_background(feed.input.to_vec());
            let acknowledged = appender.acknowledged().expect("it was not killed yet");
            let reader = Log::options().open_read_only(dir).unwrap();
            let mut tailer = reader.tail(Start::Oldest);
            for _ in 0..random.below(feed.end / 2) {
                tailer.next_blocking().unwrap();
            }
            let later = appender.kill();
            feeding.join().unwrap();
            later.unwrap_or(acknowledged)
        }
    }
}

/// Numbers that look random, and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
