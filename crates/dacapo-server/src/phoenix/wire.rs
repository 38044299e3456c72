//! The bytes of the protocol, as pure functions: both serializers, and binary frames.
//!
//! What is read comes from a network: anything but a message is [`Malformed`].

use axum::extract::ws::Utf8Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::payload::Payload;

/// The longest reference, topic and event, in bytes: binary frames give their lengths in a byte each.
pub(crate) const FIELD_BYTES_MAX: usize = 255;

pub(crate) const REPLY: &str = "phx_reply";
pub(crate) const CLOSE: &str = "phx_close";
pub(crate) const ERROR: &str = "phx_error";
pub(crate) const JOIN: &str = "phx_join";
pub(crate) const LEAVE: &str = "phx_leave";
pub(crate) const HEARTBEAT: &str = "heartbeat";
/// The topic of heartbeats.
pub(crate) const PHOENIX: &str = "phoenix";

const PUSH_KIND: u8 = 0;
const REPLY_KIND: u8 = 1;
const BROADCAST_KIND: u8 = 2;

/// With what code a WebSocket is closed.
pub(crate) mod close {
    /// Nothing was heard for too long.
    pub(crate) const IDLE: u16 = 1000;
    /// The server has disconnected this socket.
    pub(crate) const DISCONNECTED: u16 = 1001;
    /// What came was no message.
    pub(crate) const MALFORMED: u16 = 1002;
    /// A text was not UTF-8.
    pub(crate) const NO_TEXT: u16 = 1007;
    /// A message was larger than it may be.
    pub(crate) const TOO_LARGE: u16 = 1009;
    /// The server is going away, and another one comes.
    pub(crate) const DRAINED: u16 = 1012;
}

/// How messages are written; the `vsn` of a connection says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serializer {
    /// JSON objects. Bytes go as `{"binary": <base64>}`.
    V1,
    /// JSON arrays, and binary frames.
    V2,
    /// As V2, where only texts can be sent: bytes go as in V1.
    V2Text,
}

impl Serializer {
    /// That of a version; 1.0.0 where none is given, and `None` where it is not spoken here.
    ///
    /// ```
    /// use dacapo_server::phoenix::Serializer;
    ///
    /// assert_eq!(Serializer::of(Some("2.0.0")), Some(Serializer::V2));
    /// assert_eq!(Serializer::of(None), Some(Serializer::V1));
    /// assert_eq!(Serializer::of(Some("3.0.0")), None);
    /// ```
    #[must_use]
    pub fn of(vsn: Option<&str>) -> Option<Self> {
        let mut numbers = vsn.unwrap_or("1.0.0").split('.').map(str::parse::<u32>);
        match [
            numbers.next(),
            numbers.next(),
            numbers.next(),
            numbers.next(),
        ] {
            [Some(Ok(1)), Some(Ok(0)), Some(Ok(_)), None] => Some(Self::V1),
            [Some(Ok(2)), Some(Ok(0)), Some(Ok(_)), None] => Some(Self::V2),
            _ => None,
        }
    }

