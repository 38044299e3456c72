//! Serving over HTTP/1.1 with limits: on how many are connected, how long the head of a request may take,
//! and how long a client may be silent. Over TLS where there is a certificate.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::serve::Listener;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod connection;
mod tls;
mod watched;

pub use tls::{Tls, TlsConfig, TlsError};

use crate::metrics::{Counted, Metrics};
use crate::problem::Problem;
use connection::Serving;

/// So many clients beyond the limits are told so at a time; others are cut off without a word.
const TURNED_AWAY_MAX: usize = 64;

/// How connections are kept.
///
/// ```
/// use dacapo_server::connections::ConnectionsConfig;
///
/// let config: ConnectionsConfig = serde_json::from_str(r#"{"head_timeout": "5s"}"#)?;
/// assert_eq!(config.connections_max, 10_000);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionsConfig {
    /// How many clients may be connected at once; 10,000 by default. Further ones are answered 503.
    pub connections_max: usize,
    /// How many of these may come from one address; by default, as many as there are. Further ones are
    /// answered 429.
    pub connections_per_address_max: Option<usize>,
    /// Cuts off clients with whom nothing was exchanged for so long; 2 minutes by default. To be longer
    /// than a long-poll waits, and than server-sent events are silent.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub idle_timeout: Duration,
    /// How long the head of a request may take, from its connection or the answer before it on, and the
    /// handshake of TLS; 30 seconds by default. A head that was begun is answered 408 then.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub head_timeout: Duration,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: None,
            idle_timeout: Duration::from_secs(120),
            head_timeout: Duration::from_secs(30),
        }
    }
}

/// The other end of a connection. A handler gets it by
/// [`ConnectInfo`](axum::extract::ConnectInfo)`<Peer>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    address: SocketAddr,
    is_tls: bool,
}

impl Peer {
    /// Where it connects from.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        self.address
    }

    /// Whether it speaks TLS with this server.
    #[must_use]
    pub fn is_tls(self) -> bool {
        self.is_tls
    }
}

/// Serves a router at a listener, within limits.
///
/// ```no_run
/// use axum::Router;
/// use dacapo_server::connections::Server;
/// use tokio::net::TcpListener;
/// use tokio_util::sync::CancellationToken;
///
/// # async fn serve() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:4437").await?;
/// let shutdown = CancellationToken::new();
/// Server::new(listener).serve(Router::new(), shutdown).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it serves nothing until it is told to"]
pub struct Server {
    listener: TcpListener,
    config: ConnectionsConfig,
    tls: Option<Tls>,
    metrics: Metrics,
}

