//! One channel: what the log says of it, who reads it, and who waits to write to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dacapo_log::{AppendError, Log, Offset, ReadError};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::address::{Address, ChannelId, Role};
use super::failure::{Code, Failure};
use super::stored::{self, ChannelRecord, Ending, GoneRecord, control_topic, data_topic};
use crate::keys::Keys;

/// What is in memory of each channel, messages or not: no task, no descriptor, and this.
const _: () = assert!(size_of::<Channel>() <= 256);

pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    live: Mutex<Live>,
    /// Held by the writer whose turn it is: they come in the order in which they asked.
    turn: tokio::sync::Mutex<()>,
    /// Tells that writer of a message that was taken, or of the channel's end.
    moved: Notify,
}

struct Live {
    record: ChannelRecord,
    /// Whether the log has the record as it is.
    is_stored: bool,
    /// Where the log has it, or an older one.
    stored_at: Offset,
    /// The messages before this were handed to a reader.
    taken: Offset,
    /// How many there are behind; `None` until somebody needs to know.
    unread: Option<u64>,
    reader: Option<Reader>,
    /// How many reads there were: a name for each.
    reads: u64,
    /// When the last read ended, or the channel was created, or the server began to serve.
    read_at: Instant,
}

/// Who reads a channel now.
struct Reader {
    number: u64,
    /// The read is over then. A client that takes nothing from its socket keeps it from noticing: from
    /// then on, the next one takes its place.
    until: Instant,
}

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// With the first message that was not delivered.
    Unread,
    /// With the first message of the channel that is left.
    Oldest,
    /// With this message; those before are confirmed.
    At(Offset),
}

/// A channel that has just ended.
pub(crate) struct Ended {
    /// Where the log says so.
    pub(crate) offset: Offset,
    pub(crate) unread: u64,
    pub(crate) created_micros: u64,
}

