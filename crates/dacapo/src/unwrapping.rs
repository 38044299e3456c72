//! The ends of a channel, without results: what fails, panics.

use std::borrow::Borrow;

use dacapo_log::Offset;

use crate::codec::{Decode, Encode};
use crate::receiver::Receiver;
use crate::sender::Sender;

/// An end of a channel that panics where it fails, as if each result were unwrapped; made by
/// [`Sender::unwrapping`] and [`Receiver::unwrapping`].
///
/// For tests, examples and first steps, and for code that comes from a channel in memory, which cannot
/// fail: a disk can.
///
/// ```
/// use dacapo::ReplayChannel;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let channel = ReplayChannel::<String>::temporary()?;
/// let sender = channel.sender().unwrapping();
/// let receiver = channel.receiver().unwrapping();
/// sender.send("hello");
/// assert_eq!(receiver.receive_blocking(), "hello");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Unwrapping<E>(E);

impl<E> Unwrapping<E> {
    pub(crate) fn new(end: E) -> Self {
        Self(end)
    }

    /// The end whose results are not unwrapped.
    pub fn into_inner(self) -> E {
        self.0
    }
}

impl<T, C> Unwrapping<Sender<T, C>> {
    /// As [`Sender::send`].
    ///
    /// # Panics
    /// Where that fails.
    #[track_caller]
    pub fn send<M: ?Sized>(&self, message: &M) -> Offset
    where
        T: Borrow<M>,
        C: Encode<M>,
    {
        match self.0.send(message) {
            Ok(offset) => offset,
            Err(error) => panic!("cannot send: {error}"),
        }
    }
}

impl<T, C: for<'a> Decode<'a, T>> Unwrapping<Receiver<T, C>> {
    /// As [`Receiver::receive`].
    ///
    /// # Panics
    /// Where that fails; also where the channel is closed.
    pub async fn receive(&self) -> T {
        match self.0.receive().await {
            Ok(message) => message,
            Err(error) => panic!("cannot receive: {error}"),
        }
    }

    /// As [`Receiver::receive_blocking`].
    ///
    /// # Panics
    /// Where that fails; also where the channel is closed.
    #[track_caller]
    pub fn receive_blocking(&self) -> T {
        match self.0.receive_blocking() {
            Ok(message) => message,
            Err(error) => panic!("cannot receive: {error}"),
        }
    }
}
