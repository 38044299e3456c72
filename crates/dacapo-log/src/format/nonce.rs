//! A segment's nonce, had back from its frames: for a repair, where header and footer are gone.
//!
//! A CRC over given bytes is a bijection of its initial value, and the nonce is a part of that. So
//! each frame says under which nonce it is sound; that the next one is sound too is the proof.

use super::frame::{decode_frame, unverified};
use super::{FRAME_ALIGN_BYTES, FRAMES_START, Frame, Kind};

/// The nonce under which two frames that follow one another are sound.
pub(crate) fn nonce_of_frames(bytes: &[u8]) -> Option<u32> {
    // A payload may be made of words that each seem to begin a long frame.
    let mut patience = bytes.len().saturating_mul(16);
    for position in (FRAMES_START..bytes.len()).step_by(FRAME_ALIGN_BYTES) {
        let Some(frame) = unverified(bytes, position) else {
            continue;
        };
        patience = patience.checked_sub(frame.summed.len())?;
        let nonce = initial_of(frame.stored, frame.summed) ^ frame.folded_word;
        if frame_behind(bytes, frame.end, nonce).is_some() {
            return Some(nonce);
        }
    }
    None
}

/// The next frame with a checksum, at `position` or behind a pad there.
fn frame_behind(bytes: &[u8], position: usize, nonce: u32) -> Option<Frame> {
    let frame = decode_frame(bytes, position, nonce).ok()?;
    match frame.kind {
        Kind::Pad => decode_frame(bytes, frame.end, nonce).ok(),
        _ => Some(frame),
    }
    .filter(|frame| frame.kind != Kind::Pad)
}

/// The initial value from which a CRC-32 over `summed` comes to `sum`.
fn initial_of(sum: u32, summed: &[u8]) -> u32 {
    let before = summed.iter().rev().fold(!sum, |state, &byte| {
        // Of all entries, one has the top byte that is there: it is the one that was mixed in.
        let entry = ENTRY_OF_TOP[(state >> 24) as usize];
        (state ^ TABLE[entry as usize]) << 8 | (entry ^ u32::from(byte))
    });
    !before
}

/// The CRC-32 of each byte, by the polynomial of zlib.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut entry: u32 = 0;
    while entry < 256 {
        let (mut sum, mut bit) = (entry, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 {
                sum >> 1 ^ 0xEDB8_8320
            } else {
                sum >> 1
            };
            bit += 1;
        }
        table[entry as usize] = sum;
        entry += 1;
    }
    table
};

const ENTRY_OF_TOP: [u32; 256] = {
    let mut entries = [0; 256];
    let mut entry: u32 = 0;
    while entry < 256 {
        entries[(TABLE[entry as usize] >> 24) as usize] = entry;
        entry += 1;
    }
    entries
};

#[cfg(test)]
mod tests {
    use super::super::NewFrame;
    use super::*;

    /// Two records under a nonce, where the frames of a segment begin.
    fn segment(nonce: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; FRAMES_START];
        for relative in 0..2 {
            let new = NewFrame::plain(Kind::Record, relative, 7, payload);
            let mut frame = vec![0; new.bytes()];
            let word = new.encode(nonce, &mut frame[8..]);
            frame[..8].copy_from_slice(&word.to_le_bytes());
            bytes.extend(frame);
        }
        bytes
    }

    #[test]
    fn two_frames_tell_their_nonce() {
        for nonce in [0, 1, 0xDEAD_BEEF, u32::MAX] {
            for payload in [&b""[..], b"x", &[0xDC; 1000]] {
                assert_eq!(nonce_of_frames(&segment(nonce, payload)), Some(nonce));
            }
        }
    }

    #[test]
    fn a_frame_alone_proves_nothing() {
        let bytes = segment(5, b"payload");
        let one = &bytes[..bytes.len() - 8];
        assert_eq!(nonce_of_frames(one), None);
        assert_eq!(nonce_of_frames(&[]), None);
    }
}
