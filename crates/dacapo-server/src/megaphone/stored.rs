//! What is in the log: the topics of a channel, and the JSON of their records.
//!
//! - `__mp/d/ID`: the messages of the channel, one a record: `{"sid":..,"body":..}`.
//! - `__mp/c/ID`: what becomes of the channel. Each record is all of it; the newest counts.
//! - `__mp/gone`: the channels that are gone, for the webhooks, one a record.
//! - `__mp/told/HASH`: how far the webhook whose URL has this hash was told of them.

use std::borrow::Cow;

use dacapo_log::{Offset, Topic};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::address::ChannelId;
use crate::keys::{self, KeyTag};

pub(crate) const CONTROL_PREFIX: &str = "__mp/c/";

/// One message, as it is stored.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Message<'a> {
    #[serde(borrow)]
    pub(crate) sid: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) body: &'a RawValue,
}

/// Why a channel is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// Nobody has read it for a while.
    Expired,
    /// An admin has deleted it.
    Deleted,
}

/// All that is stored of a channel beside its messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChannelRecord {
    /// The agent in its addresses.
    pub(crate) agent: String,
    /// The tag of the key that signed them.
    pub(crate) key: u32,
    /// In microseconds since the Unix epoch.
    pub(crate) created_micros: u64,
    /// No message of the channel lies before this offset.
    pub(crate) begin: u64,
    /// The messages before this offset were delivered, and need not be again.
    pub(crate) confirmed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ending: Option<Ending>,
}

/// A channel that is gone: its consumer's address, as webhooks name it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GoneRecord {
    pub(crate) channel: String,
}

/// A webhook was told of all channels whose records lie before `next`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToldRecord {
    pub(crate) next: u64,
}

impl ChannelRecord {
    pub(crate) fn key(&self) -> KeyTag {
        KeyTag(self.key)
    }

    pub(crate) fn confirmed(&self) -> Offset {
        Offset::new(self.confirmed)
    }
}

pub(crate) fn to_bytes(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("its fields are texts and numbers")
}

pub(crate) fn data_topic(id: ChannelId) -> Topic {
    topic(&format!("__mp/d/{id}"))
}

pub(crate) fn control_topic(id: ChannelId) -> Topic {
    topic(&format!("{CONTROL_PREFIX}{id}"))
}

/// The channel that a control topic belongs to.
pub(crate) fn channel_of(control: &str) -> Option<ChannelId> {
    ChannelId::from_hex(control.strip_prefix(CONTROL_PREFIX)?)
}

pub(crate) fn gone_topic() -> Topic {
    topic("__mp/gone")
}

pub(crate) fn told_topic(url: &str) -> Topic {
    let hash = Sha256::digest(url);
    topic(&format!("__mp/told/{}", keys::hex(&hash[..16])))
}

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("it is far shorter than 255 bytes")
}

/// The same JSON on one line. A line break in JSON text is white space: within strings, it is escaped.
pub(crate) fn on_one_line(body: &RawValue) -> Cow<'_, RawValue> {
    if !body.get().contains(['\n', '\r']) {
        return Cow::Borrowed(body);
    }
    let line = body.get().replace(['\n', '\r'], " ");
    Cow::Owned(RawValue::from_string(line).expect("white space for white space"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_stored_on_one_line_and_otherwise_as_it_was_sent() {
        let sent =
            "{\r\n  \"a\": 1.50,\n  \"b\": \"x\\ny\", \"big\": 123456789012345678901234567890\n}";
        let body: &RawValue = serde_json::from_str(sent).unwrap();
        let stored = on_one_line(body);
        let expected =
            "{    \"a\": 1.50,   \"b\": \"x\\ny\", \"big\": 123456789012345678901234567890 }";
        assert_eq!(stored.get(), expected);
    }

    #[test]
    fn a_control_topic_tells_its_channel() {
        let id = ChannelId::new([0xa7; 16]);
        assert_eq!(channel_of(control_topic(id).as_str()), Some(id));
        assert_eq!(channel_of("__mp/c/xyz"), None);
        assert_eq!(channel_of(data_topic(id).as_str()), None);
    }
}
