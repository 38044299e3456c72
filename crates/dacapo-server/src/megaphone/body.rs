//! Bodies of requests: JSON, said to be, and no larger than allowed.

use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::failure::{Code, Failure};
use super::stored;

pub(crate) type MaybeBytes = Result<Bytes, BytesRejection>;

/// The body of a request that has to have one.
pub(crate) fn json_bytes(headers: &HeaderMap, body: MaybeBytes) -> Result<Bytes, Failure> {
    if !is_json(headers) {
        let message = "say `content-type: application/json`";
        return Err(Failure::new(Code::UnsupportedMediaType, message));
    }
    Ok(body?)
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("the body is not what is expected: {error}")))
}

/// `application/json`, or another type of JSON, with parameters or not.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let kind = value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let subtype = kind.strip_prefix("application/");
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// An answer in JSON.
pub(crate) fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    let body = stored::to_bytes(body);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_of_json_is_known_by_its_name() {
        let says = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value.parse().unwrap());
            is_json(&headers)
        };
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/x+json",
        ] {
            assert!(says(json), "{json}");
        }
        for other in ["text/plain", "application/jsonx", "text/json", "json", ""] {
            assert!(!says(other), "{other}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
