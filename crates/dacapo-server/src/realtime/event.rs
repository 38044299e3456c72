//! What an event of the user's has to say of itself.

use dacapo::{DecodeError, Json, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::resume::Numbering;

/// An event that a [`RealtimeManager`](super::RealtimeManager) sends to its clients, as JSON.
pub trait RealtimeEvent: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What it is, on one line: the name under which listeners of server-sent events get it.
    fn event_type(&self) -> &str;

    /// Told the event's number before anybody gets the event, for those who want it in a field. It is
    /// not stored: an event's number is its place.
    fn numbered(&mut self, seq: u64) {
        let _ = seq;
    }
}

/// The event that a message is, with its number.
pub(super) fn event_of<E: RealtimeEvent>(message: &Message<E, Json>) -> Result<E, DecodeError> {
    let mut event = message.decode()?;
    event.numbered(Numbering::FROM_ONE.id(message.offset()));
    Ok(event)
}
