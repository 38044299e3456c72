//! The topic of a line of JSON: the text in one of its fields.

use std::str::FromStr;

use anyhow::{Context, bail};
use dacapo_log::Topic;
use serde_json::Value;

use crate::printable::excerpt;

/// Which field: `room`, or `user.name` for the field `name` of the object in `user`.
#[derive(Clone, Debug)]
pub(crate) struct TopicField(String);

impl FromStr for TopicField {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.split('.').any(str::is_empty) {
            true => Err("the name of a field, or names with a dot between them".to_owned()),
            false => Ok(Self(name.to_owned())),
        }
    }
}

impl TopicField {
    /// The topic that a line of JSON names.
    ///
    /// # Errors
    /// A line without one is told with what was found instead.
    pub(crate) fn topic_of(&self, line: &[u8]) -> anyhow::Result<Topic> {
        let name = &self.0;
        let object: Value = match serde_json::from_slice(line) {
            Ok(object) => object,
            Err(error) => {
                // A line has no lines.
                let why = error.to_string().replace("at line 1 column", "at column");
                let found = excerpt(line);
                bail!("no JSON, where the topic is in field `{name}`: {why}: {found}");
            }
        };
        let mut field = Some(&object);
        for part in name.split('.') {
            field = field.and_then(|object| object.get(part));
        }
        match field {
            Some(Value::String(text)) => {
                Topic::new(text).with_context(|| format!("field `{name}` is no topic"))
            }
            Some(other) => {
                let found = excerpt(other.to_string().as_bytes());
                bail!("field `{name}` is no text: {found}")
            }
            None => bail!("there is no field `{name}`: {}", excerpt(line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_is_the_text_in_the_field() {
        assert_eq!(topic("room", r#"{"room":"lobby","n":1}"#), "lobby");
        assert_eq!(topic("room", r#" {"room" : "sal\u00f3n"} "#), "salón");
        assert_eq!(topic("at.room", r#"{"at":{"room":"a.b"}}"#), "a.b");
        assert_eq!(topic("größe", r#"{"größe":"L"}"#), "L");
    }

    #[test]
    fn a_line_without_a_topic_says_what_was_found() {
        for (line, said) in [
            (r#"{"n":1}"#, r#"there is no field `room`: {"n":1}"#),
            (r#"["room"]"#, r#"there is no field `room`: ["room"]"#),
            (r#"{"room":null}"#, "field `room` is no text: null"),
            (r#"{"room":{"n":7}}"#, r#"field `room` is no text: {"n":7}"#),
            (
                r#"{"room":""}"#,
                "field `room` is no topic: a topic has at least one byte",
            ),
            (
                "hello",
                "no JSON, where the topic is in field `room`: expected value at column 1: hello",
            ),
            (
                r#"{"room":"lobby""#,
                r#"no JSON, where the topic is in field `room`: EOF while parsing an object at column 15: {"room":"lobby""#,
            ),
        ] {
            assert_eq!(refusal("room", line.as_bytes()), said);
        }
        let nested = refusal("at.room", br#"{"at":"lobby"}"#);
        assert_eq!(nested, r#"there is no field `at.room`: {"at":"lobby"}"#);
        assert!(refusal("room", b"{\"room\":\"\xff\"}").starts_with("no JSON"));
    }

    #[test]
    fn a_field_has_a_name() {
        for name in ["", ".", "a.", ".a", "a..b"] {
            assert!(name.parse::<TopicField>().is_err(), "{name}");
        }
    }

    fn topic(field: &str, line: &str) -> String {
        let field: TopicField = field.parse().unwrap();
        field.topic_of(line.as_bytes()).unwrap().to_string()
    }

    fn refusal(field: &str, line: &[u8]) -> String {
        let field: TopicField = field.parse().unwrap();
        format!("{:#}", field.topic_of(line).unwrap_err())
    }
}
