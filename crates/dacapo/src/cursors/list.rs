//! The list of cursors: a plain file with two slots for each of them, which commits write in turn.
//!
//! A commit is one `pwrite` of the slot that holds the older position, so that a torn write leaves the
//! newer one. Whoever reads the file meanwhile, from any process, finds at least one of the two whole.
//!
//! ```text
//!    0  8  "DACACURS"
//!    8  4  CRC-32 of the following 20 bytes
//!   12  4  format version
//!   16 16  id of the log
//! 2048     places of 2048 bytes, each with two slots of 1024 that begin with an entry
//! ```
//!
//! Integers are little-endian. A slot never crosses a page. Both slots of a place are written when it is
//! taken and when it is given back, so that one which cannot be read is always a loss, and known for it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::cursor::{Cursor, is_forward};
use super::entry::{ENTRY_BYTES_MAX, Entry, What};
use super::error::CursorError;
use super::files;

pub(super) const LIST_FILE: &str = "cursors.list";
/// The list that a rebuild is about to put in its place.
const LIST_TEMPORARY: &str = "cursors.list.new";
const MAGIC: [u8; 8] = *b"DACACURS";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
const SLOTS: usize = 2;
const SLOT_BYTES: usize = 1024;
const PLACE_BYTES: usize = SLOTS * SLOT_BYTES;
/// How often a list is read again in which a place has no whole slot: it may be just being made.
const LOOKS: usize = 5;

const _: () = assert!(ENTRY_BYTES_MAX <= SLOT_BYTES);
const _: () = assert!(HEADER_BYTES <= PLACE_BYTES);

/// The file, to be written.
#[derive(Debug)]
pub(super) struct List {
    file: File,
    path: PathBuf,
}

impl List {
    /// Opens the list, or creates an empty file.
    pub(super) fn open(path: &Path) -> Result<Self, CursorError> {
        Ok(Self {
            file: files::open_or_create(path)?,
            path: path.to_owned(),
        })
    }

    /// Makes a list of these cursors, and puts it in the place of the one at `path`; durable when this
    /// returns, but for the name.
    pub(super) fn replace<'a>(
        path: &Path,
        log_id: u128,
        entries: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), CursorError> {
        let temporary = path.with_file_name(LIST_TEMPORARY);
        let list = Self {
            file: File::create(&temporary).map_err(|e| CursorError::io("create", &temporary, e))?,
            path: temporary.clone(),
        };
        list.write_header(log_id)?;
        for (place, entry) in (0..).zip(entries) {
            list.write_both(place, entry)?;
        }
        list.sync()?;
        fs::rename(&temporary, path).map_err(|e| CursorError::io("rename", &temporary, e))
    }

    pub(super) fn write_header(&self, log_id: u128) -> Result<(), CursorError> {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[12..16].copy_from_slice(&VERSION.to_le_bytes());
        header[16..].copy_from_slice(&log_id.to_le_bytes());
        let sum = crc32fast::hash(&header[12..]);
        header[8..12].copy_from_slice(&sum.to_le_bytes());
        self.write_at(&header, 0)
    }

    /// Writes one slot. In the page cache when this returns: a killed process leaves it.
    pub(super) fn write(&self, place: u32, slot: usize, entry: &[u8]) -> Result<(), CursorError> {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..entry.len()].copy_from_slice(entry);
        self.write_at(&bytes, slot_position(place, slot))
    }

    /// Writes both slots, one after the other.
    pub(super) fn write_both(&self, place: u32, entry: &[u8]) -> Result<(), CursorError> {
        (0..SLOTS).try_for_each(|slot| self.write(place, slot, entry))
    }

    pub(super) fn sync(&self) -> Result<(), CursorError> {
        self.file
            .sync_data()
            .map_err(|e| CursorError::io("sync", &self.path, e))
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> Result<(), CursorError> {
        self.file
            .write_all_at(bytes, position)
            .map_err(|e| CursorError::io("write", &self.path, e))
    }
}

/// The byte at which a slot begins.
pub(super) fn slot_position(place: u32, slot: usize) -> u64 {
    PLACE_BYTES as u64 * (u64::from(place) + 1) + (SLOT_BYTES * slot) as u64
}

/// The list as it was read.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// The log's id in the header; `None` where that is damaged.
    header: Option<u128>,
    pub(super) places: Vec<Place>,
}

/// What was read of one place.
#[derive(Debug)]
pub(super) struct Place {
    /// As they lie in the file; `None` where a slot is damaged, cut off, or was never written.
    pub(super) slots: [Option<Entry>; SLOTS],
}

