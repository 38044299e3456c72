//! The thread that writes the index files of sealed segments, off the appender's.
//!
//! Best effort: without a file, whoever needs it asks the segment itself.

use std::sync::{Arc, PoisonError};

use crate::disk::Disk;
use crate::error::FileError;
use crate::format::TopicsFileBuilder;
use crate::index;
use crate::segment::Segment;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::topics;

/// A sealed segment whose files are to be written.
#[derive(Debug)]
struct Order {
    segment: Arc<Segment>,
    /// Some of its frames have a topic or a stamp.
    is_labelled: bool,
}

#[derive(Debug)]
pub(crate) struct Indexer {
    shared: Arc<IndexerState>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct IndexerState {
    disk: Disk,
    desk: Mutex<Desk>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Desk {
    orders: Vec<Order>,
    stopped: bool,
}

impl Indexer {
    pub(crate) fn start(disk: &Disk, dir: &std::path::Path) -> Result<Self, FileError> {
        let shared = Arc::new(IndexerState {
            disk: disk.clone(),
            desk: Mutex::default(),
            changed: Condvar::new(),
        });
        let state = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("dacapo-index".to_owned())
            .spawn(move || state.work())
            .map_err(|e| FileError::new("start a thread for", dir, e))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Lets the thread write the files of a sealed segment.
    pub(crate) fn order(&self, segment: &Arc<Segment>, is_labelled: bool) {
        let mut desk = self.shared.desk();
        let is_it = |order: &Order| order.segment.base() == segment.base();
        if !desk.stopped && !desk.orders.iter().any(is_it) {
            desk.orders.push(Order {
                segment: Arc::clone(segment),
                is_labelled,
            });
            self.shared.changed.notify_all();
        }
    }

    /// Stops the thread, once it has done what was ordered.
    pub(crate) fn stop(&self) {
        self.shared.desk().stopped = true;
        self.shared.changed.notify_all();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // A panic there was printed there; nothing of the log depends on it.
            let _ = thread.join();
        }
    }
}

impl Drop for Indexer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl IndexerState {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut desk = self.desk();
        loop {
            if let Some(order) = desk.orders.pop() {
                drop(desk);
                let _ = self.write(&order);
                drop(order);
                desk = self.desk();
            } else if desk.stopped {
                return;
            } else {
                desk = self
                    .changed
                    .wait(desk)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn write(&self, order: &Order) -> Result<(), FileError> {
        let segment = &order.segment;
        let (dir, base, nonce) = (segment.dir(), segment.base(), segment.nonce());
        index::store(
            &self.disk,
            dir,
            base,
            nonce,
            &segment.index_points(&self.disk),
        )?;
        let Some(Ok(span)) = segment.end().map(|end| u32::try_from(end.since(base))) else {
            return Ok(());
        };
        let topics = match order.is_labelled {
            true => segment.with_topics(|index| index.encode(segment.published(), nonce, span)),
            // All of them are there: what a compaction has left something out of counts as labelled.
            false => TopicsFileBuilder::new(nonce, span, span).finish(&[]),
        };
        if let Some(topics) = topics {
            topics::store(&self.disk, dir, base, &topics)?;
            segment.forget_topics();
        }
        Ok(())
    }
}
