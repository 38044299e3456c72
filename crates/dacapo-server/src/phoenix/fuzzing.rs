//! What a fuzzer throws bytes at.

use bytes::Bytes;

use super::durable::{read_event, wrap};
use super::limits::Limits;
use super::longpoll::messages_of;
use super::payload::Payload;
use super::wire::{
    FIELD_BYTES_MAX, Frame, Message, Outgoing, Serializer, Status, decode_binary, decode_text,
    encode,
};

const SERIALIZERS: [Serializer; 3] = [Serializer::V1, Serializer::V2, Serializer::V2Text];

/// Whatever a client sends, as a frame or as the body of a long poll, is messages or malformed, and a
/// message can be answered and broadcast in every version. Whatever is in a record can be broadcast.
///
/// # Panics
/// Where that is not so.
pub fn frames(bytes: &[u8]) {
    let limits = Limits::default();
    for serializer in SERIALIZERS {
        let text = std::str::from_utf8(bytes).ok();
        let text = text.and_then(|text| decode_text(serializer, text).ok());
        let binary = decode_binary(serializer, &Bytes::copy_from_slice(bytes)).ok();
        for message in text.into_iter().chain(binary) {
            answered(serializer, &message);
        }
        for is_lines in [false, true] {
            let messages = messages_of(serializer, bytes, is_lines, &limits).unwrap_or_default();
            assert!(messages.len() <= limits.poll_lines);
            for message in messages {
                answered(serializer.as_text(), &message);
            }
        }
    }
    let (event, payload) = read_event(bytes).unwrap_or_else(|| ("message".into(), wrap(bytes)));
    broadcast("room", &event, &payload.with("offset", &7));
}

/// What was read can be said again.
fn answered(serializer: Serializer, message: &Message) {
    let Message {
        join_ref,
        reference,
        topic,
        event,
        payload,
    } = message;
    let reply = Outgoing::Reply {
        join_ref: join_ref.as_deref(),
        reference: reference.as_deref(),
        topic,
        status: Status::Ok,
        response: payload,
    };
    match encode(serializer, &reply).expect("names that were read can be written") {
        Frame::Text(text) => {
            let read = decode_text(serializer, &text).expect("what was written can be read");
            assert_eq!((&read.topic, &read.reference), (topic, reference));
        }
        Frame::Binary(frame) => {
            let data = payload.binary().expect("only bytes go in binary frames");
            assert!(frame.ends_with(data));
        }
    }
    broadcast(topic, event, payload);
}

/// All who have joined a topic can be told.
fn broadcast(topic: &str, event: &str, payload: &Payload) {
    let message = Outgoing::Broadcast {
        topic,
        event,
        payload,
    };
    for serializer in SERIALIZERS {
        match encode(serializer, &message).expect("what comes with bytes has a short name") {
            Frame::Text(text) => match decode_text(serializer, &text) {
                Ok(read) => assert_eq!((&*read.topic, &*read.event), (topic, event)),
                // A record that something else has written; clients take it.
                Err(_) => assert!(event.len() > FIELD_BYTES_MAX),
            },
            Frame::Binary(frame) => {
                let data = payload.binary().expect("only bytes go in binary frames");
                assert!(frame.ends_with(data));
            }
        }
    }
}
