//! Replays every message that was ever sent, and then follows live. Run it twice: the second run
//! begins with what the first one sent.
//!
//! ```text
//! cargo run -p dacapo --example replay_then_follow [DIR]
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::thread;

use dacapo::ReplayChannel;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    item: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("dacapo-orders"), PathBuf::from);
    let orders = ReplayChannel::<Order>::open(dir)?;
    let (sender, receiver) = (orders.sender(), orders.receiver());
    drop(orders);

    // From any thread, while the receiver is still reading old ones.
    let sending = thread::spawn(move || {
        for item in ["tea", "milk", "sugar"] {
            let id = sender.log().next_offset().get();
            let item = item.to_owned();
            sender.send(&Order { id, item })?;
        }
        Ok::<(), dacapo::SendError>(())
    });

    // Ends when nobody is left who could send.
    for order in &receiver {
        println!("{:?}", order?);
    }
    sending.join().expect("it does not panic")?;
    Ok(())
}
