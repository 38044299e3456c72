//! `HEAD`: what a stream is, and where it ends.

use std::sync::Arc;

use axum::extract::{Path, State as Extract};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};

use super::lifetime::Lifetime;
use super::service::{Service, present};
use super::{headers, place};
use crate::problem::Problem;

pub(crate) async fn head(
    Extract(service): Extract<Arc<Service>>,
    Path(name): Path<String>,
) -> Result<HeaderMap, Problem> {
    let stream = service.open(&name).await?;
    let mut answer = HeaderMap::new();
    let end = {
        let mut slot = stream.lock();
        let present = present(&mut slot)?;
        let state = &present.state;
        let content_type = HeaderValue::try_from(&state.content_type);
        answer.insert(
            CONTENT_TYPE,
            content_type.map_err(|error| Problem::internal(&error))?,
        );
        answer.insert(headers::NEXT_OFFSET, place::header_of(present.tail));
        if state.closed {
            answer.insert(headers::CLOSED, HeaderValue::from_static("true"));
        }
        if let Lifetime::TtlSeconds(ttl) = state.lifetime {
            answer.insert(headers::TTL, HeaderValue::from(ttl));
        }
        let expires_at = state.lifetime.expires_at().map(HeaderValue::try_from);
        if let Some(Ok(expires_at)) = expires_at {
            answer.insert(headers::EXPIRES_AT, expires_at);
        }
        present.end
    };
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    service.settled(end).await?;
    Ok(answer)
}
