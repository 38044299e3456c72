//! The topics file of a segment: which topics it holds, and which of its records are each one's.
//!
//! A header, and pages with a checksum each, so that one topic is looked up with a few small reads.
//! Byte layout: docs/format.md.

use super::postings::encode_postings;
use super::segment::{check_block, seal_block};
use super::{FORMAT_VERSION, TOPIC_BYTES_MAX};
use crate::stamp::Stamp;

const TOPICS_MAGIC: &str = "DACAPOTP";
pub(crate) const TOPICS_HEADER_BYTES: usize = 64;
/// What is read and checked as one.
pub(crate) const TOPICS_PAGE_BYTES: usize = 4096;
/// A page less its checksum.
pub(crate) const TOPICS_PAGE_CONTENT_BYTES: usize = TOPICS_PAGE_BYTES - 4;
/// At the start of a dictionary page: the number of entries, and where the first one's postings begin.
pub(crate) const DICTIONARY_HEAD_BYTES: usize = 12;
/// Relative offset and stamp of a producer's newest append.
pub(crate) const PRODUCER_BYTES: usize = 4 + 16 + 8 + 8;
/// What an entry takes at the most: two lengths, a name, three numbers of 7 bits a byte.
const _: () =
    assert!(2 + TOPIC_BYTES_MAX + 3 * 5 + DICTIONARY_HEAD_BYTES <= TOPICS_PAGE_CONTENT_BYTES);

/// The first bytes of a topics file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicsHeader {
    /// Of the segment.
    pub(crate) nonce: u32,
    /// How many offsets the segment stands for.
    pub(crate) span: u32,
    pub(crate) topics: u32,
    /// How many of them begin with a deletion.
    pub(crate) deletions: u32,
    pub(crate) dictionary_pages: u32,
    pub(crate) postings_bytes: u32,
    pub(crate) producers: u32,
}

impl TopicsHeader {
    pub(crate) fn encode(&self) -> [u8; TOPICS_HEADER_BYTES] {
        let mut bytes = [0; TOPICS_HEADER_BYTES];
        bytes[..8].copy_from_slice(TOPICS_MAGIC.as_bytes());
        let numbers = [
            FORMAT_VERSION,
            self.nonce,
            self.span,
            self.topics,
            self.deletions,
            self.dictionary_pages,
            self.postings_bytes,
            self.producers,
        ];
        for (into, number) in bytes[8..].chunks_exact_mut(4).zip(numbers) {
            into.copy_from_slice(&number.to_le_bytes());
        }
        seal_block(&mut bytes);
        bytes
    }

