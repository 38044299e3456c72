//! The newest events, decoded and encoded once for all clients.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::extract::ws::Utf8Bytes;
use dacapo::{DecodeError, Json, Message};

use super::event::{RealtimeEvent, event_of};
use crate::resume::Numbering;
use crate::sse::{EncodedEvent, Event};

/// How many events are kept. Clients that are up to date are about as far as each other; one that
/// replays decodes for itself.
const SLOTS: usize = 64;

/// The newest events that clients have asked for.
pub(super) struct Recent<E> {
    slots: [Mutex<Option<Arc<Ready<E>>>>; SLOTS],
}

impl<E> Default for Recent<E> {
    fn default() -> Self {
        Self {
            slots: [const { Mutex::new(None) }; SLOTS],
        }
    }
}

impl<E: RealtimeEvent> Recent<E> {
    /// The event that a message is.
    pub(super) fn get(&self, message: &Message<E, Json>) -> Result<Arc<Ready<E>>, DecodeError> {
        let place = message.offset().get() % SLOTS as u64;
        let slot = &self.slots[usize::try_from(place).expect("less than the slots")];
        let kept = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is(message)) {
            return Ok(Arc::clone(kept));
        }
        let ready = Arc::new(Ready::new(message)?);
        // A replay leaves alone what is newer.
        if kept.is_none_or(|kept| kept.message.offset() <= message.offset()) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&ready));
        }
        Ok(ready)
    }
}

/// An event, ready to be sent.
pub(super) struct Ready<E> {
    /// Keeps its bytes where they are, so that no other message can be there.
    message: Message<E, Json>,
    pub(super) event: E,
    json: OnceLock<Result<Utf8Bytes, String>>,
    sse: OnceLock<Result<EncodedEvent, String>>,
}

impl<E: RealtimeEvent> Ready<E> {
    fn new(message: &Message<E, Json>) -> Result<Self, DecodeError> {
        Ok(Self {
            event: event_of(message)?,
            message: message.clone(),
            json: OnceLock::new(),
            sse: OnceLock::new(),
        })
    }

    /// Whether it is of this very message: after a crash of its writer, another one can have the offset
    /// of one that was not durable.
    fn is(&self, message: &Message<E, Json>) -> bool {
        std::ptr::eq(self.message.payload(), message.payload())
    }

    /// Its JSON, as a text.
    pub(super) fn text(&self) -> Result<Utf8Bytes, String> {
        let json = self.json.get_or_init(|| {
            let json = serde_json::to_string(&self.event).map_err(|error| error.to_string())?;
            Ok(json.into())
        });
        json.clone()
    }

    /// The same as a server-sent event.
    pub(super) fn sse(&self) -> Result<EncodedEvent, String> {
        let encoded = self.sse.get_or_init(|| {
            let named = Event::named(self.event.event_type()).map_err(|error| error.to_string())?;
            let id = Numbering::FROM_ONE.id(self.message.offset());
            Ok(named.number(id).data(self.text()?.as_str()).into())
        });
        encoded.clone()
    }
}

#[cfg(test)]
mod tests {
    use dacapo::{Offset, ReplayChannel, Start};
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Number(u64);

    impl RealtimeEvent for Number {
        fn event_type(&self) -> &str {
            "number"
        }
    }

    type Channel = ReplayChannel<Number, Json>;

    fn channel(numbers: u64) -> Channel {
        let channel = ReplayChannel::builder().codec(Json).temporary().unwrap();
        for number in 0..numbers {
            channel.sender().send(&Number(number)).unwrap();
        }
        channel
    }

    fn message(channel: &Channel, offset: u64) -> Message<Number, Json> {
        let receiver = channel.receiver_at(Start::At(Offset::new(offset)));
        receiver.message_blocking().unwrap()
    }

    #[test]
    fn an_event_is_encoded_once_for_all() {
        let (channel, recent) = (channel(1), Recent::default());
        let bytes = |ready: &Ready<Number>| ready.sse().unwrap().as_bytes().as_ptr();
        let first = recent.get(&message(&channel, 0)).ok().unwrap();
        let second = recent.get(&message(&channel, 0)).ok().unwrap();
        assert_eq!(bytes(&first), bytes(&second));
        assert_eq!(
            first.text().unwrap().as_ptr(),
            second.text().unwrap().as_ptr()
        );
    }

    #[test]
    fn a_replay_leaves_the_newest_events_where_they_are() {
        let slots = SLOTS as u64;
        let (channel, recent) = (channel(slots + 1), Recent::default());
        let newest = recent.get(&message(&channel, slots)).ok().unwrap();
        let old = recent.get(&message(&channel, 0)).ok().unwrap();
        assert_eq!((newest.event.0, old.event.0), (slots, 0));
        let again = recent.get(&message(&channel, slots)).ok().unwrap();
        assert!(Arc::ptr_eq(&newest, &again));
    }

    #[test]
    fn another_message_of_the_same_offset_is_another_event() {
        let recent = Recent::default();
        for number in [1, 2] {
            let channel = channel(0);
            channel.sender().send(&Number(number)).unwrap();
            let ready = recent.get(&message(&channel, 0)).ok().unwrap();
            assert_eq!(ready.event.0, number);
        }
    }
}
