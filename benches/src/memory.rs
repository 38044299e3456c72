//! What the kernel says of this process's memory.

use std::fmt;
use std::fs;
use std::io;

/// Memory in KiB, as `/proc/self/status` has it.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// `VmRSS`: all that is resident, mapped files included.
    pub resident: u64,
    /// `VmHWM`: the most that was.
    pub most_resident: u64,
    /// `RssAnon`: what no file is behind, and so what the process itself takes.
    pub anonymous: u64,
}

impl Memory {
    /// The memory of this process now.
    ///
    /// # Errors
    /// Those of reading `/proc`, and where it lacks a figure.
    pub fn now() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let figure = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.ok_or_else(|| io::Error::other(format!("no {name} in /proc/self/status")))
        };
        Ok(Self {
            resident: figure("VmRSS:")?,
            most_resident: figure("VmHWM:")?,
            anonymous: figure("RssAnon:")?,
        })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VmRSS {} KiB, VmHWM {} KiB, RssAnon {} KiB",
            self.resident, self.most_resident, self.anonymous
        )
    }
}
