//! System calls that fail, one at a time, at every place where the appender makes them. strace makes
//! them fail; without strace, this says so loudly.
//!
//! The short form tries some of the places. All of them, by hand:
//!
//! ```text
//! DACAPO_EVERY_FAULT=1 cargo test -p dacapo-cli --test cli failing_disk
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use tempfile::tempdir;

use crate::process::{Fed, append_lines_under, by_hand, can_run, expect_kept, tell};

/// Enough for some segments of 16 KiB.
const LINES: u64 = 20;

/// What a failed sync of one of these covered was nothing of the log yet: a segment that is not there
/// under its name, and what is derived from the segments. Other threads than the appender's write
/// them, so that it depends on the machine how many syncs come before one of theirs.
const OF_NOTHING_YET: [&str; 3] = ["next.tmp", "index.tmp", "topics.tmp"];

/// A failed sync is final: what it covered is in doubt for ever.
#[test]
fn no_sync_that_fails_is_followed_by_an_acknowledgement() {
    let anywhere = ["fdatasync", "fsync", "msync"].map(|call| (call, Where::Anywhere));
    // Those of another thread, which has made fewer by then.
    let beside = ("fdatasync", Where::On(&OF_NOTHING_YET));
    for (call, place) in anywhere.into_iter().chain([beside]) {
        sweep(call, &["EIO"], place, |trace, fed| {
            let is_harmless = |line: &String| {
                let is_of = |name| line.contains(&format!("/{name}>"));
                OF_NOTHING_YET.into_iter().any(is_of)
            };
            if trace.failed.iter().all(is_harmless) {
                return;
            }
            let at = format!("{:?}, {}: {}", trace.failed, fed.status, fed.said);
            assert_eq!(fed.status.code(), Some(1), "{at}");
            assert!(fed.said.contains("Input/output error"), "{at}");
            assert_eq!(trace.acknowledged_behind, 0, "{at}");
        });
    }
}

#[test]
fn no_write_allocation_or_rename_that_fails_loses_what_was_acknowledged() {
    for call in ["pwrite64", "fallocate", RENAME] {
        sweep(
            call,
            &["ENOSPC", "EIO", "EDQUOT"],
            Where::Anywhere,
            |_, _| (),
        );
    }
}

#[test]
fn no_file_mapping_lock_or_thread_that_cannot_be_had_loses_what_was_acknowledged() {
    let errors = ["EMFILE", "ENOSPC", "EIO"];
    sweep("openat", &errors, Where::OnLogFiles, |_, _| ());
    sweep("mmap", &["ENOMEM"], Where::OnLogFiles, |_, _| ());
    sweep("flock", &["ENOLCK"], Where::Anywhere, |_, _| ());
    sweep("clone,clone3", &["EAGAIN"], Where::Anywhere, |_, _| ());
}

/// One of them, depending on the machine.
const RENAME: &str = "?rename,?renameat,?renameat2";

/// Lets `call` fail with each of the errors, at each place where it is made: the first time in every
/// thread, the second time, and so on, once and for good.
fn sweep(call: &str, errors: &[&str], place: Where, check: impl Fn(&Trace, &Fed)) {
    if !can_run("strace", &["-f", "-o", "/dev/null", "true"]) {
        return;
    }
    let every = by_hand("DACAPO_EVERY_FAULT");
    let files = match place {
        Where::Anywhere => Vec::new(),
        Where::OnLogFiles => names_of_log_files(),
        Where::On(files) => files.iter().map(|&file| file.to_owned()).collect(),
    };
    for error in errors {
        for from_then_on in [false, true] {
            if from_then_on && !every {
                continue;
            }
            let mut covered = Covered::default();
            let mut nth = 1;
            loop {
                let fault = Fault {
                    call,
                    error,
                    nth,
                    from_then_on,
                    files: &files,
                };
                if !covered.meets(&fault, &check) {
                    break;
                }
                // In the short form, further and further apart.
                nth += if every { 1 } else { 1 + nth / 2 };
            }
            let how = if from_then_on { " from then on" } else { "" };
            tell(format_args!("{call} {error}{how}: {covered}"));
        }
    }
}

/// Which calls are made to fail.
enum Where {
    Anywhere,
    /// Not those with which the command itself is loaded.
    OnLogFiles,
    On(&'static [&'static str]),
}

