//! Holds: what keeps records from being dropped that somebody still needs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use crate::log::Log;
use crate::offset::Offset;
use crate::retention::Pruning;
use crate::sync::{Mutex, MutexGuard};

/// Keeps the records from an offset on from being dropped; made by [`Log::hold`](crate::Log::hold).
/// Dropping it releases them.
#[derive(Debug)]
#[must_use = "a hold that is dropped holds nothing"]
pub struct Hold {
    holds: Arc<Holds>,
    id: u64,
}

/// A hold, as [`Status`](crate::Status) lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HoldStatus {
    /// As it was named.
    pub name: String,
    /// The first record that it keeps.
    pub offset: Offset,
}

impl Hold {
    pub(crate) fn take(holds: &Arc<Holds>, name: String, offset: Offset) -> Self {
        let mut register = holds.register();
        let id = register.taken;
        register.taken += 1;
        let offset = offset.max(register.kept_from);
        register.held.insert(id, HoldStatus { name, offset });
        Self {
            holds: Arc::clone(holds),
            id,
        }
    }

    /// The first record that is held: the one that was asked for, or, if that one was dropped before,
    /// or is just being dropped, the oldest that is left.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.holds.register().held[&self.id].offset
    }

    /// Whether it is a hold of this open log: of one that was closed and is open again, it is none.
    #[must_use]
    pub fn is_of(&self, log: &Log) -> bool {
        Arc::ptr_eq(&self.holds, log.holds())
    }

    /// Holds the records from `offset` on instead: releases those before, or holds more, down to the
    /// oldest that is left. Returns [`offset`](Self::offset) as it is then.
    pub fn move_to(&self, offset: Offset) -> Offset {
        let mut register = self.holds.register();
        let offset = offset.max(register.kept_from);
        let held = register.held.get_mut(&self.id);
        held.expect("until it is dropped").offset = offset;
        offset
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.register().held.remove(&self.id);
    }
}

/// All holds of one open log.
#[derive(Debug)]
pub(crate) struct Holds(Mutex<Register>);

#[derive(Debug)]
struct Register {
    /// By the order in which they were taken.
    held: BTreeMap<u64, HoldStatus>,
    taken: u64,
    /// It is decided that all records before this are dropped: too late to hold them.
    kept_from: Offset,
}

impl Holds {
    pub(crate) fn new(oldest: Offset) -> Self {
        Self(Mutex::new(Register {
            held: BTreeMap::new(),
            taken: 0,
            kept_from: oldest,
        }))
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `plan` decide, from the lowest hold, what is dropped. A hold that comes later finds it
    /// decided.
    pub(crate) fn decide(&self, plan: impl FnOnce(Option<&HoldStatus>) -> Pruning) -> Pruning {
        let mut register = self.register();
        let pruning = plan(register.lowest());
        register.kept_from = register.kept_from.max(pruning.oldest);
        pruning
    }

    pub(crate) fn lowest(&self) -> Option<HoldStatus> {
        self.register().lowest().cloned()
    }

    /// The lowest first.
    pub(crate) fn list(&self) -> Vec<HoldStatus> {
        let mut holds: Vec<HoldStatus> = self.register().held.values().cloned().collect();
        holds.sort_by_key(|hold| hold.offset);
        holds
    }
}

impl Register {
    /// Of several at the same offset, the one that was taken first.
    fn lowest(&self) -> Option<&HoldStatus> {
        self.held.values().min_by_key(|hold| hold.offset)
    }
}

#[cfg(all(test, not(any(simulation, loom))))]
mod tests {
    use super::*;

    fn take(holds: &Arc<Holds>, name: &str, offset: u64) -> Hold {
        Hold::take(holds, name.to_owned(), Offset::new(offset))
    }

    fn lowest(holds: &Holds) -> Option<u64> {
        holds.lowest().map(|hold| hold.offset.get())
    }

    #[test]
    fn the_lowest_hold_counts_until_it_is_moved_or_dropped() {
        let holds = Arc::new(Holds::new(Offset::ZERO));
        assert_eq!(lowest(&holds), None);
        let (low, high) = (take(&holds, "low", 3), take(&holds, "high", 8));
        assert_eq!(lowest(&holds), Some(3));
        assert_eq!(low.move_to(Offset::new(9)), Offset::new(9));
        assert_eq!(lowest(&holds), Some(8));
        drop(high);
        assert_eq!(lowest(&holds), Some(9));
        drop(low);
        assert_eq!(lowest(&holds), None);
    }

    #[test]
    fn what_is_decided_to_be_dropped_is_held_no_more() {
        let holds = Arc::new(Holds::new(Offset::new(2)));
        let hold = take(&holds, "early", 0);
        assert_eq!(hold.offset(), Offset::new(2));
        assert_eq!(hold.move_to(Offset::new(7)), Offset::new(7));

        let decided = holds.decide(|lowest| Pruning::none(lowest.expect("there is one").offset));

        assert_eq!(decided.oldest, Offset::new(7));
        assert_eq!(take(&holds, "late", 3).offset(), Offset::new(7));
        assert_eq!(hold.move_to(Offset::new(3)), Offset::new(7));
    }
}
