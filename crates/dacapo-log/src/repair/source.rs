//! What is left of a damaged log: which segments there are, under which nonce each can be read, and
//! how far the log must reach.
//!
//! Opens for reading only and takes no lock. Reads the ends of the segments, and all of one only
//! where its ends do not tell, or where the log ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Repair;
use super::image::Image;
use crate::disk::{Disk, DiskFile};
use crate::error::{Corruption, Damage, FileError, OpenError, RepairError, SegmentError};
use crate::format::{self, CleanEnd, EpochStart, FOOTER_BYTES, Footer, Meta, SegmentHeader};
use crate::meta::{self, META_FILE};
use crate::offset::{Epoch, Offset};
use crate::recovery::Listing;
use crate::scan;
use crate::segment;

/// A damaged log, before its records are read.
pub(super) struct Source {
    /// Those that hold records of the log, by their bases.
    pub(super) segments: Vec<SourceSegment>,
    /// The oldest record that was not pruned.
    pub(super) first: Offset,
    /// The log reached up to here, as far as anything says.
    pub(super) promised: Offset,
    /// What is missing from here on was never durable: a tear, which ends the log.
    pub(super) vouched: Offset,
    /// Of the log, oldest first.
    pub(super) epochs: Vec<EpochStart>,
    /// Damage to `meta` and to the ends of the segments.
    pub(super) damages: Vec<Corruption>,
    /// Bytes of all segment files.
    pub(super) total_bytes: u64,
}

/// One segment file that can be read.
pub(super) struct SourceSegment {
    pub(super) base: Offset,
    pub(super) path: PathBuf,
    pub(super) file_bytes: u64,
    pub(super) nonce: u32,
    pub(super) footer: Option<Footer>,
    /// Where the footer stands, or should.
    pub(super) footer_at: usize,
    /// Where frames end, at the latest.
    pub(super) frames_end: usize,
    /// They end there and not before: the footer or `meta` says so.
    pub(super) is_bounded: bool,
    /// No record from here on is one of the log: it belongs to the next segment, or is void.
    pub(super) limit: Offset,
    /// The log goes on in another segment from here on, and this one should say so.
    pub(super) goes_on_at: Option<Offset>,
    /// Unknown where neither end could be read.
    epoch: Option<Epoch>,
}

impl Source {
    pub(super) fn read(disk: &Disk, dir: &Path) -> Result<Self, RepairError> {
        let listing = Listing::read(disk, dir)?;
        let mut damages = Vec::new();
        let loaded = match meta::load(disk, dir) {
            Ok(loaded) => loaded,
            Err(SegmentError::Io(e)) => return Err(e.into()),
            Err(SegmentError::Corrupt(damage)) => match damage.damage {
                Damage::Version { .. } => return Err(RepairError::Source(damage.into())),
                _ => None,
            },
        };
        match &loaded {
            Some(loaded) => damages.extend(loaded.damaged.clone()),
            None => damages.push(Corruption::new(&dir.join(META_FILE), 0, Damage::Meta)),
        }
        let known = loaded.as_ref().map(|loaded| &loaded.meta);
        let retained = known.map_or(Offset::ZERO, |meta| meta.first);
        let mut found = Vec::new();
        for &base in listing.bases.iter().filter(|&&base| base >= retained) {
            found.extend(Ends::read(disk, dir, base)?);
        }
        let log_id = known.map(|meta| meta.log_id).or_else(|| log_id_of(&found));
        let total_bytes = found.iter().map(|ends| ends.file_bytes).sum();
        let mut segments = Vec::with_capacity(found.len());
        for ends in found {
            segments.extend(ends.into_segment(log_id, &mut damages)?);
        }
        let Some(lowest) = segments.first().map(|s| s.base).or(known.map(|m| m.first)) else {
            return Err(nothing_to_go_by(dir, &listing, damages));
        };
        let epochs = known.map_or_else(|| epochs_of(&segments), |meta| meta.epochs.clone());
        let closed = loaded.as_ref().filter(|loaded| loaded.agreed);
        let clean = closed
            .and_then(|loaded| loaded.meta.clean.as_ref())
            .map(|clean| CleanEnd {
                base: clean.base.min(OFFSET_MAX),
                next: clean.next.min(OFFSET_MAX),
                end_position: clean.end_position,
            });
        segments.retain_mut(|segment| {
            let void_from = segment.epoch.and_then(|e| meta::void_from(&epochs, e));
            let end = clean.as_ref().map(|clean| clean.next);
            segment.limit = [void_from, end]
                .into_iter()
                .flatten()
                .fold(segment.limit, Offset::min);
            segment.limit > segment.base
        });
        let mut behind = clean.as_ref().map(|clean| clean.base);
        for segment in segments.iter_mut().rev() {
            segment.goes_on_at = behind.filter(|&behind| behind > segment.base);
            segment.limit = segment
                .limit
                .min(segment.goes_on_at.unwrap_or(segment.limit));
            behind = Some(segment.base);
        }
        let durable = known.map_or(Offset::ZERO, |meta| meta.durable);
        let mut source = Self {
            segments,
            first: known.map_or(lowest, |meta| meta.first),
            promised: durable,
            vouched: durable,
            epochs,
            damages,
            total_bytes,
        };
        match clean {
            Some(clean) => source.ends_cleanly(&clean),
            None => source.ends_uncleanly(disk, known)?,
        }
        source.first = source.first.min(OFFSET_MAX);
        source.promised = source.promised.clamp(source.first, OFFSET_MAX);
        Ok(source)
    }

