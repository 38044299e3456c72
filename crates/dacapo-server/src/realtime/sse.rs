//! The sequence as server-sent events.

use axum::response::{IntoResponse, Response};
use dacapo::{Json, Message, Start};

use super::config::RealtimeConfig;
use super::event::RealtimeEvent;
use super::filter::Filter;
use super::manager::{Client, RealtimeManager};
use super::router::Guest;
use crate::resume::Numbering;
use crate::sse::{self, Sse, SseConfig};

/// A response that follows the sequence from `start` on.
pub(super) fn follow<E: RealtimeEvent, F: Filter<E>>(
    manager: RealtimeManager<E, F>,
    filter: F,
    start: Start,
    config: &RealtimeConfig,
    guest: Guest,
) -> Response {
    let receiver = manager.receiver(start);
    let closing = manager.closing();
    let client = Client::connect(manager, filter);
    let events = sse::events(
        receiver,
        Numbering::FROM_ONE,
        move |_, message: &Message<E, Json>| {
            let ready = client.manager.ready(message);
            let ready = ready.map_err(|error| error.to_string())?;
            match client.wants(&ready.event) {
                true => Ok(Some(ready.sse()?)),
                false => Ok(None),
            }
        },
    );
    let config = SseConfig::default()
        .keep_alive_interval(config.keep_alive_interval)
        .retry(config.retry);
    Sse::new(events)
        .config(config)
        .end_when(async move {
            tokio::select! {
                () = closing.cancelled() => {}
                // It has its place until then.
                () = guest.expired() => {}
            }
        })
        .into_response()
}
