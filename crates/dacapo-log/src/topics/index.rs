//! The topics of one segment, in memory: found by walking its frames, as far as they were published.
//!
//! Readers bring it up to date when they need it, so that an append has nothing to do with it. Of a
//! sealed segment it becomes a file; one whose file is missing is walked again.

use std::collections::HashMap;

use hashbrown::HashTable;

use super::filter::Filter;
use crate::format::{self, Kind, NewEntry, NoFrame, Share, TopicsFileBuilder};
use crate::offset::Offset;
use crate::scan;
use crate::stamp::Stamp;
use crate::topic::{self, Topic};

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
    /// The records that have a topic, in order, deletions included.
    labelled: Vec<Labelled>,
    /// How many records there are, those of no topic included.
    records: u32,
    /// By slot: few topics are deleted.
    deleted: HashMap<u32, Deleted>,
    /// Each producer's newest append.
    producers: HashMap<u128, (u32, Stamp)>,
}

/// A topic.
#[derive(Debug)]
struct Slot {
    /// Where the segment has its name.
    name_at: u32,
    name_bytes: u8,
    /// Records behind its deletion.
    count: u32,
    /// The first of them.
    first: u32,
    /// The last of them, or the deletion, in `labelled`.
    newest: u32,
}

/// The last deletion of a topic.
#[derive(Clone, Copy, Debug)]
struct Deleted {
    at: u32,
    /// Records that it has dropped, earlier deletions included.
    dropped: u32,
}

/// A record that has a topic.
#[derive(Debug)]
struct Labelled {
    relative: u32,
    position: u32,
    slot: u32,
    /// The record of the same topic before it, in `labelled`; `NONE` for the first one, and for a deletion.
    before: u32,
}

const NONE: u32 = u32::MAX;

