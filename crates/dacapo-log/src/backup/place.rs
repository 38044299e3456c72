//! The directory that a backup is made in: what is there from before, and how the new one takes its
//! place.
//!
//! Everything is made durable under names that no log has, while an earlier backup stays as it is. Then
//! its `meta` goes, the files get their names, and the new `meta` comes last. Between the two there is no
//! log, and the staged `meta` says whose it will be.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::STAGED;
use super::plan::{Plan, SEQUENCE, Tail, Whole, shortened};
use crate::disk::{Disk, DiskFile};
use crate::error::{
    BackupError, Corruption, Damage, FileError, OpenError, ReadError, SegmentError,
};
use crate::format::{self, Footer, Meta, SegmentHeader};
use crate::index;
use crate::lock::Lock;
use crate::log::Log;
use crate::meta::{self, META_FILE};
use crate::offset::Offset;
use crate::recovery::Listing;
use crate::repair;
use crate::segment::{self, SegmentFile};
use crate::segment_writer;
use crate::topics;

/// Copied at a time.
const PIECE_BYTES: usize = 1 << 20;

pub(super) struct Place<'a> {
    disk: Disk,
    dir: &'a Path,
    /// For as long as the backup takes: nobody else writes here.
    _lock: Lock,
    /// Of the earlier backup, if it is complete.
    earlier: Option<Meta>,
    /// Of the one that was interrupted when it was about to be complete.
    interrupted: Option<Meta>,
    /// How each segment came here.
    how: BTreeMap<Offset, How>,
    /// The segments that are here under a staged name, and are to have their own.
    unnamed: BTreeSet<Offset>,
    copied_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Linked,
    Copied,
    Kept,
}

impl<'a> Place<'a> {
    /// Takes the directory for a backup of `log`, if it may be one.
    pub(super) fn take(log: &Log, dir: &'a Path) -> Result<Self, BackupError> {
        let disk = log.shared().disk.clone();
        let path = dir.to_owned();
        if repair::lies_inside(dir, log.dir()) {
            return Err(BackupError::Inside { path });
        }
        match disk.is_dir(dir)? {
            Some(true) => check_names(&disk, dir)?,
            Some(false) => return Err(BackupError::NotADirectory { path }),
            None => disk.create_dir(dir)?,
        }
        let lock = Lock::take(&disk, dir).map_err(|error| match error {
            OpenError::Locked { path, pid } => BackupError::InUse { path, pid },
            OpenError::StorageFull { source }
            | OpenError::NotWritable { source }
            | OpenError::Io(source) => source.into(),
            other => unreachable!("a lock is taken or not: {other}"),
        })?;
        let mut place = Self {
            earlier: load(&disk, &dir.join(META_FILE))?,
            interrupted: None,
            how: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            copied_bytes: 0,
            _lock: lock,
            disk,
            dir,
        };
        let log_id = log.shared().log_id;
        match &place.earlier {
            Some(earlier) => {
                check_id(dir, log_id, earlier.log_id)?;
                if earlier.sequence != SEQUENCE || earlier.clean.is_none() {
                    return Err(BackupError::WrittenTo { path });
                }
            }
            None => place.check_unfinished(log_id)?,
        }
        Ok(place)
    }

    /// Without `meta`, what is here must be what a backup of this log has left.
    fn check_unfinished(&mut self, log_id: u128) -> Result<(), BackupError> {
        let (disk, dir) = (&self.disk, self.dir);
        let listing = Listing::read(disk, dir)?;
        self.interrupted = load(disk, &staged_meta(dir))?;
        match (&self.interrupted, listing.bases.first()) {
            (Some(staged), _) => check_id(dir, log_id, staged.log_id)?,
            // Segments get their names only once there is a staged `meta`.
            (None, Some(&base)) => {
                let found = segment::path(Path::new(""), base).display().to_string();
                let path = dir.to_owned();
                return Err(BackupError::NotABackup { path, found });
            }
            (None, None) => {}
        }
        let staged = listing.staged.iter();
        for base in staged.filter_map(|name| base_of_staged(name)) {
            let file = disk.open(&staged_segment(dir, base))?;
            let mut bytes = [0; format::SEGMENT_HEADER_BYTES];
            // One that cannot be read is made anew.
            if file.read_at(&mut bytes, 0).is_ok()
                && let Ok(header) = SegmentHeader::decode(&bytes)
            {
                check_id(dir, log_id, header.log_id)?;
            }
        }
        Ok(())
    }

