//! `DELETE`, and the end of streams whose time is over: in one batch with what becomes of their forks'
//! sources.

use std::sync::Arc;

use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use dacapo_log::{Offset, ReadError, Topic};

use super::service::{self, Service, blocking};
use super::state::Change;
use super::stream::{Slot, Stream};
use crate::problem::Problem;

pub(crate) async fn delete(
    Extract(service): Extract<Arc<Service>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let stream = service.open(&name).await?;
    let deleting = Arc::clone(&service);
    let end = blocking(move || deleting.remove(&stream)).await?;
    service.settled(end).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why a stream may have to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Deleted,
    /// A fork of it is no more.
    ForkGone,
}

impl Service {
    fn remove(&self, stream: &Stream) -> Result<Offset, Problem> {
        let _forking = self.lock_forking();
        service::present(&mut *stream.load(&self.log)?)?;
        self.release(stream, Cause::Deleted, Vec::new())
    }

    /// Looks at all streams, deletes those whose time is over, and keeps the state of the others from being
    /// dropped.
    pub(crate) fn delete_expired(&self) -> Result<u64, ReadError> {
        let mut deleted = 0;
        let oldest = self.log.oldest();
        let middle = oldest.plus(self.log.next_offset().since(oldest) / 2);
        for found in self.log.topics().prefix(service::CONTROL) {
            let topic = found?.topic;
            let name = &topic.as_str()[service::CONTROL.len()..];
            let Ok(stream) = self.stream(name) else {
                continue; // somebody else's topic
            };
            let looked = self.refresh(&stream).and_then(|is_deleted| {
                // Nothing is dropped before retention has dropped something else.
                if oldest > Offset::ZERO {
                    self.keep_state(&stream, middle)?;
                }
                Ok(is_deleted)
            });
            match looked {
                Ok(is_deleted) => deleted += u64::from(is_deleted),
                Err(problem) => tracing::warn!(name, ?problem, "a stream cannot be looked at"),
            }
        }
        Ok(deleted)
    }

    /// Stores the state of a stream again that is in the older half of the log, which retention comes to
    /// next. Nobody waits for the disk: the older one is there until then.
    fn keep_state(&self, stream: &Stream, middle: Offset) -> Result<(), Problem> {
        let mut slot = stream.load(&self.log)?;
        if let Slot::Present(present) = &mut *slot
            && present.since < middle
        {
            let state = present.state.clone();
            let bytes = Change::State(Box::new(state.clone())).to_bytes();
            let offset = self.log.append_to(&stream.control, &bytes)?;
            let end = present.end;
            present.stored(state, offset, end);
        }
        Ok(())
    }

    /// Deletes a stream whose time is over, unless somebody has used it meanwhile.
    pub(crate) fn expire(&self, stream: &Stream) -> Result<(), Problem> {
        let _forking = self.lock_forking();
        let is_over = service::is_over(&*stream.load(&self.log)?);
        if is_over {
            self.release(stream, Cause::Deleted, Vec::new())?;
        }
        Ok(())
    }

    /// Takes a stream away, or keeps it for the forks that are left, and appends that behind `batch`,
    /// which says it of its forks. Returns where the batch ends.
    fn release(
        &self,
        stream: &Stream,
        cause: Cause,
        mut batch: Vec<(Topic, Vec<u8>)>,
    ) -> Result<Offset, Problem> {
        let mut slot = stream.load(&self.log)?;
        let Slot::Present(present) = &mut *slot else {
            return Ok(self.log.append_batch_to(batch)?.end);
        };
        let state = &present.state;
        let forks = state
            .forks
            .saturating_sub(u64::from(cause == Cause::ForkGone));
        let gone = state.gone || cause == Cause::Deleted;
        if gone && forks == 0 {
            batch.push((stream.control.clone(), Change::Deleted.to_bytes()));
            let end = match &state.fork {
                Some(fork) => self.release(&*self.stream(&fork.from)?, Cause::ForkGone, batch)?,
                None => self.log.append_batch_to(batch)?.end,
            };
            *slot = Slot::Absent;
            stream.forget(&self.log);
            return Ok(end);
        }
        let changed = present.changed(forks, gone);
        let bytes = Change::State(Box::new(changed.clone())).to_bytes();
        let before = batch.len() as u64;
        batch.push((stream.control.clone(), bytes));
        let offsets = self.log.append_batch_to(batch)?;
        present.stored(changed, offsets.start.plus(before), offsets.end);
        Ok(offsets.end)
    }
}
