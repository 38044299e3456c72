//! Many of Megaphone's channels, each with a writer and a reader.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::http::{self, Connection};
use crate::report::{Figure, latencies, percentiles, rate};
use crate::server::Server;
use crate::stamp::Scanner;
use crate::{Load, stamp};

/// How many channels are made, or read, at the same time while the run is prepared.
const CONNECTING: usize = 64;
/// After how long one that may not make a channel yet asks again.
const AGAIN: Duration = Duration::from_millis(100);
/// How many writes each channel gets, before it has a reader, and once it has one.
const ROUNDS: u64 = 5;
/// How long readers may take behind the last write.
const READ_MAX: Duration = Duration::from_secs(60);

/// Where a channel is written to, and read from.
struct Channel {
    write: String,
    read: String,
}

/// Writes to all channels while nobody reads, then while each has a reader that waits; ends when all
/// messages were read.
pub(crate) async fn run(load: &Load, server: &Arc<Server>) -> anyhow::Result<Vec<Figure>> {
    let before = server
        .process
        .map(|process| process.memory_bytes())
        .transpose()?;
    let making = (0..load.channels).map(|_| create(server));
    let making = stream::iter(making).buffer_unordered(CONNECTING);
    let channels: Arc<Vec<Channel>> = Arc::new(making.try_collect().await?);
    let mut figures = Vec::new();
    if let (Some(process), Some(before)) = (server.process, before) {
        let grown = process.memory_bytes()?.saturating_sub(before);
        let each = grown as f64 / channels.len() as f64;
        figures.push(Figure::new("memory an idle channel", each, "B"));
    }
    let unread = write(load, server, &channels).await?;
    figures.extend(unread.figures(["writes, unread", "p99, unread", "server CPU, unread"]));

    let opening = channels.iter().map(|channel| open(server, &channel.read));
    let mut opening = stream::iter(opening).buffer_unordered(CONNECTING);
    let mut reading = JoinSet::new();
    while let Some((path, body)) = opening.try_next().await? {
        reading.spawn(read(Arc::clone(server), path, body, 2 * ROUNDS));
    }
    let heard = write(load, server, &channels).await?;
    figures.extend(heard.figures(["writes, read", "p99, read", "server CPU, read"]));
    let all = async {
        while let Some(ended) = reading.join_next().await {
            ended??;
        }
        anyhow::Ok(())
    };
    let read = tokio::time::timeout(READ_MAX, all).await;
    read.context("not all messages can be read")??;
    Ok(figures)
}

async fn create(server: &Server) -> anyhow::Result<Channel> {
    let mut connection = Connection::open(server.address).await?;
    let body = loop {
        let answer = connection
            .try_ask(Method::POST, "/create", Bytes::new())
            .await?;
        match answer.status {
            StatusCode::OK => break answer.body,
            StatusCode::TOO_MANY_REQUESTS => tokio::time::sleep(AGAIN).await,
            other => bail!("/create was answered {other}"),
        }
    };
    let created: Value = serde_json::from_slice(&body)?;
    let address = |name: &str| {
        let address = created[name].as_str();
        address.with_context(|| format!("/create was answered {created}"))
    };
    Ok(Channel {
        write: format!("/write/{}/load", address("producerAddress")?),
        read: format!("/read/{}", address("consumerAddress")?),
    })
}

/// What writing to all channels took.
struct Written {
    messages: u64,
    took: Duration,
    latencies: Histogram<u64>,
    cpu: Option<Duration>,
}

impl Written {
    fn figures(&self, [writes, p99, cpu]: [&'static str; 3]) -> Vec<Figure> {
        let [_, slow] = percentiles(&self.latencies);
        let mut figures = vec![
            Figure::new(writes, rate(self.messages, self.took), "/s"),
            Figure::new(p99, slow.value, slow.unit),
        ];
        if let Some(used) = self.cpu {
            let each = used.as_secs_f64() * 1e6 / self.messages as f64;
            figures.push(Figure::new(cpu, each, "µs"));
        }
        figures
    }
}

/// Each connection writes to channels of its own, one after the other, and waits each time.
async fn write(
    load: &Load,
    server: &Arc<Server>,
    channels: &Arc<Vec<Channel>>,
) -> anyhow::Result<Written> {
    let cpu = server.process.map(|process| process.cpu()).transpose()?;
    let begin = Instant::now();
    let mut writing = JoinSet::new();
    for first in 0..load.writers {
        let mut connection = Connection::open(server.address).await?;
        let (channels, step, bytes) = (Arc::clone(channels), load.writers, load.bytes);
        writing.spawn(async move {
            let mut latencies = latencies();
            for _ in 0..ROUNDS {
                for channel in channels.iter().skip(first).step_by(step) {
                    let begin = Instant::now();
                    let message = stamp::message(bytes);
                    connection
                        .ask(Method::POST, &channel.write, message)
                        .await?;
                    latencies.saturating_record(u64::try_from(begin.elapsed().as_micros())?);
                }
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = latencies();
    while let Some(written) = writing.join_next().await {
        all.add(written??)?;
    }
    let took = begin.elapsed();
    let cpu = match (server.process, cpu) {
        (Some(process), Some(before)) => Some(process.cpu()?.saturating_sub(before)),
        _ => None,
    };
    Ok(Written {
        messages: channels.len() as u64 * ROUNDS,
        took,
        latencies: all,
        cpu,
    })
}

async fn open(server: &Server, path: &str) -> anyhow::Result<(String, Incoming)> {
    let connection = Connection::open(server.address).await?;
    Ok((path.to_owned(), connection.follow(path).await?))
}

/// Reads, again whenever a read is over, until so many messages were read.
async fn read(
    server: Arc<Server>,
    path: String,
    mut body: Incoming,
    messages: u64,
) -> anyhow::Result<()> {
    let (mut scanner, mut read) = (Scanner::new(), 0);
    while read < messages {
        match http::next_piece(&mut body).await? {
            Some(piece) => read += scanner.scan(&piece).map_or(0, |found| found.messages),
            None => (_, body) = open(&server, &path).await?,
        }
    }
    Ok(())
}
