//! Standard input in large blocks, which SIGINT or SIGTERM can end.
//!
//! Cutting the blocks into records is the append command's job.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// Standard input of a process that ends cleanly when it is asked to.
pub(crate) struct Input {
    signals: UnixStream,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// This many bytes; at least one.
    Bytes(usize),
    /// The end of the input.
    End,
    /// A signal asked to stop.
    Stopped,
}

impl Input {
    /// From now on a first SIGINT or SIGTERM ends the input, and a second one the process.
    pub(crate) fn until_signalled() -> io::Result<Self> {
        let (signals, sender) = UnixStream::pair()?;
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
            low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { signals })
    }

    /// Waits for input and reads what is there: never waits for a full buffer.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Got> {
        assert!(
            !buffer.is_empty(),
            "a read into no space looks like the end"
        );
        let stdin = io::stdin();
        loop {
            let mut ready = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(&stdin, PollFlags::IN),
            ];
            match poll(&mut ready, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !ready[0].revents().is_empty() {
                return Ok(Got::Stopped);
            }
            match rustix::io::read(&stdin, &mut *buffer) {
                Ok(0) => return Ok(Got::End),
                Ok(bytes) => return Ok(Got::Bytes(bytes)),
                // A non-blocking descriptor whose bytes somebody else took: wait again.
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
