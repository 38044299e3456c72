//! Whose turn it is: the order in which the threads of a simulation run.

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};

use super::random::Random;

/// Runs one execution. A thread goes on for a while before another one takes over; how long, the
/// seed decides, so that some seeds switch at every step and others rarely.
#[derive(Debug)]
pub(crate) struct Turns {
    random: Random,
    patience: u64,
    begun: bool,
}

impl Turns {
    pub(crate) fn new(mut random: Random) -> Self {
        let patience = *random.pick(&[1, 2, 4, 16, 64]);
        Self {
            random,
            patience,
            begun: false,
        }
    }
}

impl Scheduler for Turns {
    fn new_execution(&mut self) -> Option<Schedule> {
        let first = !std::mem::replace(&mut self.begun, true);
        first.then(|| Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        _: bool,
    ) -> Option<TaskId> {
        let stays = current.filter(|&current| runnable.iter().any(|task| task.id() == current));
        if let Some(current) = stays
            && !self.random.one_in(self.patience)
        {
            return Some(current);
        }
        Some(self.random.pick(runnable).id())
    }

    fn next_u64(&mut self) -> u64 {
        self.random.next()
    }
}
