//! Durable Streams: publishers that wait for acknowledgements, and subscribers that resume.

use std::collections::BTreeMap;
use std::fmt::Debug;

use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::{Storm, Victim, soon};

const STREAMS: usize = 4;
const PUBLISHERS: usize = 50;
const SUBSCRIBERS: usize = 200;

/// A message: whose it is, and which one of theirs.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
struct Message {
    of: usize,
    n: u64,
}

/// Whose the last message of a stream is.
const LAST: Message = Message {
    of: usize::MAX,
    n: 0,
};

#[tokio::test(flavor = "multi_thread")]
async fn streams_lose_and_double_nothing_by_kills_under_publishers_and_subscribers() {
    let mut victim = Victim::start(&["--connections-max", "1000"]);
    // Each life has an address of its own, and so no connection of an earlier one is used again.
    let client = Client::builder().no_proxy().build().unwrap();
    for stream in 0..STREAMS {
        let create = client.put(url(&mut victim.storm(), stream));
        let created = json(create, "[]".to_owned()).send().await.unwrap();
        assert_eq!(created.status(), StatusCode::CREATED);
    }
    let (mut publishers, mut subscribers) = (JoinSet::new(), JoinSet::new());
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(victim.storm(), client.clone(), publisher));
    }
    for subscriber in 0..SUBSCRIBERS {
        let stream = subscriber % STREAMS;
        subscribers.spawn(follow(victim.storm(), client.clone(), stream));
    }

    victim.storm_through(1000).await;

    let mut published = BTreeMap::new();
    while let Some(ended) = soon(publishers.join_next()).await {
        let ended = ended.unwrap();
        published.insert(ended.publisher, ended);
    }
    let mut stored = Vec::new();
    for stream in 0..STREAMS {
        let url = url(&mut victim.storm(), stream);
        let body = format!(r#"{{"of":{},"n":{}}}"#, LAST.of, LAST.n);
        let sent = json(client.post(&url), body).send().await.unwrap();
        assert!(sent.status().is_success(), "{}", sent.status());
        stored.push(read_all(&client, &url).await);
    }
    let seed = victim.seed_text();
    for (stream, stored) in stored.iter().enumerate() {
        check(stored, stream, &published, &seed);
    }
    let mut resumed = 0;
    while let Some(heard) = soon(subscribers.join_next()).await {
        let heard = heard.unwrap();
        resumed += heard.resumed;
        let stored = &stored[heard.stream];
        let differs = (0..stored.len().max(heard.messages.len()))
            .find(|&place| stored.get(place) != heard.messages.get(place));
        if let Some(place) = differs {
            panic!(
                "{seed}: message {place} of stream {} is {:?}, and a subscriber got {:?}",
                heard.stream,
                stored.get(place),
                heard.messages.get(place)
            );
        }
    }
    victim.tell(format_args!(
        "{SUBSCRIBERS} subscribers resumed {resumed} times"
    ));
}

/// What a publisher has sent.
#[derive(Debug)]
struct Published {
    publisher: usize,
    /// In the order in which they were sent.
    acknowledged: Vec<u64>,
    /// Whether it sends again what was not acknowledged.
    repeats: bool,
}

