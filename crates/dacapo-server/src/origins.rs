//! Whose web pages may use what browsers let any page use: WebSockets, for one.

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};

/// The origins of the pages that are let in: those of `localhost`, of its addresses, of the server's own
/// host, and others that are named. Others than browsers say no origin, and are let in.
///
/// ```
/// use axum::http::{HeaderMap, HeaderValue};
/// use dacapo_server::origins::Origins;
///
/// let origins = Origins::default().allow("https://app.example");
/// let mut headers = HeaderMap::new();
/// assert!(origins.let_in(&headers));
/// headers.insert("origin", HeaderValue::from_static("https://app.example"));
/// assert!(origins.let_in(&headers));
/// headers.insert("origin", HeaderValue::from_static("https://other.example"));
/// assert!(!origins.let_in(&headers));
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Origins {
    is_any: bool,
    named: Vec<String>,
}

impl Origins {
    /// All there are.
    pub fn any() -> Self {
        Self {
            is_any: true,
            named: Vec::new(),
        }
    }

    /// This one too, as `https://app.example`.
    pub fn allow(mut self, origin: impl Into<String>) -> Self {
        self.named.push(origin.into());
        self
    }

    /// Whether the page that makes a request is let in, if a page does.
    #[must_use]
    pub fn let_in(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(ORIGIN) else {
            return true;
        };
        let host = headers.get(HOST).map(HeaderValue::as_bytes);
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| Some(origin.split_once("://")?.1));
        self.allows(origin) || (host.is_some() && own.map(str::as_bytes) == host)
    }

    /// Whether pages of this origin are let in, wherever the server is.
    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        self.is_any
            || origin.to_str().is_ok_and(|origin| {
                self.named.iter().any(|named| named == origin) || is_local(origin)
            })
    }
}

/// Whether an origin is of this machine, at any port.
fn is_local(origin: &str) -> bool {
    let host = origin.strip_prefix("http://");
    let Some(host) = host.or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| {
        let port = host.strip_prefix(local);
        port.is_some_and(|port| port.is_empty() || port.starts_with(':'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_this_machine_of_the_same_host_and_of_those_named_are_let_in() {
        let origins = Origins::default().allow("https://app.example");
        let from = |origin| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            headers.insert(HOST, HeaderValue::from_static("api.example:3000"));
            headers
        };
        for origin in [
            "http://localhost",
            "http://localhost:5173",
            "https://127.0.0.1:8443",
            "http://[::1]:80",
            "https://app.example",
            "http://api.example:3000",
        ] {
            assert!(origins.let_in(&from(origin)), "{origin}");
        }
        for origin in [
            "http://localhost.evil.example",
            "http://evil.example",
            "http://app.example",
            "http://api.example",
            "null",
            "file://localhost",
        ] {
            assert!(!origins.let_in(&from(origin)), "{origin}");
            assert!(Origins::any().let_in(&from(origin)), "{origin}");
        }
    }
}
