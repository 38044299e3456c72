//! The sequence over a WebSocket: the server sends events, the client may replace its filter and its
//! place.

use std::time::Duration;

use axum::Error;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use dacapo::{Json, Receiver, Start};
use futures_util::SinkExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::config::RealtimeConfig;
use super::event::RealtimeEvent;
use super::filter::Filter;
use super::manager::{Client, RealtimeManager};
use super::router::Guest;
use crate::resume::Numbering;
use crate::sse::{Incoming, NumberedGap, Received};

/// A client's text is a filter, and no more than this.
const CLIENT_BYTES_MAX: usize = 64 << 10;

/// After so many events, others get their turn: the client's texts, and other tasks.
const BATCH_MAX: usize = 128;

/// How long a client may take to close after it was told so.
const CLOSING_MAX: Duration = Duration::from_secs(2);

const NUMBERING: Numbering = Numbering::FROM_ONE;

/// A response that follows the sequence from `start` on, once the connection is a WebSocket.
pub(super) fn follow<E: RealtimeEvent, F: Filter<E>>(
    upgrade: WebSocketUpgrade,
    manager: RealtimeManager<E, F>,
    filter: F,
    start: Start,
    config: &RealtimeConfig,
    guest: Guest,
) -> Response {
    let sockets = manager.sockets();
    // Before the client hears that it is connected: what is sent from then on, it gets.
    let follower = Follower {
        incoming: Incoming::new(manager.receiver(start)),
        closing: manager.closing(),
        client: Client::connect(manager, filter),
        guest,
    };
    let ping_interval = config.keep_alive_interval;
    upgrade
        .max_message_size(CLIENT_BYTES_MAX)
        .on_upgrade(move |socket| sockets.track_future(follower.run(socket, ping_interval)))
}

/// What the server says that is no event.
#[derive(Serialize)]
#[serde(tag = "control", rename_all = "snake_case")]
enum Control<'a> {
    /// The client's text was understood. What follows is by its new filter and from its new place.
    Ack { filter: bool, resume_at: u64 },
    /// Events were missed.
    Gap(NumberedGap),
    /// An event is there, and cannot be sent.
    Unreadable { id: u64, error: &'a str },
    /// The client's text was not understood, and changed nothing.
    Error { message: &'a str },
}

impl Control<'_> {
    fn text(&self) -> Message {
        let text = serde_json::to_string(self).expect("numbers and texts");
        Message::Text(text.into())
    }
}

/// Why a connection ends.
enum End {
    /// The client closed it, or has gone.
    Gone,
    Close {
        code: u16,
        reason: &'static str,
    },
}

const EXPIRED: End = End::Close {
    code: close_code::POLICY,
    reason: "the token has expired; connect again with another one",
};

const AWAY: End = End::Close {
    code: close_code::AWAY,
    reason: "the server shuts down; connect again",
};

impl From<Error> for End {
    fn from(_: Error) -> Self {
        Self::Gone
    }
}

struct Follower<E, F> {
    incoming: Incoming<Receiver<E, Json>>,
    client: Client<E, F>,
    closing: CancellationToken,
    guest: Guest,
}

impl<E: RealtimeEvent, F: Filter<E>> Follower<E, F> {
    async fn run(mut self, mut socket: WebSocket, ping_interval: Duration) {
        let closing = self.closing.clone();
        let expired = self.guest.expired();
        let end = tokio::select! {
            end = self.follow(&mut socket, ping_interval) => end,
            // Also while a client does not take what it is sent.
            () = closing.cancelled() => AWAY,
            () = expired => EXPIRED,
        };
        // It is no client any more, however long it takes to close.
        drop(self);
        if let End::Close { code, reason } = end {
            let reason = reason.into();
            let close = Message::Close(Some(CloseFrame { code, reason }));
            let closed = async {
                socket.send(close).await?;
                while socket.recv().await.transpose()?.is_some() {}
                Ok::<_, Error>(())
            };
            // Who does not answer has lost its connection in any case.
            let _ = timeout(CLOSING_MAX, closed).await;
        }
    }