impl Server {
    /// Without TLS, and with the limits of a [`ConnectionsConfig`] as it is by default.
    pub fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            config: ConnectionsConfig::default(),
            tls: None,
            metrics: Metrics::default(),
        }
    }

    /// With these limits.
    pub fn config(mut self, config: ConnectionsConfig) -> Self {
        self.config = config;
        self
    }

    /// Over TLS alone. Who speaks plain HTTP is answered 400, and told so.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Counts connections in `metrics`.
    pub fn counted_in(mut self, metrics: &Metrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` is cancelled, and then returns once all responses are finished. WebSockets
    /// are their handlers' to end. Dropped before, it accepts no more, and what was accepted is served on.
    pub async fn serve(mut self, app: Router, shutdown: CancellationToken) {
        let places = Places::new(&self.config);
        let serving = Arc::new(Serving {
            app,
            head_timeout: self.config.head_timeout,
            idle_timeout: self.config.idle_timeout,
            tls: self.tls,
            shutdown: shutdown.clone(),
        });
        let connections = TaskTracker::new();
        loop {
            // Waits a while where the process has no descriptors left.
            let (stream, address) = tokio::select! {
                accepted = Listener::accept(&mut self.listener) => accepted,
                () = shutdown.cancelled() => break,
            };
            let Some((place, turned_away)) = places.take(address.ip()) else {
                tracing::debug!(%address, "a client is cut off: too many are connected");
                continue;
            };
            let counted = self.metrics.connected();
            let connection = connection(Arc::clone(&serving), stream, address, turned_away);
            connections.spawn(async move {
                let _place: (Place, Counted) = (place, counted);
                connection.await;
            });
        }
        drop(self.listener);
        connections.close();
        connections.wait().await;
    }
}

async fn connection(
    serving: Arc<Serving>,
    stream: TcpStream,
    address: SocketAddr,
    turned_away: Option<TurnedAway>,
) {
    // Small answers go at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let peer = Peer {
        address,
        is_tls: serving.tls.is_some(),
    };
    if let Err(error) = serving.connection(stream, peer, turned_away).await {
        tracing::debug!(%address, %error, "a connection has ended");
    }
}

/// Why a client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnedAway {
    /// As many are connected as may be.
    Full,
    /// As many are connected from its address as may be.
    FullOfIts,
    /// It speaks HTTP where TLS is spoken.
    Plain,
}

impl TurnedAway {
    fn problem(self) -> Problem {
        let problem = match self {
            Self::Full => Problem::unavailable(
                "as many clients are connected as this server takes; come back later",
            ),
            Self::FullOfIts => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "as many clients are connected from your address as this server takes",
            )
            .with(RETRY_AFTER, HeaderValue::from_static("5")),
            Self::Plain => {
                Problem::bad_request("this port speaks TLS; the address begins with https://")
            }
        };
        problem.with(CONNECTION, HeaderValue::from_static("close"))
    }
}

/// How many more may be connected.
struct Places {
    free: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    by_address: Option<ByAddress>,
}

/// Taken, until it is dropped.
#[derive(Debug)]
struct Place {
    _free: OwnedSemaphorePermit,
    _of_address: Option<OfAddress>,
}

impl Places {
    fn new(config: &ConnectionsConfig) -> Self {
        let places = config.connections_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(places)),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
            by_address: config.connections_per_address_max.map(ByAddress::new),
        }
    }

    /// One for a client at `address`, to be served or to be turned away; `None` where there is neither.
    fn take(&self, address: IpAddr) -> Option<(Place, Option<TurnedAway>)> {
        let away = |why| {
            let place = Place {
                _free: Arc::clone(&self.turned_away).try_acquire_owned().ok()?,
                _of_address: None,
            };
            Some((place, Some(why)))
        };
        let of_address = match self.by_address.as_ref().map(|all| all.take(address)) {
            Some(None) => return away(TurnedAway::FullOfIts),
            taken => taken.flatten(),
        };
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(free) => {
                let place = Place {
                    _free: free,
                    _of_address: of_address,
                };
                Some((place, None))
            }
            Err(_) => away(TurnedAway::Full),
        }
    }
}

type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// How many are connected from each address.
struct ByAddress {
    max: usize,
    counts: Counts,
}

#[derive(Debug)]
struct OfAddress {
    address: IpAddr,
    counts: Counts,
}

impl ByAddress {
    fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            counts: Counts::default(),
        }
    }

    fn take(&self, address: IpAddr) -> Option<OfAddress> {
        let address = address.to_canonical();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(OfAddress {
            address,
            counts: Arc::clone(&self.counts),
        })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn each_address_and_all_together_have_so_many_places_and_get_them_back() {
        let places = Places::new(&ConnectionsConfig {
            connections_max: 3,
            connections_per_address_max: Some(2),
            ..ConnectionsConfig::default()
        });
        let why = |taken: &Option<(Place, Option<TurnedAway>)>| taken.as_ref().unwrap().1;
        let first = places.take(address(1));
        let second = places.take(address(1));
        assert_eq!((why(&first), why(&second)), (None, None));
        assert_eq!(why(&places.take(address(1))), Some(TurnedAway::FullOfIts));
        let third = places.take(address(2));
        assert_eq!(why(&third), None);
        assert_eq!(why(&places.take(address(3))), Some(TurnedAway::Full));

        drop(first);

        assert_eq!(why(&places.take(address(1))), None);
        drop((second, third));
        let counts = &places.by_address.as_ref().unwrap().counts;
        assert!(counts.lock().unwrap().is_empty());
    }

    #[test]
    fn no_more_than_some_are_told_why() {
        let places = Places::new(&ConnectionsConfig {
            connections_max: 1,
            ..ConnectionsConfig::default()
        });
        let served = places.take(address(1));
        let told: Vec<_> = (0..TURNED_AWAY_MAX)
            .map(|_| places.take(address(2)))
            .collect();
        assert!(told.iter().all(Option::is_some));
        assert!(places.take(address(2)).is_none());
        drop((served, told));
        assert!(places.take(address(2)).is_some());
    }
}
