//! The topics file of a segment: which topics it holds, and which of its records are each one's.
//!
//! A header, and pages with a checksum each, so that one topic is looked up with a few small reads.
//! Byte layout: docs/format.md.

use super::TOPIC_BYTES_MAX;
use super::postings::encode_postings;
use super::segment::{check_block, seal_block};
use crate::stamp::Stamp;

const TOPICS_MAGIC: &str = "DACAPOTP";
/// Of this file alone: another one is not used, and written anew.
const TOPICS_VERSION: u32 = 2;
pub(crate) const TOPICS_HEADER_BYTES: usize = 64;
/// What is read and checked as one.
pub(crate) const TOPICS_PAGE_BYTES: usize = 4096;
/// A page less its checksum.
pub(crate) const TOPICS_PAGE_CONTENT_BYTES: usize = TOPICS_PAGE_BYTES - 4;
/// At the start of a dictionary page: the number of entries, and where the first one's postings begin.
const DICTIONARY_HEAD_BYTES: usize = 12;
/// Relative offset and stamp of a producer's newest append.
pub(crate) const PRODUCER_BYTES: usize = 4 + 16 + 8 + 8;
/// What an entry takes at the most: three bytes of lengths, a name, six numbers of 7 bits a byte.
const _: () =
    assert!(3 + TOPIC_BYTES_MAX + 6 * 5 + DICTIONARY_HEAD_BYTES <= TOPICS_PAGE_CONTENT_BYTES);

/// The first bytes of a topics file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicsHeader {
    /// Of the segment.
    pub(crate) nonce: u32,
    /// How many offsets the segment stands for.
    pub(crate) span: u32,
    pub(crate) topics: u32,
    /// How many of them were deleted in the segment.
    pub(crate) deletions: u32,
    pub(crate) dictionary_pages: u32,
    pub(crate) postings_bytes: u32,
    pub(crate) producers: u32,
    /// How many records the segment has, of topics or of none, deletions included.
    pub(crate) records: u32,
}

impl TopicsHeader {
    pub(crate) fn encode(&self) -> [u8; TOPICS_HEADER_BYTES] {
        let mut bytes = [0; TOPICS_HEADER_BYTES];
        bytes[..8].copy_from_slice(TOPICS_MAGIC.as_bytes());
        let numbers = [
            TOPICS_VERSION,
            self.nonce,
            self.span,
            self.topics,
            self.deletions,
            self.dictionary_pages,
            self.postings_bytes,
            self.producers,
            self.records,
        ];
        for (into, number) in bytes[8..].chunks_exact_mut(4).zip(numbers) {
            into.copy_from_slice(&number.to_le_bytes());
        }
        seal_block(&mut bytes);
        bytes
    }

    /// `None` for anything but the header of this version's file of the segment with this nonce.
    pub(crate) fn decode(bytes: &[u8; TOPICS_HEADER_BYTES], nonce: u32) -> Option<Self> {
        let sound = check_block(bytes).is_ok()
            && Self::is_of_this_version(bytes)
            && le!(u32, bytes, 12) == nonce;
        sound.then(|| Self {
            nonce,
            span: le!(u32, bytes, 16),
            topics: le!(u32, bytes, 20),
            deletions: le!(u32, bytes, 24),
            dictionary_pages: le!(u32, bytes, 28),
            postings_bytes: le!(u32, bytes, 32),
            producers: le!(u32, bytes, 36),
            records: le!(u32, bytes, 40),
        })
    }

    fn is_of_this_version(bytes: &[u8; TOPICS_HEADER_BYTES]) -> bool {
        &bytes[..8] == TOPICS_MAGIC.as_bytes() && le!(u32, bytes, 8) == TOPICS_VERSION
    }

    /// Whether it is undamaged, and of a file that an earlier or later version has written.
    pub(crate) fn is_of_another_version(bytes: &[u8; TOPICS_HEADER_BYTES]) -> bool {
        check_block(bytes).is_ok() && !Self::is_of_this_version(bytes)
    }

    /// The nonce of the segment that a topics file is for.
    pub(crate) fn nonce_of(bytes: &[u8]) -> Option<u32> {
        Some(le!(u32, bytes.get(..TOPICS_HEADER_BYTES)?, 12))
    }

    fn pages_of(bytes: usize) -> usize {
        bytes.div_ceil(TOPICS_PAGE_CONTENT_BYTES)
    }

    /// The number of the first page of postings.
    pub(crate) fn postings_page(&self) -> usize {
        self.dictionary_pages as usize
    }

    /// The number of the first page of producers.
    pub(crate) fn producers_page(&self) -> usize {
        self.postings_page() + Self::pages_of(self.postings_bytes as usize)
    }

