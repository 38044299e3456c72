//! A producer that gives its messages stamps, and sends again what it has no answer for, and what it
//! did not see become durable before its process died.

use super::model::Item;
use super::users::{Producer, some_topic};
use crate::producers::Appended;
use crate::{AppendError, Stamp, Topic};

pub(super) struct Resender {
    pub(super) name: u128,
    pub(super) producer: Producer,
}

/// The log went, or would not go on.
struct Over;

impl Resender {
    pub(super) fn send(&mut self) {
        // It ends as its log does.
        let _ = self.resume().and_then(|()| self.send_new());
    }

    /// Sends again what an earlier process has sent in vain, or perhaps not in vain.
    fn resume(&mut self) -> Result<(), Over> {
        let Producer {
            disk, model, log, ..
        } = &self.producer;
        let before = log.oldest();
        let told = log.producer(self.name);
        if disk.crashed().is_some() {
            return Err(Over);
        }
        let told = match told {
            Ok(told) => told,
            Err(error) => {
                assert!(disk.failed().is_some(), "stamps are not read: {error}");
                return Err(Over);
            }
        };
        let oldest = before..=log.oldest();
        let resent = model.get().messages.resume(self.name, told, oldest);
        for stamp in resent {
            if !self.deliver(&stamp)? {
                break;
            }
        }
        Ok(())
    }

    fn send_new(&mut self) -> Result<(), Over> {
        for _ in 0..self.producer.random.below(20) {
            let parts = match self.producer.random.below(3) {
                0 => 1 + self.producer.random.index(5),
                _ => 1,
            };
            let random = &mut self.producer.random;
            let topic = random.one_in(2).then(|| some_topic(random));
            let items = (0..parts)
                .map(|_| Item::new(topic.as_ref(), self.producer.payload(600)))
                .collect();
            let stamp = (self.producer.model.get().messages).compose(self.name, items);
            let repetitions = self.producer.random.below(3);
            for _ in 0..=repetitions {
                if !self.deliver(&stamp)? {
                    break;
                }
            }
            if self.producer.random.one_in(6) {
                self.producer.sync();
            }
            let durable = self.producer.log.durable_offset();
            if self.producer.disk.crashed().is_some() {
                return Err(Over);
            }
            let mut model = self.producer.model.get();
            model.promised(durable);
            model.messages.settle(self.name, durable);
        }
        Ok(())
    }

    /// Sends a message; `false` if the producer has to begin anew.
    fn deliver(&self, stamp: &Stamp) -> Result<bool, Over> {
        let Producer {
            disk, model, log, ..
        } = &self.producer;
        let items = model.get().messages.items(stamp);
        let begun = model.get().begin(items.clone());
        let topic = Topic::new(&items[0].topic).ok();
        let answer = match &items[..] {
            [item] => log.append_once(*stamp, topic.as_ref(), &item.payload),
            _ => {
                let records = items.iter().map(|item| (topic.as_ref(), &item.payload));
                log.append_batch_once(*stamp, records)
            }
        };
        if disk.crashed().is_some() {
            return Err(Over);
        }
        let faulty = disk.failed().is_some();
        let mut model = model.get();
        match answer {
            Ok(answer) => {
                model.messages.answered(stamp, &answer, log.oldest());
                match answer {
                    Appended::New(offsets) => model.appended(&begun, Ok(offsets), faulty),
                    Appended::Duplicate(_) => {
                        model.not_appended(&begun);
                        model.tally.repeated += 1;
                    }
                }
                Ok(true)
            }
            Err(AppendError::UnknownProducer { .. }) => {
                model.not_appended(&begun);
                model.messages.forgotten(self.name, log.oldest());
                Ok(false)
            }
            Err(
                refusal @ (AppendError::Fenced { .. }
                | AppendError::EpochNotBegun { .. }
                | AppendError::SequenceGap { .. }
                | AppendError::NothingToStamp),
            ) => panic!("{stamp:?} was refused: {refusal}"),
            Err(error) => {
                model.appended(&begun, Err(error), faulty);
                Err(Over)
            }
        }
    }
}
