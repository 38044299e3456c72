//! Opening a log for writing: tell a clean end from an unclean one, a tear from damage, and make
//! what is kept as durable as it looks.
//!
//! What each step guards against: docs/durability.md. The order of the writes matters: what is kept
//! is sealed and synced, names included, before `meta` calls it durable under a new epoch; only then
//! is removed what is not kept. Interrupted anywhere, the next recovery comes to the same end.

use std::path::Path;
use std::time::Duration;

use crate::backup;
use crate::clock;
use crate::compaction;
use crate::disk::Disk;
use crate::error::{Corruption, Damage, FileError, OpenError, SegmentError};
use crate::format::{self, CleanEnd, EpochStart, Footer, Meta};
use crate::guard::{self, Guard};
use crate::index;
use crate::lock::LOCK_FILE;
use crate::meta::{self, META_FILE, MetaFile};
use crate::offset::{Epoch, Offset};
use crate::prepare;
use crate::scan::{self, Scan, Stop};
use crate::segment::{self, SegmentFile};
use crate::segment_writer;
use crate::topics;

/// Files that work in progress leaves behind when a crash interrupts it.
pub(crate) const TEMPORARIES: [&str; 5] = [
    prepare::PREPARED_FILE,
    meta::META_TEMPORARY,
    index::INDEX_TEMPORARY,
    topics::TOPICS_TEMPORARY,
    compaction::COMPACTED_TEMPORARY,
];

/// A log as it stands after recovery.
pub(crate) struct Recovered {
    pub(crate) meta: MetaFile,
    /// All sealed segments, oldest first.
    pub(crate) sealed: Vec<(u64, Footer)>,
    /// The segment to go on in, if the log was closed in the middle of one.
    pub(crate) unfinished: Option<Unfinished>,
    pub(crate) next: Offset,
    pub(crate) last_timestamp_micros: u64,
}

/// A segment that a clean close left unsealed.
pub(crate) struct Unfinished {
    pub(crate) segment: SegmentFile,
    pub(crate) scan: Scan,
}

/// Names in a log's directory.
pub(crate) struct Listing {
    /// The bases of the segments, ascending.
    pub(crate) bases: Vec<Offset>,
    /// Left over from work that a crash interrupted.
    temporaries: Vec<std::ffi::OsString>,
    pub(crate) has_meta: bool,
    /// A file that no log has.
    pub(crate) foreign: Option<String>,
    /// What a backup has not given its name yet.
    pub(crate) staged: Vec<std::ffi::OsString>,
}

impl Listing {
    pub(crate) fn read(disk: &Disk, dir: &Path) -> Result<Self, FileError> {
        let mut listing = Self {
            bases: Vec::new(),
            temporaries: Vec::new(),
            has_meta: false,
            foreign: None,
            staged: Vec::new(),
        };
        for name in disk.list(dir)? {
            let text = name.to_string_lossy().into_owned();
            if let Some(base) = segment::base_of_name(&name) {
                listing.bases.push(base);
            } else if TEMPORARIES.contains(&text.as_str()) {
                listing.temporaries.push(name);
            } else if text == META_FILE {
                listing.has_meta = true;
            } else if text.ends_with(backup::STAGED) {
                listing.staged.push(name);
            } else if text != LOCK_FILE
                && !text.ends_with(".idx")
                && !text.ends_with(topics::TOPICS_SUFFIX)
            {
                listing.foreign.get_or_insert(text);
            }
        }
        listing.bases.sort_unstable();
        Ok(listing)
    }
}

/// Refuses a directory that is something else than a log; `Ok` for an empty or missing one.
pub(crate) fn check_directory(disk: &Disk, dir: &Path) -> Result<(), OpenError> {
    match disk.is_dir(dir)? {
        None => return Ok(()),
        Some(false) => {
            return Err(OpenError::NotADirectory {
                path: dir.to_owned(),
            });
        }
        Some(true) => {}
    }
    let listing = Listing::read(disk, dir)?;
    if let Some(name) = listing.staged.first().filter(|_| !listing.has_meta) {
        let (path, found) = (dir.to_owned(), name.to_string_lossy().into_owned());
        return Err(OpenError::UnfinishedBackup { path, found });
    }
    match listing.foreign {
        Some(found) if listing.bases.is_empty() && !listing.has_meta => Err(OpenError::NotALog {
            path: dir.to_owned(),
            found,
        }),
        _ => Ok(()),
    }
}

