//! The protocol's headers: their names, and what is asked for in them.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};

use crate::problem::Problem;

pub(crate) const NEXT_OFFSET: HeaderName = HeaderName::from_static("stream-next-offset");
pub(crate) const UP_TO_DATE: HeaderName = HeaderName::from_static("stream-up-to-date");
pub(crate) const CURSOR: HeaderName = HeaderName::from_static("stream-cursor");
pub(crate) const CLOSED: HeaderName = HeaderName::from_static("stream-closed");
pub(crate) const SEQ: HeaderName = HeaderName::from_static("stream-seq");
pub(crate) const TTL: HeaderName = HeaderName::from_static("stream-ttl");
pub(crate) const EXPIRES_AT: HeaderName = HeaderName::from_static("stream-expires-at");
pub(crate) const FORKED_FROM: HeaderName = HeaderName::from_static("stream-forked-from");
pub(crate) const FORK_OFFSET: HeaderName = HeaderName::from_static("stream-fork-offset");
pub(crate) const FORK_SUB_OFFSET: HeaderName = HeaderName::from_static("stream-fork-sub-offset");
pub(crate) const SSE_ENCODING: HeaderName = HeaderName::from_static("stream-sse-data-encoding");
pub(crate) const PRODUCER_ID: HeaderName = HeaderName::from_static("producer-id");
pub(crate) const PRODUCER_EPOCH: HeaderName = HeaderName::from_static("producer-epoch");
pub(crate) const PRODUCER_SEQ: HeaderName = HeaderName::from_static("producer-seq");
pub(crate) const EXPECTED_SEQ: HeaderName = HeaderName::from_static("producer-expected-seq");
pub(crate) const RECEIVED_SEQ: HeaderName = HeaderName::from_static("producer-received-seq");

/// The type of streams whose creator names none.
pub(crate) const TYPE_DEFAULT: &str = "application/octet-stream";

/// The longest text that is taken: some of it is kept in memory, and in the log.
const TEXT_BYTES_MAX: usize = 1024;

/// A header's text, where it was sent.
pub(crate) fn text<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if text.len() > TEXT_BYTES_MAX => Err(Problem::bad_request(format!(
            "{name} has at most {TEXT_BYTES_MAX} bytes, and this one {}",
            text.len()
        ))),
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Problem::bad_request(format!("{name} is not plain ASCII"))),
    }
}

/// Whether the stream is to be closed: a close counts only where it says `true`.
pub(crate) fn closes(headers: &HeaderMap) -> bool {
    let value = headers.get(&CLOSED);
    value.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// The content type that was sent, if any.
pub(crate) fn content_type(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let text = text(headers, &CONTENT_TYPE)?.map(str::trim);
    Ok(text.filter(|text| !text.is_empty()))
}

/// Whether two content types are one: their parameters and their case make no difference.
pub(crate) fn is_same_type(one: &str, other: &str) -> bool {
    essence(one).eq_ignore_ascii_case(essence(other))
}

pub(crate) fn is_json(content_type: &str) -> bool {
    is_same_type(content_type, "application/json")
}

/// Whether server-sent events can carry it as it is.
pub(crate) fn is_text(content_type: &str) -> bool {
    let essence = essence(content_type);
    is_json(essence)
        || essence
            .get(..5)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("text/"))
}

fn essence(content_type: &str) -> &str {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_bounded() {
        let of = |bytes: usize| {
            let mut headers = HeaderMap::new();
            headers.insert(SEQ, "x".repeat(bytes).parse().unwrap());
            text(&headers, &SEQ).map(|text| text.map(str::len))
        };
        assert_eq!(of(1024).unwrap(), Some(1024));
        assert!(of(1025).is_err());
    }

    #[test]
    fn parameters_and_case_make_no_other_type() {
        assert!(is_same_type("Text/Plain; charset=utf-8", "text/plain"));
        assert!(!is_same_type("text/plain", "text/html"));
        assert!(is_json("application/JSON;charset=utf-8"));
        assert!(is_text("TEXT/markdown") && is_text("application/json"));
        assert!(!is_text("application/octet-stream") && !is_text(""));
    }
}
