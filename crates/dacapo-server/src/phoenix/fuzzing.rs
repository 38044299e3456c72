//! What a fuzzer throws bytes at.

use bytes::Bytes;

use super::wire::{Frame, Outgoing, Serializer, Status, decode_binary, decode_text, encode};

/// Whatever a client sends is a message or malformed, and a message can be answered in every version.
///
/// # Panics
/// Where that is not so.
pub fn frames(bytes: &[u8]) {
    for serializer in [Serializer::V1, Serializer::V2, Serializer::V2Text] {
        let text = std::str::from_utf8(bytes).ok();
        let text = text.and_then(|text| decode_text(serializer, text).ok());
        let binary = decode_binary(serializer, &Bytes::copy_from_slice(bytes)).ok();
        for message in text.into_iter().chain(binary) {
            let reply = Outgoing::Reply {
                join_ref: message.join_ref.as_deref(),
                reference: message.reference.as_deref(),
                topic: &message.topic,
                status: Status::Ok,
                response: &message.payload,
            };
            match encode(serializer, &reply).expect("names that were read can be written") {
                Frame::Text(text) => {
                    let read =
                        decode_text(serializer, &text).expect("what was written can be read");
                    assert_eq!(read.topic, message.topic);
                    assert_eq!(read.reference, message.reference);
                }
                Frame::Binary(frame) => {
                    let data = message
                        .payload
                        .binary()
                        .expect("only bytes go in binary frames");
                    assert!(frame.ends_with(data));
                }
            }
        }
    }
}
