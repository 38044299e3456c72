//! A cursor: a consumer's name and how far it has come.

use dacapo_log::{Checkpoint, Log, ReadError, Start, Topic};

use super::error::CursorNameError;

/// Where a consumer stands, as it was last committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cursor {
    /// The consumer: 1 to 255 bytes of UTF-8 without control characters, once in a log.
    pub name: String,
    /// The topic that it reads; `None` for all records.
    pub topic: Option<Topic>,
    /// The next record that it has not yet handled, and the log's epoch when that was said.
    pub checkpoint: Checkpoint,
    /// Whether records that it has not yet handled are to be kept.
    pub holds: bool,
    /// When it was committed, in microseconds since the Unix epoch.
    pub committed_micros: u64,
    /// One more with each commit. A cursor that is deleted and made again goes on above where it was.
    pub generation: u64,
}

impl Cursor {
    /// The longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 255;

    /// How many records of `log`, which is its log, its consumer has not handled. What has taken the
    /// place of records that a power cut undid counts; records that were dropped do not.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn lag(&self, log: &Log) -> Result<u64, ReadError> {
        let tailer = log.tail(Start::Resume(self.checkpoint));
        let tailer = match &self.topic {
            Some(topic) => tailer.topic(topic),
            None => tailer,
        };
        tailer.remaining()
    }

    /// What a cursor is set to, to set another one, or this one again.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            checkpoint: self.checkpoint,
            topic: self.topic.clone(),
            holds: self.holds,
        }
    }
}

/// What a cursor is set to by hand.
///
/// ```
/// use dacapo::Position;
/// use dacapo_log::{Checkpoint, Epoch, Offset, Topic};
///
/// let start = Checkpoint { offset: Offset::ZERO, epoch: Epoch::new(1) };
/// let position = Position::new(start).topic(Topic::new("orders")?).holds(true);
/// assert_eq!(position.checkpoint.offset, Offset::ZERO);
/// # Ok::<(), dacapo_log::TopicError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The next record to be handled.
    pub checkpoint: Checkpoint,
    /// The topic that the consumer reads; `None` for all records.
    pub topic: Option<Topic>,
    /// Whether records from there on are to be kept.
    pub holds: bool,
}

impl Position {
    /// A position in all records, which keeps none of them.
    #[must_use]
    pub fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            topic: None,
            holds: false,
        }
    }

    /// The consumer reads this topic only.
    #[must_use]
    pub fn topic(mut self, topic: Topic) -> Self {
        self.topic = Some(topic);
        self
    }

    /// Whether records from there on are to be kept; not, if this is not called.
    #[must_use]
    pub fn holds(mut self, holds: bool) -> Self {
        self.holds = holds;
        self
    }
}

/// Whether a cursor can have this name.
pub(super) fn check_name(name: &str) -> Result<(), CursorNameError> {
    match name.len() {
        0 => return Err(CursorNameError::Empty),
        1..=Cursor::NAME_BYTES_MAX => {}
        bytes => return Err(CursorNameError::TooLong { bytes }),
    }
    match name.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(CursorNameError::Control {
            name: name.to_owned(),
            at,
        }),
        None => Ok(()),
    }
}

/// Whether a commit to `to` goes forward from `from`.
///
/// In a newer epoch any offset does: a crash may have undone records that the cursor had passed, and
/// their offsets are given out again.
pub(super) fn is_forward(from: Checkpoint, to: Checkpoint) -> bool {
    to.epoch > from.epoch || (to.epoch == from.epoch && to.offset >= from.offset)
}
