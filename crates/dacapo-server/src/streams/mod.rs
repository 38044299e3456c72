//! The [Durable Streams protocol](https://github.com/durable-streams/durable-streams) over a log:
//! append-only streams over HTTP, replayed from any offset and then followed live.
//!
//! A stream is a topic, and its offsets are the log's. What belongs to a stream beside its data, such
//! as its type, its end and its producers, is in records of a second topic, `__ds/` and the stream's
//! name, which are appended in one batch with the data: no crash separates them. What is acknowledged,
//! and what readers see, is durable; all who wait for that share one `fdatasync`.
//!
//! The transcript and the records: docs/protocols/durable-streams.md.

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, RETRY_AFTER,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use axum::{Router, middleware};
use dacapo_log::{Log, Offset, ReadError};
use percent_encoding::percent_decode_str;
use tokio_util::sync::CancellationToken;
use tower_http::cors::{Any, CorsLayer};

mod append;
mod content;
mod create;
mod cursor;
mod delete;
mod fork;
mod head;
mod headers;
mod lifetime;
mod place;
mod producer;
mod read;
mod reader;
mod registry;
mod service;
mod sse;
mod state;
mod stream;

use crate::metrics::Metrics;
use crate::problem::Problem;
use registry::Registry;
use service::Service;

/// The path that all streams are under.
const ROOT: &str = "/v1/stream/";

/// How streams are served.
///
/// ```
/// use std::time::Duration;
/// use dacapo_server::streams::StreamsConfig;
///
/// let config = StreamsConfig {
///     long_poll_timeout: Duration::from_secs(10),
///     ..StreamsConfig::default()
/// };
/// assert_eq!(config.body_bytes_max, 8 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct StreamsConfig {
    /// How long a long-poll waits for data; 20 seconds by default.
    pub long_poll_timeout: Duration,
    /// After how long a response of server-sent events ends, for the client to come back, so that
    /// whatever balances the load can; 60 seconds by default.
    pub sse_duration: Duration,
    /// How often such a response says something while there is no data, in a comment, so that nothing
    /// between takes it for dead; every 15 seconds by default.
    pub sse_keep_alive: Duration,
    /// The largest body of a request, in bytes; 8 MiB by default. It must fit into one segment of the
    /// log, too.
    pub body_bytes_max: usize,
    /// How much one read returns, in bytes; 1 MiB by default. The last message may go beyond it.
    pub page_bytes_max: usize,
    /// How many streams that nobody uses stay in memory, at some hundred bytes each, and more where
    /// there are many producers; 10,000 by default.
    pub idle_streams_max: usize,
    /// Whether scripts of any other site may use the streams; not by default.
    pub cors: bool,
    /// Whether answers are for whoever asked only, so that no shared cache may keep them; not by
    /// default. Where clients have tokens, it has to be.
    pub private: bool,
    /// Cancelled when the server shuts down: reads that wait are answered then. Never by default.
    pub shutdown: CancellationToken,
    /// Where is counted what is done.
    pub metrics: Metrics,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            long_poll_timeout: Duration::from_secs(20),
            sse_duration: Duration::from_secs(60),
            sse_keep_alive: Duration::from_secs(15),
            body_bytes_max: 8 << 20,
            page_bytes_max: 1 << 20,
            idle_streams_max: 10_000,
            cors: false,
            private: false,
            shutdown: CancellationToken::new(),
            metrics: Metrics::default(),
        }
    }
}

/// The streams of `log`, under `/v1/stream/`: [`Streams::router`] for those who need no more.
///
/// ```no_run
/// use dacapo_log::{Log, ReadError};
/// use dacapo_server::streams::{self, StreamsConfig};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let log = Log::open("log")?;
/// let app: axum::Router = streams::router(log, StreamsConfig::default());
/// # Ok(())
/// # }
/// ```
pub fn router(log: Log, config: StreamsConfig) -> Router {
    Streams::new(log, config).router()
}

/// The streams of a log; cheap to clone. One for a log: what a stream allows next is known to the one
/// that appends to it.
#[derive(Clone, Debug)]
pub struct Streams {
    service: Arc<Service>,
}

