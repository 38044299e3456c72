//! How channels are served: every limit, time and status, with Megaphone's values.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::StatusCode;
use tokio_util::sync::CancellationToken;

use crate::auth::Tokens;
use crate::metrics::Metrics;

/// How channels are served.
///
/// ```
/// use std::time::Duration;
/// use dacapo_server::megaphone::MegaphoneConfig;
///
/// let config = MegaphoneConfig {
///     unread_max: None, // the log grows, and writers never wait
///     ..MegaphoneConfig::default()
/// };
/// assert_eq!(config.read_duration, Duration::from_secs(20));
/// ```
#[derive(Clone)]
pub struct MegaphoneConfig {
    /// What addresses begin with, so that a proxy can route by it: 1 to 64 letters, digits, `-` and
    /// `_`; `megaphone` by default. Addresses of channels in this log stay valid when it changes.
    pub agent: String,
    /// Where the keys of addresses are; by default `megaphone.keys` in the directory of the log. It is
    /// made if it is not there.
    pub keys_file: Option<PathBuf>,
    /// How many messages of a channel may be unread; 100 by default. Writers of further ones wait for a
    /// reader. `None`: the log grows.
    pub unread_max: Option<u64>,
    /// How long they wait; 10 seconds by default.
    pub write_timeout: Duration,
    /// Whether consumers may write to their channel; not by default.
    pub consumer_writes: bool,
    /// After how long a read ends, counted from its request; 20 seconds by default.
    pub read_duration: Duration,
    /// How long after its last read, or its creation, a channel goes; 60 seconds by default. `None`:
    /// never. The time that a server is down does not count.
    pub expire_after: Option<Duration>,
    /// How often the server looks for such channels; every 10 seconds by default.
    pub sweep_interval: Duration,
    /// The largest body of a request, in bytes; 2 MiB by default. A message must fit into one segment
    /// of the log, too.
    pub body_bytes_max: usize,
    /// The longest name of a stream, in bytes; 1 KiB by default.
    pub stream_id_bytes_max: usize,
    /// How many channels one request may name; 1,000 by default.
    pub request_channels_max: usize,
    /// How many messages one batch may write, to all of its channels together; 10,000 by default.
    pub batch_writes_max: usize,
    /// How many channels there can be at once; 1,000,000 by default.
    pub channels_max: usize,
    /// How many channels can be created in a second, and at once; 1,000 by default. `None`: no limit.
    pub creates_per_second: Option<u32>,
    /// Who says this in `authorization: Bearer` may list and delete channels. `None`, as by default:
    /// nobody, or those whom [`tokens`](Self::tokens) let.
    pub admin_token: Option<String>,
    /// Who is told of channels that are gone; nobody by default.
    pub webhooks: Vec<Webhook>,
    /// What refused requests are answered.
    pub statuses: Statuses,
    /// Cancelled when the server shuts down: reads end then, and writers that wait for one are told. Never
    /// by default.
    pub shutdown: CancellationToken,
    /// Where is counted what is done. `None`, as by default: by itself, at `/metrics`.
    pub metrics: Option<Metrics>,
    /// With these, whoever creates channels needs a token that may append to all topics, and whoever
    /// lists or deletes them one that may delete all. Addresses are good for the rest, as they are
    /// without. `None` by default.
    pub tokens: Option<Tokens>,
}

impl Default for MegaphoneConfig {
    fn default() -> Self {
        Self {
            agent: "megaphone".to_owned(),
            keys_file: None,
            unread_max: Some(100),
            write_timeout: Duration::from_secs(10),
            consumer_writes: false,
            read_duration: Duration::from_secs(20),
            expire_after: Some(Duration::from_secs(60)),
            sweep_interval: Duration::from_secs(10),
            body_bytes_max: 2 << 20,
            stream_id_bytes_max: 1 << 10,
            request_channels_max: 1_000,
            batch_writes_max: 10_000,
            channels_max: 1_000_000,
            creates_per_second: Some(1_000),
            admin_token: None,
            webhooks: Vec::new(),
            statuses: Statuses::default(),
            shutdown: CancellationToken::new(),
            metrics: None,
            tokens: None,
        }
    }
}

