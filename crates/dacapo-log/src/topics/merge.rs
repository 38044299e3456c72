//! The topics of all segments together, in the order of their names, without holding them all.
//!
//! Of each segment a page of its dictionary is held. Where the records of a topic lie in it is read only
//! for one who asks, one topic of one segment at a time.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::file::{Entries, Page, TopicsFile};
use super::index::TopicIndex;
use crate::error::ReadError;
use crate::format::{Share, Stretch, TopicEntry};
use crate::log::Shared;
use crate::segment::Segment;
use crate::segments::Summary;

/// So many topics files stay open: of more segments, a page at a time is read.
const OPEN_FILES_MAX: usize = 64;

/// Goes from name to name, and says what each segment has of it.
#[derive(Debug)]
pub(crate) struct Merge {
    shared: Arc<Shared>,
    prefix: Vec<u8>,
    segments: Vec<Summary>,
    cursors: Vec<Names>,
    /// What is next in each segment.
    heads: BinaryHeap<Head>,
    /// The page of postings that was read last, and of which segment it is.
    postings: (usize, Page),
}

/// A topic, and what the segments that have it hold of it, oldest first.
pub(crate) struct Named {
    pub(crate) name: Vec<u8>,
    pub(crate) parts: Vec<Part>,
}

/// What one segment has of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its number in [`Merge::segments`].
    pub(crate) segment: usize,
    pub(crate) share: Share,
    /// In a topics file.
    postings: Stretch,
}

/// A segment's next topic.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    name: Vec<u8>,
    part: Part,
}

impl Ord for Head {
    /// The first name, and of one name the oldest segment, is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_name = other.name.cmp(&self.name);
        by_name.then(other.part.segment.cmp(&self.part.segment))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A way through the names of one segment.
#[derive(Debug)]
enum Names {
    File {
        file: TopicsFile,
        entries: Box<Entries>,
        /// Mapped, if it had to be asked for records.
        segment: Option<Arc<Segment>>,
    },
    Walked {
        segment: Arc<Segment>,
        /// The next one at the end.
        slots: Vec<u32>,
    },
}

impl Merge {
    /// The topics that the log has now, and whose names begin with `prefix`.
    pub(crate) fn new(shared: &Arc<Shared>, prefix: &[u8]) -> Result<Self, ReadError> {
        let mut merge = Self {
            shared: Arc::clone(shared),
            prefix: prefix.to_vec(),
            segments: Vec::new(),
            cursors: Vec::new(),
            heads: BinaryHeap::new(),
            postings: (0, Page::default()),
        };
        let summaries = shared.segments.summaries();
        let stay_open = summaries.len() <= OPEN_FILES_MAX;
        for summary in summaries {
            let names = match Names::of(shared, &summary, prefix, stay_open) {
                // Dropped since it was listed.
                Err(ReadError::SegmentMissing { .. }) if summary.base < shared.oldest() => continue,
                names => names?,
            };
            merge.segments.push(summary);
            merge.cursors.push(names);
            merge.advance(merge.cursors.len() - 1, &[])?;
        }
        Ok(merge)
    }

    pub(crate) fn segments(&self) -> &[Summary] {
        &self.segments
    }

    /// Makes the next topic of a segment, behind `before`, its head.
    fn advance(&mut self, cursor: usize, before: &[u8]) -> Result<(), ReadError> {
        let next = match &mut self.cursors[cursor] {
            Names::File { file, entries, .. } => entries.next(file).ok(),
            Names::Walked { segment, slots } => {
                let entry = |slot| {
                    segment.with_topics(|index| TopicEntry {
                        name: index.name_in(segment.published(), slot).to_vec(),
                        share: index.share_in(slot),
                        postings: Stretch::default(),
                    })
                };
                Some(slots.pop().map(entry))
            }
        };
        let Some(entry) = next else {
            // The file is damaged from here on: the segment itself has the rest.
            let base = self.segments[cursor].base;
            let segment = match self.shared.segments.holding(base) {
                // Dropped since it was listed, and its file with it.
                Err(ReadError::SegmentMissing { .. }) if base < self.shared.oldest() => {
                    return Ok(());
                }
                held => held?,
            };
            self.cursors[cursor] = Names::walked(segment, &self.prefix, before);
            return self.advance(cursor, before);
        };
        let entry = entry.filter(|entry| entry.name.starts_with(&self.prefix));
        self.heads.extend(entry.map(|entry| Head {
            name: entry.name,
            part: Part {
                segment: cursor,
                share: entry.share,
                postings: entry.postings,
            },
        }));
        Ok(())
    }

