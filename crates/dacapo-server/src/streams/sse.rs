//! `live=sse`: a stream as server-sent events.
//!
//! Each piece of data is an event `data`, followed by an event `control` that says where the stream
//! then goes on. Both have that place as `id:`, so that an `EventSource` that comes back by itself
//! misses nothing.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{Instant, Sleep};

use super::read::Reading;
use super::reader::{self, Page, Reader};
use super::service::Service;
use super::{cursor, headers, place};
use crate::auth::Identity;
use crate::limits::Subscribed;
use crate::metrics::Counted;
use crate::problem::Problem;
use crate::sse::with_unix_lines;

/// What stands around the data of one page, unless it has many lines.
const ROOM_BYTES: usize = 256;

/// A response on its way.
struct Events {
    service: Arc<Service>,
    /// Away while it reads, and for good once there is an end.
    reader: Option<Reader>,
    is_text: bool,
    cursor: u64,
    until: Instant,
    /// Over at `until`, or when the server ends.
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Over when nothing may have been said for so long.
    silence: Pin<Box<Sleep>>,
    said_at: Instant,
    /// Whether everything was read when it was last looked.
    is_up_to_date: bool,
    _place: Subscribed,
    _subscribed: Counted,
}

/// As many follow as may, or a response that ends when its time, or that of the client's token, is over.
pub(crate) fn response(
    service: Arc<Service>,
    reading: Reading,
    cursor: Option<u64>,
    identity: Option<&Identity>,
) -> Result<Response, Problem> {
    let is_text = headers::is_text(&reading.content_type);
    let mut answer = HeaderMap::new();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if !is_text {
        answer.insert(headers::SSE_ENCODING, HeaderValue::from_static("base64"));
    }
    let config = &service.config;
    let now = Instant::now();
    let lasts = config.sse_duration;
    let expires = identity.and_then(Identity::expires);
    let lasts = expires.map_or(lasts, |at| {
        let rest = at.duration_since(SystemTime::now());
        lasts.min(rest.unwrap_or_default())
    });
    let until = now + lasts;
    let shutdown = config.shutdown.clone();
    let end = async move {
        let ended = tokio::time::timeout_at(until, shutdown.cancelled());
        // Either is an end.
        let _ = ended.await;
    };
    let events = Events {
        until,
        end: Box::pin(end),
        silence: Box::pin(tokio::time::sleep(config.sse_keep_alive)),
        said_at: now,
        _place: service.config.subscriptions.subscribe()?,
        _subscribed: service.config.metrics.subscribed(),
        service,
        reader: Some(reading.reader),
        is_text,
        cursor: cursor::next(SystemTime::now(), cursor),
        is_up_to_date: false,
    };
    let events = stream::unfold(events, |mut events| async move {
        let said = events.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(said)), events))
    });
    Ok((answer, Body::from_stream(events)).into_response())
}

impl Events {
    /// What is said next; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let mut reader = self.reader.take()?;
        let bytes_max = self.service.config.page_bytes_max.max(1);
        let read = if self.is_up_to_date {
            loop {
                tokio::select! {
                    page = reader.wait(bytes_max) => {
                        break page.map_err(Problem::from).map(|page| (reader, page));
                    }
                    () = &mut self.silence => {
                        // Set anew here alone, and not with each event.
                        let keep_alive = self.service.config.sse_keep_alive;
                        let now = Instant::now();
                        let is_silent = now >= self.said_at + keep_alive;
                        if is_silent {
                            self.said_at = now;
                        }
                        self.silence.as_mut().reset(self.said_at + keep_alive);
                        if is_silent {
                            self.reader = Some(reader);
                            return Some(":\n\n".to_owned());
                        }
                    }
                    () = &mut self.end => return None,
                }
            }
        } else {
            reader::page_of(reader, bytes_max).await
        };
        let (reader, page) = match read {
            Ok(read) => read,
            Err(problem) => {
                tracing::debug!(?problem, "server-sent events end early");
                return None;
            }
        };
        if page.is_gone {
            return None;
        }
        self.said_at = Instant::now();
        self.is_up_to_date = page.is_up_to_date;
        if !page.is_last && Instant::now() < self.until {
            self.reader = Some(reader);
        }
        Some(self.events_of(page))
    }

    fn events_of(&self, page: Page) -> String {
        let id = place::text_of(page.next);
        let mut said = String::with_capacity(page.content.bytes + ROOM_BYTES);
        if page.content.messages > 0 {
            said.push_str("event: data\n");
            let chunks = page.content.finish();
            let data = match &chunks[..] {
                [chunk] => Cow::Borrowed(&chunk[..]),
                chunks => Cow::Owned(chunks.concat()),
            };
            match self.is_text {
                true => push_lines(&mut said, &String::from_utf8_lossy(&data)),
                false => push_lines(&mut said, &STANDARD.encode(&data)),
            }
            let _ = write!(said, "id: {id}\n\n");
        }
        // All of it is digits: nothing has to be escaped.
        said.push_str("event: control\ndata:{");
        let _ = match page.is_last {
            true => write!(said, "\"streamClosed\":true"),
            false => write!(said, "\"streamCursor\":\"{}\"", self.cursor),
        };
        let _ = write!(said, ",\"streamNextOffset\":\"{id}\"");
        if page.is_up_to_date {
            said.push_str(",\"upToDate\":true");
        }
        let _ = write!(said, "}}\nid: {id}\n\n");
        said
    }
}

fn push_lines(said: &mut String, text: &str) {
    let text = with_unix_lines(text);
    for line in text.split('\n') {
        // One space behind the colon is not the line's.
        let space = if line.starts_with(' ') { " " } else { "" };
        for part in ["data:", space, line, "\n"] {
            said.push_str(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_data_can_pass_for_a_field() {
        let mut said = String::new();
        push_lines(&mut said, "a\r\nevent: control\rid: 7\n\n b");
        assert_eq!(
            said,
            "data:a\ndata:event: control\ndata:id: 7\ndata:\ndata:  b\n"
        );
    }
}
