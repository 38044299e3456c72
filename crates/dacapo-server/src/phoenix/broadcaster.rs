//! Broadcasting without a connection, and listening to all broadcasts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dacapo_log::Offset;
use tokio::sync::broadcast;

use super::error::PublishError;
use super::hub::{Hub, Published, Through, check};
use super::payload::Payload;
use super::topic::Kind;

/// Broadcasts to channels from anywhere in the program; cheap to clone.
///
/// ```
/// use dacapo_server::phoenix::{Anybody, Phoenix};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let phoenix = Phoenix::builder(Anybody).build();
/// let broadcaster = phoenix.broadcaster();
/// let mut events = broadcaster.events();
/// broadcaster.broadcast("rooms:lobby", "new:msg", json!({"body": "hello"})).await?;
/// assert_eq!(events.next().await?.expect("it goes on").topic, "rooms:lobby");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ChannelBroadcaster(pub(super) Arc<Hub>);

impl ChannelBroadcaster {
    /// Sends an event to all who have joined the topic, and returns its offset where the topic is
    /// durable: it is in the log then, for those too who join later.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn broadcast(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload> + Send,
    ) -> Result<Option<Offset>, PublishError> {
        let published = self
            .0
            .publish(topic, event, payload.into(), None, Through::Log)
            .await?;
        Ok(match published {
            Published::Record(offset) => Some(offset),
            Published::Local(_) => None,
        })
    }

    /// As [`broadcast`](Self::broadcast), but in memory in any case: for what need not be kept, such as
    /// that somebody is typing.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn broadcast_in_memory(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload> + Send,
    ) -> Result<(), PublishError> {
        let payload = payload.into();
        self.0
            .publish(topic, event, payload, None, Through::Memory)
            .await
            .map(drop)
    }

    /// Sends something to the [handlers](super::ChannelHandler::info) of all channels of a topic.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn info(
        &self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), PublishError> {
        let payload = payload.into();
        check(event, &payload)?;
        if let Some(joined) = self.0.topics.get(topic) {
            joined.send(Kind::Info, event, payload);
        }
        Ok(())
    }

    /// All that is broadcast from now on, in all topics, joined or not, in one order.
    pub fn events(&self) -> Events {
        Events(self.0.tap.subscribe())
    }

    /// How many clients are connected.
    #[must_use]
    pub fn connected_clients(&self) -> usize {
        self.0.clients.load(Ordering::Acquire)
    }

    /// Who is present in a topic, as `presence_state` has it.
    #[must_use]
    pub fn presence(&self, topic: &str) -> serde_json::Value {
        match self.0.topics.get(topic) {
            Some(topic) => topic.presence(),
            None => serde_json::json!({}),
        }
    }
}

impl fmt::Debug for ChannelBroadcaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clients = self.connected_clients();
        f.debug_struct("ChannelBroadcaster")
            .field("connected_clients", &clients)
            .finish_non_exhaustive()
    }
}

/// Something that was broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// In what topic.
    pub topic: String,
    /// What happened.
    pub event: String,
    /// What it carries, without its offset.
    pub payload: Payload,
    /// Its place in the log, of a durable topic.
    pub offset: Option<Offset>,
}

/// All that is broadcast; made by [`ChannelBroadcaster::events`].
#[derive(Debug)]
#[must_use = "it tells nothing until it is asked"]
pub struct Events(broadcast::Receiver<Event>);

/// Events were not asked for in time, and are gone; those of durable topics are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{missed} events came faster than they were asked for; tail the log for those that are durable"
)]
pub struct Missed {
    /// How many.
    pub missed: u64,
}

impl Events {
    /// Waits for the next event; `None` once nobody can broadcast any more. Cancel-safe.
    ///
    /// # Errors
    /// [`Missed`] if 1,024 more have come since; goes on with the oldest that is left.
    pub async fn next(&mut self) -> Result<Option<Event>, Missed> {
        match self.0.recv().await {
            Ok(event) => Ok(Some(event)),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
            Err(broadcast::error::RecvError::Lagged(missed)) => Err(Missed { missed }),
        }
    }
}
