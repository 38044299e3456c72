//! One segment file: a header, then frames back to back, and in its last page a footer once it
//! is sealed.
//!
//! Byte layout: docs/format.md. Writing is the appender's job; which segments there are is
//! `segments.rs`.

mod since;

use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, PoisonError};

use crate::disk::{Disk, DiskFile};
use crate::error::{Corruption, Damage, FileError, SegmentError};
use crate::format::{self, FOOTER_BYTES, Footer, Frame, IndexPoint, Kind, SegmentHeader};
use crate::index;
use crate::map::{self, Map};
use crate::offset::Offset;
use crate::scan;
use crate::sync::{AtomicU64, Mutex};
use crate::topics::TopicIndex;

/// The file of the segment that begins at `base`.
pub(crate) fn path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.seg"))
}

/// The base offset in a segment file's name; `None` for another file.
pub(crate) fn base_of_name(name: &OsStr) -> Option<Offset> {
    let digits = name.to_str()?.strip_suffix(".seg")?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    let base = plain.then(|| digits.parse().ok()).flatten();
    base.filter(|&base| base < format::OFFSETS_END)
        .map(Offset::new)
}

/// A segment file's fixed parts, read and checked.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) file: DiskFile,
    pub(crate) base: Offset,
    pub(crate) header: SegmentHeader,
    /// `None`: not sealed, or the footer did not survive.
    pub(crate) footer: Option<Footer>,
}

impl SegmentFile {
    /// Reads header and footer of the segment at `base`.
    pub(crate) fn inspect(
        file: DiskFile,
        base: Offset,
        log_id: Option<u128>,
    ) -> Result<Self, SegmentError> {
        let damaged = |damage| SegmentError::Corrupt(Corruption::new(file.path(), 0, damage));
        let found = file.bytes()?;
        let smallest = (format::FRAMES_START + format::FOOTER_PAGE_BYTES) as u64;
        if found < smallest {
            return Err(damaged(Damage::Length {
                expected: smallest,
                found,
            }));
        }
        let mut bytes = [0; format::SEGMENT_HEADER_BYTES];
        file.read_at(&mut bytes, 0)?;
        let header = SegmentHeader::decode(&bytes).map_err(damaged)?;
        if let Some(expected) = log_id.filter(|&id| id != header.log_id) {
            return Err(damaged(Damage::ForeignLog {
                expected,
                found: header.log_id,
            }));
        }
        if header.file_bytes != found || found > format::SEGMENT_BYTES_MAX {
            return Err(damaged(Damage::Length {
                expected: header.file_bytes,
                found,
            }));
        }
        let mut segment = Self {
            file,
            base,
            header,
            footer: None,
        };
        let footer = segment.read_footer_block()?;
        // A file that was given another one's name, which its first frame can no longer tell.
        if let Some(found) = base_in_footer(&footer, segment.header.nonce)
            && found != base
        {
            let damage = Damage::OutOfPlace {
                expected: base,
                found,
            };
            let position = segment.frames_end();
            return Err(Corruption::new(segment.file.path(), position, damage).into());
        }
        segment.footer = segment.footer_in(&footer);
        Ok(segment)
    }

    /// Looks at the file once more: whether it has been sealed.
    pub(crate) fn read_footer(&self) -> Result<Option<Footer>, FileError> {
        Ok(self.footer_in(&self.read_footer_block()?))
    }

    fn read_footer_block(&self) -> Result<[u8; FOOTER_BYTES], FileError> {
        let mut bytes = [0; FOOTER_BYTES];
        self.file.read_at(&mut bytes, self.frames_end() as u64)?;
        Ok(bytes)
    }

    fn footer_in(&self, bytes: &[u8; FOOTER_BYTES]) -> Option<Footer> {
        let footer = footer_of_segment(bytes, self.base, self.header.file_bytes);
        footer.filter(|footer| footer.nonce == self.header.nonce)
    }

    pub(crate) fn open(
        disk: &Disk,
        dir: &Path,
        base: Offset,
        log_id: Option<u128>,
    ) -> Result<Self, SegmentError> {
        Self::inspect(disk.open(&path(dir, base))?, base, log_id)
    }

    /// Where the frames must end, at the latest.
    pub(crate) fn frames_end(&self) -> usize {
        frames_end(self.header.file_bytes)
    }

