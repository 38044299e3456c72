//! Which segments the log has, and the mappings that readers share.
//!
//! Sealed segments are mapped when they are first read. A few stay mapped for the next reader;
//! the others are unmapped with the last reader or record that holds them.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, Weak};

use crate::disk::Disk;
use crate::error::{Corruption, Damage, ReadError};
use crate::format::Footer;
use crate::offset::Offset;
use crate::segment::{self, Segment, SegmentFile};
use crate::sync::{Mutex, MutexGuard};

/// How many sealed segments stay mapped though nobody is reading them. Whoever reads a topic touches a
/// few pages in each of many: the faults of mapping them again cost more than the reading.
const WARM_MAX: usize = 32;
/// In a read-only log: what the writing process drops takes space for as long as it is mapped here.
const WARM_MAX_READ_ONLY: usize = 8;

/// What is known of a segment without mapping it.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) base: Offset,
    pub(crate) file_bytes: u64,
    /// `None`: the segment is being appended to.
    pub(crate) footer: Option<Footer>,
    /// It is known that no topic was deleted in it; `false` until somebody has looked.
    pub(crate) is_without_deletions: bool,
}

#[derive(Debug)]
pub(crate) struct Segments {
    disk: Disk,
    dir: PathBuf,
    log_id: u128,
    list: Mutex<List>,
}

#[derive(Debug)]
struct List {
    entries: BTreeMap<Offset, Entry>,
    warm: VecDeque<Arc<Segment>>,
    warm_max: usize,
}

#[derive(Debug)]
struct Entry {
    file_bytes: u64,
    footer: Option<Footer>,
    is_without_deletions: bool,
    mapped: Weak<Segment>,
    /// Held while it is growing: nobody could map it again as a sealed one.
    growing: Option<Arc<Segment>>,
}

impl Segments {
    pub(crate) fn new(disk: Disk, dir: PathBuf, log_id: u128) -> Self {
        Self {
            disk,
            dir,
            log_id,
            list: Mutex::new(List {
                entries: BTreeMap::new(),
                warm: VecDeque::new(),
                warm_max: WARM_MAX,
            }),
        }
    }