    /// Where frames of bytes cannot be sent.
    #[must_use]
    pub fn as_text(self) -> Self {
        match self {
            Self::V1 => Self::V1,
            Self::V2 | Self::V2Text => Self::V2Text,
        }
    }
}

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The reference of the join that it belongs to.
    pub join_ref: Option<String>,
    /// By which the reply is known.
    pub reference: Option<String>,
    /// The channel's topic.
    pub topic: String,
    /// What happened.
    pub event: String,
    /// What it carries.
    pub payload: Payload,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Malformed {
    /// The text is no message of this version.
    #[error("no message of this version: {0}")]
    Json(#[from] serde_json::Error),
    /// The bytes end early.
    #[error("a binary frame of {bytes} bytes, where its lengths need {needed}")]
    Short {
        /// How many there are.
        bytes: usize,
        /// How many the header says.
        needed: usize,
    },
    /// A binary frame of a kind that clients do not send.
    #[error("a binary frame of kind {0}; clients send pushes, kind 0")]
    Kind(u8),
    /// A name in a binary frame is not UTF-8.
    #[error("a name in a binary frame is not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    /// A name is too long to be answered in a binary frame.
    #[error("a {field} of {bytes} bytes; at most {FIELD_BYTES_MAX} are allowed")]
    TooLong {
        /// What it is.
        field: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// Version 1 has no binary frames.
    #[error("a binary frame, which version 1 does not have")]
    BinaryInV1,
}

#[derive(Deserialize)]
struct Array(
    Option<String>,
    Option<String>,
    String,
    String,
    Box<RawValue>,
);

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    join_ref: Option<String>,
    #[serde(rename = "ref", default)]
    reference: Option<String>,
    topic: String,
    event: String,
    payload: Box<RawValue>,
}

/// Reads a text frame.
///
/// # Errors
/// See [`Malformed`].
pub(crate) fn decode_text(serializer: Serializer, text: &str) -> Result<Message, Malformed> {
    let message = match serializer {
        Serializer::V1 => {
            let object: Object = serde_json::from_str(text)?;
            Message {
                join_ref: object.join_ref,
                reference: object.reference,
                topic: object.topic,
                event: object.event,
                payload: Payload::Json(object.payload.into()),
            }
        }
        Serializer::V2 | Serializer::V2Text => {
            let Array(join_ref, reference, topic, event, payload) = serde_json::from_str(text)?;
            Message {
                join_ref,
                reference,
                topic,
                event,
                payload: Payload::Json(payload.into()),
            }
        }
    };
    let fields = [
        ("join_ref", message.join_ref.as_deref().unwrap_or_default()),
        ("ref", message.reference.as_deref().unwrap_or_default()),
        ("topic", &message.topic),
        ("event", &message.event),
    ];
    for (field, value) in fields {
        if value.len() > FIELD_BYTES_MAX {
            let bytes = value.len();
            return Err(Malformed::TooLong { field, bytes });
        }
    }
    Ok(message)
}

/// Reads a binary frame.
///
/// # Errors
/// See [`Malformed`].
pub(crate) fn decode_binary(serializer: Serializer, frame: &Bytes) -> Result<Message, Malformed> {
    if serializer == Serializer::V1 {
        return Err(Malformed::BinaryInV1);
    }
    let short = |needed| Malformed::Short {
        bytes: frame.len(),
        needed,
    };
    let &[kind, join_ref, reference, topic, event, ref names @ ..] = frame.as_ref() else {
        return match frame.first() {
            Some(&kind) if kind != PUSH_KIND => Err(Malformed::Kind(kind)),
            _ => Err(short(5)),
        };
    };
    if kind != PUSH_KIND {
        return Err(Malformed::Kind(kind));
    }
    let mut left = names;
    let needed = 5 + [join_ref, reference, topic, event]
        .map(usize::from)
        .iter()
        .sum::<usize>();
    let mut take = |bytes: u8| {
        let (name, rest) = left
            .split_at_checked(bytes.into())
            .ok_or_else(|| short(needed))?;
        left = rest;
        Ok::<_, Malformed>(std::str::from_utf8(name)?.to_owned())
    };
    let (join_ref, reference, topic, event) = (
        take(join_ref)?,
        take(reference)?,
        take(topic)?,
        take(event)?,
    );
    // An empty reference is one that is not there: there is no other way to leave it out.
    let some = |name: String| (!name.is_empty()).then_some(name);
    Ok(Message {
        join_ref: some(join_ref),
        reference: some(reference),
        topic,
        event,
        payload: Payload::Binary(frame.slice(needed..)),
    })
}

/// How an answer came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As it was asked.
    Ok,
    /// Refused.
    Error,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// What a server sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outgoing<'a> {
    Reply {
        join_ref: Option<&'a str>,
        reference: Option<&'a str>,
        topic: &'a str,
        status: Status,
        response: &'a Payload,
    },
    /// To one client.
    Push {
        join_ref: Option<&'a str>,
        topic: &'a str,
        event: &'a str,
        payload: &'a Payload,
    },
    /// To all: without any reference, because clients ignore what has another one than their own.
    Broadcast {
        topic: &'a str,
        event: &'a str,
        payload: &'a Payload,
    },
    /// The channel has failed; the client joins again.
    Error {
        join_ref: Option<&'a str>,
        topic: &'a str,
        reason: &'a str,
    },
    /// The channel is closed; the client does not come back by itself.
    Close {
        join_ref: Option<&'a str>,
        topic: &'a str,
    },
}