    /// The whole file, for one who knows that nobody is writing to it.
    pub(crate) fn map_whole(&self) -> Result<Map, SegmentError> {
        let bytes = usize::try_from(self.header.file_bytes).expect("at most 1 GiB");
        Ok(self.file.map_sealed(bytes)?)
    }
}

/// A footer that can be that of the segment at `base`, in a file of this size.
pub(crate) fn footer_of_segment(
    bytes: &[u8; FOOTER_BYTES],
    base: Offset,
    file_bytes: u64,
) -> Option<Footer> {
    Footer::decode(bytes).filter(|footer| {
        footer.base == base
            && footer.next > base
            && footer.next.get() < format::OFFSETS_END
            && (format::FRAMES_START..=frames_end(file_bytes))
                .contains(&(footer.end_position as usize))
    })
}

/// The base that a footer gives its segment, if it is that of the one with this nonce.
pub(crate) fn base_in_footer(bytes: &[u8; FOOTER_BYTES], nonce: u32) -> Option<Offset> {
    let footer = Footer::decode(bytes).filter(|footer| footer.nonce == nonce)?;
    Some(footer.base)
}

/// Where the footer page of a file of this size begins.
pub(crate) fn frames_end(file_bytes: u64) -> usize {
    usize::try_from(file_bytes).expect("at most 1 GiB") - format::FOOTER_PAGE_BYTES
}

/// A mapped segment, as readers share it.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    base: Offset,
    nonce: u32,
    map: Arc<Map>,
    /// The offset after the last record; `GROWING` until the segment is sealed.
    end: AtomicU64,
    /// `None` until somebody needs it.
    index: Mutex<Option<Vec<IndexPoint>>>,
    /// Empty until somebody needs it.
    topics: Mutex<TopicIndex>,
}

const GROWING: u64 = u64::MAX;

/// Where a record was found, or the absence that it is gone in.
pub(crate) struct Found {
    pub(crate) position: usize,
    /// The record itself, or the first one of the gap that it is lost in.
    pub(crate) first: Offset,
}

impl Segment {
    /// A segment that is still appended to.
    pub(crate) fn growing(
        path: PathBuf,
        base: Offset,
        nonce: u32,
        map: Arc<Map>,
        index: Vec<IndexPoint>,
    ) -> Self {
        Self {
            path,
            base,
            nonce,
            map,
            end: AtomicU64::new(GROWING),
            index: Mutex::new(Some(index)),
            topics: Mutex::default(),
        }
    }

    /// Maps a sealed segment as its footer describes it.
    pub(crate) fn sealed(file: &SegmentFile, footer: &Footer) -> Result<Self, SegmentError> {
        Ok(Self {
            path: file.file.path().to_owned(),
            base: file.base,
            nonce: file.header.nonce,
            map: Arc::new(file.file.map_sealed(footer.end_position as usize)?),
            end: AtomicU64::new(footer.next.get()),
            index: Mutex::new(None),
            topics: Mutex::default(),
        })
    }

    #[inline]
    pub(crate) fn base(&self) -> Offset {
        self.base
    }

    #[inline]
    pub(crate) fn nonce(&self) -> u32 {
        self.nonce
    }

    /// The offset after the last record, once it is known.
    #[inline]
    pub(crate) fn end(&self) -> Option<Offset> {
        match self.end.load(Acquire) {
            GROWING => None,
            end => Some(Offset::new(end)),
        }
    }

    /// Tells readers that no further record comes. After the next segment is in the list.
    pub(crate) fn seal(&self, end: Offset) {
        self.end.store(end.get(), Release);
    }

    #[inline]
    pub(crate) fn published(&self) -> &[u8] {
        self.map.published()
    }

    #[inline]
    pub(crate) fn relative(&self, offset: Offset) -> u32 {
        // An offset too far behind the base for any segment becomes one that no record has.
        u32::try_from(offset.since(self.base)).unwrap_or(u32::MAX)
    }

    pub(crate) fn corruption(&self, position: usize, damage: Damage) -> Corruption {
        Corruption::new(&self.path, position, damage)
    }

    /// Refuses a file that has been given another one's name: its records have other offsets.
    pub(crate) fn check_name(&self) -> Result<(), Corruption> {
        let bytes = self.published();
        // Damage to the frame that says it is no reason to give up those behind it.
        let first = format::decode_frame(bytes, format::FRAMES_START, self.nonce).ok();
        match first.and_then(|begin| format::base_of(&begin, bytes)) {
            Some(found) if found != self.base => {
                let expected = self.base;
                let damage = Damage::OutOfPlace { expected, found };
                Err(self.corruption(format::FRAMES_START, damage))
            }
            _ => Ok(()),
        }
    }

