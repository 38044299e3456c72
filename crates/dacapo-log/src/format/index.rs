//! The index file of a segment.

use super::FORMAT_VERSION;

const INDEX_MAGIC: &str = "DACAPOIX";
const INDEX_HEADER_BYTES: usize = 32;
const INDEX_POINT_BYTES: usize = 8;
const _: () = assert!(INDEX_HEADER_BYTES.is_multiple_of(INDEX_POINT_BYTES));

/// A record whose position is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexPoint {
    pub(crate) relative: u32,
    pub(crate) position: u32,
}

/// The bytes of a segment's index file.
pub(crate) fn encode_index(nonce: u32, points: &[IndexPoint]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(INDEX_HEADER_BYTES + points.len() * INDEX_POINT_BYTES);
    bytes.extend_from_slice(INDEX_MAGIC.as_bytes());
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]); // the checksum, below
    bytes.extend_from_slice(&nonce.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(points.len() as u64).to_le_bytes());
    for point in points {
        bytes.extend_from_slice(&point.relative.to_le_bytes());
        bytes.extend_from_slice(&point.position.to_le_bytes());
    }
    let sum = index_checksum(&bytes);
    bytes[12..16].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// `None` for anything but a whole index of the segment with this nonce. The points are still to
/// be checked against the segment: a sound file can lie.
pub(crate) fn decode_index(bytes: &[u8], nonce: u32) -> Option<Vec<IndexPoint>> {
    let sound = bytes.len() >= INDEX_HEADER_BYTES
        && &bytes[..8] == INDEX_MAGIC.as_bytes()
        && le!(u32, bytes, 8) == FORMAT_VERSION
        && le!(u32, bytes, 12) == index_checksum(bytes)
        && le!(u32, bytes, 16) == nonce
        && bytes.len().is_multiple_of(INDEX_POINT_BYTES)
        && le!(u64, bytes, 24) == ((bytes.len() - INDEX_HEADER_BYTES) / INDEX_POINT_BYTES) as u64;
    sound.then(|| {
        bytes[INDEX_HEADER_BYTES..]
            .chunks_exact(INDEX_POINT_BYTES)
            .map(|point| IndexPoint {
                relative: le!(u32, point, 0),
                position: le!(u32, point, 4),
            })
            .collect()
    })
}

/// The nonce of the segment that an index file is for.
pub(crate) fn index_nonce(bytes: &[u8]) -> Option<u32> {
    Some(le!(u32, bytes.get(..INDEX_HEADER_BYTES)?, 16))
}

/// Over the whole file but the checksum itself.
pub(crate) fn index_checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_another_segment_is_refused() {
        let points = [IndexPoint {
            relative: 0,
            position: 4160,
        }];
        let bytes = encode_index(7, &points);
        assert_eq!(decode_index(&bytes, 7).unwrap(), points);
        assert_eq!(decode_index(&bytes, 8), None);
        assert_eq!(decode_index(&bytes[..31], 7), None);
    }

    /// Found by fuzzing: up to 7 bytes behind the last point were overlooked.
    #[test]
    fn an_index_of_another_length_than_it_says_is_refused() {
        let mut bytes = encode_index(7, &[]);
        bytes.push(0);
        let sum = index_checksum(&bytes);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode_index(&bytes, 7), None);
    }
}
