//! The crate `async-broadcast`: a bounded queue; the sender waits for the slowest receiver.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use async_broadcast::{InactiveReceiver, Receiver, Sender};

use super::{Can, Contestant, IN_MEMORY, Place, Survives};
use crate::channels::{self, Channel};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "async-broadcast",
    package: "async-broadcast",
    place: Place::Memory,
    appended: Survives::NOTHING,
    durable: Survives::NOTHING,
    checks: "nothing",
    how: "Messages are `Arc<[u8]>`, made of the payload when they are sent; a capacity of 1,024, and the sender \
          waits where receivers are slow; `broadcast_direct` and `recv_direct`, which do not allocate.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::FanOut(_) => Ok(channels::fan_out::<Queue>),
        Kind::Wake(_) => Ok(channels::wake::<Queue>),
        Kind::Append | Kind::AppendLong | Kind::Batches | Kind::Replay | Kind::RandomRead => {
            Err("it keeps what its receivers have yet to read")
        }
        Kind::Durable(_) | Kind::Reopen => Err(IN_MEMORY),
    }
}

const CAPACITY: usize = 1_024;

struct Queue {
    sender: Sender<Arc<[u8]>>,
    receivers: InactiveReceiver<Arc<[u8]>>,
}

impl Channel for Queue {
    type Receiver = Receiver<Arc<[u8]>>;

    fn open(_dir: &Path, _messages: u64) -> Result<Self> {
        let (sender, receiver) = async_broadcast::broadcast(CAPACITY);
        let receivers = receiver.deactivate();
        Ok(Self { sender, receivers })
    }

    fn receiver(&mut self) -> Result<Self::Receiver> {
        Ok(self.receivers.activate_cloned())
    }

    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let sent = self.sender.broadcast_direct(payload.into()).await;
        sent.map_err(|_| anyhow!("the channel is closed"))?;
        Ok(())
    }

    async fn receive(
        receiver: &mut Self::Receiver,
        mut read: impl FnMut(&[u8]) + Send,
    ) -> Result<()> {
        read(&receiver.recv_direct().await?);
        Ok(())
    }
}
