//! Events of which the server knows no more than that they are JSON, and a filter by their fields.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::event::RealtimeEvent;
use super::filter::Filter;

/// The field of an event that says its number.
const SEQ: &str = "seq_id";

/// The field of an event that says what it is.
const TYPE: &str = "type";

/// What an event is that does not say it: the name under which browsers take it for a message.
const MESSAGE: &str = "message";

/// Any JSON, for those who serve a sequence without a type of their own.
///
/// Clients get an object as it is, with its number as `seq_id` in addition, and anything else as
/// `{"data":..,"seq_id":N}`. An object's `type` is its name, where it is a text of one line; otherwise
/// it is a `message`.
///
/// ```
/// use dacapo_server::realtime::{AnyEvent, Fields, RealtimeEvent, RealtimeManager};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let manager = RealtimeManager::<AnyEvent, Fields>::open(dir.path())?;
/// manager.broadcast(&serde_json::from_str(r#"{"type":"joined","user":"Ada"}"#)?)?;
/// let event = manager.events_after(0).next().unwrap()?;
/// assert_eq!(event.event_type(), "joined");
/// let sent = serde_json::to_string(&event)?;
/// assert_eq!(sent, r#"{"type":"joined","user":"Ada","seq_id":1}"#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AnyEvent {
    seq: Option<u64>,
    event_type: String,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    /// Names and values in their order; values as they were written, so that no number is rounded.
    Object(Vec<(String, Box<RawValue>)>),
    Other(Box<RawValue>),
}

impl RealtimeEvent for AnyEvent {
    fn event_type(&self) -> &str {
        &self.event_type
    }

    fn numbered(&mut self, seq: u64) {
        self.seq = Some(seq);
    }
}

impl AnyEvent {
    fn field(&self, name: &str) -> Option<&RawValue> {
        match &self.body {
            Body::Object(fields) => field(fields, name),
            Body::Other(_) => None,
        }
    }
}

fn field<'a>(fields: &'a [(String, Box<RawValue>)], name: &str) -> Option<&'a RawValue> {
    // Where there are several, the last one counts, as everywhere.
    let mut fields = fields.iter().rev();
    let found = fields.find(|(other, _)| other == name);
    found.map(|(_, value)| &**value)
}

impl Serialize for AnyEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (&self.body, self.seq) {
            (Body::Other(value), None) => value.serialize(serializer),
            (Body::Other(value), Some(seq)) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("data", value)?;
                map.serialize_entry(SEQ, &seq)?;
                map.end()
            }
            (Body::Object(fields), seq) => {
                let mut map = serializer.serialize_map(None)?;
                for (name, value) in fields {
                    // A number that its sender gave it is of no use to anybody.
                    if seq.is_none() || name != SEQ {
                        map.serialize_entry(name, value)?;
                    }
                }
                if let Some(seq) = seq {
                    map.serialize_entry(SEQ, &seq)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for AnyEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Box::<RawValue>::deserialize(deserializer)?;
        let body = match value.get().starts_with('{') {
            true => {
                let pairs: Pairs = serde_json::from_str(value.get()).map_err(de::Error::custom)?;
                Body::Object(pairs.0)
            }
            false => Body::Other(value),
        };
        let event_type = match &body {
            Body::Object(fields) => field(fields, TYPE).and_then(|value| text_of(value.get())),
            Body::Other(_) => None,
        };
        let event_type = event_type.filter(|name| !name.is_empty() && !name.contains(['\r', '\n']));
        Ok(Self {
            seq: None,
            event_type: event_type.unwrap_or_else(|| MESSAGE.to_owned()),
            body,
        })
    }
}

/// The text that a JSON value is, if it is one.
fn text_of(json: &str) -> Option<String> {
    let is_text = json.starts_with('"');
    is_text.then(|| serde_json::from_str(json).ok()).flatten()
}

/// An object in its order.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reading)
    }
}

/// Which [`AnyEvent`]s a client wants, by their fields: `?type=joined,left`, or
/// `{"type":["joined","left"]}` and `{"type":"joined,left"}`.
///
/// Of each field that is named, an event must have one of the values, or, where it has a list, one of
/// them in it. Texts are compared as texts, numbers and truth values as they are written. A name without
/// a value asks for nothing in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Fields(HashMap<String, Values>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Values(Vec<String>);

impl Filter<AnyEvent> for Fields {
    fn matches(&self, event: &AnyEvent) -> bool {
        let mut wanted = self.0.iter().filter(|(_, values)| !values.0.is_empty());
        wanted.all(|(name, values)| {
            let field = event.field(name);
            field.is_some_and(|field| values.have(field.get()))
        })
    }
}

