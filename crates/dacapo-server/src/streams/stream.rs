//! One stream: its state in memory, read from its control topic, and the atomic batches that change it.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use dacapo_log::{Log, Offset, ReadError, Start, SyncError, Topic};

use super::state::{Change, Part, State, Step};
use crate::problem::Problem;

/// Of a state with few producers, so many steps are stored before it is stored anew.
const STEPS_MIN: usize = 128;

/// A name's place in memory. While it is there, it is the only one of its name.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) data: Topic,
    pub(crate) control: Topic,
    slot: Mutex<Slot>,
    is_read: AtomicBool,
    /// Asked for since the last look at which streams are idle.
    pub(crate) is_used: AtomicBool,
}

#[derive(Debug)]
pub(crate) enum Slot {
    /// The log was not asked yet.
    Unread,
    Absent,
    Present(Box<Present>),
}

/// A stream that there is, or was and has forks.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) state: State,
    /// The record that holds a whole state, and how many steps follow it.
    pub(crate) since: Offset,
    steps: usize,
    pub(crate) created: Offset,
    /// Behind its last data.
    pub(crate) tail: Offset,
    /// Behind the last record that says anything of it.
    pub(crate) end: Offset,
    /// Behind the batch that closed it.
    pub(crate) closed_at: Option<Offset>,
    /// When it was last used, and the last time of that which is in the log.
    pub(crate) used_micros: u64,
    stored_micros: u64,
}

/// A control topic holds what this build cannot read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("record {offset} of topic {topic:?} is none of a stream's: {source}")]
    Foreign {
        offset: Offset,
        topic: String,
        source: serde_json::Error,
    },
    #[error("record {offset} of topic {topic:?} builds on record {since}, which holds no state")]
    NoState {
        offset: Offset,
        topic: String,
        since: u64,
    },
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Read(ReadError::Closed) => ReadError::Closed.into(),
            error => Self::internal(&error),
        }
    }
}

impl Stream {
    pub(crate) fn new(data: Topic, control: Topic) -> Self {
        Self {
            data,
            control,
            slot: Mutex::new(Slot::Unread),
            is_read: AtomicBool::new(false),
            is_used: AtomicBool::new(true),
        }
    }

    /// Held for as long as an append takes, which does not wait for the disk.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether [`load`](Self::load) has nothing to do. Does not wait for somebody who is at it.
    pub(crate) fn is_read(&self) -> bool {
        self.is_read.load(Acquire)
    }

    /// Reads what the log says of it, where that was not done yet. Waits for the disk.
    pub(crate) fn load(&self, log: &Log) -> Result<MutexGuard<'_, Slot>, LoadError> {
        let mut slot = self.lock();
        if matches!(*slot, Slot::Unread) {
            *slot = match self.read(log)? {
                Some(present) => Slot::Present(Box::new(present)),
                None => Slot::Absent,
            };
            self.is_read.store(true, Release);
        }
        Ok(slot)
    }

    fn read(&self, log: &Log) -> Result<Option<Present>, LoadError> {
        let Some(newest) = log.last(&self.control)? else {
            return Ok(None);
        };
        let (since, state) = match self.parse(newest.offset(), newest.payload())? {
            Change::Deleted => {
                // The process ended before it had given the space back.
                self.forget(log);
                return Ok(None);
            }
            Change::State(state) => (newest.offset(), Some(state)),
            Change::Step(step) => (Offset::new(step.since), None),
        };
        let (mut state, mut steps) = (state, 0);
        let mut base = since;
        if state.is_none() {
            for record in log.replay(Start::At(since)).topic(&self.control) {
                let record = record?;
                match self.parse(record.offset(), record.payload())? {
                    Change::State(newer) => {
                        (base, state, steps) = (record.offset(), Some(newer), 0);
                    }
                    Change::Step(step) => {
                        state
                            .as_mut()
                            .ok_or_else(|| self.no_state(record.offset(), since))?
                            .apply(&step);
                        steps += 1;
                    }
                    Change::Deleted => return Ok(None),
                }
            }
        }
        let mut state = *state.ok_or_else(|| self.no_state(newest.offset(), since))?;
        let created = state.created.map_or(base, Offset::new);
        state.created = Some(created.get());
        let data = log.last(&self.data)?.filter(|data| data.offset() > created);
        let tail = data.as_ref().map_or(created, |data| data.offset()).next();
        let data_micros = data.map_or(0, |data| data.timestamp_micros());
        let stored_micros = newest.timestamp_micros().max(data_micros);
        let unstored_micros = stored_micros + state.lifetime.unstored_micros();
        let end = newest.offset().next().max(tail);
        Ok(Some(Present {
            since: base,
            steps,
            created,
            tail,
            end,
            closed_at: state.closed.then_some(end),
            // Later than stored, it may have been used: never shall it end too early.
            used_micros: unstored_micros.min(now_micros().max(stored_micros)),
            stored_micros,
            state,
        }))
    }

    fn parse(&self, offset: Offset, payload: &[u8]) -> Result<Change, LoadError> {
        Change::parse(payload).map_err(|source| LoadError::Foreign {
            offset,
            topic: self.control.to_string(),
            source,
        })
    }

    fn no_state(&self, offset: Offset, since: Offset) -> LoadError {
        LoadError::NoState {
            offset,
            topic: self.control.to_string(),
            since: since.get(),
        }
    }

    /// Has its records removed: it was said in the log that it is no more.
    pub(crate) fn forget(&self, log: &Log) {
        for topic in [&self.data, &self.control] {
            if let Err(error) = log.delete_topic(topic) {
                tracing::warn!(%topic, %error, "a deleted stream keeps its space for now");
                return;
            }
        }
    }
}

