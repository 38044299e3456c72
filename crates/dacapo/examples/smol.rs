//! Under smol; it would be the same under tokio, or any other runtime.
//!
//! ```text
//! cargo run -p dacapo --example smol
//! ```

use std::error::Error;

use dacapo::ReplayChannel;
use futures_lite::StreamExt;

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let channel = smol::unblock(ReplayChannel::<String>::temporary).await?;
        let mut receiver = channel.receiver();
        let listening = smol::spawn(async move {
            while let Some(message) = receiver.next().await {
                println!("received {}", message?);
            }
            Ok::<(), dacapo::ReceiveError>(())
        });

        let sender = channel.sender();
        sender.send("visible at once")?;
        let offset = sender.send_durable("safe from a power cut").await?;
        println!("message {offset} is on the disk");

        drop((channel, sender)); // the stream ends
        listening.await?;
        Ok(())
    })
}
