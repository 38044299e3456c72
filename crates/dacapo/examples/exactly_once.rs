//! Exactly once: the effect of a message and its offset are stored in one step, so that a message which
//! comes again after a kill is known. Kill it while it works, and run it again.
//!
//! The effect here is a line in a ledger, which begins with the offset; in a database it would be a row
//! and the offset, in one transaction.
//!
//! ```text
//! cargo run -p dacapo --example exactly_once [DIR]
//! ```

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use dacapo::{Commits, Offset, ReplayChannel};

/// What was done, and up to where.
struct Ledger {
    file: File,
    /// The first message whose effect is not in it.
    next: Offset,
}

impl Ledger {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line that was cut off did not happen.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(whole as u64)?;
        let last = text[..whole].lines().next_back();
        let offset = last.and_then(|line| line.split(' ').next()?.parse().ok());
        let next = offset.map_or(Offset::ZERO, |offset| Offset::new(offset).next());
        Ok(Self { file, next })
    }

    fn enter(&mut self, offset: Offset, amount: u64) -> io::Result<()> {
        self.file
            .write_all(format!("{offset} {amount}\n").as_bytes())?;
        self.next = offset.next();
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("dacapo-once"), PathBuf::from);
    let payments = ReplayChannel::<u64>::open(&dir)?;
    payments.sender().send_batch(&[10, 20, 30])?;

    let mut ledger = Ledger::open(&dir.join("ledger.txt"))?;
    let mut consumer = payments
        .consumer_builder("ledger")
        .commits(Commits::Each)
        .open()?;
    let mut entered = 0;
    while let Some(message) = consumer.try_message()? {
        // The cursor may be behind the ledger, and is never ahead of it.
        if message.offset() >= ledger.next {
            ledger.enter(message.offset(), message.decode()?)?;
            entered += 1;
        }
    }
    consumer.commit()?;
    println!("entered {entered} payments");
    Ok(())
}
