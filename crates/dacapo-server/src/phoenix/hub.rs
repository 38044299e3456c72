//! Where broadcasts go: the log or memory, and those who listen to all of them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use dacapo_log::Offset;
use tokio::sync::broadcast;

use super::broadcaster::Event;
use super::durable::Durable;
use super::error::PublishError;
use super::limits::Limits;
use super::pattern::Pattern;
use super::payload::Payload;
use super::topic::{Kind, Local, Topics};
use super::wire::FIELD_BYTES_MAX;

/// How many broadcasts may wait for one who listens to all.
const TAPPED: usize = 1024;

/// What all sockets of one mount share, whatever they know of their clients.
pub(super) struct Hub {
    pub(super) limits: Limits,
    pub(super) topics: Arc<Topics>,
    pub(super) tap: broadcast::Sender<Event>,
    pub(super) clients: AtomicUsize,
    logs: Vec<(Pattern, Arc<dyn HasLog>)>,
    /// Broadcasts are one sequence for those who listen to all.
    order: Mutex<()>,
    numbers: AtomicU64,
    /// Of this run: what is numbered in it is no other run's.
    run: u128,
}

/// A handler, as far as a broadcast concerns it.
pub(super) trait HasLog: Send + Sync {
    fn durable(&self, topic: &str) -> Option<Durable>;
}

/// What has become of a broadcast.
pub(super) enum Published {
    Record(Offset),
    /// `None`: nobody has joined.
    Local(Option<Arc<Local>>),
}

/// Where a broadcast goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    /// The log of the topic, if it has one.
    Log,
    Memory,
}

impl Hub {
    pub(super) fn new(limits: Limits, logs: Vec<(Pattern, Arc<dyn HasLog>)>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            limits,
            topics: Arc::default(),
            tap: broadcast::Sender::new(TAPPED),
            clients: AtomicUsize::new(0),
            logs,
            order: Mutex::default(),
            numbers: AtomicU64::new(0),
            run: now.unwrap_or_default().as_nanos(),
        }
    }

    /// A number that nothing else of this run has.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// A name that nothing else has, of other runs included.
    pub(super) fn unique(&self) -> String {
        format!("{:x}.{:x}", self.run, self.number())
    }

    pub(super) async fn publish(
        &self,
        topic: &str,
        event: &str,
        payload: Payload,
        from: Option<u64>,
        through: Through,
    ) -> Result<Published, PublishError> {
        check(event, &payload)?;
        if topic.len() > FIELD_BYTES_MAX {
            return Err(PublishError::TopicTooLong { bytes: topic.len() });
        }
        // Who broadcasts in a loop lets those who deliver have their turn.
        tokio::task::coop::consume_budget().await;
        let durable = match through {
            Through::Log => self.durable(topic),
            Through::Memory => None,
        };
        let Some(durable) = durable else {
            return Ok(Published::Local(
                self.publish_in_memory(topic, event, payload, from),
            ));
        };
        let offset = self.append(&durable, topic, event, payload)?;
        if durable.is_synced() {
            durable.log().durable(offset).await?;
        }
        Ok(Published::Record(offset))
    }

    fn durable(&self, topic: &str) -> Option<Durable> {
        let route = self
            .logs
            .iter()
            .find(|(pattern, _)| pattern.matched(topic).is_some());
        route?.1.durable(topic)
    }

    fn publish_in_memory(
        &self,
        topic: &str,
        event: &str,
        payload: Payload,
        from: Option<u64>,
    ) -> Option<Arc<Local>> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        self.tell(topic, event, &payload, None);
        let joined = self.topics.get(topic)?;
        Some(joined.send(Kind::Broadcast { from }, event, payload))
    }

    fn append(
        &self,
        durable: &Durable,
        topic: &str,
        event: &str,
        payload: Payload,
    ) -> Result<Offset, PublishError> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = durable.append(topic, event, &payload)?;
        if let Some(joined) = self.topics.get(topic) {
            joined.appended(offset);
        }
        self.tell(topic, event, &payload, Some(offset));
        Ok(offset)
    }

    fn tell(&self, topic: &str, event: &str, payload: &Payload, offset: Option<Offset>) {
        if self.tap.receiver_count() > 0 {
            let _ = self.tap.send(Event {
                topic: topic.to_owned(),
                event: event.to_owned(),
                payload: payload.clone(),
                offset,
            });
        }
    }
}

/// What can be broadcast or pushed.
pub(super) fn check(event: &str, payload: &Payload) -> Result<(), PublishError> {
    if event.len() > FIELD_BYTES_MAX {
        return Err(PublishError::EventTooLong { bytes: event.len() });
    }
    match payload.is_object() || payload.binary().is_some() {
        true => Ok(()),
        false => Err(PublishError::NotAnObject),
    }
}