impl Streams {
    /// The streams of `log`.
    #[must_use]
    pub fn new(log: Log, config: StreamsConfig) -> Self {
        let service = Arc::new(Service {
            log,
            registry: Registry::new(config.idle_streams_max),
            config,
            forking: Mutex::new(()),
        });
        Self { service }
    }

    /// Serves them under `/v1/stream/`.
    pub fn router(&self) -> Router {
        let config = &self.service.config;
        let methods: MethodRouter<Arc<Service>> = get(read::get)
            .head(head::head)
            .put(create::put)
            .post(append::post)
            .delete(delete::delete);
        let router = Router::new()
            .route("/v1/stream/{*name}", methods.fallback(not_allowed))
            .layer(DefaultBodyLimit::max(config.body_bytes_max))
            .with_state(Arc::clone(&self.service));
        let router = match config.cors {
            true => router.layer(cors()),
            false => router,
        };
        let metrics = config.metrics.clone();
        router.layer(middleware::map_response_with_state(metrics, finished))
    }

    /// Has the stream of this name read from the log, so that [`append_record`](Self::append_record) need
    /// not wait for the disk.
    pub(crate) async fn open(&self, name: &str) -> Result<(), Problem> {
        self.service.open(name).await.map(drop)
    }

    /// Appends one message by the rules of the stream of this name, or, where there is none, a record to
    /// the topic. It is not durable yet.
    pub(crate) fn append_record(&self, name: &str, message: &[u8]) -> Result<Offset, Problem> {
        append::record(&self.service, name, message)
    }

    /// Deletes the streams whose time is over, and returns how many these were. Without this, each is
    /// deleted when somebody next asks for it.
    ///
    /// Looks at every stream of the log: for each thread that serves, this is some work that waits for
    /// the disk, and is to be done elsewhere.
    ///
    /// # Errors
    /// What the log says that cannot list its topics. A stream that cannot be read is left as it is.
    pub fn delete_expired(&self) -> Result<u64, ReadError> {
        self.service.delete_expired()
    }
}

/// The name of the stream at a path, if there can be one.
pub(crate) fn name_of(path: &str) -> Option<String> {
    let name = percent_decode_str(path.strip_prefix(ROOT)?);
    name.decode_utf8().ok().map(Cow::into_owned)
}

async fn not_allowed() -> Problem {
    let detail = "a stream knows GET, HEAD, PUT, POST and DELETE";
    let methods = HeaderValue::from_static("GET, HEAD, PUT, POST, DELETE");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).with(ALLOW, methods)
}

/// Counts errors, keeps browsers from guessing what a stream holds, and lets other sites' pages load it.
async fn finished(State(metrics): State<Metrics>, mut response: Response) -> Response {
    const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
    const POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    metrics.answered(response.status());
    let headers = response.headers_mut();
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    headers.insert(POLICY, HeaderValue::from_static("cross-origin"));
    response
}

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::POST,
            Method::DELETE,
        ])
        .allow_headers([
            axum::http::header::AUTHORIZATION,
            CONTENT_TYPE,
            IF_NONE_MATCH,
            HeaderName::from_static("last-event-id"),
            headers::SEQ,
            headers::TTL,
            headers::EXPIRES_AT,
            headers::CLOSED,
            headers::FORKED_FROM,
            headers::FORK_OFFSET,
            headers::FORK_SUB_OFFSET,
            headers::PRODUCER_ID,
            headers::PRODUCER_EPOCH,
            headers::PRODUCER_SEQ,
        ])
        .expose_headers([
            ETAG,
            LOCATION,
            RETRY_AFTER,
            CACHE_CONTROL,
            headers::NEXT_OFFSET,
            headers::UP_TO_DATE,
            headers::CURSOR,
            headers::CLOSED,
            headers::TTL,
            headers::EXPIRES_AT,
            headers::SSE_ENCODING,
            headers::PRODUCER_EPOCH,
            headers::PRODUCER_SEQ,
            headers::EXPECTED_SEQ,
            headers::RECEIVED_SEQ,
        ])
}