/// Brings the log in `dir` into a state from which to append. The caller holds its lock.
pub(crate) fn recover(disk: &Disk, dir: &Path) -> Result<Recovered, OpenError> {
    let started = clock::uptime();
    let listing = Listing::read(disk, dir)?;
    if listing.has_meta {
        // What a killed process wrote may be in the page cache only, and what a failed sync could not
        // write looks written there: acted upon, and then lost by a power cut, it would leave a
        // clean end that is none any more.
        let file = disk.open_writable(&dir.join(META_FILE))?;
        file.sync_data()?;
        file.evict(0)?;
    }
    let Some(loaded) = meta::load(disk, dir)? else {
        if let Some(&base) = listing.bases.first() {
            let gone = Corruption::new(&dir.join(META_FILE), 0, Damage::Meta);
            return Err(gone.of_record(base).into());
        }
        return create(disk, dir);
    };
    for name in &listing.temporaries {
        disk.remove(&dir.join(name))?;
    }
    let mut segments = Vec::with_capacity(listing.bases.len());
    let mut void = Vec::new();
    for base in listing.bases {
        if base < loaded.meta.first {
            void.push(base);
            continue;
        }
        let segment = SegmentFile::open(disk, dir, base, Some(loaded.meta.log_id))?;
        let epoch = segment.header.epoch;
        match meta::void_from(&loaded.meta.epochs, epoch) {
            Some(start) if start <= base => void.push(base),
            _ => segments.push(segment),
        }
    }
    let plan = match loaded.meta.clean.clone().filter(|_| loaded.agreed) {
        Some(clean) => clean_end(dir, segments, &clean, loaded.meta.first)?,
        None => unclean_end(dir, segments, &loaded.meta)?,
    };
    plan.carry_out(disk, dir, loaded, void, started)
}

/// Writes the `meta` of a new log.
fn create(disk: &Disk, dir: &Path) -> Result<Recovered, OpenError> {
    let epoch = EpochStart {
        epoch: Epoch::FIRST,
        start: Offset::ZERO,
        opened_micros: clock::now_micros(),
        recovery_micros: 0,
        cut_bytes: 0,
    };
    let meta = Meta {
        log_id: new_log_id(disk),
        sequence: 1,
        first: Offset::ZERO,
        durable: Offset::ZERO,
        clean: None,
        epochs: vec![epoch],
    };
    // An earlier opening may have made the directory and died. Before there is a `meta`, with which
    // nobody comes here again.
    disk.sync_own_name(dir)?;
    let meta = MetaFile::create(disk, dir, meta)?;
    Ok(Recovered {
        meta,
        sealed: Vec::new(),
        unfinished: None,
        next: Offset::ZERO,
        last_timestamp_micros: 0,
    })
}

pub(crate) fn new_log_id(disk: &Disk) -> u128 {
    (0..4).fold(0, |id, _| id << 32 | u128::from(disk.random_u32()))
}

/// What is to be done to a log, decided before anything is changed.
struct Plan {
    sealed: Vec<(u64, Footer)>,
    unfinished: Option<Unfinished>,
    next: Offset,
    last_timestamp_micros: u64,
    /// `None` after a clean end.
    unclean: Option<Unclean>,
}

#[derive(Default)]
struct Unclean {
    /// Segments to be sealed where their last whole frame ends.
    to_seal: Vec<(SegmentFile, Footer, Scan)>,
    /// Segments that hold nothing that is kept.
    void: Vec<Offset>,
    cut_bytes: u64,
}

