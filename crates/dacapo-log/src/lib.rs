//! A persistent replay log: append to memory-mapped segments, replay from the first record after
//! a restart, a crash or a deploy, and then follow live.
//!
//! ```
//! use dacapo_log::{Log, Start};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let log = Log::open(dir)?;
//! log.append(b"once upon a time")?;
//! drop(log); // or kill the process
//!
//! let log = Log::open(dir)?;
//! let mut tailer = log.tail(Start::Oldest);
//! assert_eq!(tailer.next_blocking()?.payload(), b"once upon a time");
//!
//! log.append(b"and then")?; // from any thread; tailers wake up
//! assert_eq!(tailer.next_blocking()?.payload(), b"and then");
//! # Ok(())
//! # }
//! ```
//!
//! - [`Log::append`] returns when a record is visible and safe from a killed process;
//!   [`Log::durable`] and [`Log::sync`] when it is safe from power loss.
//! - [`Log::append_once`] recognises what a producer resends, across restarts and crashes too.
//! - [`Log::replay`] reads to the end as of now, [`Log::tail`] goes on from there.
//! - [`Options::retention`] drops what is old, [`Log::hold`] keeps what is still needed.
//! - [`Options::open_read_only`] reads a log that another process is writing.
//! - [`verify()`] checks every byte, and [`repair()`] copies what is sound of a damaged log.
//! - [`Log::backup`] makes a consistent copy while the log is written, and brings it up to date later.
//! - Everything works on any async runtime and on none.
//!
//! What a crash can and cannot take is in `docs/durability.md`, every byte on disk in
//! `docs/format.md`, and a map of this crate in `docs/architecture.md`.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("dacapo-log maps and allocates files in ways that it knows of 64-bit Linux only");

mod arrival;
mod backup;
mod clock;
mod compaction;
#[cfg(not(simulation))]
mod disk;
#[cfg(simulation)]
#[path = "simulation/disk.rs"]
mod disk;
mod error;
mod flusher;
mod follower;
mod format;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod holds;
mod index;
mod indexer;
mod lock;
mod log;
#[cfg_attr(
    simulation,
    allow(dead_code, reason = "a simulated disk maps memory and no files")
)]
mod map;
mod meta;
#[cfg(all(test, not(simulation)))]
mod models;
mod offset;
mod options;
mod prepare;
mod producers;
mod reader;
mod record;
mod recovery;
mod repair;
mod replay;
mod retention;
mod scan;
mod segment;
mod segment_builder;
mod segment_writer;
mod segments;
#[cfg(simulation)]
#[cfg_attr(
    not(test),
    allow(dead_code, reason = "a fuzzer needs less than the tests")
)]
#[doc(hidden)]
pub mod simulation;
mod since;
mod stamp;
mod status;
mod sync;
mod tailer;
mod topic;
mod topics;
mod verify;
mod watermark;
mod writer;

pub use arrival::Arrival;
pub use backup::Backup;
pub use compaction::{CompactError, Compacted, Compaction};
pub use error::{
    AppendError, BackupError, Corruption, Damage, FileError, OpenError, ReadError, RepairError,
    SyncError, TopicError,
};
pub use holds::{Hold, HoldStatus};
pub use log::Log;
pub use offset::{Checkpoint, Epoch, Offset, Start};
pub use options::{Flush, Options, WritePath};
pub use producers::{Appended, ProducerState};
pub use record::{Record, RecordRef};
pub use repair::{Repair, repair};
pub use replay::Replay;
pub use retention::{Kept, Pruning, Retention};
pub use stamp::Stamp;
pub use status::{EpochStatus, Status};
pub use tailer::Tailer;
pub use topic::Topic;
pub use topics::{TopicSummary, Topics};
pub use verify::{Progress, Verification, verify};
