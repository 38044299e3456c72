//! The topics of a log in the order of their names, without holding them all in memory.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::file::{Entries, Page, TopicsFile};
use super::index::Share;
use crate::error::ReadError;
use crate::log::Shared;
use crate::offset::Offset;
use crate::segment::Segment;
use crate::segments::Summary;
use crate::topic::Topic;

/// A topic, and what the log has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicSummary {
    /// Its name.
    pub topic: Topic,
    /// How many records it has.
    pub records: u64,
    /// Its first record.
    pub first: Offset,
    /// Its last record.
    pub last: Offset,
}

/// An iterator over the topics that have records, in the order of their names; made by
/// [`Log::topics`](crate::Log::topics).
///
/// Holds a page of 4 KiB for each segment, and of the one that is appended to the order of its names.
/// What is appended meanwhile may be in it or not.
#[derive(Debug)]
#[must_use = "nothing is read until it is iterated"]
pub struct Topics {
    shared: Arc<Shared>,
    prefix: Vec<u8>,
    /// What is next in each segment; `None` before the first look.
    heads: Option<BinaryHeap<Head>>,
    cursors: Vec<Cursor>,
    failed: bool,
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
        let key = |head: &Self| (head.share.name.clone(), head.cursor);
        key(other).cmp(&key(self))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A way through the names of one segment.
#[derive(Debug)]
struct Cursor {
    base: Offset,
    names: Names,
}

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

impl Topics {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            prefix: Vec::new(),
            heads: None,
            cursors: Vec::new(),
            failed: false,
        }
    }

    /// Those only whose names begin with `prefix`.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.as_bytes().to_vec();
        self
    }

    /// Looks at the first name of each segment.
    fn begin(&mut self) -> Result<BinaryHeap<Head>, ReadError> {
        // What keeps a read-only log from seeing its end is met by who reads it.
        let _ = self.shared.refresh();
        let mut heads = BinaryHeap::new();
        for summary in self.shared.segments.summaries() {
            let names = match Names::of(&self.shared, &summary, &self.prefix, &[])? {
                Some(names) => names,
                // Dropped since.
                None => continue,
            };
            let base = summary.base;
            self.cursors.push(Cursor { base, names });
            heads.extend(self.head(self.cursors.len() - 1, &[])?);
        }
        Ok(heads)
    }

    /// The next topic of a segment, behind `before`.
    fn head(&mut self, cursor: usize, before: &[u8]) -> Result<Option<Head>, ReadError> {
        let at = &mut self.cursors[cursor];
        let next = match &mut at.names {
            Names::File {
                file,
                entries,
                page,
            } => entries
                .next(file)
                .and_then(|entry| entry.map(|entry| file.share_of(entry, page)).transpose())
                .ok(),
            Names::Walked { segment, slots } => {
                let share = slots.pop().map(|slot| {
                    segment.with_topics(|index| index.share_in(segment.published(), slot))
                });
                Some(share)
            }
        };
        let share = match next {
            Some(share) => share,
            // The file is damaged from here on: the segment itself has the rest.
            None => {
                let segment = self.shared.segments.holding(at.base)?;
                at.names = Names::walked(segment, &self.prefix, before);
                return self.head(cursor, before);
            }
        };
        let share = share.filter(|share| share.name.starts_with(&self.prefix));
        Ok(share.map(|share| Head { share, cursor }))
    }

    fn advance(&mut self) -> Result<Option<TopicSummary>, ReadError> {
        let mut heads = match self.heads.take() {
            Some(heads) => heads,
            None => self.begin()?,
        };
        let mut summary = None;
        while let Some(head) = heads.pop() {
            heads.extend(self.head(head.cursor, &head.share.name)?);
            let mut found = Found::default();
            let name = head.share.name.clone();
            found.add(self.cursors[head.cursor].base, &head.share);
            while let Some(same) = heads.peek().filter(|same| same.share.name == name) {
                found.add(self.cursors[same.cursor].base, &same.share);
                if let Some(same) = heads.pop() {
                    heads.extend(self.head(same.cursor, &name)?);
                }
            }
            summary = found.summary(&name);
            if summary.is_some() {
                break;
            }
        }
        self.heads = Some(heads);
        Ok(summary)
    }
}

impl Iterator for Topics {
    type Item = Result<TopicSummary, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}

impl Names {
    /// `None` where the segment was dropped since it was listed.
    fn of(
        shared: &Shared,
        summary: &Summary,
        prefix: &[u8],
        before: &[u8],
    ) -> Result<Option<Self>, ReadError> {
        if let Some(footer) = &summary.footer
            && let Ok(file) = TopicsFile::open(&shared.disk, &shared.dir, footer)
            && let Ok(entries) = file.entries_from(prefix)
        {
            let page = Page::default();
            return Ok(Some(Self::File {
                file,
                entries,
                page,
            }));
        }
        match shared.segments.holding(summary.base) {
            Err(ReadError::SegmentMissing { .. }) => Ok(None),
            segment => Ok(Some(Self::walked(segment?, prefix, before))),
        }
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

/// What was found of one topic, segment by segment, oldest first.
#[derive(Default)]
struct Found {
    records: u64,
    ends: Option<(Offset, Offset)>,
}

impl Found {
    fn add(&mut self, base: Offset, share: &Share) {
        if share.deletion.is_some() {
            *self = Self::default();
        }
        self.records += u64::from(share.records);
        if let Some((first, last)) = share.ends {
            let (first, last) = (base.plus(first.into()), base.plus(last.into()));
            self.ends = Some((self.ends.map_or(first, |(known, _)| known), last));
        }
    }

    /// `None` for a topic that has been deleted, and for a name that is none.
    fn summary(self, name: &[u8]) -> Option<TopicSummary> {
        let (first, last) = self.ends?;
        let topic = Topic::new(std::str::from_utf8(name).ok()?).ok()?;
        Some(TopicSummary {
            topic,
            records: self.records,
            first,
            last,
        })
    }
}

/// The offset of a topic's last record: a look into each segment, newest first, until one has it.
pub(crate) fn last_of(shared: &Shared, topic: &Topic) -> Result<Option<Offset>, ReadError> {
    let name = topic.as_str().as_bytes();
    for summary in shared.segments.summaries().iter().rev() {
        let share = super::ask(
            shared,
            summary,
            |file| file.share(name),
            |index, segment| index.share(segment.published(), name),
        );
        let share = match share {
            // Dropped since it was listed, and every one before it.
            Err(ReadError::SegmentMissing { offset, .. }) if offset < shared.oldest() => None,
            share => share?,
        };
        if let Some(share) = share {
            let last = share.ends.map(|(_, last)| summary.base.plus(last.into()));
            if last.is_some() || share.deletion.is_some() {
                return Ok(last);
            }
        }
    }
    Ok(None)
}
