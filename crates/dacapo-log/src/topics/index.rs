//! The topics of one segment, in memory: found by walking its frames, as far as they were published.
//!
//! Readers bring it up to date when they need it, so that an append has nothing to do with it. Of a
//! sealed segment it becomes a file; one whose file is missing is walked again.

use std::collections::HashMap;

use hashbrown::HashTable;

use super::filter::Filter;
use crate::format::{self, Kind, NewEntry, NoFrame, TopicsFileBuilder};
use crate::offset::Offset;
use crate::scan;
use crate::stamp::Stamp;
use crate::topic;

/// A record that a filter lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) relative: u32,
    /// Where it lies, if that is known.
    pub(crate) position: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct TopicIndex {
    /// Where the next frame is.
    walked_to: usize,
    /// Less the base, the offset behind all that was walked.
    next: u32,
    /// Frames were damaged, or stand for records that were lost: some are missing here.
    is_incomplete: bool,
    /// Slots by name; the names lie in the segment.
    slots_by_name: HashTable<u32>,
    slots: Vec<Slot>,
    /// The records that have a topic, in order.
    records: Vec<Labelled>,
    deletions: u32,
    /// Each producer's newest append.
    producers: HashMap<u128, (u32, Stamp)>,
}

/// A topic.
#[derive(Debug)]
struct Slot {
    /// Where the segment has its name.
    name_at: u32,
    name_bytes: u8,
    /// The first record is the topic's deletion.
    is_deleted: bool,
    count: u32,
    /// Records that its deletion has dropped.
    dropped: u32,
    first: u32,
    /// In `records`.
    newest: u32,
}

/// A record that has a topic.
#[derive(Debug)]
struct Labelled {
    relative: u32,
    position: u32,
    slot: u32,
    /// The record of the same topic before it, in `records`; `NONE` for the first one.
    before: u32,
}

const NONE: u32 = u32::MAX;

/// A topic of a segment, and what the segment has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) name: Vec<u8>,
    /// The deletion's offset less the base, if there is one: before it the topic has no record.
    pub(crate) deletion: Option<u32>,
    /// How many records before the deletion the segment still has.
    pub(crate) dropped: u32,
    /// The offsets of its records less the base, ascending; without the deletion.
    pub(crate) records: Vec<u32>,
}

impl TopicIndex {
    /// Walks what was published since the last time.
    pub(crate) fn catch_up(&mut self, bytes: &[u8], nonce: u32, base: Offset) {
        self.walked_to = self.walked_to.max(format::FRAMES_START);
        while self.walked_to < bytes.len() {
            let frame = match format::decode_frame(bytes, self.walked_to, nonce) {
                Ok(frame) => frame,
                Err(no) => {
                    // Unwritten is what lies behind the last frame of a repaired segment.
                    self.is_incomplete |= no != NoFrame::Unwritten;
                    match scan::record_behind(bytes, self.walked_to + 1, nonce, self.next) {
                        Some(frame) => {
                            self.is_incomplete = true;
                            frame
                        }
                        None => {
                            self.walked_to = bytes.len();
                            return;
                        }
                    }
                }
            };
            self.walked_to = frame.end;
            if let Some(stamp) = frame.stamp(bytes) {
                self.producers
                    .insert(stamp.producer, (frame.relative, stamp));
            }
            if let Ok(gone) = format::absence_of(&frame, bytes, base) {
                self.is_incomplete |= frame.kind == Kind::Gap;
                self.next = u32::try_from(gone.end.since(base)).unwrap_or(u32::MAX);
            } else if frame.kind.is_record() {
                self.is_incomplete |= frame.relative != self.next;
                self.next = frame.relative.saturating_add(1);
                if frame.topic_bytes > 0 {
                    self.push(bytes, &frame);
                }
            }
        }
    }

