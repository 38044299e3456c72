//! Which handler a topic belongs to.

/// The topics of a handler: one name, or all that begin with what stands before a `*` at the end.
#[derive(Clone, Debug)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// # Panics
    /// Where a `*` stands anywhere but at the end: the program is wrong.
    pub(crate) fn new(text: &str) -> Self {
        let inner = text.strip_suffix('*').unwrap_or(text);
        assert!(
            !inner.contains('*'),
            "the pattern {text:?} has a `*` that is not at its end; write a name, or a prefix and `*`"
        );
        Self(text.to_owned())
    }

    /// The part of the topic that the `*` stands for, empty for a name, if the topic is one of these.
    pub(crate) fn matched<'t>(&self, topic: &'t str) -> Option<&'t str> {
        match self.0.strip_suffix('*') {
            Some(prefix) => topic.strip_prefix(prefix),
            None => (topic == self.0).then_some(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_a_name_or_what_begins_with_its_prefix() {
        let rooms = Pattern::new("rooms:*");
        assert_eq!(rooms.matched("rooms:lobby"), Some("lobby"));
        assert_eq!(rooms.matched("rooms:a:b"), Some("a:b"));
        assert_eq!(rooms.matched("rooms:"), Some(""));
        assert_eq!(rooms.matched("room:lobby"), None);
        let lobby = Pattern::new("lobby");
        assert_eq!(lobby.matched("lobby"), Some(""));
        assert_eq!(lobby.matched("lobby:2"), None);
        assert_eq!(Pattern::new("*").matched("any"), Some("any"));
    }

    #[test]
    #[should_panic(expected = "not at its end")]
    fn a_star_in_the_middle_is_a_mistake_of_the_program() {
        Pattern::new("rooms:*:posts");
    }
}
