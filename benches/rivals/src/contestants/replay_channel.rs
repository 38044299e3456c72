//! The crate `replay-channel`: every message in memory, for ever.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use replay_channel::ReplayChannel;
use replay_channel::receiver::Receiver;
use replay_channel::sender::Sender;

use super::{Can, Contestant, IN_MEMORY, Place, Survives};
use crate::channels::{self, Channel};
use crate::stores::{self, Promise, Replay, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "replay-channel",
    package: "replay-channel",
    place: Place::Memory,
    appended: Survives::NOTHING,
    durable: Survives::NOTHING,
    checks: "nothing",
    how: "Messages are `Arc<[u8]>`, made of the payload when they are sent, so that receivers share them.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::Append | Kind::AppendLong => Ok(stores::append::<InMemory>),
        Kind::Batches => Err("it sends one message a call"),
        Kind::Replay => Ok(stores::replay::<InMemory>),
        Kind::FanOut(_) => Ok(channels::fan_out::<InMemory>),
        Kind::Wake(_) => Ok(channels::wake::<InMemory>),
        Kind::RandomRead => Err("a receiver begins with the first message"),
        Kind::Durable(_) | Kind::Reopen => Err(IN_MEMORY),
    }
}

type Message = Arc<[u8]>;

struct InMemory {
    channel: ReplayChannel<Message>,
    sender: Sender<Message>,
    sent: u64,
}

impl InMemory {
    fn new() -> Self {
        let channel = ReplayChannel::new();
        Self {
            sender: channel.sender(),
            channel,
            sent: 0,
        }
    }
}

impl Store for InMemory {
    fn open(_dir: &Path, _promise: Promise) -> Result<Self> {
        Ok(Self::new())
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.sender.send(payload.into());
        self.sent += 1;
        Ok(())
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        payloads.iter().try_for_each(|payload| self.append(payload))
    }
}

impl Replay for InMemory {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        let receiver = self.channel.receiver();
        futures_lite::future::block_on(async {
            for _ in 0..self.sent {
                read(&receiver.receive().await);
            }
        });
        Ok(())
    }
}

impl Channel for InMemory {
    type Receiver = Receiver<Message>;

    fn open(_dir: &Path, _messages: u64) -> Result<Self> {
        Ok(Self::new())
    }

    fn receiver(&mut self) -> Result<Self::Receiver> {
        Ok(self.channel.receiver())
    }

    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.sender.send(payload.into());
        Ok(())
    }

    async fn receive(
        receiver: &mut Self::Receiver,
        mut read: impl FnMut(&[u8]) + Send,
    ) -> Result<()> {
        read(&receiver.receive().await);
        Ok(())
    }
}