    fn push(&mut self, bytes: &[u8], frame: &format::Frame) {
        let name_at = frame.payload.start - usize::from(frame.topic_bytes);
        let name = &bytes[name_at..frame.payload.start];
        let hash = topic::hash_of(name);
        let slots = &mut self.slots;
        let is_it = |&slot: &u32| slots[slot as usize].name(bytes) == name;
        let slot = match self.slots_by_name.find(hash, is_it) {
            Some(&slot) => slot,
            None => {
                let slot = u32::try_from(slots.len()).expect("fewer than frames");
                slots.push(Slot {
                    name_at: u32::try_from(name_at).expect("at most 1 GiB"),
                    name_bytes: frame.topic_bytes,
                    is_deleted: false,
                    count: 0,
                    dropped: 0,
                    first: frame.relative,
                    newest: NONE,
                });
                self.slots_by_name.insert_unique(hash, slot, |&slot| {
                    topic::hash_of(slots[slot as usize].name(bytes))
                });
                slot
            }
        };
        let known = &mut self.slots[slot as usize];
        if frame.kind == Kind::Deletion {
            // What was before it is no more.
            self.deletions += 1;
            known.is_deleted = true;
            known.dropped += known.count;
            known.count = 0;
            known.first = frame.relative;
            known.newest = NONE;
        }
        self.records.push(Labelled {
            relative: frame.relative,
            position: u32::try_from(frame.start).expect("at most 1 GiB"),
            slot,
            before: known.newest,
        });
        known.newest = u32::try_from(self.records.len() - 1).expect("fewer than frames");
        known.count += 1;
    }

    /// Less the base, the offset before which everything is known.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// Whether a topic was deleted in the segment.
    pub(crate) fn has_deletions(&self) -> bool {
        self.deletions > 0
    }