/// Every segment that is known to be sealed must say so, and end where the next one begins.
fn check_sealed(
    dir: &Path,
    segments: &[SegmentFile],
    end: Option<Offset>,
) -> Result<Vec<(u64, Footer)>, OpenError> {
    let mut sealed = Vec::with_capacity(segments.len());
    for (i, segment) in segments.iter().enumerate() {
        let footer = segment.footer.clone().ok_or_else(|| {
            Corruption::new(segment.file.path(), segment.frames_end(), Damage::Footer)
        })?;
        let expected = segments.get(i + 1).map(|next| next.base).or(end);
        check_end(dir, segment, footer.next, expected)?;
        sealed.push((segment.header.file_bytes, footer));
    }
    Ok(sealed)
}

/// The log must begin with its first retained record.
fn check_first(dir: &Path, first: Option<&SegmentFile>, retained: Offset) -> Result<(), OpenError> {
    match first {
        Some(first) if first.base != retained => {
            let (path, from, to) = (dir.to_owned(), retained, first.base);
            Err(OpenError::SegmentMissing { path, from, to })
        }
        _ => Ok(()),
    }
}

fn check_end(
    dir: &Path,
    segment: &SegmentFile,
    found: Offset,
    expected: Option<Offset>,
) -> Result<(), OpenError> {
    match expected {
        Some(expected) if found < expected => Err(OpenError::SegmentMissing {
            path: dir.to_owned(),
            from: found,
            to: expected,
        }),
        Some(expected) if found > expected => {
            let damage = Damage::End { expected, found };
            Err(Corruption::new(segment.file.path(), segment.frames_end(), damage).into())
        }
        _ => Ok(()),
    }
}

/// The log was closed: all of it is durable, and ends where `meta` says.
fn clean_end(
    dir: &Path,
    mut segments: Vec<SegmentFile>,
    clean: &CleanEnd,
    first: Offset,
) -> Result<Plan, OpenError> {
    let last = match clean.end_position {
        0 => None,
        _ => segments.pop_if(|last| last.base == clean.base),
    };
    check_first(dir, segments.first().or(last.as_ref()), first)?;
    let sealed = check_sealed(dir, &segments, Some(clean.base))?;
    let sealed_next = sealed.last().map_or(first, |(_, footer)| footer.next);
    let mut plan = Plan {
        last_timestamp_micros: sealed
            .last()
            .map_or(0, |(_, footer)| footer.last_timestamp_micros),
        sealed,
        unfinished: None,
        next: clean.next,
        unclean: None,
    };
    let Some(segment) = last else {
        if sealed_next < clean.next {
            let (path, from, to) = (dir.to_owned(), sealed_next, clean.next);
            return Err(OpenError::SegmentMissing { path, from, to });
        }
        return Ok(plan);
    };
    let map = segment.map_whole()?;
    let frames = &map.published()[..segment.frames_end()];
    let scan = scan::scan(frames, segment.header.nonce, segment.base);
    let next = scan.next;
    if scan.end_position != clean.end_position as usize || next != clean.next {
        return Err(damaged_stop(&segment, &scan, clean.next).into());
    }
    plan.last_timestamp_micros = scan.last_timestamp_micros;
    // A pad that met a full disk is not there: the sector was flushed all the same.
    let fills_its_sector = scan.end_position.is_multiple_of(format::SECTOR_BYTES);
    if scan.stop == Stop::Unwritten && segment.footer.is_none() && fills_its_sector {
        plan.unfinished = Some(Unfinished { segment, scan });
    } else if next == segment.base {
        // Nothing to keep, and the next segment gets its name.
        plan.unclean = Some(Unclean {
            void: vec![segment.base],
            ..Unclean::default()
        });
    } else {
        // The records are whole, but nothing may be appended over what is behind them, before a
        // footer, or into a sector that was flushed.
        let footer = footer_of(&segment, &scan);
        plan.sealed
            .push((segment.header.file_bytes, footer.clone()));
        let to_seal = vec![(segment, footer, scan)];
        plan.unclean = Some(Unclean {
            to_seal,
            ..Unclean::default()
        });
    }
    Ok(plan)
}

