//! One numbered sequence of events for many clients, each with a filter of its own, over server-sent
//! events and over WebSocket. On the wire: docs/protocols/realtime.md.
//!
//! Events and filters are the user's own types. The sequence is a log on disk: an event's number is its
//! place in the log, counted from 1, so that numbers go on after a restart, and whoever names the last
//! one that it has seen gets what came after it, and then what comes, without a gap and without a
//! duplicate at the seam. What was dropped meanwhile, it is told of.
//!
//! ```no_run
//! use dacapo_server::realtime::{self, Filter, RealtimeConfig, RealtimeEvent, RealtimeManager};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Change {
//!     seq_id: u64,
//!     table: String,
//! }
//!
//! impl RealtimeEvent for Change {
//!     fn event_type(&self) -> &str {
//!         "change"
//!     }
//!     fn numbered(&mut self, seq: u64) {
//!         self.seq_id = seq;
//!     }
//! }
//!
//! /// `?tables=users,orders`, or `{"tables":["users"]}`.
//! #[derive(Default, Deserialize)]
//! struct Wanted {
//!     tables: Option<Vec<String>>,
//! }
//!
//! impl Filter<Change> for Wanted {
//!     fn matches(&self, change: &Change) -> bool {
//!         self.tables.as_ref().is_none_or(|tables| tables.contains(&change.table))
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let manager = RealtimeManager::<Change, Wanted>::open("changes")?;
//! manager.broadcast(&Change { seq_id: 0, table: "users".into() })?;
//!
//! let app = realtime::router(Some(manager), RealtimeConfig::default());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! axum::serve(listener, app).await?;
//! # Ok(())
//! # }
//! ```

mod any;
mod config;
mod event;
mod filter;
mod manager;
mod query;
mod recent;
mod router;
mod sse;
mod websocket;

pub use self::any::{AnyEvent, Fields};
pub use self::config::RealtimeConfig;
pub use self::event::RealtimeEvent;
pub use self::filter::{Everything, Filter};
pub use self::manager::{EventStream, EventsAfter, RealtimeManager};
pub use self::router::{health, router};
