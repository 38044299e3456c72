//! The channels of Phoenix, which remember: phoenix.js works unchanged, and a client that was away gets
//! exactly what it has missed.
//!
//! - [`Phoenix`] puts it together: who may connect ([`SocketHandler`]), what the channels of each pattern
//!   of topics do ([`ChannelHandler`], [`Channel`]), and the routes for axum.
//! - [`Durable`]: topics whose broadcasts are records of a log. A client that joins with `last_seen_id`
//!   gets what it has missed, and then what comes, in one order.
//! - [`ChannelBroadcaster`] broadcasts from anywhere in the program, and listens to all broadcasts.
//! - [`RecordChannels`]: the topics of a log as channels, without a handler of one's own.
//! - [`Limits`]: how much of anything a client may have.
//!
//! What goes over the wire, with transcripts, is in `docs/protocols/phoenix.md`.

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
