//! The header by which a client of SSE says what it has seen.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use dacapo::Start;

use crate::resume;

/// The id of the last event that the client has seen, which it sends when it comes back; `None` where it
/// is new. As an extractor it never fails.
///
/// ```
/// use dacapo::{Offset, Start};
/// use dacapo_server::LastEventId;
///
/// assert_eq!(LastEventId(Some("41".into())).start(), Start::AtOrOldest(Offset::new(42)));
/// assert_eq!(LastEventId(None).start(), Start::Latest);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastEventId(pub Option<String>);

impl LastEventId {
    /// Where to go on: behind that event, or live only. See [`resume::start_of`].
    #[must_use]
    pub fn start(&self) -> Start {
        resume::start_of(self.0.as_deref())
    }
}

impl<S: Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let value = parts.headers.get("last-event-id");
        let text = value.and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        Ok(Self(text.filter(|id| !id.is_empty()).map(str::to_owned)))
    }
}
