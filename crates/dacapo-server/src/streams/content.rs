//! What clients send and get: bodies as messages, and messages as bodies.

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use crate::problem::Problem;

/// A message up to this size is copied next to its neighbours; a larger one goes to the socket from
/// where the log has it.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// The messages of a JSON body, as they were sent: the elements of an array, or the one value.
pub(crate) fn json_messages(body: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Problem::bad_request(format!("the body is no UTF-8: {error}")))?;
    let invalid = |error| Problem::bad_request(format!("the body is no JSON: {error}"));
    if text.trim_ascii_start().starts_with('[') {
        let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(invalid)?;
        return Ok(elements
            .iter()
            .map(|value| value.get().as_bytes())
            .collect());
    }
    let value: &RawValue = serde_json::from_str(text).map_err(invalid)?;
    Ok(vec![value.get().as_bytes()])
}

/// A body in the making.
#[derive(Debug)]
pub(crate) struct Content {
    is_json: bool,
    chunks: Vec<Bytes>,
    copied: BytesMut,
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
}

impl Content {
    pub(crate) fn new(is_json: bool) -> Self {
        Self {
            is_json,
            chunks: Vec::new(),
            copied: BytesMut::new(),
            bytes: 0,
            messages: 0,
        }
    }

    pub(crate) fn push(&mut self, message: impl AsRef<[u8]> + Into<Bytes>) {
        if self.is_json {
            self.copy(if self.messages == 0 { b"[" } else { b"," });
        }
        self.messages += 1;
        if message.as_ref().len() <= COPIED_BYTES_MAX {
            self.copy(message.as_ref());
        } else {
            let message = message.into();
            self.bytes += message.len();
            self.end_copied();
            self.chunks.push(message);
        }
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn end_copied(&mut self) {
        if !self.copied.is_empty() {
            self.chunks.push(self.copied.split().freeze());
        }
    }

    /// The body, in pieces; of a JSON stream an array.
    pub(crate) fn finish(mut self) -> Vec<Bytes> {
        if self.is_json {
            self.copy(if self.messages == 0 { b"[]" } else { b"]" });
        }
        self.end_copied();
        self.chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(body: &str) -> Vec<String> {
        let messages = json_messages(body.as_bytes()).unwrap();
        messages
            .iter()
            .map(|message| String::from_utf8_lossy(message).into_owned())
            .collect()
    }

    #[test]
    fn an_array_is_flattened_by_one_level() {
        assert_eq!(
            messages(r#" [1, [2, 3], {"a": [4]}] "#),
            ["1", "[2, 3]", r#"{"a": [4]}"#]
        );
        assert_eq!(messages(r#"{"a":1.50}"#), [r#"{"a":1.50}"#]);
        assert!(messages("[]").is_empty());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for body in [&b"{"[..], b"[1,]", b"1 2", b"", b"\xff", b"[1] x"] {
            assert!(json_messages(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn large_messages_are_not_copied_and_small_ones_come_together() {
        let large = Bytes::from(vec![b'7'; COPIED_BYTES_MAX + 1]);
        let mut content = Content::new(true);
        content.push(Bytes::from_static(b"1"));
        content.push(Bytes::from_static(b"2"));
        content.push(large.clone());
        assert_eq!(content.bytes, "[1,2,".len() + large.len());
        let chunks = content.finish();
        assert_eq!(chunks.len(), 3);
        assert_eq!((&chunks[0][..], &chunks[2][..]), (&b"[1,2,"[..], &b"]"[..]));
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn nothing_is_an_empty_array_in_json_and_no_bytes_otherwise() {
        assert_eq!(Content::new(true).finish(), [Bytes::from_static(b"[]")]);
        assert!(Content::new(false).finish().is_empty());
    }
}
