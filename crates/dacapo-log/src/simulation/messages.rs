//! What producers with stamps have sent, and where it is: each message once, and in its order.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use super::model::Item;
use crate::producers::Appended;
use crate::{Log, Offset, ProducerState, Stamp};

/// Producer, epoch and sequence, in this order.
type Key = (u128, u64, u64);

#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// The records of each message.
    sent: BTreeMap<Key, Vec<Item>>,
    /// Where those are that an answer or a look into the log has told of.
    at: BTreeMap<Key, u64>,
    progress: BTreeMap<u128, Progress>,
}

/// What a producer remembers over the death of its process.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    epoch: u64,
    /// The sequence of the next new message.
    next: u64,
    /// Messages from here on were not seen to be durable.
    unsettled: u64,
}

fn key(stamp: &Stamp) -> Key {
    (stamp.producer, stamp.epoch, stamp.sequence)
}

impl Messages {
    pub(super) fn items(&self, stamp: &Stamp) -> Vec<Item> {
        self.sent[&key(stamp)].clone()
    }

    /// A new message, which comes next.
    pub(super) fn compose(&mut self, producer: u128, items: Vec<Item>) -> Stamp {
        let progress = self.progress.entry(producer).or_default();
        let stamp = Stamp {
            producer,
            epoch: progress.epoch,
            sequence: progress.next,
        };
        progress.next += 1;
        self.sent.insert(key(&stamp), items);
        stamp
    }

    /// The log was asked for the producer's newest append while `oldest` was what it began with. Returns
    /// what has to be sent again.
    pub(super) fn resume(
        &mut self,
        producer: u128,
        told: Option<ProducerState>,
        oldest: RangeInclusive<Offset>,
    ) -> Vec<Stamp> {
        let newest = self.newest(producer);
        match (newest, told) {
            (Some((key, at)), Some(told)) => {
                assert_eq!((key.1, key.2), (told.epoch, told.sequence), "the newest");
                assert_eq!(at, told.offset.get(), "where the newest is");
                assert!(at >= oldest.start().get(), "it was pruned");
            }
            (Some((_, at)), None) => {
                assert!(at < oldest.end().get(), "{producer} was forgotten");
                self.begin_anew(producer);
            }
            (None, None) => {}
            (None, Some(told)) => panic!("{told:?} of {producer}, which has sent nothing"),
        }
        let Progress {
            epoch,
            next,
            unsettled,
        } = *self.progress.entry(producer).or_default();
        let stamp = |sequence| Stamp {
            producer,
            epoch,
            sequence,
        };
        (unsettled..next).map(stamp).collect()
    }

    /// Takes a higher epoch, and gives up what was sent in this one.
    fn begin_anew(&mut self, producer: u128) {
        let progress = self.progress.entry(producer).or_default();
        *progress = Progress {
            epoch: progress.epoch + 1,
            ..Progress::default()
        };
    }

    fn newest(&self, producer: u128) -> Option<(Key, u64)> {
        let all = (producer, 0, 0)..=(producer, u64::MAX, u64::MAX);
        let last = self.at.range(all).next_back();
        last.map(|(&key, &at)| (key, at))
    }

    /// The log, which begins with `oldest`, has answered.
    pub(super) fn answered(&mut self, stamp: &Stamp, answer: &Appended, oldest: Offset) {
        let there = self.at.get(&key(stamp)).copied();
        match answer {
            Appended::New(offsets) => {
                // A first message that was pruned cannot be told from one that was never there.
                let forgotten = stamp.sequence == 0 && there.is_some_and(|at| at < oldest.get());
                assert!(there.is_none() || forgotten, "{stamp:?} is there twice");
                if forgotten {
                    self.at.retain(|key, _| key.0 != stamp.producer);
                }
                self.at.insert(key(stamp), offsets.start.get());
            }
            Appended::Duplicate(told) => {
                assert!(there.is_some(), "{stamp:?} was never appended");
                let newest = self.newest(stamp.producer).expect("there is one");
                let expected = (stamp.epoch, newest.0.2, newest.1);
                let told = (told.epoch, told.sequence, told.offset.get());
                assert_eq!(told, expected, "what {stamp:?} repeats");
            }
        }
    }

