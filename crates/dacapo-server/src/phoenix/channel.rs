//! One joined topic of one client: what its handler can do.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, PoisonError};

use dacapo_log::Offset;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::broadcaster::ChannelBroadcaster;
use super::error::PublishError;
use super::feed::{Feed, Item};
use super::hub::{Hub, Published, Through, check};
use super::payload::Payload;
use super::topic::{Kind, Local, Topic};
use super::wire::{self, Frame, Message, Outgoing, Serializer, Status, TooLong};

/// One joined topic of one client, in the hands of its handler.
///
/// What is sent here arrives at the client in this order.
pub struct Channel<S, A> {
    /// What is known in this channel.
    pub assigns: A,
    pub(super) socket: Arc<S>,
    pub(super) core: Box<Core>,
}

impl<S, A> Channel<S, A> {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.core.topic.name
    }

    /// What the `*` of the handler's pattern stands for; empty without one.
    #[must_use]
    pub fn matched(&self) -> &str {
        &self.core.matched
    }

    /// What is known of the client.
    #[must_use]
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Broadcasts to other topics too.
    #[must_use]
    pub fn broadcaster(&self) -> ChannelBroadcaster {
        ChannelBroadcaster(Arc::clone(&self.core.hub))
    }

    /// Sends an event to this client.
    ///
    /// # Errors
    /// [`PublishError::NotAnObject`] and [`PublishError::EventTooLong`].
    pub async fn push(
        &mut self,
        event: &str,
        payload: impl Into<Payload> + Send,
    ) -> Result<(), PublishError> {
        let payload = payload.into();
        check(event, &payload)?;
        let core = &mut self.core;
        let frame = wire::encode(
            core.serializer,
            &Outgoing::Push {
                join_ref: core.join_ref.as_deref(),
                topic: &core.topic.name,
                event,
                payload: &payload,
            },
        );
        core.send(frame).await;
        Ok(())
    }

    /// Answers a message for which [`Reply::none`](super::Reply::none) was returned. A second answer is
    /// ignored by clients, and so is one to a message without reference.
    pub async fn reply(
        &mut self,
        message: &Message,
        status: Status,
        response: impl Into<Payload> + Send,
    ) {
        let reference = message.reference.as_deref();
        self.core.reply(reference, status, &response.into()).await;
    }

    /// Sends an event to all who have joined this topic, this client included, and returns its offset
    /// where the topic is durable: it is in the log then.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn broadcast(
        &mut self,
        event: &str,
        payload: impl Into<Payload> + Send,
    ) -> Result<Option<Offset>, PublishError> {
        self.core
            .publish(event, payload.into(), false, Through::Log)
            .await
    }

    /// As [`broadcast`](Self::broadcast), but not to this client. Where the topic is durable, the client
    /// gets it when it joins again from before it: it is one of the messages of the topic.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn broadcast_from(
        &mut self,
        event: &str,
        payload: impl Into<Payload> + Send,
    ) -> Result<Option<Offset>, PublishError> {
        self.core
            .publish(event, payload.into(), true, Through::Log)
            .await
    }

    /// As [`broadcast`](Self::broadcast), but in memory in any case: for what need not be kept.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn broadcast_in_memory(
        &mut self,
        event: &str,
        payload: impl Into<Payload> + Send,
    ) -> Result<(), PublishError> {
        let published = self
            .core
            .publish(event, payload.into(), false, Through::Memory);
        published.await.map(drop)
    }

    /// Says that this client is present under `key`, with this meta, and tells all by a `presence_diff`.
    /// Once more with the same key, it replaces the meta. It ends with the channel.
    pub async fn track(&mut self, key: &str, meta: Map<String, Value>) {
        let core = &mut self.core;
        let reference = core.hub.unique();
        let replaces = core.tracked.insert(key.to_owned(), reference.clone());
        let diff = core.topic.track(key, &reference, meta, replaces.as_deref());
        core.deliver_until(&Mark::Local(diff)).await;
    }

    /// Says that this client is no longer present under `key`.
    pub async fn untrack(&mut self, key: &str) {
        let core = &mut self.core;
        if let Some(reference) = core.tracked.remove(key)
            && let Some(diff) = core.topic.untrack(key, &reference)
        {
            core.deliver_until(&Mark::Local(diff)).await;
        }
    }

    /// Sends a `presence_state` to this client: who is present. `Presence` of phoenix.js waits for it after
    /// each join.
    ///
    /// # Errors
    /// None that a correct program meets.
    pub async fn push_presence(&mut self) -> Result<(), PublishError> {
        let state = self.core.topic.presence();
        self.push("presence_state", state).await
    }

    /// Ends the channel with `phx_close` once the handler returns: the client does not join again by
    /// itself.
    pub fn close(&mut self) {
        self.core.closing = true;
    }
}

impl<S, A> fmt::Debug for Channel<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("topic", &self.topic())
            .finish_non_exhaustive()
    }
}

/// A channel, whatever is known in it.
pub(super) struct Core {
    pub(super) number: u64,
    pub(super) hub: Arc<Hub>,
    pub(super) topic: Arc<Topic>,
    pub(super) matched: String,
    pub(super) join_ref: Option<String>,
    pub(super) serializer: Serializer,
    pub(super) out: mpsc::Sender<Frame>,
    pub(super) feed: Feed,
    /// For the handler, when it has time.
    pub(super) infos: VecDeque<Arc<Local>>,
    /// Of each key the reference.
    tracked: HashMap<String, String>,
    pub(super) closing: bool,
    /// Why it cannot go on.
    pub(super) failed: Option<&'static str>,
}