struct Fault<'a> {
    call: &'a str,
    error: &'a str,
    /// The how many-th such call of a thread fails.
    nth: u32,
    from_then_on: bool,
    /// If there are any, only calls on these files of the log are counted.
    files: &'a [String],
}

/// The names that a log's files have at any time of a run.
fn names_of_log_files() -> Vec<String> {
    let dir = tempdir().unwrap();
    let fed = append_lines_under(Command::new("env"), dir.path(), LINES);
    assert_eq!(fed.acknowledged, LINES, "{}", fed.said);
    let stored = fs::read_dir(dir.path()).unwrap();
    let temporary = ["", "next.tmp", "index.tmp", "meta.tmp"].map(str::to_owned);
    stored
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .chain(temporary)
        .collect()
}

/// How the processes have ended.
#[derive(Default)]
struct Covered {
    faults: usize,
    ends: BTreeMap<String, u32>,
}

impl Covered {
    /// Runs an appender with one fault; false if it made too few calls to meet it.
    fn meets(&mut self, fault: &Fault<'_>, check: impl Fn(&Trace, &Fed)) -> bool {
        let dir = tempdir().unwrap();
        let (log, trace) = (dir.path().join("log"), dir.path().join("trace"));
        let Fault {
            call,
            error,
            nth,
            from_then_on,
            files,
        } = fault;
        let plus = if *from_then_on { "+" } else { "" };
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-y", "-o"])
            .arg(&trace)
            .args(["-e", &format!("trace={call},write,rt_sigaction"), "-e"])
            .arg(format!("inject={call}:error={error}:when={nth}{plus}"));

        for file in *files {
            strace.arg("-P").arg(log.join(file).components().as_path());
        }

        let fed = append_lines_under(strace, &log, LINES);

        let trace = Trace::read(&trace);
        if trace.failed.is_empty() {
            assert_eq!(fed.acknowledged, LINES, "{}", fed.said);
            return false;
        }
        let at = format!("{call} {error} {nth}{plus}, {}: {}", fed.status, fed.said);
        let end = match fed.status.code() {
            // The loader's calls: what it does about them is not the command's affair.
            _ if files.is_empty() && !trace.began => "did not begin",
            Some(0) => "succeeded",
            Some(1) => {
                assert!(fed.said.contains("dacapo: "), "{at}");
                "failed"
            }
            _ => panic!("{at} (signal {:?})", fed.status.signal()),
        };
        check(&trace, &fed);
        expect_kept(&log, &fed);
        self.faults += trace.failed.len();
        *self.ends.entry(end.to_owned()).or_default() += 1;
        true
    }
}

impl std::fmt::Display for Covered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let processes: u32 = self.ends.values().sum();
        write!(f, "{} calls failed in {processes} processes", self.faults)?;
        self.ends
            .iter()
            .try_for_each(|(end, count)| write!(f, ", {count} {end}"))
    }
}

/// What strace wrote down.
struct Trace {
    /// The command had begun its own work before a call failed.
    began: bool,
    /// The calls that were made to fail.
    failed: Vec<String>,
    /// Acknowledgements behind the first of them.
    acknowledged_behind: usize,
}

impl Trace {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let is_failed = |line: &&str| line.contains("(INJECTED)");
        let failed = text.lines().enumerate().filter(|(_, line)| is_failed(line));
        let failed = failed.map(|(at, line)| whole_call(&text, at, line));
        let mut before = text.lines().take_while(|line| !is_failed(line));
        let behind = text.lines().skip_while(|line| !is_failed(line));
        Self {
            // The first thing that it does.
            began: before.any(|line| line.contains("rt_sigaction(SIGXFSZ")),
            failed: failed.collect(),
            acknowledged_behind: behind.filter(|line| line.contains("write(1<")).count(),
        }
    }
}

/// The call that ends on this line. Where another thread's came between, its beginning, which names
/// the file, stands on a line of its own.
fn whole_call(trace: &str, at: usize, line: &str) -> String {
    let Some((thread, end)) = line.split_once("<... ") else {
        return line.to_owned();
    };
    let is_begun = |line: &&str| line.starts_with(thread.trim()) && line.contains("<unfinished");
    let begun = trace.lines().take(at).filter(is_begun).last();
    format!("{} {end}", begun.unwrap())
}
