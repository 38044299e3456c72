//! What a record is about: a label, parsed once and cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use crate::error::TopicError;
use crate::format;

/// One for the whole process, so that a topic's hash is computed once. Its keys are random: names come
/// from clients, who must not be able to choose names that collide.
static HASHES: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// The hash of a topic's name, as a [`Topic`] keeps it.
pub(crate) fn hash_of(name: &[u8]) -> u64 {
    HASHES.hash_one(name)
}

/// The label of a record, by which it can be replayed and tailed without reading the others.
///
/// 1 to 255 bytes of UTF-8, of any form; colons between parts, as in `rooms:lobby`, make prefixes
/// that can be read together. Parsed once, and cheap to clone. A topic exists while there are records
/// of it: there is nothing to create, and an idle one costs nothing.
///
/// ```
/// use dacapo_log::Topic;
///
/// let lobby = Topic::new("rooms:lobby")?;
/// assert_eq!(lobby.as_str(), "rooms:lobby");
/// assert!(Topic::new("").is_err());
/// # Ok::<(), dacapo_log::TopicError>(())
/// ```
#[derive(Clone)]
pub struct Topic {
    hash: u64,
    name: Arc<str>,
}

impl Topic {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = format::TOPIC_BYTES_MAX;

    /// Parses a name.
    ///
    /// # Errors
    /// [`TopicError`] where it is empty, or longer than [`BYTES_MAX`](Self::BYTES_MAX).
    pub fn new(name: impl AsRef<str>) -> Result<Self, TopicError> {
        let name = name.as_ref();
        match name.len() {
            0 => Err(TopicError::Empty),
            1..=Self::BYTES_MAX => Ok(Self {
                hash: hash_of(name.as_bytes()),
                name: Arc::from(name),
            }),
            bytes => Err(TopicError::TooLong { bytes }),
        }
    }

    /// The name.
    #[must_use]
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    #[inline]
    pub(crate) fn name_hash(&self) -> u64 {
        self.hash
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(name: &str) -> Result<Self, TopicError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for Topic {
    type Error = TopicError;

    fn try_from(name: &str) -> Result<Self, TopicError> {
        Self::new(name)
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.name, &other.name) || self.hash == other.hash && self.name == other.name
    }
}

impl Eq for Topic {}

impl PartialOrd for Topic {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Topic {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

/// As the name hashes: a map of topics can be asked with a `&str`.
impl Hash for Topic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.name
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_equal_to_another_of_its_name() {
        let (one, other) = (Topic::new("a").unwrap(), Topic::new("a").unwrap());
        assert_eq!(one, other);
        assert_eq!(one.name_hash(), hash_of(b"a"));
        assert_ne!(one, Topic::new("b").unwrap());
    }

    #[test]
    fn a_name_of_no_or_too_many_bytes_is_refused() {
        assert_eq!(Topic::new("").unwrap_err(), TopicError::Empty);
        let (longest, longer) = ("ü".repeat(127) + "x", "x".repeat(256));
        assert_eq!(Topic::new(&longest).unwrap().as_str(), longest);
        let refused = Topic::new(longer).unwrap_err();
        assert_eq!(refused, TopicError::TooLong { bytes: 256 });
    }
}
