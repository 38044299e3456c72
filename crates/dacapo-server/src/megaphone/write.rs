//! `POST /write/{address}/{stream-id}` and `POST /write-batch`: a message is acknowledged once it is
//! durable.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dacapo_log::Offset;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::address::Role;
use super::body::{self, MaybeBytes};
use super::channel::Channel;
use super::failure::{Code, Failure};
use super::service::{self, Service};
use super::stored::{self, Message};

pub(crate) async fn write(
    State(service): State<Arc<Service>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: MaybeBytes,
) -> Result<Response, Failure> {
    let Path((address, sid)) = path.map_err(|error| Failure::bad_request(error.body_text()))?;
    let channel = service.find_to_write(&address)?;
    let body = body::json_bytes(&headers, body)?;
    let message = service.message(&sid, body::parse(&body)?)?;
    let offset = service.write(&channel, &message).await?;
    service.log.durable(offset).await?;
    service.metrics.messages_received.inc();
    Ok(body::answer(StatusCode::CREATED, &json!({"status": "OK"})))
}

#[derive(Deserialize)]
struct Batch<'a> {
    /// A channel that is named twice is one.
    #[serde(alias = "channelIds")]
    channels: BTreeSet<String>,
    #[serde(borrow)]
    messages: Vec<BatchMessage<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchMessage<'a> {
    #[serde(borrow)]
    stream_id: Cow<'a, str>,
    #[serde(borrow)]
    body: &'a RawValue,
}

#[derive(Serialize)]
struct BatchAnswer<'a> {
    failures: Vec<BatchFailure<'a>>,
}

#[derive(Serialize)]
struct BatchFailure<'a> {
    channel: &'a str,
    index: usize,
    reason: &'static str,
}

pub(crate) async fn write_batch(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: MaybeBytes,
) -> Result<Response, Failure> {
    let body = body::json_bytes(&headers, body)?;
    let batch: Batch<'_> = body::parse(&body)?;
    service.check_channels(batch.channels.len())?;
    let writes = batch.channels.len().saturating_mul(batch.messages.len());
    if writes > service.config.batch_writes_max {
        return Err(Failure::bad_request(format!(
            "the batch would write {writes} messages, and {} are allowed; send several",
            service.config.batch_writes_max
        )));
    }
    let messages = batch.messages.iter();
    let messages = messages.map(|message| service.message(&message.stream_id, message.body));
    let messages: Vec<Vec<u8>> = messages.collect::<Result<_, _>>()?;
    let channels = batch.channels.iter();
    let written = channels.map(|address| service.write_all(address, &messages));
    let failures = join_all(written).await.into_iter().flatten().collect();
    Ok(body::answer(StatusCode::CREATED, &BatchAnswer { failures }))
}

impl Service {
    /// The channel that an address allows to write to.
    fn find_to_write(&self, address: &str) -> Result<Arc<Channel>, Failure> {
        let found = self.find(address);
        if let Err(failure) = &found
            && failure.code == Code::NotFound
        {
            self.metrics.messages_unroutable.inc();
        }
        let (role, channel) = found?;
        if role == Role::Consumer {
            self.metrics.consumer_address_writes.inc();
            if !self.config.consumer_writes {
                let message = "this is the address of a consumer; the producer has another";
                return Err(Failure::new(Code::Forbidden, message));
            }
        }
        Ok(channel)
    }

    /// Refuses a request that names too many channels.
    pub(crate) fn check_channels(&self, channels: usize) -> Result<(), Failure> {
        let max = self.config.request_channels_max;
        match channels <= max {
            true => Ok(()),
            false => Err(Failure::bad_request(format!(
                "the request names {channels} channels, and {max} are allowed; send several"
            ))),
        }
    }

    /// A message as it is stored.
    fn message(&self, sid: &str, body: &RawValue) -> Result<Vec<u8>, Failure> {
        let max = self.config.stream_id_bytes_max;
        if sid.is_empty() || sid.len() > max {
            return Err(Failure::bad_request(format!(
                "a stream's id has 1 to {max} bytes, and this one {}",
                sid.len()
            )));
        }
        Ok(stored::to_bytes(&Message {
            sid: Cow::Borrowed(sid),
            body: &stored::on_one_line(body),
        }))
    }

    async fn write(&self, channel: &Channel, message: &[u8]) -> Result<Offset, Failure> {
        let deadline = service::moment_in(self.config.write_timeout);
        let unread_max = self.config.unread_max;
        let written = tokio::select! {
            biased;
            written = channel.write(&self.log, message, unread_max, deadline) => written,
            // It has stored nothing, and waits for a reader: there will be none here.
            () = self.config.shutdown.cancelled() => {
                Err(Failure::new(Code::Unavailable, "the server is shutting down"))
            }
        };
        if let Err(failure) = &written
            && failure.code == Code::NotFound
        {
            self.metrics.messages_unroutable.inc();
        }
        written
    }

    /// Writes to one channel of a batch, in order, and returns what has failed.
    async fn write_all<'a>(&self, address: &'a str, messages: &[Vec<u8>]) -> Vec<BatchFailure<'a>> {
        let mut failures = Vec::new();
        let mut written: Vec<(usize, Offset)> = Vec::new();
        let fail = |index, reason| BatchFailure {
            channel: address,
            index,
            reason,
        };
        for (index, message) in messages.iter().enumerate() {
            let channel = self.find_to_write(address);
            let appended = match &channel {
                Ok(channel) => self.write(channel, message).await,
                Err(failure) => Err(failure.clone()),
            };
            match appended {
                Ok(offset) => written.push((index, offset)),
                Err(failure) => {
                    failures.push(fail(index, failure.code.name()));
                    if failure.code == Code::Timeout {
                        let rest = index + 1..messages.len();
                        failures.extend(rest.map(|index| fail(index, "SKIPPED")));
                        break;
                    }
                }
            }
        }
        let Some(&(_, last)) = written.last() else {
            return failures;
        };
        match self.log.durable(last).await {
            Ok(()) => {
                let messages = u64::try_from(written.len()).unwrap_or(u64::MAX);
                self.metrics.messages_received.inc_by(messages);
            }
            Err(error) => {
                let reason = Failure::from(error).code.name();
                failures.extend(written.iter().map(|&(index, _)| fail(index, reason)));
                failures.sort_by_key(|failure| failure.index);
            }
        }
        failures
    }
}
