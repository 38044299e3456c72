//! What a stream is, beside its data: the records of its control topic, and what they add up to.
//!
//! The newest record says all, or names the last one that did: docs/protocols/durable-streams.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lifetime::Lifetime;
use super::producer::{Claim, Newest};

/// A stream remembers so many producers, and then forgets the one that has been silent for longest.
pub(crate) const PRODUCERS_MAX: usize = 1000;

/// A record of a control topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// All there is to know.
    State(Box<State>),
    /// What an append, or a use, changes.
    Step(Step),
    /// The stream is no more.
    Deleted,
}

/// A change of a state, from the one that is stored in record `since` and the steps in between.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) producer: Option<Claim>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) closed: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) content_type: String,
    #[serde(default)]
    pub(crate) lifetime: Lifetime,
    /// Its own data stands behind this offset; `None` in the record that creates it, which is at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) closed: bool,
    /// The append that closed it, if a producer made that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) closed_by: Option<Claim>,
    /// The highest Stream-Seq.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<String>,
    #[serde(default, skip_serializing_if = "Producers::is_empty")]
    pub(crate) producers: Producers,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fork: Option<Fork>,
    /// How many forks of it there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) forks: u64,
    /// It was deleted, and its data is kept for its forks.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) gone: bool,
}

/// Where a fork comes from, and what it has from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fork {
    pub(crate) from: String,
    pub(crate) offset: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) sub_offset: u64,
    /// In the order of their offsets.
    pub(crate) parts: Vec<Part>,
}

/// Records of another stream's topic, from `from` to before `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) topic: String,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Of the last record, only so many bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_bytes: Option<u64>,
}

/// The newest append of each producer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Producers {
    by_id: BTreeMap<String, Heard>,
    /// How many appends they made: a clock.
    heard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Heard {
    #[serde(flatten)]
    newest: Newest,
    at: u64,
}

impl Producers {
    pub(crate) fn newest(&self, id: &str) -> Option<Newest> {
        self.by_id.get(id).map(|heard| heard.newest)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    fn note(&mut self, claim: &Claim) {
        self.heard += 1;
        let newest = Newest {
            epoch: claim.epoch,
            seq: claim.seq,
        };
        let at = self.heard;
        self.by_id.insert(claim.id.clone(), Heard { newest, at });
        if self.by_id.len() > PRODUCERS_MAX {
            let silent = self.by_id.iter().min_by_key(|(_, heard)| heard.at);
            let silent = silent.map(|(id, _)| id.clone());
            silent.map(|id| self.by_id.remove(&id));
        }
    }
}

impl State {
    /// A new one, of no data and no history.
    pub(crate) fn new(content_type: String, lifetime: Lifetime) -> Self {
        Self {
            content_type,
            lifetime,
            created: None,
            closed: false,
            closed_by: None,
            seq: None,
            producers: Producers::default(),
            fork: None,
            forks: 0,
            gone: false,
        }
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        if let Some(seq) = &step.seq {
            self.seq = Some(seq.clone());
        }
        if let Some(claim) = &step.producer {
            self.producers.note(claim);
        }
        if step.closed && !self.closed {
            self.closed = true;
            self.closed_by.clone_from(&step.producer);
        }
    }
}

impl Change {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers")
    }

    pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// Whether the stream is closed from here on.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Self::State(state) => state.closed,
            Self::Step(step) => step.closed,
            Self::Deleted => false,
        }
    }

    /// Whether the stream is not to be read any more.
    pub(crate) fn ends(&self) -> bool {
        match self {
            Self::State(state) => state.gone,
            Self::Step(_) => false,
            Self::Deleted => true,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: &str, seq: u64) -> Claim {
        Claim {
            id: id.to_owned(),
            epoch: 0,
            seq,
        }
    }

    fn append_of(id: &str, seq: u64) -> Step {
        Step {
            producer: Some(claim(id, seq)),
            ..Step::default()
        }
    }

    #[test]
    fn steps_add_up_to_a_state_and_only_the_first_close_counts() {
        let mut state = State::new("text/plain".to_owned(), Lifetime::Endless);
        state.apply(&append_of("a", 0));
        let mut closing = append_of("b", 3);
        closing.closed = true;
        closing.seq = Some("x".to_owned());
        state.apply(&closing);
        let mut again = append_of("a", 1);
        again.closed = true;
        state.apply(&again);

        assert_eq!(state.closed_by, Some(claim("b", 3)));
        assert_eq!(state.seq.as_deref(), Some("x"));
        assert_eq!(
            state.producers.newest("a"),
            Some(Newest { epoch: 0, seq: 1 })
        );
    }

    #[test]
    fn what_is_stored_is_read_again_and_stays_short() {
        let state = State::new("text/plain".to_owned(), Lifetime::TtlSeconds(9));
        let created = Change::State(Box::new(state));
        let bytes = created.to_bytes();
        let expected = r#"{"state":{"content_type":"text/plain","lifetime":{"ttl_seconds":9}}}"#;
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(Change::parse(&bytes).unwrap(), created);

        let step = Change::Step(append_of("a", 7));
        let bytes = step.to_bytes();
        let expected = r#"{"step":{"since":0,"producer":{"id":"a","epoch":0,"seq":7}}}"#;
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(Change::parse(&bytes).unwrap(), step);

        let deleted = Change::Deleted.to_bytes();
        assert_eq!(Change::parse(&deleted).unwrap(), Change::Deleted);
        assert!(Change::parse(b"hello").is_err());
    }

    #[test]
    fn the_producer_that_was_silent_for_longest_is_forgotten() {
        let mut state = State::new("text/plain".to_owned(), Lifetime::Endless);
        for number in 0..PRODUCERS_MAX {
            state.apply(&append_of(&format!("p{number}"), 0));
        }
        state.apply(&append_of("p0", 1));
        state.apply(&append_of("one more", 0));

        assert_eq!(state.producers.len(), PRODUCERS_MAX);
        assert!(state.producers.newest("p0").is_some());
        assert_eq!(state.producers.newest("p1"), None);
    }
}
