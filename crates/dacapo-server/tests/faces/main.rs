//! The network faces as their clients see them: over sockets, and across restarts.

mod chat;
mod client;
mod eventsource;
mod memory;
mod realtime;
mod sse;
mod streams;
