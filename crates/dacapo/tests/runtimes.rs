//! The same suite under each runtime, and under none.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use dacapo::{Receiver, ReplayChannel, Start};
use futures_lite::StreamExt;
use futures_lite::future::{block_on, poll_once};

const MESSAGES: u64 = 5_000;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the suite; `spawn` starts a task, and returns what waits for its end.
async fn suite(spawn: &dyn Fn(Task) -> Task) {
    everybody_gets_everything(spawn).await;
    tasks_on_one_receiver_split_its_messages(spawn).await;
    a_cancelled_receive_loses_nothing().await;
    durable_sends_of_many_tasks_are_all_there(spawn).await;
    the_end_of_the_channel_is_told(spawn).await;
}

async fn everybody_gets_everything(spawn: &dyn Fn(Task) -> Task) {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let receivers: Vec<Task> = (0..10)
        .map(|_| {
            let receiver = channel.receiver();
            spawn(Box::pin(async move {
                for expected in 0..MESSAGES {
                    assert_eq!(receiver.receive().await.unwrap(), expected);
                }
            }))
        })
        .collect();
    let sender = channel.sender();
    let sending = spawn(Box::pin(async move {
        for message in 0..MESSAGES {
            sender.send(&message).unwrap();
        }
    }));
    sending.await;
    for receiver in receivers {
        receiver.await;
    }
}

async fn tasks_on_one_receiver_split_its_messages(spawn: &dyn Fn(Task) -> Task) {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let receiver = Arc::new(channel.receiver());
    let counted = ReplayChannel::<u64>::temporary().unwrap();
    let competing: Vec<Task> = (0..4)
        .map(|_| {
            let (receiver, counted) = (Arc::clone(&receiver), counted.sender());
            spawn(Box::pin(async move {
                while let Ok(message) = receiver.receive().await {
                    counted.send(&message).unwrap();
                }
            }))
        })
        .collect();
    let sender = channel.sender();
    drop(channel);
    thread::spawn(move || {
        for message in 0..MESSAGES {
            sender.send(&message).unwrap();
        }
    });
    for task in competing {
        task.await;
    }
    let receiver = counted.receiver();
    let mut all: Vec<u64> = std::iter::from_fn(|| receiver.try_receive().unwrap()).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..MESSAGES), "each once");
}

async fn a_cancelled_receive_loses_nothing() {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let receiver = channel.receiver();
    for message in 0..100 {
        let mut waiting = Box::pin(receiver.receive());
        assert!(poll_once(&mut waiting).await.is_none());
        channel.sender().send(&message).unwrap();
        drop(waiting);
        assert_eq!(receiver.receive().await.unwrap(), message);
    }
}

async fn durable_sends_of_many_tasks_are_all_there(spawn: &dyn Fn(Task) -> Task) {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let sending: Vec<Task> = (0..20)
        .map(|message| {
            let sender = channel.sender();
            spawn(Box::pin(async move {
                sender.send_durable(&message).await.unwrap();
            }))
        })
        .collect();
    let mut receiver = channel.receiver_at(Start::Oldest).durable_only();
    let mut all = Vec::new();
    while all.len() < 20 {
        all.push(receiver.next().await.unwrap().unwrap());
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..20));
    for task in sending {
        task.await;
    }
}

async fn the_end_of_the_channel_is_told(spawn: &dyn Fn(Task) -> Task) {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let receiver: Receiver<u64> = channel.receiver();
    let waiting = spawn(Box::pin(async move {
        assert_eq!(receiver.count().await, 3, "a stream that ends");
    }));
    channel.sender().send_batch(&[1, 2, 3]).unwrap();
    drop(channel);
    waiting.await;
}

fn on_tokio(task: Task) -> Task {
    let handle = tokio::spawn(task);
    Box::pin(async move { handle.await.unwrap() })
}

#[tokio::test]
async fn under_tokio_on_one_thread() {
    suite(&on_tokio).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_tokio_on_several_threads() {
    suite(&on_tokio).await;
}

#[test]
fn under_smol() {
    smol::block_on(suite(&|task| Box::pin(smol::spawn(task))));
}

#[test]
fn with_plain_threads() {
    block_on(suite(&|task| {
        let thread = thread::spawn(|| block_on(task));
        Box::pin(async move { thread.join().unwrap() })
    }));
}

#[test]
fn with_plain_threads_and_no_future_at_all() {
    let channel = ReplayChannel::<u64>::temporary().unwrap();
    let receivers: Vec<_> = (0..10)
        .map(|_| {
            let receiver = channel.receiver();
            thread::spawn(move || receiver.iter().map(Result::unwrap).eq(0..MESSAGES))
        })
        .collect();
    let sender = channel.sender();
    drop(channel);
    for message in 0..MESSAGES {
        sender.send(&message).unwrap();
    }
    drop(sender);
    for receiver in receivers {
        assert!(receiver.join().unwrap());
    }
}
