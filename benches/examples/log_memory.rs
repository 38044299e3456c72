//! What a log costs in memory: idle, with 1,000 tailers that wait, and as it grows.
//!
//! ```console
//! $ cargo run --release -p dacapo-benches --example log_memory
//! ```
//!
//! Each step runs in a process of its own, and prints what it takes beyond a process that has not
//! opened a log: the anonymous memory, behind which there is no file.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Waker};

use dacapo_benches::memory::Memory;
use dacapo_benches::payload;
use dacapo_log::{Log, ReadError, Record, Start};

const TAILERS: usize = 1_000;
const PAYLOAD_BYTES: usize = 1_000;
const SIZES_MIB: [u64; 3] = [1, 64, 1_024];

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [step, dir] = &arguments[..] {
        return run(step, Path::new(dir));
    }
    for mebibytes in SIZES_MIB {
        let dir = tempfile::tempdir_in(".")?;
        println!("a log of {mebibytes} MiB:");
        for step in [
            "none",
            &format!("fill:{mebibytes}"),
            "idle",
            "append",
            "tailers",
            "replay",
        ] {
            let program = std::env::current_exe()?;
            let status = Command::new(program).arg(step).arg(dir.path()).status()?;
            assert!(status.success(), "{step}: {status}");
        }
    }
    Ok(())
}

fn run(step: &str, dir: &Path) -> Outcome {
    let before = Memory::now()?;
    let say = |what: &str| -> Outcome {
        let now = Memory::now()?;
        let taken = now.anonymous.saturating_sub(before.anonymous);
        println!("  {what:<44} {taken:>6} KiB more; {now}");
        Ok(())
    };
    if step == "none" {
        return say("nothing open");
    }
    let log = Log::open(dir)?;
    match step {
        "idle" => say("open and idle"),
        "append" => {
            log.append(&payload(PAYLOAD_BYTES))?;
            log.sync()?;
            say("open, one record appended and synced")
        }
        "tailers" => {
            let alone = Memory::now()?;
            let mut tailers: Vec<_> = (0..TAILERS).map(|_| log.tail(Start::Latest)).collect();
            let waiting: Vec<_> = tailers
                .iter_mut()
                .map(|tailer| wait(tailer.next()))
                .collect();
            let taken = Memory::now()?.anonymous - alone.anonymous;
            say("1,000 tailers wait")?;
            println!("  {:<44} {taken:>6} KiB", "of that, by the tailers");
            drop(waiting);
            Ok(())
        }
        "replay" => {
            let mut replay = log.replay(Start::Oldest);
            let mut bytes = 0;
            while let Some(record) = replay.next_ref() {
                bytes += record?.payload().len();
            }
            assert!(bytes > 0, "the log was filled");
            say("all records replayed")
        }
        fill => {
            let mebibytes = fill.strip_prefix("fill:").ok_or("an unknown step")?;
            let records = (mebibytes.parse::<u64>()? << 20) / PAYLOAD_BYTES as u64;
            let payload = payload(PAYLOAD_BYTES);
            for _ in 0..records {
                log.append(&payload)?;
            }
            say("filled")?;
            log.close()?;
            Ok(())
        }
    }
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Result<Record, ReadError>> + 'a>>;

/// A future that has begun to wait.
fn wait<'a>(future: impl Future<Output = Result<Record, ReadError>> + 'a) -> Waiting<'a> {
    let mut future: Waiting<'a> = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.as_mut().poll(&mut context).is_pending());
    future
}
