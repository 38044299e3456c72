//! The built `dacapo` command, run as its users run it.

mod backup;
mod bench;
mod commands;
mod compacting;
mod cursors;
mod damage;
mod demo;
mod failing_disk;
mod keystrokes;
mod killing;
mod process;
mod producing;
mod pruning;
mod repairing;
mod round_trip;
mod server;
mod serving;
mod signals;
mod since;
mod tailing;
mod topics;