    /// The log says that it has forgotten the producer, and begins with `oldest`.
    pub(super) fn forgotten(&mut self, producer: u128, oldest: Offset) {
        let newest = self.newest(producer);
        let pruned = newest.is_some_and(|(_, at)| at < oldest.get());
        assert!(pruned, "{producer} was forgotten, with {newest:?}");
        self.begin_anew(producer);
    }

    /// Messages before `durable` need not be sent again.
    pub(super) fn settle(&mut self, producer: u128, durable: Offset) {
        let progress = self.progress.entry(producer).or_default();
        let at = |sequence| self.at.get(&(producer, progress.epoch, sequence));
        let durable = |sequence: &u64| at(*sequence).is_some_and(|at| *at < durable.get());
        let settled = (progress.unsettled..progress.next)
            .take_while(durable)
            .count();
        progress.unsettled += settled as u64;
    }

    /// A log was opened, and holds these records of a range: what is there of each producer is there
    /// once and in order, but for what a compaction has removed, and the log knows its newest.
    pub(super) fn check_opened(
        &mut self,
        log: &Log,
        range: Range<u64>,
        compacted: bool,
        stamps: &BTreeMap<u64, Stamp>,
        found: &BTreeMap<u64, Item>,
    ) {
        let mut newest: BTreeMap<u128, (Stamp, u64)> = BTreeMap::new();
        // Those before the range were pruned, and are remembered.
        self.at.retain(|_, at| *at < range.end);
        for (&at, stamp) in stamps {
            let comes_next = match newest.get(&stamp.producer) {
                Some((last, _)) if last.epoch == stamp.epoch => match compacted {
                    true => stamp.sequence > last.sequence,
                    false => stamp.sequence == last.sequence + 1,
                },
                Some((last, _)) => stamp.epoch > last.epoch && (compacted || stamp.sequence == 0),
                None => range.start > 0 || compacted || stamp.sequence == 0,
            };
            let before = newest.insert(stamp.producer, (*stamp, at));
            assert!(comes_next, "{stamp:?} at {at} behind {before:?}");
            let items = self.sent.get(&key(stamp)).expect("it was sent");
            for (offset, item) in (at..).zip(items) {
                let there = found.get(&offset);
                let right = there.map_or(compacted, |there| there == item);
                assert!(right, "other than was sent: {there:?}");
            }
            self.at.insert(key(stamp), at);
        }
        let producers: Vec<u128> = self.progress.keys().copied().collect();
        for producer in producers {
            let told = log.producer(producer).expect("a sound log");
            if let Some(told) = told.filter(|_| compacted) {
                // Removed, before anybody was told that it was there.
                let key = (producer, told.epoch, told.sequence);
                assert!(self.sent.contains_key(&key), "{told:?} was never sent");
                self.at.insert(key, told.offset.get());
            }
            let told = told.map(|told| (told.epoch, told.sequence, told.offset.get()));
            let is_there = |(key, at): (&Key, &u64)| key.0 == producer && range.contains(at);
            let newest = self.newest(producer);
            if newest.is_some_and(|(_, at)| at < range.start) && self.at.iter().any(is_there) {
                // A first message that was pruned, sent once more, and taken for a new one.
                self.at
                    .retain(|key, at| key.0 != producer || range.contains(at));
                self.begin_anew(producer);
            }
            let newest = self.newest(producer);
            let newest = newest.filter(|(_, at)| range.contains(at));
            let expected = newest.map(|((_, epoch, sequence), at)| (epoch, sequence, at));
            assert_eq!(told, expected, "the newest of {producer}");
        }
    }
}