    /// The epoch that a log begins which goes on from this one.
    pub(super) fn next_epoch(&self) -> Epoch {
        let last = self.epochs.iter().map(|epoch| epoch.epoch).max();
        last.map_or(Epoch::FIRST, Epoch::next)
    }

    /// The epochs with another one behind them, which begins where the log ends.
    pub(super) fn epochs_with(
        &self,
        epoch: Epoch,
        found: &Repair,
        started: Duration,
    ) -> Vec<EpochStart> {
        let mut epochs = self.epochs.clone();
        meta::begin_epoch(&mut epochs, epoch, found.next, started, found.torn_bytes);
        epochs
    }

    /// All of the log is durable, and ends where `meta` says.
    fn ends_cleanly(&mut self, clean: &CleanEnd) {
        (self.promised, self.vouched) = (clean.next, EVERYTHING);
        for segment in &mut self.segments {
            let position = clean.end_position as usize;
            if segment.base == clean.base && position > 0 {
                segment.footer = None;
                segment.is_bounded = true;
                segment.frames_end = position.clamp(format::FRAMES_START, segment.footer_at);
            }
        }
    }

    /// The log reaches at least up to the highest durable watermark, as in a recovery. Without
    /// `meta` nobody knows whether there was a clean end: then nothing that is there is torn off.
    fn ends_uncleanly(&mut self, disk: &Disk, meta: Option<&Meta>) -> Result<(), FileError> {
        for segment in self.segments.iter().rev() {
            let image = segment.image(disk)?;
            let frames = &image.bytes[..segment.frames_end];
            let scan = scan::scan(frames, segment.nonce, segment.base);
            let behind = scan::durable_behind(frames, scan.end_position, segment.nonce);
            let durable = scan.durable.max(behind).unwrap_or(Offset::ZERO);
            self.promised = self.promised.max(durable);
            if self.promised > segment.base {
                break;
            }
        }
        self.vouched = self.promised;
        if meta.is_none() {
            let ends = self.segments.iter().filter_map(|s| s.footer.as_ref());
            let sealed = ends.map(|footer| footer.next).max();
            self.promised = self.promised.max(sealed.unwrap_or(Offset::ZERO));
            self.vouched = EVERYTHING;
        }
        Ok(())
    }
}

/// No gap leads further, and no segment begins behind it.
const OFFSET_MAX: Offset = Offset::new(format::OFFSETS_END - 1);
/// Behind all offsets that can be.
const EVERYTHING: Offset = Offset::new(u64::MAX);

