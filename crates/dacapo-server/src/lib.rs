//! The network faces of Dacapo, on [axum]: whatever was acknowledged is on disk, and whoever comes
//! back goes on where it was.
//!
//! - [`megaphone`]: Megaphone's HTTP streaming channels.

pub mod megaphone;
