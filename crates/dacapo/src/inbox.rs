//! A place in a log from which messages are taken, by however many at once, and the wait for them.
//!
//! What a message is to those who take it, its bytes or its value, is theirs to say.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use dacapo_log::{Offset, ReadError, RecordRef, Start, Tailer};

use crate::channel::Shared;
use crate::error::ReceiveError;
use crate::wait::Wait;

#[derive(Debug)]
pub(crate) struct Inbox {
    tailer: Mutex<Tailer>,
    /// The tailer sees the channel's topic only. Otherwise records of topics are others'.
    is_labelled: bool,
    shared: Arc<Shared>,
}

impl Inbox {
    pub(crate) fn new(tailer: Tailer, is_labelled: bool, shared: Arc<Shared>) -> Self {
        Self {
            tailer: Mutex::new(tailer),
            is_labelled,
            shared,
        }
    }

    pub(crate) fn durable_only(self) -> Self {
        let tailer = self.tailer.into_inner();
        let tailer = tailer.unwrap_or_else(PoisonError::into_inner);
        Self {
            tailer: Mutex::new(tailer.durable_only()),
            ..self
        }
    }

    pub(crate) fn tailer(&self) -> MutexGuard<'_, Tailer> {
        // A codec that panics leaves the tailer behind its message, where it belongs.
        self.tailer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on from `start` instead.
    pub(crate) fn seek(&self, start: Start) {
        self.tailer().seek(start);
        self.ring();
    }

    /// Has those look again who wait: they may have something to receive now.
    pub(crate) fn ring(&self) {
        self.shared.bell.notify(usize::MAX);
    }

    /// Takes the next message, if it is there.
    pub(crate) fn try_with<R>(
        &self,
        take: impl FnOnce(RecordRef<'_>) -> R,
    ) -> Result<Option<R>, ReceiveError> {
        self.take(&mut self.tailer(), take)
    }

    /// As [`try_with`](Self::try_with), without taking it.
    pub(crate) fn peek<R>(
        &self,
        look: impl FnOnce(RecordRef<'_>) -> R,
    ) -> Result<Option<R>, ReceiveError> {
        let mut ahead = self.tailer().clone();
        self.take(&mut ahead, look)
    }

    /// As [`try_with`](Self::try_with), of a tailer that is locked already.
    pub(crate) fn take<R>(
        &self,
        tailer: &mut Tailer,
        take: impl FnOnce(RecordRef<'_>) -> R,
    ) -> Result<Option<R>, ReceiveError> {
        loop {
            // Before the look: what was sent before the closing is received.
            let closed = self.shared.is_closed();
            match tailer.try_next_ref() {
                Ok(Some(record)) if record.offset() >= self.shared.end() => {
                    let offset = record.offset();
                    tailer.seek(Start::AtOrOldest(offset));
                    return Err(ReceiveError::Removed);
                }
                Ok(Some(record)) if self.is_message(record) => return Ok(Some(take(record))),
                Ok(Some(_)) => {}
                Ok(None) => {
                    return match tailer.next_offset() >= self.shared.end() {
                        true => Err(ReceiveError::Removed),
                        false if closed && !self.awaits_durability(tailer) => {
                            Err(ReceiveError::Closed)
                        }
                        false => Ok(None),
                    };
                }
                Err(error) => {
                    if let Some(offset) = behind(&error) {
                        tailer.seek(Start::AtOrOldest(offset));
                    }
                    // That the log is closed is no news to whom it had ended for.
                    let is_over = tailer.next_offset() >= self.shared.end();
                    return match ReceiveError::from(error) {
                        ReceiveError::Closed if is_over => Err(ReceiveError::Removed),
                        error => Err(error),
                    };
                }
            }
        }
    }

    /// Whether there is a message that is only not received because it is not durable yet, or damage
    /// where there may be one. The log tells of its becoming so, and of its own end.
    fn awaits_durability(&self, tailer: &Tailer) -> bool {
        if !tailer.is_durable_only() {
            return false;
        }
        let mut ahead = tailer.clone().all_visible();
        loop {
            match ahead.try_next_ref() {
                Ok(Some(record)) if !self.is_message(record) => {}
                Ok(None) | Err(ReadError::Closed) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }

    /// Whether a record is a message of this channel: not that of a topic in a channel without one,
    /// and not the deletion of the messages before it.
    fn is_message(&self, record: RecordRef<'_>) -> bool {
        !record.is_deletion() && (self.is_labelled || !record.has_topic())
    }

    /// As [`is_message`](Self::is_message), and not one that was sent after the end.
    pub(crate) fn is_to_come(&self, record: RecordRef<'_>) -> bool {
        self.is_message(record) && record.offset() < self.shared.end()
    }

    /// Begins to wait; look again before waiting.
    fn wait(&self) -> Wait {
        let told = self.shared.bell.listen();
        Wait::new(self.tailer().arrival(), told)
    }

    /// Waits until a `look` finds something. Cancel-safe if that is.
    pub(crate) async fn wait_for<R>(
        &self,
        mut look: impl FnMut() -> Result<Option<R>, ReceiveError>,
    ) -> Result<R, ReceiveError> {
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            let wait = self.wait();
            // Look again: a message may have landed before we began to listen.
            if let Some(found) = look()? {
                return Ok(found);
            }
            wait.await;
        }
    }

    /// As [`wait_for`](Self::wait_for), blocking the thread, until `deadline` at the latest.
    pub(crate) fn block_for<R>(
        &self,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Result<Option<R>, ReceiveError>,
    ) -> Result<Option<R>, ReceiveError> {
        loop {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let wait = self.wait();
            // Look again: a message may have landed before we began to listen.
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if !wait.block(deadline) {
                return look();
            }
        }
    }

    /// As [`wait_for`](Self::wait_for), for a stream, which keeps its `wait` from poll to poll.
    pub(crate) fn poll_for<R>(
        &self,
        wait: &mut Option<Wait>,
        cx: &mut Context<'_>,
        mut look: impl FnMut() -> Result<Option<R>, ReceiveError>,
    ) -> Poll<Result<R, ReceiveError>> {
        loop {
            if let Some(found) = look().transpose() {
                *wait = None;
                return Poll::Ready(found);
            }
            match wait {
                // Look again: a message may have landed before we began to listen.
                None => *wait = Some(self.wait()),
                Some(begun) => {
                    ready!(Pin::new(begun).poll(cx));
                    *wait = None;
                }
            }
        }
    }
}

/// Another one at the same place.
impl Clone for Inbox {
    fn clone(&self) -> Self {
        Self {
            tailer: Mutex::new(self.tailer().clone()),
            is_labelled: self.is_labelled,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Where receiving goes on after an error that is said once.
fn behind(error: &ReadError) -> Option<Offset> {
    match *error {
        ReadError::Pruned { oldest, .. } => Some(oldest),
        ReadError::Rewound { resume_at, .. } => Some(resume_at),
        _ => None,
    }
}
