//! A record as output: as it came in, or as one line of JSON.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::figures;

/// How a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The payload and a newline: what `append` read.
    Line,
    /// The payload and nothing else: what `append --raw` read.
    Raw,
    /// One JSON object and a newline.
    Json,
}

impl Form {
    /// Writes one record.
    pub(crate) fn write(
        self,
        out: &mut impl Write,
        offset: u64,
        timestamp_micros: u64,
        payload: &[u8],
    ) -> io::Result<()> {
        match self {
            Self::Raw => return out.write_all(payload),
            Self::Line => out.write_all(payload)?,
            Self::Json => {
                let text = std::str::from_utf8(payload);
                let object = Object {
                    offset,
                    time: figures::time(timestamp_micros),
                    payload: text.ok(),
                    payload_base64: text.is_err().then(|| STANDARD.encode(payload)),
                };
                serde_json::to_writer(&mut *out, &object)?;
            }
        }
        out.write_all(b"\n")
    }
}

/// Part of the command's face: fields are added, never renamed.
#[derive(Serialize)]
struct Object<'a> {
    offset: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_a_string_and_other_bytes_are_base64() {
        assert_eq!(
            json("say \"hi\"".as_bytes()),
            r#"{"offset":7,"time":"1970-01-01T00:00:00.000001Z","payload":"say \"hi\""}"#
        );
        assert_eq!(
            json(b"\xff\x00"),
            r#"{"offset":7,"time":"1970-01-01T00:00:00.000001Z","payload_base64":"/wA="}"#
        );
    }

    fn json(payload: &[u8]) -> String {
        let mut out = Vec::new();
        Form::Json.write(&mut out, 7, 1, payload).unwrap();
        assert_eq!(out.pop(), Some(b'\n'));
        String::from_utf8(out).unwrap()
    }
}
