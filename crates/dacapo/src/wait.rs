//! Waiting for a message, or for the end of the channel.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use dacapo_log::Arrival;
use event_listener::EventListener;

/// Resolves once something was appended, or the channel has something else to tell.
#[derive(Debug)]
pub(crate) struct Wait {
    arrival: Arrival,
    told: EventListener,
}

impl Wait {
    pub(crate) fn new(arrival: Arrival, told: EventListener) -> Self {
        Self { arrival, told }
    }

    /// Blocks the thread, until `deadline` at the latest: whether it has resolved.
    pub(crate) fn block(mut self, deadline: Option<Instant>) -> bool {
        let (parker, unparker) = parking::pair();
        let waker = unparker.into();
        let mut cx = Context::from_waker(&waker);
        loop {
            if Pin::new(&mut self).poll(&mut cx).is_ready() {
                return true;
            }
            match deadline {
                None => parker.park(),
                Some(deadline) if Instant::now() >= deadline => return false,
                Some(deadline) => _ = parker.park_deadline(deadline),
            }
        }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Both are asked: each has to know whom to wake.
        let arrived = Pin::new(&mut self.arrival).poll(cx).is_ready();
        let told = Pin::new(&mut self.told).poll(cx).is_ready();
        match arrived || told {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}
