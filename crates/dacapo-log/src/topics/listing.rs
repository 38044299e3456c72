//! The topics of a log, and what it has of each.

use std::sync::Arc;

use super::filter::Filter;
use super::merge::{Merge, Named, Part};
use crate::error::ReadError;
use crate::log::Shared;
use crate::offset::Offset;
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
/// Holds a page of 4 KiB for each segment, and of the one that is appended to the order of its names;
/// nothing for a record.
/// What is appended meanwhile may be in it or not.
#[derive(Debug)]
#[must_use = "nothing is read until it is iterated"]
pub struct Topics {
    shared: Arc<Shared>,
    prefix: Vec<u8>,
    /// `None` before the first look.
    merge: Option<Merge>,
    failed: bool,
}

impl Topics {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            prefix: Vec::new(),
            merge: None,
            failed: false,
        }
    }

    /// Those only whose names begin with `prefix`.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.as_bytes().to_vec();
        self
    }

    fn advance(&mut self) -> Result<Option<TopicSummary>, ReadError> {
        let mut merge = match self.merge.take() {
            Some(merge) => merge,
            None => {
                self.shared.refresh()?;
                Merge::new(&self.shared, &self.prefix)?
            }
        };
        let mut found = None;
        while let Some(named) = merge.next()? {
            found = summary(&merge, &named);
            if found.is_some() {
                break;
            }
        }
        self.merge = Some(merge);
        Ok(found)
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

/// `None` for a topic that has been deleted, and for a name that is none.
fn summary(merge: &Merge, named: &Named) -> Option<TopicSummary> {
    let is_deleted_in = |part: &Part| part.share.deletion.is_some();
    let deleted_in = named.parts.iter().rposition(is_deleted_in);
    let mut alive = named.parts[deleted_in.unwrap_or(0)..]
        .iter()
        .filter(|part| part.share.count > 0);
    let records = alive.clone().map(|part| u64::from(part.share.count)).sum();
    let offset =
        |part: &Part, relative: u32| merge.segments()[part.segment].base.plus(relative.into());
    let oldest = alive.next()?;
    let newest = alive.next_back().unwrap_or(oldest);
    let name = std::str::from_utf8(&named.name).ok()?;
    Some(TopicSummary {
        topic: Topic::new(name).ok()?,
        records,
        first: offset(oldest, oldest.share.first),
        last: offset(newest, newest.share.last),
    })
}

/// The offset of a topic's last record: a look into each segment, newest first, until one has it.
pub(crate) fn last_of(shared: &Shared, topic: &Topic) -> Result<Option<Offset>, ReadError> {
    for summary in shared.segments.summaries().iter().rev() {
        let share = super::ask(
            shared,
            summary,
            |file| file.share(topic),
            |index, segment| index.share(segment.published(), topic),
        );
        match share {
            // Dropped since it was listed, and every one before it.
            Err(ReadError::SegmentMissing { offset, .. }) if offset < shared.oldest() => break,
            share => {
                if let Some(share) = share? {
                    let last = (share.count > 0).then_some(share.last);
                    return Ok(last.map(|last| summary.base.plus(last.into())));
                }
            }
        }
    }
    Ok(None)
}

/// How many records a topic has at or behind `from`: a look into each segment that ends behind it, newest
/// first, until the one in which the topic was deleted.
pub(crate) fn count_of(shared: &Shared, topic: &Topic, from: Offset) -> Result<u64, ReadError> {
    let from = from.max(shared.oldest());
    let ends_behind = |summary: &&Summary| {
        let footer = summary.footer.as_ref();
        footer.is_none_or(|footer| footer.next > from)
    };
    let summaries = shared.segments.summaries();
    let mut records = 0;
    for summary in summaries.iter().rev().take_while(ends_behind) {
        let relative = u32::try_from(from.since(summary.base)).unwrap_or(u32::MAX);
        let found = super::ask(
            shared,
            summary,
            |file| file.behind(topic, relative),
            |index, segment| index.behind(segment.published(), topic, relative),
        );
        match found {
            // Dropped since it was listed, and every one before it.
            Err(ReadError::SegmentMissing { offset, .. }) if offset < shared.oldest() => break,
            found => {
                let found = found?;
                records += found.records;
                if found.is_deleted {
                    break;
                }
            }
        }
    }
    Ok(records)
}

/// How many records at or behind `from` the filter lets through.
pub(crate) fn remaining_of(
    shared: &Arc<Shared>,
    filter: &Filter,
    from: Offset,
) -> Result<u64, ReadError> {
    let mut records = 0;
    for topic in filter.topics() {
        records += count_of(shared, topic, from)?;
    }
    for prefix in filter.prefixes() {
        for summary in Topics::new(Arc::clone(shared)).prefix(prefix) {
            let summary = summary?;
            records += match (summary.first >= from, summary.last < from) {
                (true, _) => summary.records,
                (_, true) => 0,
                (false, false) => count_of(shared, &summary.topic, from)?,
            };
        }
    }
    Ok(records)
}
