//! The network faces of Dacapo, on [axum]: whatever was acknowledged is on disk, and whoever comes
//! back goes on where it was.
//!
//! - [`streams`]: the Durable Streams protocol.
//! - [`auth`]: tokens, and what they allow.
//! - [`connections`]: a bound on how many clients are connected at once.
//! - [`metrics`]: what a server has done, for Prometheus.

pub mod auth;
pub mod connections;
pub mod metrics;
mod problem;
pub mod streams;