impl Channel {
    /// One whose record the log has at `stored_at`.
    pub(crate) fn new(
        id: ChannelId,
        record: ChannelRecord,
        stored_at: Offset,
        unread: Option<u64>,
    ) -> Self {
        Self {
            id,
            live: Mutex::new(Live {
                taken: record.confirmed(),
                record,
                is_stored: true,
                stored_at,
                unread,
                reader: None,
                reads: 0,
                read_at: Instant::now(),
            }),
            turn: tokio::sync::Mutex::new(()),
            moved: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn consumer_address(&self, keys: &Keys) -> String {
        self.lock().consumer_address(self.id, keys)
    }

    pub(crate) fn agent(&self) -> String {
        self.lock().record.agent.clone()
    }

    /// Appends a message, as soon as there is space for one among `unread_max`. Does not wait for the
    /// disk. Cancel-safe: a dropped future has appended nothing.
    pub(crate) async fn write(
        &self,
        log: &Log,
        message: &[u8],
        unread_max: Option<u64>,
        deadline: Instant,
    ) -> Result<Offset, Failure> {
        let full = |_| Failure::new(Code::Timeout, "the channel is full, and nobody reads it");
        let _turn = timeout_at(deadline, self.turn.lock()).await.map_err(full)?;
        loop {
            if let Some(offset) = self.try_write(log, message, unread_max)? {
                return Ok(offset);
            }
            // What was taken since the look is not missed: `Notify` keeps it.
            timeout_at(deadline, self.moved.notified())
                .await
                .map_err(full)?;
        }
    }

    fn try_write(
        &self,
        log: &Log,
        message: &[u8],
        unread_max: Option<u64>,
    ) -> Result<Option<Offset>, Failure> {
        let data = data_topic(self.id);
        let mut live = self.lock();
        if live.record.ending.is_some() {
            return Err(Failure::no_such_channel());
        }
        // Nobody counts where there is no limit.
        if let Some(unread_max) = unread_max
            && live.count_unread(self.id, log)? >= unread_max
        {
            return Ok(None);
        }
        let offset = log.append_to(&data, message)?;
        if let Some(unread) = &mut live.unread {
            *unread += 1;
        }
        Ok(Some(offset))
    }

    /// Begins a read, the only one until it [ends](Self::end_read), or its time is over. Returns its
    /// number, and where it begins.
    pub(crate) fn begin_read(
        &self,
        log: &Log,
        from: From,
        until: Instant,
    ) -> Result<(u64, Offset), Failure> {
        if let From::At(offset) = from {
            self.check_message(log, offset)?;
        }
        let mut live = self.lock();
        if live.record.ending.is_some() {
            return Err(Failure::no_such_channel());
        }
        if live.is_read() {
            let message = "the channel is being read, and one reads at a time";
            return Err(Failure::new(Code::Busy, message));
        }
        // What a reader has got that takes nothing any more is read again.
        live.return_unconfirmed();
        live.reads += 1;
        let number = live.reads;
        live.reader = Some(Reader { number, until });
        let start = match from {
            From::Unread => live.record.confirmed(),
            From::Oldest => Offset::new(live.record.begin),
            From::At(offset) => {
                live.confirm(offset);
                self.moved.notify_one();
                offset
            }
        };
        Ok((number, start))
    }

    /// The reader of this number has the message at `offset`; `false` where another has taken its place.
    pub(crate) fn take(&self, number: u64, offset: Offset) -> bool {
        let mut live = self.lock();
        if !live.is_reader(number) {
            return false;
        }
        if offset < live.taken {
            return true; // it is read again
        }
        live.taken = offset.next();
        live.unread = live.unread.map(|unread| unread.saturating_sub(1));
        self.moved.notify_one();
        true
    }

    /// The messages before `next` that the reader has not got are gone: nobody waits for them any more.
    pub(crate) fn pass(&self, number: u64, next: Offset) {
        let mut live = self.lock();
        if !live.is_reader(number) {
            return;
        }
        live.taken = live.taken.max(next);
        live.unread = None;
        self.moved.notify_one();
    }

    /// Ends a read, which has delivered all messages before `delivered`; `None` where it broke off, or
    /// says itself what it has got. What is not confirmed is read again.
    pub(crate) fn end_read(&self, log: &Log, number: u64, delivered: Option<Offset>) {
        let mut live = self.lock();
        if !live.is_reader(number) {
            return;
        }
        live.reader = None;
        live.read_at = Instant::now();
        if let Some(delivered) = delivered {
            live.confirm(delivered);
        }
        live.return_unconfirmed();
        // Not waited for: a power cut makes the next read repeat what this one has delivered.
        if let Err(error) = live.store(self.id, log) {
            tracing::warn!(channel = %self.id, %error, "the end of a read was not stored");
        }
    }

    /// Confirms the message at `offset` and all before it, and returns what to wait for.
    pub(crate) fn acknowledge(&self, log: &Log, offset: Offset) -> Result<Option<Offset>, Failure> {
        self.check_message(log, offset)?;
        let mut live = self.lock();
        if live.record.ending.is_some() {
            return Err(Failure::no_such_channel());
        }
        live.confirm(offset.next());
        self.moved.notify_one();
        Ok(live.store(self.id, log)?)
    }

    /// Whether a message of this channel is at `offset`.
    fn check_message(&self, log: &Log, offset: Offset) -> Result<(), Failure> {
        let none = || Failure::bad_request("the channel has no message of this eid");
        match log.get(offset) {
            Ok(record) if record.topic() == data_topic(self.id).as_str() => Ok(()),
            Ok(_) | Err(ReadError::BeyondEnd { .. }) => Err(none()),
            Err(ReadError::Pruned { .. } | ReadError::Removed { .. } | ReadError::Lost { .. }) => {
                Err(Failure::new(
                    Code::Gone,
                    "the message of this eid was dropped; read from=oldest",
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ends the channel, once: by one batch that says so to whoever opens the log, and to `webhooks`.
    /// One that has expired is left where somebody reads it, or has by now. `None` where it was left, or
    /// had ended.
    pub(crate) fn end(
        &self,
        log: &Log,
        ending: Ending,
        expire_after: Duration,
        webhooks: Option<&Keys>,
    ) -> Result<Option<Ended>, AppendError> {
        let mut live = self.lock();
        let is_left = ending == Ending::Expired && !live.is_expired(expire_after);
        if is_left || live.record.ending.is_some() {
            return Ok(None);
        }
        let unread = live.count_unread(self.id, log).unwrap_or_else(|error| {
            tracing::warn!(channel = %self.id, %error, "the unread messages are not counted");
            0
        });
        let mut record = live.record.clone();
        record.ending = Some(ending);
        let gone = webhooks.map(|keys| GoneRecord {
            channel: live.consumer_address(self.id, keys),
        });
        let gone = gone.map(|gone| (stored::gone_topic(), stored::to_bytes(&gone)));
        let ended = (control_topic(self.id), stored::to_bytes(&record));
        let offsets = log.append_batch_to([ended].into_iter().chain(gone))?;
        live.record = record;
        self.moved.notify_one();
        let said = Offset::new(offsets.end.get().saturating_sub(1));
        Ok(Some(Ended {
            // The reader, if there is one, is told by the deletion of the topic.
            offset: forget(self.id, log).unwrap_or(said),
            unread,
            created_micros: live.record.created_micros,
        }))
    }

    /// Stores its record again where that lies before `offset`, and returns what to wait for.
    pub(crate) fn keep(&self, log: &Log, offset: Offset) -> Result<Option<Offset>, AppendError> {
        let mut live = self.lock();
        if live.stored_at >= offset {
            return Ok(None);
        }
        live.is_stored = false;
        live.store(self.id, log)
    }

    /// Whether nobody has read it for so long.
    pub(crate) fn is_expired(&self, expire_after: Duration) -> bool {
        let live = self.lock();
        live.record.ending.is_none() && live.is_expired(expire_after)
    }
}

/// Has the records of a channel that has ended removed; at the next open, if not now. Returns where the
/// log says so.
pub(crate) fn forget(id: ChannelId, log: &Log) -> Option<Offset> {
    let mut last = None;
    // The one that says that it has ended goes last.
    for topic in [data_topic(id), control_topic(id)] {
        match log.delete_topic(&topic) {
            Ok(offset) => last = Some(offset),
            Err(error) => {
                tracing::warn!(%topic, %error, "a channel that is gone keeps its space for now");
                break;
            }
        }
    }
    last
}

impl Live {
    fn is_read(&self) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|reader| Instant::now() < reader.until)
    }

    fn is_reader(&self, number: u64) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|reader| reader.number == number)
    }

    fn is_expired(&self, expire_after: Duration) -> bool {
        let reader = self.reader.as_ref();
        let read_at = reader.map_or(self.read_at, |reader| reader.until);
        !self.is_read() && read_at.elapsed() >= expire_after
    }

    /// Makes unread what was taken and not confirmed.
    fn return_unconfirmed(&mut self) {
        if self.taken > self.record.confirmed() {
            self.taken = self.record.confirmed();
            self.unread = None;
        }
    }

    fn consumer_address(&self, id: ChannelId, keys: &Keys) -> String {
        let role = Role::Consumer;
        Address { role, id }.sealed(&self.record.agent, keys.tagged(self.record.key()))
    }

    fn count_unread(&mut self, id: ChannelId, log: &Log) -> Result<u64, ReadError> {
        match self.unread {
            Some(unread) => Ok(unread),
            None => {
                let unread = log.count(&data_topic(id), self.taken)?;
                self.unread = Some(unread);
                Ok(unread)
            }
        }
    }

    /// All messages before `next` are handled.
    fn confirm(&mut self, next: Offset) {
        if next <= self.record.confirmed() {
            return;
        }
        self.record.confirmed = next.get();
        self.is_stored = false;
        if self.taken < self.record.confirmed() {
            self.taken = self.record.confirmed();
            self.unread = None;
        }
    }

    /// Appends what is not in the log yet, and returns what to wait for until it is durable.
    fn store(&mut self, id: ChannelId, log: &Log) -> Result<Option<Offset>, AppendError> {
        if self.is_stored || self.record.ending.is_some() {
            return Ok(None);
        }
        let record = stored::to_bytes(&self.record);
        let offset = log.append_to(&control_topic(id), &record)?;
        (self.is_stored, self.stored_at) = (true, offset);
        Ok(Some(offset))
    }
}

/// A read that is under way: ends when this is dropped.
pub(crate) struct ReadGuard {
    pub(crate) channel: Arc<Channel>,
    number: u64,
    log: Log,
    is_over: bool,
}

impl ReadGuard {
    /// Of the read that has [begun](Channel::begin_read) with this number.
    pub(crate) fn new(channel: Arc<Channel>, number: u64, log: Log) -> Self {
        Self {
            channel,
            number,
            log,
            is_over: false,
        }
    }

    pub(crate) fn end(&mut self, delivered: Option<Offset>) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.channel.end_read(&self.log, self.number, delivered);
        }
    }

    /// The client has the message at `offset`; `false` where another reads by now.
    pub(crate) fn take(&self, offset: Offset) -> bool {
        self.channel.take(self.number, offset)
    }

    /// The messages before `next` that the client has not got are gone.
    pub(crate) fn pass(&self, next: Offset) {
        self.channel.pass(self.number, next);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }
}

/// It broke off.
impl Drop for ReadGuard {
    fn drop(&mut self) {
        self.end(None);
    }
}
