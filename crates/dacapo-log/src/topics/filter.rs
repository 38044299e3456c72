//! Which records a reader wants: those of some topics, or of all whose names begin in some way.

use crate::topic::Topic;

/// What is asked for; nothing asked for means every record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    topics: Vec<Topic>,
    /// None begins with another one.
    prefixes: Vec<String>,
}

impl Filter {
    pub(crate) fn add_topic(&mut self, topic: &Topic) {
        if !self.matches(topic.as_str().as_bytes()) {
            self.topics.push(topic.clone());
        }
    }

    pub(crate) fn add_prefix(&mut self, prefix: &str) {
        if !self.prefixes.iter().any(|known| prefix.starts_with(known)) {
            self.prefixes.retain(|known| !known.starts_with(prefix));
            self.topics
                .retain(|topic| !topic.as_str().starts_with(prefix));
            self.prefixes.push(prefix.to_owned());
        }
    }

    /// Those that no prefix takes in.
    pub(crate) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    pub(crate) fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Whether a record of this topic is wanted, if not every one is.
    pub(crate) fn matches(&self, topic: &[u8]) -> bool {
        let is_it = |known: &Topic| known.as_str().as_bytes() == topic;
        let begins = |prefix: &String| !topic.is_empty() && topic.starts_with(prefix.as_bytes());
        self.topics.iter().any(is_it) || self.prefixes.iter().any(begins)
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
        assert_eq!(filter.topics(), [topic("users")]);
        assert_eq!(filter.prefixes(), ["rooms:"]);
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