    async fn follow(&mut self, socket: &mut WebSocket, ping_interval: Duration) -> End {
        let mut pings = interval_at(Instant::now() + ping_interval, ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = true;
        loop {
            let step = tokio::select! {
                received = self.incoming.next() => match received {
                    Ok(Some(received)) => self.send_batch(socket, received).await,
                    Ok(None) => Err(AWAY),
                    Err(error) => Err(unreadable_log(&error)),
                },
                said = socket.recv() => {
                    heard = true;
                    match said {
                        Some(Ok(said)) => self.hear(socket, said).await,
                        Some(Err(_)) | None => Err(End::Gone),
                    }
                }
                _ = pings.tick() => match std::mem::take(&mut heard) {
                    true => socket.send(Message::Ping(Default::default())).await.map_err(End::from),
                    false => Err(End::Close {
                        code: close_code::POLICY,
                        reason: "the last ping was not answered",
                    }),
                },
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Sends what is there, in one write where it fits.
    async fn send_batch(
        &mut self,
        socket: &mut WebSocket,
        first: Received<E, Json>,
    ) -> Result<(), End> {
        let mut next = Some(first);
        for _ in 0..BATCH_MAX {
            let Some(received) = next else {
                break;
            };
            if let Some(text) = self.text_of(received) {
                socket.feed(text).await?;
            }
            next = self
                .incoming
                .try_next()
                .map_err(|error| unreadable_log(&error))?;
        }
        // Taken, and the last of the batch.
        if let Some(text) = next.and_then(|received| self.text_of(received)) {
            socket.feed(text).await?;
        }
        socket.flush().await?;
        tokio::task::yield_now().await;
        Ok(())
    }

    /// `None` for an event that the client does not want.
    fn text_of(&self, received: Received<E, Json>) -> Option<Message> {
        let message = match received {
            Received::Message(message) => message,
            Received::Gap(gap) => return Some(Control::Gap(gap.numbered(NUMBERING)).text()),
        };
        let id = NUMBERING.id(message.offset());
        let unreadable = |error: String| {
            tracing::error!(id, %error, "an event cannot be sent; its client is told");
            Some(Control::Unreadable { id, error: &error }.text())
        };
        match self.client.manager.ready(&message) {
            Ok(ready) if !self.client.wants(&ready.event) => None,
            Ok(ready) => match ready.text() {
                Ok(json) => Some(Message::Text(json)),
                Err(error) => unreadable(error),
            },
            Err(error) => unreadable(error.to_string()),
        }
    }

    /// Does what the client asks for.
    async fn hear(&mut self, socket: &mut WebSocket, said: Message) -> Result<(), End> {
        let request = match said {
            Message::Text(text) => Request::read(&text),
            Message::Binary(_) => Err("send a text: a filter, or where to go on".to_owned()),
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
            Message::Close(_) => return Err(End::Gone),
        };
        let answer = match request {
            Ok(Request { filter, from }) => {
                let ack_filter = filter.is_some();
                if let Some(filter) = filter {
                    self.client.set_filter(filter);
                }
                if let Some(start) = from {
                    self.incoming.seek(start);
                }
                let resume_at = NUMBERING.id(self.incoming.offset());
                Control::Ack {
                    filter: ack_filter,
                    resume_at,
                }
                .text()
            }
            Err(message) => Control::Error { message: &message }.text(),
        };
        Ok(socket.send(answer).await?)
    }
}

fn unreadable_log(error: &dacapo::ReceiveError) -> End {
    tracing::error!(%error, "the log cannot be read; a client's connection ends");
    End::Close {
        code: close_code::ERROR,
        reason: "the server cannot read its events; connect again later",
    }
}

/// What a client asks for in a text: a JSON object, whose `from` is a place, and the rest a filter.
struct Request<F> {
    /// `None` where the text has a place and nothing else.
    filter: Option<F>,
    from: Option<Start>,
}

impl<F: DeserializeOwned> Request<F> {
    fn read(text: &str) -> Result<Self, String> {
        let value = serde_json::from_str(text);
        let value = value.map_err(|error| format!("this is no JSON: {error}"))?;
        let Value::Object(mut object) = value else {
            return Err("send a JSON object: a filter, or where to go on".to_owned());
        };
        let from = match object.remove("from") {
            None => None,
            Some(from) => Some(place(&from)?),
        };
        let filter = match from.is_some() && object.is_empty() {
            true => None,
            false => {
                let filter = F::deserialize(Value::Object(object));
                Some(filter.map_err(|error| format!("this is no filter: {error}"))?)
            }
        };
        Ok(Self { filter, from })
    }
}

fn place(from: &Value) -> Result<Start, String> {
    let start = match from {
        Value::Number(number) => number.as_u64().map(|seq| NUMBERING.at(seq)),
        Value::String(text) => NUMBERING.place(text),
        _ => None,
    };
    start.ok_or_else(|| "`from` is the number of an event, \"oldest\" or \"latest\"".to_owned())
}
