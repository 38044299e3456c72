//! Putting compacted segments in the place of the old ones, on demand and in the background.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::Writer;
use super::keeper::Turn;
use crate::clock;
use crate::compaction::{self, CompactError, Compacted, Compaction, Pieces, SegmentPlan, Victim};
use crate::error::{ReadError, SyncError};
use crate::offset::Offset;
use crate::segment;
use crate::segment_builder::Built;
use crate::verify::Progress;

/// Segments are planned together for as long as they have no more topics than this between them: each
/// may take some hundred bytes in memory.
const PLANNED_TOPICS_MAX: u64 = 250_000;

impl Writer {
    /// Rewrites the sealed segments of which at least `wasted_percent` of the records can go. Is given up
    /// once the log is being closed.
    pub(crate) fn compact(
        &self,
        wasted_percent: u8,
        progress: impl FnMut(Progress),
    ) -> Result<Compacted, CompactError> {
        let mut go_on = |_| self.check_open();
        self.compact_in_pieces(wasted_percent, &mut Pieces::new(&mut go_on), progress)
    }

    fn check_open(&self) -> Result<(), CompactError> {
        match self.appender().closing {
            true => Err(SyncError::Closed.into()),
            false => Ok(()),
        }
    }

    /// As the options say. The retention is kept to meanwhile.
    pub(super) fn compact_in_background(
        &self,
        compaction: &Compaction,
    ) -> Result<Compacted, CompactError> {
        let mut pace = compaction.pace(clock::uptime());
        let mut go_on = |bytes| {
            let due = pace.due(bytes, clock::uptime());
            loop {
                match self.keeper.wait_until(due) {
                    Turn::Stopped => return Err(SyncError::Closed.into()),
                    Turn::Woken => self.retain_silently()?,
                    Turn::Due => return Ok(()),
                }
            }
        };
        let mut pieces = Pieces::new(&mut go_on);
        self.compact_in_pieces(compaction.wasted_percent, &mut pieces, |_| ())
    }

    fn compact_in_pieces(
        &self,
        wasted_percent: u8,
        pieces: &mut Pieces<'_>,
        progress: impl FnMut(Progress),
    ) -> Result<Compacted, CompactError> {
        let compacted = self.compact_in_turn(wasted_percent, pieces, progress);
        if let Err(CompactError::Refused(SyncError::Poisoned { .. })) = &compacted {
            // Without a lock: a waker is code of the caller's.
            self.shared.durable.wake();
        }
        compacted
    }

    fn compact_in_turn(
        &self,
        wasted_percent: u8,
        pieces: &mut Pieces<'_>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Compacted, CompactError> {
        let _turn = self
            .compacting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (shared, limits) = (&self.shared, &self.options.topic_limits);
        // What is not durable yet could be undone, and with it the deletion of what is removed.
        let until = shared.durable.get();
        let victims = compaction::survey(shared, limits, until, pieces)?;
        let is_worth = |victim: &&Victim| victim.is_wasted(wasted_percent);
        let victims: Vec<Victim> = victims.iter().filter(is_worth).copied().collect();
        let total_bytes = victims.iter().map(|victim| victim.file_bytes).sum();
        let (mut compacted, mut unreadable) = (Compacted::default(), None);
        let (mut checked_bytes, mut rest) = (0, &victims[..]);
        while !rest.is_empty() {
            let window = window(rest);
            let bases: BTreeSet<Offset> = window.iter().map(|victim| victim.base).collect();
            let plans = compaction::plan(shared, limits, until, &bases, pieces)?;
            for victim in window {
                let done = match plans.get(&victim.base) {
                    Some(plan) => self.compact_segment(victim.base, plan, pieces, &mut compacted),
                    None => Ok(()),
                };
                rest = &rest[1..];
                checked_bytes += victim.file_bytes;
                progress(Progress {
                    checked_bytes,
                    total_bytes,
                });
                match done {
                    Err(CompactError::Unreadable(error)) => {
                        unreadable.get_or_insert(error);
                        // The plan for those behind it counts on what is still there: a new one.
                        break;
                    }
                    done => done?,
                }
            }
        }
        unreadable.map_or(Ok(compacted), |error| Err(error.into()))
    }

