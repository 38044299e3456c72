//! How many records a topic keeps.

/// The newest records that are kept of each topic, by prefixes of their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicLimits {
    /// By length, the longest first.
    by_prefix: Vec<(String, u64)>,
}

impl TopicLimits {
    pub(crate) fn set(&mut self, prefix: &str, records: u64) {
        self.by_prefix.retain(|(known, _)| known != prefix);
        self.by_prefix.push((prefix.to_owned(), records));
        self.by_prefix
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
    }

    /// The limit of a topic: that of the longest prefix of its name.
    pub(crate) fn of(&self, name: &[u8]) -> Option<u64> {
        let mut limits = self.by_prefix.iter();
        let found = limits.find(|(prefix, _)| name.starts_with(prefix.as_bytes()))?;
        Some(found.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_counts() {
        let mut limits = TopicLimits::default();
        assert_eq!(limits.of(b"rooms:1"), None);
        limits.set("", 100);
        limits.set("rooms:", 5);
        limits.set("rooms:", 7);
        assert_eq!(limits.of(b"rooms:1"), Some(7));
        assert_eq!(limits.of(b"users"), Some(100));
    }
}
