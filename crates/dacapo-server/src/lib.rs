//! The network faces of Dacapo, on [axum]: whoever comes back goes on where it was, across reconnects
//! and restarts of the server, because everything is read from a log on disk.
//!
//! ```no_run
//! use axum::extract::{Path, State};
//! use axum::response::IntoResponse;
//! use axum::routing::get;
//! use dacapo::Broadcaster;
//! use dacapo_server::{Event, LastEventId, Sse};
//!
//! type Rooms = Broadcaster<String, String>;
//!
//! async fn follow(
//!     State(rooms): State<Rooms>,
//!     Path(room): Path<String>,
//!     last: LastEventId,
//! ) -> impl IntoResponse {
//!     let subscription = rooms.subscribe_from(&room, last.start()).map_err(|e| e.to_string())?;
//!     Ok::<_, String>(Sse::subscription(subscription, |line| Ok(Event::named("line")?.data(line))))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rooms = Rooms::open("rooms")?;
//! let app: axum::Router = axum::Router::new().route("/{room}", get(follow)).with_state(rooms);
//! # Ok(())
//! # }
//! ```
//!
//! - [`sse`]: server-sent events. [`Event`] is one of them, [`Sse`] a response of them, from any stream
//!   or from a subscription of a [`Broadcaster`](dacapo::Broadcaster) or channel; [`LastEventId`] is
//!   where a client goes on, and [`sse::channel`] sends by hand.
//! - [`realtime`]: one numbered sequence of events for many clients, each with a filter, over SSE and
//!   WebSocket.
//! - [`streams`]: the Durable Streams protocol, by which the topics of a log are appended to and read
//!   over HTTP.
//! - [`phoenix`]: Phoenix channels, which phoenix.js speaks, and which remember.
//! - [`megaphone`]: Megaphone's HTTP streaming channels, which lose nothing.
//! - [`resume`]: what clients say about where they go on.
//! - [`auth`]: tokens, and what they allow.
//! - [`origins`]: whose web pages are let in.
//! - [`connections`]: a bound on how many clients are connected at once.
//! - [`metrics`]: what a server has done, for Prometheus.

pub mod auth;
pub mod connections;
pub mod megaphone;
pub mod metrics;
pub mod origins;
pub mod phoenix;
mod problem;
pub mod realtime;
mod reserved;
pub mod resume;
pub mod sse;
pub mod streams;

pub use sse::{Event, LastEventId, Sse, SseConfig};

/// The README's programs are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
