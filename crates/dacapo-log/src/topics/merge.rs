//! The topics of all segments together, in the order of their names, without holding them all.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::file::{Entries, Page, TopicsFile};
use super::index::Share;
use crate::error::ReadError;
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
}

/// A topic, and what the segments that have it hold of it, oldest first: the number of each in
/// [`Merge::segments`], and its share.
pub(crate) struct Named {
    pub(crate) name: Vec<u8>,
    pub(crate) shares: Vec<(usize, Share)>,
}

/// A segment's next topic.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    share: Share,
    cursor: usize,
}

impl Ord for Head {
    /// The first name, and of one name the oldest segment, is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_name = other.share.name.cmp(&self.share.name);
        by_name.then(other.cursor.cmp(&self.cursor))
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
        entries: Entries,
        page: Page,
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
            Names::File {
                file,
                entries,
                page,
            } => entries
                .next(file)
                .and_then(|entry| entry.map(|entry| file.share_of(entry, page)).transpose())
                .ok(),
            Names::Walked { segment, slots } => {
                let share =
                    |slot| segment.with_topics(|index| index.share_in(segment.published(), slot));
                Some(slots.pop().map(share))
            }
        };
        let Some(share) = next else {
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
        let share = share.filter(|share| share.name.starts_with(&self.prefix));
        self.heads.extend(share.map(|share| Head { share, cursor }));
        Ok(())
    }

    /// The next topic.
    pub(crate) fn next(&mut self) -> Result<Option<Named>, ReadError> {
        let Some(first) = self.heads.pop() else {
            return Ok(None);
        };
        let name = first.share.name.clone();
        let mut shares = Vec::new();
        let mut head = Some(first);
        while let Some(Head { share, cursor }) = head {
            shares.push((cursor, share));
            self.advance(cursor, &name)?;
            let is_same = |next: &Head| next.share.name == name;
            head = match self.heads.peek().is_some_and(is_same) {
                true => self.heads.pop(),
                false => None,
            };
        }
        Ok(Some(Named { name, shares }))
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
            let page = Page::default();
            return Ok(Self::File {
                file,
                entries,
                page,
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
