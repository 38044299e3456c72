//! What a refused request is answered: `{"code","message"}`, with a status that can be configured.

use std::borrow::Cow;

use axum::extract::rejection::BytesRejection;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use dacapo_log::{AppendError, ReadError, SyncError};
use serde_json::json;

use super::address::AddressError;
use super::config::Statuses;

/// What kind of refusal it is: `code` in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    BadRequest,
    UnsupportedProtocol,
    Unauthorized,
    Forbidden,
    NotFound,
    Busy,
    Gone,
    PayloadTooLarge,
    UnsupportedMediaType,
    TooManyRequests,
    TooManyChannels,
    Internal,
    Timeout,
    Unavailable,
}

#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    message: Cow<'static, str>,
}

impl Code {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::UnsupportedProtocol => "UNSUPPORTED_PROTOCOL",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::Busy => "BUSY",
            Self::Gone => "GONE",
            Self::PayloadTooLarge => "PAYLOAD_TOO_LARGE",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::TooManyRequests => "TOO_MANY_REQUESTS",
            Self::TooManyChannels => "TOO_MANY_CHANNELS",
            Self::Internal => "INTERNAL_ERROR",
            Self::Timeout => "TIMEOUT",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    pub(crate) fn status(self, statuses: &Statuses) -> StatusCode {
        match self {
            Self::BadRequest => statuses.bad_request,
            Self::UnsupportedProtocol => statuses.unsupported_protocol,
            Self::Unauthorized => statuses.unauthorized,
            Self::Forbidden => statuses.forbidden,
            Self::NotFound => statuses.not_found,
            Self::Busy => statuses.busy,
            Self::Gone => statuses.gone,
            Self::PayloadTooLarge => statuses.payload_too_large,
            Self::UnsupportedMediaType => statuses.unsupported_media_type,
            Self::TooManyRequests => statuses.too_many_requests,
            Self::TooManyChannels => statuses.too_many_channels,
            Self::Internal => statuses.internal,
            Self::Timeout => statuses.timeout,
            Self::Unavailable => statuses.unavailable,
        }
    }
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    pub(crate) fn no_such_channel() -> Self {
        Self::new(
            Code::NotFound,
            "there is no such channel, or it is gone; create another",
        )
    }

    /// Our fault, or the disk's. The details are for the server's log.
    pub(crate) fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(
            Code::Internal,
            "the server cannot read what it has stored; its log says more",
        )
    }

    fn response(&self, statuses: &Statuses) -> Response {
        let body = json!({"code": self.code.name(), "message": self.message}).to_string();
        let status = self.code.status(statuses);
        let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
        if matches!(self.code, Code::TooManyRequests | Code::Unavailable) {
            let seconds = HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        if self.code == Code::Unauthorized {
            let challenge = HeaderValue::from_static("Bearer realm=\"dacapo\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::Malformed => {
                Self::bad_request("this is no address; use one that /create has returned, as it is")
            }
            // As of a channel that is gone: who guesses learns nothing.
            AddressError::Foreign => Self::no_such_channel(),
        }
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(
                Code::PayloadTooLarge,
                "the body is larger than this server takes",
            ),
            _ => Self::bad_request(rejection.body_text()),
        }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::TooLarge { .. } => Self::new(Code::PayloadTooLarge, error.to_string()),
            AppendError::Closed => Self::new(Code::Unavailable, "the server is shutting down"),
            error => {
                tracing::error!(%error, "an append was refused");
                let message = "the server cannot store anything; its log says why";
                Self::new(Code::Unavailable, message)
            }
        }
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Closed => Self::new(Code::Unavailable, "the server is shutting down"),
            error => {
                tracing::error!(%error, "what was appended is not known to be durable");
                let message = "the server cannot make anything durable; its log says why";
                Self::new(Code::Unavailable, message)
            }
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::new(Code::Unavailable, "the server is shutting down"),
            error => Self::internal(&error),
        }
    }
}

/// Put into words by [`render`], which knows the configured statuses.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.code.status(&Statuses::default()).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives the answer to a refused request its body and its configured status.
pub(crate) fn render(response: Response, statuses: &Statuses) -> Response {
    match response.extensions().get::<Failure>() {
        Some(failure) => failure.response(statuses),
        None => response,
    }
}