    /// The next topic.
    pub(crate) fn next(&mut self) -> Result<Option<Named>, ReadError> {
        let Some(first) = self.heads.pop() else {
            return Ok(None);
        };
        let mut named = Named {
            name: first.name,
            parts: vec![first.part],
        };
        self.advance(first.part.segment, &named.name)?;
        let is_same = |next: &Head| next.name == named.name;
        while self.heads.peek().is_some_and(is_same)
            && let Some(Head { part, .. }) = self.heads.pop()
        {
            named.parts.push(part);
            self.advance(part.segment, &named.name)?;
        }
        Ok(Some(named))
    }

    /// How many records a segment has, of topics or of none, deletions included.
    pub(crate) fn records_in(&self, segment: usize) -> u64 {
        let records = match &self.cursors[segment] {
            Names::File { file, .. } => file.records(),
            Names::Walked { segment, .. } => segment.with_topics(TopicIndex::records),
        };
        records.into()
    }

    /// The records of a part of the topic `name`, ascending, their offsets less the base.
    ///
    /// `None` where they are no more, or others than its share says: it was that of a damaged file, which
    /// is written anew.
    pub(crate) fn records_of(
        &mut self,
        name: &[u8],
        part: &Part,
    ) -> Result<Option<Vec<u32>>, ReadError> {
        let segment = match &mut self.cursors[part.segment] {
            Names::Walked { segment, .. } => segment,
            Names::File { file, segment, .. } => {
                let (of, page) = &mut self.postings;
                if *of != part.segment {
                    (*of, *page) = (part.segment, Page::default());
                }
                if let Ok(records) = file.records_of(&part.share, part.postings, page) {
                    return Ok(Some(records));
                }
                let base = self.segments[part.segment].base;
                match segment {
                    Some(segment) => segment,
                    None => match self.shared.segments.holding(base) {
                        // Dropped since it was listed.
                        Err(ReadError::SegmentMissing { .. }) if base < self.shared.oldest() => {
                            return Ok(None);
                        }
                        held => {
                            let held = segment.insert(held?);
                            self.shared.order_index(held, true);
                            held
                        }
                    },
                }
            }
        };
        let bytes = segment.published();
        let mut records = segment.with_topics(|index| index.records_of(bytes, name));
        // What was appended since.
        records.truncate(records.partition_point(|&one| one <= part.share.last));
        let is_it = records.len() == part.share.count as usize;
        Ok(is_it.then_some(records))
    }
}

impl Names {
    fn of(
        shared: &Shared,
        summary: &Summary,
        prefix: &[u8],
        stay_open: bool,
    ) -> Result<Self, ReadError> {
        if let Some(footer) = &summary.footer
            && let Ok(mut file) = TopicsFile::open(&shared.disk, &shared.dir, footer)
            && let Ok(entries) = file.entries_from(prefix)
        {
            if !stay_open {
                file.release();
            }
            return Ok(Self::File {
                file,
                entries: Box::new(entries),
                segment: None,
            });
        }
        let segment = shared.segments.holding(summary.base)?;
        if summary.footer.is_some() && segment.with_topics(|index| !index.is_incomplete()) {
            // For the next one who asks.
            shared.order_index(&segment, true);
        }
        Ok(Self::walked(segment, prefix, &[]))
    }

    fn walked(segment: Arc<Segment>, prefix: &[u8], before: &[u8]) -> Self {
        let mut slots = segment.with_topics(|index| {
            let bytes = segment.published();
            let mut slots = index.sorted(bytes, prefix);
            slots.retain(|&slot| before.is_empty() || index.name_in(bytes, slot) > before);
            slots
        });
        slots.reverse();
        Self::Walked { segment, slots }
    }
}
