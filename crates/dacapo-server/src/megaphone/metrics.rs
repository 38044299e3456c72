//! Megaphone's metrics, by their names.

use prometheus::{Histogram, HistogramOpts, IntCounter, Registry};

use crate::metrics::registered;

/// How long channels live, in seconds: from a delayed response to a day.
const DURATION_BUCKETS: [f64; 12] = [
    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0,
];

/// What was done with channels.
pub(crate) struct Counts {
    pub(crate) channel_created: IntCounter,
    pub(crate) channel_disposed: IntCounter,
    pub(crate) channel_duration: Histogram,
    pub(crate) messages_received: IntCounter,
    pub(crate) messages_read: IntCounter,
    pub(crate) messages_unroutable: IntCounter,
    pub(crate) messages_lost: IntCounter,
    pub(crate) consumer_address_writes: IntCounter,
}

impl Counts {
    /// Those of a registry that has none of them yet.
    pub(crate) fn registered(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| registered(registry, IntCounter::new(name, help));
        let duration = HistogramOpts::new(
            "megaphone_channel_duration",
            "How long channels have lived that are gone, in seconds.",
        );
        let duration = duration.buckets(DURATION_BUCKETS.to_vec());
        Self {
            channel_created: counter("megaphone_channel_created", "Channels created."),
            channel_disposed: counter(
                "megaphone_channel_disposed",
                "Channels that have expired or were deleted.",
            ),
            channel_duration: registered(registry, Histogram::with_opts(duration)),
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
        }
    }
}
