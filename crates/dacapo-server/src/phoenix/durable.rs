//! Topics whose broadcasts are records of a log.

use std::borrow::Cow;

use dacapo_log::{Log, Offset, ReadError, Record, Start, Tailer, Topic};
use serde_json::json;
use serde_json::value::RawValue;

use super::error::PublishError;
use super::payload::Payload;
use crate::streams::Streams;

/// That, and how, a topic's broadcasts are records of a log: a handler gives it for the topics that are
/// to be [durable](super::ChannelHandler::durable).
///
/// A broadcast is appended before anybody gets it. A client that joins with `last_seen_id`, the offset
/// of the last message that it has seen, first gets those that it has missed.
///
/// ```
/// use dacapo_log::Log;
/// use dacapo_server::phoenix::Durable;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path())?;
/// let durable = Durable::new(&log).offset_key("id").synced();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Durable {
    log: Log,
    prefix: Cow<'static, str>,
    offset_key: Option<Cow<'static, str>>,
    last_seen_key: Cow<'static, str>,
    synced: bool,
    format: Format,
    /// By whose rules records are appended, where topics may be streams.
    streams: Option<Streams>,
}

/// How a broadcast is a record.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// Event and payload: `["event",payload]`, or for bytes a 0, the event's length, the event and the
    /// bytes.
    Events,
    /// Anybody's records, of which each is a `message`.
    Any,
}

