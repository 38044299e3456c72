//! Reading a log that another process writes: opening it without its lock, and finding out how
//! far it has grown.
//!
//! The writer stores each commit word last, so a word that is there vouches for the bytes behind
//! it on a live log. They are copied and verified all the same before readers see them, because
//! the log may also be what a crash left behind.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::disk::Disk;
use crate::error::{Corruption, Damage, OpenError, ReadError, SegmentError};
use crate::format::{self, FOOTER_WORD, Footer, Kind, Meta};
use crate::lock;
use crate::log::{Opened, Shared};
use crate::map::Frontier;
use crate::meta;
use crate::offset::Offset;
use crate::recovery::Listing;
use crate::scan::{self, Scan, Stop};
use crate::segment::{self, Segment, SegmentFile};
use crate::segments::Segments;
use crate::sync::{Mutex, MutexGuard, thread};

/// How often the writer's files are looked at: at first, and when nothing has happened for long.
const POLL_FIRST: Duration = Duration::from_micros(250);
const POLL_LAST: Duration = Duration::from_millis(5);

/// Opens a log for reading only. What is damaged is noted, and met again by whoever reads it.
pub(crate) fn open(disk: &Disk, dir: &Path) -> Result<Shared, OpenError> {
    let mut noticed = Vec::new();
    let listing = Listing::read(disk, dir)?;
    let meta = match meta::load(disk, dir) {
        Ok(Some(loaded)) => {
            noticed.extend(loaded.damaged);
            Some(loaded.meta)
        }
        Ok(None) if listing.bases.is_empty() => {
            return Err(OpenError::NotFound {
                path: dir.to_owned(),
            });
        }
        Ok(None) => {
            noticed.push(Corruption::new(&dir.join(meta::META_FILE), 0, Damage::Meta));
            None
        }
        Err(SegmentError::Corrupt(damage)) if !matches!(damage.damage, Damage::Version { .. }) => {
            noticed.push(damage);
            None
        }
        Err(error) => return Err(error.into()),
    };
    let found = Found::read(disk, dir, &listing, meta.as_ref(), &mut noticed)?;
    let durable = meta.as_ref().map_or(Offset::ZERO, |meta| meta.durable);
    let opened = Opened {
        follower: Some(Follower::starting_at(found.next, durable)),
        segments: found.segments,
        log_id: found.log_id,
        first: meta.as_ref().map_or(found.first, |meta| meta.first),
        next: found.next,
        durable: durable.min(found.next),
        epochs: meta.map(|meta| meta.epochs).unwrap_or_default(),
        indexer: None,
        noticed,
    };
    Ok(Shared::new(disk.clone(), dir.to_owned(), opened))
}

/// The segments before the one that may be growing.
struct Found {
    segments: Segments,
    log_id: u128,
    first: Offset,
    /// Where the growing segment begins, or will.
    next: Offset,
}