/// What goes over the wire; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Frame {
    /// Takes the same bytes again for a client who cannot take binary frames.
    pub(crate) fn into_text(self) -> Option<Utf8Bytes> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }
}

/// A name does not fit a binary frame.
#[derive(Debug, thiserror::Error)]
#[error("a {field} of {bytes} bytes; a binary frame has room for {FIELD_BYTES_MAX}")]
pub(crate) struct TooLong {
    field: &'static str,
    bytes: usize,
}

/// The frame of a message.
pub(crate) fn encode(serializer: Serializer, message: &Outgoing<'_>) -> Result<Frame, TooLong> {
    match (serializer, message) {
        (
            Serializer::V2,
            Outgoing::Reply {
                response: Payload::Binary(data),
                ..
            },
        )
        | (
            Serializer::V2,
            Outgoing::Push {
                payload: Payload::Binary(data),
                ..
            }
            | Outgoing::Broadcast {
                payload: Payload::Binary(data),
                ..
            },
        ) => encode_binary(message, data).map(Frame::Binary),
        _ => Ok(Frame::Text(encode_text(serializer, message).into())),
    }
}

#[derive(Serialize)]
struct Response<'a> {
    status: &'a str,
    response: &'a RawValue,
}

fn encode_text(serializer: Serializer, message: &Outgoing<'_>) -> String {
    match *message {
        Outgoing::Reply {
            join_ref,
            reference,
            topic,
            status,
            response,
        } => {
            let response = as_json(response);
            let status = status.as_str();
            let body = Response {
                status,
                response: &response,
            };
            fields(serializer, join_ref, reference, topic, REPLY, &body)
        }
        Outgoing::Push {
            join_ref,
            topic,
            event,
            payload,
        } => fields(serializer, join_ref, None, topic, event, &*as_json(payload)),
        Outgoing::Broadcast {
            topic,
            event,
            payload,
        } => fields(serializer, None, None, topic, event, &*as_json(payload)),
        Outgoing::Error {
            join_ref,
            topic,
            reason,
        } => {
            let body = json!({"reason": reason});
            fields(serializer, join_ref, join_ref, topic, ERROR, &body)
        }
        Outgoing::Close { join_ref, topic } => {
            fields(serializer, join_ref, join_ref, topic, CLOSE, &json!({}))
        }
    }
}

fn as_json(payload: &Payload) -> std::sync::Arc<RawValue> {
    match payload {
        Payload::Json(raw) => raw.clone(),
        Payload::Binary(bytes) => {
            let text = json!({"binary": STANDARD.encode(bytes)}).to_string();
            RawValue::from_string(text)
                .expect("a value's text is JSON")
                .into()
        }
    }
}

fn fields(
    serializer: Serializer,
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    event: &str,
    payload: &(impl Serialize + ?Sized),
) -> String {
    #[derive(Serialize)]
    struct Object<'a, P: ?Sized> {
        topic: &'a str,
        event: &'a str,
        payload: &'a P,
        #[serde(rename = "ref")]
        reference: Option<&'a str>,
    }
    let text = match serializer {
        Serializer::V1 => serde_json::to_string(&Object {
            topic,
            event,
            payload,
            reference,
        }),
        Serializer::V2 | Serializer::V2Text => {
            serde_json::to_string(&(join_ref, reference, topic, event, payload))
        }
    };
    text.expect("texts and JSON are JSON")
}

