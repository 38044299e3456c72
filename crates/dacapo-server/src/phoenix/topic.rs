//! The topics that somebody has joined: what is broadcast in memory, and encoded for all of them once.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use dacapo_log::{Offset, Record};
use tokio::sync::broadcast;

use super::durable::Durable;
use super::payload::Payload;
use super::presence::Present;
use super::wire::{self, Frame, Outgoing, Serializer, TooLong};

/// How many of its newest records a topic keeps encoded, for those who are not there yet.
const ENCODED_RECORDS: usize = 32;

/// How many bytes such records may have together; the newest one may have more.
const ENCODED_BYTES: usize = 256 << 10;

/// All topics that somebody has joined.
#[derive(Debug, Default)]
pub(super) struct Topics(Mutex<HashMap<Arc<str>, Weak<Topic>>>);

/// A topic that somebody has joined.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    ring: broadcast::Sender<Arc<Local>>,
    /// The offset behind the last record that was broadcast in it by this process.
    appended: AtomicU64,
    recent: Mutex<Recent>,
    pub(super) present: Mutex<Present>,
    all: Weak<Topics>,
}

impl Topics {
    /// The topic, for as long as the returned value lives.
    pub(super) fn join(self: &Arc<Self>, name: &str, broadcasts: usize) -> Arc<Topic> {
        let mut topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name).and_then(Weak::upgrade) {
            return topic;
        }
        let topic = Arc::new(Topic {
            name: Arc::from(name),
            ring: broadcast::Sender::new(broadcasts.max(1)),
            appended: AtomicU64::new(0),
            recent: Mutex::default(),
            present: Mutex::default(),
            all: Arc::downgrade(self),
        });
        topics.insert(Arc::clone(&topic.name), Arc::downgrade(&topic));
        topic
    }

    /// The topic, if somebody has joined it.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        let topics = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        topics.get(name)?.upgrade()
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        let Some(all) = self.all.upgrade() else {
            return;
        };
        let mut topics = all.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Another one may have taken its place.
        if topics
            .get(&self.name)
            .is_some_and(|topic| topic.strong_count() == 0)
        {
            topics.remove(&self.name);
        }
    }
}

impl Topic {
    pub(super) fn listen(&self) -> broadcast::Receiver<Arc<Local>> {
        self.ring.subscribe()
    }

    /// To all who listen, if there is anybody.
    pub(super) fn send(&self, kind: Kind, event: &str, payload: Payload) -> Arc<Local> {
        let local = Arc::new(Local {
            kind,
            event: event.to_owned(),
            payload,
            after: self.appended.load(Ordering::Acquire),
            encoded: Encoded::default(),
        });
        let _ = self.ring.send(Arc::clone(&local));
        local
    }

    /// Notes that a record was broadcast.
    pub(super) fn appended(&self, offset: Offset) {
        self.appended
            .fetch_max(offset.next().get(), Ordering::AcqRel);
    }

    /// The frame of a record, encoded once for all.
    pub(super) fn frame_of(
        &self,
        record: &Record,
        durable: &Durable,
        serializer: Serializer,
    ) -> Result<Frame, TooLong> {
        let recent = self.recent.lock();
        let encoded = recent.unwrap_or_else(PoisonError::into_inner).of(record);
        if let Some(frame) = encoded.get(serializer) {
            return Ok(frame);
        }
        let (event, payload) = durable.event_of(record);
        encoded.frame(serializer, &self.name, &event, &payload)
    }
}

/// For whom something in memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// For the clients of all channels but this one.
    Broadcast { from: Option<u64> },
    /// For their handlers.
    Info,
}

/// What is broadcast in memory.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) kind: Kind,
    pub(super) event: String,
    pub(super) payload: Payload,
    /// It comes behind the records before this offset.
    pub(super) after: u64,
    encoded: Encoded,
}

impl Local {
    pub(super) fn frame(&self, serializer: Serializer, topic: &str) -> Result<Frame, TooLong> {
        self.encoded
            .frame(serializer, topic, &self.event, &self.payload)
    }
}

/// The newest records of a topic, and their frames.
#[derive(Debug, Default)]
struct Recent {
    records: VecDeque<(Offset, usize, Arc<Encoded>)>,
    bytes: usize,
}

impl Recent {
    fn of(&mut self, record: &Record) -> Arc<Encoded> {
        let (offset, bytes) = (record.offset(), record.payload().len());
        let found = self.records.iter().rev().find(|(at, ..)| *at == offset);
        if let Some((.., encoded)) = found {
            return Arc::clone(encoded);
        }
        let encoded = Arc::new(Encoded::default());
        // Not for one who is catching up: others have these behind them.
        if self.records.back().is_none_or(|(last, ..)| *last < offset) {
            self.records
                .push_back((offset, bytes, Arc::clone(&encoded)));
            self.bytes += bytes;
            while self.records.len() > 1
                && (self.records.len() > ENCODED_RECORDS || self.bytes > ENCODED_BYTES)
            {
                let oldest = self.records.pop_front();
                self.bytes -= oldest.map_or(0, |(_, bytes, _)| bytes);
            }
        }
        encoded
    }
}

/// The frames of one broadcast, for each serializer that somebody has.
#[derive(Debug, Default)]
struct Encoded([OnceLock<Frame>; 3]);

impl Encoded {
    fn place(&self, serializer: Serializer) -> &OnceLock<Frame> {
        match serializer {
            Serializer::V1 => &self.0[0],
            Serializer::V2 => &self.0[1],
            Serializer::V2Text => &self.0[2],
        }
    }

    fn get(&self, serializer: Serializer) -> Option<Frame> {
        self.place(serializer).get().cloned()
    }

    fn frame(
        &self,
        serializer: Serializer,
        topic: &str,
        event: &str,
        payload: &Payload,
    ) -> Result<Frame, TooLong> {
        if let Some(frame) = self.get(serializer) {
            return Ok(frame);
        }
        let frame = wire::encode(
            serializer,
            &Outgoing::Broadcast {
                topic,
                event,
                payload,
            },
        )?;
        Ok(self.place(serializer).get_or_init(|| frame).clone())
    }
}