/// The process was killed, or the machine went down: find the first record that did not survive.
fn unclean_end(dir: &Path, mut segments: Vec<SegmentFile>, meta: &Meta) -> Result<Plan, OpenError> {
    let mut durable = meta.durable;
    let mut scanned: Vec<(SegmentFile, Scan)> = Vec::new();
    // Backwards, until a watermark vouches for all that lies before.
    while let Some(segment) = segments.pop() {
        let (scan, known) = scan_disk(&segment, durable)?;
        durable = known;
        // A flush that ended behind the segment's base has synced all segments before it, their
        // footers too. One that ended at the base may have come before the footer.
        let vouched = durable > segment.base;
        scanned.push((segment, scan));
        if vouched {
            break;
        }
    }
    scanned.reverse();
    check_first(dir, segments.first(), meta.first)?;
    let trusted_end = scanned.first().map(|(segment, _)| segment.base);
    let sealed = check_sealed(dir, &segments, trusted_end)?;
    let mut plan = Plan {
        next: sealed.last().map_or(meta.first, |(_, footer)| footer.next),
        last_timestamp_micros: sealed
            .last()
            .map_or(0, |(_, footer)| footer.last_timestamp_micros),
        sealed,
        unfinished: None,
        unclean: None,
    };
    let mut unclean = Unclean::default();
    // Names are lost in any order: nothing is kept behind a first one that was.
    let mut torn = segments.is_empty()
        && scanned
            .first()
            .is_some_and(|(first, _)| first.base != meta.first);
    let bases: Vec<Offset> = scanned.iter().map(|(segment, _)| segment.base).collect();
    for (i, (segment, scan)) in scanned.into_iter().enumerate() {
        let end = scan.next;
        let goes_on = bases.get(i + 1) == Some(&end);
        if torn {
            unclean.void.push(segment.base);
            continue;
        }
        if end < durable && !goes_on {
            return Err(damaged_stop(&segment, &scan, durable).into());
        }
        torn = !goes_on;
        unclean.cut_bytes += torn_bytes(&segment, &scan)? as u64;
        if end == segment.base {
            // Without a record there is nothing to keep, and the next segment gets its name.
            unclean.void.push(segment.base);
            continue;
        }
        plan.next = end;
        plan.last_timestamp_micros = scan.last_timestamp_micros;
        let footer = footer_of(&segment, &scan);
        plan.sealed
            .push((segment.header.file_bytes, footer.clone()));
        unclean.to_seal.push((segment, footer, scan));
    }
    if plan.next < durable {
        return Err(OpenError::SegmentMissing {
            path: dir.to_owned(),
            from: plan.next,
            to: durable,
        });
    }
    if !guard::stands(Guard::NewSegmentAfterUncleanEnd)
        && let Some((segment, _, scan)) = unclean.to_seal.pop()
    {
        plan.sealed.pop();
        plan.unfinished = Some(Unfinished { segment, scan });
    }
    plan.unclean = Some(unclean);
    Ok(plan)
}

/// Reads a segment, where no mark vouches for it from the disk; with the highest watermark known, from
/// the frames behind a stop as well.
fn scan_disk(segment: &SegmentFile, durable: Offset) -> Result<(Scan, Offset), SegmentError> {
    let (scan, marked) = scan_file(segment)?;
    let durable = durable.max(marked);
    // Where no mark vouches for it, what is in the page cache may be what a failed sync could not
    // write: the pages look clean, and every later sync succeeds. Only the disk knows. No mark
    // vouches for itself, so there is always something to read again.
    let known = u32::try_from(durable.since(segment.base)).unwrap_or(u32::MAX);
    let from = index::point_before(&scan.index, known)
        .map_or(format::FRAMES_START, |p| p.position as usize);
    segment
        .file
        .evict((from - from % format::PAGE_BYTES) as u64)?;
    let (scan, marked) = scan_file(segment)?;
    Ok((scan, durable.max(marked)))
}

fn scan_file(segment: &SegmentFile) -> Result<(Scan, Offset), SegmentError> {
    let map = segment.map_whole()?;
    let bytes = &map.published()[..segment.frames_end()];
    let scan = scan::scan(bytes, segment.header.nonce, segment.base);
    let behind = scan::durable_behind(bytes, scan.end_position, segment.header.nonce);
    let durable = scan.durable.max(behind).unwrap_or(Offset::ZERO);
    Ok((scan, durable))
}

