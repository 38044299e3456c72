//! What is broadcast in a topic, as one channel reads it: the records of its log, and what lives in
//! memory, in one order.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use dacapo_log::{Offset, ReadError, Record, Tailer};
use tokio::sync::broadcast::{self, error::RecvError, error::TryRecvError};

use super::durable::{Durable, Tail};
use super::topic::Local;

/// The broadcasts of a topic, as they come.
///
/// What is in memory says behind which record it was sent, and comes there.
#[derive(Debug)]
pub(super) struct Feed {
    ring: broadcast::Receiver<Arc<Local>>,
    local: Option<Arc<Local>>,
    log: Option<(Durable, Tailer)>,
    record: Option<Record>,
    /// Records that this channel has broadcast to all but itself.
    own: VecDeque<Offset>,
}

/// Something that was broadcast.
#[derive(Debug)]
pub(super) enum Item {
    Local(Arc<Local>),
    Record(Record),
}

/// Why a channel cannot go on without missing something: its client must join again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("fell {0} broadcasts behind")]
    Lagged(u64),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Broken {
    /// What the client is told.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Lagged(_) => "too_slow",
            Self::Read(ReadError::Closed) => "log_closed",
            Self::Read(_) => "log_unreadable",
        }
    }
}

impl Feed {
    pub(super) fn new(ring: broadcast::Receiver<Arc<Local>>) -> Self {
        Self {
            ring,
            local: None,
            log: None,
            record: None,
            own: VecDeque::new(),
        }
    }

    pub(super) fn read(&mut self, durable: Durable, tail: Tail) {
        self.log = Some((durable, tail.tailer));
        self.record = tail.first;
    }

    pub(super) fn durable(&self) -> Option<&Durable> {
        self.log.as_ref().map(|(durable, _)| durable)
    }

    /// This record is not for this channel's client.
    pub(super) fn pass_over(&mut self, offset: Offset) {
        self.own.push_back(offset);
    }

    /// Whether everything before and at `offset` has been taken.
    pub(super) fn is_behind(&self, offset: Offset) -> bool {
        let Some((_, tailer)) = &self.log else {
            return true;
        };
        self.record.is_none() && tailer.next_offset() > offset
    }

    /// The next one, if it is there.
    pub(super) fn try_take(&mut self) -> Result<Option<Item>, Broken> {
        loop {
            if self.local.is_none() {
                self.local = match self.ring.try_recv() {
                    Ok(local) => Some(local),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => None,
                    Err(TryRecvError::Lagged(missed)) => return Err(Broken::Lagged(missed)),
                };
            }
            // Behind the look into memory: the records before what was there are there too.
            if self.record.is_none()
                && let Some((_, tailer)) = &mut self.log
            {
                self.record = tailer.try_next()?;
            }
            if self.local_is_next() {
                return Ok(self.local.take().map(Item::Local));
            }
            let Some(record) = self.record.take() else {
                return Ok(None);
            };
            // Look again: what was sent before this record may be in memory by now.
            if self.local.is_none() && !self.ring.is_empty() {
                self.record = Some(record);
                continue;
            }
            if self.own.front() == Some(&record.offset()) {
                self.own.pop_front();
                continue;
            }
            if !record.is_deletion() {
                return Ok(Some(Item::Record(record)));
            }
        }
    }

    fn local_is_next(&self) -> bool {
        match (&self.local, &self.record, &self.log) {
            (None, ..) => false,
            (Some(local), Some(record), _) => local.after <= record.offset().get(),
            (Some(local), None, Some((_, tailer))) => local.after <= tailer.next_offset().get(),
            (Some(_), None, None) => true,
        }
    }

    /// Waits until there may be something to take. Cancel-safe.
    pub(super) async fn wait(&mut self) -> Result<(), Broken> {
        if self.record.is_some() || self.local_is_next() {
            return Ok(());
        }
        let record = async {
            match &mut self.log {
                Some((_, tailer)) => tailer.next().await,
                None => pending().await,
            }
        };
        let local = async {
            match &self.local {
                // It waits for records.
                Some(_) => pending().await,
                None => self.ring.recv().await,
            }
        };
        tokio::select! {
            read = record => self.record = Some(read?),
            received = local => match received {
                Ok(local) => self.local = Some(local),
                Err(RecvError::Lagged(missed)) => return Err(Broken::Lagged(missed)),
                Err(RecvError::Closed) => unreachable!("the topic lives as long as its channels"),
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use dacapo_log::{Log, Start};

    use super::*;
    use crate::phoenix::payload::Payload;
    use crate::phoenix::topic::{Kind, Topics};

    #[test]
    fn what_one_sends_to_memory_and_to_the_log_comes_in_the_order_of_its_sending() {
        const PAIRS: usize = 2_000;
        let dir = tempfile::tempdir().unwrap();
        let durable = Durable::new(&Log::open(dir.path()).unwrap());
        let topic = Arc::<Topics>::default().join("t", PAIRS);
        let mut feed = Feed::new(topic.listen());
        let tail = durable.tail(&durable.topic("t").unwrap(), Start::Latest);
        feed.read(durable.clone(), tail.unwrap());
        let taken = AtomicUsize::new(0);
        let mut misplaced = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..PAIRS {
                    // Only one who has read all can look between the two.
                    while taken.load(Ordering::Acquire) < 2 * n {
                        thread::yield_now();
                    }
                    topic.send(Kind::Broadcast { from: None }, "e", Payload::empty());
                    topic.appended(durable.append("t", "e", &Payload::empty()).unwrap());
                }
            });
            for n in 0..2 * PAIRS {
                let item = loop {
                    match feed.try_take().unwrap() {
                        Some(item) => break item,
                        None => thread::yield_now(),
                    }
                };
                misplaced += usize::from(matches!(item, Item::Local(_)) != (n % 2 == 0));
                taken.store(n + 1, Ordering::Release);
            }
        });
        assert_eq!(misplaced, 0);
    }
}