impl Found {
    fn read(
        disk: &Disk,
        dir: &Path,
        listing: &Listing,
        meta: Option<&Meta>,
        noticed: &mut Vec<Corruption>,
    ) -> Result<Self, OpenError> {
        let mut log_id = meta.map(|meta| meta.log_id);
        let mut files: Vec<SegmentFile> = Vec::new();
        // The last segment that cannot be opened.
        let mut unreadable = None;
        let retained = meta.map_or(Offset::ZERO, |meta| meta.first);
        for &base in listing.bases.iter().filter(|&&base| base >= retained) {
            match SegmentFile::open(disk, dir, base, log_id) {
                Ok(file) => {
                    log_id.get_or_insert(file.header.log_id);
                    let epochs = meta.map_or(&[][..], |meta| &meta.epochs);
                    let void_from = meta::void_from(epochs, file.header.epoch);
                    if void_from.is_none_or(|start| base < start) {
                        files.push(file);
                    }
                }
                Err(SegmentError::Corrupt(damage))
                    if !matches!(damage.damage, Damage::Version { .. }) =>
                {
                    noticed.push(damage.of_record(base));
                    unreadable = Some(base);
                }
                // The writer may have removed it since the directory was listed.
                Err(SegmentError::Io(e)) if e.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let log_id = log_id.unwrap_or_default();
        let segments = Segments::read_only(disk.clone(), dir.to_owned(), log_id);
        let first = files.first().map_or(Offset::ZERO, |file| file.base);
        let mut next = meta.map_or(first, |meta| meta.first);
        for (i, file) in files.iter().enumerate() {
            let behind = files.get(i + 1).map(|behind| behind.base);
            let footer = match (&file.footer, behind) {
                (Some(footer), _) => footer.clone(),
                // The last one, growing: the follower's.
                (None, None) => {
                    next = file.base;
                    break;
                }
                (None, Some(behind)) => {
                    let footer = footer_from_frames(file, behind)?;
                    noticed.push(Corruption::new(
                        file.file.path(),
                        file.frames_end(),
                        Damage::Footer,
                    ));
                    footer
                }
            };
            next = footer.next;
            segments.add_sealed(file.header.file_bytes, footer);
        }
        // Behind a segment that cannot be opened there is nothing to follow but what comes later.
        let unreadable = unreadable.filter(|&last| last > next);
        Ok(Self {
            segments,
            log_id,
            first,
            next: unreadable.unwrap_or(next),
        })
    }
}

/// What the footer of a segment would say, if the next one begins at `behind`.
fn footer_from_frames(file: &SegmentFile, behind: Offset) -> Result<Footer, SegmentError> {
    let map = file.map_whole()?;
    let scan = scan::scan(
        &map.published()[..file.frames_end()],
        file.header.nonce,
        file.base,
    );
    let whole = scan.next == behind;
    let end_position = if whole {
        scan.end_position
    } else {
        file.frames_end()
    };
    Ok(Footer {
        base: file.base,
        next: behind,
        end_position: u32::try_from(end_position).expect("at most 1 GiB"),
        nonce: file.header.nonce,
        first_timestamp_micros: scan.first_timestamp_micros,
        last_timestamp_micros: scan.last_timestamp_micros,
        epoch: file.header.epoch,
        gaps: scan.gaps,
    })
}

/// Where the writing process was last seen.
#[derive(Debug)]
pub(crate) struct Follower {
    state: Mutex<State>,
    /// Whether a thread is looking at the files; see [`Follower::watch`].
    watched: Mutex<bool>,
}

struct State {
    next: Offset,
    /// The highest durable watermark seen, which may lie ahead of what was read.
    durable: Offset,
    growing: Option<Growing>,
    /// A segment was left behind, and nobody was told yet.
    rolled: bool,
    /// The base of a segment that cannot be read, and that nobody waits for any more.
    given_up: Option<Offset>,
    scratch: Vec<u8>,
}

/// The segment that was last seen growing.
struct Growing {
    file: SegmentFile,
    frontier: Frontier,
    segment: Arc<Segment>,
    position: usize,
    /// The offset behind the records, and absences, before there.
    next: Offset,
    indexed_to: usize,
    /// The last stop that was looked into.
    examined_stop: Option<usize>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Follower {
    fn starting_at(next: Offset, durable: Offset) -> Self {
        let state = State {
            next,
            durable,
            growing: None,
            rolled: false,
            given_up: None,
            scratch: Vec::new(),
        };
        Self {
            state: Mutex::new(state),
            watched: Mutex::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets readers see what the writer has appended since the last look.
    pub(crate) fn advance(&self, shared: &Shared) -> Result<(), ReadError> {
        let mut state = self.state();
        let (next, durable) = (shared.visible.get(), shared.durable.get());
        let advanced = state.advance(shared);
        shared.visible.raise(next.max(state.next));
        shared
            .durable
            .raise(durable.max(state.durable.min(state.next)));
        let rolled = std::mem::take(&mut state.rolled);
        drop(state);
        if rolled {
            shared.announce_roll();
        }
        if shared.visible.get() > next {
            shared.announce(&shared.visible);
        }
        if shared.durable.get() > durable {
            shared.announce(&shared.durable);
        }
        advanced
    }

    /// Looks at the files again and again, on a thread of its own, until nobody waits any more.
    pub(crate) fn watch(&self, shared: &Arc<Shared>) {
        let mut watched = self.watched();
        if *watched {
            return;
        }
        let weak = Arc::downgrade(shared);
        let watch = move || {
            let mut pause = POLL_FIRST;
            while let Some(shared) = weak.upgrade() {
                let Some(follower) = &shared.follower else {
                    return;
                };
                let before = shared.visible.get();
                if follower.advance(&shared).is_err() {
                    // Whoever waits looks for itself, and gets the error.
                    shared.visible.wake();
                    shared.durable.wake();
                }
                pause = if shared.visible.get() > before {
                    POLL_FIRST
                } else {
                    POLL_LAST.min(pause * 2)
                };
                let mut watched = follower.watched();
                // With the flag's lock held: who begins to wait now finds the flag down.
                if shared.is_closed()
                    || !(shared.visible.is_waited_for() || shared.durable.is_waited_for())
                {
                    *watched = false;
                    return;
                }
                drop(watched);
                drop(shared);
                thread::sleep(pause);
            }
        };
        // Without a thread the waiting would never end; the next look tries again.
        *watched = thread::Builder::new()
            .name("dacapo-follow".to_owned())
            .spawn(watch)
            .is_ok();
    }

    /// The segment that cannot be opened is not waited for any more.
    pub(crate) fn give_up(&self) {
        let mut state = self.state();
        state.given_up = Some(state.next);
    }

    fn watched(&self) -> MutexGuard<'_, bool> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self, shared: &Shared) -> Result<(), ReadError> {
        loop {
            let Some(growing) = &mut self.growing else {
                match Growing::open(shared, self.next) {
                    Ok(Some(growing)) => self.growing = Some(growing),
                    // The writer has dropped what we have not even seen.
                    Ok(None) if shared.refresh_oldest() > self.next => {
                        self.next = shared.oldest();
                    }
                    Ok(None) if self.durable <= self.next || self.given_up == Some(self.next) => {
                        return Ok(());
                    }
                    // There was more than there is.
                    Ok(None) => {
                        let (path, offset) = (shared.dir.clone(), self.next);
                        return Err(ReadError::SegmentMissing { path, offset });
                    }
                    Err(_) if self.given_up == Some(self.next) => {
                        let listing = Listing::read(&shared.disk, &shared.dir)?;
                        match listing.bases.into_iter().find(|&base| base > self.next) {
                            Some(behind) => self.next = behind,
                            None => return Ok(()),
                        }
                    }
                    Err(error) => return Err(error),
                }
                continue;
            };
            while let Some(unit) = growing.read_unit(&mut self.scratch) {
                self.durable = self.durable.max(unit.durable.unwrap_or(Offset::ZERO));
                growing.take(&unit);
            }
            self.next = growing.next;
            // No mark follows what a closing made durable; `meta` says it.
            if self.durable < self.next && durable_moved_in_meta(shared, &mut self.durable) {
                continue;
            }
            match growing.at_a_stop(shared, self.durable, &mut self.scratch)? {
                AtStop::Wait => return Ok(()),
                AtStop::Again => {}
                AtStop::Leave => {
                    self.growing = None;
                    self.rolled = true;
                }
            }
        }
    }
}

fn durable_moved_in_meta(shared: &Shared, durable: &mut Offset) -> bool {
    let before = *durable;
    if let Ok(Some(loaded)) = meta::load(&shared.disk, &shared.dir) {
        *durable = before.max(loaded.meta.durable);
    }
    *durable > before
}

/// Frames that become visible together.
struct Unit {
    end: usize,
    /// The offset behind them.
    next: Offset,
    /// Relative offsets and positions of the records in them.
    records: Vec<(u32, usize)>,
    durable: Option<Offset>,
}

/// What to do where no further frame is to be seen.
enum AtStop {
    Wait,
    Again,
    Leave,
}

impl Growing {
    /// Opens the segment that begins at `base`, if it is there.
    fn open(shared: &Shared, base: Offset) -> Result<Option<Self>, ReadError> {
        let file = match SegmentFile::open(&shared.disk, &shared.dir, base, Some(shared.log_id)) {
            Err(SegmentError::Io(e)) if e.is_not_found() => return Ok(None),
            file => file?,
        };
        if file.header.epoch > shared.epoch()
            && let Ok(Some(loaded)) = meta::load(&shared.disk, &shared.dir)
        {
            // A writer has recovered the log since we looked.
            *shared.epochs() = loaded.meta.epochs;
        }
        let capacity = usize::try_from(file.header.file_bytes).expect("at most 1 GiB");
        let frontier = file.file.map_growing(capacity, format::FRAMES_START)?;
        let (path, nonce) = (file.file.path().to_owned(), file.header.nonce);
        let segment = Arc::new(Segment::growing(
            path,
            base,
            nonce,
            Arc::clone(frontier.map()),
            Vec::new(),
        ));
        shared
            .segments
            .add_growing(file.header.file_bytes, &segment);
        let position = format::FRAMES_START;
        Ok(Some(Self {
            file,
            frontier,
            segment,
            position,
            next: base,
            indexed_to: 0,
            examined_stop: None,
        }))
    }

    /// The next frame, or the next whole batch, if it is there and sound.
    fn read_unit(&self, scratch: &mut Vec<u8>) -> Option<Unit> {
        let mut unit = Unit {
            end: self.position,
            next: self.next,
            records: Vec::new(),
            durable: None,
        };
        loop {
            let start = unit.end;
            if start >= self.file.frames_end() {
                return None;
            }
            let word = self
                .frontier
                .map()
                .load_word(start)
                .filter(|&word| word != 0)?;
            let end = start.checked_add(format::frame_bytes_of_word(word)?)?;
            if end > self.file.frames_end() {
                return None;
            }
            self.frontier.copy_unpublished(start..end, scratch);
            let frame = format::decode_frame(scratch, 0, self.segment.nonce()).ok()?;
            if frame.kind == Kind::Pad {
                unit.end = format::next_sector(start + 1);
            } else {
                let begun = format::base_of(&frame, scratch);
                // Another segment's file under this one's name begins elsewhere.
                if self.file.base.plus(frame.relative.into()) != unit.next
                    || begun.is_some_and(|base| base != self.file.base)
                {
                    return None;
                }
                unit.end = end;
            }
            unit.durable = unit.durable.max(format::durable_of(&frame, scratch));
            if frame.kind.is_record() {
                unit.records.push((frame.relative, start));
                unit.next = unit.next.next();
            }
            if frame.kind.is_absence() {
                let gone = format::absence_of(&frame, scratch, self.file.base).ok()?;
                // None is in a batch.
                if !unit.records.is_empty() {
                    return None;
                }
                unit.next = gone.end;
            }
            if !frame.continues {
                return Some(unit);
            }
        }
    }

    fn take(&mut self, unit: &Unit) {
        for &(relative, position) in &unit.records {
            if position >= self.indexed_to {
                self.segment
                    .add_index_point(scan::point(relative, position));
                self.indexed_to = position + scan::INDEX_STRIDE_BYTES;
            }
        }
        self.next = unit.next;
        self.position = unit.end;
        self.frontier.publish(unit.end);
    }

    fn at_a_stop(
        &mut self,
        shared: &Shared,
        durable: Offset,
        scratch: &mut Vec<u8>,
    ) -> Result<AtStop, ReadError> {
        let footer_word = || self.frontier.map().load_word(self.file.frames_end());
        let is_sealed = footer_word() == Some(FOOTER_WORD);
        if is_sealed {
            match self.file.read_footer()? {
                Some(footer) if footer.next == self.next => return Ok(self.leave(shared, footer)),
                // Sealed since we looked at the frames.
                Some(footer)
                    if footer.end_position as usize > self.position && self.sees_more() =>
                {
                    return Ok(AtStop::Again);
                }
                _ => {}
            }
        }
        if !self.file.file.is_linked()? {
            // A footer that came between the two looks: the writer has sealed the segment, and then
            // dropped it. Without one, a writer that opened the log again put another file in place of
            // one without records.
            return Ok(match !is_sealed && footer_word() == Some(FOOTER_WORD) {
                true => AtStop::Again,
                false => AtStop::Leave,
            });
        }
        // A crash between the name of the next segment and the footer of this one.
        if self.next > self.segment.base()
            && shared
                .disk
                .is_dir(&segment::path(&shared.dir, self.next))?
                .is_some()
        {
            let footer = footer_from_frames(&self.file, self.next)?;
            return Ok(self.leave(shared, footer));
        }
        Ok(self.step_over_damage(shared, durable, scratch))
    }

    fn sees_more(&self) -> bool {
        self.read_unit(&mut Vec::new()).is_some()
    }

    fn leave(&mut self, shared: &Shared, footer: Footer) -> AtStop {
        let end = footer.next;
        shared.segments.seal(&self.segment, footer);
        self.segment.seal(end);
        AtStop::Leave
    }

    /// Where the first frame ends, if it gives the segment another base: the file has another one's name.
    /// `behind` is what stands behind the frames that were read.
    fn misnaming(&self, behind: &[u8]) -> Option<usize> {
        if self.position != format::FRAMES_START {
            return None;
        }
        let begin = format::decode_frame(behind, 0, self.segment.nonce()).ok()?;
        let begun = format::base_of(&begin, behind)?;
        (begun != self.file.base).then_some(self.position + begin.end)
    }

    /// Tells the end of the log, or a tear, from damage: where a watermark says that there was
    /// more. Then readers are let up to the last sound frame, and meet the damage on their way.
    fn step_over_damage(
        &mut self,
        shared: &Shared,
        durable: Offset,
        scratch: &mut Vec<u8>,
    ) -> AtStop {
        let (nonce, next) = (self.segment.nonce(), self.next);
        let word = self.frontier.map().load_word(self.position);
        // Zeros where the log grows are its end. Only the first ones are looked behind, for what
        // a crash and a lost sector leave together.
        let examined = match word {
            Some(0) => self.examined_stop.is_some(),
            _ => self.examined_stop == Some(self.position),
        };
        if examined && durable <= next {
            return AtStop::Wait;
        }
        self.examined_stop = Some(self.position);
        self.frontier
            .copy_unpublished(self.position..self.file.frames_end(), scratch);
        // What a living writer is storing right now looks like damage, until it is all there.
        if lock::writer_pid(&shared.disk, &shared.dir).is_some() {
            return AtStop::Wait;
        }
        if self.frontier.map().load_word(self.position) != word {
            return AtStop::Again;
        }
        let durable = durable.max(scan::durable_behind(scratch, 0, nonce).unwrap_or(durable));
        if durable <= next {
            return AtStop::Wait;
        }
        // A watermark is stored behind what it vouches for. So a living writer whose lock cannot be
        // seen, from another PID namespace, has stored that by now.
        if self.sees_more() {
            return AtStop::Again;
        }
        let base = self.segment.base();
        if let Some(end) = self.misnaming(scratch) {
            // None of its records is one of here. Readers are let at the frame that says so.
            self.frontier.publish(end);
            self.next = durable;
            return AtStop::Again;
        }
        self.next = match scan::last_frame(scratch, nonce) {
            Some(last) => {
                self.position += last.end;
                let behind = match format::absence_of(&last, scratch, base) {
                    Ok(gone) => gone.end,
                    Err(_) => {
                        base.plus(u64::from(last.relative) + u64::from(last.kind.is_record()))
                    }
                };
                durable.max(behind)
            }
            // Everything from here on is gone.
            None => durable,
        };
        self.frontier.publish(self.position);
        AtStop::Again
    }
}

/// How far behind the end of a segment's records something was written; `None` where its records
/// do not end before `end`.
pub(crate) fn written_behind(file: &SegmentFile, end: Offset) -> Option<u64> {
    let (bytes, scan) = scan_growing(file)?;
    let torn = scan.stop != Stop::Unwritten && scan.next == end;
    torn.then(|| scan::written_bytes(&bytes[scan.end_position..]) as u64)
}

/// The damage at which a segment's frames stop, if they do so before `end_position`.
pub(crate) fn damage_before(file: &SegmentFile, end_position: usize) -> Option<Corruption> {
    let (_, scan) = scan_growing(file)?;
    let (position, damage) = scan.missed();
    (scan.end_position < end_position).then(|| Corruption::new(file.file.path(), position, damage))
}

/// Scans a copy of a segment that another process may be appending to.
fn scan_growing(file: &SegmentFile) -> Option<(Vec<u8>, Scan)> {
    let frontier = file
        .file
        .map_growing(file.frames_end(), format::FRAMES_START)
        .ok()?;
    let mut bytes = vec![0; format::FRAMES_START];
    let mut frames = Vec::new();
    frontier.copy_unpublished(format::FRAMES_START..file.frames_end(), &mut frames);
    bytes.append(&mut frames);
    let scan = scan::scan(&bytes, file.header.nonce, file.base);
    Some((bytes, scan))
}
