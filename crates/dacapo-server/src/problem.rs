//! What a refused request is answered: a JSON problem document (RFC 9457) with the right status.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use dacapo_log::{AppendError, ReadError, SyncError};
use serde_json::json;

/// How long a client waits before it tries again what the server could not do, in seconds.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// A refused request: what it is answered.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// What it says to people.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Says more in a header.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// For now: the client may try the same again after a while.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with(RETRY_AFTER, RETRY_SECONDS)
    }

    /// Our fault, or the disk's. The details are for the server's log.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the server cannot read what it has stored; its log says more",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = (self.status, document.to_string()).into_response();
        let headers = response.headers_mut();
        headers.extend(self.headers);
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            AppendError::StorageFull { .. } => {
                tracing::error!(%error, "an append was refused");
                let detail = "the server's disk is full; nothing was stored";
                Self::new(StatusCode::INSUFFICIENT_STORAGE, detail).with(RETRY_AFTER, RETRY_SECONDS)
            }
            AppendError::Closed => Self::unavailable("the server is shutting down"),
            error => {
                tracing::error!(%error, "an append was refused");
                Self::unavailable("the server cannot store anything; its log says why")
            }
        }
    }
}

impl From<SyncError> for Problem {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Closed => Self::unavailable("the server is shutting down"),
            error => {
                tracing::error!(%error, "what was appended is not known to be durable");
                Self::unavailable("the server cannot make anything durable; its log says why")
            }
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::unavailable("the server is shutting down"),
            ReadError::Pruned { .. } => Self::new(
                StatusCode::GONE,
                "what was there was dropped; read from the start",
            ),
            error => Self::internal(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_shuts_down_asks_to_try_again() {
        let response = Problem::from(AppendError::Closed).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "5");
        let kind = &response.headers()[CONTENT_TYPE];
        assert_eq!(kind, "application/problem+json");
    }

    #[test]
    fn what_does_not_fit_a_segment_is_too_large() {
        let error = AppendError::TooLarge { bytes: 9, max: 8 };
        let response = Problem::from(error).into_response();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
