//! Which records of which segments nobody needs any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{CompactError, Pieces, TopicLimits};
use crate::error::ReadError;
use crate::format::{Footer, Kind};
use crate::log::Shared;
use crate::offset::Offset;
use crate::segments::Summary;
use crate::topics::{Merge, Share};

/// What a segment holds that can go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    pub(crate) base: Offset,
    pub(crate) file_bytes: u64,
    /// Offsets that the segment stands for, those that are gone already included.
    pub(crate) span: u64,
    pub(crate) topics: u64,
    /// Records that can go.
    pub(crate) dead: u64,
}

impl Victim {
    /// Whether at least so many percent of the segment can go.
    pub(crate) fn is_wasted(&self, percent: u8) -> bool {
        u128::from(self.dead) * 100 >= u128::from(percent) * u128::from(self.span)
    }
}

/// What is to be left out of a segment, by topic.
#[derive(Debug, Default)]
pub(crate) struct SegmentPlan {
    dead: HashMap<Box<[u8]>, Dead>,
}

/// The records of a topic in a segment that can go.
#[derive(Clone, Copy, Debug)]
struct Dead {
    /// Those with a smaller offset, less the base.
    before: u32,
    /// But not its deletion: an older segment may still hold what that deletes.
    kept_deletion: Option<u32>,
    count: u64,
}

impl SegmentPlan {
    /// Whether a record can go.
    pub(crate) fn is_dead(&self, topic: &[u8], relative: u32) -> bool {
        let dead = self.dead.get(topic);
        dead.is_some_and(|dead| relative < dead.before && dead.kept_deletion != Some(relative))
    }
}

/// How many records of each sealed segment could go, if all were rewritten; those of which any can.
pub(crate) fn survey(
    shared: &Arc<Shared>,
    limits: &TopicLimits,
    until: Offset,
    pieces: &mut Pieces<'_>,
) -> Result<Vec<Victim>, CompactError> {
    let mut victims: BTreeMap<Offset, Victim> = BTreeMap::new();
    each_share(
        shared,
        limits,
        until,
        pieces,
        |_| true,
        |summary, footer, _, dead| {
            let victim = victims.entry(summary.base).or_insert(Victim {
                base: summary.base,
                file_bytes: summary.file_bytes,
                span: footer.next.since(footer.base),
                topics: 0,
                dead: 0,
            });
            victim.topics += 1;
            victim.dead += dead.map_or(0, |dead| dead.count);
        },
    )?;
    Ok(victims.into_values().filter(|v| v.dead > 0).collect())
}

/// What can go of the segments at these bases, if all of them are rewritten, oldest first.
pub(crate) fn plan(
    shared: &Arc<Shared>,
    limits: &TopicLimits,
    until: Offset,
    bases: &BTreeSet<Offset>,
    pieces: &mut Pieces<'_>,
) -> Result<BTreeMap<Offset, SegmentPlan>, CompactError> {
    let mut plans: BTreeMap<Offset, SegmentPlan> = BTreeMap::new();
    let is_victim = |base: Offset| bases.contains(&base);
    each_share(
        shared,
        limits,
        until,
        pieces,
        is_victim,
        |summary, _, name, dead| {
            if let Some(dead) = dead {
                plans
                    .entry(summary.base)
                    .or_default()
                    .dead
                    .insert(name.into(), dead);
            }
        },
    )?;
    Ok(plans)
}