    /// Whether records may be missing here.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    fn slot(&self, bytes: &[u8], name: &[u8], hash: u64) -> Option<&Slot> {
        let is_it = |&slot: &u32| self.slots[slot as usize].name(bytes) == name;
        let slot = self.slots_by_name.find(hash, is_it)?;
        Some(&self.slots[*slot as usize])
    }

    /// The records at or behind `from` that the filter lets through, ascending.
    pub(crate) fn places(&self, bytes: &[u8], filter: &Filter, from: u32) -> Vec<Place> {
        let mut places = Vec::new();
        for topic in filter.topics() {
            let name = topic.as_str().as_bytes();
            if let Some(slot) = self.slot(bytes, name, topic.name_hash()) {
                let newest = self.chain(slot).take_while(|one| one.relative >= from);
                places.extend(newest.map(Labelled::place));
            }
        }
        if filter.prefixes().len() > 0 {
            let new = self.records.partition_point(|one| one.relative < from);
            let wanted = |one: &&Labelled| {
                let slot = &self.slots[one.slot as usize];
                // Before its deletion a topic has no records any more.
                one.relative >= slot.first && filter.takes_in(slot.name(bytes))
            };
            places.extend(
                self.records[new..]
                    .iter()
                    .filter(wanted)
                    .map(Labelled::place),
            );
        }
        places.sort_unstable_by_key(|place| place.relative);
        places
    }

    /// The records of a topic, newest first.
    fn chain(&self, slot: &Slot) -> impl Iterator<Item = &Labelled> {
        let newest = self.records.get(slot.newest as usize);
        std::iter::successors(newest, |one| self.records.get(one.before as usize))
    }

    /// What the segment has of one topic.
    pub(crate) fn share(&self, bytes: &[u8], name: &[u8]) -> Option<Share> {
        let slot = self.slot(bytes, name, topic::hash_of(name))?;
        Some(self.share_of(bytes, slot))
    }

    /// What the segment has of the topics that the filter lets through.
    pub(crate) fn shares(&self, bytes: &[u8], filter: &Filter) -> Vec<Share> {
        let topics = filter.topics();
        let mut shares: Vec<Share> = topics
            .filter_map(|topic| self.share(bytes, topic.as_str().as_bytes()))
            .collect();
        for prefix in filter.prefixes() {
            let slots = self.sorted(bytes, prefix.as_bytes());
            shares.extend(slots.into_iter().map(|slot| self.share_in(bytes, slot)));
        }
        shares
    }

    fn share_of(&self, bytes: &[u8], slot: &Slot) -> Share {
        let mut records: Vec<u32> = self.chain(slot).map(|one| one.relative).collect();
        if slot.is_deleted {
            // The oldest one.
            records.pop();
        }
        records.reverse();
        Share {
            name: slot.name(bytes).to_vec(),
            deletion: slot.is_deleted.then_some(slot.first),
            dropped: slot.dropped,
            records,
        }
    }

    /// Whether a topic that the filter lets through was deleted at or behind `limit`.
    pub(crate) fn is_deleted_behind(&self, bytes: &[u8], filter: &Filter, limit: u32) -> bool {
        let is_it = |slot: &Slot| slot.is_deleted && slot.first >= limit;
        if !self.has_deletions() {
            return false;
        }
        let slot_of =
            |topic: &topic::Topic| self.slot(bytes, topic.as_str().as_bytes(), topic.name_hash());
        let mut slots = self.slots.iter();
        filter.topics().filter_map(slot_of).any(is_it)
            || filter.prefixes().len() > 0
                && slots.any(|slot| is_it(slot) && filter.takes_in(slot.name(bytes)))
    }

    /// The topic's newest record or deletion, and whether it is a record.
    pub(crate) fn newest(&self, bytes: &[u8], name: &[u8]) -> Option<(u32, bool)> {
        let slot = self.slot(bytes, name, topic::hash_of(name))?;
        let newest = self.records[slot.newest as usize].relative;
        Some((newest, slot.count > u32::from(slot.is_deleted)))
    }

    /// The numbers of the slots, in the order of their names, of those that begin with a prefix.
    pub(crate) fn sorted(&self, bytes: &[u8], prefix: &[u8]) -> Vec<u32> {
        let begins = |slot: &Slot| slot.name(bytes).starts_with(prefix);
        let mut slots: Vec<u32> = (0..)
            .zip(&self.slots)
            .filter(|(_, slot)| begins(slot))
            .map(|(number, _)| number)
            .collect();
        slots.sort_unstable_by_key(|&slot| self.slots[slot as usize].name(bytes));
        slots
    }

    pub(crate) fn name_in<'a>(&self, bytes: &'a [u8], slot: u32) -> &'a [u8] {
        self.slots[slot as usize].name(bytes)
    }

    /// What the segment has of the topic in a slot.
    pub(crate) fn share_in(&self, bytes: &[u8], slot: u32) -> Share {
        self.share_of(bytes, &self.slots[slot as usize])
    }

    /// The bytes of the topics file of a sealed segment; `None` where something is missing here.
    pub(crate) fn encode(&self, bytes: &[u8], nonce: u32, span: u32) -> Option<Vec<u8>> {
        if self.is_incomplete || self.next != span {
            return None;
        }
        let mut file = TopicsFileBuilder::new(nonce, span);
        let mut postings = Vec::new();
        for slot in self.sorted(bytes, b"") {
            let slot = &self.slots[slot as usize];
            postings.clear();
            postings.extend(self.chain(slot).map(|one| one.relative));
            postings.reverse();
            file.push(&NewEntry {
                name: slot.name(bytes),
                is_deleted: slot.is_deleted,
                dropped: slot.dropped,
                postings: &postings,
            });
        }
        let mut producers: Vec<_> = self.producers.values().copied().collect();
        producers.sort_unstable_by_key(|&(relative, _)| relative);
        file.finish(&producers)
    }
}

impl Slot {
    fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = self.name_at as usize;
        &bytes[start..start + usize::from(self.name_bytes)]
    }
}

impl Labelled {
    fn place(&self) -> Place {
        Place {
            relative: self.relative,
            position: Some(self.position),
        }
    }
}