    /// `None` for anything but the header of this version's file of the segment with this nonce.
    pub(crate) fn decode(bytes: &[u8; TOPICS_HEADER_BYTES], nonce: u32) -> Option<Self> {
        let sound = &bytes[..8] == TOPICS_MAGIC.as_bytes()
            && check_block(bytes).is_ok()
            && le!(u32, bytes, 8) == FORMAT_VERSION
            && le!(u32, bytes, 12) == nonce;
        sound.then(|| Self {
            nonce,
            span: le!(u32, bytes, 16),
            topics: le!(u32, bytes, 20),
            deletions: le!(u32, bytes, 24),
            dictionary_pages: le!(u32, bytes, 28),
            postings_bytes: le!(u32, bytes, 32),
            producers: le!(u32, bytes, 36),
        })
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

/// A topic of a segment, as the dictionary has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicEntry {
    pub(crate) name: Vec<u8>,
    /// The first of its postings is its deletion.
    pub(crate) is_deleted: bool,
    /// How many records before the deletion the segment still has.
    pub(crate) dropped: u32,
    /// How many postings it has.
    pub(crate) count: u32,
    /// Where they lie in the bytes of all postings.
    pub(crate) postings_at: u32,
    pub(crate) postings_bytes: u32,
}

impl TopicEntry {
    /// Whether its postings lie in the bytes of all of them.
    pub(crate) fn lies_in(&self, header: &TopicsHeader) -> bool {
        let end = self.postings_at.checked_add(self.postings_bytes);
        end.is_some_and(|end| end <= header.postings_bytes)
    }
}

/// A topic that is to be written, with its records.
pub(crate) struct NewEntry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) is_deleted: bool,
    pub(crate) dropped: u32,
    pub(crate) postings: &'a [u32],
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
    pub(crate) fn new(nonce: u32, span: u32) -> Self {
        Self {
            header: TopicsHeader {
                nonce,
                span,
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
        encode_postings(entry.postings, self.header.span, &mut self.postings);
        let count = u64::try_from(entry.postings.len()).expect("64 bits");
        let postings_bytes = (self.postings.len() - postings_at) as u64;
        let tail = |into: &mut Vec<u8>| {
            push_number(into, count << 1 | u64::from(entry.is_deleted));
            push_number(into, postings_bytes);
            if entry.is_deleted {
                push_number(into, entry.dropped.into());
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
        self.header.deletions += u32::from(entry.is_deleted);
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

/// How much of a name is the previous one's, and the rest.
fn entry_name(previous: &[u8], name: &[u8]) -> Vec<u8> {
    let shared = previous
        .iter()
        .zip(name)
        .take_while(|(a, b)| a == b)
        .count();
    let rest = &name[shared..];
    let length = |bytes: usize| u8::try_from(bytes).expect("a topic has at most 255 bytes");
    let mut bytes = vec![length(shared), length(rest.len())];
    bytes.extend_from_slice(rest);
    bytes
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

/// Reads the entries of a dictionary page, one after the other.
#[derive(Debug)]
pub(crate) struct DictionaryPage<'a> {
    rest: &'a [u8],
    left: u32,
    postings_at: u32,
    name: Vec<u8>,
}

impl<'a> DictionaryPage<'a> {
    /// `None` for what cannot be one.
    pub(crate) fn new(content: &'a [u8]) -> Option<Self> {
        let head = content.get(..DICTIONARY_HEAD_BYTES)?;
        Some(Self {
            left: le!(u32, head, 0),
            postings_at: u32::try_from(le!(u64, head, 4)).ok()?,
            rest: &content[DICTIONARY_HEAD_BYTES..],
            name: Vec::new(),
        })
    }

    /// The name of the first entry.
    pub(crate) fn first_name(content: &'a [u8]) -> Option<&'a [u8]> {
        let entry = content.get(DICTIONARY_HEAD_BYTES..)?;
        let len = usize::from(*entry.get(1)?);
        entry.get(2..2 + len)
    }

    /// The next entry; `Some(None)` at the end, and `None` for what cannot be one.
    pub(crate) fn next_entry(&mut self) -> Option<Option<TopicEntry>> {
        let entry = self.advance()?;
        Some(entry.map(|entry| TopicEntry {
            name: self.name.clone(),
            ..entry
        }))
    }

    /// The entry with this name, as [`next_entry`](Self::next_entry) would return it.
    pub(crate) fn find(mut self, name: &[u8]) -> Option<Option<TopicEntry>> {
        while let Some(entry) = self.advance()? {
            if self.name == name {
                let name = self.name;
                return Some(Some(TopicEntry { name, ..entry }));
            }
        }
        Some(None)
    }

    /// Moves to the next entry, whose name is then in `self.name` and not in what is returned: most are
    /// passed over.
    fn advance(&mut self) -> Option<Option<TopicEntry>> {
        if self.left == 0 {
            return Some(None);
        }
        self.left -= 1;
        let (&[shared, len], rest) = self.rest.split_first_chunk()?;
        let (name, mut rest) = rest.split_at_checked(len.into())?;
        if usize::from(shared) > self.name.len() {
            return None;
        }
        self.name.truncate(shared.into());
        self.name.extend_from_slice(name);
        let (count, bytes) = (take_number(&mut rest)?, take_number(&mut rest)?);
        let is_deleted = count & 1 == 1;
        let dropped = match is_deleted {
            true => take_number(&mut rest)?,
            false => 0,
        };
        self.rest = rest;
        let entry = TopicEntry {
            name: Vec::new(),
            is_deleted,
            dropped: u32::try_from(dropped).ok()?,
            count: u32::try_from(count >> 1).ok()?,
            postings_at: self.postings_at,
            postings_bytes: u32::try_from(bytes).ok()?,
        };
        self.postings_at = self.postings_at.checked_add(entry.postings_bytes)?;
        Some(Some(entry))
    }
}