/// What a segment has of a topic from some offset on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    pub(crate) records: u64,
    /// The topic was deleted in the segment: older ones have nothing of it.
    pub(crate) is_deleted: bool,
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
                self.records += 1;
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
                    count: 0,
                    first: 0,
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
            // What was before it is no more; neither is another one.
            let before = self.deleted.get(&slot).map_or(0, |last| last.dropped + 1);
            let deleted = Deleted {
                at: frame.relative,
                dropped: before + known.count,
            };
            self.deleted.insert(slot, deleted);
            known.count = 0;
            known.newest = NONE;
        } else {
            if known.count == 0 {
                known.first = frame.relative;
            }
            known.count += 1;
        }
        self.labelled.push(Labelled {
            relative: frame.relative,
            position: u32::try_from(frame.start).expect("at most 1 GiB"),
            slot,
            before: known.newest,
        });
        known.newest = u32::try_from(self.labelled.len() - 1).expect("fewer than frames");
    }

    /// Less the base, the offset before which everything is known.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// How many records there are, of topics or of none, deletions included.
    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// Whether a topic was deleted in the segment.
    pub(crate) fn has_deletions(&self) -> bool {
        !self.deleted.is_empty()
    }

    /// Whether records may be missing here.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    /// The number of a topic's slot.
    fn slot(&self, bytes: &[u8], name: &[u8], hash: u64) -> Option<u32> {
        let is_it = |&slot: &u32| self.slots[slot as usize].name(bytes) == name;
        self.slots_by_name.find(hash, is_it).copied()
    }

    fn slot_of(&self, bytes: &[u8], topic: &Topic) -> Option<u32> {
        self.slot(bytes, topic.as_str().as_bytes(), topic.name_hash())
    }

    /// The records at or behind `from` that the filter lets through, ascending.
    pub(crate) fn places(&self, bytes: &[u8], filter: &Filter, from: u32) -> Vec<Place> {
        let mut places = Vec::new();
        for slot in filter.topics().filter_map(|one| self.slot_of(bytes, one)) {
            let newest = self.chain(slot).take_while(|one| one.relative >= from);
            places.extend(newest.map(Labelled::place));
        }
        if filter.prefixes().len() > 0 {
            let new = self.labelled.partition_point(|one| one.relative < from);
            let wanted = |one: &&Labelled| {
                // Before its deletion a topic has no records any more.
                let deleted = self.deleted.get(&one.slot);
                deleted.is_none_or(|deleted| one.relative >= deleted.at)
                    && filter.takes_in(self.name_in(bytes, one.slot))
            };
            let wanted = self.labelled[new..].iter().filter(wanted);
            places.extend(wanted.map(Labelled::place));
        }
        places.sort_unstable_by_key(|place| place.relative);
        places
    }

    /// The records of a topic, newest first, and behind them its deletion.
    fn chain(&self, slot: u32) -> impl Iterator<Item = &Labelled> {
        let newest = self.slots[slot as usize].newest;
        let at = |number: u32| self.labelled.get(number as usize);
        std::iter::successors(at(newest), move |one| at(one.before))
    }

    /// As [`chain`](Self::chain), without the deletion.
    fn records_in(&self, slot: u32) -> impl Iterator<Item = &Labelled> {
        self.chain(slot)
            .take(self.slots[slot as usize].count as usize)
    }

    /// What the segment has of one topic.
    pub(crate) fn share(&self, bytes: &[u8], topic: &Topic) -> Option<Share> {
        Some(self.share_in(self.slot_of(bytes, topic)?))
    }

    /// What the segment has of the topic in a slot.
    pub(crate) fn share_in(&self, slot: u32) -> Share {
        let Slot {
            count,
            first,
            newest,
            ..
        } = self.slots[slot as usize];
        let deleted = self.deleted.get(&slot);
        let (first, last) = match count {
            0 => (0, 0),
            _ => (first, self.labelled[newest as usize].relative),
        };
        Share {
            deletion: deleted.map(|deleted| deleted.at),
            dropped: deleted.map_or(0, |deleted| deleted.dropped),
            count,
            first,
            last,
        }
    }

    /// What the segment has of one topic at or behind `from`.
    pub(crate) fn behind(&self, bytes: &[u8], topic: &Topic, from: u32) -> Behind {
        let slot = self.slot_of(bytes, topic);
        slot.map_or(Behind::default(), |slot| {
            let newest_first = self.records_in(slot);
            Behind {
                records: newest_first.take_while(|one| one.relative >= from).count() as u64,
                is_deleted: self.deleted.contains_key(&slot),
            }
        })
    }

    /// The records of one topic, ascending, without its deletion.
    pub(crate) fn records_of(&self, bytes: &[u8], name: &[u8]) -> Vec<u32> {
        let mut records = Vec::new();
        if let Some(slot) = self.slot(bytes, name, topic::hash_of(name)) {
            self.gather(slot, &mut records);
        }
        records
    }

    fn gather(&self, slot: u32, into: &mut Vec<u32>) {
        into.clear();
        into.extend(self.records_in(slot).map(|one| one.relative));
        into.reverse();
    }

    /// The topics that the filter lets through and that were deleted in the segment, and where.
    pub(crate) fn deletions(&self, bytes: &[u8], filter: &Filter) -> Vec<(Vec<u8>, u32)> {
        let name = |slot| self.name_in(bytes, slot);
        let told = |slot| Some((name(slot).to_vec(), self.deleted.get(&slot)?.at));
        if filter.prefixes().len() == 0 {
            let asked = filter.topics().filter_map(|one| self.slot_of(bytes, one));
            return asked.filter_map(told).collect();
        }
        let deleted = self.deleted.keys().copied();
        let asked = deleted.filter(|&slot| filter.matches(name(slot)));
        asked.filter_map(told).collect()
    }

    /// Whether a topic that the filter lets through was deleted at or behind `limit`.
    pub(crate) fn is_deleted_behind(&self, bytes: &[u8], filter: &Filter, limit: u32) -> bool {
        let deletions = self.deletions(bytes, filter);
        deletions.iter().any(|&(_, deletion)| deletion >= limit)
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

    /// The bytes of the topics file of a sealed segment; `None` where something is missing here.
    pub(crate) fn encode(&self, bytes: &[u8], nonce: u32, span: u32) -> Option<Vec<u8>> {
        if self.is_incomplete || self.next != span {
            return None;
        }
        let mut file = TopicsFileBuilder::new(nonce, span, self.records);
        let mut records = Vec::new();
        for slot in self.sorted(bytes, b"") {
            let deleted = self.deleted.get(&slot);
            self.gather(slot, &mut records);
            file.push(&NewEntry {
                name: self.name_in(bytes, slot),
                deletion: deleted.map(|deleted| deleted.at),
                dropped: deleted.map_or(0, |deleted| deleted.dropped),
                records: &records,
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
