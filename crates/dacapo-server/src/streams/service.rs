//! What all requests share: finding a stream by its name, and waiting for the disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use dacapo_log::{Log, Offset, Topic};

use super::StreamsConfig;
use super::registry::Registry;
use super::stream::{self, Present, Slot, Stream};
use crate::problem::Problem;
use crate::reserved;

/// What the control topic of a stream is called: this, and then the stream's name.
pub(crate) const CONTROL: &str = "__ds/";

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) log: Log,
    pub(crate) config: StreamsConfig,
    pub(crate) registry: Registry,
    /// Held while a fork is made or a stream deleted: each of these changes several streams.
    pub(crate) forking: Mutex<()>,
}

impl Service {
    pub(crate) fn lock_forking(&self) -> MutexGuard<'_, ()> {
        self.forking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a name in memory.
    pub(crate) fn stream(&self, name: &str) -> Result<Arc<Stream>, Problem> {
        let (data, control) = topics(name)?;
        Ok(self.registry.get(&data, || control))
    }

    /// The stream of this name, read from the log, and deleted if its time was over.
    pub(crate) async fn open(self: &Arc<Self>, name: &str) -> Result<Arc<Stream>, Problem> {
        let stream = self.stream(name)?;
        if !stream.is_read() || is_over(&stream.lock()) {
            let service = Arc::clone(self);
            let opened = Arc::clone(&stream);
            blocking(move || service.refresh(&opened)).await?;
        }
        Ok(stream)
    }

    /// As [`open`](Self::open), where waiting for the disk is no matter; true if it was deleted.
    pub(crate) fn refresh(&self, stream: &Stream) -> Result<bool, Problem> {
        let is_over = is_over(&*stream.load(&self.log)?);
        if is_over {
            self.expire(stream)?;
        }
        Ok(is_over)
    }

    /// Waits until everything before `end` survives a power cut.
    pub(crate) async fn settled(&self, end: Offset) -> Result<(), Problem> {
        let begin = Instant::now();
        if stream::settled(&self.log, end).await? {
            self.config.metrics.waited_since(begin);
        }
        Ok(())
    }
}

/// Whether there is a stream whose time is over.
pub(crate) fn is_over(slot: &Slot) -> bool {
    matches!(slot, Slot::Present(present) if !present.state.gone && present.is_over())
}

/// The stream in a slot, unless there is none, or it is kept for its forks only.
pub(crate) fn present(slot: &mut Slot) -> Result<&mut Present, Problem> {
    match slot {
        Slot::Present(present) if present.state.gone => Err(gone()),
        Slot::Present(present) => Ok(present),
        Slot::Unread | Slot::Absent => Err(not_found()),
    }
}

pub(crate) fn not_found() -> Problem {
    let detail = "there is no such stream; create it with PUT";
    Problem::new(StatusCode::NOT_FOUND, detail)
}

pub(crate) fn gone() -> Problem {
    let detail = "the stream was deleted, and its name is free once its forks are, too";
    Problem::new(StatusCode::GONE, detail)
}

/// The topics of a stream's data and control records.
fn topics(name: &str) -> Result<(Topic, Topic), Problem> {
    if reserved::is_reserved(name) {
        return Err(Problem::bad_request(format!(
            "names of streams do not begin with {}",
            reserved::PREFIX
        )));
    }
    let parse = |name: &str| {
        Topic::new(name).map_err(|_| {
            Problem::bad_request(format!(
                "a stream's name has 1 to {} bytes, and this one {}",
                Topic::BYTES_MAX - CONTROL.len(),
                name.len()
            ))
        })
    };
    let control = parse(&format!("{CONTROL}{name}"))?;
    Ok((parse(name)?, control))
}

/// Runs what waits for the disk where it keeps no other request waiting.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::internal(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leaves_room_for_its_control_topic() {
        let (data, control) = topics("rooms/lobby").unwrap();
        assert_eq!(
            (data.as_str(), control.as_str()),
            ("rooms/lobby", "__ds/rooms/lobby")
        );
        assert!(topics(&"x".repeat(250)).is_ok());
        for name in ["", "__ds/x", "__mp/c/x", &"x".repeat(251)] {
            assert!(topics(name).is_err(), "{name}");
        }
    }
}
