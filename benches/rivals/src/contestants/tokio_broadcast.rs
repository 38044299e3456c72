//! tokio's `sync::broadcast`: a ring that overwrites what slow receivers have not read.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::broadcast::{self, Receiver, Sender};

use super::{Can, Contestant, IN_MEMORY, Place, Survives};
use crate::channels::{self, Channel};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "tokio broadcast",
    package: "tokio",
    place: Place::Memory,
    appended: Survives::NOTHING,
    durable: Survives::NOTHING,
    checks: "nothing",
    how: "Messages are `Arc<[u8]>`, made of the payload when they are sent; a ring as large as all messages \
          of a pass, so that none is lost to a slow receiver.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::FanOut(_) => Ok(channels::fan_out::<Ring>),
        Kind::Wake(_) => Ok(channels::wake::<Ring>),
        Kind::Append | Kind::AppendLong | Kind::Batches | Kind::Replay | Kind::RandomRead => {
            Err("it keeps what its receivers have yet to read")
        }
        Kind::Durable(_) | Kind::Reopen => Err(IN_MEMORY),
    }
}

struct Ring(Sender<Arc<[u8]>>);

impl Channel for Ring {
    type Receiver = Receiver<Arc<[u8]>>;

    fn open(_dir: &Path, messages: u64) -> Result<Self> {
        Ok(Self(broadcast::channel(messages as usize).0))
    }

    fn receiver(&mut self) -> Result<Self::Receiver> {
        Ok(self.0.subscribe())
    }

    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.0.send(payload.into()).context("no receiver")?;
        Ok(())
    }

    async fn receive(
        receiver: &mut Self::Receiver,
        mut read: impl FnMut(&[u8]) + Send,
    ) -> Result<()> {
        read(&receiver.recv().await?);
        Ok(())
    }
}
