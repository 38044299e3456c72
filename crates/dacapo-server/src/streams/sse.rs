//! `live=sse`: a stream as server-sent events.
//!
//! Each piece of data is an event `data`, followed by an event `control` that says where the stream
//! then goes on. Both have that place as `id:`, so that an `EventSource` that comes back by itself
//! misses nothing.

use std::convert::Infallible;
use std::fmt::Write;
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
use serde_json::json;
use tokio::time::Instant;

use super::read::Reading;
use super::reader::{self, Page, Reader};
use super::service::Service;
use super::{cursor, headers, place};
use crate::metrics::Counted;
use crate::problem::Problem;

/// A response on its way.
struct Events {
    service: Arc<Service>,
    /// Away while it reads, and for good once there is an end.
    reader: Option<Reader>,
    is_text: bool,
    cursor: u64,
    until: Instant,
    /// Whether everything was read when it was last looked.
    is_up_to_date: bool,
    _subscribed: Counted,
}

pub(crate) fn response(service: Arc<Service>, reading: Reading, cursor: Option<u64>) -> Response {
    let is_text = headers::is_text(&reading.content_type);
    let mut answer = HeaderMap::new();
    answer.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if !is_text {
        answer.insert(headers::SSE_ENCODING, HeaderValue::from_static("base64"));
    }
    let events = Events {
        until: Instant::now() + service.config.sse_duration,
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
    (answer, Body::from_stream(events)).into_response()
}

impl Events {
    /// What is said next; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        let mut reader = self.reader.take()?;
        let bytes_max = self.service.config.page_bytes_max.max(1);
        let read = if self.is_up_to_date {
            let config = &self.service.config;
            tokio::select! {
                page = reader.wait(bytes_max) => page.map_err(Problem::from).map(|page| (reader, page)),
                () = tokio::time::sleep(config.sse_keep_alive) => {
                    self.reader = Some(reader);
                    return Some(":\n\n".to_owned());
                }
                () = tokio::time::sleep_until(self.until) => return None,
                () = config.shutdown.cancelled() => return None,
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
        self.is_up_to_date = page.is_up_to_date;
        if !page.is_last && Instant::now() < self.until {
            self.reader = Some(reader);
        }
        Some(self.events_of(page))
    }

    fn events_of(&self, page: Page) -> String {
        let id = place::text_of(page.next);
        let mut said = String::new();
        let mut control = json!({ "streamNextOffset": id });
        if page.is_last {
            control["streamClosed"] = true.into();
        } else {
            control["streamCursor"] = self.cursor.to_string().into();
        }
        if page.is_up_to_date {
            control["upToDate"] = true.into();
        }
        if page.content.messages > 0 {
            said.push_str("event: data\n");
            let data = page.content.finish().concat();
            match self.is_text {
                true => push_lines(&mut said, &String::from_utf8_lossy(&data)),
                false => push_lines(&mut said, &STANDARD.encode(&data)),
            }
            let _ = write!(said, "id: {id}\n\n");
        }
        let _ = write!(said, "event: control\ndata:{control}\nid: {id}\n\n");
        said
    }
}

/// Whatever ends a line in an event stream ends one here.
fn push_lines(said: &mut String, text: &str) {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    for line in text.split('\n') {
        // One space behind the colon is not the line's.
        let space = if line.starts_with(' ') { " " } else { "" };
        let _ = writeln!(said, "data:{space}{line}");
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