impl Image {
    /// Reads the list; `None` if there is no such file.
    ///
    /// # Errors
    /// That it is of another log than `log_id`, or of a later version of the format.
    pub(super) fn read(path: &Path, log_id: Option<u128>) -> Result<Option<Self>, CursorError> {
        let Some(bytes) = files::read(path)? else {
            return Ok(None);
        };
        let foreign = |found| match log_id {
            Some(expected) if expected != found => Err(CursorError::ForeignLog {
                path: path.to_owned(),
                expected,
                found,
            }),
            _ => Ok(()),
        };
        let header = header_of(&bytes);
        if let Some((version, found)) = header {
            if version != VERSION {
                return Err(CursorError::Version {
                    path: path.to_owned(),
                    found: version,
                    supported: VERSION,
                });
            }
            foreign(found)?;
        }
        let places = bytes.get(PLACE_BYTES..).unwrap_or_default();
        let image = Self {
            path: path.to_owned(),
            header: header.map(|(_, log_id)| log_id),
            places: (0..)
                .zip(places.chunks(PLACE_BYTES))
                .map(|(number, bytes)| Place::read(number, bytes))
                .collect(),
        };
        image
            .places
            .iter()
            .flat_map(|place| place.slots.iter().flatten())
            .try_for_each(|entry| foreign(entry.log_id))?;
        Ok(Some(image))
    }

    pub(super) fn has_header(&self) -> bool {
        self.header.is_some()
    }

    /// The log that it belongs to, as far as anything in it says so.
    fn log_id(&self) -> Option<u128> {
        let mut entries = self
            .places
            .iter()
            .flat_map(|place| place.slots.iter().flatten());
        self.header
            .or_else(|| entries.next().map(|entry| entry.log_id))
    }
}

/// The version and the log's id.
fn header_of(bytes: &[u8]) -> Option<(u32, u128)> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let sum = u32::from_le_bytes(*header[8..].first_chunk()?);
    if header[..8] != MAGIC || crc32fast::hash(&header[12..]) != sum {
        return None;
    }
    let version = u32::from_le_bytes(*header[12..].first_chunk()?);
    let log_id = u128::from_le_bytes(*header[16..].first_chunk()?);
    Some((version, log_id))
}

impl Place {
    fn read(number: u32, bytes: &[u8]) -> Self {
        let slot = |slot: usize| {
            let entry = Entry::decode(bytes.get(slot * SLOT_BYTES..)?)?;
            // A sound entry in another's place is one that a disk has misplaced.
            (entry.place == number).then_some(entry)
        };
        Self {
            slots: [slot(0), slot(1)],
        }
    }

    /// The newer slot, and what it holds.
    pub(super) fn newest(&self) -> Option<(usize, &Entry)> {
        let sound = self.slots.iter().enumerate();
        sound
            .filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
            .max_by_key(|(_, entry)| entry.generation())
    }

    /// A slot that is damaged, cut off, or was never written.
    pub(super) fn damaged(&self) -> Option<usize> {
        self.slots.iter().position(Option::is_none)
    }

    /// The older slot could be put in the place of the newer one, should that be damaged: it holds the
    /// same, or an earlier position of the same cursor.
    pub(super) fn agrees(&self) -> bool {
        let [Some(a), Some(b)] = &self.slots else {
            return false;
        };
        let (old, new) = match a.generation() <= b.generation() {
            true => (&a.what, &b.what),
            false => (&b.what, &a.what),
        };
        match (old, new) {
            (What::Cursor { cursor: old, .. }, What::Cursor { cursor: new, .. }) => {
                old.name == new.name && is_safe_before(old, new)
            }
            (What::Free { .. }, What::Free { .. }) => true,
            _ => false,
        }
    }
}

/// Going on at `old` instead of at `new` leaves no record out.
pub(super) fn is_safe_before(old: &Cursor, new: &Cursor) -> bool {
    is_forward(old.checkpoint, new.checkpoint) && old.checkpoint.offset <= new.checkpoint.offset
}

/// The cursors of a log, as any process can read them; made by
/// [`Cursors::published`](crate::Cursors::published).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PublishedCursors {
    /// In the order of their names.
    pub cursors: Vec<Cursor>,
    /// The log that they belong to; `None` where there are none.
    pub log_id: Option<u128>,
    /// Places in the list that cannot be read. Whoever opens the cursors to change them mends those, as
    /// far as the store knows of them.
    pub damaged: usize,
}

/// Reads the list in a log's directory `dir`, whoever writes it.
pub(super) fn published(dir: &Path) -> Result<PublishedCursors, CursorError> {
    let path = dir.join(LIST_FILE);
    let mut looks = 0;
    let image = loop {
        looks += 1;
        let image = match Image::read(&path, None)? {
            Some(image) => image,
            None if dir.join(super::sled_store::STORE_DIR).exists() => {
                return Err(CursorError::damaged(&path, "there is no such file"));
            }
            None => return Ok(PublishedCursors::default()),
        };
        if looks == LOOKS || image.places.iter().all(|place| place.newest().is_some()) {
            break image;
        }
    };
    // A list gets its name with a whole header.
    let Some(log_id) = image.log_id() else {
        return Err(CursorError::damaged(&path, "nothing in it can be read"));
    };
    let is_lost = |place: &&Place| place.newest().is_none();
    let damaged = image.places.iter().filter(is_lost).count();
    let mut cursors: Vec<Cursor> = image
        .places
        .into_iter()
        .filter_map(|place| {
            let newest = place.newest()?.0;
            place.slots.into_iter().nth(newest)?
        })
        .filter_map(|entry| match entry.what {
            What::Cursor { cursor, .. } => Some(cursor),
            What::Free { .. } => None,
        })
        .collect();
    cursors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(PublishedCursors {
        cursors,
        log_id: Some(log_id),
        damaged,
    })
}
