//! What all requests share: the channels that there are, and how one begins and ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dacapo_log::{AppendError, Log, Offset, ReadError, Start};
use tokio::time::Instant;

use super::address::{Address, ChannelId, Role};
use super::channel::{self, Channel, Ended};
use super::config::MegaphoneConfig;
use super::failure::{Code, Failure};
use super::metrics::Counts;
use super::rate::Rate;
use super::stored::{self, ChannelRecord, Ending, control_topic};
use crate::auth::{Authorizer, Grants};
use crate::keys::Keys;
use crate::metrics::Metrics;

pub(crate) struct Service {
    pub(crate) log: Log,
    pub(crate) config: MegaphoneConfig,
    pub(crate) keys: Keys,
    pub(crate) metrics: Arc<Counts>,
    /// Who says the admin's token.
    pub(crate) admin: Option<Authorizer>,
    creates: Option<Rate>,
    /// All that there are, in the order of their names. What is not here is not in the log.
    channels: Mutex<BTreeMap<ChannelId, Arc<Channel>>>,
}

/// A channel that was just created, as its creator gets to know it.
pub(crate) struct Created {
    pub(crate) producer_address: String,
    pub(crate) consumer_address: String,
}

/// The log holds something else where a channel's records should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record is none of a channel.
    #[error(
        "record {offset} of topic {topic} is no channel's: {source}; topics that begin with `__mp/` are for this server only"
    )]
    Foreign {
        /// The record.
        offset: Offset,
        /// Its topic.
        topic: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A topic is named as no channel is.
    #[error(
        "record {offset} is of topic {topic}, which is no channel's; topics that begin with `__mp/` are for this server only"
    )]
    Name {
        /// The record.
        offset: Offset,
        /// Its topic.
        topic: String,
    },
}

impl Service {
    pub(crate) fn load(
        log: Log,
        config: MegaphoneConfig,
        keys: Keys,
        metrics: &Metrics,
    ) -> Result<Self, LoadError> {
        let channels = load_channels(&log)?;
        let admin = config.admin_token.clone();
        Ok(Self {
            admin: admin.map(|token| Authorizer::of_token(token, Grants::all())),
            creates: config.creates_per_second.map(Rate::new),
            metrics: metrics.megaphone(),
            channels: Mutex::new(channels),
            log,
            config,
            keys,
        })
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<ChannelId, Arc<Channel>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a channel. It survives a power cut when this returns.
    pub(crate) async fn create(&self) -> Result<Created, Failure> {
        if self.creates.as_ref().is_some_and(|rate| !rate.allows()) {
            let message = "too many channels are being created; try again in a second";
            return Err(Failure::new(Code::TooManyRequests, message));
        }
        let id = ChannelId::random().map_err(|error| Failure::internal(&error))?;
        let agent = &self.config.agent;
        let signer = self.keys.signer();
        let begin = self.log.next_offset().get();
        let record = ChannelRecord {
            agent: agent.clone(),
            key: signer.tag().0,
            created_micros: now_micros(),
            begin,
            confirmed: begin,
            ending: None,
        };
        let bytes = stored::to_bytes(&record);
        let offset = {
            let mut channels = self.channels();
            if channels.len() >= self.config.channels_max {
                let message = "there are as many channels as this server takes; try again later";
                return Err(Failure::new(Code::TooManyChannels, message));
            }
            let offset = self.log.append_to(&control_topic(id), &bytes)?;
            // Before it is durable: whoever created it may be gone by then, and it has to expire.
            channels.insert(id, Arc::new(Channel::new(id, record, offset, Some(0))));
            offset
        };
        self.metrics.channel_created.inc();
        self.log.durable(offset).await?;
        let sealed = |role| Address { role, id }.sealed(agent, signer);
        Ok(Created {
            producer_address: sealed(Role::Producer),
            consumer_address: sealed(Role::Consumer),
        })
    }

    /// The address that a text is, and its channel.
    pub(crate) fn find(&self, text: &str) -> Result<(Role, Arc<Channel>), Failure> {
        let address = Address::open(text, &self.keys)?;
        let found = self.channels().get(&address.id).map(Arc::clone);
        Ok((address.role, found.ok_or_else(Failure::no_such_channel)?))
    }

    /// The channel whose consumer has this address.
    pub(crate) fn find_consumer(&self, text: &str) -> Result<Arc<Channel>, Failure> {
        match self.find(text)? {
            (Role::Consumer, channel) => Ok(channel),
            (Role::Producer, _) => Err(Failure::bad_request(
                "this is the address of a producer; its consumer has another",
            )),
        }
    }

    /// Some of the channels, in the order of their names.
    pub(crate) fn list(&self, skip: usize, limit: usize) -> Vec<Arc<Channel>> {
        let channels = self.channels();
        channels
            .values()
            .skip(skip)
            .take(limit)
            .map(Arc::clone)
            .collect()
    }

    /// Those that have expired by now.
    pub(crate) fn expired(&self, expire_after: Duration) -> Vec<Arc<Channel>> {
        let channels = self.channels();
        let expired = channels
            .values()
            .filter(|channel| channel.is_expired(expire_after));
        expired.map(Arc::clone).collect()
    }

    /// Stores the records of channels again that retention would drop before long, and returns what to
    /// wait for: those in the older half of the log.
    pub(crate) fn keep_records(&self) -> Result<Option<Offset>, AppendError> {
        let oldest = self.log.oldest();
        let middle = oldest.plus(self.log.next_offset().since(oldest) / 2);
        let mut last = None;
        for channel in self.list(0, usize::MAX) {
            last = last.max(channel.keep(&self.log, middle)?);
        }
        Ok(last)
    }

    /// Ends a channel, unless it has ended, or is wanted again, and returns what to wait for. May wait
    /// for the disk.
    pub(crate) fn end(
        &self,
        channel: &Channel,
        ending: Ending,
    ) -> Result<Option<Offset>, AppendError> {
        let webhooks = (!self.config.webhooks.is_empty()).then_some(&self.keys);
        let expire_after = self.config.expire_after.unwrap_or(Duration::MAX);
        let ended = channel.end(&self.log, ending, expire_after, webhooks)?;
        let Some(Ended {
            offset,
            unread,
            created_micros,
        }) = ended
        else {
            return Ok(None);
        };
        self.channels().remove(&channel.id);
        let lived = Duration::from_micros(now_micros().saturating_sub(created_micros));
        self.metrics.channel_disposed.inc();
        self.metrics.channel_duration.observe(lived.as_secs_f64());
        self.metrics.messages_lost.inc_by(unread);
        Ok(Some(offset))
    }
}

/// The channels that are in the log, by the newest record of each.
fn load_channels(log: &Log) -> Result<BTreeMap<ChannelId, Arc<Channel>>, LoadError> {
    let mut records: BTreeMap<ChannelId, (ChannelRecord, Offset)> = BTreeMap::new();
    for record in log.replay(Start::Oldest).prefix(stored::CONTROL_PREFIX) {
        let record = record?;
        let (offset, topic) = (record.offset(), record.topic());
        let id = stored::channel_of(topic).ok_or_else(|| LoadError::Name {
            offset,
            topic: topic.to_owned(),
        })?;
        if record.is_deletion() {
            records.remove(&id);
            continue;
        }
        let parsed = serde_json::from_slice(record.payload());
        let parsed = parsed.map_err(|source| LoadError::Foreign {
            offset,
            topic: topic.to_owned(),
            source,
        })?;
        records.insert(id, (parsed, offset));
    }
    let (ended, there): (BTreeMap<_, _>, BTreeMap<_, _>) = records
        .into_iter()
        .partition(|(_, (record, _))| record.ending.is_some());
    // Killed between saying that it has ended and removing its records.
    for id in ended.into_keys() {
        channel::forget(id, log);
    }
    let channels = there.into_iter().map(|(id, (record, offset))| {
        let channel = Channel::new(id, record, offset, None);
        (id, Arc::new(channel))
    });
    Ok(channels.collect())
}

/// The moment when so much time has passed.
pub(crate) fn moment_in(duration: Duration) -> Instant {
    const YEARS: Duration = Duration::from_secs(30 * 365 * 86400);
    // No clock of ours reaches further.
    Instant::now() + duration.min(YEARS)
}

pub(crate) fn now_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(log: &Log) -> Result<Service, LoadError> {
        let keys = Keys::load_or_create(&log.dir().join("keys")).unwrap();
        let config = MegaphoneConfig::default();
        Service::load(log.clone(), config, keys, &Metrics::default())
    }

