//! The names that no client may use: topics in which servers keep their own records.

/// What they begin with. They are left alone whichever faces are served: the next start may have others.
pub(crate) const PREFIX: &str = "__";

/// Whether a topic is a server's own, which no client reads or appends to by its name.
pub(crate) fn is_reserved(topic: &str) -> bool {
    topic.starts_with(PREFIX)
}
