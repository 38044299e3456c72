//! What keeps messages from being dropped that a consumer has not handled, while the channel is open,
//! whether the consumer is or not.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use dacapo_log::{Hold, Log, Offset, Start, Topic};

use crate::cursors::{Cursor, CursorError, Cursors};

/// No consumer has this name.
const UNREADABLE: &str = "";

/// A log's directory, and the topic of a channel in it.
type Place = (PathBuf, Option<Topic>);

/// All handles of a channel share its holds, however often it was opened.
static OPEN: Mutex<Option<HashMap<Place, Weak<Holds>>>> = Mutex::new(None);

fn open() -> MutexGuard<'static, Option<HashMap<Place, Weak<Holds>>>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The holds of a channel's consumers.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    /// By the consumer's name.
    held: Mutex<HashMap<String, Hold>>,
    /// `None` in a log that is only read: there they keep nothing.
    place: Option<Place>,
}

impl Holds {
    /// Those of a channel that may be open already.
    pub(crate) fn of(log: &Log, topic: Option<&Topic>) -> Arc<Self> {
        if log.is_read_only() {
            return Arc::default();
        }
        let dir = log.dir();
        // The directory is open: it has such a path.
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let place = (dir, topic.cloned());
        let mut open = open();
        let entry = open.get_or_insert_default().entry(place.clone());
        let entry = entry.or_default();
        entry.upgrade().unwrap_or_else(|| {
            let holds = Arc::new(Self {
                held: Mutex::default(),
                place: Some(place),
            });
            *entry = Arc::downgrade(&holds);
            holds
        })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Hold>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the holds of the stored cursors of a channel, those of consumers that are not open too.
    ///
    /// Where the cursors cannot be read, everything is held until they can be: who opens a consumer
    /// learns what is wrong.
    pub(crate) fn take_stored(&self, log: &Log, topic: Option<&Topic>) {
        match stored(log) {
            Ok(cursors) => {
                let own = |cursor: &&Cursor| cursor.holds && cursor.topic.as_ref() == topic;
                for cursor in cursors.iter().filter(own) {
                    self.take(log, &cursor.name, held_from(log, cursor));
                }
                self.release(UNREADABLE);
            }
            Err(_) => self.take(log, UNREADABLE, Offset::ZERO),
        }
    }

    /// As [`take_stored`](Self::take_stored), if they could not be read before.
    pub(crate) fn take_if_readable_now(&self, log: &Log, topic: Option<&Topic>) {
        if self.held().contains_key(UNREADABLE) {
            self.take_stored(log, topic);
        }
    }

    pub(crate) fn take(&self, log: &Log, name: &str, offset: Offset) {
        let mut held = self.held();
        match held.get(name) {
            Some(hold) if hold.is_of(log) => _ = hold.move_to(offset),
            _ => _ = held.insert(name.to_owned(), hold(log, name, offset)),
        }
    }

    /// Moves a hold, if there is one.
    pub(crate) fn move_to(&self, name: &str, offset: Offset) {
        if let Some(hold) = self.held().get(name) {
            hold.move_to(offset);
        }
    }

    pub(crate) fn release(&self, name: &str) {
        self.held().remove(name);
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        let Some(place) = &self.place else {
            return;
        };
        if let Some(holds) = &mut *open()
            // Unless others have taken the place.
            && holds.get(place).is_some_and(|holds| holds.strong_count() == 0)
        {
            holds.remove(place);
        }
    }
}

/// Takes the holds of all consumers of a log whose cursors say so, whatever their topics: for who drops
/// messages without opening the channels. They hold until they are dropped.
///
/// Where the cursors cannot be read, everything is held. Blocks.
///
/// ```
/// use dacapo::{Offset, ReplayChannel};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let channel = ReplayChannel::<String>::open(dir.path())?;
/// drop(channel.consumer_builder("audit").holds(true).open()?);
/// drop(channel);
///
/// let log = dacapo::Log::open(dir.path())?; // and not the channel
/// let holds = dacapo::hold_for_consumers(&log);
/// assert_eq!(holds[0].offset(), Offset::ZERO);
/// # Ok(())
/// # }
/// ```
#[must_use = "holds that are dropped hold nothing"]
pub fn hold_for_consumers(log: &Log) -> Vec<Hold> {
    match stored(log) {
        Ok(cursors) => {
            let holding = cursors.iter().filter(|cursor| cursor.holds);
            let take = |cursor: &Cursor| hold(log, &cursor.name, held_from(log, cursor));
            holding.map(take).collect()
        }
        Err(_) => vec![hold(log, UNREADABLE, Offset::ZERO)],
    }
}

fn hold(log: &Log, name: &str, offset: Offset) -> Hold {
    let name_of_hold = match name {
        UNREADABLE => "consumers, whose cursors cannot be read".to_owned(),
        name => format!("consumer {name}"),
    };
    log.hold(name_of_hold, offset)
}

/// The first message that a consumer may still get. Not always where its cursor stands: a power cut may
/// have undone messages before that.
fn held_from(log: &Log, cursor: &Cursor) -> Offset {
    log.tail(Start::Resume(cursor.checkpoint)).next_offset()
}

/// The cursors as they are stored; makes no store where there is none.
fn stored(log: &Log) -> Result<Vec<Cursor>, CursorError> {
    let published = Cursors::published(log.dir());
    if published.as_ref().is_ok_and(|list| list.log_id.is_none()) {
        return Ok(Vec::new());
    }
    match Cursors::of(log) {
        Ok(cursors) => Ok(cursors.list()),
        // Whoever has them keeps the list whole.
        Err(CursorError::Held { .. }) => Ok(published?.cursors),
        Err(error) => Err(error),
    }
}