impl Durable {
    /// Broadcasts are records of `log`, in topics of the same names; clients get each with its offset as
    /// `offset`, and say `last_seen_id`.
    #[must_use]
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            prefix: Cow::Borrowed(""),
            offset_key: Some(Cow::Borrowed("offset")),
            last_seen_key: Cow::Borrowed("last_seen_id"),
            synced: false,
            format: Format::Events,
            streams: None,
        }
    }

    /// Records that anybody has written, each a `message` with its offset and, as `data`, itself.
    pub(super) fn of_any_records(log: &Log) -> Self {
        let format = Format::Any;
        Self {
            format,
            ..Self::new(log)
        }
    }

    /// Topics that are streams stay such, whoever appends to them.
    pub(super) fn through(mut self, streams: &Streams) -> Self {
        self.streams = Some(streams.clone());
        self
    }

    /// What stands before a channel's topic in the name of the log's; nothing by default.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Cow<'static, str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// As what member of its payload a client gets a broadcast's offset; `offset` by default. Payloads of
    /// bytes carry none.
    #[must_use]
    pub fn offset_key(mut self, key: impl Into<Cow<'static, str>>) -> Self {
        self.offset_key = Some(key.into());
        self
    }

    /// Payloads are left as they are. Clients know no offsets then.
    #[must_use]
    pub fn without_offsets(mut self) -> Self {
        self.offset_key = None;
        self
    }

    /// In what member of a join's payload a client says the last offset that it has seen; `last_seen_id`
    /// by default.
    #[must_use]
    pub fn last_seen_key(mut self, key: impl Into<Cow<'static, str>>) -> Self {
        self.last_seen_key = key.into();
        self
    }

    /// A broadcast is safe from power loss, and not only from a killed process, before anybody gets it:
    /// it takes a flush of the log, which all that are waiting share.
    #[must_use]
    pub fn synced(mut self) -> Self {
        self.synced = true;
        self
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    /// The log's topic of a channel's.
    pub(super) fn topic(&self, topic: &str) -> Result<Topic, dacapo_log::TopicError> {
        Topic::new(format!("{}{topic}", self.prefix))
    }

    pub(super) fn append(
        &self,
        topic: &str,
        event: &str,
        payload: &Payload,
    ) -> Result<Offset, PublishError> {
        let record = match (self.format, payload) {
            (Format::Events, Payload::Json(raw)) => {
                serde_json::to_vec(&(event, &**raw)).expect("texts and JSON are JSON")
            }
            (Format::Events, Payload::Binary(bytes)) => {
                let length = u8::try_from(event.len());
                let length =
                    length.map_err(|_| PublishError::EventTooLong { bytes: event.len() })?;
                [&[0, length], event.as_bytes(), bytes].concat()
            }
            (Format::Any, Payload::Json(raw)) => raw.get().as_bytes().to_vec(),
            (Format::Any, Payload::Binary(bytes)) => bytes.to_vec(),
        };
        let topic = self.topic(topic)?;
        match &self.streams {
            None => Ok(self.log.append_to(&topic, &record)?),
            Some(streams) => {
                let appended = streams.append_record(topic.as_str(), &record);
                appended.map_err(|problem| PublishError::Refused {
                    reason: problem.detail().to_owned(),
                })
            }
        }
    }

    /// The event that a record is, and what it carries.
    pub(super) fn event_of(&self, record: &Record) -> (String, Payload) {
        let event = match self.format {
            Format::Events => read_event(record.payload()),
            Format::Any => None,
        };
        let (event, payload) = event.unwrap_or_else(|| ("message".into(), wrap(record.payload())));
        match &self.offset_key {
            Some(key) => (event, payload.with(key, &record.offset().get())),
            None => (event, payload),
        }
    }

    /// The last offset that a client says it has seen, of what it joins with; 1 more, that is: where it
    /// goes on.
    pub(super) fn wanted(&self, params: &Payload) -> Result<Option<Offset>, String> {
        let Ok(serde_json::Value::Object(params)) = params.parse() else {
            return Ok(None);
        };
        let key = &*self.last_seen_key;
        let seen = match params.get(key) {
            None | Some(serde_json::Value::Null) => return Ok(None),
            Some(serde_json::Value::Number(number)) if number.as_i64() == Some(-1) => {
                return Ok(Some(Offset::ZERO));
            }
            Some(serde_json::Value::Number(number)) => number.as_u64(),
            Some(serde_json::Value::String(text)) if text == "-1" => return Ok(Some(Offset::ZERO)),
            Some(serde_json::Value::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        match seen.and_then(|seen| seen.checked_add(1)) {
            Some(next) => Ok(Some(Offset::new(next))),
            None => Err(format!("{key} is no offset")),
        }
    }

    /// Reads the topic from `start`, and what has become of the records there.
    pub(super) fn tail(&self, topic: &Topic, start: Start) -> Result<Tail, ReadError> {
        let new = |start| {
            let tailer = self.log.tail(start).topic(topic);
            if self.synced {
                tailer.durable_only()
            } else {
                tailer
            }
        };
        let mut tailer = new(start);
        let mut gap = None;
        let first = loop {
            let told = match tailer.try_next() {
                Ok(first) => break first,
                Err(ReadError::Pruned { requested, oldest }) => Gap {
                    reason: "pruned",
                    requested,
                    resume_at: oldest,
                },
                Err(ReadError::BeyondEnd { requested, next }) => {
                    tailer = new(Start::Latest);
                    Gap {
                        reason: "beyond_end",
                        requested,
                        resume_at: next,
                    }
                }
                Err(ReadError::Lost { from, to }) => Gap {
                    reason: "lost",
                    requested: from,
                    resume_at: to,
                },
                Err(ReadError::Corrupt(_) | ReadError::SegmentMissing { .. }) => {
                    let requested = tailer.next_offset();
                    let resume_at = tailer.skip_damage();
                    Gap {
                        reason: "damaged",
                        requested,
                        resume_at,
                    }
                }
                Err(other) => return Err(other),
            };
            gap = Some(match gap {
                None => told,
                Some(first) => Gap {
                    resume_at: told.resume_at,
                    ..first
                },
            });
        };
        Ok(Tail { tailer, first, gap })
    }
}

/// The beginning of reading a topic.
pub(super) struct Tail {
    pub(super) tailer: Tailer,
    /// What was read from it already.
    pub(super) first: Option<Record>,
    pub(super) gap: Option<Gap>,
}

/// Records that a client wanted and the log does not have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    reason: &'static str,
    requested: Offset,
    resume_at: Offset,
}

impl Gap {
    /// The same members as those of a gap in server-sent events.
    pub(super) fn to_json(self) -> serde_json::Value {
        json!({
            "reason": self.reason,
            "requested": self.requested.get(),
            "resume_at": self.resume_at.get(),
        })
    }
}

fn read_event(record: &[u8]) -> Option<(String, Payload)> {
    if let [0, length, rest @ ..] = record {
        let (event, bytes) = rest.split_at_checked((*length).into())?;
        let event = std::str::from_utf8(event).ok()?.to_owned();
        return Some((event, Payload::from(bytes.to_vec())));
    }
    let (event, payload): (String, Box<RawValue>) = serde_json::from_slice(record).ok()?;
    Some((event, Payload::Json(payload.into())))
}

/// A record of anybody's as `data`: JSON as it is, other text as a text, and bytes in base64.
fn wrap(record: &[u8]) -> Payload {
    use base64::Engine as _;
    if let Ok(data) = serde_json::from_slice::<&RawValue>(record) {
        let wrapped = Payload::from_text(format!(r#"{{"data":{data}}}"#));
        return wrapped.expect("JSON in JSON");
    }
    match std::str::from_utf8(record) {
        Ok(text) => Payload::from(json!({"data": text})),
        Err(_) => {
            let text = base64::engine::general_purpose::STANDARD.encode(record);
            Payload::from(json!({"data": text, "encoding": "base64"}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(payload: &Payload) -> (String, Payload) {
        let dir = tempfile::tempdir().unwrap();
        let durable = Durable::new(&Log::open(dir.path()).unwrap()).offset_key("id");
        let offset = durable.append("room", "new:msg", payload).unwrap();
        durable.event_of(&durable.log().get(offset).unwrap())
    }

    #[test]
    fn a_broadcast_comes_back_from_its_record_with_its_offset() {
        let (event, payload) = written(&Payload::from(json!({"body": "[\"x\"]"})));
        assert_eq!(event, "new:msg");
        assert_eq!(payload.json(), Some(r#"{"body":"[\"x\"]","id":0}"#));
        let bytes = Payload::from(vec![0, 1, 2]);
        assert_eq!(written(&bytes), ("new:msg".to_owned(), bytes));
    }

    #[test]
    fn a_record_of_anybody_is_a_message() {
        for (record, payload) in [
            (&b"{\"a\": 1}"[..], r#"{"data":{"a": 1}}"#),
            (b"7", r#"{"data":7}"#),
            (b"[1,2,3]", r#"{"data":[1,2,3]}"#),
            (b"plain", r#"{"data":"plain"}"#),
            (b"", r#"{"data":""}"#),
            (b"\xff", r#"{"data":"/w==","encoding":"base64"}"#),
        ] {
            assert_eq!(wrap(record).json(), Some(payload));
        }
    }

    #[test]
    fn no_bytes_of_a_record_are_more_than_an_event_or_none() {
        for record in [
            &b""[..],
            b"\x00",
            b"\x00\x05abc",
            b"\x00\x01\xff",
            b"[\"e\"",
            b"[\"e\",{},1]",
        ] {
            assert!(read_event(record).is_none(), "{record:?}");
        }
        assert!(read_event(b"\x00\x00").is_some());
    }

    #[test]
    fn what_a_client_has_seen_is_a_number_or_its_digits() {
        let dir = tempfile::tempdir().unwrap();
        let durable = Durable::new(&Log::open(dir.path()).unwrap());
        let wanted = |params: serde_json::Value| durable.wanted(&Payload::from(params));
        assert_eq!(wanted(json!({})), Ok(None));
        assert_eq!(wanted(json!([])), Ok(None));
        assert_eq!(wanted(json!({"last_seen_id": null})), Ok(None));
        assert_eq!(
            wanted(json!({"last_seen_id": 41})),
            Ok(Some(Offset::new(42)))
        );
        assert_eq!(
            wanted(json!({"last_seen_id": "41"})),
            Ok(Some(Offset::new(42)))
        );
        assert_eq!(wanted(json!({"last_seen_id": -1})), Ok(Some(Offset::ZERO)));
        for junk in [
            json!("x"),
            json!(-2),
            json!(1.5),
            json!({}),
            json!(u64::MAX),
        ] {
            assert!(wanted(json!({"last_seen_id": junk})).is_err(), "{junk}");
        }
    }
}
