//! `live=sse`: a stream as server-sent events.
//!
//! Each piece of data is an event `data`, followed by an event `control` that says where the stream
//! then goes on. Both have that place as `id:`, so that an `EventSource` that comes back by itself
//! misses nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use serde_json::json;
use tokio::time::Instant;

use super::read::Reading;
use super::reader::{self, Page, Reader};
use super::service::Service;
use super::{cursor, headers, place};
use crate::auth::Identity;
use crate::limits::Subscribed;
use crate::metrics::Counted;
use crate::problem::Problem;
use crate::sse::{EncodedEvent, Event, Sse, SseConfig};

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
    let lasts = service.config.sse_duration;
    let expires = identity.and_then(Identity::expires);
    let lasts = expires.map_or(lasts, |at| {
        let rest = at.duration_since(SystemTime::now());
        lasts.min(rest.unwrap_or_default())
    });
    let config = SseConfig::default().keep_alive_interval(service.config.sse_keep_alive);
    let events = Events {
        until: Instant::now() + lasts,
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
        Some((Ok::<_, Infallible>(said), events))
    });
    let mut response = Sse::new(events).config(config).into_response();
    if !is_text {
        let encoding = HeaderValue::from_static("base64");
        response
            .headers_mut()
            .insert(headers::SSE_ENCODING, encoding);
    }
    Ok(response)
}

impl Events {
    /// What is said next; `None` at the end.
    async fn next(&mut self) -> Option<EncodedEvent> {
        let mut reader = self.reader.take()?;
        let bytes_max = self.service.config.page_bytes_max.max(1);
        let read = if self.is_up_to_date {
            let config = &self.service.config;
            tokio::select! {
                page = reader.wait(bytes_max) => page.map_err(Problem::from).map(|page| (reader, page)),
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

    /// In one piece: a client goes on where the control event says, and must not get the data again.
    fn events_of(&self, page: Page) -> EncodedEvent {
        let id = place::text_of(page.next);
        let event = |name| {
            let event = Event::named(name).and_then(|event| event.id(&id));
            event.expect("a name of one line, and a number")
        };
        let mut control = json!({ "streamNextOffset": id });
        if page.is_last {
            control["streamClosed"] = true.into();
        } else {
            control["streamCursor"] = self.cursor.to_string().into();
        }
        if page.is_up_to_date {
            control["upToDate"] = true.into();
        }
        let control = event("control").data(control.to_string());
        if page.content.messages == 0 {
            return EncodedEvent::from(control);
        }
        let data = page.content.finish().concat();
        let data = match self.is_text {
            true => String::from_utf8_lossy(&data).into_owned(),
            false => STANDARD.encode(&data),
        };
        EncodedEvent::of_all([event("data").data(data), control])
    }
}