    /// The length of the whole file.
    pub(crate) fn file_bytes(&self) -> u64 {
        let producers = Self::pages_of(self.producers as usize * PRODUCER_BYTES);
        (TOPICS_HEADER_BYTES + (self.producers_page() + producers) * TOPICS_PAGE_BYTES) as u64
    }
}

/// What a segment has of a topic, short of where each record lies. Places are offsets less the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Where the topic was deleted last, if it was: it has no record before that.
    pub(crate) deletion: Option<u32>,
    /// How many records before the deletion the segment still has.
    pub(crate) dropped: u32,
    /// How many records it has, the deletion not counted.
    pub(crate) count: u32,
    /// The first of them; 0 where there is none.
    pub(crate) first: u32,
    /// The last of them; 0 where there is none.
    pub(crate) last: u32,
}

impl Share {
    /// Whether a segment of this span can have it.
    fn is_sound(&self, span: u32) -> bool {
        let deleted = self.deletion;
        match self.count {
            0 => deleted.is_some_and(|deletion| deletion < span && self.dropped <= deletion),
            count => {
                let room = self.last.checked_sub(self.first);
                self.last < span
                    && room.is_some_and(|room| room >= count - 1)
                    && deleted.is_none_or(|it| it < self.first && self.dropped <= it)
            }
        }
    }

    /// Where its newest record lies, or its deletion.
    pub(crate) fn newest(&self) -> Option<u32> {
        match self.count {
            0 => self.deletion,
            _ => Some(self.last),
        }
    }
}

/// Where the postings of a topic lie in the bytes of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) at: u32,
    pub(crate) bytes: u32,
}

impl Stretch {
    /// Whether it lies in the bytes of all postings.
    pub(crate) fn lies_in(&self, header: &TopicsHeader) -> bool {
        let end = self.at.checked_add(self.bytes);
        end.is_some_and(|end| end <= header.postings_bytes)
    }
}

/// A topic of a segment, as the dictionary has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) share: Share,
    pub(crate) postings: Stretch,
}

/// A topic that is to be written, with its records.
pub(crate) struct NewEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) deletion: Option<u32>,
    pub(crate) dropped: u32,
    /// Without the deletion, ascending.
    pub(crate) records: &'a [u32],
}

/// Builds a topics file, topic by topic in the order of their names.
pub(crate) struct TopicsFileBuilder {
    header: TopicsHeader,
    dictionary: Vec<u8>,
    /// The dictionary page that is being filled.
    page: Vec<u8>,
    entries: u32,
    previous: Vec<u8>,
    postings: Vec<u8>,
}

