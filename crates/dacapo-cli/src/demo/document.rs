//! A text that keystrokes write.

use std::borrow::Cow;

use anyhow::Context;
use serde::Deserialize;

/// A text, and where the last keystroke changed it.
///
/// Places in it are counted in Unicode code points, hence characters and not bytes. Moving the
/// rest of 20,000 characters for each keystroke costs less than parsing it.
#[derive(Default)]
pub(crate) struct Document {
    chars: Vec<char>,
    cursor: usize,
}

/// At `pos`, delete `del` characters, then insert `ins`.
#[derive(Deserialize)]
struct Keystroke<'a> {
    pos: usize,
    del: usize,
    #[serde(borrow)]
    ins: Cow<'a, str>,
}

impl Document {
    /// Applies one recorded keystroke.
    ///
    /// # Errors
    /// Where it is none, or changes a place that is not there; then nothing is changed.
    pub(crate) fn apply(&mut self, event: &[u8]) -> anyhow::Result<()> {
        let Keystroke { pos, del, ins } =
            serde_json::from_slice(event).context("not a recorded keystroke")?;
        let end = pos.checked_add(del).filter(|end| *end <= self.chars.len());
        let end = end.with_context(|| {
            format!(
                "a keystroke changes place {pos} of {} characters",
                self.chars.len()
            )
        })?;
        let before = self.chars.len() - del;
        self.chars.splice(pos..end, ins.chars());
        self.cursor = pos + (self.chars.len() - before);
        Ok(())
    }

    pub(crate) fn text(&self) -> String {
        self.chars.iter().collect()
    }

    /// The `height` lines around the place that changed last, which is marked in its line.
    pub(crate) fn around_cursor(&self, height: usize) -> Vec<String> {
        let mut start = self.line_start(self.cursor);
        for _ in 0..height / 2 {
            start = self.line_start(start.saturating_sub(1));
        }
        let mut lines = vec![String::new()];
        for index in start..=self.chars.len() {
            let full = lines.len() == height;
            let line = lines.last_mut().expect("there is one from the beginning");
            if index == self.cursor {
                line.push('▏');
            }
            match self.chars.get(index) {
                Some('\n') if full => break,
                Some('\n') => lines.push(String::new()),
                Some('\t') => line.push_str("  "),
                Some(char) if !char.is_control() => line.push(*char),
                _ => {}
            }
        }
        lines.resize(height, String::new());
        lines
    }

    /// Where the line begins that holds `index`.
    fn line_start(&self, index: usize) -> usize {
        let newline = self.chars[..index].iter().rposition(|char| *char == '\n');
        newline.map_or(0, |newline| newline + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        let mut document = Document::default();
        document
            .apply(r#"{"pos":0,"del":0,"ins":"größe"}"#.as_bytes())
            .unwrap();
        document.apply(br#"{"pos":3,"del":1,"ins":"ss"}"#).unwrap();
        assert_eq!(document.text(), "grösse");
    }

    #[test]
    fn a_keystroke_that_does_not_fit_changes_nothing() {
        let mut document = Document::default();
        document.apply(br#"{"pos":0,"del":0,"ins":"abc"}"#).unwrap();
        for bad in [
            r#"{"pos":3,"del":1,"ins":""}"#,
            r#"{"pos":4,"del":0,"ins":"x"}"#,
            "abc",
        ] {
            assert!(document.apply(bad.as_bytes()).is_err());
        }
        assert_eq!(document.text(), "abc");
    }

    #[test]
    fn the_window_stands_around_the_cursor() {
        let mut document = Document::default();
        document
            .apply(br#"{"pos":0,"del":0,"ins":"one\ntwo\nseven\nfour\nfive"}"#)
            .unwrap();
        document.apply(br#"{"pos":8,"del":1,"ins":"S"}"#).unwrap();
        assert_eq!(document.around_cursor(3), ["two", "S▏even", "four"]);

        document.apply(br#"{"pos":0,"del":0,"ins":"> "}"#).unwrap();
        assert_eq!(document.around_cursor(3), ["> ▏one", "two", "Seven"]);

        document.apply(br#"{"pos":0,"del":25,"ins":""}"#).unwrap();
        assert_eq!(document.around_cursor(2), ["▏", ""]);
    }
}
