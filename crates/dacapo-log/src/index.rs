//! The offset index of one segment: a point every few KiB, from which a reader walks.
//!
//! Derived from the segment: a missing or wrong index file is rebuilt, never trusted.

use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::FileError;
use crate::format::{self, IndexPoint};
use crate::offset::Offset;

pub(crate) const INDEX_TEMPORARY: &str = "index.tmp";

/// The index file that belongs to the segment file of this base.
pub(crate) fn path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{base:020}.idx"))
}

/// Writes the index of a sealed segment; whole, or not there under its name.
pub(crate) fn store(
    disk: &Disk,
    dir: &Path,
    base: Offset,
    nonce: u32,
    points: &[IndexPoint],
) -> Result<(), FileError> {
    let mut file = disk.create(&dir.join(INDEX_TEMPORARY))?;
    file.write_at(&format::encode_index(nonce, points), 0)?;
    file.sync_data()?;
    file.rename(&path(dir, base))
}

/// The points on file, if there is a whole index of this very segment. They may still lie.
pub(crate) fn load(disk: &Disk, dir: &Path, base: Offset, nonce: u32) -> Option<Vec<IndexPoint>> {
    format::decode_index(&disk.read(&path(dir, base)).ok()?, nonce)
}

/// Whether there is an index of this very segment, and it is damaged or lies. One of an earlier
/// segment of the same base is no damage: it is not used.
pub(crate) fn is_damaged(
    disk: &Disk,
    dir: &Path,
    base: Offset,
    nonce: u32,
    is_true: impl Fn(IndexPoint) -> bool,
) -> bool {
    match disk.read(&path(dir, base)) {
        Ok(bytes) if format::index_nonce(&bytes) == Some(nonce) => {
            let points = format::decode_index(&bytes, nonce);
            !points.is_some_and(|points| points.into_iter().all(is_true))
        }
        _ => false,
    }
}

/// The last point at or before `relative`.
pub(crate) fn point_before(points: &[IndexPoint], relative: u32) -> Option<IndexPoint> {
    let behind = points.partition_point(|point| point.relative <= relative);
    points.get(behind.checked_sub(1)?).copied()
}

/// About where the record is, if those between two points are of about one size. The points may lie.
pub(crate) fn likely_position(points: &[IndexPoint], relative: u32) -> u32 {
    let behind = points.partition_point(|point| point.relative <= relative);
    let Some(before) = behind.checked_sub(1).map(|before| points[before]) else {
        return 0;
    };
    let share = points.get(behind).and_then(|behind| {
        let bytes = u64::from(behind.position.checked_sub(before.position)?);
        let records = u64::from(behind.relative.checked_sub(before.relative)?);
        let share = bytes * u64::from(relative.checked_sub(before.relative)?);
        u32::try_from(share.checked_div(records)?).ok()
    });
    before.position.saturating_add(share.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_point_before_a_record_is_found() {
        let points = [(0, 4096), (10, 8192), (20, 12288)]
            .map(|(relative, position)| IndexPoint { relative, position });
        let found = |relative| point_before(&points, relative).map(|point| point.relative);
        assert_eq!(found(0), Some(0));
        assert_eq!(found(9), Some(0));
        assert_eq!(found(10), Some(10));
        assert_eq!(found(1000), Some(20));
        assert_eq!(point_before(&[], 3), None);
    }

    #[test]
    fn points_that_lie_give_some_position() {
        const NUMBERS: [u32; 5] = [0, 7, 8, u32::MAX - 1, u32::MAX];
        let point = |n: usize| IndexPoint {
            relative: NUMBERS[n % 5],
            position: NUMBERS[n / 5 % 5],
        };
        // All triples, in order or not.
        for n in 0..25_usize.pow(3) {
            let points = [point(n), point(n / 25), point(n / 625)];
            for relative in NUMBERS {
                let likely = likely_position(&points, relative);
                let before = point_before(&points, relative);
                assert!(likely >= before.map_or(0, |point| point.position));
            }
        }
    }

    #[test]
    fn a_record_is_likely_to_be_between_its_points_as_it_is_among_their_records() {
        let points =
            [(0, 4096), (10, 8096)].map(|(relative, position)| IndexPoint { relative, position });
        assert_eq!(likely_position(&points, 0), 4096);
        assert_eq!(likely_position(&points, 3), 5296);
        assert_eq!(likely_position(&points, 12), 8096);
        assert_eq!(likely_position(&[], 3), 0);
    }
}
