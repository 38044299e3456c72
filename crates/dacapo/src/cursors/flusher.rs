//! The thread that makes commits durable which nobody waits for.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::error::CursorError;
use super::store::Store;

/// How long a commit waits to be durable: as long as an append to the log does, by default.
const INTERVAL: Duration = Duration::from_secs(1);

/// A store that is flushed in the background, until dropped; that closes it.
#[derive(Debug)]
pub(super) struct Flushed {
    pub(super) store: Arc<Store>,
    thread: Option<JoinHandle<()>>,
}

impl Flushed {
    pub(super) fn start(store: Store) -> Result<Self, CursorError> {
        let store = Arc::new(store);
        let flushed = Arc::clone(&store);
        let thread = thread::Builder::new()
            .name("dacapo-cursors".to_owned())
            .spawn(move || run(&flushed))
            .map_err(|e| CursorError::io("start a thread for", store.dir(), e))?;
        Ok(Self {
            store,
            thread: Some(thread),
        })
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        self.store.stop_waiting();
        if let Some(thread) = self.thread.take() {
            // What failed in it is told to whoever commits next.
            let _ = thread.join();
        }
    }
}

fn run(store: &Store) {
    while store.wait_for_flush(INTERVAL) && store.flush().is_ok() {}
}