impl TopicsFileBuilder {
    /// For a segment of so many offsets, and so many records that are there.
    pub(crate) fn new(nonce: u32, span: u32, records: u32) -> Self {
        Self {
            header: TopicsHeader {
                nonce,
                span,
                records,
                topics: 0,
                deletions: 0,
                dictionary_pages: 0,
                postings_bytes: 0,
                producers: 0,
            },
            dictionary: Vec::new(),
            page: Vec::new(),
            entries: 0,
            previous: Vec::new(),
            postings: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, entry: &NewEntry<'_>) {
        let postings_at = self.postings.len();
        encode_postings(entry.records, &mut self.postings);
        let count = u64::try_from(entry.records.len()).expect("64 bits");
        let postings_bytes = (self.postings.len() - postings_at) as u64;
        let last_of_all = self.header.span.saturating_sub(1);
        let tail = |into: &mut Vec<u8>| {
            push_number(into, count << 1 | u64::from(entry.deletion.is_some()));
            if let Some(deletion) = entry.deletion {
                push_number(into, deletion.into());
                push_number(into, entry.dropped.into());
            }
            if let [first, behind @ ..] = entry.records {
                push_number(into, (*first).into());
                if let [between @ .., last] = behind {
                    push_number(into, (last_of_all - last).into());
                    if !between.is_empty() {
                        push_number(into, postings_bytes);
                    }
                }
            }
        };
        let mut bytes = entry_name(&self.previous, entry.name);
        tail(&mut bytes);
        if !self.page.is_empty() && self.page.len() + bytes.len() > TOPICS_PAGE_CONTENT_BYTES {
            self.end_page();
        }
        if self.page.is_empty() {
            // Readable without the page before it.
            bytes = entry_name(&[], entry.name);
            tail(&mut bytes);
            let at = u64::try_from(postings_at).expect("64 bits");
            self.page.extend_from_slice(&[0; 4]); // the number of entries, below
            self.page.extend_from_slice(&at.to_le_bytes());
        }
        self.page.extend_from_slice(&bytes);
        self.entries += 1;
        self.header.topics += 1;
        self.header.deletions += u32::from(entry.deletion.is_some());
        self.previous.clear();
        self.previous.extend_from_slice(entry.name);
    }

    fn end_page(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        self.page[..4].copy_from_slice(&entries.to_le_bytes());
        self.page.resize(TOPICS_PAGE_CONTENT_BYTES, 0);
        self.dictionary.append(&mut self.page);
        self.header.dictionary_pages += 1;
    }

    /// The bytes of the file; `None` where the postings are more than it can hold.
    pub(crate) fn finish(mut self, producers: &[(u32, Stamp)]) -> Option<Vec<u8>> {
        if !self.page.is_empty() {
            self.end_page();
        }
        self.header.postings_bytes = u32::try_from(self.postings.len()).ok()?;
        self.header.producers = u32::try_from(producers.len()).ok()?;
        let mut stamps = Vec::with_capacity(producers.len() * PRODUCER_BYTES);
        for (relative, stamp) in producers {
            stamps.extend_from_slice(&relative.to_le_bytes());
            stamps.extend_from_slice(&stamp.producer.to_le_bytes());
            stamps.extend_from_slice(&stamp.epoch.to_le_bytes());
            stamps.extend_from_slice(&stamp.sequence.to_le_bytes());
        }
        let mut bytes = self.header.encode().to_vec();
        let sections = [&self.dictionary, &self.postings, &stamps];
        let pages = sections
            .into_iter()
            .flat_map(|section| section.chunks(TOPICS_PAGE_CONTENT_BYTES));
        for (number, page) in pages.enumerate() {
            let start = bytes.len();
            bytes.extend_from_slice(page);
            bytes.resize(start + TOPICS_PAGE_CONTENT_BYTES, 0);
            let sum = page_checksum(self.header.nonce, number, &bytes[start..]);
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        Some(bytes)
    }
}

/// The content of a page whose checksum is right.
pub(crate) fn checked_page(
    nonce: u32,
    number: usize,
    page: &[u8; TOPICS_PAGE_BYTES],
) -> Option<&[u8]> {
    let (content, stored) = page.split_at(TOPICS_PAGE_CONTENT_BYTES);
    (le!(u32, stored, 0) == page_checksum(nonce, number, content)).then_some(content)
}

/// Salted with the segment's nonce and the page's number: no page passes for another one.
pub(crate) fn page_checksum(nonce: u32, number: usize, content: &[u8]) -> u32 {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    let mut hasher = crc32fast::Hasher::new_with_initial(nonce ^ number.rotate_left(16));
    hasher.update(content);
    hasher.finalize()
}

/// One producer's newest append, from the bytes of a topics file.
pub(crate) fn decode_producer(bytes: &[u8; PRODUCER_BYTES]) -> (u32, Stamp) {
    let stamp = Stamp {
        producer: le!(u128, bytes, 4),
        epoch: le!(u64, bytes, 20),
        sequence: le!(u64, bytes, 28),
    };
    (le!(u32, bytes, 0), stamp)
}

/// A name, as what it has of the one before and the rest: a byte for both lengths where they are small.
fn entry_name(previous: &[u8], name: &[u8]) -> Vec<u8> {
    let both = previous.iter().zip(name);
    let shared = both.take_while(|(a, b)| a == b).count();
    let rest = &name[shared..];
    let length = |bytes: usize| u8::try_from(bytes).expect("a topic has at most 255 bytes");
    let mut bytes = match (previous.len() - shared, rest.len()) {
        (gone @ ..=15, len @ 1..=15) => vec![length(gone << 4 | len)],
        _ => vec![0, length(shared), length(rest.len())],
    };
    bytes.extend_from_slice(rest);
    bytes
}

/// How many bytes a name shares with the one before, which has so many, and the lengths of the rest.
fn take_name<'a>(bytes: &mut &'a [u8], previous_bytes: usize) -> Option<(usize, &'a [u8])> {
    let (&head, mut rest) = bytes.split_first()?;
    let (shared, len) = match head & 15 {
        0 => {
            let (&[shared, len], behind) = rest.split_first_chunk()?;
            rest = behind;
            (usize::from(shared), len)
        }
        len => (previous_bytes.checked_sub(usize::from(head >> 4))?, len),
    };
    let name;
    (name, *bytes) = rest.split_at_checked(len.into())?;
    (shared <= previous_bytes).then_some((shared, name))
}

/// LEB128: seven bits a byte, the lowest first.
fn push_number(into: &mut Vec<u8>, mut number: u64) {
    while number > 0x7F {
        into.push(u8::try_from(number & 0x7F).expect("7 bits") | 0x80);
        number >>= 7;
    }
    into.push(u8::try_from(number).expect("7 bits"));
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A place in a dictionary page, whose entries are read one after the other.
#[derive(Debug, Default)]
pub(crate) struct DictionaryPlace {
    /// Where the next entry begins.
    at: usize,
    left: u32,
    span: u32,
    postings_at: u32,
    /// Of the entry before.
    name: Vec<u8>,
}

impl DictionaryPlace {
    /// The first entry of a page, of a segment of this span; `None` for what cannot be one.
    pub(crate) fn first(content: &[u8], span: u32) -> Option<Self> {
        let head = content.get(..DICTIONARY_HEAD_BYTES)?;
        Some(Self {
            at: DICTIONARY_HEAD_BYTES,
            left: le!(u32, head, 0),
            span,
            postings_at: u32::try_from(le!(u64, head, 4)).ok()?,
            name: Vec::new(),
        })
    }

    /// The name of the first entry of a page.
    pub(crate) fn first_name(content: &[u8]) -> Option<&[u8]> {
        let (_, name) = take_name(&mut content.get(DICTIONARY_HEAD_BYTES..)?, 0)?;
        Some(name)
    }

    /// The next entry of the same page; `Some(None)` at the end, and `None` for what cannot be one.
    pub(crate) fn next_entry(&mut self, content: &[u8]) -> Option<Option<TopicEntry>> {
        let entry = self.advance(content)?;
        Some(entry.map(|entry| TopicEntry {
            name: self.name.clone(),
            ..entry
        }))
    }

    /// The entry with this name, as [`next_entry`](Self::next_entry) would return it.
    pub(crate) fn find(mut self, content: &[u8], name: &[u8]) -> Option<Option<TopicEntry>> {
        while let Some(entry) = self.advance(content)? {
            if self.name == name {
                let name = self.name;
                return Some(Some(TopicEntry { name, ..entry }));
            }
        }
        Some(None)
    }

    /// Moves to the next entry, whose name is then in `self.name` and not in what is returned: most are
    /// passed over.
    fn advance(&mut self, content: &[u8]) -> Option<Option<TopicEntry>> {
        if self.left == 0 {
            return Some(None);
        }
        self.left -= 1;
        let mut rest = content.get(self.at..)?;
        let (shared, name) = take_name(&mut rest, self.name.len())?;
        self.name.truncate(shared);
        self.name.extend_from_slice(name);
        let mut number = || u32::try_from(take_number(&mut rest)?).ok();
        let head = number()?;
        let (deletion, dropped) = match head & 1 {
            1 => (Some(number()?), number()?),
            _ => (None, 0),
        };
        let count = head >> 1;
        let first = if count > 0 { number()? } else { 0 };
        let last = match count {
            0 | 1 => first,
            _ => self.span.checked_sub(1)?.checked_sub(number()?)?,
        };
        let bytes = if count > 2 { number()? } else { 0 };
        self.at = content.len() - rest.len();
        let entry = TopicEntry {
            name: Vec::new(),
            share: Share {
                deletion,
                dropped,
                count,
                first,
                last,
            },
            postings: Stretch {
                at: self.postings_at,
                bytes,
            },
        };
        if !entry.share.is_sound(self.span) {
            return None;
        }
        self.postings_at = self.postings_at.checked_add(bytes)?;
        Some(Some(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u32 = 7;
    const SPAN: u32 = 1_000_000;

    /// The entries of a file, and their records.
    fn entries_of(file: &[u8]) -> Vec<(TopicEntry, Vec<u32>)> {
        let (block, rest) = file.split_first_chunk().unwrap();
        let header = TopicsHeader::decode(block, NONCE).unwrap();
        assert_eq!(header.file_bytes(), file.len() as u64);
        let (pages, _) = rest.as_chunks::<TOPICS_PAGE_BYTES>();
        let content = |number: usize| checked_page(NONCE, number, &pages[number]).unwrap();
        let postings: Vec<u8> = (header.postings_page()..header.producers_page())
            .flat_map(|number| content(number).to_vec())
            .collect();
        let mut entries = Vec::new();
        for number in 0..header.postings_page() {
            let mut place = DictionaryPlace::first(content(number), SPAN).unwrap();
            let first = DictionaryPlace::first_name(content(number)).unwrap();
            let begun = entries.len();
            while let Some(entry) = place.next_entry(content(number)).unwrap() {
                assert!(entry.postings.lies_in(&header));
                let Share {
                    count, first, last, ..
                } = entry.share;
                let bytes =
                    &postings[entry.postings.at as usize..][..entry.postings.bytes as usize];
                let records = super::super::decode_postings(bytes, count, first, last).unwrap();
                entries.push((entry, records));
            }
            assert_eq!(entries[begun].0.name, first);
        }
        assert_eq!(header.topics as usize, entries.len());
        entries
    }

    #[test]
    fn topics_come_back_with_their_records_wherever_pages_end() {
        // Miri takes a thousand times as long.
        const NAMES: u32 = if cfg!(miri) { 100 } else { 2000 };
        let names = (0..NAMES).map(|number| match number % 5 {
            // Few bytes and many of a name are those of the one before.
            0 => format!("rooms:{number:07}"),
            1 => format!("rooms:{:07}{}", number - 1, "x".repeat(15)),
            2 => format!("rooms:{:07}{}", number - 2, "y".repeat(16)),
            3 => format!("rooms:{number:07}{}", "z".repeat(200)),
            _ => format!("rooms:{number:07}"),
        });
        let new: Vec<(String, Option<u32>, Vec<u32>)> = names
            .enumerate()
            .map(|(i, name)| {
                let deletion = (i % 3 == 0).then_some(40);
                let count = if deletion.is_some() { i % 6 } else { 1 + i % 9 };
                let records = (0..count).map(|n| u32::try_from(50 + i + n * 70_000).unwrap());
                (name, deletion, records.collect())
            })
            .collect();
        let mut builder = TopicsFileBuilder::new(NONCE, SPAN, 5);
        for (name, deletion, records) in &new {
            builder.push(&NewEntry {
                name: name.as_bytes(),
                deletion: *deletion,
                dropped: deletion.map_or(0, |_| 9),
                records,
            });
        }
        let file = builder.finish(&[]).unwrap();
        let header = TopicsHeader::decode(file.first_chunk().unwrap(), NONCE).unwrap();
        assert_eq!((header.records, header.deletions), (5, NAMES.div_ceil(3)));
        assert!(header.dictionary_pages > NAMES / 200);

        let entries = entries_of(&file);

        assert_eq!(entries.len(), new.len());
        for ((entry, found), (name, deletion, records)) in entries.iter().zip(&new) {
            assert_eq!((&entry.name[..], found), (name.as_bytes(), records));
            let share = Share {
                deletion: *deletion,
                dropped: deletion.map_or(0, |_| 9),
                count: u32::try_from(records.len()).unwrap(),
                first: records.first().copied().unwrap_or(0),
                last: records.last().copied().unwrap_or(0),
            };
            assert_eq!(entry.share, share, "{name}");
        }
    }

    #[test]
    fn an_entry_that_no_segment_can_have_is_refused() {
        let read = |numbers: &[u64]| {
            let mut content = vec![0; DICTIONARY_HEAD_BYTES];
            content[0] = 1;
            content.extend([1, b'x']);
            numbers
                .iter()
                .for_each(|&one| push_number(&mut content, one));
            let mut place = DictionaryPlace::first(&content, 100)?;
            Some(place.next_entry(&content)??.share)
        };
        // Twice the count, whether it was deleted; where, and what that has dropped; the first, and
        // how far the last is before the end; the length of the postings.
        assert!(read(&[1, 99, 99]).is_some());
        assert!(read(&[1 << 1, 99]).is_some());
        assert!(read(&[2 << 1, 98, 0]).is_some());
        assert!(read(&[100 << 1, 0, 0, 0]).is_some());
        for unsound in [
            &[0][..],
            &[1, 100, 0],
            &[1, 5, 6],
            &[1 << 1, 100],
            &[2 << 1, 99, 0],
            &[2 << 1, 0, 100],
            &[3 << 1, 98, 0, 0],
            &[1 << 1 | 1, 7, 0, 7],
            &[1 << 33, 0, 0, 0],
            &[2 << 1, 0],
        ] {
            assert_eq!(read(unsound), None, "{unsound:?}");
        }
    }

    #[test]
    fn a_file_of_another_version_is_none_and_no_damage() {
        let file = TopicsFileBuilder::new(NONCE, 3, 3).finish(&[]).unwrap();
        let mut block = *file.first_chunk().unwrap();
        assert!(TopicsHeader::decode(&block, NONCE).is_some());
        assert!(!TopicsHeader::is_of_another_version(&block));
        block[8] = 1;
        assert!(!TopicsHeader::is_of_another_version(&block), "damaged");
        seal_block(&mut block);
        assert!(TopicsHeader::is_of_another_version(&block));
        assert_eq!(TopicsHeader::decode(&block, NONCE), None);
    }
}
