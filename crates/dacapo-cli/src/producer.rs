//! `append --producer`: an input that is stored once, however often it is sent.
//!
//! The records of the input are numbered from 0. Which ones are new is the log's to say.

use anyhow::Context;
use dacapo_log::{Appended, Log, Offset, ProducerState, ReadError, Stamp, Topic};
use sha2::{Digest, Sha256};

/// Stores the records of one input, in their order.
pub(crate) struct Producer<'a> {
    log: &'a Log,
    name: &'a str,
    /// What the next record of the input gets.
    next: Stamp,
    /// How far an earlier run has come in this epoch.
    newest: Option<ProducerState>,
}

/// Where a record of the input is.
pub(crate) enum Place {
    New(Offset),
    /// An earlier run has stored it. Of its last one, the offset is known.
    Before(Option<Offset>),
}

impl<'a> Producer<'a> {
    pub(crate) fn resume(log: &'a Log, name: &'a str, epoch: u64) -> anyhow::Result<Self> {
        let producer = id(name);
        let newest = log
            .producer(producer)
            .context("cannot read how far the producer has come")?;
        if let Some(current) = newest.map(|newest| newest.epoch).filter(|&at| at > epoch) {
            anyhow::bail!(
                "producer {name:?} is in epoch {current}; go on in it with --producer-epoch \
                 {current}, or store the input anew in a higher one"
            );
        }
        let next = Stamp {
            producer,
            epoch,
            sequence: 0,
        };
        let newest = newest.filter(|newest| newest.epoch == epoch);
        Ok(Self {
            log,
            name,
            next,
            newest,
        })
    }

    /// Stores the next record of the input, unless an earlier run has.
    pub(crate) fn store(&mut self, topic: Option<&Topic>, payload: &[u8]) -> anyhow::Result<Place> {
        let stamp = self.next;
        self.next.sequence += 1;
        if let Some(newest) = self.newest
            && stamp.sequence < newest.sequence
        {
            return Ok(Place::Before(None));
        }
        match self.log.append_once(stamp, topic, payload)? {
            Appended::New(offsets) => Ok(Place::New(offsets.start)),
            Appended::Duplicate(newest) => {
                self.check_is_same(payload, newest.offset)?;
                Ok(Place::Before(Some(newest.offset)))
            }
        }
    }

    /// Notices another input under the same name, where it would go on in the middle.
    fn check_is_same(&self, payload: &[u8], offset: Offset) -> anyhow::Result<()> {
        match self.log.get(offset) {
            Ok(stored) if stored.payload() == payload => Ok(()),
            // A compaction has removed it: there is nothing to compare with.
            Err(ReadError::Removed { .. }) => Ok(()),
            Ok(_) => anyhow::bail!(
                "it is not what producer {:?} has stored as its newest record, at offset {offset}: \
                 give another input another name, or a higher --producer-epoch",
                self.name
            ),
            Err(error) => Err(error.into()),
        }
    }
}

/// Which producer of a log a name stands for: the first half of its SHA-256, least byte first.
fn id(name: &str) -> u128 {
    let hash = Sha256::digest(name);
    let (half, _) = hash.split_first_chunk().expect("32 bytes");
    u128::from_le_bytes(*half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_always_stands_for_the_same_producer() {
        // The example of FIPS 180-2: "abc" hashes to ba7816bf 8f01cfea 414140de 5dae2223 ...
        assert_eq!(id("abc"), 0x2322_ae5d_de40_4141_eacf_018f_bf16_78ba);
    }
}
