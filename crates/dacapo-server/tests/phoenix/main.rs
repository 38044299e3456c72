//! The channels of Phoenix over real sockets: byte for byte, and with the npm package `phoenix`.

mod client;
mod killed;
mod longpoll;
mod npm;
mod phoenix_js;
mod protocol;
mod records;
mod rooms;
