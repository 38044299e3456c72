//! Two processes: one appends, the other one opens the log read-only and follows it live.
//!
//! The writer appends a record every 200 ms until it is killed. The reader replays what is there
//! and then follows. Kill the writer with `kill -9` and start it again: the reader goes on, and
//! misses nothing. Any number of readers may run.
//!
//! ```text
//! cargo run -p dacapo-log --example two_processes write [DIR]
//! cargo run -p dacapo-log --example two_processes read [DIR]
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use dacapo_log::{Log, Start};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let part = args.next().unwrap_or_default();
    let dir = args
        .next()
        .map_or_else(|| std::env::temp_dir().join("dacapo-two"), PathBuf::from);
    match part.to_str() {
        Some("write") => write(&dir),
        Some("read") => read(&dir),
        _ => Err("say `write` or `read`, and perhaps a directory".into()),
    }
}

fn write(dir: &Path) -> Result<(), Box<dyn Error>> {
    // One process at a time: a second writer gets an error that names the first one's id.
    let log = Log::open(dir)?;
    loop {
        let payload = format!("from process {}", std::process::id());
        println!("stored {}", log.append(payload.as_bytes())?);
        thread::sleep(Duration::from_millis(200));
    }
}

fn read(dir: &Path) -> Result<(), Box<dyn Error>> {
    let log = Log::options().open_read_only(dir)?;
    let mut tailer = log.tail(Start::Oldest);
    loop {
        let record = tailer.next_blocking()?;
        let text = String::from_utf8_lossy(record.payload());
        println!("read {}: {text}", record.offset());
    }
}
