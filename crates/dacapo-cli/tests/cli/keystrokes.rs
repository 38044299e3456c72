//! The recorded keystrokes in data/, and the text that they write.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;

const COMPRESSED: &[u8] = include_bytes!("../../data/keystrokes-small.ndjson.gz");

/// What the keystrokes write, if none is lost, doubled or out of order.
pub(crate) const FINAL_TEXT: &str = include_str!("../../data/keystrokes-small.final.txt");

/// The keystrokes, as lines.
pub(crate) fn unpack() -> Vec<u8> {
    let mut lines = Vec::new();
    GzDecoder::new(COMPRESSED).read_to_end(&mut lines).unwrap();
    lines
}

/// Applies keystrokes to an empty text.
pub(crate) fn write_text(lines: &[u8]) -> String {
    let mut text: Vec<char> = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let event: Value = serde_json::from_slice(line).unwrap();
        let number = |name: &str| usize::try_from(event[name].as_u64().unwrap()).unwrap();
        let (pos, del) = (number("pos"), number("del"));
        text.splice(pos..pos + del, event["ins"].as_str().unwrap().chars());
    }
    text.into_iter().collect()
}

/// Where each line begins, and the end.
pub(crate) fn line_starts(lines: &[u8]) -> Vec<usize> {
    let ends = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    std::iter::once(0)
        .chain(ends.map(|(at, _)| at + 1))
        .collect()
}
