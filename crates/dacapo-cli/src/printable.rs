//! Names and pieces of input as a person sees them: nothing in them reaches the terminal as a command.

/// The text with its control characters escaped; other text, in any script, is as it was.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

/// How many characters of it say enough.
const EXCERPT_CHARS_MAX: usize = 80;

/// The beginning of what may be long, printable.
pub(crate) fn excerpt(text: &[u8]) -> String {
    // No more than may be shown, of a line of megabytes.
    let head = &text[..text.len().min(4 * EXCERPT_CHARS_MAX)];
    let head = String::from_utf8_lossy(head);
    let shown: String = head.chars().take(EXCERPT_CHARS_MAX).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    printable(&shown) + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_scripts_are_not() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{9b}"), r"a\nb\u{1b}[31m\u{9b}");
        for text in ["größer", "नमस्ते", "say \"hi\" \\", ""] {
            assert_eq!(printable(text), text);
        }
    }

    #[test]
    fn an_excerpt_of_what_is_long_says_so() {
        assert_eq!(excerpt("größer".as_bytes()), "größer");
        assert_eq!(excerpt("ü".repeat(80).as_bytes()), "ü".repeat(80));
        assert_eq!(excerpt("ü".repeat(81).as_bytes()), "ü".repeat(80) + "…");
        assert_eq!(excerpt(&[b'x'; 1 << 20]), "x".repeat(80) + "…");
    }
}
