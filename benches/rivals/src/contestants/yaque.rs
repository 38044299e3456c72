//! The crate `yaque`: a queue in files, from one sender to one receiver.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use yaque::queue::QueueIter;
use yaque::{Receiver, Sender};

use super::{Can, Contestant, Place, Survives};
use crate::channels::{self, Channel};
use crate::stores::{self, Promise, Replay, Store};
use crate::work::Kind;

pub(super) const CONTESTANT: Contestant = Contestant {
    name: "yaque",
    package: "yaque",
    place: Place::Disk,
    appended: Survives {
        kill: "yes, by its `recovery`",
        power_cut: "no",
    },
    durable: Survives::NOTHING,
    checks: "parity of the length",
    how: "Default options; `try_send` and `try_send_batch`; `QueueIter` for a replay; a `Receiver` that commits \
          each message for the live tail.",
    can,
};

fn can(kind: &Kind) -> Can {
    match kind {
        Kind::Append | Kind::AppendLong => Ok(stores::append::<Queue>),
        Kind::Batches => Ok(stores::batches::<Queue>),
        Kind::Replay => Ok(stores::replay::<Queue>),
        Kind::Reopen => Ok(stores::reopen::<Queue>),
        Kind::FanOut(1) => Ok(channels::fan_out::<Live>),
        Kind::FanOut(_) | Kind::Wake(_) => Err("it has one receiver"),
        Kind::Durable(_) => Err("it never syncs"),
        Kind::RandomRead => Err("a queue is read in its order"),
    }
}

struct Queue {
    sender: Sender,
    dir: std::path::PathBuf,
}

impl Store for Queue {
    fn open(dir: &Path, _promise: Promise) -> Result<Self> {
        Ok(Self {
            sender: Sender::open(dir)?,
            dir: dir.to_owned(),
        })
    }

    fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.sender
            .try_send(payload)
            .map_err(|error| anyhow!("{error:?}"))
    }

    fn append_batch(&mut self, payloads: &[&[u8]]) -> Result<()> {
        let sent = self.sender.try_send_batch(payloads);
        sent.map_err(|error| anyhow!("{error:?}"))
    }
}

impl Replay for Queue {
    fn replay(&mut self, mut read: impl FnMut(&[u8])) -> Result<()> {
        for payload in QueueIter::open(&self.dir)? {
            read(&payload?);
        }
        Ok(())
    }
}

struct Live {
    sender: Sender,
    receiver: Option<Receiver>,
}

impl Channel for Live {
    type Receiver = Receiver;

    fn open(dir: &Path, _messages: u64) -> Result<Self> {
        let (sender, receiver) = yaque::channel(dir)?;
        Ok(Self {
            sender,
            receiver: Some(receiver),
        })
    }

    fn receiver(&mut self) -> Result<Receiver> {
        self.receiver.take().context("it has one receiver")
    }

    async fn send(&mut self, payload: &[u8]) -> Result<()> {
        Ok(self.sender.send(payload).await?)
    }

    async fn receive(receiver: &mut Receiver, mut read: impl FnMut(&[u8]) + Send) -> Result<()> {
        let message = receiver.recv().await?;
        read(&message);
        Ok(message.commit()?)
    }
}
