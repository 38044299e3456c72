//! Waiting for what a tailer reads next, apart from the tailer: by many at once, or beside other events.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use event_listener::{EventListener, Listener};

use crate::topics::TopicListener;

/// Resolves once something has been appended that concerns a tailer; made by
/// [`Tailer::arrival`](crate::Tailer::arrival).
///
/// It borrows nothing, so that several can wait for one tailer, and so that a wait can be raced
/// against other events. Waiting is: look, make an arrival, look again, wait. It may resolve though
/// there is nothing to read, and also when the log is closed.
///
/// ```
/// use dacapo_log::{Log, Start};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path())?;
/// let mut tailer = log.tail(Start::Oldest);
///
/// let arrival = tailer.arrival();
/// assert!(tailer.try_next()?.is_none()); // nothing came before we began to listen
/// log.append(b"now")?;
/// arrival.wait();
/// assert_eq!(tailer.try_next()?.expect("it came").payload(), b"now");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an arrival has to be waited for"]
pub struct Arrival {
    /// `None` once it has resolved.
    listening: Option<Listening>,
}

/// What is listened to.
#[derive(Debug)]
pub(crate) enum Listening {
    /// Any record.
    All(EventListener),
    /// Those of some topics.
    Topics(TopicListener),
}

impl Arrival {
    pub(crate) fn new(listening: Listening) -> Self {
        Self {
            listening: Some(listening),
        }
    }

    /// Waits, blocking the thread.
    pub fn wait(mut self) {
        match self.listening.take() {
            Some(Listening::All(listener)) => listener.wait(),
            Some(Listening::Topics(listener)) => _ = listener.wait(None),
            None => {}
        }
    }

    /// As [`wait`](Self::wait), until `deadline` at the latest: whether it has resolved.
    pub fn wait_until(mut self, deadline: Instant) -> bool {
        match self.listening.take() {
            Some(Listening::All(listener)) => listener.wait_deadline(deadline).is_some(),
            Some(Listening::Topics(listener)) => listener.wait(Some(deadline)),
            None => true,
        }
    }
}

impl Future for Arrival {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.listening {
            Some(Listening::All(listener)) => ready!(Pin::new(listener).poll(cx)),
            Some(Listening::Topics(listener)) => ready!(listener.poll(cx)),
            None => return Poll::Ready(()),
        }
        // A topics listener ends the listening to its other topics.
        self.end();
        Poll::Ready(())
    }
}

impl Arrival {
    /// Ends it without a word to others, who are told themselves.
    fn end(&mut self) {
        match self.listening.take() {
            Some(Listening::All(listener)) => drop(listener.discard()),
            Some(Listening::Topics(listener)) => listener.discard(),
            None => {}
        }
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.end();
    }
}
