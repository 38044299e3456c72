//! Reading the topics file of a sealed segment: one topic's records, or all names in order.
//!
//! Derived from the segment: where a page is missing or damaged, the segment itself is walked.

use std::path::{Path, PathBuf};

use super::filter::Filter;
use super::index::{Behind, Place};
use crate::disk::{Disk, DiskFile};
use crate::error::FileError;
use crate::format::{
    self, DictionaryPlace, Footer, PRODUCER_BYTES, Share, Stretch, TOPICS_HEADER_BYTES,
    TOPICS_PAGE_BYTES, TOPICS_PAGE_CONTENT_BYTES, TopicEntry, TopicsHeader,
};
use crate::offset::Offset;
use crate::segment::Segment;
use crate::stamp::Stamp;
use crate::topic::Topic;

pub(crate) const TOPICS_TEMPORARY: &str = "topics.tmp";
pub(crate) const TOPICS_SUFFIX: &str = ".topics";

/// The topics file that belongs to the segment file of this base.
pub(crate) fn path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}{TOPICS_SUFFIX}"))
}

/// Writes a topics file; whole, or not there under its name.
pub(crate) fn store(disk: &Disk, dir: &Path, base: Offset, bytes: &[u8]) -> Result<(), FileError> {
    let mut file = disk.create(&dir.join(TOPICS_TEMPORARY))?;
    file.write_at(bytes, 0)?;
    file.sync_data()?;
    file.rename(&path(dir, base))
}

/// Whether there is a topics file of this very segment, and it is not what the segment's frames give.
/// One of an earlier segment of the same base, or from before a recovery has cut it, or of another
/// version, is no damage: it is not used.
pub(crate) fn is_damaged(disk: &Disk, segment: &Segment) -> bool {
    let (base, nonce) = (segment.base(), segment.nonce());
    let Ok(bytes) = disk.read(&path(segment.dir(), base)) else {
        return false;
    };
    // Of a damaged header, the nonce alone says whose it was.
    if TopicsHeader::nonce_of(&bytes) != Some(nonce) {
        return false;
    }
    let span = segment.end().map(|end| u32::try_from(end.since(base)));
    let Some(Ok(span)) = span else {
        return true;
    };
    let block = bytes.first_chunk();
    let header = block.and_then(|block| TopicsHeader::decode(block, nonce));
    if block.is_some_and(TopicsHeader::is_of_another_version)
        || header.is_some_and(|header| header.span != span)
    {
        return false;
    }
    let expected = segment.with_topics(|index| index.encode(segment.published(), nonce, span));
    expected.is_none_or(|expected| expected != bytes)
}

/// It does not say what was asked: the segment has to.
#[derive(Debug)]
pub(crate) struct Unusable;

type Usable<T> = Result<T, Unusable>;

/// The open topics file of a segment.
#[derive(Debug)]
pub(crate) struct TopicsFile {
    disk: Disk,
    path: PathBuf,
    /// `None`: opened anew for each page.
    file: Option<DiskFile>,
    header: TopicsHeader,
}

impl TopicsFile {
    /// Opens the file of a sealed segment, if there is one of this very segment as it was sealed: a
    /// recovery may have cut it since.
    pub(crate) fn open(disk: &Disk, dir: &Path, footer: &Footer) -> Usable<Self> {
        let path = path(dir, footer.base);
        let file = disk.open(&path).map_err(|_| Unusable)?;
        let mut bytes = [0; TOPICS_HEADER_BYTES];
        file.read_at(&mut bytes, 0).map_err(|_| Unusable)?;
        let header = TopicsHeader::decode(&bytes, footer.nonce).ok_or(Unusable)?;
        let span = footer.next.since(footer.base);
        let whole = u64::from(header.span) == span
            && file.bytes().is_ok_and(|bytes| bytes == header.file_bytes());
        let opened = Self {
            disk: disk.clone(),
            path,
            file: Some(file),
            header,
        };
        whole.then_some(opened).ok_or(Unusable)
    }

    /// Gives the descriptor back, for one who reads many of them at a time. Another file that has taken
    /// this one's place meanwhile has pages of another nonce.
    pub(crate) fn release(&mut self) {
        self.file = None;
    }

    fn read_at(&self, into: &mut [u8], position: u64) -> Result<(), FileError> {
        match &self.file {
            Some(file) => file.read_at(into, position),
            None => self.disk.open(&self.path)?.read_at(into, position),
        }
    }