/// A broadcast that is to be delivered before anything that is sent later.
enum Mark {
    Record(Offset),
    Local(Arc<Local>),
}

impl Core {
    pub(super) fn new(
        hub: &Arc<Hub>,
        topic: Arc<Topic>,
        matched: String,
        join_ref: Option<String>,
        serializer: Serializer,
        out: mpsc::Sender<Frame>,
    ) -> Self {
        Self {
            number: hub.number(),
            hub: Arc::clone(hub),
            feed: Feed::new(topic.listen()),
            topic,
            matched,
            join_ref,
            serializer,
            out,
            infos: VecDeque::new(),
            tracked: HashMap::new(),
            closing: false,
            failed: None,
        }
    }

    async fn send(&mut self, frame: Result<Frame, TooLong>) {
        match frame {
            // A client that has gone needs nothing; the channel is told so by its socket.
            Ok(frame) => drop(self.out.send(frame).await),
            Err(error) => self.fail("unsendable", &error),
        }
    }

    pub(super) fn fail(&mut self, reason: &'static str, error: &dyn fmt::Display) {
        tracing::warn!(topic = &*self.topic.name, %error, "a channel ends with phx_error");
        self.failed.get_or_insert(reason);
    }

    pub(super) async fn reply(
        &mut self,
        reference: Option<&str>,
        status: Status,
        response: &Payload,
    ) {
        if reference.is_none() {
            return;
        }
        let frame = wire::encode(
            self.serializer,
            &Outgoing::Reply {
                join_ref: self.join_ref.as_deref(),
                reference,
                topic: &self.topic.name,
                status,
                response,
            },
        );
        self.send(frame).await;
    }

    pub(super) async fn tell_closed(&mut self) {
        let (join_ref, topic) = (self.join_ref.as_deref(), &*self.topic.name);
        let frame = wire::encode(self.serializer, &Outgoing::Close { join_ref, topic });
        self.send(frame).await;
    }

    pub(super) async fn tell_failed(&mut self, reason: &str) {
        let (join_ref, topic) = (self.join_ref.as_deref(), &*self.topic.name);
        let error = Outgoing::Error {
            join_ref,
            topic,
            reason,
        };
        let frame = wire::encode(self.serializer, &error);
        self.send(frame).await;
    }

    async fn publish(
        &mut self,
        event: &str,
        payload: Payload,
        but_self: bool,
        through: Through,
    ) -> Result<Option<Offset>, PublishError> {
        let from = but_self.then_some(self.number);
        let topic = &self.topic.name;
        match self
            .hub
            .publish(topic, event, payload, from, through)
            .await?
        {
            Published::Record(offset) => {
                if but_self {
                    self.feed.pass_over(offset);
                }
                self.deliver_until(&Mark::Record(offset)).await;
                Ok(Some(offset))
            }
            Published::Local(local) => {
                if let Some(local) = local {
                    self.deliver_until(&Mark::Local(local)).await;
                }
                Ok(None)
            }
        }
    }

    /// Delivers what comes before `mark`, and `mark`.
    async fn deliver_until(&mut self, mark: &Mark) {
        while self.failed.is_none() && !self.out.is_closed() {
            let taken = match self.feed.try_take() {
                Ok(Some(item)) => item,
                Ok(None) => {
                    if matches!(mark, Mark::Record(offset) if self.feed.is_behind(*offset)) {
                        return;
                    }
                    if let Err(broken) = self.feed.wait().await {
                        self.fail(broken.reason(), &broken);
                    }
                    continue;
                }
                Err(broken) => return self.fail(broken.reason(), &broken),
            };
            let is_mark = match (&taken, mark) {
                (Item::Record(record), Mark::Record(offset)) => record.offset() >= *offset,
                (Item::Local(local), Mark::Local(mark)) => Arc::ptr_eq(local, mark),
                _ => false,
            };
            self.deliver(taken).await;
            if is_mark {
                return;
            }
        }
    }

    pub(super) async fn deliver(&mut self, item: Item) {
        let frame = match item {
            Item::Local(local) => match local.kind {
                Kind::Info => return self.infos.push_back(local),
                Kind::Broadcast { from } if from == Some(self.number) => return,
                Kind::Broadcast { .. } => local.frame(self.serializer, &self.topic.name),
            },
            Item::Record(record) => {
                let durable = self.feed.durable().expect("a record comes from a log");
                self.topic.frame_of(&record, durable, self.serializer)
            }
        };
        self.send(frame).await;
    }

    /// Whoever was present in this channel no longer is.
    pub(super) fn untrack_all(&mut self) {
        for (key, reference) in self.tracked.drain() {
            self.topic.untrack(&key, &reference);
        }
    }
}

impl Topic {
    pub(super) fn presence(&self) -> Value {
        self.present
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .state()
    }

    fn track(
        &self,
        key: &str,
        reference: &str,
        meta: Map<String, Value>,
        replaces: Option<&str>,
    ) -> Arc<Local> {
        // Under the lock: diffs come in the order in which the state has changed.
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let diff = present.add(key, reference, meta, replaces);
        self.send(Kind::Broadcast { from: None }, "presence_diff", diff.into())
    }

    fn untrack(&self, key: &str, reference: &str) -> Option<Arc<Local>> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let diff = present.remove(key, reference)?;
        Some(self.send(Kind::Broadcast { from: None }, "presence_diff", diff.into()))
    }
}