/// Goes through the topics of all segments, and says of each victim's share in each topic what can go.
/// Segments that end behind `until` are no victims; what lies behind it counts for nothing, since a
/// power cut may undo it.
fn each_share(
    shared: &Arc<Shared>,
    limits: &TopicLimits,
    until: Offset,
    pieces: &mut Pieces<'_>,
    is_victim: impl Fn(Offset) -> bool,
    mut tell: impl FnMut(&Summary, &Footer, &[u8], Option<Dead>),
) -> Result<(), CompactError> {
    let mut merge = Merge::new(shared, b"")?;
    let segments = merge.segments().to_vec();
    let victim = |segment: usize| {
        let footer = segments[segment].footer.as_ref()?;
        (footer.next <= until && is_victim(footer.base)).then_some(footer)
    };
    let is_durable =
        |segment: usize, relative: u32| segments[segment].base.plus(relative.into()) < until;
    // A limit takes no record that is held. A deletion does: it was asked for.
    let hold = shared.holds.lowest();
    let is_free = |segment: usize, relative: u32| {
        let offset = segments[segment].base.plus(relative.into());
        hold.as_ref().is_none_or(|hold| offset < hold.offset)
    };
    while let Some(named) = merge.next()? {
        let shares = &named.shares;
        let deleted_in = shares.iter().rposition(|(segment, share)| {
            let deletion = share.deletion;
            deletion.is_some_and(|deletion| is_durable(*segment, deletion))
        });
        // A topics file is derived, and no record goes on its word alone.
        if let Some(at) = deleted_in
            && let (
                segment,
                Share {
                    deletion: Some(deletion),
                    ..
                },
            ) = &shares[at]
            && !is_there(
                shared,
                &segments[*segment],
                *deletion,
                Kind::Deletion,
                &named.name,
            )?
        {
            continue;
        }
        let limit = limits.of(&named.name);
        let mut left = limit.unwrap_or(u64::MAX);
        // Newest first, as the limit counts.
        for (i, &(segment, ref share)) in shares.iter().enumerate().rev() {
            // About as many as they take in the topics files.
            pieces.count(share.name.len() + share.records.len() * size_of::<u32>())?;
            let is_over = deleted_in.is_some_and(|deleted_in| i < deleted_in);
            let durable = share
                .records
                .partition_point(|&one| is_durable(segment, one));
            let kept = match is_over {
                true => 0,
                false => {
                    let free = share.records.partition_point(|&one| is_free(segment, one));
                    left.min(durable as u64)
                        .max(durable.saturating_sub(free) as u64)
                }
            };
            left = left.saturating_sub(kept);
            if limit.is_some()
                && let Some(oldest_kept) = (durable as u64).checked_sub(kept)
                && let Some(&kept) = share.records.get(usize::try_from(oldest_kept).unwrap_or(0))
                && !is_there(shared, &segments[segment], kept, Kind::Record, &named.name)?
            {
                break;
            }
            if let Some(footer) = victim(segment) {
                // A deletion goes once all that it deletes does.
                let mut older = shares[..i].iter();
                let goes = is_over || older.all(|&(older, _)| victim(older).is_some());
                let dead = dead_of(share, kept, goes);
                tell(&segments[segment], footer, &named.name, dead);
            }
        }
    }
    Ok(())
}

/// Whether the log holds what a topics file says that it does. If not, the file is written anew, and
/// the next compaction has the truth.
fn is_there(
    shared: &Shared,
    summary: &Summary,
    relative: u32,
    kind: Kind,
    topic: &[u8],
) -> Result<bool, ReadError> {
    let segment = match shared.segments.holding(summary.base) {
        // Dropped meanwhile.
        Err(ReadError::SegmentMissing { .. }) if summary.base < shared.oldest() => {
            return Ok(false);
        }
        segment => segment?,
    };
    let is_there = segment.holds(&shared.disk, relative, kind, topic);
    if !is_there && summary.footer.is_some() {
        shared.order_index(&segment, true);
    }
    Ok(is_there)
}

/// What can go of a share of which the last `kept` records stay.
fn dead_of(share: &Share, kept: u64, deletion_goes: bool) -> Option<Dead> {
    let kept = usize::try_from(kept).expect("no more than there are");
    let dead = share.records.len() - kept;
    let deletions = usize::from(share.deletion.is_some() && deletion_goes);
    let behind = |relative: &u32| relative.saturating_add(1);
    let before = match share.records.get(dead.wrapping_sub(1)) {
        Some(last) => behind(last),
        None => share.deletion.as_ref().map_or(0, behind),
    };
    let count = dead as u64 + u64::from(share.dropped) + deletions as u64;
    (count > 0).then_some(Dead {
        before,
        kept_deletion: share.deletion.filter(|_| !deletion_goes),
        count,
    })
}
