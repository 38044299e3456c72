//! The operations whose cost is counted rather than timed: instructions, faults, system calls.
//!
//! Each runs as often as it is told to, and what it does before and behind that is the same for any
//! number: the difference of two runs is what the operation takes.

use std::error::Error;
use std::hint::black_box;
use std::thread;
use std::time::Duration;

use dacapo::{Decode, Encode, Postcard, ReplayChannel};
use dacapo_log::{Flush, Log, Offset, Start};
use futures_lite::future::block_on;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::payload;

const SMALL: usize = 100;
const LARGE: usize = 1024;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// What it is called.
    pub name: &'static str,
    /// Whether other threads have a part in it, so that its instructions are not the same each time.
    pub has_threads: bool,
    run: fn(u32, u32) -> Outcome,
}

const fn alone(name: &'static str, run: fn(u32, u32) -> Outcome) -> Operation {
    Operation {
        name,
        has_threads: false,
        run,
    }
}

const fn with_threads(name: &'static str, run: fn(u32, u32) -> Outcome) -> Operation {
    Operation {
        name,
        has_threads: true,
        run,
    }
}

/// All of them.
pub const OPERATIONS: [Operation; 16] = [
    alone("append, 100 B", |times, _| append(times, SMALL)),
    alone("append, 1 KiB", |times, _| append(times, LARGE)),
    alone("append 100 as a batch, 100 B", |times, _| {
        append_batch(times, SMALL)
    }),
    alone("append 100 as a batch, 1 KiB", |times, _| {
        append_batch(times, LARGE)
    }),
    alone("append and sync, 100 B", |times, _| append_and_sync(times)),
    with_threads("append and durable, 100 B", |times, _| {
        append_and_wait(times)
    }),
    alone("replay, borrowed, 100 B", |times, of| {
        replay(times, of, SMALL)
    }),
    alone("replay, borrowed, 1 KiB", |times, of| {
        replay(times, of, LARGE)
    }),
    alone("replay, kept, 100 B", replay_kept),
    alone("tail, borrowed, 100 B", tail),
    with_threads("append with a follower, 100 B", |times, _| follow(times)),
    alone("read at an offset, 100 B", read_at),
    alone("encode a message", |times, _| encode(times)),
    alone("decode a message", |times, _| decode(times)),
    alone("send a message", |times, _| send(times)),
    alone("receive a message", receive),
];

/// Runs an operation so many times, in a log or channel that holds `of` records where it reads; of a
/// batch, that many records.
///
/// # Errors
/// An unknown name, and those of the operation.
pub fn run(name: &str, times: u32, of: u32) -> Outcome {
    let mut all = OPERATIONS.iter();
    let operation = all.find(|operation| operation.name == name);
    let operation = operation.ok_or_else(|| format!("there is no operation \"{name}\""))?;
    (operation.run)(times, of.max(times))
}

/// A log of one large segment: while less than half of that is appended, no other is made ready.
fn log() -> Outcome<(TempDir, Log)> {
    let dir = tempfile::tempdir_in(".")?;
    let options = Log::options().segment_bytes_min(64 << 20);
    let log = options.flush(Flush::OnDemand).open(dir.path())?;
    log.append(b"makes the segment")?;
    Ok((dir, log))
}

fn append(times: u32, bytes: usize) -> Outcome {
    let ((_dir, log), payload) = (log()?, payload(bytes));
    for _ in 0..times {
        log.append(&payload)?;
    }
    Ok(())
}

fn append_batch(times: u32, bytes: usize) -> Outcome {
    let (payload, (_dir, log)) = (payload(bytes), log()?);
    let batch = [&payload[..]; 100];
    // A hundredth of the batches, so that the count is that of one record.
    for _ in 0..times / 100 {
        log.append_batch(batch)?;
    }
    Ok(())
}

fn append_and_sync(times: u32) -> Outcome {
    let ((_dir, log), payload) = (log()?, payload(SMALL));
    for _ in 0..times {
        log.append(&payload)?;
        log.sync()?;
    }
    Ok(())
}

