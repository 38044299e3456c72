//! What a process has used, children included: from `/proc`.

use std::fs;
use std::io;
use std::time::Duration;

/// A process and those that it has started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// The time that it has kept processors busy so far. The kernel counts in hundredths of a second.
    pub(crate) fn cpu(self) -> io::Result<Duration> {
        self.sum(&|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let ticks: u64 = cpu_ticks(&stat).ok_or_else(|| unexpected(pid, "stat", &stat))?;
            let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
            Ok(Duration::from_secs_f64(seconds))
        })
    }

    /// The memory that is its own, in bytes: what it has allocated, without mapped files.
    pub(crate) fn memory_bytes(self) -> io::Result<u64> {
        self.sum(&|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let kib = status_kib(&status, "RssAnon:");
            let kib = kib.ok_or_else(|| unexpected(pid, "status", &status))?;
            Ok(kib * 1024)
        })
    }

    fn sum<T: std::iter::Sum>(self, of: &dyn Fn(u32) -> io::Result<T>) -> io::Result<T> {
        let mut pids = vec![self.0];
        let mut seen = 0;
        while let Some(pid) = pids.get(seen) {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            pids.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
            seen += 1;
        }
        pids.into_iter().map(of).sum()
    }
}

/// In user space and in the kernel; the name of the command stands in brackets, and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn unexpected(pid: u32, file: &str, text: &str) -> io::Error {
    io::Error::other(format!("/proc/{pid}/{file} is not as expected: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_command_does_not_move_the_fields_behind_it() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 900 0 0 0 31 11 5 6 20 0 1 0 99";
        assert_eq!(cpu_ticks(stat), Some(42));
    }

    #[test]
    fn memory_is_found_by_its_name() {
        let status = "VmRSS:\t    9 kB\nRssAnon:\t     128 kB\nRssFile:\t 1 kB\n";
        assert_eq!(status_kib(status, "RssAnon:"), Some(128));
        assert_eq!(status_kib(status, "RssShmem:"), None);
    }

    #[test]
    fn this_process_has_used_memory() {
        let this = Process(std::process::id());
        assert!(this.memory_bytes().unwrap() > 0);
        assert!(this.cpu().is_ok());
    }
}
