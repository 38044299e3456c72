//! Topics: what lets a reader see some records without reading the others.
//!
//! Of each segment it is known which topics it holds, and which records are each one's: for the one
//! that is appended to, in memory (`index.rs`); for a sealed one, in a file beside it (`file.rs`). Both
//! are derived from the frames, which are asked where the file is missing or damaged.

mod file;
mod filter;
mod index;
mod listing;
mod merge;
mod tell;
#[cfg(all(test, not(any(simulation, loom))))]
mod tests;
mod waiters;

use std::sync::Arc;

use crate::error::ReadError;
use crate::format::Footer;
use crate::log::Shared;
use crate::segment::Segment;
use crate::segments::Summary;
use crate::stamp::Stamp;

pub(crate) use file::{
    TOPICS_SUFFIX, TOPICS_TEMPORARY, TopicsFile, Unusable, is_damaged, path, store,
};
pub(crate) use filter::Filter;
pub(crate) use index::{Place, TopicIndex};
pub use listing::{TopicSummary, Topics};
pub(crate) use listing::{count_of, last_of, remaining_of};
pub(crate) use merge::{Merge, Named, Part};
pub(crate) use tell::topics_in;
pub(crate) use waiters::{Registration, TopicListener, TopicWaiters};

/// The stamp of each producer's newest append in a sealed segment, with its offset less the base, as its
/// topics file has them; `None` where there is none that can be used.
pub(crate) fn stored_stamps(shared: &Shared, footer: &Footer) -> Option<Vec<(u32, Stamp)>> {
    let file = TopicsFile::open(&shared.disk, &shared.dir, footer).ok()?;
    file.producers().ok()
}

/// Asks the topics file of a segment, or where there is none that can be used, the segment itself.
pub(crate) fn ask<T>(
    shared: &Shared,
    summary: &Summary,
    of_file: impl FnOnce(&TopicsFile) -> Result<T, Unusable>,
    of_index: impl FnOnce(&TopicIndex, &Arc<Segment>) -> T,
) -> Result<T, ReadError> {
    if let Some(footer) = &summary.footer
        && let Ok(file) = TopicsFile::open(&shared.disk, &shared.dir, footer)
        && let Ok(answer) = of_file(&file)
    {
        return Ok(answer);
    }
    let segment = shared.segments.holding(summary.base)?;
    let mut is_whole = false;
    let answer = segment.with_topics(|index| {
        is_whole = !index.is_incomplete();
        of_index(index, &segment)
    });
    if is_whole && summary.footer.is_some() {
        // For the next one who asks.
        shared.order_index(&segment, true);
    }
    Ok(answer)
}
