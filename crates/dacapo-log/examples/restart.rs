//! State that lives in memory only, and is rebuilt from the log at every start.
//!
//! Each start is one record. Run it a few times: it counts. Delete the directory, and it begins
//! again at 1.
//!
//! ```text
//! cargo run -p dacapo-log --example restart [DIR]
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::time::SystemTime;

use dacapo_log::{Log, Record, Start};

/// What the program knows. Nothing of it is stored but the records that made it.
#[derive(Debug, Default)]
struct Starts {
    count: u64,
    last: Option<SystemTime>,
}

impl Starts {
    fn apply(&mut self, record: &Record) {
        self.count += 1;
        self.last = Some(record.timestamp());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("dacapo-starts"), PathBuf::from);
    let log = Log::open(&dir)?;

    let mut starts = Starts::default();
    for record in log.replay(Start::Oldest) {
        starts.apply(&record?);
    }
    match starts.last {
        None => println!("started for the first time"),
        Some(last) => println!(
            "started {} times before, the last time {:.1?} ago",
            starts.count,
            last.elapsed().unwrap_or_default()
        ),
    }

    // The change is stored first and applied then, by the same code as after a restart.
    let offset = log.append(format!("process {}", std::process::id()).as_bytes())?;
    log.sync()?;
    starts.apply(&log.get(offset)?);
    println!("this is start number {}", starts.count);
    Ok(())
}
