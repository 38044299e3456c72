//! Megaphone's channels: a writer that waits for acknowledgements and a reader each.

use std::collections::HashMap;

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Storm, Victim, soon};

const CHANNELS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn channels_lose_nothing_by_kills_and_repeat_with_the_same_eid() {
    let mut victim = Victim::start(&["--connections-max", "1000"]);
    // Each life has an address of its own, and so no connection of an earlier one is used again.
    let client = Client::builder().no_proxy().build().unwrap();
    let mut channels = JoinSet::new();
    for channel in 0..CHANNELS {
        let addresses = create(&client, &victim).await;
        let (total, known) = watch::channel(None);
        let (storm, client) = (victim.storm(), client.clone());
        channels.spawn(async move {
            let writing = write(storm.clone(), client.clone(), addresses.producer, total);
            let reading = read(storm, client, addresses.consumer, known);
            let (acknowledged, read) = tokio::join!(writing, reading);
            (channel, acknowledged, read)
        });
    }

    victim.storm_through(1000).await;

    let seed = victim.seed_text();
    let (mut read, mut repeated) = (0, 0);
    while let Some(ended) = soon(channels.join_next()).await {
        let (channel, acknowledged, history) = ended.unwrap();
        let lost: Vec<&u64> = acknowledged
            .iter()
            .filter(|n| !history.messages.contains(n))
            .collect();
        assert!(
            lost.is_empty(),
            "{seed}: of channel {channel}, {lost:?} were acknowledged and are lost"
        );
        assert!(
            history.messages.is_sorted_by(|one, next| one < next),
            "{seed}: channel {channel} has doubled or mixed up {:?}",
            history.messages
        );
        read += history.messages.len();
        repeated += history.repeated;
    }
    victim.tell(format_args!(
        "{read} read on {CHANNELS} channels, {repeated} again with their eid"
    ));
}

/// Where a channel is written to, and read from.
#[derive(Deserialize)]
struct Addresses {
    #[serde(rename = "producerAddress")]
    producer: String,
    #[serde(rename = "consumerAddress")]
    consumer: String,
}

async fn create(client: &Client, victim: &Victim) -> Addresses {
    let address = victim.storm().life().address;
    let created = client
        .post(format!("http://{address}/create"))
        .send()
        .await
        .unwrap();
    assert_eq!(created.status(), StatusCode::OK);
    serde_json::from_slice(&created.bytes().await.unwrap()).unwrap()
}

/// Writes numbers until all is over, each of them once; those that were acknowledged.
async fn write(
    mut storm: Storm,
    client: Client,
    producer: String,
    total: watch::Sender<Option<u64>>,
) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    let mut n = 0_u64;
    while !storm.is_over() {
        let life = storm.life();
        let write = client
            .post(format!("http://{}/write/{producer}/numbers", life.address))
            .header("content-type", "application/json")
            .body(n.to_string());
        match soon(write.send()).await {
            Ok(answer) => {
                let status = answer.status();
                assert_eq!(status, StatusCode::CREATED, "{:?}", answer.text().await);
                acknowledged.push(n);
                storm.acknowledge();
            }
            Err(error) => storm.after(life, error).await,
        }
        n += 1;
    }
    // The last one that must arrive; the reader waits for no more.
    total.send_replace(Some(acknowledged.last().copied().unwrap_or(0)));
    acknowledged
}

/// What a reader has got.
#[derive(Default)]
struct History {
    /// Without those that came again.
    messages: Vec<u64>,
    repeated: u64,
}

/// Reads, and reads again, until the last message that was acknowledged.
async fn read(
    mut storm: Storm,
    client: Client,
    consumer: String,
    mut last: watch::Receiver<Option<u64>>,
) -> History {
    let mut history = History::default();
    let mut known = HashMap::new();
    loop {
        let life = storm.life();
        let url = format!("http://{}/read/{consumer}", life.address);
        let reading = read_once(&client, &url, &mut known, &mut history, &mut last);
        match reading.await {
            Ok(false) => {}
            Ok(true) => return history,
            Err(error) => storm.after(life, error).await,
        }
    }
}

#[derive(Deserialize)]
struct Line {
    eid: String,
    body: u64,
}

/// Reads to the end of a response; true behind the last message of all.
async fn read_once(
    client: &Client,
    url: &str,
    known: &mut HashMap<String, u64>,
    history: &mut History,
    last: &mut watch::Receiver<Option<u64>>,
) -> Result<bool, reqwest::Error> {
    let mut response = soon(client.get(url).send()).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let mut received = Vec::new();
    loop {
        let is_last =
            |last: Option<u64>| last.is_some() && history.messages.last() >= last.as_ref();
        if is_last(*last.borrow_and_update()) {
            return Ok(true);
        }
        let chunk = tokio::select! {
            chunk = soon(response.chunk()) => chunk?,
            // It may be there already.
            _ = last.changed(), if last.borrow().is_none() => continue,
        };
        let Some(chunk) = chunk else {
            return Ok(false);
        };
        received.extend_from_slice(&chunk);
        while let Some(end) = received.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = received.drain(..=end).collect();
            let line: Line = serde_json::from_slice(&line).unwrap();
            match known.insert(line.eid.clone(), line.body) {
                None => history.messages.push(line.body),
                Some(before) => {
                    assert_eq!(before, line.body, "{} was another message", line.eid);
                    history.repeated += 1;
                }
            }
        }
    }
}
