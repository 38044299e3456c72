//! `GET /read/{consumer}`: the messages of a channel, a line each, until the read is over; and
//! `POST /ack/{consumer}/{eid}`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dacapo_log::{Offset, ReadError, Record, Start, Tailer};
use futures_core::Stream;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::address::ChannelId;
use super::body;
use super::channel::{From, ReadGuard};
use super::eid;
use super::failure::Failure;
use super::service::{self, Service};
use super::stored::{self, Message};

pub(crate) async fn read(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Failure> {
    // From here, however long it takes until somebody listens.
    let over = service::moment_in(service.config.read_duration);
    let Path(address) = path.map_err(|error| Failure::bad_request(error.body_text()))?;
    let Query(query) = query.map_err(|error| Failure::bad_request(error.body_text()))?;
    let channel = service.find_consumer(&address)?;
    let asked = Asked::parse(channel.id, &query)?;
    let (number, start) = channel.begin_read(&service.log, asked.from, over)?;
    let data = stored::data_topic(channel.id);
    let tailer = service.log.tail(Start::AtOrOldest(start));
    let reading = Reading {
        guard: ReadGuard::new(channel, number, service.log.clone()),
        tailer: tailer.topic(&data).durable_only(),
        next: start,
        is_explicit: asked.is_explicit,
        over: Box::pin(tokio::time::sleep_until(over)),
        shutdown: Box::pin(service.config.shutdown.clone().cancelled_owned()),
        service,
    };
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(reading)).into_response())
}

pub(crate) async fn acknowledge(
    State(service): State<Arc<Service>>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Failure> {
    let Path((address, eid)) = path.map_err(|error| Failure::bad_request(error.body_text()))?;
    let channel = service.find_consumer(&address)?;
    let offset = parse_eid(channel.id, &eid)?;
    if let Some(stored) = channel.acknowledge(&service.log, offset)? {
        service.log.durable(stored).await?;
    }
    Ok(body::answer(StatusCode::OK, &json!({"status": "OK"})))
}

/// What a read asks for.
struct Asked {
    from: From,
    is_explicit: bool,
}

impl Asked {
    fn parse(id: ChannelId, query: &[(String, String)]) -> Result<Self, Failure> {
        let mut asked = Self {
            from: From::Unread,
            is_explicit: false,
        };
        for (name, value) in query {
            match (name.as_str(), value.as_str()) {
                ("from", "oldest") => asked.from = From::Oldest,
                ("from", eid) => asked.from = From::At(parse_eid(id, eid)?),
                ("ack", "explicit") => asked.is_explicit = true,
                ("ack", _) => {
                    return Err(Failure::bad_request("ack can be `explicit`, or left out"));
                }
                _ => {}
            }
        }
        Ok(asked)
    }
}

fn parse_eid(id: ChannelId, text: &str) -> Result<Offset, Failure> {
    eid::decode(id, text).ok_or_else(|| {
        Failure::bad_request("this is no eid of the channel; say one of a message, as it was sent")
    })
}

/// The body of a read.
struct Reading {
    guard: ReadGuard,
    tailer: Tailer,
    /// All messages before this were delivered.
    next: Offset,
    /// Whether what is delivered is confirmed by acknowledgements only.
    is_explicit: bool,
    over: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    service: Arc<Service>,
}

impl Stream for Reading {
    type Item = Result<Bytes, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let reading = &mut *self;
        if reading.guard.is_over() {
            return Poll::Ready(None);
        }
        // Before a look at the messages: it ends on time, however many there are.
        let is_over = reading.over.as_mut().poll(cx).is_ready();
        if is_over || reading.shutdown.as_mut().poll(cx).is_ready() {
            return Poll::Ready(reading.end());
        }
        loop {
            match ready!(Pin::new(&mut reading.tailer).poll_next(cx)) {
                // The log was closed, or the channel deleted.
                None => return Poll::Ready(reading.end()),
                Some(Ok(record)) if record.is_deletion() => return Poll::Ready(reading.end()),
                Some(Ok(record)) => return Poll::Ready(Some(reading.deliver(&record))),
                Some(Err(error @ (ReadError::Pruned { .. } | ReadError::Lost { .. }))) => {
                    let channel = reading.guard.channel.id;
                    tracing::warn!(%channel, %error, "messages are gone before they were read");
                    reading.pass();
                }
                Some(Err(error)) => return Poll::Ready(Some(reading.break_off(error))),
            }
        }
    }
}

impl Reading {
    fn deliver(&mut self, record: &Record) -> Result<Bytes, io::Error> {
        match line(self.guard.channel.id, record) {
            Ok(_) if !self.guard.take(record.offset()) => self.break_off(Superseded),
            Ok(line) => {
                self.next = record.offset().next();
                self.service.metrics.messages_read.inc();
                Ok(line)
            }
            Err(error) => self.break_off(error),
        }
    }

    /// Goes on behind what is gone.
    fn pass(&mut self) {
        let next = self.tailer.next_offset();
        self.next = self.next.max(next);
        self.guard.pass(next);
    }

    /// Ends it as it should: what was delivered is confirmed when the client asks again, and it asks for
    /// what comes next.
    fn end(&mut self) -> Option<Result<Bytes, io::Error>> {
        self.guard.end((!self.is_explicit).then_some(self.next));
        None
    }

    /// The client sees a response that was cut off, and the log of the server says why.
    fn break_off(
        &mut self,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Result<Bytes, io::Error> {
        let channel = self.guard.channel.id;
        tracing::error!(%channel, %error, "a channel cannot be read");
        self.guard.end(None);
        Err(io::Error::other(error))
    }
}

/// The client has taken nothing until its read was over, and another one reads.
#[derive(Debug, thiserror::Error)]
#[error("its reader has let its time pass, and another one reads")]
struct Superseded;

#[derive(Serialize)]
struct Line<'a> {
    sid: &'a str,
    eid: &'a str,
    ts: Timestamp,
    body: &'a RawValue,
}

/// A message as it is sent: a whole line.
fn line(id: ChannelId, record: &Record) -> Result<Bytes, LineError> {
    let offset = record.offset();
    let message: Message<'_> = serde_json::from_slice(record.payload())
        .map_err(|source| LineError::Foreign { offset, source })?;
    let micros = i64::try_from(record.timestamp_micros()).unwrap_or(i64::MAX);
    let ts =
        Timestamp::from_microsecond(micros).map_err(|source| LineError::Time { offset, source })?;
    let mut line = stored::to_bytes(&Line {
        sid: &message.sid,
        eid: &eid::encode(id, offset),
        ts,
        body: message.body,
    });
    line.push(b'\n');
    Ok(line.into())
}

/// A record is no message.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error(
        "record {offset} is no message of a channel: {source}; topics that begin with `__mp/` are for this server only"
    )]
    Foreign {
        offset: Offset,
        source: serde_json::Error,
    },
    #[error("the time of record {offset} cannot be told: {source}")]
    Time { offset: Offset, source: jiff::Error },
}