/// The place at which a segment that should go on to `expected` does not.
fn damaged_stop(segment: &SegmentFile, scan: &Scan, expected: Offset) -> Corruption {
    let found = scan.next;
    let (position, damage) = match scan.stop {
        Stop::Unwritten if found >= expected => {
            (scan.end_position, Damage::End { expected, found })
        }
        _ => scan.missed(),
    };
    Corruption::new(segment.file.path(), position, damage).of_record(scan.stopped_at)
}

/// Bytes behind the last whole frame, up to the last one that is not zero.
fn torn_bytes(segment: &SegmentFile, scan: &Scan) -> Result<usize, SegmentError> {
    let map = segment.map_whole()?;
    let behind = &map.published()[scan.end_position..segment.frames_end()];
    Ok(scan::written_bytes(behind))
}

fn footer_of(segment: &SegmentFile, scan: &Scan) -> Footer {
    if let Some(footer) = &segment.footer
        && footer.next == scan.next
        && footer.end_position as usize == scan.end_position
        && footer.gaps == scan.gaps
    {
        // Of a compacted segment, it alone still knows the times of what was removed; and a backup may
        // share the file.
        return footer.clone();
    }
    Footer {
        base: segment.base,
        next: scan.next,
        end_position: u32::try_from(scan.end_position).expect("at most 1 GiB"),
        nonce: segment.header.nonce,
        first_timestamp_micros: scan.first_timestamp_micros,
        last_timestamp_micros: scan.last_timestamp_micros,
        epoch: segment.header.epoch,
        gaps: scan.gaps,
    }
}

impl Plan {
    fn carry_out(
        self,
        disk: &Disk,
        dir: &Path,
        loaded: meta::Loaded,
        mut void: Vec<Offset>,
        started: Duration,
    ) -> Result<Recovered, OpenError> {
        let mut meta = MetaFile::open(disk, dir, loaded)?;
        let (start, unclean) = (self.next, self.unclean);
        let cut_bytes = unclean.as_ref().map(|unclean| unclean.cut_bytes);
        if let Some(unclean) = unclean {
            void.extend(unclean.void);
            // Oldest first, and before `meta` says that all of it is durable.
            for (segment, footer, scan) in unclean.to_seal {
                seal(disk, dir, &segment, &footer, &scan)?;
            }
            // A killed process may have named a segment without a sync of the name.
            disk.sync_dir(dir)?;
        }
        // Also after a clean end: what follows must not be taken for closed.
        meta.update(|meta| {
            meta.clean = None;
            meta.durable = start;
            if let Some(cut_bytes) = cut_bytes {
                let last = meta.epochs.last().map_or(Epoch::FIRST, |last| last.epoch);
                meta::begin_epoch(&mut meta.epochs, last.next(), start, started, cut_bytes);
            }
        })?;
        for &base in &void {
            disk.remove(&topics::path(dir, base))?;
            disk.remove(&index::path(dir, base))?;
            disk.remove(&segment::path(dir, base))?;
        }
        if !void.is_empty() {
            disk.sync_dir(dir)?;
        }
        Ok(Recovered {
            meta,
            sealed: self.sealed,
            unfinished: self.unfinished,
            next: self.next,
            last_timestamp_micros: self.last_timestamp_micros,
        })
    }
}

/// Writes the footer of a segment that was still being appended to, and gives back what it did
/// not use.
fn seal(
    disk: &Disk,
    dir: &Path,
    segment: &SegmentFile,
    footer: &Footer,
    scan: &Scan,
) -> Result<(), SegmentError> {
    // Also where it stands already: a recovery whose sync failed has left it in the page cache, where
    // it looks written.
    let file = disk.open_writable(segment.file.path())?;
    segment_writer::write_footer(&file, segment.frames_end(), &footer.encode())?;
    // The frames as well: what a killed process wrote may be in the page cache only. Trusted, and lost
    // by a power cut after new records were made durable, it would leave a hole.
    if guard::stands(Guard::SyncBeforeTrust) {
        file.sync_data()?;
    }
    if segment.footer.as_ref() != Some(footer) {
        // Only zeros: a reader in another process may hold what stands before them.
        let unused = scan.end_position + torn_bytes(segment, scan)?;
        let from = unused.next_multiple_of(format::PAGE_BYTES);
        // Best effort: the space is only lost until the segment is dropped.
        let _ = file.punch_hole(from as u64, segment.frames_end() as u64);
    }
    // Best effort: without the file, whoever needs the index rebuilds it.
    let _ = index::store(disk, dir, segment.base, segment.header.nonce, &scan.index);
    Ok(())
}

