//! What may be dropped: which of the oldest segments a rule gives up, and what keeps one that is to
//! go.
//!
//! Pure functions of what is known of the segments. Dropping is the writer's, in `writer/prune.rs`.

use std::time::Duration;

use crate::clock;
use crate::error::ReadError;
use crate::holds::HoldStatus;
use crate::log::Shared;
use crate::offset::Offset;
use crate::segments::Summary;

/// What of a log is kept: a record goes once any of the limits leaves it out. Without a limit,
/// everything is kept.
///
/// Only whole segment files are dropped, and the newest one never: the log holds more than the
/// limits of age and number say, by up to a segment.
///
/// ```
/// use std::time::Duration;
/// use dacapo_log::Retention;
///
/// let a_week_but_no_more_than_10_gib = Retention::default()
///     .age_max(Duration::from_secs(7 * 24 * 3600))
///     .bytes_max(10 << 30);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a retention does nothing by itself"]
pub struct Retention {
    bytes_max: Option<u64>,
    age_max: Option<Duration>,
    records_max: Option<u64>,
}

impl Retention {
    /// So many bytes of segment files, unused space included: the oldest segments go until the others
    /// fit. The newest segment, and what a hold keeps, can be more.
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// Records that were appended at most this long ago, by the system's clock. A segment goes when
    /// its last record is older.
    pub fn age_max(mut self, age: Duration) -> Self {
        self.age_max = Some(age);
        self
    }

    /// The newest so many records, counted by their offsets. A segment goes when so many records are
    /// behind it.
    pub fn records_max(mut self, records: u64) -> Self {
        self.records_max = Some(records);
        self
    }

    pub(crate) fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn age(&self) -> Option<Duration> {
        self.age_max
    }
}

/// What a prune has dropped, or would drop; from [`Log::prune`](crate::Log::prune),
/// [`Log::retain`](crate::Log::retain) and those that only look.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruning {
    /// The oldest record that is left, or the first one to come.
    pub oldest: Offset,
    /// How many segment files were dropped.
    pub segments: usize,
    /// How many records were in them; gaps count as the records that they stand for.
    pub records: u64,
    /// How long the files were together.
    pub file_bytes: u64,
    /// Why records are left that were to be dropped; `None` if there are none.
    pub kept: Option<Kept>,
}

impl Pruning {
    /// Nothing is to be dropped of a log that begins at `oldest`.
    pub(crate) fn none(oldest: Offset) -> Self {
        Self {
            oldest,
            segments: 0,
            records: 0,
            file_bytes: 0,
            kept: None,
        }
    }
}

/// Why a prune has left records that were to be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// They share their segment with records that stay: only whole files are dropped.
    Segment {
        /// The offset behind the segment.
        end: Offset,
    },
    /// A hold keeps them.
    Held(HoldStatus),
    /// They are, or share their segment with records that are, not safe from power loss yet.
    NotDurable {
        /// The first record that is not.
        durable: Offset,
    },
    /// They are in the newest segment, which always stays.
    Newest,
}

/// What is to be dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule<'a> {
    /// Records before this one.
    Before(Offset),
    /// Records that this one does not keep.
    Retention(&'a Retention),
}

/// What no rule goes beyond.
#[derive(Debug)]
struct Bounds<'a> {
    next: Offset,
    durable: Offset,
    lowest_hold: Option<&'a HoldStatus>,
}

impl Shared {
    /// What a prune by this rule has to drop now.
    pub(crate) fn plan_pruning(&self, rule: Rule<'_>, lowest_hold: Option<&HoldStatus>) -> Pruning {
        let oldest = self.oldest();
        // Before the look at the segments: what is appended meanwhile is newer than all of it.
        let bounds = Bounds {
            next: self.visible.get(),
            durable: self.durable.get(),
            lowest_hold,
        };
        let mut segments = self.segments.summaries();
        // In a read-only log, those that the writing process has dropped.
        segments.retain(|segment| segment.base >= oldest);
        let before = match rule {
            Rule::Before(before) => before,
            Rule::Retention(retention) => {
                expired(&segments, bounds.next, clock::now_micros(), retention)
            }
        };
        plan(&segments, oldest, before, &bounds)
    }

