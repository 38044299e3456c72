//! Limits on how often a client asks, and on how many follow at once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{Extensions, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Authorizer;
use crate::connections::Peer;
use crate::problem::Problem;

/// After so many requests, clients that could ask anew at their full rate are forgotten.
const FORGET_EVERY: u64 = 10_000;

/// How often a client may ask. As often as it likes, by default.
///
/// ```
/// use dacapo_server::limits::RateConfig;
///
/// let config: RateConfig = serde_json::from_str(r#"{"requests_per_second": 50}"#)?;
/// assert_eq!(config.burst(), 50);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateConfig {
    /// How many requests a client may make in a second, over a while. `None`, or 0: as many as it likes.
    pub requests_per_second: Option<u32>,
    /// How many at once; by default as many as in a second.
    pub requests_burst: Option<u32>,
}

impl RateConfig {
    /// How many requests a client may make at once; 0 where there is no limit.
    #[must_use]
    pub fn burst(&self) -> u32 {
        let per_second = self.requests_per_second.unwrap_or(0);
        match per_second {
            0 => 0,
            _ => self.requests_burst.unwrap_or(per_second).max(1),
        }
    }

    /// The limits that this asks for, if it does.
    #[must_use]
    pub fn limits(&self) -> Option<RateLimits> {
        let per_second = NonZeroU32::new(self.requests_per_second.unwrap_or(0))?;
        let burst = NonZeroU32::new(self.burst())?;
        Some(RateLimits::new(per_second, burst))
    }
}

/// Limits how often a client asks: 429 with `Retry-After` beyond that. Cheap to clone; clones count
/// together.
///
/// A client is whoever has a token that is good: all tokens of one `sub` are one, and so is a token for a
/// URL and the one that it was asked for with. Without a good token, it is an address of IPv4, or the
/// first 64 bits of one of IPv6, so that tokens cannot be guessed any faster. The address is known where
/// a [`connections::Server`](crate::connections::Server) serves; otherwise all of these are one.
///
/// ```
/// use std::num::NonZeroU32;
/// use axum::Router;
/// use dacapo_server::limits::RateLimits;
///
/// let ten = NonZeroU32::new(10).unwrap();
/// let app: Router = RateLimits::new(ten, ten).limit(Router::new(), None);
/// ```
#[derive(Clone)]
pub struct RateLimits {
    inner: Arc<Inner>,
}

type Limiter = RateLimiter<Client, DefaultKeyedStateStore<Client>, DefaultClock, NoOpMiddleware>;

struct Inner {
    limiter: Limiter,
    clock: DefaultClock,
    asked: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Client {
    Token(u64),
    V4([u8; 4]),
    /// A network of IPv6 is given to one.
    V6([u8; 8]),
    Unknown,
}

impl RateLimits {
    /// So many requests in a second over a while, and so many at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let inner = Inner {
            limiter: RateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            asked: AtomicU64::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Lets each client ask `router` no more often; who it is, its token tells, if `auth` knows it.
    pub fn limit(&self, router: Router, auth: Option<&Authorizer>) -> Router {
        let limit = Limit {
            limits: self.clone(),
            auth: auth.cloned(),
        };
        router.layer(middleware::from_fn_with_state(limit, check))
    }

    fn check(&self, client: Client) -> Result<(), Problem> {
        let Inner {
            limiter,
            clock,
            asked,
        } = &*self.inner;
        if asked.fetch_add(1, Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            limiter.retain_recent();
        }
        limiter.check_key(&client).map_err(|not_until| {
            let wait = not_until.wait_time_from(clock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let detail = format!("too many requests; ask again in {}", said(wait));
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
                .with(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
        })
    }
}

fn said(wait: Duration) -> String {
    format!("{:.1} s", wait.as_secs_f64().max(0.1))
}

#[derive(Clone)]
struct Limit {
    limits: RateLimits,
    auth: Option<Authorizer>,
}

/// In a request that was counted: it is not counted again by what serves it.
#[derive(Clone)]
struct CountedBy(Arc<Inner>);

async fn check(State(limit): State<Limit>, mut request: Request, next: Next) -> Response {
    // What a browser asks on its own, and no handler sees.
    if request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    let limits = &limit.limits;
    let counted = request.extensions().get::<CountedBy>();
    if counted.is_some_and(|counted| Arc::ptr_eq(&counted.0, &limits.inner)) {
        return next.run(request).await;
    }
    let identity = limit
        .auth
        .as_ref()
        .and_then(|auth| auth.identify_request(&mut request).ok());
    let client = match identity {
        Some(identity) => Client::Token(identity.client()),
        None => address(request.extensions()),
    };
    match limits.check(client) {
        Ok(()) => {
            let counted = CountedBy(Arc::clone(&limits.inner));
            request.extensions_mut().insert(counted);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn address(extensions: &Extensions) -> Client {
    let peer = extensions
        .get::<ConnectInfo<Peer>>()
        .map(|info| info.0.address());
    // As axum's own server tells it, where it is asked to.
    let peer = peer.or(extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|info| info.0));
    match peer.map(|peer| peer.ip().to_canonical()) {
        Some(IpAddr::V4(address)) => Client::V4(address.octets()),
        Some(IpAddr::V6(address)) => {
            let [network @ .., _, _, _, _, _, _, _, _] = address.octets();
            Client::V6(network)
        }
        None => Client::Unknown,
    }
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits")
            .field("clients", &self.inner.limiter.len())
            .finish_non_exhaustive()
    }
}

/// How many may follow at once, over all faces that share it: 503 with `Retry-After` beyond that. Cheap to
/// clone; clones count together.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    free: Arc<Semaphore>,
}

/// One that follows, until it is dropped.
#[derive(Debug)]
pub(crate) struct Subscribed {
    _place: OwnedSemaphorePermit,
}

impl Subscriptions {
    /// At most so many.
    #[must_use]
    pub fn at_most(subscriptions: usize) -> Self {
        let places = subscriptions.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(places)),
        }
    }

    pub(crate) fn subscribe(&self) -> Result<Subscribed, Problem> {
        let place = Arc::clone(&self.free).try_acquire_owned();
        let place = place.map_err(|_| {
            Problem::unavailable("as many clients follow as this server takes; come back later")
        })?;
        Ok(Subscribed { _place: place })
    }
}

impl Default for Subscriptions {
    /// No limit.
    fn default() -> Self {
        Self::at_most(usize::MAX)
    }
}
