//! What the list and the store say together. Pure: the caller mends both.
//!
//! The list takes every commit, and the store takes what the list has made durable; so the store is never
//! ahead of what the list once held, and of two positions of one cursor the one of the higher generation
//! is the newer. A cursor that is in the store alone was deleted if its place in the list has a higher
//! generation now; otherwise the list has lost it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::cursor::Cursor;
use super::entry::{Entry, What};
use super::error::CursorError;
use super::list::{Image, slot_position};
use super::notice::StoreNotice;
use super::sled_store::StoredValue;

/// A cursor and where it lies.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) cursor: Cursor,
    /// Its place in the list.
    pub(super) place: u32,
    /// The slot that holds it as it is; `None` where neither does.
    pub(super) slot: Option<usize>,
    /// The generation that the store holds.
    pub(super) stored: u64,
}

/// All cursors, and what is to be written before they are used.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) cursors: BTreeMap<String, Held>,
    /// Places of the list without a cursor.
    pub(super) free: BTreeSet<u32>,
    /// How many places there are.
    pub(super) places: u32,
    /// The highest generation that is known.
    pub(super) generation_max: u64,
    /// The places whose slots do not both say the same, or an older position of it.
    pub(super) mend: BTreeSet<u32>,
    /// Keys in the store that are no cursor's.
    pub(super) remove: Vec<Vec<u8>>,
    pub(super) notices: Vec<StoreNotice>,
}

/// Brings the two together. `image` is `None` where there is no list.
pub(super) fn merge(
    image: Option<&Image>,
    list_path: &Path,
    values: Vec<StoredValue>,
    store_path: &Path,
    log_id: u128,
) -> Result<Merged, CursorError> {
    let mut merged = Merged::default();
    let damaged_slots = match image {
        Some(image) => merged.take_list(image)?,
        None => Vec::new(),
    };
    let mut stored = Stored::check(values, store_path, log_id, &mut merged.notices)?;
    let held_in_store = stored.cursors.len();
    merged.remove.append(&mut stored.rejected);
    let older = merged.compare(&mut stored);
    let lost = merged.take_lost(image, stored.cursors);

    match image {
        None if held_in_store > 0 => merged.notices.push(StoreNotice::ListGone {
            path: list_path.to_owned(),
            cursors: held_in_store,
        }),
        Some(image) if !image.has_header() && (merged.places > 0 || held_in_store > 0) => {
            merged.notices.push(StoreNotice::HeaderDamaged {
                path: list_path.to_owned(),
            });
        }
        _ => {}
    }
    for (name, position) in damaged_slots {
        if let Some(held) = merged.cursors.get(&name) {
            merged.notices.push(StoreNotice::SlotDamaged {
                path: list_path.to_owned(),
                position,
                checkpoint: held.cursor.checkpoint,
                name,
            });
        }
    }
    if image.is_some() {
        for name in lost {
            merged.notices.push(StoreNotice::Restored {
                path: list_path.to_owned(),
                checkpoint: merged.cursors[&name].cursor.checkpoint,
                name,
            });
        }
    }
    let unknown = image.map_or(&[][..], |image| &image.places);
    for (number, place) in (0..).zip(unknown) {
        if place.newest().is_none() && merged.free.contains(&number) {
            merged.notices.push(StoreNotice::PlaceLost {
                path: list_path.to_owned(),
                position: slot_position(number, 0),
            });
        }
    }
    if older > 0 {
        merged.notices.push(StoreNotice::StoreOlder {
            path: store_path.to_owned(),
            cursors: older,
        });
    }
    Ok(merged)
}

/// What the store holds and is sound.
struct Stored {
    cursors: BTreeMap<String, (u32, Cursor)>,
    /// Keys of what is not.
    rejected: Vec<Vec<u8>>,
}

