//! The kinds of work that are measured, and how much of each.

/// What is asked of a contestant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records one a call, with what the contestant promises without waiting for the disk.
    Append,
    /// The same for so many bytes that files fill up and are followed by new ones.
    AppendLong,
    /// Records in batches of [`BATCH`].
    Batches,
    /// Records one a call, each safe from a power cut when the call returns; from so many threads.
    Durable(usize),
    /// All records once, from the first to the last.
    Replay,
    /// Opening what was closed, until it can be appended to.
    Reopen,
    /// Messages sent as fast as it goes to so many receivers, which follow live.
    FanOut(u64),
    /// Messages that are each sent when all of so many receivers wait for it.
    Wake(u64),
    /// Single records at random places.
    RandomRead,
}

/// Records in a batch.
pub(crate) const BATCH: u64 = 100;

/// How much is done, for a first look or for a long one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Extent {
    Short,
    Usual,
    Long,
}

impl Extent {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Usual => "usual",
            Self::Long => "long",
        }
    }
}

/// What a median is given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Records,
    Deliveries,
    Time,
}

/// One piece of work: a kind with a payload size and a number of records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// On the command line and in the figures.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: usize,
    /// Records, or messages, of one pass.
    records: u64,
    /// The part of the report that it stands in.
    pub(crate) group: Group,
    /// What its limit does.
    pub(crate) limit: &'static str,
}

/// A part of the report, with a plot of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Append,
    Durable,
    Read,
    Follow,
}

impl Group {
    pub(crate) const ALL: [Self; 4] = [Self::Append, Self::Durable, Self::Read, Self::Follow];

    /// The name of its plot.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Durable => "durable",
            Self::Read => "read",
            Self::Follow => "follow",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Append => "Append",
            Self::Durable => "Durable append",
            Self::Read => "Read and reopen",
            Self::Follow => "Follow live",
        }
    }
}

const MAPPED: &str = "copy, header and CRC-32 into a mapped file that is zeroed and faulted in";
const SUMMED: &str = "CRC-32 of each frame in a mapped file";
const SHARED: &str =
    "copy, header and CRC-32 into shared memory, and each receiver walks over it without summing";
const WOKEN: &str = "waking a tokio task for each receiver, without a message";

/// All of it, in the order of the report.
pub(crate) const WORKS: [Work; 17] = [
    Work {
        id: "append-100B",
        title: "append, 100 B",
        kind: Kind::Append,
        payload_bytes: 100,
        records: 160_000,
        group: Group::Append,
        limit: MAPPED,
    },
    Work {
        id: "append-1KiB",
        title: "append, 1 KiB",
        kind: Kind::Append,
        payload_bytes: 1024,
        records: 16_000,
        group: Group::Append,
        limit: MAPPED,
    },
    Work {
        id: "append-long-1KiB",
        title: "append across files, 1 KiB",
        kind: Kind::AppendLong,
        payload_bytes: 1024,
        records: 512 << 10,
        group: Group::Append,
        limit: "header and CRC-32, and 1 MiB a `write` to a new file",
    },
    Work {
        id: "batches-100B",
        title: "batches of 100, 100 B",
        kind: Kind::Batches,
        payload_bytes: 100,
        records: 160_000,
        group: Group::Append,
        limit: MAPPED,
    },
    Work {
        id: "batches-1KiB",
        title: "batches of 100, 1 KiB",
        kind: Kind::Batches,
        payload_bytes: 1024,
        records: 16_000,
        group: Group::Append,
        limit: MAPPED,
    },
    Work {
        id: "durable-1",
        title: "durable append, 1 thread, 100 B",
        kind: Kind::Durable(1),
        payload_bytes: 100,
        records: 5_000,
        group: Group::Durable,
        limit: "`pwrite` and `fdatasync` of each record, on blocks written before",
    },
    Work {
        id: "durable-16",
        title: "durable append, 16 threads, 100 B",
        kind: Kind::Durable(16),
        payload_bytes: 100,
        records: 32_000,
        group: Group::Durable,
        limit: "one thread, `pwrite` and `fdatasync` of 16 records at once, on blocks written before",
    },
    Work {
        id: "replay-100B",
        title: "replay, 100 B",
        kind: Kind::Replay,
        payload_bytes: 100,
        records: 500_000,
        group: Group::Read,
        limit: SUMMED,
    },
    Work {
        id: "replay-1KiB",
        title: "replay, 1 KiB",
        kind: Kind::Replay,
        payload_bytes: 1024,
        records: 100_000,
        group: Group::Read,
        limit: SUMMED,
    },
    Work {
        id: "random-100B",
        title: "random read, 100 B",
        kind: Kind::RandomRead,
        payload_bytes: 100,
        records: 500_000,
        group: Group::Read,
        limit: SUMMED,
    },
    Work {
        id: "random-1KiB",
        title: "random read, 1 KiB",
        kind: Kind::RandomRead,
        payload_bytes: 1024,
        records: 100_000,
        group: Group::Read,
        limit: SUMMED,
    },
    Work {
        id: "reopen",
        title: "reopen",
        kind: Kind::Reopen,
        payload_bytes: 1024,
        records: 256 << 10,
        group: Group::Read,
        limit: "opening one file and reading 4 KiB of it",
    },
    Work {
        id: "tail",
        title: "live tail, 100 B, 1 to 1",
        kind: Kind::FanOut(1),
        payload_bytes: 100,
        records: 400_000,
        group: Group::Follow,
        limit: SHARED,
    },
    Work {
        id: "fan-out-100",
        title: "fan-out, 100 B, to 100",
        kind: Kind::FanOut(100),
        payload_bytes: 100,
        records: 50_000,
        group: Group::Follow,
        limit: SHARED,
    },
    Work {
        id: "fan-out-1000",
        title: "fan-out, 100 B, to 1,000",
        kind: Kind::FanOut(1_000),
        payload_bytes: 100,
        records: 10_000,
        group: Group::Follow,
        limit: SHARED,
    },
    Work {
        id: "wake-100",
        title: "wake-bound, 100 B, to 100",
        kind: Kind::Wake(100),
        payload_bytes: 100,
        records: 3_000,
        group: Group::Follow,
        limit: WOKEN,
    },
    Work {
        id: "wake-1000",
        title: "wake-bound, 100 B, to 1,000",
        kind: Kind::Wake(1_000),
        payload_bytes: 100,
        records: 400,
        group: Group::Follow,
        limit: WOKEN,
    },
];

impl Work {
    pub(crate) fn find(id: &str) -> Option<&'static Self> {
        WORKS.iter().find(|work| work.id == id)
    }

    pub(crate) fn unit(&self) -> Unit {
        match self.kind {
            Kind::Reopen => Unit::Time,
            Kind::FanOut(_) | Kind::Wake(_) => Unit::Deliveries,
            _ => Unit::Records,
        }
    }

    /// The records of one pass.
    pub(crate) fn records(&self, extent: Extent) -> u64 {
        match (extent, self.kind) {
            (Extent::Short, _) => self.records / 4,
            (Extent::Long, Kind::Reopen) => self.records * 4,
            (Extent::Usual | Extent::Long, _) => self.records,
        }
    }
}
