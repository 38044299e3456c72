//! What the commands say about damage and gaps, as text and as JSON, and how far a check has come.

use std::ops::Range;

use console::style;
use dacapo_log::{Corruption, Offset, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::figures;

/// Shown on a terminal only.
pub(crate) fn progress_bar() -> ProgressBar {
    ProgressBar::no_length().with_style(
        ProgressStyle::with_template("{bar:25} {bytes} of {total_bytes}, {bytes_per_sec}, {eta}")
            .expect("the template is well-formed"),
    )
}

pub(crate) fn advance(bar: &ProgressBar, done: Progress) {
    bar.set_length(done.total_bytes);
    bar.set_position(done.checked_bytes);
}

/// Part of the face of a command: described in its `--help`.
#[derive(Serialize)]
pub(crate) struct DamageObject {
    path: String,
    position: u64,
    offset: Option<u64>,
    message: String,
}

impl DamageObject {
    pub(crate) fn new(damage: &Corruption) -> Self {
        Self {
            path: damage.path.display().to_string(),
            position: damage.position,
            offset: damage.offset.map(|offset| offset.get()),
            message: damage.damage.to_string(),
        }
    }
}

/// Offsets; as [`DamageObject`], part of the face of a command.
#[derive(Serialize)]
pub(crate) struct RangeObject {
    from: u64,
    to: u64,
}

impl RangeObject {
    pub(crate) fn new(range: &Range<Offset>) -> Self {
        Self {
            from: range.start.get(),
            to: range.end.get(),
        }
    }
}

/// A line for each damaged place.
pub(crate) fn lines(damages: &[Corruption]) -> Vec<String> {
    let damaged = style("damaged").red();
    damages
        .iter()
        .map(|damage| format!("{damaged}: {damage}"))
        .collect()
}

/// "lost: record 17", "lost: 4 records, 17 to 20".
pub(crate) fn lost(lost: &Range<Offset>) -> String {
    match count(lost) {
        1 => format!("lost: record {}", lost.start),
        records => format!("lost: {}, {}", figures::records(records), span(lost)),
    }
}

/// How many gaps a person is shown.
const SPANS_MAX: usize = 8;

/// "4 records were lost before a repair: 17 to 20"; nothing where there is no gap.
pub(crate) fn gaps(gaps: &[Range<Offset>]) -> Option<String> {
    let records = gaps.iter().map(count).sum();
    let were = match records {
        0 => return None,
        1 => "was",
        _ => "were",
    };
    let mut spans: Vec<String> = gaps.iter().take(SPANS_MAX).map(span).collect();
    if let Some(more) = gaps.len().checked_sub(SPANS_MAX + 1) {
        spans.push(format!("and {} more; --json has all", more + 1));
    }
    let (records, spans) = (figures::records(records), spans.join(", "));
    Some(format!("{records} {were} lost before a repair: {spans}"))
}

/// How many records a range stands for.
pub(crate) fn count(range: &Range<Offset>) -> u64 {
    range.end.since(range.start)
}

/// "17", "17 to 20".
fn span(range: &Range<Offset>) -> String {
    match count(range) {
        1 => range.start.to_string(),
        _ => format!("{} to {}", range.start, range.end.get() - 1),
    }
}
