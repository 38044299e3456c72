//! What becomes of a subscription that falls behind: the choices, and who notices.

use std::collections::VecDeque;

use dacapo_log::{Offset, Start, Tailer};

use crate::error::ReceiveError;
use crate::inbox::Inbox;

/// What a [`Subscription`](crate::Subscription) does when it falls behind.
///
/// A `buffer` counts unread messages of the subscription; 0 is taken for 1. It is no memory: messages
/// stay in the log in any case, and a slow subscription never slows a sender. It is for clients who
/// want the present rather than all of the past.
///
/// Whether too many are unread is looked at when something is received, so that each message is read
/// twice. One that has fallen behind counts what it has missed by reading it, some million messages a
/// second; with [`End`](Self::End) it stops at the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lag {
    /// It reads everything, from the disk where it has to: what only a log can offer, and the default.
    /// Unless old messages are dropped by a retention, which is an error then, nothing is missed.
    #[default]
    Never,
    /// It is told by [`ReceiveError::Lagged`], once, and goes on with the newest `buffer` messages.
    Error {
        /// How many messages may be unread.
        buffer: usize,
    },
    /// It ends, with [`ReceiveError::FellBehind`], so that its client comes again with the last offset
    /// that it has seen, and misses nothing. What was there when it subscribed is replayed first, and
    /// counts for nothing, however much it is: otherwise whoever had fallen behind would never catch up.
    End {
        /// How many messages may be unread.
        buffer: usize,
    },
    /// It goes on with the newest `buffer` messages, and only counts what it has passed over: see
    /// [`Subscription::skipped`](crate::Subscription::skipped).
    Skip {
        /// How many messages may be unread.
        buffer: usize,
    },
}

impl Lag {
    /// How many messages may be unread, if there is a bound.
    #[must_use]
    pub fn buffer(&self) -> Option<usize> {
        match *self {
            Self::Never => None,
            Self::Error { buffer } | Self::End { buffer } | Self::Skip { buffer } => {
                Some(buffer.max(1))
            }
        }
    }
}

/// How far a subscription fell behind, and where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} passed over; receiving goes on at offset {resume_at}", messages_were(*missed))]
#[non_exhaustive]
pub struct Lagged {
    /// How many messages are passed over.
    pub missed: u64,
    /// The next message.
    pub resume_at: Offset,
}

fn messages_were(number: u64) -> String {
    match number {
        1 => "1 unread message was".to_owned(),
        number => format!("{number} unread messages were"),
    }
}

/// Notices when a subscription falls behind.
///
/// A second tailer, the scout, runs ahead to the end and counts. So each message is looked at twice, and
/// none is kept; and whoever wrote it, this process or another, it counts.
#[derive(Clone, Debug)]
pub(super) struct Gauge {
    lag: Lag,
    /// `None`: it begins where the subscription stands.
    scout: Option<Tailer>,
    /// Messages between the subscription and the scout, or fewer, as some may be deleted. Below 0, those
    /// that were received before the scout saw them.
    ahead: i64,
    skipped: u64,
    /// Of a subscription that has ended: the first message that it did not receive.
    ended_at: Option<Offset>,
    /// Where the log ended when the subscription began, or began anew: what is before is replayed.
    live_from: Offset,
}

impl Gauge {
    pub(super) fn new(lag: Lag, live_from: Offset) -> Self {
        Self {
            lag,
            live_from,
            scout: None,
            ahead: 0,
            skipped: 0,
            ended_at: None,
        }
    }

