//! Who waits for records of some topics: an append wakes those concerned, and nobody else.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use event_listener::{Event, EventListener, Listener};
use hashbrown::HashTable;

use super::filter::Filter;
use crate::log::Shared;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, fence};
use crate::topic;

/// The tailers of topics and prefixes. One that has caught up costs a place in a table; a topic that
/// nobody tails costs nothing.
#[derive(Debug, Default)]
pub(crate) struct TopicWaiters {
    /// How many names and prefixes there are; read without the lock.
    registered: AtomicUsize,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    topics: HashTable<Key>,
    prefixes: HashTable<Key>,
    /// How many prefixes there are of each length.
    prefix_lengths: BTreeMap<usize, usize>,
}

/// A name, or a prefix, that somebody waits for.
#[derive(Debug)]
struct Key {
    name: Box<[u8]>,
    tailers: usize,
    bell: Arc<Event>,
}

impl TopicWaiters {
    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anybody to be told of records. After a fence that orders this look behind what
    /// they are told of.
    #[inline]
    pub(crate) fn are_there(&self) -> bool {
        self.registered.load(Relaxed) > 0
    }

    /// Wakes those who wait for records of a topic. Holds no lock while it does: a waker is code of
    /// the caller's.
    pub(crate) fn wake(&self, name: &[u8], name_hash: u64) {
        let keys = self.keys();
        let exact = find(&keys.topics, name, name_hash).map(|key| Arc::clone(&key.bell));
        let mut others = Vec::new();
        for &len in keys
            .prefix_lengths
            .keys()
            .take_while(|&&len| len <= name.len())
        {
            let prefix = &name[..len];
            let key = find(&keys.prefixes, prefix, topic::hash_of(prefix));
            others.extend(key.map(|key| Arc::clone(&key.bell)));
        }
        drop(keys);
        for bell in exact.iter().chain(&others) {
            bell.notify(usize::MAX);
        }
    }

    /// Wakes everybody, for another reason than a record.
    pub(crate) fn wake_all(&self) {
        if self.registered.load(Acquire) == 0 {
            return;
        }
        let keys = self.keys();
        let both = keys.topics.iter().chain(keys.prefixes.iter());
        let bells: Vec<Arc<Event>> = both.map(|key| Arc::clone(&key.bell)).collect();
        drop(keys);
        for bell in bells {
            bell.notify(usize::MAX);
        }
    }

    /// Whether anybody waits right now.
    pub(crate) fn are_waiting(&self) -> bool {
        let keys = self.keys();
        let mut both = keys.topics.iter().chain(keys.prefixes.iter());
        both.any(|key| key.bell.total_listeners() > 0)
    }

    /// Notes that somebody tails what the filter lets through.
    fn register(&self, filter: &Filter) -> Vec<Arc<Event>> {
        let mut keys = self.keys();
        let mut bells = Vec::new();
        for topic in filter.topics() {
            let name = topic.as_str().as_bytes();
            bells.push(keys.topics.enter(name, topic.name_hash()));
        }
        for prefix in filter.prefixes() {
            let name = prefix.as_bytes();
            bells.push(keys.prefixes.enter(name, topic::hash_of(name)));
            *keys.prefix_lengths.entry(name.len()).or_default() += 1;
        }
        let registered = keys.topics.len() + keys.prefixes.len();
        self.registered.store(registered, Release);
        bells
    }

    fn leave(&self, filter: &Filter) {
        let mut keys = self.keys();
        for topic in filter.topics() {
            keys.topics
                .leave(topic.as_str().as_bytes(), topic.name_hash());
        }
        for prefix in filter.prefixes() {
            let name = prefix.as_bytes();
            keys.prefixes.leave(name, topic::hash_of(name));
            if let Some(count) = keys.prefix_lengths.get_mut(&name.len()) {
                *count -= 1;
                if *count == 0 {
                    keys.prefix_lengths.remove(&name.len());
                }
            }
        }
        let registered = keys.topics.len() + keys.prefixes.len();
        self.registered.store(registered, Release);
    }
}

/// A tailer's place in the table, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Registration {
    shared: Arc<Shared>,
    durable_only: bool,
    filter: Filter,
    bells: Vec<Arc<Event>>,
}

impl Registration {
    pub(crate) fn new(shared: &Arc<Shared>, durable_only: bool, filter: &Filter) -> Self {
        Self {
            bells: shared.watermark(durable_only).topics().register(filter),
            shared: Arc::clone(shared),
            durable_only,
            filter: filter.clone(),
        }
    }

    /// Begins to listen; look again before waiting.
    pub(crate) fn listen(&self) -> TopicListener {
        let listeners = self.bells.iter().map(|bell| bell.listen()).collect();
        // Pairs with the fence before `TopicWaiters::are_there`, as that of `Watermark::moved`.
        fence(SeqCst);
        TopicListener { listeners }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let watermark = self.shared.watermark(self.durable_only);
        watermark.topics().leave(&self.filter);
    }
}

/// Waits for a record of any of some topics.
#[derive(Debug)]
pub(crate) struct TopicListener {
    listeners: Vec<EventListener>,
}

impl TopicListener {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let told = |listener: &mut EventListener| Pin::new(listener).poll(cx).is_ready();
        // All of them are asked: each has to know whom to wake.
        match self
            .listeners
            .iter_mut()
            .map(told)
            .fold(false, |any, one| any | one)
        {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Ends it without a word to others, who are told themselves.
    pub(crate) fn discard(self) {
        for listener in self.listeners {
            listener.discard();
        }
    }

    /// As [`poll`](Self::poll), blocking the thread, until `deadline` at the latest: whether it was told.
    pub(crate) fn wait(mut self, deadline: Option<Instant>) -> bool {
        if self.listeners.len() == 1
            && let Some(only) = self.listeners.pop()
        {
            return match deadline {
                Some(deadline) => only.wait_deadline(deadline).is_some(),
                None => {
                    only.wait();
                    true
                }
            };
        }
        let (parker, unparker) = parking::pair();
        let waker = unparker.into();
        loop {
            let told = self.poll(&mut Context::from_waker(&waker)).is_ready();
            if told || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.discard();
                return told;
            }
            match deadline {
                #[cfg(not(loom))]
                Some(deadline) => drop(parker.park_deadline(deadline)),
                // No time passes in a model.
                #[cfg(loom)]
                Some(_) => parker.park(),
                None => parker.park(),
            }
        }
    }
}

fn find<'a>(keys: &'a HashTable<Key>, name: &[u8], hash: u64) -> Option<&'a Key> {
    keys.find(hash, |key| *key.name == *name)
}

trait Register {
    fn enter(&mut self, name: &[u8], hash: u64) -> Arc<Event>;
    fn leave(&mut self, name: &[u8], hash: u64);
}

impl Register for HashTable<Key> {
    fn enter(&mut self, name: &[u8], hash: u64) -> Arc<Event> {
        let is_it = |key: &Key| *key.name == *name;
        let hash_of = |key: &Key| topic::hash_of(&key.name);
        let mut entry = self.entry(hash, is_it, hash_of).or_insert_with(|| Key {
            name: name.into(),
            tailers: 0,
            bell: Arc::new(Event::new()),
        });
        let key = entry.get_mut();
        key.tailers += 1;
        Arc::clone(&key.bell)
    }

    fn leave(&mut self, name: &[u8], hash: u64) {
        if let Ok(mut entry) = self.find_entry(hash, |key| *key.name == *name) {
            entry.get_mut().tailers -= 1;
            if entry.get().tailers == 0 {
                entry.remove();
            }
        }
    }
}
