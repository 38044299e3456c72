//! One thread writes while another one replays from the first record and then follows live.
//!
//! The reader asks for durable records only, so it never acts on a record that a power cut could
//! undo. The numbers of an earlier run are still there: each run adds ten and reads them all.
//!
//! ```text
//! cargo run -p dacapo-log --example follow_records [DIR]
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use dacapo_log::{Log, ReadError, Start, Tailer};

const RECORDS: u32 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("dacapo-follow"), PathBuf::from);
    let log = Log::open(&dir)?;
    let stored = log.next_offset();
    println!("{} holds {stored} records", dir.display());

    let tailer = log.tail(Start::Oldest).durable_only();
    let reader = thread::spawn(move || follow(tailer));
    for number in 0..RECORDS {
        let offset = log.append(format!("number {number}").as_bytes())?;
        // Waits for the disk; before this returns, the reader does not see the record.
        log.sync()?;
        println!("stored   {offset}");
        thread::sleep(Duration::from_millis(20));
    }

    // Closing ends the tailer once it has read everything.
    log.close()?;
    let read = reader.join().expect("the reader does not panic")?;
    assert_eq!(read, stored.get() + u64::from(RECORDS));
    println!("read {read} records, the first {stored} of them from earlier runs");
    Ok(())
}

/// Reads until the log is closed, and returns how many records there were.
fn follow(mut tailer: Tailer) -> Result<u64, ReadError> {
    let mut read = 0;
    loop {
        match tailer.next_blocking() {
            Ok(record) => {
                let text = String::from_utf8_lossy(record.payload());
                println!("  read   {}: {text}", record.offset());
                read += 1;
            }
            Err(ReadError::Closed) => return Ok(read),
            Err(error) => return Err(error),
        }
    }
}
