//! Without any async runtime: threads that send, threads that receive, and one that waits only so long.
//!
//! ```text
//! cargo run -p dacapo --example std_threads
//! ```

use std::error::Error;
use std::thread;
use std::time::Duration;

use dacapo::ReplayChannel;

fn main() -> Result<(), Box<dyn Error>> {
    let channel = ReplayChannel::<(u32, u32)>::temporary()?;
    let receivers = [1, 2, 3].map(|number| {
        let receiver = channel.receiver();
        thread::spawn(move || {
            let sum: Result<u32, _> = receiver.iter().map(|m| m.map(|(_, value)| value)).sum();
            (number, sum)
        })
    });
    let impatient = channel.receiver();
    if impatient
        .receive_timeout(Duration::from_millis(1))?
        .is_none()
    {
        println!("nothing yet");
    }

    thread::scope(|scope| {
        for thread in 0..4 {
            let sender = channel.sender();
            scope.spawn(move || {
                for value in 1..=1_000 {
                    sender.send(&(thread, value)).expect("it is stored");
                }
            });
        }
    });
    drop(channel); // the receivers read to the end, and stop

    for receiver in receivers {
        let (number, sum) = receiver.join().expect("it does not panic");
        println!("receiver {number} adds up to {}", sum?);
    }
    Ok(())
}
