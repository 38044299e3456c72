//! `POST /v1/url-tokens`: a token for a URL, for who may do all that it allows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{RequestExt, Router};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Authorizer, Right};
use crate::problem::Problem;

/// How long a token is good that does not say how long.
const SECONDS: u64 = 60;

const BODY_BYTES_MAX: usize = 4 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    topic: String,
    #[serde(default = "reading")]
    rights: Vec<Right>,
    #[serde(default = "seconds")]
    seconds: u64,
}

#[derive(Serialize)]
struct Issued {
    token: String,
    expires_at: Timestamp,
}

fn reading() -> Vec<Right> {
    vec![Right::Read]
}

fn seconds() -> u64 {
    SECONDS
}

impl Authorizer {
    /// A router of one path, `POST /v1/url-tokens`: `{"topic":"rooms/a","rights":["read"],"seconds":60}`
    /// yields `{"token":"..","expires_at":".."}`, for who may do all that the token allows. It is for
    /// `?access_token=`, and yields no further token. Without rights it allows to read, and without
    /// seconds it is good for a minute; it never outlives the token that it was asked for with.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/url-tokens", post(issue))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(self.clone())
    }
}

async fn issue(State(auth): State<Authorizer>, mut request: Request) -> Result<Response, Problem> {
    let identity = auth.identify_request(&mut request)?;
    if identity.is_by_url {
        let detail = "a token for a URL yields no further one";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    let body: Result<Bytes, BytesRejection> = request.extract().await;
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let wanted: Wanted = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body is no `{{\"topic\":..,\"rights\":[..],\"seconds\":..}}`: {error}"
        ))
    })?;
    let seconds_max = auth.inner.config.url_token_max.as_secs();
    if !(1..=seconds_max).contains(&wanted.seconds) {
        let detail = format!("a token for a URL is good for 1 to {seconds_max} seconds");
        return Err(Problem::bad_request(detail));
    }
    if wanted.rights.is_empty() || wanted.rights.contains(&Right::Admin) {
        let detail = "the rights of a token for a URL are `read`, `append`, or both";
        return Err(Problem::bad_request(detail));
    }
    if wanted.topic.is_empty() {
        return Err(Problem::bad_request("the topic has no name"));
    }
    for right in &wanted.rights {
        identity.may(*right, &wanted.topic)?;
    }
    let expires = SystemTime::now() + Duration::from_secs(wanted.seconds);
    let expires = identity.expires().map_or(expires, |own| own.min(expires));
    let (topic, client) = (&wanted.topic, identity.client());
    let token = auth.sign(topic, &wanted.rights, client, expires);
    let token = token.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "this server has no keys for tokens for URLs",
        )
    })?;
    let seconds = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires_at = Timestamp::from_second(seconds.as_secs().cast_signed());
    let issued = Issued {
        token,
        expires_at: expires_at.map_err(|error| Problem::internal(&error))?,
    };
    let body = serde_json::to_string(&issued).expect("texts");
    let mut response = (StatusCode::CREATED, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
