//! Telling those who wait for a topic of records that became visible, or durable, together.

use std::ops::Range;

use crate::error::ReadError;
use crate::format;
use crate::log::Shared;
use crate::offset::Offset;

/// The topic of each record in a range, one after the other.
pub(crate) fn topics_in(
    shared: &Shared,
    range: Range<Offset>,
    mut tell: impl FnMut(&[u8]),
) -> Result<(), ReadError> {
    let mut next = range.start;
    while next < range.end {
        let segment = shared.segments.holding(next)?;
        let (bytes, base) = (segment.published(), segment.base());
        let mut position = segment.find(&shared.disk, next)?.position;
        while next < range.end && position < bytes.len() {
            let frame = match format::decode_frame(bytes, position, segment.nonce()) {
                Ok(frame) => frame,
                Err(no) => return Err(segment.corruption(position, no.into_damage()).into()),
            };
            if frame.kind.is_record() {
                next = base.plus(u64::from(frame.relative) + 1);
                if frame.topic_bytes > 0 {
                    tell(frame.topic(bytes).as_bytes());
                }
            } else if let Ok(gone) = format::absence_of(&frame, bytes, base) {
                next = next.max(gone.end);
            }
            position = frame.end;
        }
        if segment.end().is_none_or(|end| end > next) {
            break;
        }
    }
    Ok(())
}
