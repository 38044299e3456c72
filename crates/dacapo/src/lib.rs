//! A typed channel on disk: every receiver replays from the first message, after a restart, a crash
//! or a deploy, and then follows live.
//!
//! ```
//! use dacapo::ReplayChannel;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Order {
//!     id: u64,
//!     item: String,
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let orders = ReplayChannel::<Order>::open(dir)?;
//! orders.sender().send(&Order { id: 1, item: "tea".into() })?;
//! drop(orders); // or kill the process
//!
//! let orders = ReplayChannel::<Order>::open(dir)?;
//! let receiver = orders.receiver();
//! assert_eq!(receiver.receive_blocking()?.item, "tea");
//! # Ok(())
//! # }
//! ```
//!
//! - [`ReplayChannel`] opens a channel, alone in its directory or as one of many in a
//!   [`Log`], and makes the two ends of it.
//! - [`Sender::send`] returns when the message is visible and safe from a killed process,
//!   [`Sender::send_durable`] when it is safe from a power cut.
//! - [`Receiver::receive`] is async, on any runtime; [`Receiver::receive_blocking`] needs none. A
//!   receiver is a [`Stream`](futures_core::Stream) too.
#![cfg_attr(
    feature = "cursors",
    doc = "- [`ReplayChannel::consumer`] is a receiver with a name, which goes on where it last committed."
)]
//! - [`Broadcaster`] sends by key: to those who subscribe to a room, a user, an order, among as many
//!   keys as there are, in one log.
//! - [`Codec`] says how messages become bytes: [`Postcard`] by default, [`Json`], or [`Raw`] bytes.
//! - [`backup()`] copies a log with its cursors, while it is written.
//! - What is underneath, from fsync to retention, is the crate [`dacapo_log`].

mod backup;
mod broadcaster;
mod builder;
mod channel;
mod codec;
#[cfg(feature = "cursors")]
mod consumer;
#[cfg(feature = "cursors")]
mod cursors;
mod error;
mod inbox;
mod message;
mod receiver;
mod schema;
mod sender;
mod unwrapping;
mod wait;

pub use backup::backup;
pub use broadcaster::{
    Broadcaster, BroadcasterBuilder, Key, Lag, Lagged, MessageStream, Sent, SentBatch, Subscription,
};
pub use builder::Builder;
pub use channel::ReplayChannel;
pub use codec::{Codec, CodecError, Decode, Encode, Json, Postcard, Raw};
#[cfg(feature = "cursors")]
pub use consumer::{Commits, Consumer, ConsumerBuilder, ConsumerStatus, hold_for_consumers};
#[cfg(feature = "cursors")]
pub use cursors::{
    Cursor, CursorError, CursorNameError, Cursors, Position, PublishedCursors, StoreNotice,
};
pub use dacapo_log::{
    Checkpoint, Epoch, Flush, Log, Offset, Retention, Stamp, Start, Topic, TopicError,
};
#[cfg(feature = "cursors")]
pub use error::ConsumeError;
pub use error::{
    BackupError, DecodeError, KeyError, OpenError, ReceiveError, SchemaMismatch, SendError,
};
pub use message::{Message, MessageRef};
pub use receiver::{Messages, Receiver};
pub use schema::Schema;
pub use sender::Sender;
pub use unwrapping::Unwrapping;

/// The README's programs are compiled, and run where they end.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// And so are the guide's.
#[cfg(all(doctest, feature = "cursors"))]
#[doc = include_str!("../../../docs/guide.md")]
struct Guide;