impl SourceSegment {
    pub(super) fn image(&self, disk: &Disk) -> Result<Image, FileError> {
        let mut image = Image::read(&disk.open(&self.path)?)?;
        // What was cut off the file reads as zeros.
        if image.bytes.len() < self.frames_end {
            image.bytes.resize(self.frames_end, 0);
        }
        Ok(image)
    }

    /// The damage of this segment at a place of it.
    pub(super) fn damage(&self, position: usize, damage: Damage) -> Corruption {
        Corruption::new(&self.path, position, damage)
    }
}

/// The fixed parts of a segment file, as they are.
struct Ends {
    file: DiskFile,
    base: Offset,
    file_bytes: u64,
    header: Result<SegmentHeader, Damage>,
    footer: Option<Footer>,
    /// What stands where the footer belongs, if that can be read.
    footer_block: Option<[u8; FOOTER_BYTES]>,
    /// The base in the first frame, if that can be read.
    begun: Option<Offset>,
}

impl Ends {
    /// `None` for a file that is gone since the directory was listed.
    fn read(disk: &Disk, dir: &Path, base: Offset) -> Result<Option<Self>, FileError> {
        let file = match disk.open(&segment::path(dir, base)) {
            Err(e) if e.is_not_found() => return Ok(None),
            file => file?,
        };
        let found_bytes = file.bytes()?;
        let header = match block_at(&file, 0) {
            Some(bytes) => SegmentHeader::decode(&bytes),
            None if found_bytes < format::SEGMENT_HEADER_BYTES as u64 => Err(Damage::Length {
                expected: (format::FRAMES_START + format::FOOTER_PAGE_BYTES) as u64,
                found: found_bytes,
            }),
            None => Err(Damage::Unreadable),
        };
        // The header knows how long the file was, if it is no longer as long.
        let file_bytes = match &header {
            Ok(header) => header.file_bytes,
            Err(_) => found_bytes,
        };
        let footer_block = file_bytes
            .checked_sub(format::FOOTER_PAGE_BYTES as u64)
            .filter(|_| file_bytes <= format::SEGMENT_BYTES_MAX)
            .and_then(|position| block_at(&file, position));
        let footer = footer_block
            .and_then(|bytes| segment::footer_of_segment(&bytes, base, file_bytes))
            .filter(|footer| {
                header.as_ref().is_ok_and(|h| h.nonce == footer.nonce) || header.is_err()
            });
        let nonce = header
            .as_ref()
            .map(|header| header.nonce)
            .ok()
            .or(footer.as_ref().map(|footer| footer.nonce));
        let begun = nonce.and_then(|nonce| {
            let mut bytes = [0; format::frame_bytes(0, format::BEGIN_PAYLOAD_BYTES)];
            file.read_at(&mut bytes, format::FRAMES_START as u64).ok()?;
            begun_at(&bytes, 0, nonce)
        });
        Ok(Some(Self {
            file,
            base,
            file_bytes: found_bytes,
            header,
            footer,
            footer_block,
            begun,
        }))
    }

