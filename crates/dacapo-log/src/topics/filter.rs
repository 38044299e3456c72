//! Which records a reader wants: those of some topics, or of all whose names begin in some way.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::topic::Topic;

/// What is asked for; nothing asked for means every record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    topics: BTreeSet<Topic>,
    /// None begins with another one.
    prefixes: BTreeSet<String>,
}

impl Filter {
    pub(crate) fn add_topic(&mut self, topic: &Topic) {
        if !self.matches(topic.as_str().as_bytes()) {
            self.topics.insert(topic.clone());
        }
    }

    pub(crate) fn add_prefix(&mut self, prefix: &str) {
        if self.has_prefix_of(prefix) {
            return;
        }
        let from = || (Bound::Included(prefix), Bound::Unbounded);
        let begins = |name: &&str| name.starts_with(prefix);
        let topics = self.topics.range::<str, _>(from()).map(Topic::as_str);
        let topics: Vec<String> = topics.take_while(begins).map(str::to_owned).collect();
        let prefixes = self.prefixes.range::<str, _>(from()).map(String::as_str);
        let prefixes: Vec<String> = prefixes.take_while(begins).map(str::to_owned).collect();
        for name in topics {
            self.topics.remove(name.as_str());
        }
        for name in prefixes {
            self.prefixes.remove(&name);
        }
        self.prefixes.insert(prefix.to_owned());
    }

    /// Those that no prefix takes in.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter()
    }

    pub(crate) fn prefixes(&self) -> impl ExactSizeIterator<Item = &String> {
        self.prefixes.iter()
    }

    /// Whether a name begins with one of the prefixes: it can only be the last one that is not behind
    /// the name, since none begins with another.
    fn has_prefix_of(&self, name: &str) -> bool {
        let up_to = (Bound::Unbounded, Bound::Included(name));
        let last = self.prefixes.range::<str, _>(up_to).next_back();
        last.is_some_and(|prefix| name.starts_with(prefix.as_str()))
    }

    /// Whether a prefix takes in a topic.
    pub(crate) fn takes_in(&self, topic: &[u8]) -> bool {
        let name = std::str::from_utf8(topic).ok();
        name.is_some_and(|name| !name.is_empty() && self.has_prefix_of(name))
    }

    /// Whether a record of this topic is wanted, if not every one is.
    pub(crate) fn matches(&self, topic: &[u8]) -> bool {
        let name = std::str::from_utf8(topic).ok();
        name.is_some_and(|name| {
            !name.is_empty() && (self.topics.contains(name) || self.has_prefix_of(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_twice_is_kept_once() {
        let topic = |name| Topic::new(name).unwrap();
        let mut filter = Filter::default();
        filter.add_topic(&topic("rooms:lobby"));
        filter.add_topic(&topic("users"));
        filter.add_topic(&topic("users"));
        filter.add_prefix("rooms:l");
        filter.add_prefix("rooms:");
        filter.add_prefix("rooms:kitchen");
        filter.add_topic(&topic("rooms:hall"));
        assert!(filter.topics().eq([&topic("users")]));
        assert!(filter.prefixes().eq(["rooms:"]));
        for (name, wanted) in [("users", true), ("users2", false), ("rooms:x", true)] {
            assert_eq!(filter.matches(name.as_bytes()), wanted, "{name}");
        }
    }

    #[test]
    fn the_empty_prefix_takes_in_every_topic_but_no_record_without_one() {
        let mut filter = Filter::default();
        filter.add_prefix("");
        assert!(filter.matches(b"x"));
        assert!(!filter.matches(b""));
    }
}
