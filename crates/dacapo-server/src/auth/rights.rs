//! What somebody may do, and with which topics.

use serde::{Deserialize, Serialize};

use crate::reserved::is_reserved;

/// What can be done with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Right {
    /// Read it: catch up, follow, and see that it is there.
    Read,
    /// Append to it; creating and closing it as well.
    Append,
    /// All of that, and deleting it.
    Admin,
}

/// Rights in one topic, or in all whose names begin alike.
///
/// ```
/// use dacapo_server::auth::{Grant, Grants, Right};
///
/// let grants = Grants::from([
///     Grant::of_prefix("rooms/", [Right::Read]),
///     Grant::of_topic("inbox", [Right::Append]),
/// ]);
/// assert!(grants.allow(Right::Read, "rooms/a"));
/// assert!(!grants.allow(Right::Append, "rooms/a"));
/// assert!(grants.allow(Right::Append, "inbox"));
/// assert!(!grants.allow(Right::Append, "inbox/2"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Claim")]
pub struct Grant {
    rights: Vec<Right>,
    scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    Prefix(String),
    Topic(String),
}

/// A grant as tokens say it: `{"rights":["read"],"prefix":"rooms/"}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    rights: Vec<Right>,
    prefix: Option<String>,
    topic: Option<String>,
}

impl TryFrom<Claim> for Grant {
    type Error = &'static str;

    fn try_from(claim: Claim) -> Result<Self, Self::Error> {
        match (claim.prefix, claim.topic) {
            (Some(_), Some(_)) => Err("a grant has a prefix or a topic, and not both"),
            (None, Some(topic)) => Ok(Self::of_topic(topic, claim.rights)),
            (prefix, None) => Ok(Self::of_prefix(prefix.unwrap_or_default(), claim.rights)),
        }
    }
}

impl Grant {
    /// Rights in all topics whose names begin with `prefix`; in all there are, where it is empty.
    #[must_use]
    pub fn of_prefix(prefix: impl Into<String>, rights: impl IntoIterator<Item = Right>) -> Self {
        Self {
            rights: rights.into_iter().collect(),
            scope: Scope::Prefix(prefix.into()),
        }
    }

    /// Rights in the one topic of this name.
    #[must_use]
    pub fn of_topic(topic: impl Into<String>, rights: impl IntoIterator<Item = Right>) -> Self {
        Self {
            rights: rights.into_iter().collect(),
            scope: Scope::Topic(topic.into()),
        }
    }

    fn allows(&self, right: Right, topic: &str) -> bool {
        let is_granted = self.rights.contains(&right) || self.rights.contains(&Right::Admin);
        is_granted
            && match &self.scope {
                Scope::Prefix(prefix) => topic.starts_with(prefix),
                Scope::Topic(name) => !name.is_empty() && name == topic,
            }
    }
}

/// All that somebody may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// Everything, in all topics.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![Grant::of_prefix("", [Right::Admin])])
    }

    /// Whether this is allowed with `topic`. With an empty one, whether it is with all topics.
    ///
    /// Topics whose names begin with `__` are the server's own, with which nobody may do anything.
    #[must_use]
    pub fn allow(&self, right: Right, topic: &str) -> bool {
        !is_reserved(topic) && self.0.iter().any(|grant| grant.allows(right, topic))
    }

    pub(super) fn add(&mut self, grant: Grant) {
        self.0.push(grant);
    }
}

impl<const N: usize> From<[Grant; N]> for Grants {
    fn from(grants: [Grant; N]) -> Self {
        Self(grants.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_of_one_topic_reaches_no_other_and_not_all() {
        let grants = Grants::from([Grant::of_topic("a", [Right::Admin])]);
        assert!(grants.allow(Right::Append, "a"));
        for other in ["", "ab", "b"] {
            assert!(!grants.allow(Right::Read, other), "{other}");
        }
        let none = Grants::from([Grant::of_topic("", [Right::Admin])]);
        assert!(!none.allow(Right::Read, ""));
    }

    #[test]
    fn the_topics_of_the_server_are_nobodys() {
        assert!(Grants::all().allow(Right::Admin, "_a"));
        for right in [Right::Read, Right::Append, Right::Admin] {
            assert!(!Grants::all().allow(right, "__ds/a"), "{right:?}");
        }
    }

    #[test]
    fn a_claim_that_says_something_else_is_none() {
        let parse = |text| serde_json::from_str::<Grants>(text);
        let grants = parse(r#"[{"rights":["read"],"prefix":"a/"},{"rights":["append"]}]"#).unwrap();
        assert!(grants.allow(Right::Append, "b") && !grants.allow(Right::Read, "b"));
        for wrong in [
            r#"[{"rights":["write"]}]"#,
            r#"[{"rights":["read"],"prefx":"a/"}]"#,
            r#"[{"rights":["read"],"prefix":"a","topic":"b"}]"#,
            r#"[{"prefix":"a/"}]"#,
            r#"{"rights":["read"]}"#,
            r#""admin""#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
