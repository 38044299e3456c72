//! Sending events by hand: a task that awaits what it needs, and sends.

use std::error::Error;
use std::fmt;
use std::future::Future;

use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::mpsc;

use super::event::{EncodedEvent, EventError};
use super::response::{Sse, SseConfig};

/// How many events wait for a client at most; [`Sender::send`] waits then.
const WAITING_MAX: usize = 32;

/// A response whose events `work` sends, in a task of its own.
///
/// At most 32 events wait for the client, then [`send`](Sender::send) does. When `work` returns, the
/// response ends behind what was sent; an error, and a panic, are logged. Nothing else notices.
///
/// ```
/// use axum::response::IntoResponse;
/// use dacapo_server::{Event, SseConfig, sse};
///
/// async fn countdown() -> impl IntoResponse {
///     sse::channel(SseConfig::default(), |events| async move {
///         for number in (0..3).rev() {
///             events.send(Event::named("count")?.json(&number)?).await?;
///         }
///         Ok(())
///     })
/// }
/// ```
pub fn channel<W, F>(config: SseConfig, work: W) -> Response
where
    W: FnOnce(Sender) -> F + Send + 'static,
    F: Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let (events, waiting) = mpsc::channel(WAITING_MAX);
    // The call too may panic.
    let working = tokio::spawn(async move { work(Sender { events }).await });
    tokio::spawn(async move {
        match working.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.is::<Disconnected>() => {}
            Ok(Err(error)) => tracing::error!(%error, "a channel of events has failed"),
            Err(error) => tracing::error!(%error, "a channel of events has panicked"),
        }
    });
    let waiting = stream::unfold(waiting, |mut waiting| async {
        let event = waiting.recv().await?;
        Some((Ok::<EncodedEvent, EventError>(event), waiting))
    });
    Sse::new(waiting).config(config).into_response()
}

/// Sends events to one client; made by [`channel`]. Clone it to send from several tasks: the response
/// ends when none is left.
#[derive(Clone)]
pub struct Sender {
    events: mpsc::Sender<EncodedEvent>,
}

impl Sender {
    /// Sends an event, and waits while 32 others wait for the client. Cancel-safe: cancelled, the event
    /// was not sent.
    ///
    /// # Errors
    /// Once the client has gone.
    pub async fn send(&self, event: impl Into<EncodedEvent>) -> Result<(), Disconnected> {
        let sent = self.events.send(event.into()).await;
        sent.map_err(|_| Disconnected)
    }

    /// Waits until the client has gone. Cancel-safe.
    pub async fn disconnected(&self) {
        self.events.closed().await;
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("is_disconnected", &self.events.is_closed())
            .finish()
    }
}

/// The client has gone; what it was sent may not have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
#[non_exhaustive]
pub struct Disconnected;
