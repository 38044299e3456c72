//! Which keys somebody subscribes to: a key without a subscription is not in here.
//!
//! What was sent to a key is in the log, and none of this module's business.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dacapo_log::{Offset, Topic};

use crate::channel::Shared;

#[derive(Debug)]
pub(super) struct Live {
    table: RwLock<Table>,
    /// The channel's, whose temporary directory stays for as long as somebody subscribes.
    _channel: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Table {
    keys: HashMap<Topic, Entry>,
    /// Of the subscriptions to prefixes: one for all of them, as they only end together.
    prefixes: Option<Entry>,
    subscriptions: usize,
}

/// There is one for as long as it has subscriptions.
#[derive(Debug)]
struct Entry {
    shared: Arc<Shared>,
    subscriptions: usize,
}

impl Entry {
    fn new() -> Self {
        Self {
            shared: Arc::new(Shared::new(None)),
            subscriptions: 0,
        }
    }
}

impl Live {
    pub(super) fn new(channel: Arc<Shared>) -> Self {
        Self {
            table: RwLock::default(),
            _channel: channel,
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topic of this name and how many subscribe to it, if anybody does.
    pub(super) fn find(&self, name: &str) -> Option<(Topic, usize)> {
        let table = self.read();
        let (topic, entry) = table.keys.get_key_value(name)?;
        Some((topic.clone(), entry.subscriptions))
    }

    /// All that were not ended.
    pub(super) fn subscriptions(&self) -> usize {
        self.read().subscriptions
    }

    /// One more subscription to `topic`, or, without one, to some prefix.
    pub(super) fn join(self: &Arc<Self>, topic: Option<Topic>) -> Membership {
        let mut table = self.write();
        let entry = match &topic {
            Some(topic) => table.keys.entry(topic.clone()).or_insert_with(Entry::new),
            None => table.prefixes.get_or_insert_with(Entry::new),
        };
        entry.subscriptions += 1;
        let shared = Arc::clone(&entry.shared);
        table.subscriptions += 1;
        Membership {
            live: Arc::clone(self),
            topic,
            shared,
        }
    }

    /// Ends the subscriptions to `topic`, before the offset that `end` says once nobody counts them any
    /// more, and returns how many there were.
    pub(super) fn remove(&self, topic: &Topic, end: impl FnOnce() -> Offset) -> usize {
        let mut table = self.write();
        let Some(entry) = table.keys.remove(topic) else {
            return 0;
        };
        table.subscriptions -= entry.subscriptions;
        table.shrink();
        drop(table);
        entry.shared.end_at(end());
        entry.subscriptions
    }

    /// Tells all subscriptions that nothing more will be sent.
    pub(super) fn close(&self) {
        let table = self.read();
        let all = table.keys.values().chain(&table.prefixes);
        let all: Vec<Arc<Shared>> = all.map(|entry| Arc::clone(&entry.shared)).collect();
        // A waker is code of the caller's.
        drop(table);
        for shared in all {
            shared.close();
        }
    }
}

impl Table {
    /// The entry that a subscription was counted in, unless its key was removed since: another one
    /// may have taken its place.
    fn entry_of(&mut self, membership: &Membership) -> Option<&mut Entry> {
        let entry = match &membership.topic {
            Some(topic) => self.keys.get_mut(topic),
            None => self.prefixes.as_mut(),
        };
        entry.filter(|entry| Arc::ptr_eq(&entry.shared, &membership.shared))
    }

    /// Gives back the memory of keys that are gone, when most are.
    fn shrink(&mut self) {
        if self.keys.len() < self.keys.capacity() / 4 {
            self.keys.shrink_to(self.keys.len() * 2);
        }
    }
}

/// A subscription's part in its key, for as long as it lives.
#[derive(Debug)]
pub(super) struct Membership {
    live: Arc<Live>,
    /// `None`: of a prefix.
    topic: Option<Topic>,
    pub(super) shared: Arc<Shared>,
}

impl Clone for Membership {
    fn clone(&self) -> Self {
        let mut table = self.live.write();
        if let Some(entry) = table.entry_of(self) {
            entry.subscriptions += 1;
            table.subscriptions += 1;
        }
        Self {
            live: Arc::clone(&self.live),
            topic: self.topic.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut table = self.live.write();
        let Some(entry) = table.entry_of(self) else {
            return;
        };
        entry.subscriptions -= 1;
        let is_last = entry.subscriptions == 0;
        table.subscriptions -= 1;
        if is_last {
            match &self.topic {
                Some(topic) => drop(table.keys.remove(topic)),
                None => table.prefixes = None,
            }
            table.shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> Arc<Live> {
        Arc::new(Live::new(Arc::new(Shared::new(None))))
    }

    fn join(live: &Arc<Live>, name: &str) -> Membership {
        live.join(Some(Topic::new(name).unwrap()))
    }

    #[test]
    fn an_entry_goes_with_its_last_subscription() {
        let live = live();
        let (one, other, prefix) = (join(&live, "a"), join(&live, "b"), live.join(None));
        let clone = one.clone();
        drop(one);
        assert_eq!(live.find("a").unwrap().1, 1);
        assert_eq!(live.subscriptions(), 3);
        drop(clone);
        assert!(live.find("a").is_none());
        drop((other, prefix));
        let table = live.read();
        assert!(table.keys.is_empty() && table.prefixes.is_none());
        assert_eq!(table.subscriptions, 0);
    }

    #[test]
    fn what_is_left_of_a_removed_entry_is_counted_in_no_other() {
        let live = live();
        let old = join(&live, "a");
        let topic = Topic::new("a").unwrap();
        assert_eq!(live.remove(&topic, || Offset::new(7)), 1);
        assert_eq!(live.remove(&topic, || Offset::new(9)), 0);
        assert_eq!(old.shared.end(), Offset::new(7));
        let new = join(&live, "a");
        drop((old.clone(), old));
        assert_eq!((live.find("a").unwrap().1, live.subscriptions()), (1, 1));
        assert_eq!(new.shared.end(), Offset::new(u64::MAX));
    }

    #[test]
    fn the_memory_of_keys_that_are_gone_is_given_back() {
        let live = live();
        let keys: Vec<_> = (0..1_000).map(|n| join(&live, &n.to_string())).collect();
        assert!(live.read().keys.capacity() >= 1_000);
        drop(keys);
        assert!(live.read().keys.capacity() < 10);
    }

    #[test]
    fn closing_tells_everybody() {
        let live = live();
        let all = [join(&live, "a"), join(&live, "b"), live.join(None)];
        live.close();
        assert!(all.iter().all(|membership| membership.shared.is_closed()));
    }
}