    /// Those of a log that another process writes.
    pub(crate) fn read_only(disk: Disk, dir: PathBuf, log_id: u128) -> Self {
        let segments = Self::new(disk, dir, log_id);
        segments.list().warm_max = WARM_MAX_READ_ONLY;
        segments
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists a sealed segment.
    pub(crate) fn add_sealed(&self, file_bytes: u64, footer: Footer) {
        let entry = Entry {
            file_bytes,
            footer: Some(footer.clone()),
            is_without_deletions: false,
            mapped: Weak::new(),
            growing: None,
        };
        self.list().entries.insert(footer.base, entry);
    }

    /// Lists a segment that is being appended to.
    pub(crate) fn add_growing(&self, file_bytes: u64, segment: &Arc<Segment>) {
        let entry = Entry {
            file_bytes,
            footer: None,
            is_without_deletions: false,
            mapped: Arc::downgrade(segment),
            growing: Some(Arc::clone(segment)),
        };
        self.list().entries.insert(segment.base(), entry);
    }

    /// Lists the segment in which the log goes on, and sends the readers of the filled one to it.
    pub(crate) fn go_on_in(
        &self,
        file_bytes: u64,
        segment: &Arc<Segment>,
        filled: Option<&Arc<Segment>>,
    ) {
        self.add_growing(file_bytes, segment);
        // Last: a reader that was sent on has to find it.
        if let Some(filled) = filled {
            filled.seal(segment.base());
        }
    }

    /// Notes that the growing segment is sealed, and keeps it mapped for those behind.
    pub(crate) fn seal(&self, segment: &Arc<Segment>, footer: Footer) {
        let mut list = self.list();
        if let Some(entry) = list.entries.get_mut(&segment.base()) {
            entry.footer = Some(footer);
            entry.growing = None;
        }
        list.keep_warm(Arc::clone(segment));
    }

    /// Notes that no topic was deleted in a sealed segment. A compaction changes nothing in that.
    pub(crate) fn note_without_deletions(&self, base: Offset) {
        if let Some(entry) = self.list().entries.get_mut(&base) {
            entry.is_without_deletions = entry.footer.is_some();
        }
    }

    /// A compaction has put another file in the place of a sealed segment's. Who reads the old one goes
    /// on with it.
    pub(crate) fn replace(&self, file_bytes: u64, footer: Footer) {
        let mut list = self.list();
        let base = footer.base;
        if let Some(entry) = list.entries.get_mut(&base) {
            entry.file_bytes = file_bytes;
            entry.footer = Some(footer);
            entry.mapped = Weak::new();
        }
        list.warm.retain(|warm| warm.base() != base);
    }

    /// The segment that holds `offset`, or will: the last one that begins at or before it.
    pub(crate) fn holding(&self, offset: Offset) -> Result<Arc<Segment>, ReadError> {
        let gone = || ReadError::SegmentMissing {
            path: self.dir.clone(),
            offset,
        };
        let (base, footer) = {
            let list = self.list();
            let (&base, entry) = list.entries.range(..=offset).next_back().ok_or_else(gone)?;
            if entry
                .footer
                .as_ref()
                .is_some_and(|footer| footer.next <= offset)
            {
                return Err(gone());
            }
            if let Some(segment) = entry.mapped.upgrade() {
                // One that is followed was mapped before its frames could be looked at.
                if entry.growing.is_some() {
                    check_name(&segment, offset)?;
                }
                return Ok(segment);
            }
            (base, entry.footer.clone().ok_or_else(gone)?)
        };
        // Mapped without the lock; if two readers do it at once, the second one's mapping wins.
        let file = match self.disk.open(&segment::path(&self.dir, base)) {
            Err(e) if e.is_not_found() => return Err(gone()),
            file => SegmentFile::inspect(file?, base, Some(self.log_id))?,
        };
        let known_nonce = footer.nonce;
        let footer = match &file.footer {
            // A compaction, perhaps in another process, has put this file in place.
            Some(now) if now.nonce != footer.nonce && now.next == footer.next => now.clone(),
            _ => footer,
        };
        // The footer itself may have gone since, or never have been there: see `follower::open`.
        if file.header.nonce != footer.nonce || footer.end_position as usize > file.frames_end() {
            let position = file.frames_end();
            return Err(Corruption::new(file.file.path(), position, Damage::Footer).into());
        }
        let segment = Arc::new(Segment::sealed(&file, &footer)?);
        check_name(&segment, offset)?;
        let mut list = self.list();
        if let Some(entry) = list.entries.get_mut(&base) {
            if entry
                .footer
                .as_ref()
                .is_none_or(|now| now.nonce != known_nonce)
            {
                // Another file has been put in place meanwhile; this one says the same.
                return Ok(segment);
            }
            entry.file_bytes = file.header.file_bytes;
            entry.footer = Some(footer);
            entry.mapped = Arc::downgrade(&segment);
        }
        list.keep_warm(Arc::clone(&segment));
        Ok(segment)
    }

    /// What is known of the segment that holds `offset`, or will.
    pub(crate) fn summary_holding(&self, offset: Offset) -> Option<Summary> {
        let list = self.list();
        let (&base, entry) = list.entries.range(..=offset).next_back()?;
        Some(entry.summary(base))
    }

    /// The base of the first segment that begins behind `offset`.
    pub(crate) fn base_behind(&self, offset: Offset) -> Option<Offset> {
        self.list()
            .entries
            .range(offset.next()..)
            .next()
            .map(|(&base, _)| base)
    }

    /// The base of the first segment that can hold a record of this timestamp or later; `None` where
    /// all records are older.
    pub(crate) fn base_since(&self, timestamp_micros: u64) -> Option<Offset> {
        // One that is growing may: what is the newest in it, only a look into it tells.
        let can_hold = |footer: &Footer| footer.last_timestamp_micros >= timestamp_micros;
        let list = self.list();
        let mut entries = list.entries.iter();
        entries
            .find(|(_, entry)| entry.footer.as_ref().is_none_or(can_hold))
            .map(|(&base, _)| base)
    }

    /// The footer of the last segment that begins before `base`.
    pub(crate) fn footer_before(&self, base: Offset) -> Option<Footer> {
        let list = self.list();
        let (_, entry) = list.entries.range(..base).next_back()?;
        entry.footer.clone()
    }

    /// The bases of the segments that begin before `first`.
    pub(crate) fn bases_before(&self, first: Offset) -> Vec<Offset> {
        let list = self.list();
        list.entries.range(..first).map(|(&base, _)| base).collect()
    }

    /// Forgets the segments that begin before `first`.
    pub(crate) fn remove_before(&self, first: Offset) {
        let mut list = self.list();
        list.entries = list.entries.split_off(&first);
        list.warm.retain(|warm| warm.base() >= first);
    }

    /// All segments, oldest first.
    pub(crate) fn summaries(&self) -> Vec<Summary> {
        let list = self.list();
        let entries = list.entries.iter();
        entries.map(|(&base, entry)| entry.summary(base)).collect()
    }
}

/// Whoever read in a file that has another one's name would take its records for others.
fn check_name(segment: &Segment, offset: Offset) -> Result<(), Corruption> {
    let misnamed = segment.check_name();
    misnamed.map_err(|misnamed| misnamed.of_record(offset))
}

impl Entry {
    fn summary(&self, base: Offset) -> Summary {
        Summary {
            base,
            file_bytes: self.file_bytes,
            footer: self.footer.clone(),
            is_without_deletions: self.is_without_deletions,
        }
    }
}

impl List {
    fn keep_warm(&mut self, segment: Arc<Segment>) {
        self.warm.retain(|warm| warm.base() != segment.base());
        self.warm.push_back(segment);
        if self.warm.len() > self.warm_max {
            self.warm.pop_front();
        }
    }
}
