//! Subscribers that do not keep up, beside others that do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::fan_out::{self, Audience, Face};
use super::publish::Publisher;
use crate::Load;
use crate::http::{self, Connection, Window};
use crate::report::{Figure, percentiles};
use crate::server::Server;
use crate::stamp::Scanner;

/// Of each kind: normal ones, ones that stop reading, and ones that read a KiB a second.
const EACH: usize = 100;
const PACE: u32 = 200;
/// Large enough that what is not read does not fit into the buffers of a connection.
const BYTES: usize = 2048;
const BYTES_PER_SECOND: f64 = 1024.0;
/// How long one that reads on may get nothing.
const STALLED: Duration = Duration::from_secs(60);

/// How a subscriber falls behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    Stopped,
    Trickling,
}

pub(crate) async fn run(load: &Load, server: &Arc<Server>) -> anyhow::Result<Vec<Figure>> {
    let messages = u64::from(PACE) * load.time().as_secs().max(1);
    let [_, alone] = percentiles(&publish(load, server, messages, None).await?);
    let mut figures = vec![Figure::new(
        "p99 of normal ones alone",
        alone.value,
        alone.unit,
    )];

    let (read_on, reads_on) = watch::channel(false);
    let crowd = Crowd { reads_on, messages };
    let before = server
        .process
        .map(|process| process.memory_bytes())
        .transpose()?;
    let (heard, slow) = {
        let mut slow = JoinSet::new();
        let heard = publish(load, server, messages, Some((&crowd, &mut slow))).await?;
        (heard, slow)
    };
    let [_, beside] = percentiles(&heard);
    figures.push(Figure::new(
        "p99 beside slow ones",
        beside.value,
        beside.unit,
    ));
    if let (Some(process), Some(before)) = (server.process, before) {
        let grown = process.memory_bytes()?.saturating_sub(before);
        let each = grown as f64 / (2 * EACH) as f64;
        figures.push(Figure::new("memory a slow one", each / 1024.0, "KiB"));
        let unread = messages * BYTES as u64;
        figures.push(Figure::new(
            "unread of each that stopped",
            unread as f64 / 1024.0,
            "KiB",
        ));
    }
    read_on.send_replace(true);
    let mut complete = 0;
    let mut slow = slow;
    while let Some(ended) = slow.join_next().await {
        ended??;
        complete += 1;
    }
    figures.push(Figure::new(
        "slow ones that got all",
        f64::from(complete),
        "of 200",
    ));
    Ok(figures)
}

/// What the slow ones know.
struct Crowd {
    /// True once they may read as fast as they can.
    reads_on: watch::Receiver<bool>,
    messages: u64,
}

/// Publishes to normal subscribers, and to slow ones if there are some; how long the messages to the
/// normal ones were on their way.
async fn publish(
    load: &Load,
    server: &Arc<Server>,
    messages: u64,
    slow: Option<(&Crowd, &mut JoinSet<anyhow::Result<()>>)>,
) -> anyhow::Result<hdrhistogram::Histogram<u64>> {
    let topic = load.topic("slow");
    server.create(&topic).await?;
    let mut publisher = Publisher::connect(server, &topic, 1, BYTES).await?;
    publisher.send().await?;
    if let Some((crowd, running)) = slow {
        for index in 0..2 * EACH {
            let how = if index % 2 == 0 {
                Slow::Stopped
            } else {
                Slow::Trickling
            };
            let connection = Connection::open_with(server.address, Window::Small).await?;
            let body = connection.follow(&server.follow_path(&topic)).await?;
            running.spawn(read(body, how, crowd.reads_on.clone(), crowd.messages));
        }
    }
    let followers = fan_out::connect(server, &topic, Face::Sse, EACH).await?;
    let audience = Audience::follow(followers, messages);
    fan_out::paced(&mut publisher, PACE, messages).await?;
    audience.heard().await
}

/// Reads too little until it may read on, and then the rest.
async fn read(
    mut body: Incoming,
    how: Slow,
    mut reads_on: watch::Receiver<bool>,
    messages: u64,
) -> anyhow::Result<()> {
    let (mut scanner, mut missing) = (Scanner::new(), messages);
    if how == Slow::Stopped {
        reads_on.wait_for(|&reads_on| reads_on).await?;
    }
    while missing > 0 {
        let piece = timeout(STALLED, http::next_piece(&mut body)).await;
        let piece = piece.with_context(|| format!("{missing} messages do not come"))??;
        let piece = piece.with_context(|| format!("{how:?}: cut off {missing} messages early"))?;
        let found = scanner.scan(&piece).map_or(0, |found| found.messages);
        let Some(left) = missing.checked_sub(found) else {
            bail!("{how:?}: more messages than the {messages} that were sent");
        };
        missing = left;
        let takes = Duration::from_secs_f64(piece.len() as f64 / BYTES_PER_SECOND);
        // Until then at its pace.
        let _ = timeout(takes, reads_on.wait_for(|&reads_on| reads_on)).await;
    }
    Ok(())
}