fn encode_binary(message: &Outgoing<'_>, data: &Bytes) -> Result<Bytes, TooLong> {
    let (kind, names): (u8, &[(&'static str, &str)]) = match *message {
        Outgoing::Reply {
            join_ref,
            reference,
            topic,
            status,
            ..
        } => (
            REPLY_KIND,
            &[
                ("join_ref", join_ref.unwrap_or_default()),
                ("ref", reference.unwrap_or_default()),
                ("topic", topic),
                ("status", status.as_str()),
            ],
        ),
        Outgoing::Push {
            join_ref,
            topic,
            event,
            ..
        } => (
            PUSH_KIND,
            &[
                ("join_ref", join_ref.unwrap_or_default()),
                ("topic", topic),
                ("event", event),
            ],
        ),
        Outgoing::Broadcast { topic, event, .. } => {
            (BROADCAST_KIND, &[("topic", topic), ("event", event)])
        }
        Outgoing::Error { .. } | Outgoing::Close { .. } => unreachable!("they carry JSON"),
    };
    let mut frame = vec![kind];
    for (field, name) in names {
        let bytes = name.len();
        frame.push(u8::try_from(bytes).map_err(|_| TooLong { field, bytes })?);
    }
    for (_, name) in names {
        frame.extend_from_slice(name.as_bytes());
    }
    frame.extend_from_slice(data);
    Ok(frame.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Serializer; 2] = [Serializer::V1, Serializer::V2];

    fn text(serializer: Serializer, message: &Outgoing<'_>) -> String {
        let frame = encode(serializer, message).unwrap();
        frame.into_text().expect("a text").to_string()
    }

    fn binary(message: &Outgoing<'_>) -> Vec<u8> {
        match encode(Serializer::V2, message).unwrap() {
            Frame::Binary(bytes) => bytes.to_vec(),
            Frame::Text(text) => panic!("{text}"),
        }
    }

    #[test]
    fn a_version_is_spoken_or_not() {
        for (vsn, serializer) in [
            (None, Some(Serializer::V1)),
            (Some("1.0.0"), Some(Serializer::V1)),
            (Some("2.0.0"), Some(Serializer::V2)),
            (Some("2.0.7"), Some(Serializer::V2)),
            (Some("2.1.0"), None),
            (Some("3.0.0"), None),
            (Some("2"), None),
            (Some("2.0.0.0"), None),
            (Some(""), None),
            (Some("two"), None),
        ] {
            assert_eq!(Serializer::of(vsn), serializer, "{vsn:?}");
        }
    }

    #[test]
    fn a_message_of_version_2_is_an_array_of_five() {
        let message =
            decode_text(Serializer::V2, r#"["6","10","room","ping",{"a": [1]}]"#).unwrap();
        assert_eq!(message.join_ref.as_deref(), Some("6"));
        assert_eq!(message.reference.as_deref(), Some("10"));
        assert_eq!((&*message.topic, &*message.event), ("room", "ping"));
        assert_eq!(message.payload.json(), Some(r#"{"a": [1]}"#));
        let heartbeat = decode_text(Serializer::V2, r#"[null,"3","phoenix","heartbeat",{}]"#);
        assert_eq!(heartbeat.unwrap().join_ref, None);
    }

    #[test]
    fn a_message_of_version_1_is_an_object_with_or_without_join_ref() {
        let object = r#"{"topic":"room","event":"ping","payload":{"a":1},"ref":"10"}"#;
        let message = decode_text(Serializer::V1, object).unwrap();
        assert_eq!(message.join_ref, None);
        assert_eq!(message.reference.as_deref(), Some("10"));
        let object = r#"{"topic":"t","event":"e","payload":"x","ref":null,"join_ref":"6","z":1}"#;
        let message = decode_text(Serializer::V1, object).unwrap();
        assert_eq!(message.join_ref.as_deref(), Some("6"));
        assert_eq!(message.payload.json(), Some("\"x\""));
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        let deep = format!(r#"["1","1","t","e",{}]"#, "[".repeat(100_000));
        for junk in [
            "",
            "{}",
            "[]",
            "null",
            r#"["1","1","t","e"]"#,
            r#"["1","1","t","e",{},{}]"#,
            r#"["1","1",null,"e",{}]"#,
            r#"["1","1","t",7,{}]"#,
            r#"["1","1","t","e",{}"#,
            r#"["1","1","t","e",{}] x"#,
            r#"{"topic":"t","event":"e","ref":"1"}"#,
            r#"{"topic":"t","payload":{},"ref":"1"}"#,
            &deep,
        ] {
            for serializer in BOTH {
                let decoded = decode_text(serializer, junk);
                assert!(decoded.is_err(), "{serializer:?} takes {junk:.80}");
            }
        }
    }

    #[test]
    fn a_name_that_no_binary_frame_could_hold_is_malformed() {
        for length in [255, 256] {
            let name = "x".repeat(length);
            for message in [
                format!(r#"["{name}","1","t","e",{{}}]"#),
                format!(r#"["1","{name}","t","e",{{}}]"#),
                format!(r#"["1","1","{name}","e",{{}}]"#),
                format!(r#"["1","1","t","{name}",{{}}]"#),
            ] {
                let decoded = decode_text(Serializer::V2, &message);
                assert_eq!(decoded.is_ok(), length == 255);
            }
        }
    }

    #[test]
    fn a_binary_push_is_read_byte_for_byte() {
        let frame = Bytes::from_static(b"\x00\x01\x02\x04\x03610roombin\x01\x02\x03");
        let message = decode_binary(Serializer::V2, &frame).unwrap();
        let expected = Message {
            join_ref: Some("6".into()),
            reference: Some("10".into()),
            topic: "room".into(),
            event: "bin".into(),
            payload: Payload::from(vec![1, 2, 3]),
        };
        assert_eq!(message, expected);
        for length in 0..frame.len() - 3 {
            let cut = decode_binary(Serializer::V2, &frame.slice(..length));
            assert!(matches!(cut, Err(Malformed::Short { .. })), "{length}");
        }
        let data = decode_binary(Serializer::V2, &frame.slice(..frame.len() - 3)).unwrap();
        assert_eq!(data.payload, Payload::from(vec![]));
        assert!(matches!(
            decode_binary(Serializer::V1, &frame),
            Err(Malformed::BinaryInV1)
        ));
    }

    #[test]
    fn a_binary_frame_of_another_kind_or_another_alphabet_is_malformed() {
        for kind in 1..=255 {
            let frame = Bytes::from(vec![kind, 0, 0, 1, 1, b't', b'e']);
            let decoded = decode_binary(Serializer::V2, &frame);
            assert!(matches!(decoded, Err(Malformed::Kind(found)) if found == kind));
        }
        let frame = Bytes::from_static(&[0, 0, 0, 1, 1, 0xff, b'e']);
        assert!(matches!(
            decode_binary(Serializer::V2, &frame),
            Err(Malformed::Utf8(_))
        ));
    }

    #[test]
    fn each_message_has_its_bytes_in_both_versions() {
        let payload = Payload::from(json!({"a": 1}));
        let reply = Outgoing::Reply {
            join_ref: Some("6"),
            reference: Some("10"),
            topic: "room",
            status: Status::Error,
            response: &payload,
        };
        let push = Outgoing::Push {
            join_ref: Some("6"),
            topic: "room",
            event: "e",
            payload: &payload,
        };
        let broadcast = Outgoing::Broadcast {
            topic: "room",
            event: "e\"",
            payload: &payload,
        };
        let error = Outgoing::Error {
            join_ref: Some("6"),
            topic: "room",
            reason: "why",
        };
        let close = Outgoing::Close {
            join_ref: Some("6"),
            topic: "room",
        };
        for (message, v2, v1) in [
            (
                reply,
                r#"["6","10","room","phx_reply",{"status":"error","response":{"a":1}}]"#,
                r#"{"topic":"room","event":"phx_reply","payload":{"status":"error","response":{"a":1}},"ref":"10"}"#,
            ),
            (
                push,
                r#"["6",null,"room","e",{"a":1}]"#,
                r#"{"topic":"room","event":"e","payload":{"a":1},"ref":null}"#,
            ),
            (
                broadcast,
                r#"[null,null,"room","e\"",{"a":1}]"#,
                r#"{"topic":"room","event":"e\"","payload":{"a":1},"ref":null}"#,
            ),
            (
                error,
                r#"["6","6","room","phx_error",{"reason":"why"}]"#,
                r#"{"topic":"room","event":"phx_error","payload":{"reason":"why"},"ref":"6"}"#,
            ),
            (
                close,
                r#"["6","6","room","phx_close",{}]"#,
                r#"{"topic":"room","event":"phx_close","payload":{},"ref":"6"}"#,
            ),
        ] {
            assert_eq!(text(Serializer::V2, &message), v2);
            assert_eq!(text(Serializer::V2Text, &message), v2);
            assert_eq!(text(Serializer::V1, &message), v1);
        }
    }

    #[test]
    fn binary_frames_have_their_bytes_and_go_as_base64_where_only_text_passes() {
        let payload = Payload::from(vec![1, 2, 3]);
        let reply = Outgoing::Reply {
            join_ref: Some("6"),
            reference: Some("10"),
            topic: "room",
            status: Status::Ok,
            response: &payload,
        };
        assert_eq!(binary(&reply), b"\x01\x01\x02\x04\x02610roomok\x01\x02\x03");
        let push = Outgoing::Push {
            join_ref: Some("6"),
            topic: "room",
            event: "bin",
            payload: &payload,
        };
        assert_eq!(binary(&push), b"\x00\x01\x04\x036roombin\x01\x02\x03");
        let broadcast = Outgoing::Broadcast {
            topic: "room",
            event: "bin",
            payload: &payload,
        };
        assert_eq!(binary(&broadcast), b"\x02\x04\x03roombin\x01\x02\x03");
        let texts = r#"[null,null,"room","bin",{"binary":"AQID"}]"#;
        assert_eq!(text(Serializer::V2Text, &broadcast), texts);
    }

    #[test]
    fn a_name_that_is_too_long_for_a_binary_frame_is_an_error() {
        let (payload, event) = (Payload::from(vec![1]), "e".repeat(256));
        let broadcast = Outgoing::Broadcast {
            topic: "t",
            event: &event,
            payload: &payload,
        };
        assert!(encode(Serializer::V2, &broadcast).is_err());
        assert!(encode(Serializer::V2Text, &broadcast).is_ok());
    }

    /// The numbers of one seed (SplitMix64).
    fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
        move || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    #[test]
    fn whatever_bytes_come_they_are_a_message_that_can_be_answered_or_malformed() {
        let texts = [
            r#"["6","10","room","ping",{"a":[1,"x"]}]"#,
            r#"{"topic":"room","event":"ping","payload":{"a":1},"ref":"10","join_ref":"6"}"#,
        ];
        let frame = b"\x00\x01\x02\x04\x03610roombin\x01\x02\x03";
        let mut messages = 0;
        for seed in 0..20_000 {
            let mut next = numbers(seed);
            let mut bytes = match next() % 3 {
                0 => texts[0].as_bytes().to_vec(),
                1 => texts[1].as_bytes().to_vec(),
                _ => frame.to_vec(),
            };
            for _ in 0..next() % 4 {
                let at = usize::try_from(next()).unwrap() % bytes.len();
                let byte = next().to_le_bytes()[0];
                match next() % 3 {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => bytes.truncate(at + 1),
                }
            }
            crate::phoenix::fuzzing::frames(&bytes);
            for serializer in BOTH {
                let decoded = decode_binary(serializer, &Bytes::from(bytes.clone()));
                messages += usize::from(decoded.is_ok());
                if let Ok(text) = std::str::from_utf8(&bytes) {
                    messages += usize::from(decode_text(serializer, text).is_ok());
                }
            }
        }
        assert!(messages > 5_000, "{messages} were messages");
    }

    #[test]
    fn a_binary_push_of_any_names_and_data_is_read_as_it_was_written() {
        for seed in 0..2_000 {
            let mut next = numbers(seed);
            let mut name = |least: u64| {
                let length = least + next() % (256 - least);
                "x".repeat(usize::try_from(length).unwrap())
            };
            let names = [name(1), name(1), name(0), name(0)];
            let mut frame = vec![0];
            frame.extend(names.iter().map(|name| u8::try_from(name.len()).unwrap()));
            frame.extend(names.concat().bytes());
            frame.extend_from_slice(&seed.to_le_bytes());
            let message = decode_binary(Serializer::V2, &frame.into()).unwrap();
            let [join_ref, reference, topic, event] = names;
            assert_eq!(message.join_ref, Some(join_ref));
            assert_eq!(message.reference, Some(reference));
            assert_eq!((message.topic, message.event), (topic, event));
            assert_eq!(
                message.payload.binary().unwrap().as_ref(),
                seed.to_le_bytes()
            );
        }
    }
}