    /// The same subscription, with another lag.
    pub(super) fn with(&self, lag: Lag) -> Self {
        Self::new(lag, self.live_from)
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The subscription goes on at another place.
    pub(super) fn begin_anew(&mut self) {
        self.scout = None;
        self.ahead = 0;
    }

    /// The subscription was told to go on at another place: it replays what is there by now.
    pub(super) fn seek(&mut self, end: Offset) {
        self.begin_anew();
        self.live_from = end;
    }

    /// What the subscription's look for its next message came to.
    pub(super) fn note<R>(&mut self, taken: &Result<Option<R>, ReceiveError>) {
        match taken {
            Ok(Some(_)) => self.ahead -= 1,
            Ok(None) if self.ahead <= 0 => {}
            // What the scout has counted is gone, or the subscription moved.
            Ok(None) | Err(_) => self.begin_anew(),
        }
    }

    /// Does what is to be done, if more messages are unread than may be. Before each look of the
    /// subscription for its next message.
    pub(super) fn check(&mut self, inbox: &Inbox, tailer: &mut Tailer) -> Result<(), ReceiveError> {
        let Some(buffer) = self.lag.buffer() else {
            return Ok(());
        };
        if let Some(resume_at) = self.ended_at {
            return Err(ReceiveError::FellBehind { buffer, resume_at });
        }
        let is_replaying = tailer.next_offset() < self.live_from;
        if is_replaying && matches!(self.lag, Lag::End { .. }) {
            self.begin_anew();
            return Ok(());
        }
        if !self.seems_behind(inbox, tailer, buffer) {
            return Ok(());
        }
        let count_max = match self.lag {
            Lag::End { .. } => buffer as u64 + 1,
            _ => u64::MAX,
        };
        let unread = Unread::count(inbox, tailer, count_max, buffer);
        let missed = unread.count - unread.newest.len() as u64;
        if missed > 0 && matches!(self.lag, Lag::End { .. }) {
            self.begin_anew();
            self.ended_at = Some(unread.first);
            let resume_at = unread.first;
            return Err(ReceiveError::FellBehind { buffer, resume_at });
        }
        self.ahead = i64::try_from(unread.newest.len()).expect("it is in memory");
        self.scout = Some(unread.counter);
        if missed == 0 {
            return Ok(());
        }
        let resume_at = unread.newest[0];
        tailer.seek(Start::AtOrOldest(resume_at));
        if let Lag::Skip { .. } = self.lag {
            self.skipped += missed;
            return Ok(());
        }
        Err(ReceiveError::Lagged(Lagged { missed, resume_at }))
    }

    /// Whether more than `buffer` messages are unread, unless some were deleted.
    fn seems_behind(&mut self, inbox: &Inbox, tailer: &Tailer, buffer: usize) -> bool {
        let scout = self.scout.get_or_insert_with(|| tailer.clone());
        let buffer = i64::try_from(buffer).unwrap_or(i64::MAX);
        while self.ahead <= buffer {
            match scout.try_next_ref() {
                Ok(Some(record)) => self.ahead += i64::from(inbox.is_to_come(record)),
                Ok(None) => {
                    // What was received before it could be counted may be deleted by now.
                    self.ahead = self.ahead.max(0);
                    return false;
                }
                // The subscription comes to what is wrong there, and is told.
                Err(_) => return false,
            }
        }
        true
    }
}

/// What a subscription has not received.
struct Unread {
    count: u64,
    first: Offset,
    /// Oldest first.
    newest: VecDeque<Offset>,
    /// Stands behind all that was counted.
    counter: Tailer,
}

impl Unread {
    /// Counts from where the tailer stands, up to `count_max`, and keeps in mind where the newest
    /// messages are.
    fn count(inbox: &Inbox, tailer: &Tailer, count_max: u64, newest_max: usize) -> Self {
        let mut unread = Self {
            count: 0,
            first: tailer.next_offset(),
            newest: VecDeque::new(),
            counter: tailer.clone(),
        };
        while unread.count < count_max
            && let Ok(Some(record)) = unread.counter.try_next_ref()
        {
            if !inbox.is_to_come(record) {
                continue;
            }
            if unread.count == 0 {
                unread.first = record.offset();
            }
            if unread.newest.len() == newest_max {
                unread.newest.pop_front();
            }
            unread.newest.push_back(record.offset());
            unread.count += 1;
        }
        unread
    }
}
