//! Appends of producers that resend what they have no answer for: each is there once.

use std::sync::{Arc, PoisonError};

use super::Writer;
use super::append::NewRecord;
use crate::error::{AppendError, ReadError};
use crate::producers::{Appended, ProducerState, Producers};
use crate::stamp::Stamp;
use crate::sync::MutexGuard;

impl Writer {
    /// Appends records as one unit, unless the log holds the append with this stamp already.
    ///
    /// All appends with a stamp come one after the other, so that a check and its append are one step,
    /// and so that no stamp is written while those of the log are read. Others do not wait for them.
    pub(crate) fn append_once<'a>(
        &self,
        records: impl ExactSizeIterator<Item = NewRecord<'a>> + Clone,
        stamp: Stamp,
    ) -> Result<Appended, AppendError> {
        if records.len() == 0 {
            return Err(AppendError::NothingToStamp);
        }
        let mut turn = self.producers();
        self.check_accepts(&self.appender())?;
        let producers = self.loaded(&mut turn).map_err(unreadable)?;
        if let Some(newest) = producers.judge(&stamp)? {
            return Ok(Appended::Duplicate(newest));
        }
        let appended = self.append_unannounced(records.clone(), Some(stamp));
        if let Ok(offsets) = &appended {
            producers.note(&stamp, offsets.start);
        }
        // Without the turn: a waker is code of the caller's.
        drop(turn);
        self.announce(&appended, records);
        appended.map(Appended::New)
    }

    /// The newest append of a producer.
    pub(crate) fn producer(&self, producer: u128) -> Result<Option<ProducerState>, ReadError> {
        let mut turn = self.producers();
        Ok(self.loaded(&mut turn)?.get(producer))
    }

    fn producers(&self) -> MutexGuard<'_, Option<Producers>> {
        self.producers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The producers of the log as it is now, which the first one who asks reads from it.
    fn loaded<'a>(
        &self,
        producers: &'a mut Option<Producers>,
    ) -> Result<&'a mut Producers, ReadError> {
        let producers = match producers {
            Some(producers) => producers,
            none => none.insert(Producers::load(&self.shared)?),
        };
        producers.forget_before(self.shared.oldest());
        Ok(producers)
    }
}

#[cold]
fn unreadable(source: ReadError) -> AppendError {
    AppendError::ProducersUnreadable {
        source: Arc::new(source),
    }
}