    /// Whether a topic of the segment was deleted in it.
    pub(crate) fn has_deletions(&self) -> bool {
        self.header.deletions > 0
    }

    /// How many records the segment has, of topics or of none, deletions included.
    pub(crate) fn records(&self) -> u32 {
        self.header.records
    }

    fn page(&self, number: usize, page: &mut Page) -> Usable<()> {
        if page.number == Some(number) {
            return Ok(());
        }
        page.number = None;
        let position = TOPICS_HEADER_BYTES + number * TOPICS_PAGE_BYTES;
        let read = self.read_at(&mut page.bytes[..], position as u64);
        read.map_err(|_| Unusable)?;
        format::checked_page(self.header.nonce, number, &page.bytes).ok_or(Unusable)?;
        page.number = Some(number);
        Ok(())
    }

    /// The last dictionary page whose first name is not behind `name`.
    fn page_of(&self, name: &[u8], page: &mut Page) -> Usable<usize> {
        let (mut low, mut high) = (0, self.header.dictionary_pages as usize);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            self.page(middle, page)?;
            let first = DictionaryPlace::first_name(page.content()).ok_or(Unusable)?;
            if first <= name {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The entries whose names are not before `name`, in order.
    pub(crate) fn entries_from(&self, name: &[u8]) -> Usable<Entries> {
        let mut page = Page::default();
        let mut entries = Entries {
            next_page: self.page_of(name, &mut page)?,
            page,
            place: DictionaryPlace::default(),
            ahead: None,
        };
        while let Some(entry) = entries.next(self)? {
            if &entry.name[..] >= name {
                entries.ahead = Some(entry);
                break;
            }
        }
        Ok(entries)
    }

    fn find(&self, name: &[u8]) -> Usable<Option<TopicEntry>> {
        if self.header.dictionary_pages == 0 {
            return Ok(None);
        }
        let mut page = Page::default();
        let number = self.page_of(name, &mut page)?;
        self.page(number, &mut page)?;
        let content = page.content();
        let place = DictionaryPlace::first(content, self.header.span).ok_or(Unusable)?;
        place.find(content, name).ok_or(Unusable)
    }

    fn entries_of(&self, filter: &Filter) -> Usable<Vec<TopicEntry>> {
        let mut found = Vec::new();
        for topic in filter.topics() {
            found.extend(self.find(topic.as_str().as_bytes())?);
        }
        for prefix in filter.prefixes() {
            let mut entries = self.entries_from(prefix.as_bytes())?;
            while let Some(entry) = entries.next(self)? {
                if !entry.name.starts_with(prefix.as_bytes()) {
                    break;
                }
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// The records of a topic, ascending, without its deletion.
    pub(crate) fn records_of(
        &self,
        share: &Share,
        postings: Stretch,
        page: &mut Page,
    ) -> Usable<Vec<u32>> {
        // Before memory is taken for as many as it says.
        if !postings.lies_in(&self.header) {
            return Err(Unusable);
        }
        let mut bytes = Vec::with_capacity(postings.bytes as usize);
        let range = postings.at as usize..(postings.at + postings.bytes) as usize;
        self.read_stream(self.header.postings_page(), range, page, &mut bytes)?;
        let (count, first, last) = (share.count, share.first, share.last);
        format::decode_postings(&bytes, count, first, last).ok_or(Unusable)
    }

    /// Each producer's newest append, and its offset less the base.
    pub(crate) fn producers(&self) -> Usable<Vec<(u32, Stamp)>> {
        let bytes_len = self.header.producers as usize * PRODUCER_BYTES;
        let (first_page, mut bytes) = (self.header.producers_page(), Vec::new());
        self.read_stream(first_page, 0..bytes_len, &mut Page::default(), &mut bytes)?;
        let (producers, _) = bytes.as_chunks();
        let producers: Vec<_> = producers.iter().map(format::decode_producer).collect();
        let is_inside = |(relative, _): &(u32, Stamp)| *relative < self.header.span;
        let sound = producers.iter().all(is_inside);
        sound.then_some(producers).ok_or(Unusable)
    }

    /// Bytes of a section that runs over pages.
    fn read_stream(
        &self,
        first_page: usize,
        range: std::ops::Range<usize>,
        page: &mut Page,
        into: &mut Vec<u8>,
    ) -> Usable<()> {
        let mut at = range.start;
        while at < range.end {
            self.page(first_page + at / TOPICS_PAGE_CONTENT_BYTES, page)?;
            let start = at % TOPICS_PAGE_CONTENT_BYTES;
            let end = TOPICS_PAGE_CONTENT_BYTES.min(start + range.end - at);
            into.extend_from_slice(&page.content()[start..end]);
            at += end - start;
        }
        Ok(())
    }

    /// The records at or behind `from` that the filter lets through, deletions included, ascending.
    pub(crate) fn places(&self, filter: &Filter, from: u32) -> Usable<Vec<Place>> {
        let mut places = Vec::new();
        let mut page = Page::default();
        let place = |relative| Place {
            relative,
            position: None,
        };
        for TopicEntry {
            share, postings, ..
        } in self.entries_of(filter)?
        {
            if share.newest().is_none_or(|newest| newest < from) {
                continue;
            }
            let records = self.records_of(&share, postings, &mut page)?;
            let behind = records.partition_point(|&relative| relative < from);
            places.extend(records[behind..].iter().copied().map(place));
            let deletion = share.deletion.filter(|&deletion| deletion >= from);
            places.extend(deletion.map(place));
        }
        places.sort_unstable_by_key(|place| place.relative);
        Ok(places)
    }

    /// What the segment has of one topic.
    pub(crate) fn share(&self, topic: &Topic) -> Usable<Option<Share>> {
        let entry = self.find(topic.as_str().as_bytes())?;
        Ok(entry.map(|entry| entry.share))
    }

    /// What the segment has of one topic at or behind `from`. Postings are read where some of its records
    /// lie before that only.
    pub(crate) fn behind(&self, topic: &Topic, from: u32) -> Usable<Behind> {
        let Some(entry) = self.find(topic.as_str().as_bytes())? else {
            return Ok(Behind::default());
        };
        let share = &entry.share;
        let records = if share.count == 0 || share.last < from {
            0
        } else if share.first >= from {
            share.count.into()
        } else {
            let records = self.records_of(share, entry.postings, &mut Page::default())?;
            (records.len() - records.partition_point(|&relative| relative < from)) as u64
        };
        Ok(Behind {
            records,
            is_deleted: share.deletion.is_some(),
        })
    }

    /// The topics that the filter lets through and that were deleted in the segment, and where.
    pub(crate) fn deletions(&self, filter: &Filter) -> Usable<Vec<(Vec<u8>, u32)>> {
        if !self.has_deletions() {
            return Ok(Vec::new());
        }
        let entries = self.entries_of(filter)?.into_iter();
        let deletions = entries.filter_map(|entry| Some((entry.name, entry.share.deletion?)));
        Ok(deletions.collect())
    }

    /// Whether a topic that the filter lets through was deleted at or behind `limit`.
    pub(crate) fn is_deleted_behind(&self, filter: &Filter, limit: u32) -> Usable<bool> {
        if limit >= self.header.span {
            return Ok(false);
        }
        let deletions = self.deletions(filter)?;
        Ok(deletions.iter().any(|&(_, deletion)| deletion >= limit))
    }
}

/// A page that was read and checked.
#[derive(Debug)]
pub(crate) struct Page {
    number: Option<usize>,
    bytes: Box<[u8; TOPICS_PAGE_BYTES]>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            number: None,
            bytes: Box::new([0; TOPICS_PAGE_BYTES]),
        }
    }
}

impl Page {
    fn content(&self) -> &[u8] {
        &self.bytes[..TOPICS_PAGE_CONTENT_BYTES]
    }
}

/// A place in the dictionary, which moves forward.
#[derive(Debug)]
pub(crate) struct Entries {
    next_page: usize,
    /// The one before that, in which `place` is.
    page: Page,
    place: DictionaryPlace,
    /// An entry that was read already.
    ahead: Option<TopicEntry>,
}

impl Entries {
    /// The next entry, if there is one.
    pub(crate) fn next(&mut self, file: &TopicsFile) -> Usable<Option<TopicEntry>> {
        if let Some(entry) = self.ahead.take() {
            return Ok(Some(entry));
        }
        loop {
            let next = self.place.next_entry(self.page.content());
            if let Some(entry) = next.ok_or(Unusable)? {
                return Ok(Some(entry));
            }
            if self.next_page >= file.header.dictionary_pages as usize {
                return Ok(None);
            }
            file.page(self.next_page, &mut self.page)?;
            self.next_page += 1;
            let first = DictionaryPlace::first(self.page.content(), file.header.span);
            self.place = first.ok_or(Unusable)?;
        }
    }
}