/// Without the token.
impl fmt::Debug for MegaphoneConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MegaphoneConfig")
            .field("agent", &self.agent)
            .field("unread_max", &self.unread_max)
            .field("has_admin_token", &self.admin_token.is_some())
            .field("webhooks", &self.webhooks)
            .finish_non_exhaustive()
    }
}

/// Who is told of channels that are gone, by `POST {"channels":[..]}`.
///
/// ```
/// use dacapo_server::megaphone::Webhook;
///
/// let webhook = Webhook {
///     secret: Some(b"a long random text".to_vec()),
///     ..Webhook::new("https://backend.example/on-channel-deleted")
/// };
/// assert!(!webhook.allow_private);
/// ```
#[derive(Clone)]
pub struct Webhook {
    /// An `http` or `https` URL. Nothing else is ever called: no redirect is followed, and no proxy used.
    pub url: String,
    /// What requests are signed with, as [Standard Webhooks](https://www.standardwebhooks.com) say.
    /// `None`: they are not.
    pub secret: Option<Vec<u8>>,
    /// Whether the URL may lead to this machine or into a private network; not by default.
    pub allow_private: bool,
    /// How long an answer may take; 10 seconds by default.
    pub timeout: Duration,
    /// How long to wait after the first failure; 1 second by default. Twice as long after each further
    /// one.
    pub retry_min: Duration,
    /// The longest wait between two attempts, which do not end; 5 minutes by default.
    pub retry_max: Duration,
}

impl Webhook {
    /// One that is not signed, with default times.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            secret: None,
            allow_private: false,
            timeout: Duration::from_secs(10),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(300),
        }
    }
}

/// Without the secret.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook")
            .field("url", &self.url)
            .field("is_signed", &self.secret.is_some())
            .field("allow_private", &self.allow_private)
            .finish_non_exhaustive()
    }
}

/// What refused requests are answered.
#[derive(Clone, Debug)]
pub struct Statuses {
    /// A malformed request or address; 400 by default.
    pub bad_request: StatusCode,
    /// A channel of a protocol that there is not; 400 by default.
    pub unsupported_protocol: StatusCode,
    /// An admin without the token; 401 by default.
    pub unauthorized: StatusCode,
    /// A write with a consumer's address; 403 by default.
    pub forbidden: StatusCode,
    /// A channel that there is not; 404 by default.
    pub not_found: StatusCode,
    /// A read of a channel that is being read; 409 by default.
    pub busy: StatusCode,
    /// A read from a message that was dropped; 410 by default.
    pub gone: StatusCode,
    /// A body over the limit; 413 by default.
    pub payload_too_large: StatusCode,
    /// A body that is not said to be JSON; 415 by default.
    pub unsupported_media_type: StatusCode,
    /// More new channels than are allowed at a time; 429 by default.
    pub too_many_requests: StatusCode,
    /// As many channels as there can be; 503 by default.
    pub too_many_channels: StatusCode,
    /// Stored bytes that cannot be read; 500 by default.
    pub internal: StatusCode,
    /// A write that has waited for a reader in vain; 503 by default.
    pub timeout: StatusCode,
    /// A disk that takes nothing, or a server that shuts down; 503 by default.
    pub unavailable: StatusCode,
}

impl Default for Statuses {
    fn default() -> Self {
        Self {
            bad_request: StatusCode::BAD_REQUEST,
            unsupported_protocol: StatusCode::BAD_REQUEST,
            unauthorized: StatusCode::UNAUTHORIZED,
            forbidden: StatusCode::FORBIDDEN,
            not_found: StatusCode::NOT_FOUND,
            busy: StatusCode::CONFLICT,
            gone: StatusCode::GONE,
            payload_too_large: StatusCode::PAYLOAD_TOO_LARGE,
            unsupported_media_type: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            too_many_requests: StatusCode::TOO_MANY_REQUESTS,
            too_many_channels: StatusCode::SERVICE_UNAVAILABLE,
            internal: StatusCode::INTERNAL_SERVER_ERROR,
            timeout: StatusCode::SERVICE_UNAVAILABLE,
            unavailable: StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
