//! Who takes part: the limits, Dacapo, and the rivals, one file each.
//!
//! A file says what its contestant promises, how it is used, and what it cannot do.

#[cfg(feature = "async-broadcast")]
mod async_broadcast;
mod by_hand;
#[cfg(feature = "commitlog")]
mod commitlog;
mod dacapo;
mod dacapo_log;
#[cfg(feature = "fjall")]
mod fjall;
mod limit;
#[cfg(feature = "okaywal")]
mod okaywal;
#[cfg(feature = "raft-engine")]
mod raft_engine;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "replay-channel")]
mod replay_channel;
#[cfg(feature = "rusqlite")]
mod rusqlite;
#[cfg(feature = "sled")]
mod sled;
#[cfg(feature = "tokio-broadcast")]
mod tokio_broadcast;
#[cfg(feature = "walrus-rust")]
mod walrus;
#[cfg(feature = "yaque")]
mod yaque;

use crate::ground::Measure;
use crate::work::{Group, Kind, Work};

/// What a contestant is to the reader of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The least that must be done.
    Limit,
    Ours,
    Disk,
    Memory,
}

/// Whether records survive the end of the process and that of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survives {
    pub(crate) kill: &'static str,
    pub(crate) power_cut: &'static str,
}

impl Survives {
    /// Of a limit.
    const UNASKED: Self = Self {
        kill: "",
        power_cut: "",
    };
    const NOTHING: Self = Self {
        kill: "no",
        power_cut: "no",
    };
    const ALL: Self = Self {
        kill: "yes",
        power_cut: "yes",
    };
    #[allow(dead_code, reason = "the rivals that use it may be left out")]
    const KILL: Self = Self {
        kill: "yes",
        power_cut: "no",
    };
}

/// How a contestant does a kind of work, or why it cannot.
pub(crate) type Can = Result<Measure, &'static str>;

/// One that takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// Its package in `Cargo.lock`, which has its version.
    pub(crate) package: &'static str,
    pub(crate) place: Place,
    /// Records of calls that do not wait for the disk.
    pub(crate) appended: Survives,
    /// Records of calls that do.
    pub(crate) durable: Survives,
    /// What is checked of a record that is read.
    pub(crate) checks: &'static str,
    /// How it is set up.
    pub(crate) how: &'static str,
    pub(crate) can: fn(&Kind) -> Can,
}

impl Contestant {
    /// How it does this work, or why it cannot.
    pub(crate) fn can(&self, work: &Work) -> Can {
        (self.can)(&work.kind)
    }

    /// What survives in this work.
    pub(crate) fn survives(&self, kind: Kind) -> Survives {
        match kind {
            Kind::Durable(_) => self.durable,
            _ => self.appended,
        }
    }

    /// Whether it is somebody else's work.
    pub(crate) fn is_rival(&self) -> bool {
        matches!(self.place, Place::Disk | Place::Memory) && !self.package.is_empty()
    }

    /// Whether it keeps what Dacapo keeps in this work: records survive a kill, or a power cut where
    /// they are to be durable. How it was filled does not matter to a reader.
    pub(crate) fn keeps_as_much(&self, work: &Work) -> bool {
        match work.group {
            Group::Append => self.appended.kill.starts_with("yes"),
            Group::Durable => self.durable.power_cut == "yes",
            Group::Read | Group::Follow => true,
        }
    }

    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|contestant| contestant.name == name)
    }
}

/// Everybody who was built in, the limit first, then ours.
pub(crate) const ALL: &[Contestant] = &[
    limit::CONTESTANT,
    dacapo_log::CONTESTANT,
    dacapo::CONTESTANT,
    by_hand::CONTESTANT,
    #[cfg(feature = "commitlog")]
    commitlog::CONTESTANT,
    #[cfg(feature = "fjall")]
    fjall::CONTESTANT,
    #[cfg(feature = "okaywal")]
    okaywal::CONTESTANT,
    #[cfg(feature = "raft-engine")]
    raft_engine::CONTESTANT,
    #[cfg(feature = "redb")]
    redb::CONTESTANT,
    #[cfg(feature = "rusqlite")]
    rusqlite::CONTESTANT,
    #[cfg(feature = "sled")]
    sled::CONTESTANT,
    #[cfg(feature = "walrus-rust")]
    walrus::CONTESTANT,
    #[cfg(feature = "yaque")]
    yaque::CONTESTANT,
    #[cfg(feature = "async-broadcast")]
    async_broadcast::CONTESTANT,
    #[cfg(feature = "replay-channel")]
    replay_channel::CONTESTANT,
    #[cfg(feature = "tokio-broadcast")]
    tokio_broadcast::CONTESTANT,
];

/// Rivals that were left out when this was built.
pub(crate) const LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "commitlog"))]
    "commitlog",
    #[cfg(not(feature = "fjall"))]
    "fjall",
    #[cfg(not(feature = "okaywal"))]
    "okaywal",
    #[cfg(not(feature = "raft-engine"))]
    "raft-engine",
    #[cfg(not(feature = "redb"))]
    "redb",
    #[cfg(not(feature = "rusqlite"))]
    "rusqlite",
    #[cfg(not(feature = "sled"))]
    "sled",
    #[cfg(not(feature = "walrus-rust"))]
    "walrus-rust",
    #[cfg(not(feature = "yaque"))]
    "yaque",
    #[cfg(not(feature = "async-broadcast"))]
    "async-broadcast",
    #[cfg(not(feature = "replay-channel"))]
    "replay-channel",
    #[cfg(not(feature = "tokio-broadcast"))]
    "tokio broadcast",
];

/// Stores do not wake who waits for a record.
#[allow(dead_code, reason = "the rivals that use it may be left out")]
const NO_TAIL: &str = "nothing waits for the next record";
/// Channels in memory.
#[allow(dead_code, reason = "the rivals that use it may be left out")]
const IN_MEMORY: &str = "it is in memory only";
