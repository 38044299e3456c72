//! Phoenix channels: publishers that wait for replies, and clients that join again where they were.

use std::fmt::Display;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Storm, Victim, soon};

const TOPIC: &str = "storm";
const PUBLISHERS: usize = 5;
const CLIENTS: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn every_phoenix_client_ends_with_the_same_complete_history_after_kills() {
    let mut victim = Victim::start(&[]);
    let (mut publishers, mut clients) = (JoinSet::new(), JoinSet::new());
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish(victim.storm(), publisher));
    }
    for _ in 0..CLIENTS {
        clients.spawn(follow(victim.storm()));
    }

    victim.storm_through(200).await;

    let mut acknowledged = Vec::new();
    while let Some(published) = soon(publishers.join_next()).await {
        acknowledged.extend(published.unwrap());
    }
    let mut last = Socket::joined(&mut victim.storm(), &json!({})).await;
    let (status, _) = last.push(&json!({"last": true})).await.unwrap();
    assert_eq!(status, "ok");

    let seed = victim.seed_text();
    let mut histories = Vec::new();
    let mut joined = 0;
    while let Some(heard) = soon(clients.join_next()).await {
        let heard = heard.unwrap();
        joined += heard.joined;
        histories.push(heard.messages);
    }
    let (first, others) = histories.split_first().unwrap();
    for history in others {
        let differs = (0..first.len().max(history.len()))
            .find(|&place| first.get(place) != history.get(place));
        if let Some(place) = differs {
            panic!(
                "{seed}: message {place} is {:?} to one client, and {:?} to another",
                first.get(place),
                history.get(place)
            );
        }
    }
    let offsets: Vec<u64> = first.iter().map(|message| message.offset).collect();
    assert!(
        offsets.is_sorted_by(|one, next| one < next),
        "{seed}: {offsets:?}"
    );
    let lost: Vec<&Heard> = acknowledged
        .iter()
        .filter(|message| !first.contains(message))
        .collect();
    assert!(
        lost.is_empty(),
        "{seed}: acknowledged, and in no history: {lost:?}"
    );
    // None twice under another offset: nobody has sent one again.
    let mut data: Vec<String> = first
        .iter()
        .map(|message| message.data.to_string())
        .collect();
    data.sort();
    let doubled: Vec<&[String]> = data.windows(2).filter(|two| two[0] == two[1]).collect();
    assert!(doubled.is_empty(), "{seed}: doubled: {doubled:?}");
    victim.tell(format_args!(
        "{CLIENTS} clients joined {joined} times for the same {} messages",
        first.len()
    ));
}

/// A message, and its place.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    offset: u64,
    data: Value,
}

impl Heard {
    fn of(payload: &Value) -> Self {
        Self {
            offset: payload["offset"].as_u64().unwrap(),
            data: payload["data"].clone(),
        }
    }
}

/// Publishes until all is over; what was acknowledged, with the offset of which it was told.
async fn publish(mut storm: Storm, publisher: usize) -> Vec<Heard> {
    let mut acknowledged = Vec::new();
    let mut n = 0;
    while !storm.is_over() {
        let life = storm.life();
        let mut socket = Socket::joined(&mut storm, &json!({})).await;
        while !storm.is_over() {
            let data = json!({"of": publisher, "n": n});
            n += 1;
            match socket.push(&data).await {
                Ok((status, response)) => {
                    assert_eq!(status, "ok", "{response}");
                    let offset = response["offset"].as_u64().unwrap();
                    acknowledged.push(Heard { offset, data });
                    storm.acknowledge();
                }
                Err(error) => {
                    storm.after(life, error).await;
                    break;
                }
            }
        }
    }
    acknowledged
}

/// What a client has got, to the last message.
struct History {
    messages: Vec<Heard>,
    joined: u64,
}

/// Reads from the first message on, through all lives of the server.
async fn follow(mut storm: Storm) -> History {
    let mut history = History {
        messages: Vec::new(),
        joined: 0,
    };
    loop {
        let life = storm.life();
        let params = match history.messages.last() {
            Some(last) => json!({"last_seen_id": last.offset}),
            None => json!({"from": "oldest"}),
        };
        let mut socket = Socket::joined(&mut storm, &params).await;
        history.joined += 1;
        loop {
            match socket.next().await {
                Ok(frame) if frame[3] == "message" => {
                    let message = Heard::of(&frame[4]);
                    let is_last = message.data["last"] == true;
                    history.messages.push(message);
                    if is_last {
                        return history;
                    }
                }
                Ok(frame) => panic!("nobody has asked for {frame}"),
                Err(error) => {
                    storm.after(life, error).await;
                    break;
                }
            }
        }
    }
}

/// A socket that has joined the topic.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// In this life of the server, or a later one.
    async fn joined(storm: &mut Storm, params: &Value) -> Self {
        loop {
            let life = storm.life();
            let lost: Box<dyn Display + Send> = match Self::connect(life.address.to_string()).await
            {
                Ok(mut socket) => {
                    let join = json!(["1", "1", TOPIC, "phx_join", params]);
                    match socket.ask(&join, "1").await {
                        Ok((status, response)) => {
                            assert_eq!(status, "ok", "{response}");
                            assert_eq!(response.get("gap"), None, "{response}");
                            return socket;
                        }
                        Err(error) => Box::new(error),
                    }
                }
                Err(error) => Box::new(error),
            };
            storm.after(life, lost).await;
        }
    }

    async fn connect(address: String) -> Result<Self, Error> {
        let url = format!("ws://{address}/socket/websocket?vsn=2.0.0");
        let (socket, _) = soon(connect_async(url)).await?;
        Ok(Self(socket))
    }

    /// Publishes, and returns the reply's status and response.
    async fn push(&mut self, data: &Value) -> Result<(String, Value), Error> {
        let push = json!(["1", "2", TOPIC, "publish", data]);
        self.ask(&push, "2").await
    }

    async fn ask(&mut self, frame: &Value, reference: &str) -> Result<(String, Value), Error> {
        soon(self.0.send(Message::text(frame.to_string()))).await?;
        loop {
            let frame = self.next().await?;
            if frame[1] == reference {
                let status = frame[4]["status"].as_str().unwrap().to_owned();
                return Ok((status, frame[4]["response"].clone()));
            }
        }
    }

    async fn next(&mut self) -> Result<Value, Error> {
        loop {
            match soon(self.0.next())
                .await
                .unwrap_or(Err(Error::ConnectionClosed))?
            {
                Message::Text(text) => return Ok(serde_json::from_str(&text).unwrap()),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("nobody has asked for {other}"),
            }
        }
    }
}
