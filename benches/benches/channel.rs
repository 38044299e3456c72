//! What do types cost, and how does a channel on disk compare with one in memory?
//!
//! `channel_send` sends a message of 100 bytes, against appending its bytes to the log.
//! `channel_fan_out` sends [`messages`] to so many receivers, which follow live in tasks of a
//! runtime with two threads, against the crate `replay-channel` doing the same in memory; the time is
//! that until each receiver has had each message. `channel_send_later` sends after 10,000 receivers
//! have come and gone, against before.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use dacapo::{Codec, Encode, Log, Postcard, ReplayChannel};
use dacapo_benches::{ratio, run};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// `cargo test --all-targets` runs each bench once, to see that it works: with fewer messages.
const SCALE: u32 = if cfg!(debug_assertions) { 1_000 } else { 1 };
const SENDS: u32 = 100_000 / SCALE;
const RECEIVERS: [u64; 4] = [1, 10, 100, 1_000];

/// How many messages so many receivers get: fewer where there are a thousand, because each bench has
/// seconds.
fn messages(receivers: u64) -> u64 {
    let whole = if receivers < 1_000 { 100_000 } else { 10_000 };
    whole / u64::from(SCALE)
}

/// 100 bytes in postcard.
#[derive(Clone, Serialize, Deserialize)]
struct Note {
    id: u64,
    text: String,
}

/// The same, borrowed.
#[derive(Deserialize)]
struct NoteView<'a> {
    id: u64,
    text: &'a str,
}

fn note(id: u64) -> Note {
    Note {
        id,
        text: "The quick brown fox jumps over the lazy dog, again and again, until it is tired of it. Now it naps".to_owned(),
    }
}

fn main() {
    let mut criterion = run::criterion(10);
    send(&mut criterion);
    fan_out(&mut criterion);
    send_later(&mut criterion);
    criterion.final_summary();
    ratio::print(
        "send of a message, against append of its bytes:",
        &[("channel_send/send".into(), "channel_send/append".into())],
    );
    ratio::print(
        "messages to so many receivers, against `replay-channel` in memory:",
        &RECEIVERS.map(|receivers| {
            (
                format!("channel_fan_out/dacapo/{receivers}"),
                format!("channel_fan_out/replay-channel/{receivers}"),
            )
        }),
    );
    ratio::print(
        "the same, read in place, against the same:",
        &RECEIVERS.map(|receivers| {
            (
                format!("channel_fan_out/dacapo-in-place/{receivers}"),
                format!("channel_fan_out/replay-channel/{receivers}"),
            )
        }),
    );
    ratio::print(
        "send after 10,000 receivers have come and gone, against before:",
        &["dacapo", "replay-channel"].map(|rival| {
            (
                format!("channel_send_later/{rival}/after"),
                format!("channel_send_later/{rival}/before"),
            )
        }),
    );
}

fn channel() -> ReplayChannel<Note> {
    let options = Log::options().segment_bytes_min(32 << 20);
    let builder = ReplayChannel::builder().log_options(options);
    let channel = builder.temporary().expect("a channel");
    // The first segment is made with the first message.
    channel.sender().send(&note(0)).expect("sent");
    channel
}

fn send(criterion: &mut Criterion) {
    let mut bytes = Vec::new();
    Postcard.encode(&note(7), &mut bytes).expect("encoded");
    assert_eq!((Postcard.name(), bytes.len()), ("postcard", 100));
    let mut group = criterion.benchmark_group("channel_send");
    group.throughput(Throughput::Elements(SENDS.into()));
    group.bench_function("append", |b| {
        b.iter_custom(|rounds| {
            timed(rounds, channel, |channel| {
                let log = channel.log();
                for _ in 0..SENDS {
                    log.append(&bytes).expect("appended");
                }
            })
        });
    });
    group.bench_function("send", |b| {
        let note = note(7);
        b.iter_custom(|rounds| {
            timed(rounds, channel, |channel| {
                let sender = channel.sender();
                for _ in 0..SENDS {
                    sender.send(&note).expect("sent");
                }
            })
        });
    });
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("channel_fan_out");
    for receivers in RECEIVERS {
        group.throughput(Throughput::Elements(receivers * messages(receivers)));
        let id = |rival| BenchmarkId::new(rival, receivers);
        group.bench_function(id("replay-channel"), |b| {
            b.iter_custom(|rounds| {
                let new = replay_channel::ReplayChannel::new;
                timed(rounds, new, |channel| {
                    in_memory(&runtime, channel, receivers)
                })
            });
        });
        group.bench_function(id("dacapo-in-place"), |b| {
            b.iter_custom(|rounds| {
                timed(rounds, channel, |channel| {
                    in_place(&runtime, channel, receivers)
                })
            });
        });
        group.bench_function(id("dacapo"), |b| {
            b.iter_custom(|rounds| {
                timed(rounds, channel, |channel| {
                    on_disk(&runtime, channel, receivers)
                })
            });
        });
    }
    group.finish();
}