#[cfg(all(test, not(simulation)))]
mod tests {
    use super::*;
    use crate::format::SegmentHeader;
    use crate::options::{Flush, Options};
    use crate::{Log, Start};

    const SEGMENTS: u64 = 100;
    const SEGMENT_BYTES: u64 = 100 << 20;
    const RECORDS_EACH: u64 = 1000;

    /// A closed log of 100 sealed segments of 100 MiB, with nothing in them but their ends.
    fn huge_log(disk: &Disk, dir: &Path) {
        let mut meta = create(disk, dir).unwrap().meta;
        let log_id = meta.get().log_id;
        for i in 0..SEGMENTS {
            let base = Offset::new(i * RECORDS_EACH);
            let nonce = disk.random_u32();
            let file = disk.create(&segment::path(dir, base)).unwrap();
            let header = SegmentHeader {
                nonce,
                log_id,
                epoch: Epoch::FIRST,
                file_bytes: SEGMENT_BYTES,
                created_micros: 1,
            };
            let footer = Footer {
                base,
                next: base.plus(RECORDS_EACH),
                end_position: u32::try_from(SEGMENT_BYTES / 2).unwrap(),
                nonce,
                first_timestamp_micros: 1,
                last_timestamp_micros: 2,
                epoch: Epoch::FIRST,
                gaps: 0,
            };
            let frames_end = segment::frames_end(SEGMENT_BYTES);
            file.write_at(&header.encode(), 0).unwrap();
            file.write_at(&[0; 1], SEGMENT_BYTES - 1).unwrap();
            segment_writer::write_footer(&file, frames_end, &footer.encode()).unwrap();
        }
        let next = Offset::new(SEGMENTS * RECORDS_EACH);
        meta.update(|meta| {
            meta.clean = Some(CleanEnd {
                base: next,
                end_position: 0,
                next,
            });
            meta.durable = next;
        })
        .unwrap();
    }

    #[test]
    fn opening_ten_gibibytes_reads_the_last_segment_and_the_ends_of_the_others() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        huge_log(&disk, dir.path());
        let options = Options {
            flush: Flush::OnDemand,
            ..Options::default()
        };
        let log = Log::open_writer_on(&disk, dir.path(), &options).unwrap();
        let offset = log.append(b"the last segment's").unwrap();
        assert_eq!(offset, Offset::new(SEGMENTS * RECORDS_EACH));
        for clean in [true, false] {
            log.close().unwrap();
            if !clean {
                forget_the_clean_end(&disk, dir.path());
            }
            for action in ["read", "map"] {
                disk.faults.take_calls(action);
            }

            let reopened = Log::open_writer_on(&disk, dir.path(), &options).unwrap();

            let last = segment::path(dir.path(), offset);
            let mapped = disk.faults.take_calls("map");
            assert!(
                mapped.iter().all(|path| *path == last),
                "only the last segment is mapped: {mapped:?}"
            );
            // A header and a footer of 64 bytes each, and `meta`.
            let reads = disk.faults.take_calls("read").len() as u64;
            assert!(reads <= 2 * (SEGMENTS + 1) + 1, "{reads} small reads");
            let read = reopened
                .replay(Start::At(offset))
                .map(|r| r.unwrap().payload().len());
            assert_eq!(read.sum::<usize>(), 18);
            reopened.close().unwrap();
        }
    }

    /// As a kill would leave it: `meta` as it was while the log was open.
    fn forget_the_clean_end(disk: &Disk, dir: &Path) {
        let loaded = meta::load(disk, dir).unwrap().unwrap();
        MetaFile::open(disk, dir, loaded)
            .unwrap()
            .update(|meta| meta.clean = None)
            .unwrap();
    }
}
