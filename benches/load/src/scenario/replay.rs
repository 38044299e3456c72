//! One reader that reads what is there, from the beginning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::Method;

use super::publish::Publisher;
use crate::Load;
use crate::http::{self, Connection};
use crate::report::{Figure, rate};
use crate::server::Server;
use crate::stamp::Scanner;

/// How many messages a request brings while the topic is filled.
const BATCH: u64 = 100;
/// The best of so many, since others use the machine too.
const ROUNDS: usize = 5;

pub(crate) async fn run(load: &Load, server: &Arc<Server>) -> anyhow::Result<Vec<Figure>> {
    let topic = load.topic("replay");
    server.create(&topic).await?;
    fill(load, server, &topic).await?;
    let (mut events, mut pages) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        events = events.min(read_events(load, server, &topic).await?);
        if server.has_batches() {
            pages = pages.min(read_pages(load, server, &topic).await?);
        }
    }
    let mut figures = vec![Figure::new(
        "server-sent events",
        rate(load.records, events),
        "/s",
    )];
    if server.has_batches() {
        figures.push(Figure::new("pages", rate(load.records, pages), "/s"));
    }
    Ok(figures)
}

async fn fill(load: &Load, server: &Server, topic: &str) -> anyhow::Result<()> {
    let batch = if server.has_batches() { BATCH } else { 1 };
    if !load.records.is_multiple_of(batch) {
        bail!("the number of records must be a multiple of {BATCH}");
    }
    let mut publisher =
        Publisher::connect(server, topic, usize::try_from(batch)?, load.bytes).await?;
    for _ in 0..load.records / batch {
        publisher.send().await?;
    }
    Ok(())
}

async fn read_events(load: &Load, server: &Server, topic: &str) -> anyhow::Result<Duration> {
    let connection = Connection::open(server.address).await?;
    let begin = Instant::now();
    let mut body = connection.follow(&server.replay_path(topic)).await?;
    let (mut scanner, mut records) = (Scanner::new(), 0);
    while records < load.records {
        let piece = http::next_piece(&mut body).await?;
        let piece = piece.with_context(|| format!("the events ended after {records} records"))?;
        records += scanner.scan(&piece).map_or(0, |found| found.messages);
    }
    Ok(begin.elapsed())
}

async fn read_pages(load: &Load, server: &Server, topic: &str) -> anyhow::Result<Duration> {
    let mut connection = Connection::open(server.address).await?;
    let path = server.append_path(topic);
    let begin = Instant::now();
    let (mut offset, mut records) = ("-1".to_owned(), 0);
    loop {
        let page = format!("{path}?offset={offset}");
        let answer = connection.ask(Method::GET, &page, Bytes::new()).await?;
        let found = Scanner::new().scan(&answer.body);
        records += found.map_or(0, |found| found.messages);
        let header = |name: &str| answer.headers.get(name).map(|value| value.to_str());
        if header("stream-up-to-date").is_some() {
            break;
        }
        let next = header("stream-next-offset").context("a page does not say what follows")?;
        offset = next?.to_owned();
    }
    let took = begin.elapsed();
    if records != load.records {
        bail!("the pages held {records} records of {}", load.records);
    }
    Ok(took)
}
