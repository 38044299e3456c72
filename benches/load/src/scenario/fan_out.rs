//! One topic, and many who follow it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::publish::Publisher;
use crate::Load;
use crate::http::{self, Connection};
use crate::phoenix::Socket;
use crate::report::{Figure, latencies, percentiles, rate};
use crate::server::Server;
use crate::stamp::Scanner;

/// How a topic is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// Server-sent events.
    Sse,
    /// A joined channel of a Phoenix socket.
    Phoenix,
}

/// When the publisher sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// So many messages a second.
    PerSecond(u32),
    /// As fast as they are acknowledged, over all connections of a publisher, and this many.
    Unthrottled(u64),
}

/// How long nobody may get anything before it is given up.
const STALLED: Duration = Duration::from_secs(30);
/// How many connect at the same time.
const CONNECTING: usize = 64;

pub(crate) async fn run(
    load: &Load,
    server: &Arc<Server>,
    face: Face,
    pace: Pace,
) -> anyhow::Result<Vec<Figure>> {
    let topic = load.topic("fan-out");
    server.create(&topic).await?;
    let mut publisher = Publisher::connect(server, &topic, 1, load.bytes).await?;
    // It is there before anybody follows it: nchan makes a topic at its first message.
    publisher.send().await?;

    let memory = |server: &Server| server.process.map(|of| of.memory_bytes()).transpose();
    let before = memory(server)?;
    let followers = connect(server, &topic, face, load.subscribers).await?;
    let connected = memory(server)?;

    let messages = match pace {
        Pace::PerSecond(per_second) => u64::from(per_second) * load.time().as_secs().max(1),
        Pace::Unthrottled(messages) => messages,
    };
    let audience = Audience::follow(followers, messages);
    let cpu = server.process.map(|process| process.cpu()).transpose()?;
    let begin = Instant::now();
    match pace {
        Pace::PerSecond(per_second) => paced(&mut publisher, per_second, messages).await?,
        Pace::Unthrottled(messages) => flood(load, server, &topic, messages).await?,
    }
    let published = begin.elapsed();
    let heard = audience.heard().await?;
    let took = begin.elapsed();

    let deliveries = messages * load.subscribers as u64;
    let mut figures = match pace {
        Pace::PerSecond(_) => percentiles(&heard).to_vec(),
        Pace::Unthrottled(_) => vec![
            Figure::new("deliveries", rate(deliveries, took), "/s"),
            Figure::new("published", rate(messages, published), "/s"),
        ],
    };
    if let (Some(process), Some(cpu)) = (server.process, cpu) {
        let cpu = process.cpu()?.saturating_sub(cpu);
        let each = cpu.as_secs_f64() * 1e6 / deliveries as f64;
        figures.push(Figure::new("server CPU a delivery", each, "µs"));
    }
    if let (Some(before), Some(connected)) = (before, connected) {
        let each = connected.saturating_sub(before) as f64 / load.subscribers as f64;
        figures.push(Figure::new("memory a subscriber", each / 1024.0, "KiB"));
    }
    Ok(figures)
}

/// Sends all messages; one that is late is followed by the next at once, so that the rate holds.
pub(crate) async fn paced(
    publisher: &mut Publisher,
    per_second: u32,
    messages: u64,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    for _ in 0..messages {
        ticks.tick().await;
        publisher.send().await?;
    }
    Ok(())
}

/// Sends all messages over many connections, each of which waits for its acknowledgements.
async fn flood(
    load: &Load,
    server: &Arc<Server>,
    topic: &str,
    messages: u64,
) -> anyhow::Result<()> {
    let left = Arc::new(AtomicU64::new(messages));
    let mut running = JoinSet::new();
    for _ in 0..load.connections {
        let mut publisher = Publisher::connect(server, topic, 1, load.bytes).await?;
        let left = Arc::clone(&left);
        running.spawn(async move {
            let take = |left: u64| left.checked_sub(1);
            while left.fetch_update(Relaxed, Relaxed, take).is_ok() {
                publisher.send().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

/// Connects so many, and returns once each gets what is sent from now on.
pub(crate) async fn connect(
    server: &Arc<Server>,
    topic: &str,
    face: Face,
    count: usize,
) -> anyhow::Result<Vec<Follower>> {
    let connecting = (0..count).map(|_| Follower::connect(server, topic, face));
    stream::iter(connecting)
        .buffer_unordered(CONNECTING)
        .try_collect()
        .await
}

/// One who follows a topic.
pub(crate) enum Follower {
    Sse(Incoming),
    Phoenix(Box<Socket>),
}

impl Follower {
    async fn connect(server: &Server, topic: &str, face: Face) -> anyhow::Result<Self> {
        match face {
            Face::Sse => {
                let connection = Connection::open(server.address).await?;
                let body = connection.follow(&server.follow_path(topic)).await?;
                Ok(Self::Sse(body))
            }
            Face::Phoenix => {
                let mut socket = Socket::connect(server.address).await?;
                socket.join(topic).await?;
                Ok(Self::Phoenix(Box::new(socket)))
            }
        }
    }

    /// What arrives next; `None` at the end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        match self {
            Self::Sse(body) => http::next_piece(body).await,
            Self::Phoenix(socket) => socket.next().await,
        }
    }
}

/// Followers that listen until each has all messages.
pub(crate) struct Audience {
    listening: JoinSet<anyhow::Result<()>>,
    heard: Arc<Mutex<Histogram<u64>>>,
    /// Moves with whatever anybody gets.
    progress: watch::Receiver<()>,
}

impl Audience {
    pub(crate) fn follow(followers: Vec<Follower>, messages: u64) -> Self {
        let (moved, progress) = watch::channel(());
        let heard = Arc::new(Mutex::new(latencies()));
        let mut listening = JoinSet::new();
        for mut follower in followers {
            let (moved, heard) = (moved.clone(), Arc::clone(&heard));
            listening.spawn(async move {
                let mut scanner = Scanner::new();
                let mut missing = messages;
                while missing > 0 {
                    let piece = follower.next().await?;
                    let piece = piece.with_context(|| {
                        format!("a subscriber's connection ended {missing} messages early")
                    })?;
                    let Some(found) = scanner.scan(&piece) else {
                        continue;
                    };
                    let Some(left) = missing.checked_sub(found.messages) else {
                        bail!("a subscriber got more messages than the {messages} that were sent");
                    };
                    missing = left;
                    let micros = u64::try_from(found.oldest.as_micros())?;
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.saturating_record_n(micros, found.messages);
                    drop(heard);
                    moved.send_replace(());
                }
                Ok(())
            });
        }
        Self {
            listening,
            heard,
            progress,
        }
    }

    /// Waits until all have everything; how long the messages were on their way.
    pub(crate) async fn heard(mut self) -> anyhow::Result<Histogram<u64>> {
        loop {
            tokio::select! {
                ended = self.listening.join_next() => match ended {
                    Some(ended) => ended??,
                    None => break,
                },
                moved = timeout(STALLED, self.progress.changed()) => {
                    if moved.is_err() {
                        let waiting = self.listening.len();
                        bail!("{waiting} subscribers wait for messages that do not come");
                    }
                }
            }
        }
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(heard.clone())
    }
}
