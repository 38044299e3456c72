//! The guards that the simulator can take out, to show that it would notice.

use std::cell::Cell;

use crate::guard::Guard;

thread_local! {
    static TAKEN_OUT: Cell<Option<Guard>> = const { Cell::new(None) };
}

/// Takes a guard out of all that runs on this thread, or puts it back.
pub(crate) fn take_out(guard: Option<Guard>) {
    TAKEN_OUT.set(guard);
}

pub(crate) fn stands(guard: Guard) -> bool {
    TAKEN_OUT.get() != Some(guard)
}