    fn record(ending: Option<Ending>) -> Vec<u8> {
        stored::to_bytes(&ChannelRecord {
            agent: "a".to_owned(),
            key: 7,
            created_micros: 1,
            begin: 0,
            confirmed: 0,
            ending,
        })
    }

    #[tokio::test]
    async fn a_channel_whose_end_was_cut_short_by_a_crash_ends_for_good_and_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let [there, ended] = [1, 2].map(|byte| ChannelId::new([byte; 16]));
        let (data, gone) = (stored::data_topic(ended), stored::gone_topic());
        for id in [there, ended] {
            log.append_to(&control_topic(id), &record(None)).unwrap();
        }
        log.append_to(&data, b"{}").unwrap();
        let last = record(Some(Ending::Expired));
        let told = b"{\"channel\":\"c\"}".to_vec();
        log.append_batch_to([(&control_topic(ended), last), (&gone, told)])
            .unwrap();

        for _ in 0..2 {
            let service = load(&log).unwrap();
            let ids: Vec<_> = service
                .list(0, 9)
                .iter()
                .map(|channel| channel.id)
                .collect();
            assert_eq!(ids, [there]);
        }
        assert_eq!(log.count(&data, Offset::ZERO).unwrap(), 0);
        assert_eq!(log.count(&control_topic(ended), Offset::ZERO).unwrap(), 0);
        assert_eq!(log.count(&gone, Offset::ZERO).unwrap(), 1);
    }

    #[tokio::test]
    async fn records_of_others_where_channels_should_be_are_named() {
        let id = ChannelId::new([1; 16]);
        let foreign = [
            (control_topic(id), "nonsense"),
            ("__mp/c/lobby".parse().unwrap(), "{}"),
        ];
        for (topic, payload) in foreign {
            let dir = tempfile::tempdir().unwrap();
            let log = Log::open(dir.path()).unwrap();
            log.append(b"first").unwrap();
            log.append_to(&topic, payload.as_bytes()).unwrap();
            let error = load(&log).err().unwrap().to_string();
            assert!(
                error.contains("record 1 ") && error.contains(topic.as_str()),
                "{error}"
            );
        }
    }
}
