//! What a backup is to hold: which segments whole, and how much of the last one.

use std::sync::Arc;

use crate::error::{BackupError, Corruption, Damage, ReadError};
use crate::format::{self, CleanEnd, EpochStart, Footer, IndexPoint, Meta, SegmentHeader};
use crate::log::Shared;
use crate::meta::{self, META_FILE};
use crate::offset::Offset;
use crate::scan;
use crate::segment::Segment;

pub(super) struct Plan {
    pub(super) log_id: u128,
    epochs: Vec<EpochStart>,
    pub(super) oldest: Offset,
    /// Behind the last record that is durable, and in the backup.
    pub(super) next: Offset,
    pub(super) not_durable: u64,
    /// Segments that are taken as they are, oldest first. A durable record follows each of them, so that
    /// nobody writes to them any more, a recovery included.
    pub(super) whole: Vec<Whole>,
    /// The segment that holds the last durable record. Never shared: a recovery may write to it.
    pub(super) tail: Option<Tail>,
}

/// A sealed segment of the log.
pub(super) struct Whole {
    pub(super) footer: Footer,
    pub(super) file_bytes: u64,
}

/// The durable beginning of a segment.
pub(super) struct Tail {
    segment: Arc<Segment>,
    pub(super) header: SegmentHeader,
    /// That of a segment which ends there.
    pub(super) footer: Footer,
    pub(super) index: Vec<IndexPoint>,
}

impl Plan {
    pub(super) fn of(shared: &Shared) -> Result<Self, BackupError> {
        shared.refresh()?;
        let oldest = shared.refresh_oldest();
        let next = shared.durable.get();
        let not_durable = shared.visible.get().since(next);
        if next < oldest {
            // Dropped by another process since we looked how far it has come: to be looked at again.
            return Err(missing(shared, next).into());
        }
        // Behind the watermark: a recovery that has moved it is in there.
        let Some(loaded) = meta::load(&shared.disk, &shared.dir).map_err(ReadError::from)? else {
            let gone = Corruption::new(&shared.dir.join(META_FILE), 0, Damage::Meta);
            return Err(ReadError::from(gone).into());
        };
        let mut epochs = loaded.meta.epochs;
        // One that a recovery has begun since, and behind that, is none of the backup's.
        let first = epochs[0].epoch;
        epochs.retain(|epoch| epoch.start <= next || epoch.epoch == first);
        let mut summaries = shared.segments.summaries();
        summaries.retain(|summary| (oldest..next).contains(&summary.base));
        let tail = summaries.pop();
        let mut expected = oldest;
        let mut whole = Vec::with_capacity(summaries.len());
        for summary in summaries {
            let footer = summary.footer.filter(|footer| footer.base == expected);
            let footer = footer.ok_or_else(|| missing(shared, expected))?;
            expected = footer.next;
            let file_bytes = summary.file_bytes;
            whole.push(Whole { footer, file_bytes });
        }
        let tail = match tail {
            Some(tail) if tail.base == expected => Some(Tail::of(shared, tail.base, next)?),
            None if next == oldest => None,
            _ => return Err(missing(shared, expected).into()),
        };
        Ok(Self {
            log_id: shared.log_id,
            epochs,
            oldest,
            next,
            not_durable,
            whole,
            tail,
        })
    }

    /// Of all segments, oldest first.
    pub(super) fn bases(&self) -> impl Iterator<Item = Offset> {
        let tail = self.tail.iter().map(|tail| &tail.footer);
        let footers = self.whole.iter().map(|whole| &whole.footer).chain(tail);
        footers.map(|footer| footer.base)
    }

    pub(super) fn bytes(&self) -> u64 {
        let whole: u64 = self.whole.iter().map(|whole| whole.file_bytes).sum();
        whole + self.tail.as_ref().map_or(0, |tail| tail.header.file_bytes)
    }

    /// The backup's own `meta`: never changed since it was made, which only the sequence tells later.
    pub(super) fn meta(&self) -> Meta {
        Meta {
            log_id: self.log_id,
            sequence: SEQUENCE,
            first: self.oldest,
            durable: self.next,
            clean: Some(CleanEnd {
                base: self.next,
                end_position: 0,
                next: self.next,
            }),
            epochs: self.epochs.clone(),
        }
    }
}

/// Of every backup's `meta`; an opening for writing raises it.
pub(super) const SEQUENCE: u64 = 1;

/// The segment with this record is not there, or was found damaged when the log was opened.
fn missing(shared: &Shared, offset: Offset) -> ReadError {
    let noticed = shared.noticed();
    let damage = noticed.iter().find(|damage| damage.offset == Some(offset));
    match damage {
        Some(damage) => ReadError::Corrupt(damage.clone()),
        None => ReadError::SegmentMissing {
            path: shared.dir.clone(),
            offset,
        },
    }
}

impl Tail {
    fn of(shared: &Shared, base: Offset, next: Offset) -> Result<Self, BackupError> {
        let segment = shared.segments.holding(base)?;
        // It grows meanwhile: this is what there is of it now, and will not change.
        let published = segment.published();
        let damaged = |(position, damage)| ReadError::from(segment.corruption(position, damage));
        let mut scan = scan::scan(published, segment.nonce(), base);
        if scan.next > next {
            let end = segment.find(&shared.disk, next).map_err(ReadError::from)?;
            scan = scan::scan(&published[..end.position], segment.nonce(), base);
        }
        if scan.next != next {
            return Err(damaged(scan.missed()).into());
        }
        let header = published
            .first_chunk()
            .expect("published from the first frame on");
        let header = SegmentHeader::decode(header).map_err(|damage| damaged((0, damage)))?;
        let footer = Footer {
            base,
            next,
            end_position: u32::try_from(scan.end_position).expect("at most 1 GiB"),
            nonce: segment.nonce(),
            first_timestamp_micros: scan.first_timestamp_micros,
            last_timestamp_micros: scan.last_timestamp_micros,
            epoch: header.epoch,
            gaps: scan.gaps,
        };
        Ok(Self {
            header: shortened(&header, &footer),
            segment,
            footer,
            index: scan.index,
        })
    }

    /// The segment's bytes from its start to behind the last durable frame.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.segment.published()[..self.footer.end_position as usize]
    }
}

/// The header of a file that is only as long as its frames need.
pub(super) fn shortened(header: &SegmentHeader, footer: &Footer) -> SegmentHeader {
    let least = format::SEGMENT_BYTES_MIN - format::FOOTER_PAGE_BYTES as u64;
    let frames_end = u64::from(footer.end_position).next_multiple_of(format::PAGE_BYTES as u64);
    SegmentHeader {
        file_bytes: frames_end.max(least) + format::FOOTER_PAGE_BYTES as u64,
        ..header.clone()
    }
}
