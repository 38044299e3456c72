//! Runs one operation so many times, and nothing else: for `strace`, `perf` and `valgrind`.
//!
//! ```console
//! $ cargo run --release -p dacapo-benches --example operation
//! $ cargo run --release -p dacapo-benches --example operation -- "append, 100 B" 100000
//! ```
//!
//! Without a name it says which there are. How to count with it: docs/performance.md.

use std::error::Error;

use dacapo_benches::operations::{self, OPERATIONS};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, times, of @ ..] = &arguments[..] else {
        println!("operation NAME TIMES [OF]; OF is how many records there are to read. The names:");
        for operation in OPERATIONS {
            println!("  \"{}\"", operation.name);
        }
        return Ok(());
    };
    let number = |text: &String| {
        let parsed = text.parse::<u32>();
        parsed.map_err(|error| format!("\"{text}\" is no number of times: {error}"))
    };
    let times = number(times)?;
    let of = of.first().map_or(Ok(times), number)?;
    operations::run(name, times, of)
}
