//! One client, whatever its transport: the rules by which its messages reach its channels.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::channel::Core;
use super::handler::{Join, Left};
use super::payload::Payload;
use super::phoenix::Shared;
use super::task::{Ask, Begun, caught, unmatched};
use super::wire::{
    self, Frame, HEARTBEAT, JOIN, LEAVE, Message, Outgoing, PHOENIX, Serializer, Status,
};

/// One connected client.
pub(super) struct Session<S: Send + Sync + 'static> {
    shared: Arc<Shared<S>>,
    socket: Arc<S>,
    number: u64,
    serializer: Serializer,
    out: mpsc::Sender<Frame>,
    channels: Arc<Mutex<Channels>>,
    tasks: TaskTracker,
    /// Cancelled when the server wants this client to go.
    disconnected: CancellationToken,
}

/// The joined topics of a client.
#[derive(Debug, Default)]
pub(super) struct Channels(HashMap<Arc<str>, Entry>);

#[derive(Debug)]
struct Entry {
    number: u64,
    join_ref: Option<String>,
    mailbox: mpsc::Sender<Ask>,
    stop: watch::Sender<Option<Left>>,
    ended: CancellationToken,
}

impl Channels {
    /// Removes a channel, unless another one has taken its place.
    pub(super) fn remove(&mut self, topic: &str, number: u64) {
        if self
            .0
            .get(topic)
            .is_some_and(|entry| entry.number == number)
        {
            self.0.remove(topic);
        }
    }
}

impl<S: Send + Sync + 'static> Session<S> {
    /// A client that has connected, and what is to be sent to it.
    pub(super) fn new(
        shared: &Arc<Shared<S>>,
        assigns: S,
        serializer: Serializer,
    ) -> (Self, mpsc::Receiver<Frame>) {
        let (out, frames) = mpsc::channel(shared.hub.limits.frames.max(1));
        let socket = Arc::new(assigns);
        let (number, disconnected) = shared.enter(&socket);
        let session = Self {
            shared: Arc::clone(shared),
            socket,
            number,
            serializer,
            out,
            channels: Arc::default(),
            tasks: TaskTracker::new(),
            disconnected,
        };
        (session, frames)
    }

    pub(super) fn serializer(&self) -> Serializer {
        self.serializer
    }

    /// Cancelled when the server wants this client to go.
    pub(super) fn disconnected(&self) -> CancellationToken {
        self.disconnected.clone()
    }

    /// Does what a message asks for. Waits where a channel has as many as may wait, or the client does
    /// not take its answers.
    pub(super) async fn receive(&self, message: Message) {
        if message.topic == PHOENIX && message.event == HEARTBEAT {
            return self.reply(&message, Status::Ok, &Payload::empty()).await;
        }
        if message.event == JOIN {
            return self.join(message).await;
        }
        let mailbox = match self.channels().0.get(&*message.topic) {
            // Of an earlier life of the channel.
            Some(entry) if message.join_ref.is_some() && message.join_ref != entry.join_ref => {
                return;
            }
            Some(entry) => Some(entry.mailbox.clone()),
            None => None,
        };
        let message = match mailbox {
            None => message,
            Some(mailbox) => {
                let asked = match message.event.as_str() {
                    LEAVE => Ask::Leave(message.reference.clone()),
                    _ => Ask::Message(Box::new(message.clone())),
                };
                match mailbox.send(asked).await {
                    Ok(()) => return,
                    // It has ended just now.
                    Err(_) => message,
                }
            }
        };
        match message.event.as_str() {
            LEAVE => self.reply(&message, Status::Ok, &Payload::empty()).await,
            _ => self.reply(&message, Status::Error, &unmatched()).await,
        }
    }

    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reply(&self, message: &Message, status: Status, response: &Payload) {
        let reply = Outgoing::Reply {
            join_ref: message.join_ref.as_deref(),
            reference: message.reference.as_deref(),
            topic: &message.topic,
            status,
            response,
        };
        let frame =
            wire::encode(self.serializer, &reply).expect("the names have been read from a frame");
        let _ = self.out.send(frame).await;
    }

    async fn join(&self, message: Message) {
        let Some((route, matched)) = self.shared.route(&message.topic) else {
            return self.reply(&message, Status::Error, &unmatched()).await;
        };
        // A client of version 1 gives no join_ref: it is the reference of its join.
        let join_ref = message
            .join_ref
            .clone()
            .or_else(|| message.reference.clone());
        let limits = &self.shared.hub.limits;
        // Here, and not in the new channel's task: who joins again and again has one channel all the same.
        let previous = self.channels().0.get(&*message.topic).map(|previous| {
            previous.stop.send_replace(Some(Left::Rejoined));
            previous.ended.clone()
        });
        if let Some(ended) = previous {
            ended.cancelled().await;
        }
        if self.channels().0.len() >= limits.channels {
            let reason = json!({"reason": "too many channels joined"});
            return self.reply(&message, Status::Error, &reason.into()).await;
        }
        let topic = self
            .shared
            .hub
            .topics
            .join(&message.topic, limits.broadcasts);
        let core = Box::new(Core::new(
            &self.shared.hub,
            Arc::clone(&topic),
            matched.to_owned(),
            join_ref.clone(),
            self.serializer,
            self.out.clone(),
        ));
        let (mailbox, asked) = mpsc::channel(limits.pushes.max(1));
        let (stop, stopped) = watch::channel(None);
        let ended = CancellationToken::new();
        let entry = Entry {
            number: core.number,
            join_ref,
            mailbox,
            stop,
            ended: ended.clone(),
        };
        self.channels().0.insert(Arc::clone(&topic.name), entry);
        self.tasks.spawn(route.run(Begun {
            core,
            socket: Arc::clone(&self.socket),
            join: Join {
                matched: matched.to_owned(),
                topic: message.topic,
                payload: message.payload,
            },
            reference: message.reference,
            mailbox: asked,
            stop: stopped,
            ended,
            channels: Arc::downgrade(&self.channels),
        }));
    }

    /// The client has gone: ends its channels. Its frames must be taken meanwhile, or be dropped.
    pub(super) async fn end(&self) {
        for entry in self.channels().0.values() {
            let _ = entry.stop.send_replace(Some(Left::Disconnected));
        }
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.leave(self.number);
        if let Err(panic) = caught(self.shared.sockets.disconnected(&self.socket)).await {
            tracing::error!(%panic, "a handler has crashed while its client disconnected");
        }
    }
}
