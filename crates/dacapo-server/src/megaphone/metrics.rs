//! Megaphone's metrics, by their names.

use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, Registry, TextEncoder};

/// How long channels live, in seconds: from a delayed response to a day.
const DURATION_BUCKETS: [f64; 12] = [
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0,
];

pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) channel_created: IntCounter,
    pub(crate) channel_disposed: IntCounter,
    pub(crate) channel_duration: Histogram,
    pub(crate) messages_received: IntCounter,
    pub(crate) messages_read: IntCounter,
    pub(crate) messages_unroutable: IntCounter,
    pub(crate) messages_lost: IntCounter,
    pub(crate) consumer_address_writes: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("the name is one of a metric");
            let registered = registry.register(Box::new(counter.clone()));
            registered.expect("each name is registered once");
            counter
        };
        let options = HistogramOpts::new(
            "megaphone_channel_duration",
            "How long channels have lived that are gone, in seconds.",
        );
        let duration = Histogram::with_opts(options.buckets(DURATION_BUCKETS.to_vec()));
        let channel_duration = duration.expect("the buckets rise");
        let registered = registry.register(Box::new(channel_duration.clone()));
        registered.expect("each name is registered once");
        Self {
            channel_created: counter("megaphone_channel_created", "Channels created."),
            channel_disposed: counter(
                "megaphone_channel_disposed",
                "Channels that have expired or were deleted.",
            ),
            channel_duration,
            messages_received: counter("megaphone_messages_received", "Messages stored durably."),
            messages_read: counter(
                "megaphone_messages_read",
                "Messages handed to readers, repeated ones included.",
            ),
            messages_unroutable: counter(
                "megaphone_messages_unroutable",
                "Messages to channels that there are not.",
            ),
            messages_lost: counter(
                "megaphone_messages_lost",
                "Messages that were unread when their channel went.",
            ),
            consumer_address_writes: counter(
                "megaphone_consumer_address_writes",
                "Writes with the address of a consumer, allowed or not.",
            ),
            registry,
        }
    }

    /// In Prometheus's text format, with the type of that.
    pub(crate) fn text(&self) -> (String, Vec<u8>) {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        let encoded = encoder.encode(&self.registry.gather(), &mut text);
        encoded.expect("a vector takes all that is written");
        (encoder.format_type().to_owned(), text)
    }
}
