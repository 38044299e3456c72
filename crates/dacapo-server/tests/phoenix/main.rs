//! The channels of Phoenix over real sockets: byte for byte.

mod client;
mod longpoll;
mod protocol;
mod records;
mod rooms;
