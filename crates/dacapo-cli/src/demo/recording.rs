//! The recorded keystrokes that ship with the command: somebody writing a web component.
//!
//! Where they come from is in data/README.md.

use std::io::{self, Read};
use std::ops::Range;

use flate2::read::GzDecoder;

const COMPRESSED: &[u8] = include_bytes!("../../data/keystrokes-small.ndjson.gz");

/// What the keystrokes write, if none is lost, doubled or out of order.
pub(crate) const FINAL_TEXT: &str = include_str!("../../data/keystrokes-small.final.txt");

/// The keystrokes, a line of JSON each.
pub(crate) struct Recording {
    text: String,
    /// Where in `text` each line begins; one more, for the end.
    starts: Vec<usize>,
}

impl Recording {
    pub(crate) fn unpack() -> io::Result<Self> {
        let mut text = String::new();
        GzDecoder::new(COMPRESSED).read_to_string(&mut text)?;
        let ends = memchr::memchr_iter(b'\n', text.as_bytes()).map(|newline| newline + 1);
        let starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
        assert_eq!(
            starts.last(),
            Some(&text.len()),
            "the last line ends with a newline"
        );
        Ok(Self { text, starts })
    }

    /// How many keystrokes there are.
    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// One keystroke, without its newline.
    pub(crate) fn event(&self, index: usize) -> &[u8] {
        self.lines(index..index + 1)
            .strip_suffix(b"\n")
            .expect("lines end with a newline")
    }

    /// Some keystrokes, newlines included.
    pub(crate) fn lines(&self, indexes: Range<usize>) -> &[u8] {
        &self.text.as_bytes()[self.starts[indexes.start]..self.starts[indexes.end]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::document::Document;

    #[test]
    fn the_recorded_keystrokes_write_the_final_text() {
        let recording = Recording::unpack().unwrap();
        assert_eq!(recording.len(), 19_749);

        let mut document = Document::default();
        for index in 0..recording.len() {
            document.apply(recording.event(index)).unwrap();
        }

        assert_eq!(document.text(), FINAL_TEXT);
    }

    #[test]
    fn one_lost_keystroke_writes_another_text() {
        let recording = Recording::unpack().unwrap();

        let mut document = Document::default();
        for index in (0..recording.len()).filter(|index| *index != 10_000) {
            // It may also end up at places that are not there.
            let _ = document.apply(recording.event(index));
        }

        assert_ne!(document.text(), FINAL_TEXT);
    }
}
