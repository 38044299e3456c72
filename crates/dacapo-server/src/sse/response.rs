//! A response of server-sent events: its headers, its chunks, and what keeps it alive.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream::Stream;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep};

use super::event::EncodedEvent;

/// A chunk is sent once it is this long, though more events are ready.
const CHUNK_BYTES: usize = 32 << 10;

/// What a client and the proxies between ignore, and reset their idle timers at.
const KEEP_ALIVE: &[u8] = b":\n\n";

/// How a response of events behaves.
///
/// ```
/// use std::time::Duration;
/// use dacapo_server::SseConfig;
///
/// let config = SseConfig::default()
///     .keep_alive_interval(Duration::from_secs(30))
///     .retry(Duration::from_secs(3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct SseConfig {
    keep_alive_interval: Duration,
    retry: Option<Duration>,
}

impl Default for SseConfig {
    fn default() -> Self {
        Self {
            keep_alive_interval: Duration::from_secs(15),
            retry: None,
        }
    }
}

impl SseConfig {
    /// After this long without an event, a comment is sent, so that no proxy takes the connection for
    /// dead, and the server notices when it is; 15 seconds by default.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.keep_alive_interval = interval;
        self
    }

    /// How long a client waits before it connects again: told by a first frame that has no id. Not told
    /// by default, which leaves it to the client.
    pub fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }
}

/// A response that sends the events of a stream, until the stream ends, an item of it is an error, or the
/// client has gone.
///
/// An event goes out when it is there; events that have piled up by then go in one chunk. A stream is
/// asked for its next event when the client has room for it, so that a slow client costs no memory. An
/// error is logged and ends the response; a client of SSE connects again then.
///
/// ```
/// use axum::response::IntoResponse;
/// use dacapo_server::sse::EventError;
/// use dacapo_server::{Event, Sse};
/// use futures_util::stream;
///
/// async fn countdown() -> impl IntoResponse {
///     let numbers = stream::iter((0..3).rev());
///     Sse::new(futures_util::StreamExt::map(numbers, |number| {
///         Ok::<_, EventError>(Event::named("count")?.json(&number)?)
///     }))
/// }
/// ```
#[must_use = "a response does nothing until it is returned from a handler"]
pub struct Sse<S> {
    stream: S,
    config: SseConfig,
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S, V, E> Sse<S>
where
    S: Stream<Item = Result<V, E>> + Send + 'static,
    V: Into<EncodedEvent>,
    E: fmt::Display,
{
    /// A response of the events of `stream`.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            config: SseConfig::default(),
            end: None,
        }
    }
}

impl<S> Sse<S> {
    /// How the response behaves, other than by default.
    pub fn config(mut self, config: SseConfig) -> Self {
        self.config = config;
        self
    }

    /// Ends the response when `end` does. A server that shuts down gracefully waits for its responses,
    /// and this one would go on for ever.
    pub fn end_when(mut self, end: impl Future<Output = ()> + Send + 'static) -> Self {
        self.end = Some(Box::pin(end));
        self
    }
}

impl<S, V, E> IntoResponse for Sse<S>
where
    S: Stream<Item = Result<V, E>> + Send + 'static,
    V: Into<EncodedEvent>,
    E: fmt::Display,
{
    fn into_response(self) -> Response {
        let headers = [
            (CONTENT_TYPE, "text/event-stream"),
            (CACHE_CONTROL, "no-cache"),
            // nginx would otherwise keep events back until a buffer is full.
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        let interval = self.config.keep_alive_interval;
        let chunks = Chunks {
            stream: Some(Box::pin(self.stream)),
            first: self.config.retry.map(EncodedEvent::retry),
            end: self.end,
            interval,
            idle: Box::pin(sleep(interval)),
        };
        (headers, Body::new(chunks)).into_response()
    }
}

impl<S> fmt::Debug for Sse<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sse")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The body: a chunk for what is ready, whenever the connection has room.
struct Chunks<S> {
    /// `None` once it has ended.
    stream: Option<Pin<Box<S>>>,
    first: Option<EncodedEvent>,
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    interval: Duration,
    idle: Pin<Box<Sleep>>,
}

impl<S, V, E> Chunks<S>
where
    S: Stream<Item = Result<V, E>>,
    V: Into<EncodedEvent>,
    E: fmt::Display,
{
    /// What is ready, in one piece.
    fn ready(&mut self, cx: &mut Context<'_>) -> Chunk {
        let mut chunk = Chunk::default();
        if let Some(first) = self.first.take() {
            chunk.push(first);
        }
        while let Some(stream) = &mut self.stream
            && !chunk.is_full()
        {
            match stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(Ok(event))) => chunk.push(event.into()),
                Poll::Ready(Some(Err(error))) => {
                    tracing::error!(%error, "a stream of events has failed; its response ends");
                    self.stream = None;
                }
                Poll::Ready(None) => self.stream = None,
                Poll::Pending => break,
            }
        }
        chunk
    }

    fn is_ended(&mut self, cx: &mut Context<'_>) -> bool {
        let end = self.end.as_mut();
        end.is_some_and(|end| end.as_mut().poll(cx).is_ready())
    }
}

impl<S, V, E> http_body::Body for Chunks<S>
where
    S: Stream<Item = Result<V, E>>,
    V: Into<EncodedEvent>,
    E: fmt::Display,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // Nothing in it is pinned in place.
        let this = self.get_mut();
        if this.is_ended(cx) {
            this.end = None;
            this.stream = None;
        }
        let bytes = match this.ready(cx) {
            Chunk::Empty if this.stream.is_none() => return Poll::Ready(None),
            Chunk::Empty => {
                std::task::ready!(this.idle.as_mut().poll(cx));
                Bytes::from_static(KEEP_ALIVE)
            }
            Chunk::One(event) => event.into(),
            Chunk::Many(bytes) => bytes.freeze(),
        };
        this.idle.as_mut().reset(Instant::now() + this.interval);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// Events that go out together. One alone is not copied.
#[derive(Default)]
enum Chunk {
    #[default]
    Empty,
    One(EncodedEvent),
    Many(BytesMut),
}

impl Chunk {
    fn push(&mut self, event: EncodedEvent) {
        match self {
            Self::Empty => *self = Self::One(event),
            Self::One(first) => {
                let bytes = [first.as_bytes(), event.as_bytes()].concat();
                *self = Self::Many(BytesMut::from(&bytes[..]));
            }
            Self::Many(bytes) => bytes.extend_from_slice(event.as_bytes()),
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::One(event) => event.as_bytes().len() >= CHUNK_BYTES,
            Self::Many(bytes) => bytes.len() >= CHUNK_BYTES,
        }
    }
}