fn in_memory(runtime: &Runtime, channel: &replay_channel::ReplayChannel<Note>, receivers: u64) {
    let messages = messages(receivers);
    let tasks: Vec<_> = (0..receivers)
        .map(|_| {
            let receiver = channel.receiver();
            runtime.spawn(async move {
                for _ in 0..messages {
                    std::hint::black_box(receiver.receive().await);
                }
            })
        })
        .collect();
    let sender = channel.sender();
    for id in 0..messages {
        sender.send(note(id));
    }
    for task in tasks {
        futures_lite::future::block_on(task).expect("it received them all");
    }
}

fn on_disk(runtime: &Runtime, channel: &ReplayChannel<Note>, receivers: u64) {
    let messages = messages(receivers);
    let tasks: Vec<_> = (0..receivers)
        .map(|_| {
            let receiver = channel.receiver();
            runtime.spawn(async move {
                // One more: that which made the segment.
                for _ in 0..=messages {
                    std::hint::black_box(receiver.receive().await.expect("received"));
                }
            })
        })
        .collect();
    send_all(channel, messages, tasks);
}

fn send_all(channel: &ReplayChannel<Note>, messages: u64, tasks: Vec<JoinHandle<()>>) {
    let sender = channel.sender();
    for id in 0..messages {
        sender.send(&note(id)).expect("sent");
    }
    for task in tasks {
        futures_lite::future::block_on(task).expect("it received them all");
    }
}

/// As [`on_disk`], reading each message where it lies.
fn in_place(runtime: &Runtime, channel: &ReplayChannel<Note>, receivers: u64) {
    let messages = messages(receivers);
    let tasks: Vec<_> = (0..receivers)
        .map(|_| {
            let receiver = channel.receiver();
            runtime.spawn(async move {
                for _ in 0..=messages {
                    let read = receiver.receive_with(|message| {
                        let note: NoteView<'_> = message.view().expect("a note");
                        std::hint::black_box((note.id, note.text));
                    });
                    read.await.expect("received");
                }
            })
        })
        .collect();
    send_all(channel, messages, tasks);
}

fn send_later(criterion: &mut Criterion) {
    const GONE: u32 = 10_000 / SCALE;
    const FEW: u32 = 1_000;
    let mut group = criterion.benchmark_group("channel_send_later");
    group.throughput(Throughput::Elements(FEW.into()));
    for (when, gone) in [("before", 0), ("after", GONE)] {
        group.bench_function(BenchmarkId::new("dacapo", when), |b| {
            let note = note(7);
            let used = || {
                let channel = channel();
                for _ in 0..gone {
                    let receiver = channel.receiver();
                    receiver.receive_blocking().expect("received");
                    let nothing = receiver.receive_timeout(Duration::ZERO);
                    assert!(nothing.expect("received").is_none());
                }
                channel
            };
            b.iter_custom(|rounds| {
                timed(rounds, used, |channel| {
                    let sender = channel.sender();
                    for _ in 0..FEW {
                        sender.send(&note).expect("sent");
                    }
                })
            });
        });
        group.bench_function(BenchmarkId::new("replay-channel", when), |b| {
            let used = || {
                let channel = replay_channel::ReplayChannel::new();
                for _ in 0..gone {
                    drop(channel.receiver());
                }
                channel
            };
            b.iter_custom(|rounds| {
                timed(rounds, used, |channel| {
                    let sender = channel.sender();
                    for _ in 0..FEW {
                        sender.send(note(7));
                    }
                })
            });
        });
    }
    group.finish();
}

/// The time that `work` takes, each time on what `make` makes anew.
fn timed<T>(rounds: u64, make: impl Fn() -> T, work: impl Fn(&T)) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let made = make();
        let started = Instant::now();
        work(&made);
        spent += started.elapsed();
    }
    spent
}
