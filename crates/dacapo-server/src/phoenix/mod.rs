//! The channels of Phoenix, which remember: phoenix.js works unchanged, and a client that was away gets
//! exactly what it has missed.
//!
//! The protocol with a transcript is in `docs/protocols/phoenix.md`.

mod broadcaster;
mod channel;
mod connect;
mod durable;
mod error;
mod feed;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
mod hub;
mod limits;
mod longpoll;
mod pattern;
mod payload;
#[expect(clippy::module_inception, reason = "it holds `Phoenix`")]
mod phoenix;
mod presence;
mod records;
mod session;
mod task;
mod topic;
mod websocket;
mod wire;

pub use broadcaster::{ChannelBroadcaster, Event, Events, Missed};
pub use channel::Channel;
pub use durable::Durable;
pub use error::PublishError;
pub use handler::{
    Anybody, ChannelHandler, Connect, HandlerError, Join, Joined, Left, Refused, Reply,
    SocketHandler,
};
pub use limits::Limits;
pub use payload::Payload;
pub use phoenix::{Phoenix, PhoenixBuilder};
pub use records::{Access, RecordChannels};
pub use wire::{Message, Serializer, Status};
