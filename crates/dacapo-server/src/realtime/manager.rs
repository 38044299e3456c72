//! The sequence of events, and who is connected to it.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use dacapo::{
    DecodeError, Json, Message, Offset, OpenError, ReceiveError, Receiver, ReplayChannel,
    SendError, Start,
};
use dacapo_log::{Log, ReadError};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::event::{RealtimeEvent, event_of};
use super::filter::Filter;
use super::recent::{Ready, Recent};
use crate::resume::Numbering;

/// A durable sequence of events, numbered from 1, and the clients that follow it.
///
/// A cheap handle: clone it, share it. A client holds a place in the log and its filter, and no events:
/// a slow one costs a broadcast nothing.
///
/// ```
/// use dacapo_server::realtime::{Everything, RealtimeEvent, RealtimeManager};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Joined(String);
///
/// impl RealtimeEvent for Joined {
///     fn event_type(&self) -> &str {
///         "joined"
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let manager = RealtimeManager::<Joined, Everything>::open(dir)?;
/// assert_eq!(manager.broadcast(&Joined("Ada".into()))?, 1);
/// assert_eq!(manager.broadcast(&Joined("Grace".into()))?, 2);
/// manager.close();
/// drop(manager); // or kill the process
///
/// let manager = RealtimeManager::<Joined, Everything>::open(dir)?;
/// assert_eq!(manager.current_seq(), 3);
/// let missed: Result<Vec<Joined>, _> = manager.events_after(1).collect();
/// assert_eq!(missed?, [Joined("Grace".into())]);
/// # Ok(())
/// # }
/// ```
pub struct RealtimeManager<E, F> {
    channel: ReplayChannel<E, Json>,
    durable_only: bool,
    shared: Arc<Shared<E, F>>,
}

struct Shared<E, F> {
    recent: Recent<E>,
    clients: RwLock<HashMap<Uuid, Arc<F>>>,
    closing: CancellationToken,
    /// The WebSockets, which outlive the connections that they were.
    sockets: TaskTracker,
}

impl<E: RealtimeEvent, F: Filter<E>> RealtimeManager<E, F> {
    /// Opens the sequence in the directory `dir`, and creates it if it is not there.
    ///
    /// Waits for the disk; an async caller does this on a blocking thread.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Ok(Self::new(ReplayChannel::builder().codec(Json).open(dir)?))
    }

    /// The sequence in a channel, which has its own retention, flushing and topic. Of a channel that
    /// shares its log, numbers rise, and leave out the others' records.
    pub fn new(channel: ReplayChannel<E, Json>) -> Self {
        Self {
            channel,
            durable_only: false,
            shared: Arc::new(Shared {
                recent: Recent::default(),
                clients: RwLock::default(),
                closing: CancellationToken::new(),
                sockets: TaskTracker::new(),
            }),
        }
    }

    /// Clients of this handle, and of its clones, get events only that a power cut cannot undo: once they
    /// are flushed. So no client ever holds a number that another event gets later.
    #[must_use]
    pub fn durable_only(mut self) -> Self {
        self.durable_only = true;
        self
    }

    /// Appends an event, and returns its number. Numbers are assigned in the order of the log.
    ///
    /// It is on its way to the clients, and survives a killed process, when this returns. Does not wait
    /// for any client.
    ///
    /// # Errors
    /// As [`Sender::send`](dacapo::Sender::send).
    pub fn broadcast(&self, event: &E) -> Result<u64, SendError> {
        let offset = self.channel.sender().send(event)?;
        Ok(Numbering::FROM_ONE.id(offset))
    }

    /// As [`broadcast`](Self::broadcast), and waits until the event is safe from a power cut.
    ///
    /// # Errors
    /// As [`Sender::send_durable`](dacapo::Sender::send_durable).
    pub async fn broadcast_durable(&self, event: &E) -> Result<u64, SendError> {
        let offset = self.channel.sender().send_durable(event).await?;
        Ok(Numbering::FROM_ONE.id(offset))
    }

    /// The events behind number `seq` that are there as of now, one after the other; 0 is all.
    pub fn events_after(&self, seq: u64) -> EventsAfter<E> {
        EventsAfter {
            receiver: Some(self.receiver(after(seq))),
            end: self.log().next_offset(),
        }
    }

    /// The number of the next event; 1 where there is none yet.
    #[must_use]
    pub fn current_seq(&self) -> u64 {
        Numbering::FROM_ONE.id(self.log().next_offset())
    }

    /// The events from now on.
    pub fn subscribe(&self) -> EventStream<E> {
        EventStream::new(self.receiver(Start::Latest))
    }

    /// The events behind number `seq`, and then what comes.
    pub fn subscribe_after(&self, seq: u64) -> EventStream<E> {
        EventStream::new(self.receiver(after(seq)))
    }

    /// The log that the events are stored in: for [`sync`](Log::sync), retention and backups.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.channel.log()
    }

    /// The event that a message is, for those who send it to clients.
    pub(super) fn ready(&self, message: &Message<E, Json>) -> Result<Arc<Ready<E>>, DecodeError> {
        self.shared.recent.get(message)
    }

    pub(super) fn receiver(&self, start: Start) -> Receiver<E, Json> {
        let receiver = self.channel.receiver_at(start);
        match self.durable_only {
            true => receiver.durable_only(),
            false => receiver,
        }
    }
}

fn after(seq: u64) -> Start {
    Start::AtOrOldest(Offset::new(seq))
}

