//! One event, and its bytes on the wire.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

/// A server-sent event: an id, a name, data, and how long a client waits before it connects again.
///
/// The data may have many lines, which the client puts together again. Of several data, the last one
/// counts; without any it is empty, and the event is dispatched all the same.
///
/// ```
/// use dacapo_server::Event;
/// use dacapo_server::sse::EncodedEvent;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let event = Event::new("7", "order")?.data("tea\nmilk");
/// let encoded = EncodedEvent::from(event); // once; each clone is the same bytes
/// assert_eq!(encoded.as_bytes(), "id: 7\nevent: order\ndata: tea\ndata: milk\n\n".as_bytes());
///
/// assert!(Event::new("7\n8", "order").is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "an event does nothing until it is sent"]
pub struct Event {
    id: Option<String>,
    name: Option<String>,
    data: Option<String>,
    retry: Option<Duration>,
}

impl Event {
    /// An event with this id, which a client that comes back says, and this name, under which its
    /// listeners get it.
    ///
    /// # Errors
    /// A line break in either, which would be another field on the wire, and a NUL in the id, with
    /// which clients ignore it.
    pub fn new(id: impl Into<String>, name: impl Into<String>) -> Result<Self, EventError> {
        Self::named(name)?.id(id)
    }

    /// An event of this name that has no id: one that tells of the stream and is no message of it, or
    /// one that is to get its id from [`Sse::subscription`](crate::Sse::subscription).
    ///
    /// # Errors
    /// A line break in the name.
    pub fn named(name: impl Into<String>) -> Result<Self, EventError> {
        let name = one_line(Field::Event, name.into())?;
        Ok(Self {
            name: Some(name),
            ..Self::default()
        })
    }

    /// An event with neither id nor name: listeners of `message` get it.
    pub fn message(data: impl Into<String>) -> Self {
        Self::default().data(data)
    }

    /// Its id.
    ///
    /// # Errors
    /// A line break or a NUL in it.
    pub fn id(mut self, id: impl Into<String>) -> Result<Self, EventError> {
        let id = one_line(Field::Id, id.into())?;
        if let Some(position) = id.find('\0') {
            return Err(EventError::Nul { position, text: id });
        }
        self.id = Some(id);
        Ok(self)
    }

    /// A number as its id, which has no line breaks.
    pub fn number(mut self, id: u64) -> Self {
        self.id = Some(id.to_string());
        self
    }

    /// Text as its data. `\n`, `\r\n` and `\r` end a line, and arrive as `\n`.
    pub fn data(mut self, text: impl Into<String>) -> Self {
        self.data = Some(text.into());
        self
    }

    /// A value as JSON, on one line, as its data.
    ///
    /// # Errors
    /// Where JSON cannot express it.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self, EventError> {
        let json = serde_json::to_string(value).map_err(|source| EventError::Json { source })?;
        Ok(self.data(json))
    }

    /// A piece of HTML as its data, for a page that puts it in place, as htmx does.
    pub fn html(self, html: impl Into<String>) -> Self {
        self.data(html)
    }

    /// How long the client waits before it connects again, from now on; whole milliseconds.
    pub fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }

    fn write(&self, wire: &mut String) {
        if let Some(id) = &self.id {
            write_line(wire, "id", id);
        }
        if let Some(name) = &self.name {
            write_line(wire, "event", name);
        }
        if let Some(retry) = self.retry {
            write_line(wire, "retry", &retry.as_millis().to_string());
        }
        let data = with_unix_lines(self.data.as_deref().unwrap_or_default());
        for line in data.split('\n') {
            write_line(wire, "data", line);
        }
        wire.push('\n');
    }
}

/// Clients take one space away behind the colon, so that the value keeps its own.
fn write_line(wire: &mut String, field: &str, value: &str) {
    wire.push_str(field);
    wire.push_str(": ");
    wire.push_str(value);
    wire.push('\n');
}

/// With each line ended by `\n`, as a client of SSE ends them: at `\n`, at `\r\n`, and at a lone `\r`.
pub(crate) fn with_unix_lines(text: &str) -> Cow<'_, str> {
    match text.contains('\r') {
        false => Cow::Borrowed(text),
        true => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
    }
}

fn one_line(field: Field, text: String) -> Result<String, EventError> {
    match text.find(['\n', '\r']) {
        None => Ok(text),
        Some(position) => Err(EventError::LineBreak {
            field,
            position,
            text,
        }),
    }
}

