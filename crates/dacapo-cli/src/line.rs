//! A record as output: as it came in, or as one line of JSON.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dacapo_log::{Record, RecordRef};
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
    /// Writes one record. The deletion of a topic has no payload: it is seen in JSON alone.
    pub(crate) fn write<'a>(
        self,
        out: &mut impl Write,
        record: impl Into<Stored<'a>>,
    ) -> io::Result<()> {
        let record = record.into();
        match (self, record.payload) {
            (Self::Json, _) => serde_json::to_writer(&mut *out, &Object::new(&record))?,
            (_, None) => return Ok(()),
            (Self::Raw, Some(payload)) => return out.write_all(payload),
            (Self::Line, Some(payload)) => out.write_all(payload)?,
        }
        out.write_all(b"\n")
    }
}

/// What is shown of a record, whoever holds it.
pub(crate) struct Stored<'a> {
    offset: u64,
    timestamp_micros: u64,
    /// Empty where it has none.
    topic: &'a str,
    /// `None` for the deletion of its topic.
    payload: Option<&'a [u8]>,
}

impl<'a> From<RecordRef<'a>> for Stored<'a> {
    fn from(record: RecordRef<'a>) -> Self {
        Self {
            offset: record.offset().get(),
            timestamp_micros: record.timestamp_micros(),
            topic: record.topic(),
            payload: (!record.is_deletion()).then(|| record.payload()),
        }
    }
}

impl<'a> From<&'a Record> for Stored<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            offset: record.offset().get(),
            timestamp_micros: record.timestamp_micros(),
            topic: record.topic(),
            payload: (!record.is_deletion()).then(|| record.payload()),
        }
    }
}

/// Part of the command's face: fields are added, never renamed.
#[derive(Serialize)]
struct Object<'a> {
    offset: u64,
    time: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    topic: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> Object<'a> {
    fn new(record: &Stored<'a>) -> Self {
        let text = record.payload.map(std::str::from_utf8);
        Self {
            offset: record.offset,
            time: figures::time(record.timestamp_micros),
            topic: record.topic,
            deleted: record.payload.is_none(),
            payload: text.and_then(Result::ok),
            payload_base64: record
                .payload
                .filter(|_| text.is_some_and(|text| text.is_err()))
                .map(|bytes| STANDARD.encode(bytes)),
        }
    }
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

    #[test]
    fn a_topic_is_shown_where_there_is_one() {
        assert_eq!(
            written(Form::Json, "lobby", Some(b"hi")),
            "{\"offset\":7,\"time\":\"1970-01-01T00:00:00.000001Z\",\"topic\":\"lobby\",\"payload\":\"hi\"}\n"
        );
        assert_eq!(written(Form::Line, "lobby", Some(b"hi")), "hi\n");
    }

    #[test]
    fn a_deletion_is_no_empty_record() {
        assert_eq!(
            written(Form::Json, "lobby", None),
            "{\"offset\":7,\"time\":\"1970-01-01T00:00:00.000001Z\",\"topic\":\"lobby\",\"deleted\":true}\n"
        );
        assert_eq!(written(Form::Line, "lobby", None), "");
        assert_eq!(written(Form::Raw, "lobby", None), "");
        assert_eq!(written(Form::Line, "lobby", Some(b"")), "\n");
    }

    fn json(payload: &[u8]) -> String {
        let mut line = written(Form::Json, "", Some(payload));
        assert_eq!(line.pop(), Some('\n'));
        line
    }

    fn written(form: Form, topic: &str, payload: Option<&[u8]>) -> String {
        let record = Stored {
            offset: 7,
            timestamp_micros: 1,
            topic,
            payload,
        };
        let mut out = Vec::new();
        form.write(&mut out, record).unwrap();
        String::from_utf8(out).unwrap()
    }
}
