//! Messages that carry the time at which they were sent, and how they are found in what arrives.
//!
//! Whatever a server puts around a message, JSON within JSON, an event or a line: the mark stays, so
//! that one search counts the messages of each protocol at the same cost.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memchr::memmem::Finder;

/// What stands before the time.
const MARK: &[u8] = b"\"at\":\"";
/// Nanoseconds in so many digits, which last for 11 days.
const DIGITS: usize = 15;

/// The moment that times are counted from.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A JSON object of `bytes` bytes that says when it was made, or as short as that can be.
pub(crate) fn message(bytes: usize) -> Bytes {
    let at = BEGIN.elapsed().as_nanos();
    let mut message = format!("{{\"at\":\"{at:0DIGITS$}\",\"pad\":\"");
    let end = "\"}";
    while message.len() + end.len() < bytes {
        message.push('x');
    }
    message.push_str(end);
    message.into()
}

/// A JSON array of so many messages.
pub(crate) fn batch(messages: usize, bytes: usize) -> Bytes {
    let mut batch = vec![b'['];
    for index in 0..messages {
        if index > 0 {
            batch.push(b',');
        }
        batch.extend_from_slice(&message(bytes));
    }
    batch.push(b']');
    batch.into()
}

/// Finds messages in bytes that arrive in pieces.
pub(crate) struct Scanner {
    mark: Finder<'static>,
    /// The end of the last piece, which may hold the beginning of a message.
    rest: Vec<u8>,
}

/// What a piece has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) messages: u64,
    /// How long the oldest of them was on its way.
    pub(crate) oldest: Duration,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self {
            mark: Finder::new(MARK),
            rest: Vec::new(),
        }
    }

    /// `None` where it completes no message.
    pub(crate) fn scan(&mut self, piece: &[u8]) -> Option<Found> {
        const WHOLE: usize = MARK.len() + DIGITS;
        // As many bytes as may be the beginning of a message, and cannot be all of it.
        const KEPT: usize = WHOLE - 1;
        let seam = self.rest.len();
        self.rest.extend_from_slice(&piece[..piece.len().min(KEPT)]);
        let marks = self.mark.find_iter(&self.rest);
        let across = marks
            .take_while(|&start| start < seam)
            .map(|start| &self.rest[start..]);
        let within = self.mark.find_iter(piece).map(|start| &piece[start..]);
        let (mut messages, mut oldest) = (0, None);
        for message in across.chain(within).filter(|bytes| bytes.len() >= WHOLE) {
            messages += 1;
            oldest = oldest.or_else(|| time(message));
        }
        if piece.len() >= KEPT {
            self.rest.clear();
            self.rest.extend_from_slice(&piece[piece.len() - KEPT..]);
        } else {
            let surplus = self.rest.len().saturating_sub(KEPT);
            self.rest.drain(..surplus);
        }
        let sent = Duration::from_nanos(oldest?);
        Some(Found {
            messages,
            oldest: BEGIN.elapsed().saturating_sub(sent),
        })
    }
}

/// The time that stands behind a mark.
fn time(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.get(MARK.len()..MARK.len() + DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_json_of_the_length_that_was_asked_for() {
        let message = message(128);
        assert_eq!(message.len(), 128);
        let parsed: serde_json::Value = serde_json::from_slice(&message).unwrap();
        assert_eq!(parsed["at"].as_str().unwrap().len(), DIGITS);
        let parsed: Vec<serde_json::Value> = serde_json::from_slice(&batch(3, 64)).unwrap();
        assert_eq!(parsed.len(), 3);
    }

    #[test]
    fn each_message_is_found_once_however_the_bytes_are_cut() {
        let mut sent = Vec::new();
        for _ in 0..20 {
            sent.extend_from_slice(b"data: ");
            sent.extend_from_slice(&message(60));
            sent.extend_from_slice(b"\n\n");
        }
        for piece in 1..=sent.len() {
            let mut scanner = Scanner::new();
            let found = sent.chunks(piece).filter_map(|piece| scanner.scan(piece));
            assert_eq!(
                found.map(|found| found.messages).sum::<u64>(),
                20,
                "in pieces of {piece}"
            );
        }
    }
}
