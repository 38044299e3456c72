//! Running the built command: to its end, or step by step.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Lines, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

/// The built command, not yet started.
pub(crate) fn dacapo<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dacapo"));
    command.args(args);
    command
}

/// Runs the command without input.
pub(crate) fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Output {
    run_with_input(args, b"")
}

/// Runs the command with `input`.
pub(crate) fn run_with_input<A: AsRef<OsStr>>(
    args: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Output {
    let mut child = dacapo(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // A command that fails early leaves input unread.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().unwrap()
    })
}

/// Appends `input` to the log in `dir`, which must succeed.
pub(crate) fn append(dir: &Path, input: &[u8]) {
    expect_code(
        &run_with_input([OsStr::new("append"), dir.as_os_str()], input),
        0,
    );
}

/// What `dacapo cat` prints, which must succeed.
pub(crate) fn cat(dir: &Path) -> Vec<u8> {
    let output = run([OsStr::new("cat"), dir.as_os_str()]);
    expect_code(&output, 0);
    output.stdout
}

/// What `dacapo stat --json` says, which must succeed.
pub(crate) fn stat(dir: &Path) -> Value {
    let output = run([OsStr::new("stat"), OsStr::new("--json"), dir.as_os_str()]);
    expect_code(&output, 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks how a command ended.
pub(crate) fn expect_code(output: &Output, code: i32) {
    assert_eq!(
        output.status.code(),
        Some(code),
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        text(&output.stdout).chars().take(500).collect::<String>(),
        text(&output.stderr),
    );
}

/// What a command printed, for looking into it.
pub(crate) fn text(printed: &[u8]) -> String {
    String::from_utf8_lossy(printed).into_owned()
}

/// Starts a process that a test then waits for, and ends it after a minute: with an engine that
/// does not wake its readers, a test fails instead of waiting for ever.
pub(crate) fn spawn_watched(command: &mut Command) -> Child {
    let child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    // A descriptor, because the number may mean another process by then.
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    thread::spawn(move || {
        let minute = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&minute));
        if ended == Ok(0) {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    });
    child
}

/// Says something past the test harness, which hides what a passing test prints.
pub(crate) fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A flag that the environment may set, for the long form of a test.
pub(crate) fn by_hand(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

/// Whether a tool runs that a test needs; says loudly what is skipped where it does not.
pub(crate) fn can_run(tool: &str, arguments: &[&str]) -> bool {
    let ran = Command::new(tool)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !ran {
        tell(format_args!(
            "SKIPPED: this test needs {tool}, and it does not run"
        ));
    }
    ran
}

/// `dacapo append --acks`, fed step by step.
pub(crate) struct Appender {
    child: Child,
    stdin: Option<ChildStdin>,
    acks: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<String>,
}

impl Appender {
    pub(crate) fn start(dir: &Path, options: &[&str]) -> Self {
        let mut command = dacapo(["append", "--acks"]);
        command.args(options).arg(dir);
        Self::spawn(command)
    }

    /// `command` runs the appender in some other way, such as under a tracer.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = spawn_watched(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let acks = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            said
        });
        Self {
            stdin: child.stdin.take(),
            acks,
            stderr,
            child,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its input; false if the process is gone.
    pub(crate) fn feed(&mut self, input: &[u8]) -> bool {
        self.stdin.as_mut().unwrap().write_all(input).is_ok()
    }

    /// Writes to its input on another thread, which then keeps the input open until it is joined.
    pub(crate) fn feed_in_background(&mut self, input: Vec<u8>) -> JoinHandle<ChildStdin> {
        let mut stdin = self.stdin.take().unwrap();
        thread::spawn(move || {
            // The process may be killed meanwhile.
            let _ = stdin.write_all(&input);
            stdin
        })
    }

    /// Waits for an acknowledgement: how many records the log holds; `None` at the end.
    pub(crate) fn acknowledged(&mut self) -> Option<u64> {
        let line = self.acks.next()?.unwrap();
        Some(line.parse::<u64>().unwrap() + 1)
    }

    /// Waits until so many records are stored.
    pub(crate) fn wait_for(&mut self, records: u64) {
        while self.acknowledged().expect("the appender ended early") < records {}
    }

    /// Sends SIGKILL, and returns how many records were acknowledged in the end, if any were after
    /// the last look.
    pub(crate) fn kill(mut self) -> Option<u64> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut last = None;
        while let Some(records) = self.acknowledged() {
            last = Some(records);
        }
        last
    }

    /// Ends the input, and returns how the process ended and what it said on stderr.
    pub(crate) fn finish(mut self) -> (ExitStatus, String) {
        drop(self.stdin.take());
        while self.acknowledged().is_some() {}
        self.ended()
    }

    /// Waits for an end that does not need the end of its input.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.stderr.join().unwrap())
    }
}

/// What became of an appender that was fed under a fault.
pub(crate) struct Fed {
    pub(crate) status: ExitStatus,
    pub(crate) said: String,
    pub(crate) acknowledged: u64,
}

/// Runs `dacapo append --durable --acks` behind `before`, a program that runs another one in its
/// way, and feeds it so many numbered lines: each one when the last one was acknowledged.
pub(crate) fn append_lines_under(mut before: Command, dir: &Path, lines: u64) -> Fed {
    before
        .arg(env!("CARGO_BIN_EXE_dacapo"))
        .args(["append", "--durable", "--acks"])
        .args(["--segment-bytes-max", "16K"])
        .arg(dir);
    let mut appender = Appender::spawn(before);
    let mut acknowledged = 0;
    for number in 0..lines {
        if !appender.feed(numbered_line(number).as_bytes()) {
            break;
        }
        match appender.acknowledged() {
            Some(records) => acknowledged = records,
            None => break,
        }
    }
    let (status, said) = appender.finish();
    Fed {
        status,
        said,
        acknowledged,
    }
}

/// A line of up to 5000 bytes.
fn numbered_line(number: u64) -> String {
    let more = usize::try_from(number * 997 % 5000).unwrap();
    format!("line {number} {}\n", "x".repeat(more))
}

/// Without the fault, a log holds all that was acknowledged, and goes on.
pub(crate) fn expect_kept(dir: &Path, fed: &Fed) {
    let expected: String = (0..fed.acknowledged).map(numbered_line).collect();
    append(dir, b"after the fault\n");
    let stored = text(&cat(dir));
    let told = || {
        format!(
            "{} acknowledged, {}: {}",
            fed.acknowledged, fed.status, fed.said
        )
    };
    assert!(stored.starts_with(&expected), "{}", told());
    assert!(stored.ends_with("after the fault\n"), "{}", told());
    // The lines that were fed, each once and in order.
    let behind = stored.lines().count() as u64 - 1;
    let fed_lines: String = (0..behind).map(numbered_line).collect();
    assert!(stored == fed_lines + "after the fault\n", "{}", told());
    expect_code(&run([OsStr::new("verify"), dir.as_os_str()]), 0);
}
