//! The cursors of one log, in memory, in the list and in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dacapo_log::Checkpoint;

use super::cursor::{Cursor, Position, check_name, is_forward};
use super::entry::{ENTRY_BYTES_MAX, Entry, encode_cursor, encode_free};
use super::error::CursorError;
use super::files;
use super::list::{Image, LIST_FILE, List, is_safe_before};
use super::lock::Lock;
use super::merge::{Held, Merged, merge};
use super::notice::StoreNotice;
use super::sled_store::{STORE_DIR, SledStore};

/// The cursors of one log, open for changes.
pub(super) struct Store {
    dir: PathBuf,
    pub(super) log_id: u128,
    pub(super) notices: Vec<StoreNotice>,
    list: List,
    state: Mutex<State>,
    /// There is something to be flushed, or nothing more will be.
    changed: Condvar,
    /// Taken before `state` where both are. Whoever waits for it finds most of its work done.
    store: Mutex<SledStore>,
    /// Given back last.
    _lock: Lock,
}

struct State {
    cursors: BTreeMap<String, Held>,
    free: BTreeSet<u32>,
    places: u32,
    generation_max: u64,
    /// What the store does not hold as it is now.
    unstored: BTreeSet<String>,
    failure: Option<Arc<CursorError>>,
    closing: bool,
}

impl Store {
    /// Opens the cursors of the log in `dir`, or creates them, and mends what is amiss.
    pub(super) fn open(dir: &Path, log_id: u128) -> Result<Self, CursorError> {
        let lock = Lock::take(dir)?;
        Self::open_locked(dir, log_id, lock)
    }

    /// Puts what is damaged aside, keeps of it what can be read, and opens that.
    pub(super) fn rebuild(dir: &Path, log_id: u128) -> Result<Self, CursorError> {
        let lock = Lock::take(dir)?;
        let (list_path, store_path) = (dir.join(LIST_FILE), dir.join(STORE_DIR));
        let image = match Image::read(&list_path, Some(log_id)) {
            Ok(image) => image,
            Err(CursorError::Damaged { .. } | CursorError::ForeignLog { .. }) => None,
            Err(e) => return Err(e),
        };
        let mut values = match store_path.exists() {
            true => match SledStore::open(&store_path) {
                Ok((_closed_again, values)) => values,
                Err(CursorError::Damaged { .. }) => Vec::new(),
                Err(e) => return Err(e),
            },
            false => Vec::new(),
        };
        values
            .retain(|value| Entry::decode(&value.value).is_none_or(|entry| entry.log_id == log_id));
        let merged = merge(image.as_ref(), &list_path, values, &store_path, log_id)?;
        // Each in the place that it had: should the store be found as it is now, it says the same still.
        let free = merged.generation_max.saturating_add(1);
        let mut entries: Vec<Vec<u8>> = (0..merged.places)
            .map(|place| encode_free(log_id, place, free).to_vec())
            .collect();
        for held in merged.cursors.values() {
            let place = usize::try_from(held.place).expect("it is one of those");
            entries[place] = encode(log_id, held.place, &held.cursor, 0);
        }
        // The new list first: whenever this is interrupted, there is a list that holds all that is left.
        match list_path.symlink_metadata() {
            Ok(found) if found.is_dir() => drop(files::put_aside(&list_path)?),
            Ok(_) => files::keep_aside(&list_path)?,
            Err(_) => {}
        }
        List::replace(&list_path, log_id, entries.iter().map(Vec::as_slice))?;
        if store_path.symlink_metadata().is_ok() {
            files::put_aside(&store_path)?;
        }
        files::sync_dir(dir)?;
        let mut store = Self::open_locked(dir, log_id, lock)?;
        store.notices = merged.notices;
        Ok(store)
    }

