//! The work of a compaction in pieces, between which it pauses, or is given up.

use super::CompactError;

/// Read and written between two looks.
const PIECE_BYTES: u64 = 64 << 10;

/// Counts the work, and asks behind each piece whether to go on.
pub(crate) struct Pieces<'a> {
    bytes: u64,
    /// Called with the bytes of a piece. An error gives the compaction up.
    go_on: &'a mut dyn FnMut(u64) -> Result<(), CompactError>,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(go_on: &'a mut dyn FnMut(u64) -> Result<(), CompactError>) -> Self {
        Self { bytes: 0, go_on }
    }

    /// Counts so many bytes that were read or written.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<(), CompactError> {
        self.bytes += bytes as u64;
        match self.bytes {
            0..PIECE_BYTES => Ok(()),
            _ => (self.go_on)(std::mem::take(&mut self.bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SyncError;

    #[test]
    fn behind_each_piece_it_asks_and_a_refusal_ends_it() {
        let mut asked = Vec::new();
        let mut go_on = |bytes| {
            asked.push(bytes);
            match asked.len() {
                3 => Err(SyncError::Closed.into()),
                _ => Ok(()),
            }
        };
        let mut pieces = Pieces::new(&mut go_on);
        let given_up = (0..).find(|_| pieces.count(25 << 10).is_err());
        assert_eq!(given_up, Some(8));
        assert_eq!(asked, [75 << 10; 3]);
    }
}
