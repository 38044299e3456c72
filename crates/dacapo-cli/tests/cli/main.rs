//! The built `dacapo` command, run as its users run it.

mod backup;
mod bench;
mod client;
mod commands;
mod compacting;
mod configuring;
mod cursors;
mod damage;
mod demo;
mod faces;
mod failing_disk;
mod keystrokes;
mod killed_serving;
mod killing;
mod process;
mod producing;
mod pruning;
mod repairing;
mod round_trip;
mod securing;
mod server;
mod serving;
mod signals;
mod since;
mod tailing;
mod topics;
