//! Which records of which segments nobody needs any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{CompactError, Pieces, TopicLimits};
use crate::error::ReadError;
use crate::format::{Kind, Share};
use crate::log::Shared;
use crate::offset::Offset;
use crate::segments::Summary;
use crate::topics::{Merge, Named, Part};

/// What a segment holds that can go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim {
    pub(crate) base: Offset,
    pub(crate) file_bytes: u64,
    pub(crate) topics: u64,
    /// Records that it has, of topics or of none, deletions included.
    pub(crate) records: u64,
    /// Those of them that can go.
    pub(crate) dead: u64,
}

impl Victim {
    /// Whether at least so many percent of the records can go.
    pub(crate) fn is_wasted(&self, percent: u8) -> bool {
        u128::from(self.dead) * 100 >= u128::from(percent) * u128::from(self.records)
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

/// How many records of each sealed segment could go, if all were rewritten; those of which any can. By
/// what the topics files say: [`plan`], on which somebody acts, looks at the records.
pub(crate) fn survey(
    shared: &Arc<Shared>,
    limits: &TopicLimits,
    until: Offset,
    pieces: &mut Pieces<'_>,
) -> Result<Vec<Victim>, CompactError> {
    let mut victims: BTreeMap<Offset, Victim> = BTreeMap::new();
    each_part(shared, limits, until, pieces, Aim::Survey, |told| {
        let victim = victims.entry(told.summary.base).or_insert(Victim {
            base: told.summary.base,
            file_bytes: told.summary.file_bytes,
            topics: 0,
            records: told.records,
            dead: 0,
        });
        victim.topics += 1;
        victim.dead += told.dead.map_or(0, |dead| dead.count);
    })?;
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
    each_part(shared, limits, until, pieces, Aim::Act(bases), |told| {
        if let Some(dead) = told.dead {
            let plan = plans.entry(told.summary.base).or_default();
            plan.dead.insert(told.name.into(), dead);
        }
    })?;
    Ok(plans)
}

/// What the topics are gone through for.
#[derive(Clone, Copy)]
enum Aim<'a> {
    /// To count, in all segments.
    Survey,
    /// To remove from the segments at these bases: no record goes on the word of a topics file alone, since
    /// that is derived.
    Act(&'a BTreeSet<Offset>),
}

impl Aim<'_> {
    fn is_at(self, base: Offset) -> bool {
        match self {
            Self::Survey => true,
            Self::Act(bases) => bases.contains(&base),
        }
    }

    fn acts(self) -> bool {
        matches!(self, Self::Act(_))
    }
}

/// What can go of a victim's part in a topic.
struct Told<'a> {
    summary: &'a Summary,
    /// How many the segment has.
    records: u64,
    name: &'a [u8],
    dead: Option<Dead>,
}

/// Goes through the topics of all segments, and says of each victim's part in each topic what can go.
/// Segments that end behind `until` are no victims; what lies behind it counts for nothing, since a
/// power cut may undo it.
fn each_part(
    shared: &Arc<Shared>,
    limits: &TopicLimits,
    until: Offset,
    pieces: &mut Pieces<'_>,
    aim: Aim<'_>,
    mut tell: impl FnMut(&Told<'_>),
) -> Result<(), CompactError> {
    let mut merge = Merge::new(shared, b"")?;
    let segments = merge.segments().to_vec();
    let records: Vec<u64> = (0..segments.len()).map(|i| merge.records_in(i)).collect();
    let victim = |part: &Part| {
        let footer = segments[part.segment].footer.as_ref();
        footer.filter(|footer| footer.next <= until && aim.is_at(footer.base))
    };
    let hold = shared.holds.lowest().map(|hold| hold.offset);
    while let Some(Named { name, parts }) = merge.next()? {
        // About as many as they take in the topics files.
        pieces.count(parts.len() * (name.len() + size_of::<Share>()))?;
        if parts.iter().all(|part| victim(part).is_none()) {
            continue;
        }
        let deletion_of = |part: &Part| {
            let deletion = part.share.deletion?;
            let offset = segments[part.segment].base.plus(deletion.into());
            (offset < until).then_some(deletion)
        };
        let deleted_in = parts.iter().rposition(|part| deletion_of(part).is_some());
        if aim.acts()
            && let Some(part) = deleted_in.map(|at| &parts[at])
            && let Some(deletion) = deletion_of(part)
            && !is_there(
                shared,
                &segments[part.segment],
                deletion,
                Kind::Deletion,
                &name,
            )?
        {
            continue;
        }
        let limit = limits.of(&name);
        let mut left = limit.unwrap_or(u64::MAX);
        // Newest first, as the limit counts. Where this ends early, what is older stays, and the deletion
        // too: of what is before that, nothing is looked up.
        for (i, part) in parts.iter().enumerate().rev() {
            let summary = &segments[part.segment];
            let is_over = deleted_in.is_some_and(|deleted_in| i < deleted_in);
            let kept = match is_over {
                true => Some(Kept::default()),
                false => {
                    let mut lookup = Lookup::new(&mut merge, summary.base, &name, part);
                    let kept = lookup.kept(left, until, hold)?;
                    pieces.count(lookup.read_bytes())?;
                    kept
                }
            };
            let Some(kept) = kept else {
                break;
            };
            left = left.saturating_sub(kept.count);
            if aim.acts()
                && limit.is_some()
                && let Some(oldest) = kept.oldest
                && !is_there(shared, summary, oldest, Kind::Record, &name)?
            {
                break;
            }
            if victim(part).is_some() {
                // A deletion goes once all that it deletes does.
                let goes = is_over || parts[..i].iter().all(|older| victim(older).is_some());
                tell(&Told {
                    summary,
                    records: records[part.segment],
                    name: &name,
                    dead: dead_of(&part.share, kept, goes),
                });
            }
        }
    }
    Ok(())
}

/// The newest records of a part, which stay.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    count: u64,
    oldest: Option<u32>,
}

