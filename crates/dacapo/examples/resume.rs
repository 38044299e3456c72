//! A consumer with a name, which goes on after a restart where it last committed. Run it several
//! times, or kill it while it works.
//!
//! ```text
//! cargo run -p dacapo --example resume [DIR]
//! ```

use std::error::Error;
use std::path::PathBuf;

use dacapo::{Commits, ReplayChannel};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("dacapo-resume"), PathBuf::from);
    let orders = ReplayChannel::<String>::open(dir)?;
    orders.sender().send_batch(["tea", "milk", "sugar"])?;

    // Each message is committed when the next one is asked for: by then it is handled.
    let mut billing = orders
        .consumer_builder("billing")
        .commits(Commits::Each)
        .open()?;
    println!("{} orders to bill", billing.lag()?);
    for _ in 0..2 {
        println!("billed {}", billing.receive_blocking()?);
    }
    billing.commit()?; // the last one, too
    println!("{} left for the next run", billing.lag()?);
    Ok(())
}
