//! Looks again and again for channels that nobody reads any more, and ends them; and for records that
//! retention would drop of those that stay.

use std::sync::{Arc, Weak};
use std::time::Duration;

use dacapo_log::Offset;
use tokio::time::MissedTickBehavior;

use super::service::Service;
use super::stored::Ending;

/// Until the service is gone.
pub(crate) async fn sweep(service: Weak<Service>, interval: Duration) {
    // A clock does not tick more often.
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // at once
    let mut oldest = None;
    loop {
        ticks.tick().await;
        let Some(service) = service.upgrade() else {
            return;
        };
        // Nothing is dropped before retention has dropped something else.
        let is_kept = oldest.replace(service.log.oldest()) == Some(service.log.oldest());
        sweep_once(service, is_kept).await;
    }
}

async fn sweep_once(service: Arc<Service>, is_kept: bool) {
    let sweeping = Arc::clone(&service);
    // Appending waits for the disk now and then, and there may be many.
    let swept = tokio::task::spawn_blocking(move || {
        let ended = end_expired(&sweeping);
        match is_kept {
            true => ended,
            false => ended.max(keep_records(&sweeping)),
        }
    });
    match swept.await {
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

fn end_expired(service: &Service) -> Option<Offset> {
    let expire_after = service.config.expire_after?;
    let mut last = None;
    for channel in service.expired(expire_after) {
        match service.end(&channel, Ending::Expired) {
            Ok(offset) => last = last.max(offset),
            Err(error) => {
                tracing::error!(%error, "a channel cannot expire; it is tried again later");
                break;
            }
        }
    }
    last
}

fn keep_records(service: &Service) -> Option<Offset> {
    service.keep_records().unwrap_or_else(|error| {
        tracing::error!(%error, "records of channels cannot be stored again; they may be dropped");
        None
    })
}