/// The records of a part, which are read once that is needed.
struct Lookup<'a> {
    merge: &'a mut Merge,
    base: Offset,
    name: &'a [u8],
    part: &'a Part,
    records: Option<Vec<u32>>,
}

impl<'a> Lookup<'a> {
    fn new(merge: &'a mut Merge, base: Offset, name: &'a [u8], part: &'a Part) -> Self {
        Self {
            merge,
            base,
            name,
            part,
            records: None,
        }
    }

    /// Those that stay of the ones before `until`: the newest `left`, and all that are held, since a
    /// limit takes none of these. (A deletion does: it was asked for.) `None` where they cannot be read.
    fn kept(
        &mut self,
        left: u64,
        until: Offset,
        hold: Option<Offset>,
    ) -> Result<Option<Kept>, ReadError> {
        let Some(durable) = self.count_before(until)? else {
            return Ok(None);
        };
        let mut count = left.min(durable);
        if let Some(hold) = hold.filter(|_| count < durable) {
            let Some(free) = self.count_before(hold)? else {
                return Ok(None);
            };
            count = count.max(durable.saturating_sub(free));
        }
        if count == 0 {
            return Ok(Some(Kept::default()));
        }
        let oldest = self.record(durable - count)?;
        Ok(oldest.map(|oldest| Kept {
            count,
            oldest: Some(oldest),
        }))
    }

    /// How many of them are before an offset.
    fn count_before(&mut self, offset: Offset) -> Result<Option<u64>, ReadError> {
        let share = &self.part.share;
        let relative = u32::try_from(offset.since(self.base)).unwrap_or(u32::MAX);
        if share.count == 0 || share.last < relative {
            return Ok(Some(share.count.into()));
        }
        if share.first >= relative {
            return Ok(Some(0));
        }
        let before = |records: &Vec<u32>| records.partition_point(|&one| one < relative) as u64;
        Ok(self.records()?.map(before))
    }

    /// The one that so many others precede.
    fn record(&mut self, others: u64) -> Result<Option<u32>, ReadError> {
        let share = &self.part.share;
        match others {
            0 => Ok(Some(share.first)),
            _ if others + 1 == u64::from(share.count) => Ok(Some(share.last)),
            _ => {
                let at = usize::try_from(others).expect("they are in memory");
                Ok(self.records()?.map(|records| records[at]))
            }
        }
    }

    fn records(&mut self) -> Result<Option<&Vec<u32>>, ReadError> {
        if self.records.is_none() {
            self.records = self.merge.records_of(self.name, self.part)?;
        }
        Ok(self.records.as_ref())
    }

    /// About as many bytes as were read.
    fn read_bytes(&self) -> usize {
        2 * self.records.as_ref().map_or(0, Vec::len)
    }
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

/// What can go of a share of which the last records stay.
fn dead_of(share: &Share, kept: Kept, deletion_goes: bool) -> Option<Dead> {
    let behind = |relative: u32| relative.saturating_add(1);
    let deletions = u64::from(share.deletion.is_some() && deletion_goes);
    let count = u64::from(share.count) - kept.count + u64::from(share.dropped) + deletions;
    (count > 0).then_some(Dead {
        before: kept
            .oldest
            .unwrap_or_else(|| share.newest().map_or(0, behind)),
        kept_deletion: share.deletion.filter(|_| !deletion_goes),
        count,
    })
}
