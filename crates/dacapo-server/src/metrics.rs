//! What a server has done, for Prometheus: counters, gauges, and how long durability takes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::problem::Problem;

/// Counts what a server does; cheap to clone.
///
/// ```
/// use dacapo_server::metrics::Metrics;
/// use dacapo_server::streams::StreamsConfig;
///
/// let metrics = Metrics::default();
/// let config = StreamsConfig {
///     metrics: metrics.clone(),
///     ..StreamsConfig::default()
/// };
/// let app: axum::Router = metrics.router(); // beside that of the streams
/// # let _ = (app, config);
/// ```
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Registry,
    appends: Counter,
    append_bytes: Counter,
    durable_wait: Histogram,
    connections: Gauge,
    subscribers: Gauge,
    errors: Family<Status, Counter<u64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: u16,
}

/// One more, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let appends = Counter::default();
        let append_bytes = Counter::default();
        // From 50 µs to 1.6 s.
        let durable_wait = Histogram::new(exponential_buckets(50e-6, 2.0, 16));
        let connections = Gauge::default();
        let subscribers = Gauge::default();
        let errors = Family::default();
        let mut registry = Registry::with_prefix("dacapo");
        registry.register("appends", "Appends that were stored", appends.clone());
        registry.register_with_unit(
            "append",
            "What they held",
            Unit::Bytes,
            append_bytes.clone(),
        );
        registry.register_with_unit(
            "durable_wait",
            "How long requests waited until what they rest on was durable",
            Unit::Seconds,
            durable_wait.clone(),
        );
        registry.register(
            "connections",
            "Clients that are connected",
            connections.clone(),
        );
        registry.register(
            "subscribers",
            "Long-polls and server-sent events under way",
            subscribers.clone(),
        );
        registry.register(
            "errors",
            "Requests that were refused or failed",
            errors.clone(),
        );
        Self {
            inner: Arc::new(Inner {
                registry,
                appends,
                append_bytes,
                durable_wait,
                connections,
                subscribers,
                errors,
            }),
        }
    }
}

impl Metrics {
    /// A router of one path, `/metrics`, in the text form of OpenMetrics.
    pub fn router(&self) -> Router {
        let path = Router::new().route("/metrics", get(text));
        path.with_state(self.clone())
    }

    pub(crate) fn appended(&self, bytes: usize) {
        self.inner.appends.inc();
        self.inner.append_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn waited_since(&self, begin: Instant) {
        let waited = begin.elapsed().as_secs_f64();
        self.inner.durable_wait.observe(waited);
    }

    pub(crate) fn connected(&self) -> Counted {
        Counted::new(&self.inner.connections)
    }

    pub(crate) fn subscribed(&self) -> Counted {
        Counted::new(&self.inner.subscribers)
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        if status.is_client_error() || status.is_server_error() {
            let status = status.as_u16();
            self.inner.errors.get_or_create(&Status { status }).inc();
        }
    }
}

async fn text(
    State(metrics): State<Metrics>,
) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    let mut text = String::new();
    encode(&mut text, &metrics.inner.registry).map_err(|error| Problem::internal(&error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text))
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.appended(7);
        metrics.answered(StatusCode::NOT_FOUND);
        metrics.answered(StatusCode::NOT_MODIFIED);
        metrics.waited_since(Instant::now());
        let connected = metrics.connected();
        drop(metrics.connected());

        let mut text = String::new();
        encode(&mut text, &metrics.inner.registry).unwrap();
        drop(connected);

        for line in [
            "dacapo_appends_total 1",
            "dacapo_append_bytes_total 7",
            "dacapo_errors_total{status=\"404\"} 1",
            "dacapo_durable_wait_seconds_count 1",
            "dacapo_connections 1",
            "dacapo_subscribers 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("304"));
    }
}
