//! Many publishers that wait for each acknowledgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use tokio::task::JoinSet;

use crate::http::Connection;
use crate::report::{Figure, latencies, percentiles, rate};
use crate::server::Server;
use crate::{Load, stamp};

/// Each of the connections sends `batch` messages a request, and the next ones once it is answered.
pub(crate) async fn run(
    load: &Load,
    server: &Arc<Server>,
    batch: usize,
) -> anyhow::Result<Vec<Figure>> {
    let topic = load.topic("publish");
    server.create(&topic).await?;
    let mut publishers = Vec::new();
    for _ in 0..load.connections {
        publishers.push(Publisher::connect(server, &topic, batch, load.bytes).await?);
    }
    // What is made at the first request is none of the others' cost.
    for publisher in &mut publishers {
        publisher.send().await?;
    }
    let cpu = server.process.map(|process| process.cpu()).transpose()?;
    let begin = Instant::now();
    let end = begin + load.time();
    let mut running = JoinSet::new();
    for mut publisher in publishers {
        running.spawn(async move {
            let (mut sent, mut latencies) = (0, latencies());
            while Instant::now() < end {
                let took = publisher.send().await?;
                latencies.saturating_record(u64::try_from(took.as_micros())?);
                sent += 1;
            }
            anyhow::Ok((sent, latencies))
        });
    }
    let (mut requests, mut all) = (0, latencies());
    while let Some(publisher) = running.join_next().await {
        let (sent, latencies) = publisher??;
        requests += sent;
        all.add(latencies)?;
    }
    let took = begin.elapsed();
    let messages = requests * batch as u64;
    let mut figures = vec![Figure::new("messages", rate(messages, took), "/s")];
    if let (Some(process), Some(before)) = (server.process, cpu) {
        let cpu = process.cpu()?.saturating_sub(before);
        let each = cpu.as_secs_f64() * 1e6 / messages as f64;
        figures.push(Figure::new("server CPU a message", each, "µs"));
    }
    figures.extend(percentiles(&all));
    Ok(figures)
}

/// A connection that sends messages to one topic.
pub(crate) struct Publisher {
    connection: Connection,
    path: String,
    batch: usize,
    bytes: usize,
}

impl Publisher {
    pub(crate) async fn connect(
        server: &Server,
        topic: &str,
        batch: usize,
        bytes: usize,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            connection: Connection::open(server.address).await?,
            path: server.append_path(topic),
            batch,
            bytes,
        })
    }

    /// Returns once it is acknowledged, with how long that took.
    pub(crate) async fn send(&mut self) -> anyhow::Result<Duration> {
        let body = match self.batch {
            1 => stamp::message(self.bytes),
            batch => stamp::batch(batch, self.bytes),
        };
        let begin = Instant::now();
        self.connection.ask(Method::POST, &self.path, body).await?;
        Ok(begin.elapsed())
    }
}