    /// What is here must be a beginning of what the log holds.
    pub(super) fn check_earlier(&self, log: &Log, plan: &Plan) -> Result<(), BackupError> {
        let Some(found) = self.earlier.as_ref().or(self.interrupted.as_ref()) else {
            return Ok(());
        };
        let path = self.dir.to_owned();
        if found.durable > plan.next {
            let from = plan.next;
            return Err(BackupError::Longer { path, from });
        }
        if self.earlier.is_none() || found.durable <= found.first.max(plan.oldest) {
            return Ok(());
        }
        // A log that was itself restored from an older backup has other records in the place of those
        // that it lost.
        let last = Offset::new(found.durable.get() - 1);
        let ours = match log.get(last) {
            Ok(record) => record,
            // Gone, as the log itself says: there is nothing to compare.
            Err(ReadError::Removed { .. } | ReadError::Lost { .. } | ReadError::Pruned { .. }) => {
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let backup = Log::open_reader_on(&self.disk, self.dir).map_err(BackupError::Unreadable)?;
        match backup.get(last) {
            Ok(theirs) => {
                let same = ours.timestamp_micros() == theirs.timestamp_micros()
                    && ours.topic() == theirs.topic()
                    && ours.payload() == theirs.payload();
                match same {
                    true => Ok(()),
                    false => Err(BackupError::Diverged { path, at: last }),
                }
            }
            // This run puts it back.
            Err(ReadError::SegmentMissing { .. }) => Ok(()),
            Err(ReadError::Corrupt(damage)) => Err(BackupError::Unreadable(damage.into())),
            Err(error @ ReadError::Io(_)) => Err(error.into()),
            Err(_) => Err(BackupError::Diverged { path, at: last }),
        }
    }

    /// Sees to a segment that is taken as it is: links it, or copies it.
    pub(super) fn bring(
        &mut self,
        src: &Path,
        whole: &Whole,
        advance: &mut impl FnMut(u64),
    ) -> Result<(), BackupError> {
        let base = whole.footer.base;
        let (from, to) = (segment::path(src, base), staged_segment(self.dir, base));
        // As it is now: it may have been compacted since the plan was made. One that cannot be read is not
        // compacted, and what is here of it stays.
        let now = match self.disk.open(&from) {
            Err(error) if error.is_not_found() => None,
            file => match inspect(file?, &whole.footer, &from) {
                Ok((_, footer)) => Some(footer),
                Err(BackupError::Damaged(ReadError::Corrupt(_))) => None,
                Err(error) => return Err(error),
            },
        };
        let now = now.as_ref().unwrap_or(&whole.footer);
        let is_named = self.is(&segment::path(self.dir, base), now)?;
        if is_named || self.is(&to, now)? {
            self.how.entry(base).or_insert(How::Kept);
            if !is_named {
                self.unnamed.insert(base);
            }
            advance(whole.file_bytes);
            return Ok(());
        }
        self.disk.remove(&to)?;
        let missing = |error: FileError| match error.is_not_found() {
            true => BackupError::from(ReadError::SegmentMissing {
                path: src.to_owned(),
                offset: base,
            }),
            false => error.into(),
        };
        if self.disk.link(&from, &to).map_err(missing)? {
            // Checked behind the link, which holds whatever file had the name at that moment.
            inspect(self.disk.open(&to)?, &whole.footer, &from)?;
            self.how.insert(base, How::Linked);
            self.unnamed.insert(base);
            advance(whole.file_bytes);
            return Ok(());
        }
        let (found, footer) = inspect(
            self.disk.open(&from).map_err(missing)?,
            &whole.footer,
            &from,
        )?;
        let copy = self.disk.create(&unsynced(self.dir))?;
        if copy.share_blocks_of(&found.file)? {
            self.how.insert(base, How::Linked);
            advance(whole.file_bytes);
        } else {
            let read = |into: &mut [u8], position| found.file.read_at(into, position);
            let header = shortened(&found.header, &footer);
            self.copy(&copy, &header, &footer, read, advance)?;
            advance(whole.file_bytes.saturating_sub(header.file_bytes));
        }
        self.stage(copy, base)
    }

    /// Sees to the last segment, which is copied as far as it is durable.
    pub(super) fn write(
        &mut self,
        tail: &Tail,
        advance: &mut impl FnMut(u64),
    ) -> Result<(), BackupError> {
        let base = tail.footer.base;
        // Under its name it is the end of an earlier backup, which was copied as well. Under a staged
        // one it may be shared: by a run that knew of more durable records, before a power cut.
        if self.is(&segment::path(self.dir, base), &tail.footer)? {
            self.how.entry(base).or_insert(How::Kept);
            advance(tail.header.file_bytes);
            return Ok(());
        }
        let bytes = tail.bytes();
        let read = |into: &mut [u8], position| {
            let from = usize::try_from(position).expect("at most 1 GiB");
            into.copy_from_slice(&bytes[from..from + into.len()]);
            Ok(())
        };
        let copy = self.disk.create(&unsynced(self.dir))?;
        self.copy(&copy, &tail.header, &tail.footer, read, advance)?;
        self.stage(copy, base)
    }

    /// Whether a file is there, and is this very segment.
    fn is(&self, path: &Path, footer: &Footer) -> Result<bool, BackupError> {
        let file = match self.disk.open(path) {
            Err(e) if e.is_not_found() => return Ok(false),
            file => file?,
        };
        match SegmentFile::inspect(file, footer.base, None) {
            Ok(found) => Ok(found.footer.as_ref() == Some(footer)),
            Err(SegmentError::Corrupt(_)) => Ok(false),
            Err(SegmentError::Io(e)) => Err(e.into()),
        }
    }

    /// Writes a sealed segment whose frames `read` gives.
    fn copy(
        &mut self,
        copy: &DiskFile,
        header: &SegmentHeader,
        footer: &Footer,
        read: impl Fn(&mut [u8], u64) -> Result<(), FileError>,
        advance: &mut impl FnMut(u64),
    ) -> Result<(), BackupError> {
        copy.write_at(&header.encode(), 0)?;
        let end = footer.end_position as usize;
        let mut piece = vec![0; PIECE_BYTES.min(end)];
        let mut position = format::FRAMES_START;
        while position < end {
            let len = piece.len().min(end - position);
            read(&mut piece[..len], position as u64)?;
            copy.write_at(&piece[..len], position as u64)?;
            position += len;
            advance(len as u64);
        }
        let frames_end = segment::frames_end(header.file_bytes);
        // The whole page, which gives the file its length.
        copy.write_at(&[0; format::FOOTER_PAGE_BYTES], frames_end as u64)?;
        segment_writer::write_footer(copy, frames_end, &footer.encode())?;
        advance(header.file_bytes - (end - format::FRAMES_START) as u64);
        self.how.insert(footer.base, How::Copied);
        self.copied_bytes += header.file_bytes;
        Ok(())
    }

    /// Gives a copy the name under which another run would keep it.
    fn stage(&mut self, mut copy: DiskFile, base: Offset) -> Result<(), BackupError> {
        copy.sync_data()?;
        copy.rename(&staged_segment(self.dir, base))?;
        self.unnamed.insert(base);
        Ok(())
    }

    /// Puts the new backup in the place of the earlier one, durably.
    pub(super) fn give_names(&self, src: &Path, plan: &Plan) -> Result<(), BackupError> {
        let (disk, dir) = (&self.disk, self.dir);
        let wanted: BTreeSet<Offset> = plan.bases().collect();
        let unnamed: Vec<Offset> = self.unnamed.intersection(&wanted).copied().collect();
        let listing = Listing::read(disk, dir)?;
        for name in &listing.staged {
            let is_used = base_of_staged(name).is_some_and(|base| unnamed.contains(&base));
            if !is_used && dir.join(name) != staged_meta(dir) {
                disk.remove(&dir.join(name))?;
            }
        }
        let meta = plan.meta();
        if unnamed.is_empty() && self.earlier.as_ref() == Some(&meta) {
            return Ok(disk.remove(&staged_meta(dir))?);
        }
        let mut new_meta = meta::write_new(disk, &unsynced(dir), &meta)?;
        new_meta.rename(&staged_meta(dir))?;
        disk.sync_dir(dir)?;
        if self.earlier.is_some() {
            // From here on there is no log, up to the end. Durably: a power cut must not bring this back
            // beside segments that it does not speak of.
            disk.remove(&dir.join(META_FILE))?;
            disk.sync_dir(dir)?;
        }
        for &base in &unnamed {
            self.remove_indexes(base)?;
            let mut file = disk.open(&staged_segment(dir, base))?;
            file.rename(&segment::path(dir, base))?;
        }
        for &base in listing.bases.iter().filter(|base| !wanted.contains(base)) {
            self.remove_indexes(base)?;
            disk.remove(&segment::path(dir, base))?;
        }
        // Best effort: without the files, whoever needs an index rebuilds it.
        let _ = self.bring_indexes(src, plan);
        disk.sync_dir(dir)?;
        new_meta.rename(&dir.join(META_FILE))?;
        disk.sync_dir(dir)?;
        Ok(disk.sync_own_name(dir)?)
    }

    fn remove_indexes(&self, base: Offset) -> Result<(), FileError> {
        let mut files = indexes(self.dir, base).into_iter();
        files.try_for_each(|path| self.disk.remove(&path))
    }

    /// Index files are shared as well: they are only ever replaced.
    fn bring_indexes(&self, src: &Path, plan: &Plan) -> Result<(), FileError> {
        let (disk, dir) = (&self.disk, self.dir);
        for whole in &plan.whole {
            let base = whole.footer.base;
            for (from, to) in indexes(src, base).into_iter().zip(indexes(dir, base)) {
                if disk.is_dir(&to)?.is_some() || disk.is_dir(&from)?.is_none() {
                    continue;
                }
                if !disk.link(&from, &to)? {
                    let mut copy = disk.create(&unsynced(dir))?;
                    copy.write_at(&disk.read(&from)?, 0)?;
                    copy.sync_data()?;
                    copy.rename(&to)?;
                }
            }
        }
        if let Some(tail) = &plan.tail {
            let Footer { base, nonce, .. } = tail.footer;
            index::store(disk, dir, base, nonce, &tail.index)?;
        }
        Ok(())
    }

    pub(super) fn how(&self, base: Offset) -> How {
        self.how.get(&base).copied().expect("seen to")
    }

    pub(super) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }
}

/// Reads the ends of a segment that should hold what `expected` says. One that was compacted meanwhile
/// does so in other frames.
fn inspect(
    file: DiskFile,
    expected: &Footer,
    path: &Path,
) -> Result<(SegmentFile, Footer), BackupError> {
    let found = SegmentFile::inspect(file, expected.base, None).map_err(ReadError::from)?;
    let damaged = |damage| {
        let damage = Corruption::new(path, found.frames_end(), damage);
        ReadError::from(damage.of_record(expected.base))
    };
    let footer = found.footer.clone();
    let footer = footer.ok_or_else(|| damaged(Damage::Footer))?;
    if footer.next != expected.next {
        let (expected, found) = (expected.next, footer.next);
        return Err(damaged(Damage::End { expected, found }).into());
    }
    Ok((found, footer))
}

/// Refuses a directory of other files.
fn check_names(disk: &Disk, dir: &Path) -> Result<(), BackupError> {
    let listing = Listing::read(disk, dir)?;
    match listing.foreign {
        Some(found) if !listing.has_meta && listing.staged.is_empty() => {
            let path = dir.to_owned();
            Err(BackupError::NotABackup { path, found })
        }
        _ => Ok(()),
    }
}

fn check_id(dir: &Path, expected: u128, found: u128) -> Result<(), BackupError> {
    let path = dir.to_owned();
    match found == expected {
        true => Ok(()),
        false => Err(BackupError::OtherLog {
            path,
            expected,
            found,
        }),
    }
}

fn load(disk: &Disk, path: &Path) -> Result<Option<Meta>, BackupError> {
    match meta::load_file(disk, path) {
        Ok(loaded) => Ok(loaded.map(|loaded| loaded.meta)),
        Err(SegmentError::Corrupt(damage)) => Err(BackupError::Unreadable(damage.into())),
        Err(SegmentError::Io(e)) => Err(e.into()),
    }
}

/// What is derived from the segment at `base`.
fn indexes(dir: &Path, base: Offset) -> [PathBuf; 2] {
    [index::path(dir, base), topics::path(dir, base)]
}

/// A segment that is durable, and waits for its name.
fn staged_segment(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}{STAGED}"))
}

fn base_of_staged(name: &OsStr) -> Option<Offset> {
    segment::base_of_name(Path::new(name).with_extension("seg").as_os_str())
}

fn staged_meta(dir: &Path) -> PathBuf {
    dir.join(format!("{META_FILE}{STAGED}"))
}

/// What is being written: nobody relies on it.
fn unsynced(dir: &Path) -> PathBuf {
    dir.join(format!("unsynced{STAGED}"))
}
