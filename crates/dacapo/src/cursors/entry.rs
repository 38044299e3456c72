//! One cursor as bytes: the same in the list and in the store, and complete in itself.
//!
//! ```text
//!  0  4  "DCE1"
//!  4  4  CRC-32 of all that follows
//!  8 16  id of the log
//! 24  4  its place in the list
//! 28  1  1 a cursor, 2 a free place
//! 29  1  1 it holds records, 0 it does not
//! 30  1  bytes of the name
//! 31  1  bytes of the topic, 0 for none
//! 32  8  generation
//! 40  8  offset
//! 48  8  epoch
//! 56  8  when it was committed, in microseconds since the Unix epoch
//! 64  8  the generation that the store was known to hold
//! 72     name, topic
//! ```
//!
//! Integers are little-endian.

use dacapo_log::{Checkpoint, Epoch, Offset, Topic};

use super::cursor::{Cursor, check_name};

const MAGIC: [u8; 4] = *b"DCE1";
const CHECKED_FROM: usize = 8;
const FIXED_BYTES: usize = 72;
/// The longest entry.
pub(super) const ENTRY_BYTES_MAX: usize = FIXED_BYTES + Cursor::NAME_BYTES_MAX + Topic::BYTES_MAX;

const KIND_CURSOR: u8 = 1;
const KIND_FREE: u8 = 2;

const _: () = assert!(Cursor::NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(Topic::BYTES_MAX <= u8::MAX as usize);

/// What a place of the list holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) log_id: u128,
    pub(super) place: u32,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Cursor {
        cursor: Cursor,
        /// The generation that the store was known to hold when this was written.
        stored: u64,
    },
    /// Nothing: what was here was deleted in this generation.
    Free { generation: u64 },
}

impl Entry {
    pub(super) fn generation(&self) -> u64 {
        match &self.what {
            What::Cursor { cursor, .. } => cursor.generation,
            What::Free { generation } => *generation,
        }
    }

    /// Reads an entry from the beginning of `bytes`; `None` where they are not what was written.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; FIXED_BYTES] = bytes.first_chunk()?;
        if fixed[..4] != MAGIC {
            return None;
        }
        let (name_bytes, topic_bytes) = (usize::from(fixed[30]), usize::from(fixed[31]));
        let end = FIXED_BYTES + name_bytes + topic_bytes;
        let checked = bytes.get(CHECKED_FROM..end)?;
        if crc32fast::hash(checked) != u32::from_le_bytes(field(fixed, 4)) {
            return None;
        }
        let number = |at| u64::from_le_bytes(field(fixed, at));
        let (name, topic) = bytes[FIXED_BYTES..end].split_at(name_bytes);
        let what = match fixed[28] {
            KIND_CURSOR => {
                let name = std::str::from_utf8(name).ok()?.to_owned();
                check_name(&name).ok()?;
                let topic = match topic {
                    [] => None,
                    topic => Some(Topic::new(std::str::from_utf8(topic).ok()?).ok()?),
                };
                let cursor = Cursor {
                    name,
                    topic,
                    checkpoint: Checkpoint {
                        offset: Offset::new(number(40)),
                        epoch: Epoch::new(number(48)),
                    },
                    holds: fixed[29] == 1,
                    committed_micros: number(56),
                    generation: number(32),
                };
                let stored = number(64);
                What::Cursor { cursor, stored }
            }
            KIND_FREE => What::Free {
                generation: number(32),
            },
            _ => return None,
        };
        Some(Self {
            log_id: u128::from_le_bytes(field(fixed, 8)),
            place: u32::from_le_bytes(field(fixed, 24)),
            what,
        })
    }
}

fn field<const N: usize>(bytes: &[u8; FIXED_BYTES], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("it lies in the fixed part")
}

/// The bytes of a cursor, in the beginning of `into`; returns how many they are.
pub(super) fn encode_cursor(
    log_id: u128,
    place: u32,
    cursor: &Cursor,
    stored: u64,
    into: &mut [u8; ENTRY_BYTES_MAX],
) -> usize {
    let name = cursor.name.as_bytes();
    let topic = cursor.topic.as_ref().map_or("", Topic::as_str).as_bytes();
    into[28] = KIND_CURSOR;
    into[29] = u8::from(cursor.holds);
    into[30] = length(name);
    into[31] = length(topic);
    let checkpoint = cursor.checkpoint;
    let numbers = [
        cursor.generation,
        checkpoint.offset.get(),
        checkpoint.epoch.get(),
        cursor.committed_micros,
        stored,
    ];
    for (number, to) in numbers.iter().zip(into[32..].chunks_exact_mut(8)) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    let end = FIXED_BYTES + name.len() + topic.len();
    let (to_name, to_topic) = into[FIXED_BYTES..end].split_at_mut(name.len());
    to_name.copy_from_slice(name);
    to_topic.copy_from_slice(topic);
    seal(log_id, place, &mut into[..end]);
    end
}

/// The bytes of a free place.
pub(super) fn encode_free(log_id: u128, place: u32, generation: u64) -> [u8; FIXED_BYTES] {
    let mut bytes = [0; FIXED_BYTES];
    bytes[28] = KIND_FREE;
    bytes[32..40].copy_from_slice(&generation.to_le_bytes());
    seal(log_id, place, &mut bytes);
    bytes
}

fn seal(log_id: u128, place: u32, entry: &mut [u8]) {
    entry[..4].copy_from_slice(&MAGIC);
    entry[8..24].copy_from_slice(&log_id.to_le_bytes());
    entry[24..28].copy_from_slice(&place.to_le_bytes());
    let sum = crc32fast::hash(&entry[CHECKED_FROM..]);
    entry[4..8].copy_from_slice(&sum.to_le_bytes());
}

fn length(text: &[u8]) -> u8 {
    u8::try_from(text.len()).expect("names and topics were checked to have at most 255 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(name: &str, topic: Option<&str>) -> Cursor {
        Cursor {
            name: name.to_owned(),
            topic: topic.map(|topic| Topic::new(topic).unwrap()),
            checkpoint: Checkpoint {
                offset: Offset::new(7),
                epoch: Epoch::new(3),
            },
            holds: true,
            committed_micros: 1_700_000_000_000_000,
            generation: 12,
        }
    }

    fn encoded(cursor: &Cursor) -> Vec<u8> {
        let mut bytes = [0xAB; ENTRY_BYTES_MAX];
        let end = encode_cursor(5, 9, cursor, 11, &mut bytes);
        bytes[..end].to_vec()
    }

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        let longest = "n".repeat(Cursor::NAME_BYTES_MAX);
        let topic = "t".repeat(Topic::BYTES_MAX);
        for cursor in [cursor("a", None), cursor(&longest, Some(&topic))] {
            let entry = Entry::decode(&encoded(&cursor)).unwrap();
            assert_eq!((entry.log_id, entry.place), (5, 9));
            assert_eq!(entry.what, What::Cursor { cursor, stored: 11 });
        }
        let free = Entry::decode(&encode_free(5, 9, 4)).unwrap();
        assert_eq!(free.what, What::Free { generation: 4 });
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let bytes = encoded(&cursor("billing", Some("orders")));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Entry::decode(&flipped), None, "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert_eq!(Entry::decode(&bytes[..end]), None, "cut to {end} bytes");
        }
    }
}