    fn open_locked(dir: &Path, log_id: u128, lock: Lock) -> Result<Self, CursorError> {
        let (list_path, store_path) = (dir.join(LIST_FILE), dir.join(STORE_DIR));
        // First what could refuse it, so that nothing is changed in vain.
        let image = Image::read(&list_path, Some(log_id))?;
        let (store, values) = SledStore::open(&store_path)?;
        let mut merged = merge(image.as_ref(), &list_path, values, &store_path, log_id)?;
        let list = List::open(&list_path)?;
        if image.as_ref().is_none_or(|image| !image.has_header()) {
            list.write_header(log_id)?;
        }
        mend_list(&list, log_id, &mut merged)?;
        list.sync()?;
        if image.is_none() {
            files::sync_dir(dir)?;
        }
        fill_store(&store, log_id, &mut merged)?;
        Ok(Self {
            dir: dir.to_owned(),
            log_id,
            notices: merged.notices,
            list,
            state: Mutex::new(State {
                cursors: merged.cursors,
                free: merged.free,
                places: merged.places,
                generation_max: merged.generation_max,
                unstored: BTreeSet::new(),
                failure: None,
                closing: false,
            }),
            changed: Condvar::new(),
            store: Mutex::new(store),
            _lock: lock,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn get(&self, name: &str) -> Option<Cursor> {
        let state = self.state();
        state.cursors.get(name).map(|held| held.cursor.clone())
    }

    pub(super) fn list(&self) -> Vec<Cursor> {
        let state = self.state();
        state
            .cursors
            .values()
            .map(|held| held.cursor.clone())
            .collect()
    }

    /// Moves a cursor forward, in the list. Returns its generation.
    pub(super) fn commit(&self, name: &str, to: Checkpoint) -> Result<u64, CursorError> {
        check_name(name)?;
        let mut state = self.state();
        let state = &mut *state;
        state.check_usable()?;
        let Some(held) = state.cursors.get_mut(name) else {
            return Err(CursorError::Unknown {
                name: name.to_owned(),
            });
        };
        let from = held.cursor.checkpoint;
        if !is_forward(from, to) {
            return Err(CursorError::Backwards {
                name: name.to_owned(),
                committed: from,
                requested: to,
            });
        }
        let cursor = Cursor {
            checkpoint: to,
            committed_micros: now_micros(),
            generation: held.cursor.generation.saturating_add(1),
            ..held.cursor.clone()
        };
        let generation = cursor.generation;
        let twin_is_safe = is_safe_before(&held.cursor, &cursor);
        self.write(held, cursor)?;
        if !twin_is_safe {
            let written = self.write_twin(held);
            written.map_err(|failure| state.poison(failure))?;
        }
        state.generation_max = state.generation_max.max(generation);
        self.note_unstored(state, name);
        Ok(generation)
    }

    /// Sets a cursor, or makes it, in the list.
    pub(super) fn set(&self, name: &str, to: Position) -> Result<(), CursorError> {
        check_name(name)?;
        let mut state = self.state();
        let state = &mut *state;
        state.check_usable()?;
        let generation = state.generation_max.saturating_add(1);
        let cursor = Cursor {
            name: name.to_owned(),
            topic: to.topic,
            checkpoint: to.checkpoint,
            holds: to.holds,
            committed_micros: now_micros(),
            generation,
        };
        let place = match state.cursors.get_mut(name) {
            Some(held) => {
                self.write(held, cursor)?;
                held.place
            }
            None => {
                let place = state.free.first().copied().unwrap_or(state.places);
                let mut held = Held {
                    cursor: cursor.clone(),
                    place,
                    slot: None,
                    stored: 0,
                };
                self.write(&mut held, cursor)?;
                state.cursors.insert(name.to_owned(), held);
                place
            }
        };
        state.free.remove(&place);
        state.places = state.places.max(place.saturating_add(1));
        state.generation_max = generation;
        self.note_unstored(state, name);
        // A slot with an old position could be ahead of this one.
        let written = self.write_twin(&state.cursors[name]);
        written.map_err(|failure| state.poison(failure))
    }

    /// Removes a cursor from the list; `false` if there is none.
    pub(super) fn delete(&self, name: &str) -> Result<bool, CursorError> {
        check_name(name)?;
        let mut state = self.state();
        state.check_usable()?;
        let Some(held) = state.cursors.get(name) else {
            return Ok(false);
        };
        let place = held.place;
        let generation = state.generation_max.saturating_add(1);
        let free = encode_free(self.log_id, place, generation);
        let written = self.list.write_both(place, &free);
        written.map_err(|failure| state.poison(failure))?;
        state.generation_max = generation;
        state.cursors.remove(name);
        state.free.insert(place);
        self.note_unstored(&mut state, name);
        Ok(true)
    }

    /// Makes everything durable, in the list and in the store.
    pub(super) fn flush(&self) -> Result<(), CursorError> {
        self.flush_where(|_| true)
    }

    /// Makes a cursor durable in this generation; whoever waited for another's flush may find it done.
    pub(super) fn flush_cursor(&self, name: &str, generation: u64) -> Result<(), CursorError> {
        self.flush_where(|state| {
            let held = state.cursors.get(name);
            held.is_some_and(|held| held.stored < generation)
        })
    }

    fn flush_where(&self, is_needed: impl FnOnce(&State) -> bool) -> Result<(), CursorError> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the sync: what is committed meanwhile is for the next one.
        let entries: Vec<(String, u64, Option<Vec<u8>>)> = {
            let mut state = self.state();
            state.check_usable()?;
            if state.unstored.is_empty() || !is_needed(&state) {
                return Ok(());
            }
            let unstored = std::mem::take(&mut state.unstored);
            let entry_of = |name: String| match state.cursors.get(&name) {
                Some(Held { cursor, place, .. }) => {
                    let entry = encode(self.log_id, *place, cursor, cursor.generation);
                    (name, cursor.generation, Some(entry))
                }
                None => (name, 0, None),
            };
            unstored.into_iter().map(entry_of).collect()
        };
        // The list before the store, so that the store is never ahead of the list on a disk.
        let written = self.list.sync().and_then(|()| {
            let pairs = entries.iter();
            store.write(pairs.map(|(name, _, entry)| (name.as_bytes(), entry.as_deref())))
        });
        let mut state = self.state();
        written.map_err(|failure| state.poison(failure))?;
        for (name, generation, _) in entries {
            if let Some(held) = state.cursors.get_mut(&name) {
                held.stored = held.stored.max(generation);
            }
        }
        Ok(())
    }

    /// Puts a cursor into its older slot, and then into memory; after an error it is as it was.
    fn write(&self, held: &mut Held, cursor: Cursor) -> Result<(), CursorError> {
        let slot = held.slot.map_or(0, |newer| 1 - newer);
        self.write_slot(held, &cursor, slot)?;
        held.cursor = cursor;
        held.slot = Some(slot);
        Ok(())
    }

    /// Puts a cursor into its other slot as well.
    fn write_twin(&self, held: &Held) -> Result<(), CursorError> {
        let slot = held.slot.map_or(0, |newer| 1 - newer);
        self.write_slot(held, &held.cursor, slot)
    }

    fn write_slot(&self, held: &Held, cursor: &Cursor, slot: usize) -> Result<(), CursorError> {
        let mut bytes = [0; ENTRY_BYTES_MAX];
        let end = encode_cursor(self.log_id, held.place, cursor, held.stored, &mut bytes);
        self.list.write(held.place, slot, &bytes[..end])
    }

    fn note_unstored(&self, state: &mut State, name: &str) {
        if state.unstored.is_empty() {
            self.changed.notify_one();
        }
        if !state.unstored.contains(name) {
            state.unstored.insert(name.to_owned());
        }
    }

    /// Waits until there is something to be flushed, and then for `interval`; `false` once the store
    /// is being closed.
    pub(super) fn wait_for_flush(&self, interval: Duration) -> bool {
        let state = self.changed.wait_while(self.state(), |state| {
            !state.closing && state.unstored.is_empty()
        });
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let state = self
            .changed
            .wait_timeout_while(state, interval, |state| !state.closing);
        let (state, _) = state.unwrap_or_else(PoisonError::into_inner);
        !state.closing
    }

    /// Ends [`wait_for_flush`](Self::wait_for_flush).
    pub(super) fn stop_waiting(&self) {
        self.state().closing = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Refuses all changes from now on.
    fn poison(&mut self, failure: CursorError) -> CursorError {
        let cause = Arc::new(failure);
        self.failure = Some(Arc::clone(&cause));
        CursorError::Poisoned { cause }
    }

    fn check_usable(&self) -> Result<(), CursorError> {
        match &self.failure {
            Some(cause) => Err(CursorError::Poisoned {
                cause: Arc::clone(cause),
            }),
            None => Ok(()),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What fails here is as after a kill: the list has it.
        let _ = self.flush();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursors")
            .field("dir", &self.dir)
            .field("log_id", &format_args!("{:032x}", self.log_id))
            .field("cursors", &self.state().cursors.len())
            .finish_non_exhaustive()
    }
}

/// Writes again what a kill, a power cut or damage has left of a place in the list.
fn mend_list(list: &List, log_id: u128, merged: &mut Merged) -> Result<(), CursorError> {
    for held in merged.cursors.values_mut() {
        if merged.mend.remove(&held.place) {
            let entry = encode(log_id, held.place, &held.cursor, held.stored);
            match held.slot {
                // The good one stays as it is.
                Some(slot) => list.write(held.place, 1 - slot, &entry)?,
                None => list.write_both(held.place, &entry)?,
            }
            held.slot.get_or_insert(0);
        }
    }
    for &place in &merged.mend {
        merged.generation_max = merged.generation_max.saturating_add(1);
        list.write_both(place, &encode_free(log_id, place, merged.generation_max))?;
    }
    Ok(())
}

/// Gives the store what the list has newer, and takes from it what is deleted.
fn fill_store(store: &SledStore, log_id: u128, merged: &mut Merged) -> Result<(), CursorError> {
    let is_behind = |held: &&mut Held| held.stored != held.cursor.generation;
    let behind: Vec<&mut Held> = merged.cursors.values_mut().filter(is_behind).collect();
    let entries: Vec<Vec<u8>> = behind
        .iter()
        .map(|held| encode(log_id, held.place, &held.cursor, held.cursor.generation))
        .collect();
    if behind.is_empty() && merged.remove.is_empty() {
        return Ok(());
    }
    let removed = merged.remove.iter().map(|key| (key.as_slice(), None));
    let names = behind.iter().map(|held| held.cursor.name.as_bytes());
    let written = names
        .zip(&entries)
        .map(|(name, entry)| (name, Some(entry.as_slice())));
    store.write(removed.chain(written))?;
    for held in behind {
        held.stored = held.cursor.generation;
    }
    Ok(())
}

fn encode(log_id: u128, place: u32, cursor: &Cursor, stored: u64) -> Vec<u8> {
    let mut bytes = [0; ENTRY_BYTES_MAX];
    let end = encode_cursor(log_id, place, cursor, stored, &mut bytes);
    bytes[..end].to_vec()
}

fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}
