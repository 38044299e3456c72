//! How long does one append take under a steady load, at rolls and beside flushes too?
//!
//! 100,000 appends a second of 100 bytes, each at its time, beside the least that an append must do at
//! the same pace. An append's time is that of the call. "Late" is when it ended, after it was due: what
//! a caller sees whose messages come at their time, a slow append before it included.

use std::time::{Duration, Instant};

use dacapo_benches::limit::frame_bytes;
use dacapo_benches::quantiles::Quantiles;
use dacapo_benches::{payload, run, shared};
use dacapo_log::{Flush, Log, Options};

const PAYLOAD_BYTES: usize = 100;
const BETWEEN: Duration = Duration::from_micros(10);
const LARGE: u64 = 128 << 20;
/// Rolls about twelve times a second.
const SMALL: u64 = 1 << 20;

fn main() {
    if !run::asks_for("latency") {
        return;
    }
    let appends = run::scaled(300_000);
    let payload = payload(PAYLOAD_BYTES);
    Quantiles::print_head("one append, under 100,000 a second:");
    let bytes = frame_bytes(PAYLOAD_BYTES) * appends as usize;
    let (mut limit, _reader) = shared::frames(bytes).expect("a mapped file");
    print(
        "copy + header + CRC-32",
        &paced(appends, |number| {
            limit.append(number, &payload);
        }),
    );
    let flushed = Flush::Interval(Duration::from_millis(10));
    let cases = [
        ("append", LARGE, Flush::OnDemand),
        ("append, 12 rolls a second", SMALL, Flush::OnDemand),
        ("append, flush each 10 ms", LARGE, flushed),
        ("append, rolls and flushes", SMALL, flushed),
    ];
    for (name, segment_bytes, flush) in cases {
        let dir = tempfile::tempdir_in(".").expect("a directory");
        let log = options(segment_bytes).flush(flush).open(dir.path());
        let log = log.expect("a log");
        log.append(b"makes the segment").expect("appended");
        print(
            name,
            &paced(appends, |_| {
                log.append(&payload).expect("appended");
            }),
        );
    }
}

fn options(segment_bytes: u64) -> Options {
    Log::options()
        .segment_bytes_min(segment_bytes)
        .segment_bytes_max(segment_bytes)
}

/// The time of each call, and how long after it was due it ended.
fn paced(appends: u32, mut append: impl FnMut(u32)) -> [Quantiles; 2] {
    let mut times = Vec::with_capacity(appends as usize);
    let mut late = Vec::with_capacity(appends as usize);
    let begin = Instant::now();
    for number in 0..appends {
        let due = begin + BETWEEN * number;
        let mut started = Instant::now();
        while started < due {
            std::hint::spin_loop();
            started = Instant::now();
        }
        append(number);
        let ended = Instant::now();
        times.push(ended - started);
        late.push(ended - due);
    }
    [times, late].map(Quantiles::of)
}

fn print(name: &str, [times, late]: &[Quantiles; 2]) {
    times.print(name);
    late.print("  late");
}