    /// What a prune by this rule would drop, if it came now.
    pub(crate) fn would_prune(&self, rule: Rule<'_>) -> Result<Pruning, ReadError> {
        self.refresh()?;
        self.refresh_oldest();
        Ok(self.plan_pruning(rule, self.holds.lowest().as_ref()))
    }
}

/// The offset before which nothing is kept by `retention`: where the first segment begins of which it
/// keeps a record, or `next` if there is none.
fn expired(segments: &[Summary], next: Offset, now_micros: u64, retention: &Retention) -> Offset {
    let expired_before = retention.age_max.map(|age| {
        let age_micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
        now_micros.saturating_sub(age_micros)
    });
    let mut bytes_left: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
    for segment in segments {
        let footer = segment.footer.as_ref();
        let end = footer.map_or(next, |footer| footer.next);
        let is_old = expired_before
            .zip(footer)
            .is_some_and(|(before, footer)| footer.last_timestamp_micros < before);
        let is_too_much = retention.bytes_max.is_some_and(|max| bytes_left > max);
        let is_left_out = retention
            .records_max
            .is_some_and(|max| next.since(end) >= max);
        if !(is_old || is_too_much || is_left_out) {
            return segment.base;
        }
        bytes_left -= segment.file_bytes;
    }
    next
}

/// Which of the oldest segments go, so that what lies before `before` is dropped as far as it can be.
fn plan(segments: &[Summary], oldest: Offset, before: Offset, bounds: &Bounds<'_>) -> Pruning {
    let mut pruning = Pruning::none(oldest);
    // The last one that holds a record.
    let newest = segments
        .iter()
        .map(|segment| segment.base)
        .rfind(|&base| base < bounds.next);
    for segment in segments.iter().take_while(|segment| segment.base < before) {
        match droppable(segment, newest, before, bounds) {
            Ok(end) => {
                pruning.segments += 1;
                pruning.records += end.since(segment.base);
                pruning.file_bytes += segment.file_bytes;
                pruning.oldest = end;
            }
            Err(kept) => {
                pruning.kept = Some(kept);
                break;
            }
        }
    }
    pruning
}

/// The offset behind a segment that can go, or why it stays.
fn droppable(
    segment: &Summary,
    newest: Option<Offset>,
    before: Offset,
    bounds: &Bounds<'_>,
) -> Result<Offset, Kept> {
    let older = newest.is_some_and(|newest| segment.base < newest);
    let Some(footer) = segment.footer.as_ref().filter(|_| older) else {
        return Err(Kept::Newest);
    };
    let (end, durable) = (footer.next, bounds.durable);
    if end > before {
        return Err(Kept::Segment { end });
    }
    if let Some(hold) = bounds.lowest_hold.filter(|hold| hold.offset < end) {
        return Err(Kept::Held(hold.clone()));
    }
    // A power cut must not leave a log that ends before it begins.
    if end > durable {
        return Err(Kept::NotDurable { durable });
    }
    Ok(end)
}

#[cfg(all(test, not(any(simulation, loom))))]
mod tests {
    use super::*;
    use crate::format::Footer;
    use crate::offset::Epoch;

    /// Segments of 10 records and 100 bytes, the last one growing: 30 records, the last of segment
    /// `i` appended at `1000 * (i + 1)`.
    fn segments() -> Vec<Summary> {
        let segment = |i: u64| Summary {
            base: Offset::new(10 * i),
            file_bytes: 100,
            footer: (i < 3).then(|| Footer {
                base: Offset::new(10 * i),
                next: Offset::new(10 * (i + 1)),
                end_position: 0,
                nonce: 0,
                first_timestamp_micros: 1000 * i,
                last_timestamp_micros: 1000 * (i + 1),
                epoch: Epoch::FIRST,
                gaps: 0,
            }),
            is_without_deletions: false,
        };
        (0..4).map(segment).collect()
    }

    const NEXT: Offset = Offset::new(35);

    fn expired_by(retention: Retention, now_micros: u64) -> u64 {
        expired(&segments(), NEXT, now_micros, &retention).get()
    }

    #[test]
    fn without_a_limit_nothing_expires() {
        assert_eq!(expired_by(Retention::default(), u64::MAX), 0);
        assert_eq!(expired(&[], NEXT, 0, &Retention::default()), NEXT);
    }

