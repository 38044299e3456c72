//! The typed channel, with messages of plain bytes, read in place.

use std::path::Path;

use anyhow::Result;
use dacapo::{Log, Raw, Receiver, ReplayChannel, Sender, Start};

use super::{Can, Contestant, Place, Survives};
use crate::channels::{self, Channel};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "dacapo",
    package: "dacapo",
    place: Place::Ours,
    appended: Survives {
        kill: "yes",
        power_cut: "but the last 1 s",
    },
    durable: Survives::ALL,
    checks: "CRC-32 of each record",
    how: "`ReplayChannel<Vec<u8>>` with the codec `Raw`; `send`, and `receive_with`, which reads in place.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::FanOut(_) => Ok(channels::fan_out::<Typed>),
        Kind::Wake(_) => Ok(channels::wake::<Typed>),
        _ => Err("its log does this: see dacapo-log"),
    }
}

struct Typed {
    channel: ReplayChannel<Vec<u8>, Raw>,
    sender: Sender<Vec<u8>, Raw>,
}

impl Channel for Typed {
    type Receiver = Receiver<Vec<u8>, Raw>;

    fn open(dir: &Path, _messages: u64) -> Result<Self> {
        let options = Log::options().segment_bytes_min(64 << 20);
        let builder = ReplayChannel::<Vec<u8>>::builder()
            .codec(Raw)
            .log_options(options);
        let channel = builder.open(dir)?;
        let sender = channel.sender();
        sender.send(b"makes the first file".as_slice())?;
        Ok(Self { channel, sender })
    }

    fn receiver(&mut self) -> Result<Self::Receiver> {
        Ok(self.channel.receiver_at(Start::Latest))
    }

    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.sender.send(payload)?;
        Ok(())
    }

    async fn receive(
        receiver: &mut Self::Receiver,
        mut read: impl FnMut(&[u8]) + Send,
    ) -> Result<()> {
        receiver
            .receive_with(|message| read(message.payload()))
            .await?;
        Ok(())
    }
}
