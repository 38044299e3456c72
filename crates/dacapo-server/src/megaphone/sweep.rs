//! Looks again and again for channels that nobody reads any more, and ends them.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::service::Service;
use super::stored::Ending;

/// Until the service is gone.
pub(crate) async fn sweep(service: Weak<Service>, interval: Duration, expire_after: Duration) {
    // A clock does not tick more often.
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // at once
    loop {
        ticks.tick().await;
        let Some(service) = service.upgrade() else {
            return;
        };
        end_expired(service, expire_after).await;
    }
}

async fn end_expired(service: Arc<Service>, expire_after: Duration) {
    let expired = service.expired(expire_after);
    if expired.is_empty() {
        return;
    }
    let ending = Arc::clone(&service);
    // Appending waits for the disk now and then, and there may be many.
    let ended = tokio::task::spawn_blocking(move || {
        let mut last = None;
        for channel in expired {
            match ending.end(&channel, Ending::Expired) {
                Ok(offset) => last = last.max(offset),
                Err(error) => {
                    tracing::error!(%error, "a channel cannot expire; it is tried again later");
                    break;
                }
            }
        }
        last
    });
    match ended.await {
        Ok(Some(last)) => {
            // The webhooks are told of what is durable.
            if let Err(error) = service.log.durable(last).await {
                tracing::error!(%error, "what has expired may come back with the next start");
            }
        }
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "the sweep broke off"),
    }
}
