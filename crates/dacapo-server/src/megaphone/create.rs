//! `POST /create`, and `POST /channelsExists`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::body::{self, MaybeBytes};
use super::failure::{Code, Failure};
use super::service::{Created, Service};
use crate::auth::Right;

/// The only protocol that there is.
const NDJSON: &str = "HTTP_STREAM_NDJSON_V1";

#[derive(Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    protocols: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    /// The consumer's address, under the name that older clients know.
    channel_id: &'a str,
    producer_address: &'a str,
    consumer_address: &'a str,
    agent_name: &'a str,
    protocols: [&'static str; 1],
}

pub(crate) async fn create(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: MaybeBytes,
) -> Result<Response, Failure> {
    service.check_right(&headers, Right::Append)?;
    // Older clients send no body, and no type with it.
    let body = body?;
    let asked: Asked = match body.is_empty() {
        true => Asked::default(),
        false => body::parse(&body)?,
    };
    if !asked.protocols.is_empty() && !asked.protocols.iter().any(|asked| asked == NDJSON) {
        let message = "none of these protocols is supported; HTTP_STREAM_NDJSON_V1 is";
        return Err(Failure::new(Code::UnsupportedProtocol, message));
    }
    let Created {
        producer_address,
        consumer_address,
    } = service.create().await?;
    let answer = Answer {
        channel_id: &consumer_address,
        producer_address: &producer_address,
        consumer_address: &consumer_address,
        agent_name: &service.config.agent,
        protocols: [NDJSON],
    };
    Ok(body::answer(StatusCode::OK, &answer))
}

#[derive(Deserialize)]
struct Named {
    #[serde(alias = "channelIds")]
    channels: Vec<String>,
}

#[derive(Serialize)]
struct Existing<'a> {
    channels: BTreeMap<&'a str, bool>,
}

pub(crate) async fn exist(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: MaybeBytes,
) -> Result<Response, Failure> {
    let body = body::json_bytes(&headers, body)?;
    let named: Named = body::parse(&body)?;
    service.check_channels(named.channels.len())?;
    let channels = named.channels.iter();
    let channels = channels.map(|address| (address.as_str(), service.find(address).is_ok()));
    let existing = Existing {
        channels: channels.collect(),
    };
    Ok(body::answer(StatusCode::OK, &existing))
}
