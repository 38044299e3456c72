//! What receivers cost in memory, on disk and in memory: 100,000 messages of 100 bytes, and so many
//! receivers that have received all of them and wait for the next one.
//!
//! ```console
//! $ cargo run --release -p dacapo-benches --example channel_memory
//! ```
//!
//! Each step runs in a process of its own, so that its memory is that step's alone.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Waker};

use dacapo::ReplayChannel;
use dacapo_benches::memory::Memory;

const MESSAGES: u64 = 100_000;
const RECEIVERS: [usize; 4] = [1, 10, 100, 1_000];

type Note = (u64, String);

fn note(id: u64) -> Note {
    (id, "x".repeat(90))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [rival, receivers] = &arguments[..] else {
        println!("{MESSAGES} messages, and receivers that have received them all and wait:");
        for rival in ["dacapo", "replay-channel"] {
            for receivers in RECEIVERS {
                let program = std::env::current_exe()?;
                let run = Command::new(program)
                    .args([rival, &receivers.to_string()])
                    .status()?;
                assert!(run.success(), "{rival} with {receivers} receivers: {run}");
            }
        }
        return Ok(());
    };
    let receivers: usize = receivers.parse()?;
    let memory = match rival.as_str() {
        "dacapo" => on_disk(receivers)?,
        _ => in_memory(receivers)?,
    };
    println!("  {rival:<15} {receivers:>5} receivers: {memory}");
    Ok(())
}

fn on_disk(receivers: usize) -> Result<Memory, Box<dyn Error>> {
    let channel = ReplayChannel::<Note>::temporary()?;
    let sender = channel.sender();
    for id in 0..MESSAGES {
        sender.send(&note(id))?;
    }
    let receivers: Vec<_> = (0..receivers).map(|_| channel.receiver()).collect();
    for receiver in &receivers {
        for id in 0..MESSAGES {
            assert_eq!(receiver.receive_blocking()?.0, id);
        }
    }
    let waiting = receivers.iter().map(|receiver| wait(receiver.receive()));
    let waiting: Vec<_> = waiting.collect();
    let memory = Memory::now()?;
    drop(waiting);
    Ok(memory)
}

fn in_memory(receivers: usize) -> Result<Memory, Box<dyn Error>> {
    let channel = replay_channel::ReplayChannel::new();
    let sender = channel.sender();
    for id in 0..MESSAGES {
        sender.send(note(id));
    }
    let receivers: Vec<_> = (0..receivers).map(|_| channel.receiver()).collect();
    for receiver in &receivers {
        for id in 0..MESSAGES {
            assert_eq!(futures_lite::future::block_on(receiver.receive()).0, id);
        }
    }
    let waiting = receivers.iter().map(|receiver| wait(receiver.receive()));
    let waiting: Vec<_> = waiting.collect();
    let memory = Memory::now()?;
    drop(waiting);
    Ok(memory)
}

/// A future that has begun to wait.
fn wait<'a, F: Future + 'a>(future: F) -> Pin<Box<dyn Future<Output = F::Output> + 'a>> {
    let mut future: Pin<Box<dyn Future<Output = F::Output> + 'a>> = Box::pin(future);
    let waiting = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(waiting.is_pending(), "there is nothing left to receive");
    future
}
