//! Megaphone's channels, over real sockets.

mod acceptance;
mod bad_input;
mod child;
mod client;
mod killing;
mod resuming;
mod server;
