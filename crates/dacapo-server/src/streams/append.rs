//! `POST`: appends to a stream, closes it, or both at once.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dacapo_log::{Log, Offset};
use serde_json::value::RawValue;

use super::producer::{Claim, Verdict};
use super::service::{self, Service, present};
use super::state::Step;
use super::stream::{Present, Slot, Stream};
use super::{content, create, headers, place};
use crate::problem::Problem;

/// What is asked for.
struct Asked<'a> {
    content_type: Option<&'a str>,
    seq: Option<&'a str>,
    claim: Option<Claim>,
    closes: bool,
    has_body: bool,
    /// The body's, or why it has none that can be appended.
    messages: Result<Vec<&'a [u8]>, Problem>,
}

/// What became of it.
struct Appended {
    status: StatusCode,
    tail: Offset,
    is_closed: bool,
    /// Of a producer: its epoch, and the highest sequence that was accepted.
    producer: Option<(u64, u64)>,
}

pub(crate) async fn post(
    Extract(service): Extract<Arc<Service>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = create::received(body)?;
    let content_type = headers::content_type(&headers)?;
    let asked = Asked {
        content_type,
        seq: headers::text(&headers, &headers::SEQ)?,
        claim: Claim::of(&headers)?,
        closes: headers::closes(&headers),
        has_body: !body.is_empty(),
        messages: messages_of(content_type, &body),
    };
    let stream = service.open(&name).await?;
    let (appended, end) = {
        let mut slot = stream.lock();
        let present = present(&mut slot)?;
        let before = present.end;
        let appended = append(&service.log, &stream, present, asked);
        if present.end > before {
            service.config.metrics.appended(body.len());
        }
        (appended, present.end)
    };
    // Also before a refusal: what it rests on must not be undone.
    service.settled(end).await?;
    Ok(appended?.into_response())
}

/// One message that came by another way than `POST`.
pub(crate) fn record(service: &Service, name: &str, message: &[u8]) -> Result<Offset, Problem> {
    let stream = service.stream(name)?;
    service.refresh(&stream)?;
    let mut slot = stream.lock();
    let offset = match &mut *slot {
        Slot::Present(present) if present.state.gone => return Err(service::gone()),
        Slot::Present(present) => {
            let state = &present.state;
            if state.closed {
                return Err(Problem::conflict("the stream is closed"));
            }
            let is_json = headers::is_json(&state.content_type);
            if is_json && serde_json::from_slice::<&RawValue>(message).is_err() {
                return Err(Problem::conflict("the stream takes JSON, and this is none"));
            }
            present.append(&service.log, &stream, [message], None)?;
            Offset::new(present.tail.get() - 1)
        }
        Slot::Unread | Slot::Absent => service.log.append_to(&stream.data, message)?,
    };
    service.config.metrics.appended(message.len());
    Ok(offset)
}

fn messages_of<'a>(content_type: Option<&str>, body: &'a [u8]) -> Result<Vec<&'a [u8]>, Problem> {
    let messages = match content_type {
        _ if body.is_empty() => Vec::new(),
        Some(content_type) if headers::is_json(content_type) => content::json_messages(body)?,
        _ => vec![body],
    };
    match messages.is_empty() {
        true => Err(Problem::bad_request("the body holds nothing to append")),
        false => Ok(messages),
    }
}

fn append(
    log: &Log,
    stream: &Stream,
    present: &mut Present,
    asked: Asked<'_>,
) -> Result<Appended, Problem> {
    let only_closes = asked.closes && !asked.has_body;
    let state = &present.state;
    if state.closed {
        let is_repeated = match &asked.claim {
            Some(_) => asked.claim == state.closed_by,
            None => only_closes,
        };
        return match is_repeated {
            true => Ok(answer(
                present,
                StatusCode::NO_CONTENT,
                asked.claim.as_ref(),
            )),
            false => Err(Problem::conflict("the stream is closed")
                .with(headers::CLOSED, HeaderValue::from_static("true"))
                .with(headers::NEXT_OFFSET, place::header_of(present.tail))),
        };
    }
    let messages = match only_closes {
        true => Vec::new(),
        false => {
            check_type(asked.content_type, &state.content_type)?;
            asked.messages?
        }
    };
    if let Some(claim) = &asked.claim {
        let verdict = claim.judge(state.producers.newest(&claim.id));
        if verdict == Verdict::Repeated {
            return Ok(answer(present, StatusCode::NO_CONTENT, Some(claim)));
        }
        if let Some(refusal) = claim.refusal(&verdict) {
            return Err(refusal);
        }
    }
    check_seq(asked.seq, state.seq.as_deref())?;
    let has_step = asked.closes || asked.claim.is_some() || asked.seq.is_some();
    let step = has_step.then(|| Step {
        since: 0,
        seq: asked.seq.map(str::to_owned),
        producer: asked.claim.clone(),
        closed: asked.closes,
    });
    present.append(log, stream, messages, step)?;
    let status = match asked.claim {
        Some(_) if asked.has_body => StatusCode::OK,
        _ => StatusCode::NO_CONTENT,
    };
    Ok(answer(present, status, asked.claim.as_ref()))
}

fn answer(present: &Present, status: StatusCode, claim: Option<&Claim>) -> Appended {
    let newest = claim.and_then(|claim| present.state.producers.newest(&claim.id));
    Appended {
        status,
        tail: present.tail,
        is_closed: present.state.closed,
        producer: newest.map(|newest| (newest.epoch, newest.seq)),
    }
}

fn check_type(sent: Option<&str>, stored: &str) -> Result<(), Problem> {
    match sent {
        None => Err(Problem::bad_request("an append needs a Content-Type")),
        Some(sent) if headers::is_same_type(sent, stored) => Ok(()),
        Some(sent) => Err(Problem::conflict(format!(
            "the stream is of type {stored}, and not {sent}"
        ))),
    }
}

/// Byte by byte, each Stream-Seq is greater than the one before.
fn check_seq(sent: Option<&str>, highest: Option<&str>) -> Result<(), Problem> {
    match (sent, highest) {
        (Some(sent), Some(highest)) if sent <= highest => Err(Problem::conflict(format!(
            "Stream-Seq {sent:?} is not greater than {highest:?}, the last one"
        ))),
        _ => Ok(()),
    }
}

impl IntoResponse for Appended {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(headers::NEXT_OFFSET, place::header_of(self.tail));
        if self.is_closed {
            headers.insert(headers::CLOSED, HeaderValue::from_static("true"));
        }
        if let Some((epoch, seq)) = self.producer {
            headers.insert(headers::PRODUCER_EPOCH, HeaderValue::from(epoch));
            headers.insert(headers::PRODUCER_SEQ, HeaderValue::from(seq));
        }
        (self.status, headers).into_response()
    }
}