fn append_and_wait(times: u32) -> Outcome {
    let ((_dir, log), payload) = (log()?, payload(SMALL));
    for _ in 0..times {
        let offset = log.append(&payload)?;
        block_on(log.durable(offset))?;
    }
    Ok(())
}

/// A log with so many records.
fn filled(records: u32, bytes: usize) -> Outcome<(TempDir, Log)> {
    let ((dir, log), payload) = (log()?, payload(bytes));
    for _ in 0..records {
        log.append(&payload)?;
    }
    Ok((dir, log))
}

fn replay(times: u32, of: u32, bytes: usize) -> Outcome {
    let (_dir, log) = filled(of, bytes)?;
    let mut replay = log.replay(Start::Oldest);
    for _ in 0..times {
        let record = replay.next_ref().ok_or("no record")??;
        black_box(record.payload());
    }
    Ok(())
}

fn replay_kept(times: u32, of: u32) -> Outcome {
    let (_dir, log) = filled(of, SMALL)?;
    for record in log.replay(Start::Oldest).take(times as usize) {
        black_box(record?.payload());
    }
    Ok(())
}

fn tail(times: u32, of: u32) -> Outcome {
    let (_dir, log) = filled(of, SMALL)?;
    let mut tailer = log.tail(Start::Oldest);
    for _ in 0..times {
        let record = tailer.try_next_ref()?.ok_or("no record")?;
        black_box(record.payload());
    }
    Ok(())
}

/// Another thread reads what this one appends, one at a time, so that it sleeps and is woken each time.
fn follow(times: u32) -> Outcome {
    let ((_dir, log), payload) = (log()?, payload(SMALL));
    let mut tailer = log.tail(Start::Latest);
    let (read, wait) = std::sync::mpsc::sync_channel(0);
    let follower = thread::spawn(move || {
        for _ in 0..times {
            black_box(tailer.next_blocking().expect("sound"));
            read.send(()).expect("the appender waits");
        }
    });
    for _ in 0..times {
        log.append(&payload)?;
        wait.recv()?;
    }
    follower.join().map_err(|_| "the follower failed")?;
    Ok(())
}

/// Each at another place, so that every distance to a point of the index is there.
fn read_at(times: u32, of: u32) -> Outcome {
    let (_dir, log) = filled(of, SMALL)?;
    for number in 0..times {
        let offset = Offset::new(u64::from(number.wrapping_mul(7) % of));
        black_box(log.get(offset)?.payload());
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Note {
    id: u64,
    text: String,
}

fn note() -> Note {
    let text = "x".repeat(98);
    Note { id: 7, text }
}

fn encode(times: u32) -> Outcome {
    let (note, mut bytes) = (note(), Vec::new());
    for _ in 0..times {
        bytes.clear();
        Postcard.encode(black_box(&note), &mut bytes)?;
        black_box(&bytes);
    }
    Ok(())
}

fn decode(times: u32) -> Outcome {
    let mut bytes = Vec::new();
    Postcard.encode(&note(), &mut bytes)?;
    for _ in 0..times {
        let note: Note = Postcard.decode(black_box(&bytes))?;
        black_box((note.id, note.text));
    }
    Ok(())
}

fn channel() -> Outcome<ReplayChannel<Note>> {
    let options = Log::options().segment_bytes_min(64 << 20);
    let builder = ReplayChannel::builder().log_options(options);
    let channel = builder.temporary()?;
    channel.sender().send(&note())?;
    Ok(channel)
}

fn send(times: u32) -> Outcome {
    let (channel, note) = (channel()?, note());
    let sender = channel.sender();
    for _ in 0..times {
        sender.send(&note)?;
    }
    Ok(())
}

fn receive(times: u32, of: u32) -> Outcome {
    let (channel, note) = (channel()?, note());
    let sender = channel.sender();
    for _ in 0..of {
        sender.send(&note)?;
    }
    let receiver = channel.receiver();
    for _ in 0..times {
        let note = receiver.receive_timeout(Duration::ZERO)?;
        black_box(note.ok_or("no message")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{OPERATIONS, run};

    #[test]
    fn every_operation_runs_by_its_name() {
        for operation in OPERATIONS {
            run(operation.name, 100, 100).unwrap();
        }
        assert!(run("unheard of", 1, 1).is_err());
    }
}