/// The bytes of an event on the wire. A cheap clone: encode an event once, and send it to everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent(Bytes);

impl EncodedEvent {
    /// `retry:` alone, which is no event to listeners.
    pub(super) fn retry(after: Duration) -> Self {
        Self(Bytes::from(format!("retry: {}\n\n", after.as_millis())))
    }

    /// Its bytes, the empty line at the end included.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Event> for EncodedEvent {
    fn from(event: Event) -> Self {
        let data_bytes = event.data.as_ref().map_or(0, String::len);
        let mut wire = String::with_capacity(64 + data_bytes);
        event.write(&mut wire);
        Self(Bytes::from(wire))
    }
}

impl From<EncodedEvent> for Bytes {
    fn from(event: EncodedEvent) -> Self {
        event.0
    }
}

impl From<Event> for Bytes {
    fn from(event: Event) -> Self {
        EncodedEvent::from(event).into()
    }
}

/// A field of an event that is one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// The event's id.
    Id,
    /// The event's name.
    Event,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id",
            Self::Event => "event",
        })
    }
}

/// An event cannot be sent as it was to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// A line break would end the field, and begin another one of the text's choosing.
    #[error(
        "the {field} {:?} of an event has a line break, at byte {position}; take it out",
        excerpt(text)
    )]
    LineBreak {
        /// The field.
        field: Field,
        /// Where the first one is, in bytes.
        position: usize,
        /// What the field was to be.
        text: String,
    },
    /// Clients ignore an id with a NUL.
    #[error(
        "the id {:?} of an event has a NUL, at byte {position}; take it out",
        excerpt(text)
    )]
    Nul {
        /// Where the first one is, in bytes.
        position: usize,
        /// What the id was to be.
        text: String,
    },
    /// JSON cannot express the value.
    #[error("JSON cannot express the data of an event: {source}")]
    Json {
        /// Why not.
        source: serde_json::Error,
    },
}

/// The first characters, for people.
fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(event: Event) -> String {
        String::from_utf8(EncodedEvent::from(event).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn every_field_has_its_line() {
        let event = Event::new("7", "order").unwrap().data("tea");
        let event = event.retry(Duration::from_millis(1500));
        assert_eq!(
            wire(event),
            "id: 7\nevent: order\nretry: 1500\ndata: tea\n\n"
        );
    }

    #[test]
    fn data_is_split_where_a_client_ends_its_lines() {
        let split = |text: &str| wire(Event::message(text));
        assert_eq!(split("a\nb"), "data: a\ndata: b\n\n");
        assert_eq!(split("a\r\nb"), "data: a\ndata: b\n\n");
        assert_eq!(split("a\rid: 9\rb"), "data: a\ndata: id: 9\ndata: b\n\n");
        assert_eq!(split("a\r"), split("a\n"));
        assert_eq!(split("a\r\r\nb"), split("a\n\nb"));
        assert_eq!(split("a\n\n b\n"), "data: a\ndata: \ndata:  b\ndata: \n\n");
    }

    #[test]
    fn an_event_without_data_is_dispatched_with_an_empty_one() {
        assert_eq!(
            wire(Event::named("tick").unwrap()),
            "event: tick\ndata: \n\n"
        );
    }

    #[test]
    fn the_last_data_wins() {
        let event = Event::message("text")
            .json(&[1, 2])
            .unwrap()
            .html("<p>x</p>");
        assert_eq!(wire(event), "data: <p>x</p>\n\n");
    }

    #[test]
    fn line_breaks_and_nuls_are_refused_with_their_place() {
        let error = Event::new("1", "order\ndata: forged").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"the event "order\ndata: forged" of an event has a line break, at byte 5; take it out"#
        );
        for id in ["1\n", "1\r", "1\r\n2"] {
            let error = Event::new(id, "order").unwrap_err();
            let at_1 = matches!(
                error,
                EventError::LineBreak {
                    field: Field::Id,
                    position: 1,
                    ..
                }
            );
            assert!(at_1, "{error}");
        }
        let error = Event::new("12\0", "order").unwrap_err();
        assert!(
            matches!(error, EventError::Nul { position: 2, .. }),
            "{error}"
        );
        assert!(Event::named("order\0").is_ok());
    }

    #[test]
    fn a_clone_of_the_encoded_event_shares_its_bytes() {
        let encoded = EncodedEvent::from(Event::message("tea"));
        let clone = encoded.clone();
        assert_eq!(clone.as_bytes().as_ptr(), encoded.as_bytes().as_ptr());
    }
}
