//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The machine, as its kernel describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) filesystem: String,
    /// Processes that ran or wanted to, on average over the minute before the run.
    pub(crate) load_before: f64,
}

impl Machine {
    /// This one, with the filesystem that `dir` is on.
    pub(crate) fn this(dir: &Path) -> Result<Self> {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let names = rustix::system::uname();
        let memory = rustix::system::sysinfo();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load
            .split_whitespace()
            .next()
            .and_then(|load| load.parse().ok());
        Ok(Self {
            cpu: cpu
                .map_or("unknown", |cpu| cpu.trim_start_matches(['\t', ' ', ':']))
                .to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (memory.totalram * u64::from(memory.mem_unit)).div_ceil(1 << 30),
            kernel: format!(
                "{} {} {}",
                names.sysname().to_string_lossy(),
                names.release().to_string_lossy(),
                names.machine().to_string_lossy()
            ),
            filesystem: filesystem(dir)?,
            load_before: load.unwrap_or(0.0),
        })
    }
}

/// The type of the filesystem that `dir` is on, by the longest mount point above it.
fn filesystem(dir: &Path) -> Result<String> {
    let dir = dir
        .canonicalize()
        .with_context(|| format!("cannot find {}", dir.display()))?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(point, _)| dir.starts_with(point));
    // Of two on the same point, the later one counts.
    let found = above.max_by_key(|(point, _)| point.len());
    Ok(found.map_or("unknown", |(_, kind)| kind).to_owned())
}
