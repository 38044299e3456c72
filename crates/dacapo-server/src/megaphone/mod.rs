//! Megaphone's HTTP streaming channels over a log: its clients work unchanged, and messages survive
//! restarts and lost connections.
//!
//! A channel is a topic of messages, and a second one that says what became of it: created, how far its
//! messages were delivered, ended. What is acknowledged is durable, and all who wait for that share one
//! `fdatasync`. An idle channel has no task and no descriptor.
//!
//! The transcript, and what is different from Megaphone: docs/protocols/megaphone.md.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::Response;
use axum::routing::{delete, get, post};
use dacapo_log::Log;

mod address;
mod admin;
mod body;
mod channel;
mod config;
mod create;
mod eid;
mod failure;
mod metrics;
mod rate;
mod read;
mod service;
mod stored;
mod sweep;
mod webhook;
mod write;

pub use crate::keys::KeysError;
pub use config::{MegaphoneConfig, Statuses, Webhook};
pub use service::LoadError;
pub use webhook::WebhookError;

pub(crate) use metrics::Counts;

use crate::keys::Keys;
use crate::metrics::Metrics;
use service::Service;
use webhook::Teller;

/// The name of the key file, in the directory of the log, unless the configuration names another.
const KEYS_FILE_NAME: &str = "megaphone.keys";

/// Channels cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MegaphoneError {
    /// The name of the agent is none.
    #[error(
        "`{agent}` is no name of an agent; it has 1 to {} letters, digits, `-` and `_`",
        address::AGENT_BYTES_MAX
    )]
    Agent {
        /// As it was configured.
        agent: String,
    },
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The channels cannot be read from the log.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A webhook cannot be called.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

/// The channels of `log`. One router for a log: what a channel takes next is known to the router that
/// appends to it.
///
/// - `POST /create`, `POST /channelsExists`
/// - `POST /write/{address}/{stream-id}`, `POST /write-batch`
/// - `GET /read/{consumer}`, with `?from=oldest` or `?from=EID`, and `?ack=explicit`
/// - `POST /ack/{consumer}/{eid}`
/// - `GET /metrics`, unless they are counted in those of the [configuration](MegaphoneConfig::metrics)
/// - `GET /channel/list?skip=0&limit=50`, `DELETE /channel/{address}`: for admins
///
/// Reads the channels' newest records first, which waits for the disk. Channels expire, and webhooks are
/// told, by tasks that end with the router.
///
/// ```no_run
/// use axum::serve::ListenerExt;
/// use dacapo_log::Log;
/// use dacapo_server::megaphone::{self, MegaphoneConfig};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// let app = megaphone::router(Log::open("log")?, MegaphoneConfig::default())?;
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// // Messages and answers are small, and go at once.
/// let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
/// axum::serve(listener, app).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// See [`MegaphoneError`].
///
/// # Panics
/// Outside a tokio runtime.
pub fn router(log: Log, config: MegaphoneConfig) -> Result<Router, MegaphoneError> {
    if !address::is_agent(&config.agent) {
        return Err(MegaphoneError::Agent {
            agent: config.agent,
        });
    }
    let keys_file = config.keys_file.clone();
    let keys_file = keys_file.unwrap_or_else(|| log.dir().join(KEYS_FILE_NAME));
    let keys = Keys::load_or_create(&keys_file)?;
    let webhooks = config.webhooks.iter();
    let tellers = webhooks.map(|webhook| Teller::new(webhook, &log, config.shutdown.clone()));
    let tellers: Vec<Teller> = tellers.collect::<Result<_, _>>()?;
    let (metrics, own) = match &config.metrics {
        Some(metrics) => (metrics.clone(), None),
        None => {
            let metrics = Metrics::default();
            (metrics.clone(), Some(metrics))
        }
    };
    let service = Arc::new(Service::load(log, config, keys, &metrics)?);
    for teller in tellers {
        tokio::spawn(teller.run(Arc::downgrade(&service)));
    }
    let interval = service.config.sweep_interval;
    tokio::spawn(sweep::sweep(Arc::downgrade(&service), interval));
    let routes = routes(service);
    Ok(match own {
        Some(own) => routes.merge(own.router()),
        None => routes,
    })
}

fn routes(service: Arc<Service>) -> Router {
    let body_bytes_max = service.config.body_bytes_max;
    let statuses = service.config.statuses.clone();
    Router::new()
        .route("/create", post(create::create))
        .route("/channelsExists", post(create::exist))
        .route("/write/{address}/{stream_id}", post(write::write))
        .route("/write-batch", post(write::write_batch))
        .route("/read/{address}", get(read::read))
        .route("/ack/{address}/{eid}", post(read::acknowledge))
        .route("/channel/list", get(admin::list))
        .route("/channel/{address}", delete(admin::delete))
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(middleware::map_response(move |response: Response| {
            let response = failure::render(response, &statuses);
            async move { response }
        }))
        .with_state(service)
}
