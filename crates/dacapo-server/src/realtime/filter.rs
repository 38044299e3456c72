//! Which events a client wants.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A client's choice of the events that it gets; the default one is of all events.
///
/// It is read from the JSON text that a WebSocket's client sends, and from the query of a request, in
/// which a list is one value with commas: `?event_types=a,b`.
pub trait Filter<E>: DeserializeOwned + Default + Send + Sync + 'static {
    /// Whether the client wants this event. Asked for replayed and live events alike, by each client.
    fn matches(&self, event: &E) -> bool;
}

/// The filter of those who need none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Everything {}

impl<E> Filter<E> for Everything {
    fn matches(&self, _: &E) -> bool {
        true
    }
}
