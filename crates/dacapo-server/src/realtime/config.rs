//! How the faces behave, and who may use them.

use std::fmt;
use std::time::Duration;

use axum::http::request::Parts;

use crate::auth::{Authorizer, Denied, Grants, Identity, Right};
use crate::limits::{RateLimits, Subscriptions};
use crate::origins::Origins;

/// Options of the realtime faces, for [`router`](super::router()).
///
/// ```
/// use dacapo_server::realtime::RealtimeConfig;
///
/// let config = RealtimeConfig::default()
///     .bearer_token("a long random text")
///     .allow_origin("https://app.example");
/// ```
#[derive(Clone)]
#[must_use]
pub struct RealtimeConfig {
    /// Who may read which topic.
    auth: Option<(Authorizer, String)>,
    pub(super) rate: Option<RateLimits>,
    pub(super) subscriptions: Subscriptions,
    pub(super) origins: Origins,
    pub(super) keep_alive_interval: Duration,
    pub(super) retry: Duration,
}

impl Default for RealtimeConfig {
    fn default() -> Self {
        Self {
            auth: None,
            rate: None,
            subscriptions: Subscriptions::default(),
            origins: Origins::default(),
            keep_alive_interval: Duration::from_secs(30),
            retry: Duration::from_secs(3),
        }
    }
}

impl RealtimeConfig {
    /// Lets in only those who say this token: in the header `authorization: Bearer`, or, because browsers
    /// cannot set that of an `EventSource` or a WebSocket, as `?access_token=`. Everybody by default.
    pub fn bearer_token(self, token: impl Into<String>) -> Self {
        self.auth(Authorizer::of_token(token, Grants::all()), "")
    }

    /// Lets in only those who may read `topic`; with an empty one, all topics. A stream ends when the token
    /// that it was asked for with expires.
    pub fn auth(mut self, auth: Authorizer, topic: impl Into<String>) -> Self {
        self.auth = Some((auth, topic.into()));
        self
    }

    /// Lets each client connect no more often; as often as it likes by default.
    pub fn rate(mut self, rate: RateLimits) -> Self {
        self.rate = Some(rate);
        self
    }

    /// Lets no more follow at once, with those of other faces that share it; 503 beyond that. As many as
    /// there are connections by default.
    pub fn subscriptions(mut self, subscriptions: Subscriptions) -> Self {
        self.subscriptions = subscriptions;
        self
    }

    /// Lets pages of this origin in, as `https://app.example`; by default those of `localhost`, of its
    /// addresses, and of the server's own host. Others than browsers say no origin, and are let in.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.origins = self.origins.allow(origin);
        self
    }

    /// Lets pages of these origins in, and no others.
    pub fn origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// After this long without an event, a client of server-sent events gets a comment, and one of a
    /// WebSocket a ping; a WebSocket that has not answered by the next one is closed. 30 seconds by
    /// default.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = interval;
        self
    }

    /// How long clients of server-sent events wait before they connect again; 3 seconds by default.
    pub fn retry(mut self, after: Duration) -> Self {
        self.retry = after;
        self
    }

    /// Whose request this is, if it says a token that is good here; `None` where none is asked for.
    pub(super) fn check(&self, parts: &Parts) -> Result<Option<Identity>, Denied> {
        let Some((auth, topic)) = &self.auth else {
            return Ok(None);
        };
        let identity = auth.identify_parts(parts)?;
        identity.may(Right::Read, topic)?;
        Ok(Some(identity))
    }

    pub(super) fn authorizer(&self) -> Option<&Authorizer> {
        self.auth.as_ref().map(|(auth, _)| auth)
    }
}

/// Without the token.
impl fmt::Debug for RealtimeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealtimeConfig")
            .field("has_token", &self.auth.is_some())
            .field("origins", &self.origins)
            .field("keep_alive_interval", &self.keep_alive_interval)
            .field("retry", &self.retry)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_printed() {
        let config = RealtimeConfig::default().bearer_token("tea");
        assert!(!format!("{config:?}").contains("tea"));
    }
}