/// A publisher either sends again what no answer came for, under a sequence that the server knows, or
/// goes on with the next message.
async fn publish(mut storm: Storm, client: Client, publisher: usize) -> Published {
    let repeats = publisher.is_multiple_of(2);
    let mut acknowledged = Vec::new();
    let mut n = 0;
    let mut is_open = false; // whether the last one is to be sent again
    let mut before = String::new();
    while !storm.is_over() || is_open {
        let life = storm.life();
        let mut append = client.post(url(&mut storm, publisher % STREAMS));
        if repeats {
            append = append
                .header("producer-id", format!("publisher {publisher}"))
                .header("producer-epoch", 0)
                .header("producer-seq", n);
        }
        let message = format!(r#"{{"of":{publisher},"n":{n}}}"#);
        match soon(json(append, message).send()).await {
            Ok(answer) => {
                let status = answer.status();
                let next = answer.headers().get("stream-next-offset").cloned();
                assert!(status.is_success(), "{status}: {:?}", answer.text().await);
                let next = next.unwrap().to_str().unwrap().to_owned();
                // A repetition is told the end of the stream, which may be where it was.
                assert!(
                    next > before || is_open && next == before,
                    "{next} behind {before}"
                );
                before = next;
                acknowledged.push(n);
                storm.acknowledge();
                is_open = false;
                n += 1;
            }
            Err(error) => {
                is_open = repeats;
                n += u64::from(!repeats);
                storm.after(life, error).await;
            }
        }
    }
    Published {
        publisher,
        acknowledged,
        repeats,
    }
}

/// What a subscriber has got, to the last message.
struct Heard {
    stream: usize,
    messages: Vec<Message>,
    resumed: u64,
}

/// Reads server-sent events from the first one, and goes on as an `EventSource` does.
async fn follow(mut storm: Storm, client: Client, stream: usize) -> Heard {
    let mut heard = Heard {
        stream,
        messages: Vec::new(),
        resumed: 0,
    };
    let mut last_id = None;
    loop {
        let life = storm.life();
        let url = format!("{}?offset=-1&live=sse", url(&mut storm, stream));
        match follow_once(&client, &url, &mut last_id, &mut heard.messages).await {
            Ok(()) if heard.messages.last() == Some(&LAST) => return heard,
            Ok(()) => {}
            Err(error) => storm.after(life, error).await,
        }
        heard.resumed += 1;
    }
}

/// Returns at the end of a response, or behind the last message of all.
async fn follow_once(
    client: &Client,
    url: &str,
    last_id: &mut Option<String>,
    messages: &mut Vec<Message>,
) -> Result<(), reqwest::Error> {
    let mut request = client.get(url);
    if let Some(id) = &last_id {
        request = request.header("last-event-id", id);
    }
    let mut response = soon(request.send()).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let mut received = Vec::new();
    while let Some(chunk) = soon(response.chunk()).await? {
        received.extend_from_slice(&chunk);
        // An event without its end is none.
        while let Some(end) = received.windows(2).position(|bytes| bytes == b"\n\n") {
            let event: Vec<u8> = received.drain(..end + 2).collect();
            let event = String::from_utf8(event).unwrap();
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            if field("event: ") != Some("data") {
                continue;
            }
            let id = field("id: ").unwrap();
            assert!(
                last_id.as_deref().is_none_or(|last| last < id),
                "{last_id:?}, then {id}"
            );
            *last_id = Some(id.to_owned());
            let data = field("data:").unwrap();
            let new: Vec<Message> = serde_json::from_str(data).unwrap();
            messages.extend(new);
            if messages.last() == Some(&LAST) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// All that a stream holds, by pages.
async fn read_all(client: &Client, url: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut offset = "-1".to_owned();
    loop {
        let page = client
            .get(format!("{url}?offset={offset}"))
            .send()
            .await
            .unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        let header = |name: &str| {
            page.headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        let is_up_to_date = header("stream-up-to-date").is_some();
        offset = header("stream-next-offset").unwrap().to_owned();
        let page: Vec<Message> = serde_json::from_slice(&page.bytes().await.unwrap()).unwrap();
        messages.extend(page);
        if is_up_to_date {
            return messages;
        }
    }
}

/// What was acknowledged is there, and each message once, in the order in which it was sent.
fn check(
    stored: &[Message],
    stream: usize,
    published: &BTreeMap<usize, Published>,
    seed: &impl Debug,
) {
    for published in published
        .values()
        .filter(|of| of.publisher % STREAMS == stream)
    {
        let publisher = published.publisher;
        let there = stored.iter().filter(|message| message.of == publisher);
        let there: Vec<u64> = there.map(|message| message.n).collect();
        assert!(
            there.is_sorted_by(|one, next| one < next),
            "{seed:?}: publisher {publisher}'s are doubled or out of order: {there:?}"
        );
        let lost = published.acknowledged.iter().filter(|n| !there.contains(n));
        let lost: Vec<&u64> = lost.collect();
        assert!(
            lost.is_empty(),
            "{seed:?}: of publisher {publisher}, {lost:?} were acknowledged and are lost"
        );
        assert!(
            !published.repeats || there == published.acknowledged,
            "{seed:?}: of publisher {publisher}, {there:?} are there and {:?} were sent",
            published.acknowledged
        );
    }
}

fn url(storm: &mut Storm, stream: usize) -> String {
    let address = storm.life().address;
    format!("http://{address}/v1/stream/storm/{stream}")
}

fn json(request: RequestBuilder, body: String) -> RequestBuilder {
    request
        .header("content-type", "application/json")
        .body(body)
}
