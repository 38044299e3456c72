//! Server-sent events for axum: what is sent, from a stream, by hand, or from a log, and where a client
//! that comes back goes on. On the wire: docs/protocols/sse.md.

mod channel;
mod event;
mod last_event_id;
mod response;
mod subscription;

pub use self::channel::{Disconnected, Sender, channel};
pub(crate) use self::event::with_unix_lines;
pub use self::event::{EncodedEvent, Event, EventError, Field};
pub use self::last_event_id::LastEventId;
pub use self::response::{Sse, SseConfig};
pub use self::subscription::{Events, Source};
pub(crate) use self::subscription::{Incoming, NumberedGap, Received, events};