    #[test]
    fn the_oldest_segments_expire_until_the_others_fit() {
        let by = |bytes| expired_by(Retention::default().bytes_max(bytes), 0);
        assert_eq!([by(400), by(399), by(300), by(299)], [0, 10, 10, 20]);
        assert_eq!([by(100), by(99), by(0)], [30, 35, 35]);
    }

    #[test]
    fn a_segment_expires_once_its_last_record_is_too_old() {
        let age = Retention::default().age_max(Duration::from_micros(500));
        let at = |now| expired_by(age, now);
        assert_eq!([at(0), at(1500), at(1501), at(2501)], [0, 0, 10, 20]);
        assert_eq!(
            at(u64::MAX),
            30,
            "how old a growing segment is, nobody knows"
        );
        let ages = Retention::default().age_max(Duration::MAX);
        assert_eq!(expired_by(ages, u64::MAX), 0);
    }

    #[test]
    fn the_newest_records_do_not_expire() {
        let by = |records| expired_by(Retention::default().records_max(records), 0);
        assert_eq!([by(35), by(26), by(25), by(15), by(6)], [0, 0, 10, 20, 20]);
        assert_eq!([by(5), by(1), by(0)], [30, 30, 35]);
        assert_eq!(by(u64::MAX), 0);
    }

    #[test]
    fn of_several_limits_the_narrowest_counts() {
        let retention = Retention::default()
            .bytes_max(300)
            .age_max(Duration::from_micros(500))
            .records_max(35);
        assert_eq!(expired_by(retention, 0), 10);
        assert_eq!(expired_by(retention, 2501), 20);
        assert_eq!(expired_by(retention.records_max(5), 2501), 30);
    }

    fn hold(offset: u64) -> HoldStatus {
        HoldStatus {
            name: "backup".to_owned(),
            offset: Offset::new(offset),
        }
    }

    /// How far it goes, and what stops it.
    fn planned(before: u64, durable: u64, hold: Option<&HoldStatus>) -> (u64, Option<Kept>) {
        let bounds = Bounds {
            next: NEXT,
            durable: Offset::new(durable),
            lowest_hold: hold,
        };
        let pruning = plan(&segments(), Offset::ZERO, Offset::new(before), &bounds);
        let dropped = pruning.segments as u64;
        assert_eq!(pruning.records, 10 * dropped);
        assert_eq!(pruning.file_bytes, 100 * dropped);
        (pruning.oldest.get(), pruning.kept)
    }

    #[test]
    fn whole_segments_are_dropped_and_the_newest_stays() {
        let end = |end| {
            Some(Kept::Segment {
                end: Offset::new(end),
            })
        };
        assert_eq!(planned(0, 35, None), (0, None));
        assert_eq!(planned(9, 35, None), (0, end(10)));
        assert_eq!(planned(10, 35, None), (10, None));
        assert_eq!(planned(11, 35, None), (10, end(20)));
        assert_eq!(planned(30, 35, None), (30, None));
        for before in [31, 35, 1000] {
            assert_eq!(planned(before, 35, None), (30, Some(Kept::Newest)));
        }
    }

    #[test]
    fn the_newest_segment_with_a_record_stays_if_the_one_behind_is_empty() {
        let bounds = Bounds {
            next: Offset::new(30),
            durable: Offset::new(30),
            lowest_hold: None,
        };
        let pruning = plan(&segments(), Offset::ZERO, Offset::new(30), &bounds);
        assert_eq!(pruning.oldest, Offset::new(20));
        assert_eq!(pruning.kept, Some(Kept::Newest));
    }

    #[test]
    fn what_is_not_durable_stays() {
        let durable = Offset::new(19);
        let kept = Some(Kept::NotDurable { durable });
        assert_eq!(planned(30, 19, None), (10, kept));
        assert_eq!(planned(30, 20, None).0, 20);
    }

    #[test]
    fn what_is_held_stays() {
        for (offset, oldest) in [(0, 0), (9, 0), (10, 10), (29, 20)] {
            let hold = hold(offset);
            let kept = Some(Kept::Held(hold.clone()));
            assert_eq!(planned(30, 35, Some(&hold)), (oldest, kept));
        }
        assert_eq!(planned(30, 35, Some(&hold(30))), (30, None));
    }
}