impl Values {
    /// Whether a JSON value is one of these, or a list with one of them.
    fn have(&self, json: &str) -> bool {
        match json.as_bytes().first() {
            Some(b'[') => {
                let list: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
                list.iter().any(|value| self.have_scalar(value.get()))
            }
            _ => self.have_scalar(json),
        }
    }

    fn have_scalar(&self, json: &str) -> bool {
        match text_of(json) {
            Some(text) => self.0.contains(&text),
            // Of numbers and truth values.
            None => !json.starts_with(['{', 'n']) && self.0.iter().any(|value| value == json),
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reading;
        impl<'de> Visitor<'de> for Reading {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true, false, null, or a list of these")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
                let parts = text.split(',').filter(|part| !part.is_empty());
                Ok(Values(parts.map(str::to_owned).collect()))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Values, E> {
                Ok(Values(vec![value.to_string()]))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Values, E> {
                Ok(Values::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(Scalar(value)) = list.next_element()? {
                    values.push(value);
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_any(Reading)
    }
}

/// A value in a list, as text: a comma in it is one.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            value @ (Value::Number(_) | Value::Bool(_)) => Ok(Self(value.to_string())),
            _ => Err(de::Error::custom(
                "a list has texts, numbers, true and false",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::query;
    use super::*;

    fn event(json: &str) -> AnyEvent {
        serde_json::from_str(json).unwrap()
    }

    fn sent(json: &str, seq: u64) -> String {
        let mut event = event(json);
        event.numbered(seq);
        serde_json::to_string(&event).unwrap()
    }

    #[test]
    fn an_event_keeps_its_order_and_its_numbers_and_gets_one_of_its_own() {
        let huge = r#"{"z":12345678901234567890123,"a":1.50}"#;
        assert_eq!(
            sent(huge, 7),
            r#"{"z":12345678901234567890123,"a":1.50,"seq_id":7}"#
        );
        assert_eq!(sent(r#"{"seq_id":0,"a":1}"#, 7), r#"{"a":1,"seq_id":7}"#);
        assert_eq!(sent("{}", 7), r#"{"seq_id":7}"#);
        assert_eq!(sent("[1,2]", 7), r#"{"data":[1,2],"seq_id":7}"#);
        for stored in [huge, "[1,2]", "\"tea\"", r#"{"seq_id":0}"#] {
            assert_eq!(serde_json::to_string(&event(stored)).unwrap(), stored);
        }
    }

    #[test]
    fn an_event_is_what_it_says_or_a_message() {
        assert_eq!(event(r#"{"type":"joined"}"#).event_type(), "joined");
        for other in [
            "{}",
            r#"{"type":7}"#,
            r#"{"type":""}"#,
            r#"{"type":"a\nb"}"#,
            "\"joined\"",
        ] {
            assert_eq!(event(other).event_type(), "message", "{other}");
        }
    }

    #[test]
    fn a_filter_is_the_same_in_a_query_and_as_json() {
        let event = event(r#"{"type":"joined","id":7,"live":true,"tags":["a","b,c"],"x":null}"#);
        for (pairs, json, matches) in [
            (
                &[("type", "left,joined")] as &[_],
                r#"{"type":["left","joined"]}"#,
                true,
            ),
            (&[("type", "left")], r#"{"type":"left"}"#, false),
            (
                &[("id", "7"), ("live", "true")],
                r#"{"id":7,"live":true}"#,
                true,
            ),
            (
                &[("id", "8"), ("live", "true")],
                r#"{"id":[8],"live":[true]}"#,
                false,
            ),
            (&[("tags", "z,a")], r#"{"tags":"z,a"}"#, true),
            (&[("type", "")], r#"{"type":null}"#, true),
            (&[("x", "null")], r#"{"x":"null"}"#, false),
            (&[("y", "1")], r#"{"y":1}"#, false),
            (&[], "{}", true),
        ] {
            let of_query: Fields = query::read(pairs.iter().copied()).unwrap();
            let of_json: Fields = serde_json::from_str(json).unwrap();
            assert_eq!(of_query.matches(&event), matches, "{pairs:?}");
            assert_eq!(of_json.matches(&event), matches, "{json}");
        }
        let exact: Fields = serde_json::from_str(r#"{"tags":["b,c"]}"#).unwrap();
        assert!(exact.matches(&event));
        assert!(serde_json::from_str::<Fields>(r#"{"tags":{"a":1}}"#).is_err());
        assert!(serde_json::from_str::<Fields>(r#"{"tags":[["a"]]}"#).is_err());
    }
}
