//! What a server has done, for Prometheus: counters, gauges, and how long durability takes.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::middleware;
use axum::response::Response;
use axum::routing::get;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    exponential_buckets,
};

use crate::megaphone::Counts;
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
    appends: IntCounter,
    append_bytes: IntCounter,
    durable_wait: Histogram,
    connections: IntGauge,
    subscribers: IntGauge,
    errors: IntCounterVec,
    /// There once channels are served.
    megaphone: OnceLock<Arc<Counts>>,
}

/// One more, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(IntGauge);

impl Counted {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Says whatever a metric is made of.
const VALID: &str = "names, labels and buckets are those that Prometheus takes";

/// A metric, in a registry that has none of its name.
pub(crate) fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect(VALID);
    let registered = registry.register(Box::new(metric.clone()));
    registered.expect("each name is registered once");
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(name, help));
        // From 50 µs to 1.6 s.
        let buckets = exponential_buckets(50e-6, 2.0, 16).expect(VALID);
        let durable_wait = HistogramOpts::new(
            "dacapo_durable_wait_seconds",
            "How long requests waited until what they rest on was durable.",
        );
        let errors = Opts::new(
            "dacapo_errors_total",
            "Requests that were refused or failed.",
        );
        let inner = Inner {
            appends: counter("dacapo_appends_total", "Appends that were stored."),
            append_bytes: counter("dacapo_append_bytes_total", "What they held."),
            durable_wait: registered(
                &registry,
                Histogram::with_opts(durable_wait.buckets(buckets)),
            ),
            connections: gauge("dacapo_connections", "Clients that are connected."),
            subscribers: gauge(
                "dacapo_subscribers",
                "Long-polls and server-sent events of streams under way.",
            ),
            errors: registered(&registry, IntCounterVec::new(errors, &["status"])),
            megaphone: OnceLock::new(),
            registry,
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl Metrics {
    /// A router of one path, `/metrics`, in Prometheus's text format.
    pub fn router(&self) -> Router {
        let path = Router::new().route("/metrics", get(text));
        path.with_state(self.clone())
    }

    /// Counts those answers of `router` that are errors.
    pub fn count_errors(&self, router: Router) -> Router {
        let metrics = self.clone();
        router.layer(middleware::map_response(move |response: Response| {
            metrics.answered(response.status());
            async move { response }
        }))
    }

    /// A gauge whose value is read whenever somebody asks for it.
    ///
    /// ```
    /// use dacapo_server::metrics::Metrics;
    ///
    /// let metrics = Metrics::default();
    /// metrics.gauge("rooms_open", "Rooms that somebody is in.", || 3);
    /// ```
    ///
    /// # Panics
    /// Where `name` is none of a metric, or there is one of this name already.
    pub fn gauge(&self, name: &str, help: &str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let gauge = IntGauge::new(name, help).expect("the name is one of a metric");
        let read = Box::new(read);
        let registered = self
            .inner
            .registry
            .register(Box::new(Sampled { gauge, read }));
        registered.expect("there is no other metric of this name");
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
            let errors = &self.inner.errors;
            errors.with_label_values(&[status.as_str()]).inc();
        }
    }

    /// Those of Megaphone's channels, which all that count here share.
    pub(crate) fn megaphone(&self) -> Arc<Counts> {
        let counts = self.inner.megaphone.get_or_init(|| {
            let counts = Counts::registered(&self.inner.registry);
            Arc::new(counts)
        });
        Arc::clone(counts)
    }

    fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.inner.registry.gather())
    }
}

pub(crate) async fn text(
    State(metrics): State<Metrics>,
) -> Result<([(HeaderName, &'static str); 1], String), Problem> {
    let text = metrics.text();
    let text = text.map_err(|error| Problem::internal(&error))?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// A gauge that is set just before it is read.
struct Sampled {
    gauge: IntGauge,
    read: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Collector for Sampled {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge
            .set(i64::try_from((self.read)()).unwrap_or(i64::MAX));
        self.gauge.collect()
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
        metrics.gauge("rooms", "Rooms.", || 3);
        metrics.megaphone().channel_created.inc();
        // As a second router of channels does.
        metrics.megaphone().channel_created.inc();
        let connected = metrics.connected();
        drop(metrics.connected());

        let text = metrics.text().unwrap();
        drop(connected);

        for line in [
            "dacapo_appends_total 1",
            "dacapo_append_bytes_total 7",
            "dacapo_errors_total{status=\"404\"} 1",
            "dacapo_durable_wait_seconds_count 1",
            "dacapo_connections 1",
            "dacapo_subscribers 0",
            "rooms 3",
            "megaphone_channel_created 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        assert!(!text.contains("304"));
    }

    #[test]
    fn channels_that_are_not_served_are_not_counted() {
        let text = Metrics::default().text().unwrap();
        assert!(!text.contains("megaphone"), "{text}");
    }
}
