//! How the faces behave, and who may use them.

use std::fmt;
use std::time::Duration;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq;

use crate::auth::{Denied, Right, Tokens};
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
    token: Option<String>,
    tokens: Option<(Tokens, String)>,
    pub(super) origins: Origins,
    pub(super) keep_alive_interval: Duration,
    pub(super) retry: Duration,
}

impl Default for RealtimeConfig {
    fn default() -> Self {
        Self {
            token: None,
            tokens: None,
            origins: Origins::default(),
            keep_alive_interval: Duration::from_secs(30),
            retry: Duration::from_secs(3),
        }
    }
}

impl RealtimeConfig {
    /// Lets in only those who say this token: in the header `authorization: Bearer`, or, because browsers
    /// cannot set that of an `EventSource` or a WebSocket, as `?access_token=`. Everybody by default.
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Lets in only those whose token may read `topic`; said as that of
    /// [`bearer_token`](Self::bearer_token), which does not count then.
    pub fn tokens(mut self, tokens: &Tokens, topic: impl Into<String>) -> Self {
        self.tokens = Some((tokens.clone(), topic.into()));
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

    /// Whether a request says a token that is good here, if it takes one.
    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        access_token: Option<&str>,
    ) -> Result<(), Denied> {
        let header = headers.get(AUTHORIZATION).and_then(bearer);
        let said = header.or(access_token.map(str::as_bytes));
        if let Some((tokens, topic)) = &self.tokens {
            return tokens.check(said, Right::Read, topic);
        }
        let Some(token) = &self.token else {
            return Ok(());
        };
        match said.is_some_and(|said| said.ct_eq(token.as_bytes()).into()) {
            true => Ok(()),
            false => Err(Denied::Unknown),
        }
    }
}

fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Without the token.
impl fmt::Debug for RealtimeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RealtimeConfig")
            .field(
                "has_token",
                &(self.token.is_some() || self.tokens.is_some()),
            )
            .field("origins", &self.origins)
            .field("keep_alive_interval", &self.keep_alive_interval)
            .field("retry", &self.retry)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|&(name, value)| {
            let name = name.parse().unwrap();
            (name, HeaderValue::from_static(value))
        });
        pairs.collect()
    }

    #[test]
    fn the_token_is_said_by_header_or_by_query_and_the_header_counts() {
        let config = RealtimeConfig::default().bearer_token("tea");
        let unknown = Err(Denied::Unknown);
        let says = |value| headers(&[("authorization", value)]);
        assert_eq!(config.check(&says("Bearer tea"), None), Ok(()));
        assert_eq!(config.check(&says("bearer tea"), None), Ok(()));
        assert_eq!(config.check(&headers(&[]), Some("tea")), Ok(()));
        for wrong in [
            "Bearer te",
            "Bearer tea ",
            "Bearer ",
            "Basic tea",
            "tea",
            "",
        ] {
            assert_eq!(config.check(&says(wrong), None), unknown, "{wrong:?}");
        }
        assert_eq!(config.check(&says("Bearer milk"), Some("tea")), unknown);
        assert_eq!(config.check(&headers(&[]), Some("milk")), unknown);
        assert_eq!(config.check(&headers(&[]), None), unknown);
        assert_eq!(RealtimeConfig::default().check(&headers(&[]), None), Ok(()));
    }

    #[test]
    fn a_token_is_not_printed() {
        let config = RealtimeConfig::default().bearer_token("tea");
        assert!(!format!("{config:?}").contains("tea"));
    }
}
