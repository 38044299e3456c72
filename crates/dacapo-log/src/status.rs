//! What a log holds and how it was last opened, as figures.

use std::ops::Range;
use std::time::Duration;

use crate::compaction::CompactError;
use crate::error::ReadError;
use crate::format;
use crate::holds::HoldStatus;
use crate::lock;
use crate::log::Shared;
use crate::meta;
use crate::offset::{Epoch, Offset, Start};
use crate::options::WritePath;
use crate::reader::Reader;
use crate::segments::Summary;

/// A log's figures, as of one moment; made by [`Log::status`](crate::Log::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Segment files.
    pub segments: usize,
    /// Their size together, unused space included.
    pub file_bytes: u64,
    /// The oldest record's offset, or that of the first one to come.
    pub oldest: Offset,
    /// Records from [`oldest`](Self::oldest) on that are not there, because they were lost before a
    /// [`repair`](crate::repair()).
    pub gaps: Vec<Range<Offset>>,
    /// The offset of the next append.
    pub next: Offset,
    /// All records before this are safe from power loss, as far as the log says.
    pub durable: Offset,
    /// When the oldest record that is there was appended, in microseconds since the Unix epoch.
    pub oldest_timestamp_micros: Option<u64>,
    /// When the newest record that is there was appended, in microseconds since the Unix epoch.
    pub newest_timestamp_micros: Option<u64>,
    /// Drawn when the log was created.
    pub log_id: u128,
    /// The version of the on-disk format.
    pub format_version: u32,
    /// The epochs that `meta` remembers, oldest first; the last one is the current.
    pub epochs: Vec<EpochStatus>,
    /// How this handle writes; `None` where it is read-only.
    pub writes: Option<WritePath>,
    /// The log was closed, and not opened for writing since. `false` while a writer is at work,
    /// and after a crash.
    pub clean: bool,
    /// The process that has the log open for writing now.
    pub writer_pid: Option<u32>,
    /// What keeps old records from being dropped, the lowest first: the holds that were taken of
    /// this opening of the log.
    pub holds: Vec<HoldStatus>,
    /// Why the last [compaction in the background](crate::Options::compaction) was given up, or has left
    /// segments as they are; `None` where it has done what it was to do, and of a log that another
    /// process writes. The log itself is well, and nothing is lost.
    pub compaction_failure: Option<CompactError>,
}

/// One epoch of a log, and the recovery that began it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EpochStatus {
    /// Its number.
    pub epoch: Epoch,
    /// Its first record. Records of earlier epochs from here on were undone by a crash.
    pub start: Offset,
    /// When it began, in microseconds since the Unix epoch.
    pub opened_micros: u64,
    /// How long recovery took; zero for a new log.
    pub recovery: Duration,
    /// Torn bytes behind the last whole record, which recovery cut off.
    pub cut_bytes: u64,
}

impl Status {
    pub(crate) fn of(
        shared: &std::sync::Arc<Shared>,
        writes: Option<WritePath>,
        compaction_failure: Option<CompactError>,
    ) -> Result<Self, ReadError> {
        // Damage at the end is met by whoever reads it.
        let _ = shared.refresh();
        let summaries = shared.segments.summaries();
        let (oldest, next) = (shared.oldest(), shared.visible.get());
        let timestamp_of = |offset: Offset| {
            let mut reader = Reader::new(
                std::sync::Arc::clone(shared),
                shared.resolve(Start::At(offset)).ok()?,
            );
            let read = reader.advance(next).ok()?;
            read.then(|| reader.record_ref().timestamp_micros())
        };
        let gaps = gaps(shared, &summaries, oldest);
        // What lies before the gap, or gaps, that the log may end with; and behind a first one.
        let end = gaps
            .iter()
            .rev()
            .fold(next, |end, gap| match gap.end == end {
                true => gap.start,
                false => end,
            });
        let start = gaps
            .iter()
            .fold(oldest, |start, gap| match gap.start <= start {
                true => start.max(gap.end),
                false => start,
            });
        let newest = end
            .get()
            .checked_sub(1)
            .map(Offset::new)
            .filter(|&newest| newest >= start);
        let loaded = meta::load(&shared.disk, &shared.dir).ok().flatten();
        let epochs = loaded
            .as_ref()
            .map_or(shared.epochs().clone(), |loaded| loaded.meta.epochs.clone());
        Ok(Self {
            segments: summaries.len(),
            file_bytes: summaries.iter().map(|summary| summary.file_bytes).sum(),
            oldest,
            gaps,
            next,
            durable: shared.durable.get(),
            oldest_timestamp_micros: timestamp_of(start),
            newest_timestamp_micros: newest.and_then(timestamp_of),
            log_id: shared.log_id,
            format_version: format::FORMAT_VERSION,
            epochs: epochs.iter().map(EpochStatus::from).collect(),
            writes,
            clean: loaded
                .as_ref()
                .is_some_and(|loaded| loaded.meta.clean.is_some()),
            writer_pid: lock::writer_pid(&shared.disk, &shared.dir),
            holds: shared.holds.list(),
            compaction_failure,
        })
    }
}

/// The gaps in the segments whose footers tell of some. What cannot be read is left out.
fn gaps(shared: &Shared, summaries: &[Summary], oldest: Offset) -> Vec<Range<Offset>> {
    let has_gaps = |summary: &&Summary| summary.footer.as_ref().is_some_and(|f| f.gaps > 0);
    summaries
        .iter()
        .filter(has_gaps)
        .filter_map(|summary| shared.segments.holding(summary.base).ok())
        .flat_map(|segment| segment.gaps())
        .filter(|gap| gap.start >= oldest)
        .collect()
}

impl From<&format::EpochStart> for EpochStatus {
    fn from(epoch: &format::EpochStart) -> Self {
        Self {
            epoch: epoch.epoch,
            start: epoch.start,
            opened_micros: epoch.opened_micros,
            recovery: Duration::from_micros(epoch.recovery_micros.into()),
            cut_bytes: epoch.cut_bytes.into(),
        }
    }
}