    /// Adds a point to the index of a growing segment.
    pub(crate) fn add_index_point(&self, point: IndexPoint) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.get_or_insert_default().push(point);
    }

    /// All points of the index.
    pub(crate) fn index_points(&self, disk: &Disk) -> Vec<IndexPoint> {
        // Loaded, or built, if it was not there.
        self.index_point(disk, 0);
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.clone().unwrap_or_default()
    }

    /// The log's directory.
    pub(crate) fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Lets `ask` look at the topics of all that is published.
    pub(crate) fn with_topics<T>(&self, ask: impl FnOnce(&TopicIndex) -> T) -> T {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        topics.catch_up(self.published(), self.nonce, self.base);
        ask(&topics)
    }

    /// Gives up what [`with_topics`](Self::with_topics) has gathered: there is a file now.
    pub(crate) fn forget_topics(&self) {
        *self.topics.lock().unwrap_or_else(PoisonError::into_inner) = TopicIndex::default();
    }

    /// Where the sound record stands, by the index and by the lengths of the frames on the way to it.
    /// `None` also where damage to one of those hides it.
    pub(crate) fn seek(&self, disk: &Disk, relative: u32) -> Option<usize> {
        // Its sum says which record it is, whatever the frames on the way to it are like: the index is
        // checked only where it has led elsewhere.
        let is_it = |&position: &usize| {
            let frame = format::decode_frame(self.published(), position, self.nonce);
            frame.is_ok_and(|frame| frame.kind.is_record() && frame.relative == relative)
        };
        let found = self.walk_from_likely_point(disk, relative).filter(is_it);
        found.or_else(|| {
            let point = self.index_point(disk, relative)?;
            self.walk(point.position, relative).filter(is_it)
        })
    }

    /// Where the record seems to be, by an index that may lie.
    fn walk_from_likely_point(&self, disk: &Disk, relative: u32) -> Option<usize> {
        let (from, likely) = {
            let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            let points = index.get_or_insert_with(|| self.load_index(disk));
            let point = index::point_before(points, relative)?;
            (point.position, index::likely_position(points, relative))
        };
        // Each frame says where the next one is: without this, one line would be waited for at a time.
        map::prefetch(self.published(), from as usize..likely as usize);
        self.walk(from, relative)
    }

    /// Where the record seems to be, by the lengths of the frames from a position on.
    fn walk(&self, from: u32, relative: u32) -> Option<usize> {
        let (bytes, mut position) = (self.published(), from as usize);
        loop {
            let frame = format::peek_frame(bytes, position)?;
            match frame.kind.is_record() && frame.relative >= relative {
                true => return (frame.relative == relative).then_some(position),
                false => position = frame.end,
            }
        }
    }

    /// Whether there is a sound record of this kind and topic.
    pub(crate) fn holds(&self, disk: &Disk, relative: u32, kind: Kind, topic: &[u8]) -> bool {
        let bytes = self.published();
        let frame = self
            .seek(disk, relative)
            .and_then(|position| format::decode_frame(bytes, position, self.nonce).ok());
        frame.is_some_and(|frame| {
            frame.kind == kind
                && frame.relative == relative
                && frame.topic(bytes).as_bytes() == topic
        })
    }

    /// Where the record with this offset begins, or the absence that it is gone in.
    ///
    /// `offset` must have been published. Damage on the way is stepped over; damage to the record
    /// itself is the error.
    pub(crate) fn find(&self, disk: &Disk, offset: Offset) -> Result<Found, Corruption> {
        let relative = self.relative(offset);
        let bytes = self.published();
        if let Some(position) = self.seek(disk, relative) {
            return Ok(Found {
                position,
                first: offset,
            });
        }
        let mut position = self
            .index_point(disk, relative)
            .map_or(format::FRAMES_START, |p| p.position as usize);
        let mut damaged = None;
        loop {
            match format::decode_frame(bytes, position, self.nonce) {
                Ok(frame) if frame.kind.is_absence() && frame.relative <= relative => {
                    match format::absence_of(&frame, bytes, self.base) {
                        Ok(gone) if gone.contains(&offset) => {
                            // A gap is reported as a whole; what was removed is passed over.
                            let first = match frame.kind {
                                Kind::Gap => gone.start,
                                _ => offset,
                            };
                            return Ok(Found { position, first });
                        }
                        _ => position = frame.end,
                    }
                }
                Ok(frame) if frame.kind.is_between() || frame.relative < relative => {
                    position = frame.end
                }
                Ok(frame) if frame.relative == relative => {
                    return Ok(Found {
                        position,
                        first: offset,
                    });
                }
                Ok(frame) => {
                    let found = self.base.plus(frame.relative.into());
                    let damage = Damage::OutOfPlace {
                        expected: offset,
                        found,
                    };
                    let lost = damaged.unwrap_or_else(|| self.corruption(position, damage));
                    return Err(lost.of_record(offset));
                }
                Err(no) => {
                    let lost =
                        damaged.unwrap_or_else(|| self.corruption(position, no.into_damage()));
                    let Some(frame) = scan::record_behind(bytes, position + 1, self.nonce, 0)
                    else {
                        return Err(lost.of_record(offset));
                    };
                    damaged = Some(lost);
                    position = frame.start;
                }
            }
        }
    }

    /// All gaps, in order; those that stand behind damage as well.
    pub(crate) fn gaps(&self) -> Vec<Range<Offset>> {
        let bytes = self.published();
        scan::frames_behind(bytes, format::FRAMES_START, self.nonce, bytes.len())
            .filter(|frame| frame.kind == Kind::Gap)
            .filter_map(|frame| format::absence_of(&frame, bytes, self.base).ok())
            .collect()
    }

    /// The first sound record, or gap, behind a damaged place, at or after `offset`.
    pub(crate) fn sound_record_behind(&self, position: usize, offset: Offset) -> Option<Frame> {
        scan::record_behind(
            self.published(),
            position + 1,
            self.nonce,
            self.relative(offset),
        )
    }

    /// The nearest point before a record, from an index that was checked to tell the truth there.
    fn index_point(&self, disk: &Disk, relative: u32) -> Option<IndexPoint> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let points = index.take().unwrap_or_else(|| self.load_index(disk));
        let points = if self.is_true(index::point_before(&points, relative)) {
            points
        } else {
            self.build_index()
        };
        index::point_before(index.insert(points), relative)
    }

    /// The index on file, or else as the frames give it.
    fn load_index(&self, disk: &Disk) -> Vec<IndexPoint> {
        let found = index::load(disk, self.dir(), self.base, self.nonce);
        found.unwrap_or_else(|| self.build_index())
    }

    /// Whether the record of an index point is where the point says.
    pub(crate) fn is_true(&self, point: Option<IndexPoint>) -> bool {
        // No point before a record: only right where nothing is indexed at all.
        point.is_none_or(|point| self.record_at(point).is_some())
    }

    /// The record of an index point, if it is where the point says.
    fn record_at(&self, point: IndexPoint) -> Option<Frame> {
        let frame = format::decode_frame(self.published(), point.position as usize, self.nonce);
        frame
            .ok()
            .filter(|frame| frame.kind.is_record() && frame.relative == point.relative)
    }

    /// The index as the frames themselves give it, across damaged places.
    fn build_index(&self) -> Vec<IndexPoint> {
        let bytes = self.published();
        let mut points = Vec::new();
        let (mut position, mut indexed_to) = (format::FRAMES_START, 0);
        while position < bytes.len() {
            let frame = match format::decode_frame(bytes, position, self.nonce) {
                Ok(frame) => frame,
                Err(_) => match scan::record_behind(bytes, position + 1, self.nonce, 0) {
                    Some(frame) => frame,
                    None => break,
                },
            };
            if frame.kind.is_record() && frame.start >= indexed_to {
                points.push(scan::point(frame.relative, frame.start));
                indexed_to = frame.start + scan::INDEX_STRIDE_BYTES;
            }
            position = frame.end;
        }
        points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_segments_name_is_taken_for_one() {
        let base = |name: &str| base_of_name(OsStr::new(name));
        assert_eq!(base("00000000000000000042.seg"), Some(Offset::new(42)));
        for other in [
            "42.seg",
            "00000000000000000042.idx",
            "+0000000000000000042.seg",
            "99999999999999999999.seg",
            "18446744073709551615.seg",
        ] {
            assert_eq!(base(other), None, "{other}");
        }
    }
}
