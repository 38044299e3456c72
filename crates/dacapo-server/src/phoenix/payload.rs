//! What an event carries: a JSON text or bytes.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

/// What an event carries: a JSON text, as it was sent, or bytes.
///
/// Cheap to clone. What a client sends may be any JSON; what a server broadcasts or pushes is an object
/// or bytes, as in Phoenix.
///
/// ```
/// use dacapo_server::phoenix::Payload;
/// use serde_json::json;
///
/// let payload = Payload::from(json!({"body": "hello"}));
/// assert_eq!(payload.json().unwrap(), r#"{"body":"hello"}"#);
/// assert_eq!(Payload::from(vec![1, 2]).binary().unwrap().as_ref(), [1, 2]);
/// ```
#[derive(Clone, Debug)]
pub enum Payload {
    /// A JSON text.
    Json(Arc<RawValue>),
    /// Bytes, in a frame of their own.
    Binary(Bytes),
}

impl Payload {
    /// The JSON object without members.
    #[must_use]
    pub fn empty() -> Self {
        Self::from_text("{}".to_owned()).expect("it is JSON")
    }

    /// What `value` is as JSON.
    ///
    /// # Errors
    /// Where it cannot be JSON: a map with keys that are no texts, say.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Self::Json(Arc::from(raw)))
    }

    pub(crate) fn from_text(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(|raw| Self::Json(Arc::from(raw)))
    }

    /// The JSON text, unless these are bytes.
    #[must_use]
    pub fn json(&self) -> Option<&str> {
        match self {
            Self::Json(raw) => Some(raw.get()),
            Self::Binary(_) => None,
        }
    }

    /// The bytes, unless this is JSON.
    #[must_use]
    pub fn binary(&self) -> Option<&Bytes> {
        match self {
            Self::Json(_) => None,
            Self::Binary(bytes) => Some(bytes),
        }
    }

    /// Reads a `T` from the JSON text.
    ///
    /// # Errors
    /// Where the text is no `T`, or these are bytes.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self {
            Self::Json(raw) => serde_json::from_str(raw.get()),
            Self::Binary(_) => Err(serde::de::Error::custom("bytes where JSON was expected")),
        }
    }

    pub(crate) fn is_object(&self) -> bool {
        self.json().is_some_and(|text| text.starts_with('{'))
    }

    /// With one more member, behind the others; anything but an object stays as it is.
    pub(crate) fn with(&self, key: &str, value: &impl Serialize) -> Self {
        let Some(members) = self.json().and_then(|text| text.strip_suffix('}')) else {
            return self.clone();
        };
        let member = (serde_json::to_string(key), serde_json::to_string(value));
        let (Ok(key), Ok(value)) = member else {
            return self.clone();
        };
        let comma = if members[1..].trim().is_empty() {
            ""
        } else {
            ","
        };
        Self::from_text(format!("{members}{comma}{key}:{value}}}")).unwrap_or_else(|_| self.clone())
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self::from_text(value.to_string()).expect("a value's text is JSON")
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json() && self.binary() == other.binary()
    }
}

impl Eq for Payload {}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_id(text: &str) -> String {
        let payload = Payload::from_text(text.to_owned()).unwrap().with("id", &7);
        payload.json().unwrap().to_owned()
    }

    #[test]
    fn a_member_is_added_to_an_object_and_to_nothing_else() {
        assert_eq!(with_id("{}"), r#"{"id":7}"#);
        assert_eq!(with_id(" { } "), r#"{ "id":7}"#);
        assert_eq!(with_id(r#"{"a":"}"}"#), r#"{"a":"}","id":7}"#);
        assert_eq!(with_id("[1]"), "[1]");
        assert_eq!(with_id("\"}\""), "\"}\"");
    }

    #[test]
    fn an_added_member_comes_last_so_that_no_sender_can_overrule_it() {
        let parsed: Value = serde_json::from_str(&with_id(r#"{"id":99}"#)).unwrap();
        assert_eq!(parsed["id"], 7);
    }
}