impl Present {
    /// A stream that was created by the record at `created`, with data up to before `end`.
    pub(crate) fn new(mut state: State, created: Offset, end: Offset) -> Self {
        state.created = Some(created.get());
        let (closed, now_micros) = (state.closed, now_micros());
        Self {
            state,
            since: created,
            steps: 0,
            created,
            tail: end,
            end,
            closed_at: closed.then_some(end),
            used_micros: now_micros,
            stored_micros: now_micros,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.lifetime.is_over(self.used_micros, now_micros())
    }

    /// What it consists of: what it has from others, and then its own up to its tail.
    pub(crate) fn parts(&self, data: &Topic) -> Vec<Part> {
        let inherited = self.state.fork.iter().flat_map(|fork| fork.parts.clone());
        let own = Part {
            topic: data.to_string(),
            from: self.created.next().get(),
            to: self.tail.get(),
            last_bytes: None,
        };
        inherited
            .chain([own])
            .filter(|part| part.from < part.to)
            .collect()
    }

    /// Where it begins.
    pub(crate) fn first(&self) -> Offset {
        let inherited = self.state.fork.as_ref().and_then(|fork| fork.parts.first());
        inherited.map_or(self.created.next(), |part| Offset::new(part.from))
    }

    /// Appends messages and what they change, all of it or nothing. Does not wait for the disk.
    pub(crate) fn append<'a>(
        &mut self,
        log: &Log,
        stream: &Stream,
        messages: impl IntoIterator<Item = &'a [u8]>,
        step: Option<Step>,
    ) -> Result<(), Problem> {
        let control = step.map(|mut step| {
            step.since = self.since.get();
            let mut state = None;
            if self.steps >= STEPS_MIN.max(self.state.producers.len()) {
                let mut whole = self.state.clone();
                whole.apply(&step);
                state = Some(whole);
            }
            (step, state)
        });
        let change = control.as_ref().map(|(step, state)| match state {
            Some(state) => Change::State(Box::new(state.clone())).to_bytes(),
            None => Change::Step(step.clone()).to_bytes(),
        });
        let change = change.as_deref().map(|bytes| (&stream.control, bytes));
        let data = messages.into_iter().map(|message| (&stream.data, message));
        let mut messages = 0_usize;
        let data = data.inspect(|_| messages += 1);
        let offsets = log.append_batch_to(change.into_iter().chain(data))?;
        match control {
            Some((_, Some(state))) => {
                (self.state, self.since, self.steps) = (state, offsets.start, 0);
            }
            Some((step, None)) => {
                self.state.apply(&step);
                self.steps += 1;
            }
            None => {}
        }
        self.end = offsets.end;
        if messages > 0 {
            self.tail = offsets.end;
        }
        if self.state.closed && self.closed_at.is_none() {
            self.closed_at = Some(offsets.end);
        }
        self.used_micros = now_micros();
        self.stored_micros = self.used_micros;
        Ok(())
    }

    /// Its whole state with another number of forks, or gone; to be stored by the caller.
    pub(crate) fn changed(&self, forks: u64, gone: bool) -> State {
        State {
            forks,
            gone,
            ..self.state.clone()
        }
    }

    /// The state that was stored as the record at `offset`, in a batch that ends at `end`.
    pub(crate) fn stored(&mut self, state: State, offset: Offset, end: Offset) {
        (self.state, self.since, self.steps) = (state, offset, 0);
        self.end = end;
    }

    /// Notes that somebody reads it. In the log only now and then, and without waiting for the disk.
    pub(crate) fn renew(&mut self, log: &Log, stream: &Stream) {
        let now_micros = now_micros();
        self.used_micros = now_micros;
        let lifetime = self.state.lifetime;
        if lifetime.is_to_be_stored(self.stored_micros, now_micros) {
            let end = self.end;
            let stored = self.append(log, stream, [], Some(Step::default()));
            // Nobody waits for it.
            self.end = end;
            if let Err(problem) = stored {
                tracing::warn!(topic = %stream.data, ?problem, "a use was not stored");
            }
        }
    }
}

/// Waits until everything before `end` survives a power cut; false if it did already.
pub(crate) async fn settled(log: &Log, end: Offset) -> Result<bool, SyncError> {
    match end.get().checked_sub(1) {
        Some(last) if log.durable_offset() < end => {
            log.durable(Offset::new(last)).await?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}
