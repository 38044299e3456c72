//! When a consumer commits by itself.

use std::time::{Duration, Instant};

/// When a [`Consumer`](crate::Consumer) commits without being told: always before it receives the
/// next message, when the one before is handled, and never the last one that it gave out.
///
/// What is not committed comes again after a restart. A commit costs less than a microsecond, and
/// survives a killed process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Commits {
    /// Only when it is told to.
    #[default]
    ByHand,
    /// After each message.
    Each,
    /// After so many messages, and before it waits for one or is told of the end.
    EveryMessages(u64),
    /// After a message, this long after the last commit, and before it waits for one or is told of the
    /// end.
    EveryInterval(Duration),
}

/// What has happened since the last commit.
#[derive(Debug)]
pub(super) struct Schedule {
    commits: Commits,
    received: u64,
    since: Instant,
}

impl Schedule {
    pub(super) fn new(commits: Commits) -> Self {
        Self {
            commits,
            received: 0,
            since: Instant::now(),
        }
    }

    pub(super) fn received(&mut self) {
        self.received += 1;
    }

    pub(super) fn committed(&mut self) {
        self.received = 0;
        if let Commits::EveryInterval(_) = self.commits {
            self.since = Instant::now();
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.received > 0
            && match self.commits {
                Commits::ByHand => false,
                Commits::Each => true,
                Commits::EveryMessages(messages) => self.received >= messages,
                Commits::EveryInterval(interval) => self.since.elapsed() >= interval,
            }
    }

    pub(super) fn is_due_before_waiting(&self) -> bool {
        self.received > 0 && self.commits != Commits::ByHand
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_committing_is_due_in_its_time_and_none_with_nothing_to_commit() {
        let ways = [
            (Commits::ByHand, [false, false, false]),
            (Commits::Each, [true, true, true]),
            (Commits::EveryMessages(2), [false, true, true]),
            (Commits::EveryInterval(Duration::ZERO), [true, true, true]),
            (Commits::EveryInterval(Duration::MAX), [false, false, true]),
        ];
        for (commits, [after_one, after_two, before_waiting]) in ways {
            let mut schedule = Schedule::new(commits);
            assert!(!schedule.is_due() && !schedule.is_due_before_waiting());
            schedule.received();
            assert_eq!(schedule.is_due(), after_one, "{commits:?}");
            schedule.received();
            assert_eq!(schedule.is_due(), after_two, "{commits:?}");
            assert_eq!(
                schedule.is_due_before_waiting(),
                before_waiting,
                "{commits:?}"
            );
            schedule.committed();
            assert!(!schedule.is_due() && !schedule.is_due_before_waiting());
        }
    }
}
