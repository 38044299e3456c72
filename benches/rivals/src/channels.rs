//! What is asked of a channel, and the loops that ask it. Receivers are tasks of one tokio runtime with
//! a thread for each core; the sender is a thread of its own.

use std::future::Future;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use futures_lite::future::block_on;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::ground::{Ground, Timed};

/// Something from which every receiver gets every message.
pub(crate) trait Channel: Sized {
    type Receiver: Send + 'static;

    /// A new channel that can hold so many messages, in a directory if it keeps them.
    fn open(dir: &Path, messages: u64) -> Result<Self>;

    /// A receiver of all messages sent from now on.
    fn receiver(&mut self) -> Result<Self::Receiver>;

    /// Sends one message.
    fn send(&mut self, payload: &[u8]) -> impl Future<Output = Result<()>>;

    /// Waits for the next message and shows it to `read`.
    fn receive(
        receiver: &mut Self::Receiver,
        read: impl FnMut(&[u8]) + Send,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// A runtime for the receivers.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().build()?)
}

/// Messages as fast as they can be sent; timed until each receiver has had each.
pub(crate) fn fan_out<C: Channel>(ground: &Ground) -> Result<Timed> {
    let (dir, runtime) = (ground.fresh_dir()?, runtime()?);
    let mut channel = C::open(dir.path(), ground.records)?;
    let ready = Arc::new(AtomicU64::new(0));
    let (records, payload_bytes) = (ground.records, ground.payload_bytes);
    let tasks = receive_in_tasks(ground, &mut channel, &runtime, |mut receiver| {
        let ready = Arc::clone(&ready);
        async move {
            ready.fetch_add(1, Ordering::Release);
            let mut bytes = 0;
            for _ in 0..records {
                C::receive(&mut receiver, |payload| bytes += black_box(payload).len()).await?;
            }
            ensure!(
                bytes as u64 == records * payload_bytes as u64,
                "a receiver got {bytes} bytes in {records} messages of {payload_bytes}"
            );
            Ok(())
        }
    })?;
    while ready.load(Ordering::Acquire) < ground.receivers() {
        std::thread::yield_now();
    }
    let began = Instant::now();
    block_on(async {
        for number in 0..ground.records {
            channel.send(ground.payload(number)).await?;
        }
        anyhow::Ok(())
    })?;
    join(tasks)?;
    Ok(Timed {
        operations: ground.records * ground.receivers(),
        spent: began.elapsed(),
    })
}

/// One message at a time: the next one is sent when all receivers have had this one.
pub(crate) fn wake<C: Channel>(ground: &Ground) -> Result<Timed> {
    let (dir, runtime) = (ground.fresh_dir()?, runtime()?);
    // One more, with which every receiver comes to its first wait.
    let records = ground.records + 1;
    let mut channel = C::open(dir.path(), records)?;
    let awaited = Awaited::new(ground.receivers());
    let tasks = receive_in_tasks(ground, &mut channel, &runtime, |mut receiver| {
        let awaited = Arc::clone(&awaited);
        async move {
            for _ in 0..records {
                C::receive(&mut receiver, |payload| {
                    black_box(payload);
                })
                .await?;
                awaited.arrived();
            }
            Ok(())
        }
    })?;
    let mut began = Instant::now();
    for number in 0..records {
        if number == 1 {
            began = Instant::now();
        }
        block_on(channel.send(ground.payload(number)))?;
        awaited.wait();
    }
    let spent = began.elapsed();
    join(tasks)?;
    Ok(Timed {
        operations: ground.records * ground.receivers(),
        spent,
    })
}

fn receive_in_tasks<C: Channel, F: Future<Output = Result<()>> + Send + 'static>(
    ground: &Ground,
    channel: &mut C,
    runtime: &Runtime,
    task: impl Fn(C::Receiver) -> F,
) -> Result<Vec<JoinHandle<Result<()>>>> {
    let receivers = (0..ground.receivers()).map(|_| channel.receiver());
    receivers
        .map(|receiver| Ok(runtime.spawn(task(receiver?))))
        .collect()
}

/// Waits for all tasks.
pub(crate) fn join(tasks: Vec<JoinHandle<Result<()>>>) -> Result<()> {
    tasks.into_iter().try_for_each(|task| block_on(task)?)
}

/// How many receivers a message has not come to yet.
#[derive(Debug)]
pub(crate) struct Awaited {
    left: AtomicU64,
    all: u64,
    sender: Thread,
}

impl Awaited {
    /// Of this thread, for so many receivers.
    pub(crate) fn new(all: u64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU64::new(all),
            all,
            sender: std::thread::current(),
        })
    }

    /// It has come to one more.
    pub(crate) fn arrived(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.sender.unpark();
        }
    }

    /// Waits until it has come to all, and begins with the next one. For the thread that made this.
    pub(crate) fn wait(&self) {
        while self.left.load(Ordering::Acquire) > 0 {
            std::thread::park();
        }
        self.left.store(self.all, Ordering::Release);
    }
}
