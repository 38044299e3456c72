//! Who gets in, how often, and what the others are told: over sockets.

mod access;
mod jwt;
mod limits;
mod server;
mod tls;
mod url_tokens;