    /// The segment, if its frames can be told from other bytes, with what is wrong at its ends.
    fn into_segment(
        self,
        log_id: Option<u128>,
        damages: &mut Vec<Corruption>,
    ) -> Result<Option<SourceSegment>, FileError> {
        let (path, base, found) = (self.file.path().to_owned(), self.base, self.file_bytes);
        let mut note = |position, damage| {
            damages.push(Corruption::new(&path, position, damage).of_record(base));
        };
        let largest = found.min(format::SEGMENT_BYTES_MAX);
        let (mut nonce, mut file_bytes) = (self.footer.as_ref().map(|f| f.nonce), largest);
        let mut epoch = self.footer.as_ref().map(|footer| footer.epoch);
        match (&self.header, log_id) {
            (Ok(header), Some(expected)) if header.log_id != expected => {
                let found = header.log_id;
                note(0, Damage::ForeignLog { expected, found });
                return Ok(None);
            }
            (Ok(header), _) => {
                let expected = header.file_bytes;
                if expected != found || expected > format::SEGMENT_BYTES_MAX {
                    note(0, Damage::Length { expected, found });
                }
                file_bytes = expected.min(format::SEGMENT_BYTES_MAX);
                (nonce, epoch) = (Some(header.nonce), Some(header.epoch));
            }
            (Err(damage), _) => note(0, damage.clone()),
        }
        let mut begun = self.begun;
        if nonce.is_none() {
            let bytes = Image::read(&self.file)?.bytes;
            nonce = format::nonce_of_frames(&bytes);
            begun = nonce.and_then(|nonce| begun_at(&bytes, format::FRAMES_START, nonce));
        }
        let ended = nonce
            .zip(self.footer_block)
            .and_then(|(nonce, block)| segment::base_in_footer(&block, nonce));
        if let Some(found) = begun.or(ended).filter(|&named| named != base) {
            let expected = base;
            note(format::FRAMES_START, Damage::OutOfPlace { expected, found });
            return Ok(None);
        }
        let smallest = (format::FRAMES_START + format::FOOTER_PAGE_BYTES) as u64;
        let Some(nonce) = nonce.filter(|_| file_bytes >= smallest) else {
            return Ok(None);
        };
        let footer_at = segment::frames_end(file_bytes);
        Ok(Some(SourceSegment {
            base,
            path,
            file_bytes: found,
            nonce,
            footer_at,
            frames_end: self
                .footer
                .as_ref()
                .map_or(footer_at, |footer| footer.end_position as usize),
            is_bounded: self.footer.is_some(),
            footer: self.footer,
            limit: Offset::new(format::OFFSETS_END),
            goes_on_at: None,
            epoch,
        }))
    }
}

/// The base that the first frame gives its segment, if it stands here.
fn begun_at(bytes: &[u8], position: usize, nonce: u32) -> Option<Offset> {
    let frame = format::decode_frame(bytes, position, nonce).ok()?;
    format::base_of(&frame, bytes)
}

/// A block of 64 bytes, if it can be read.
fn block_at(file: &DiskFile, position: u64) -> Option<[u8; FOOTER_BYTES]> {
    let mut bytes = [0; FOOTER_BYTES];
    file.read_at(&mut bytes, position).ok()?;
    Some(bytes)
}

/// The log that most of the segments belong to.
fn log_id_of(found: &[Ends]) -> Option<u128> {
    let ids = || found.iter().filter_map(|ends| ends.header.as_ref().ok());
    let votes = |id| ids().filter(|header| header.log_id == id).count();
    ids()
        .map(|header| header.log_id)
        .max_by_key(|&id| votes(id))
}

/// The epochs as the segments tell of them: each begins with a segment, where the one before ends.
fn epochs_of(segments: &[SourceSegment]) -> Vec<EpochStart> {
    let mut epochs: Vec<EpochStart> = Vec::new();
    for segment in segments {
        let Some(epoch) = segment.epoch else {
            continue;
        };
        if epochs.iter().all(|known| known.epoch != epoch) {
            epochs.push(EpochStart {
                epoch,
                start: segment.base,
                opened_micros: 0,
                recovery_micros: 0,
                cut_bytes: 0,
            });
        }
    }
    epochs.sort_by_key(|epoch| epoch.epoch);
    epochs
}

/// Neither `meta` nor any segment can be read.
fn nothing_to_go_by(dir: &Path, listing: &Listing, damages: Vec<Corruption>) -> RepairError {
    if listing.bases.is_empty() && !listing.has_meta {
        let path = dir.to_owned();
        return RepairError::Source(OpenError::NotFound { path });
    }
    let is_version = |damage: &Corruption| matches!(damage.damage, Damage::Version { .. });
    let telling = damages.iter().position(is_version).unwrap_or(0);
    RepairError::Source(damages[telling].clone().into())
}