impl<E, F> RealtimeManager<E, F> {
    /// How many clients are connected, over WebSocket and server-sent events, or were
    /// [registered](Self::register_client).
    #[must_use]
    pub fn client_count(&self) -> usize {
        let clients = self.shared.clients.read();
        clients.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Sets a client's filter, from its next event on, or adds a client with it. The faces do this for
    /// those who connect.
    pub fn register_client(&self, client: Uuid, filter: F) {
        let clients = self.shared.clients.write();
        let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
        clients.insert(client, Arc::new(filter));
    }

    /// Forgets a client: whether there was one. One that is connected gets everything then.
    pub fn unregister_client(&self, client: Uuid) -> bool {
        let clients = self.shared.clients.write();
        let mut clients = clients.unwrap_or_else(PoisonError::into_inner);
        clients.remove(&client).is_some()
    }

    /// A client's filter.
    #[must_use]
    pub fn get_client_filter(&self, client: Uuid) -> Option<Arc<F>> {
        let clients = self.shared.clients.read();
        let clients = clients.unwrap_or_else(PoisonError::into_inner);
        clients.get(&client).cloned()
    }

    /// Ends every connection, as a server does that shuts down: without this it waits for streams that
    /// never end. The sequence stays open.
    pub fn close(&self) {
        self.shared.closing.cancel();
    }

    /// As [`close`](Self::close), and waits until the clients of WebSockets were told, and have closed or
    /// let two seconds pass: a server does not wait for those by itself.
    pub async fn drain(&self) {
        self.close();
        self.shared.sockets.close();
        self.shared.sockets.wait().await;
    }

    pub(super) fn sockets(&self) -> TaskTracker {
        self.shared.sockets.clone()
    }

    pub(super) fn closing(&self) -> CancellationToken {
        self.shared.closing.clone()
    }
}

impl<E, F> Clone for RealtimeManager<E, F> {
    fn clone(&self) -> Self {
        Self {
            channel: self.channel.clone(),
            durable_only: self.durable_only,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<E, F> fmt::Debug for RealtimeManager<E, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealtimeManager")
            .field("channel", &self.channel)
            .field("clients", &self.client_count())
            .finish_non_exhaustive()
    }
}

/// A client for as long as it is connected.
pub(super) struct Client<E, F> {
    pub(super) manager: RealtimeManager<E, F>,
    id: Uuid,
}

impl<E: RealtimeEvent, F: Filter<E>> Client<E, F> {
    pub(super) fn connect(manager: RealtimeManager<E, F>, filter: F) -> Self {
        let id = Uuid::new_v4();
        manager.register_client(id, filter);
        Self { manager, id }
    }

    pub(super) fn set_filter(&self, filter: F) {
        self.manager.register_client(self.id, filter);
    }

    pub(super) fn wants(&self, event: &E) -> bool {
        let filter = self.manager.get_client_filter(self.id);
        filter.is_none_or(|filter| filter.matches(event))
    }
}

impl<E, F> Drop for Client<E, F> {
    fn drop(&mut self) {
        self.manager.unregister_client(self.id);
    }
}

/// Events that are there already; made by [`RealtimeManager::events_after`].
///
/// Behind an event that cannot be decoded, and behind dropped ones, it goes on; behind other errors it
/// ends.
#[must_use = "nothing is read until it is iterated"]
pub struct EventsAfter<E> {
    /// `None` once it has ended.
    receiver: Option<Receiver<E, Json>>,
    end: Offset,
}

impl<E: RealtimeEvent> Iterator for EventsAfter<E> {
    type Item = Result<E, ReceiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.receiver.as_ref()?.try_message() {
            Ok(Some(message)) if message.offset() < self.end => {
                Some(event_of(&message).map_err(ReceiveError::from))
            }
            Ok(_) | Err(ReceiveError::Closed) => {
                self.receiver = None;
                None
            }
            Err(error) => {
                if !goes_on(&error) {
                    self.receiver = None;
                }
                Some(Err(error))
            }
        }
    }
}

fn goes_on(error: &ReceiveError) -> bool {
    matches!(
        error,
        ReceiveError::Decode(_)
            | ReceiveError::Read(ReadError::Pruned { .. } | ReadError::Lost { .. })
    )
}

impl<E> fmt::Debug for EventsAfter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventsAfter").finish_non_exhaustive()
    }
}

/// Events, one after the other, and then those that come; made by [`RealtimeManager::subscribe`].
///
/// Ends when the log is closed. Behind an event that cannot be decoded, and behind dropped ones, it goes
/// on; behind other errors it ends.
#[must_use = "nothing is received until it is polled"]
pub struct EventStream<E>(BoxStream<'static, Result<E, ReceiveError>>);

impl<E: RealtimeEvent> EventStream<E> {
    fn new(receiver: Receiver<E, Json>) -> Self {
        let events = stream::unfold(Some(receiver), |receiver| async {
            let receiver = receiver?;
            match receiver.message().await {
                Ok(message) => {
                    let event = event_of(&message).map_err(ReceiveError::from);
                    Some((event, Some(receiver)))
                }
                Err(ReceiveError::Closed) => None,
                Err(error) if goes_on(&error) => Some((Err(error), Some(receiver))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Self(events.boxed())
    }
}

impl<E> Stream for EventStream<E> {
    type Item = Result<E, ReceiveError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<E> fmt::Debug for EventStream<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}