impl Stored {
    fn check(
        values: Vec<StoredValue>,
        store_path: &Path,
        log_id: u128,
        notices: &mut Vec<StoreNotice>,
    ) -> Result<Self, CursorError> {
        let mut stored = Self {
            cursors: BTreeMap::new(),
            rejected: Vec::new(),
        };
        for StoredValue { key, value } in values {
            match Entry::decode(&value) {
                Some(entry) if entry.log_id != log_id => {
                    return Err(CursorError::ForeignLog {
                        path: store_path.to_owned(),
                        expected: log_id,
                        found: entry.log_id,
                    });
                }
                Some(Entry {
                    place,
                    what: What::Cursor { cursor, .. },
                    ..
                }) if cursor.name.as_bytes() == key => {
                    stored.cursors.insert(cursor.name.clone(), (place, cursor));
                }
                _ => {
                    notices.push(StoreNotice::StoreEntryDamaged {
                        path: store_path.to_owned(),
                        key: String::from_utf8_lossy(&key).into_owned(),
                    });
                    stored.rejected.push(key);
                }
            }
        }
        Ok(stored)
    }
}

impl Merged {
    /// Takes all that the list says. Returns the cursors of which a slot is damaged, and where.
    fn take_list(&mut self, image: &Image) -> Result<Vec<(String, u64)>, CursorError> {
        self.places = u32::try_from(image.places.len())
            .map_err(|_| CursorError::damaged(&image.path, "it is longer than any list"))?;
        let mut damaged = Vec::new();
        for (number, place) in (0..).zip(&image.places) {
            if !place.agrees() {
                self.mend.insert(number);
            }
            self.free.insert(number);
            let Some((slot, entry)) = place.newest() else {
                continue;
            };
            self.generation_max = self.generation_max.max(entry.generation());
            let What::Cursor { cursor, stored } = &entry.what else {
                continue;
            };
            if let Some(slot) = place.damaged() {
                damaged.push((cursor.name.clone(), slot_position(number, slot)));
            }
            let newer_elsewhere = self
                .cursors
                .get(&cursor.name)
                .is_some_and(|other| other.cursor.generation > cursor.generation);
            if newer_elsewhere {
                self.mend.insert(number);
                continue;
            }
            self.free.remove(&number);
            let held = Held {
                cursor: cursor.clone(),
                place: number,
                slot: Some(slot),
                stored: *stored,
            };
            if let Some(older) = self.cursors.insert(cursor.name.clone(), held) {
                self.free.insert(older.place);
                self.mend.insert(older.place);
            }
        }
        Ok(damaged)
    }

    /// Gives each cursor of the list the newer position of the two. Returns how many the store holds
    /// older than it was known to do, or not at all.
    fn compare(&mut self, stored: &mut Stored) -> usize {
        let mut older = 0;
        for (name, held) in &mut self.cursors {
            let known_to_hold = held.stored;
            match stored.cursors.remove(name) {
                Some((_, cursor)) => {
                    held.stored = cursor.generation;
                    older += usize::from(held.stored < known_to_hold);
                    if cursor.generation > held.cursor.generation {
                        held.cursor = cursor;
                        held.slot = None;
                        self.mend.insert(held.place);
                    }
                }
                None => {
                    held.stored = 0;
                    older += 1;
                }
            }
            self.generation_max = self.generation_max.max(held.cursor.generation);
        }
        older
    }

    /// Takes from what is left in the store the cursors that the list has lost, and returns their names;
    /// the others were deleted.
    fn take_lost(
        &mut self,
        image: Option<&Image>,
        left: BTreeMap<String, (u32, Cursor)>,
    ) -> Vec<String> {
        let mut lost = Vec::new();
        for (name, (place, cursor)) in left {
            let in_its_place = image
                .and_then(|image| image.places.get(usize::try_from(place).ok()?))
                .and_then(|place| place.newest());
            if in_its_place.is_some_and(|(_, entry)| entry.generation() > cursor.generation) {
                self.remove.push(name.into_bytes());
                continue;
            }
            let place = match self.free.remove(&place) {
                true => place,
                false => self.new_place(),
            };
            self.mend.insert(place);
            self.generation_max = self.generation_max.max(cursor.generation);
            let held = Held {
                stored: cursor.generation,
                cursor,
                place,
                slot: None,
            };
            lost.push(name.clone());
            self.cursors.insert(name, held);
        }
        lost
    }

    fn new_place(&mut self) -> u32 {
        let place = self.places;
        self.places = place.checked_add(1).expect("fewer cursors than 2^32");
        place
    }
}
