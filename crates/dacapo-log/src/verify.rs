//! Checking every stored byte that means something, by the same path that readers take.

use std::ops::Range;
use std::path::Path;

use crate::error::{Corruption, Damage, OpenError, ReadError};
use crate::follower;
use crate::index;
use crate::log::{Log, Shared};
use crate::meta;
use crate::offset::{Offset, Start};
use crate::segment::{self, SegmentFile};
use crate::topics;

/// How far a verification, a repair or a backup has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of segment files that were seen to.
    pub checked_bytes: u64,
    /// Bytes of all segment files.
    pub total_bytes: u64,
}

/// What a verification found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verification {
    /// Segment files.
    pub segments: usize,
    /// Sound records.
    pub records: u64,
    /// Their payloads together.
    pub payload_bytes: u64,
    /// Every damaged place.
    pub damages: Vec<Corruption>,
    /// The records that cannot be read.
    pub lost: Vec<Range<Offset>>,
    /// Records that were lost before a [`repair`](crate::repair()): no damage of this log.
    pub gaps: Vec<Range<Offset>>,
    /// Bytes of an append that a crash interrupted, behind the log's end: no damage; the next
    /// opening for writing cuts them off.
    pub torn_bytes: u64,
}

impl Verification {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damages.is_empty() && self.lost.is_empty()
    }

    /// Adds a damaged place, unless it was noticed when the log was opened.
    fn note(&mut self, damage: Corruption) {
        damage.note_in(&mut self.damages);
    }
}

/// Reads and checks the whole log in `dir`, without changing it and without its lock, and calls
/// `progress` now and then.
///
/// # Errors
/// Only what keeps the log from being opened at all: see [`OpenError`]. Damage is part of the
/// answer.
///
/// ```
/// use dacapo_log::{Log, verify};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// Log::open(dir.path())?.append(b"sound")?;
///
/// let found = verify(dir.path(), |progress| eprintln!("{} bytes", progress.checked_bytes))?;
/// assert!(found.is_sound());
/// assert_eq!(found.records, 1);
/// # Ok(())
/// # }
/// ```
pub fn verify(
    dir: impl AsRef<Path>,
    progress: impl FnMut(Progress),
) -> Result<Verification, OpenError> {
    verify_log(&Log::options().open_read_only(dir)?, progress)
}

pub(crate) fn verify_log(
    log: &Log,
    mut progress: impl FnMut(Progress),
) -> Result<Verification, OpenError> {
    let shared = log.shared();
    let summaries = shared.segments.summaries();
    let total_bytes = summaries.iter().map(|summary| summary.file_bytes).sum();
    let mut found = Verification {
        segments: summaries.len(),
        records: 0,
        payload_bytes: 0,
        damages: shared.noticed().clone(),
        lost: Vec::new(),
        gaps: Vec::new(),
        torn_bytes: 0,
    };
    // The bytes of the segments before each one.
    let mut before = 0;
    let starts: Vec<(Offset, u64)> = summaries
        .iter()
        .map(|summary| {
            let start = before;
            before += summary.file_bytes;
            (summary.base, start)
        })
        .collect();
    let mut replay = log.replay(Start::Oldest);
    loop {
        match replay.next_ref() {
            Some(Ok(record)) => {
                found.records += 1;
                found.payload_bytes += record.payload().len() as u64;
                if found.records.is_multiple_of(4096)
                    && let Some((base, position)) = replay.reader().progress()
                {
                    let start = starts
                        .iter()
                        .rfind(|&&(at, _)| at <= base)
                        .map_or(0, |&(_, start)| start);
                    progress(Progress {
                        checked_bytes: start + position,
                        total_bytes,
                    });
                }
            }
            Some(Err(ReadError::Lost { from, to })) => found.gaps.push(from..to),
            Some(Err(error)) => {
                let from = replay.next_offset();
                found.note(place_of(&error, shared, from));
                let to = replay.skip_damage().unwrap_or(replay.end_offset());
                if to > from {
                    found.lost.push(from..to);
                }
            }
            None => break,
        }
    }
    while let Err(error) = replay.reader().verify_rest_of_segment() {
        found.note(place_of(&error, shared, replay.next_offset()));
        replay.skip_damage();
    }
    check_indexes(shared, &mut found);
    check_end(log, replay.next_offset(), &mut found);
    progress(Progress {
        checked_bytes: total_bytes,
        total_bytes,
    });
    Ok(found)
}

/// Every read error has a place: the damage, or the segment that should hold the record.
fn place_of(error: &ReadError, shared: &Shared, at: Offset) -> Corruption {
    match error {
        ReadError::Corrupt(corruption) => corruption.clone(),
        _ => Corruption::new(&segment::path(&shared.dir, at), 0, Damage::NoFile).of_record(at),
    }
}

fn check_indexes(shared: &Shared, found: &mut Verification) {
    // A lost record's point finds nothing, and is no fault of the index.
    if !found.lost.is_empty() {
        return;
    }
    for summary in shared.segments.summaries() {
        let Ok(segment) = shared.segments.holding(summary.base) else {
            continue;
        };
        let (disk, dir) = (&shared.disk, &shared.dir);
        let is_true = |point| segment.is_true(Some(point));
        if index::is_damaged(disk, dir, summary.base, segment.nonce(), is_true) {
            found.note(Corruption::new(
                &index::path(dir, summary.base),
                0,
                Damage::Index,
            ));
        }
        if topics::is_damaged(disk, &segment) {
            let path = topics::path(dir, summary.base);
            found.note(Corruption::new(&path, 0, Damage::Index));
        }
    }
}

/// Looks at what is behind the last record, if the last segment is not sealed: the rest of an
/// interrupted append, or, where the log was closed, damage to frames without a record.
fn check_end(log: &Log, end: Offset, found: &mut Verification) {
    let shared = log.shared();
    let last = shared.segments.summaries().into_iter().next_back();
    let Some(last) = last.filter(|last| last.footer.is_none()) else {
        return;
    };
    let (disk, dir) = (&shared.disk, &shared.dir);
    // Believed as recovery does: a closed log ends there, and nothing of it is torn. Looked at before
    // the file, which a writer may be sealing.
    let clean = match meta::load(disk, dir) {
        Ok(Some(loaded)) if loaded.agreed => loaded.meta.clean,
        _ => None,
    };
    let Ok(file) = SegmentFile::open(disk, dir, last.base, Some(shared.log_id)) else {
        return;
    };
    let damage = clean.and_then(|clean| match clean.end_position as usize {
        end if end > 0 && clean.base == last.base => follower::damage_before(&file, end),
        _ if file.footer.is_some() => None,
        // The log ends behind this segment, which then was sealed.
        _ => Some(Corruption::new(
            file.file.path(),
            file.frames_end(),
            Damage::Footer,
        )),
    });
    match damage {
        Some(damage) => found.note(damage),
        None => found.torn_bytes = follower::written_behind(&file, end).unwrap_or(0),
    }
}