    fn compact_segment(
        &self,
        base: Offset,
        plan: &SegmentPlan,
        pieces: &mut Pieces<'_>,
        compacted: &mut Compacted,
    ) -> Result<(), CompactError> {
        let _rewriting = self
            .rewriting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Once the log is closed, every name in its directory is the next writer's.
        self.check_open()?;
        let shared = &self.shared;
        let summary = shared.segments.summary_holding(base);
        let Some(summary) = summary.filter(|summary| summary.base == base) else {
            // Dropped meanwhile.
            return Ok(());
        };
        let footer = summary.footer.expect("only sealed ones are planned");
        let segment = match shared.segments.holding(base) {
            Err(ReadError::SegmentMissing { .. }) if base < shared.oldest() => return Ok(()),
            segment => segment?,
        };
        let rewritten = compaction::rewrite(shared, &segment, &footer, plan, pieces);
        let path = shared.dir.join(compaction::COMPACTED_TEMPORARY);
        let (built, records) = match rewritten {
            Ok(Some(rewritten)) => rewritten,
            Ok(None) => return Ok(()),
            Err(error) => {
                // Best effort: the next opening removes it as well.
                let _ = shared.disk.remove(&path);
                return Err(error);
            }
        };
        let bytes_after = built.file_bytes;
        if self.swap_in(base, built)? {
            compacted.segments += 1;
            compacted.records += records;
            compacted.bytes_before += summary.file_bytes;
            compacted.bytes_after += bytes_after;
        }
        Ok(())
    }

    /// Puts a rewritten segment in the old one's place; `false` where that one was dropped meanwhile.
    fn swap_in(&self, base: Offset, mut built: Built) -> Result<bool, CompactError> {
        let shared = &self.shared;
        // No segment is dropped meanwhile, and the log is not closed.
        let custody = self.custody.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = base >= shared.oldest();
        if custody.is_none() || !is_there {
            let _ = shared.disk.remove(built.file.path());
            return match is_there {
                true => Err(SyncError::Closed.into()),
                false => Ok(false),
            };
        }
        self.check_poison()?;
        built.file.rename(&segment::path(&shared.dir, base))?;
        let renamed = self.names.sync_names();
        if let Err(cause) = renamed {
            // Either file may be there after a power cut, and each will do; but what else the directory
            // was to keep is in doubt.
            let appender = self.appender();
            let refusal = self.poisoned(cause);
            drop(appender);
            return Err(refusal.into());
        }
        shared.segments.replace(built.file_bytes, built.footer);
        drop(custody);
        if let Ok(segment) = shared.segments.holding(base) {
            shared.order_index(&segment, true);
        }
        Ok(true)
    }

    /// Seals the segment that is appended to, if it holds a record, so that it can be compacted too.
    pub(crate) fn roll_now(&self) -> Result<(), CompactError> {
        let mut appender = self.appender();
        self.check_poison()?;
        if appender.closing {
            return Err(SyncError::Closed.into());
        }
        let next = appender.next;
        let holds_records = |base: Offset| base < next;
        let is_worth = appender
            .segment
            .as_ref()
            .is_some_and(|active| holds_records(active.segment().base()));
        if !is_worth {
            return Ok(());
        }
        self.roll(&mut appender, 0, next)
            .map_err(|refused| match refused {
                crate::AppendError::StorageFull { source } => CompactError::StorageFull { source },
                crate::AppendError::Prepare { source } => CompactError::Io(source),
                crate::AppendError::Poisoned { cause } => SyncError::Poisoned { cause }.into(),
                _ => SyncError::Closed.into(),
            })
    }
}

/// Those of the first victims that are planned together.
fn window(victims: &[Victim]) -> &[Victim] {
    let mut topics = 0;
    let is_too_much = |victim: &Victim| {
        topics += victim.topics;
        topics > PLANNED_TOPICS_MAX
    };
    let fit = victims.iter().position(is_too_much);
    &victims[..fit.map_or(victims.len(), |fit| fit.max(1))]
}
