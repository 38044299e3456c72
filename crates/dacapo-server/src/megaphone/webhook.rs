//! Tells webhooks of channels that are gone: from the log, until they have heard it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Weak};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dacapo_log::{Log, Offset, ReadError, Record, Start, Tailer};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url, redirect};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::config::Webhook;
use super::service::{self, Service};
use super::stored::{self, GoneRecord, ToldRecord};
use crate::keys;

/// How many channels one request names.
const CHANNELS_MAX: usize = 100;

/// A webhook cannot be called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// The URL is none.
    #[error("the webhook {url} is no http or https URL with a host")]
    Url {
        /// As it was configured.
        url: String,
    },
    /// The URL leads into a private network, and that is not allowed.
    #[error(
        "the webhook {url} is of this machine or a private network; set `allow_private` if it is meant"
    )]
    Private {
        /// As it was configured.
        url: String,
    },
    /// There is no client to call it with.
    #[error("cannot make a client for the webhook {url}: {source}")]
    Client {
        /// As it was configured.
        url: String,
        /// What is missing.
        source: reqwest::Error,
    },
    /// How far it was told cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Record of how far it was told is not one.
    #[error(
        "record {offset} of topic {topic} is none of a webhook: {source}; topics that begin with `__mp/` are for this server only"
    )]
    Foreign {
        /// The record.
        offset: Offset,
        /// Its topic.
        topic: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// That it is told from now on cannot be stored.
    #[error(transparent)]
    Append(#[from] dacapo_log::AppendError),
}

/// One webhook, and what it has not been told yet.
pub(crate) struct Teller {
    webhook: Webhook,
    url: Url,
    client: Client,
    tailer: Tailer,
    shutdown: CancellationToken,
}

impl Teller {
    /// Goes on where it stopped in this log; a new one is told of what goes from now on.
    pub(crate) fn new(
        webhook: &Webhook,
        log: &Log,
        shutdown: CancellationToken,
    ) -> Result<Self, WebhookError> {
        let url = parse_url(webhook)?;
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(webhook.timeout);
        let builder = match webhook.allow_private {
            true => builder,
            false => builder.dns_resolver(Arc::new(PublicOnly)),
        };
        let client = builder.build().map_err(|source| WebhookError::Client {
            url: webhook.url.clone(),
            source,
        })?;
        let next = told(webhook, log)?;
        Ok(Self {
            webhook: webhook.clone(),
            url,
            client,
            tailer: log
                .tail(Start::AtOrOldest(next))
                .topic(&stored::gone_topic())
                .durable_only(),
            shutdown,
        })
    }

    /// Until the service is gone.
    pub(crate) async fn run(mut self, service: Weak<Service>) {
        let shutdown = self.shutdown.clone();
        let telling = async {
            while let Some(batch) = self.batch().await {
                self.tell(&batch).await;
                let Some(service) = service.upgrade() else {
                    return;
                };
                let told = stored::to_bytes(&ToldRecord {
                    next: batch.last.next().get(),
                });
                let topic = stored::told_topic(&self.webhook.url);
                if let Err(error) = service.log.append_to(&topic, &told) {
                    tracing::error!(%error, url = %self.url, "a webhook will be told again");
                }
            }
        };
        tokio::select! {
            () = telling => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// What it is told next; `None` where the log was closed.
    async fn batch(&mut self) -> Option<Batch> {
        loop {
            let first = match self.tailer.next().await {
                Ok(record) => record,
                Err(ReadError::Closed) => return None,
                Err(error) => {
                    tracing::error!(%error, url = %self.url, "channels that are gone cannot be read");
                    match error {
                        ReadError::Pruned { .. } | ReadError::Lost { .. } => {}
                        ReadError::Corrupt(_) | ReadError::SegmentMissing { .. } => {
                            self.tailer.skip_damage();
                        }
                        // It may pass.
                        _ => tokio::time::sleep(self.webhook.retry_max).await,
                    }
                    continue;
                }
            };
            let mut batch = Batch::new(first.offset());
            batch.push(&first);
            while batch.channels.len() < CHANNELS_MAX
                && let Ok(Some(record)) = self.tailer.try_next()
            {
                batch.push(&record);
            }
            if !batch.channels.is_empty() {
                return Some(batch);
            }
        }
    }

    /// Again and again, until it has heard.
    async fn tell(&self, batch: &Batch) {
        let mut wait = self.webhook.retry_min;
        loop {
            match self.post(batch).await {
                Ok(()) => return,
                Err(error) => {
                    let channels = batch.channels.len();
                    tracing::warn!(%error, url = %self.url, channels, "a webhook did not hear");
                }
            }
            tokio::time::sleep(wait).await;
            wait = wait
                .saturating_mul(2)
                .min(self.webhook.retry_max.max(self.webhook.retry_min));
        }
    }

    async fn post(&self, batch: &Batch) -> Result<(), PostError> {
        let body = json!({"channels": batch.channels}).to_string();
        // The same for each attempt, so that a repeated one can be told from a new one.
        let id = format!("gone_{}_{}", batch.first, batch.last);
        let seconds = service::now_micros() / 1_000_000;
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds.to_string());
        if let Some(secret) = &self.webhook.secret {
            request = request.header("webhook-signature", sign(secret, &id, seconds, &body));
        }
        let status = request.body(body).send().await?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(PostError::Status(status.as_u16())),
        }
    }
}

/// As [Standard Webhooks](https://www.standardwebhooks.com) say.
fn sign(secret: &[u8], id: &str, seconds: u64, body: &str) -> String {
    let said = format!("{id}.{seconds}.{body}");
    format!(
        "v1,{}",
        STANDARD.encode(keys::sign(secret, &[said.as_bytes()]))
    )
}

#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("it answered {0}")]
    Status(u16),
}

/// What one request tells.
struct Batch {
    channels: Vec<String>,
    first: Offset,
    last: Offset,
}

impl Batch {
    fn new(first: Offset) -> Self {
        Self {
            channels: Vec::new(),
            first,
            last: first,
        }
    }

    fn push(&mut self, record: &Record) {
        self.last = record.offset();
        if record.is_deletion() {
            return;
        }
        match serde_json::from_slice::<GoneRecord>(record.payload()) {
            Ok(gone) => self.channels.push(gone.channel),
            Err(error) => {
                let offset = record.offset();
                tracing::error!(%offset, %error, "a record is of no channel that is gone");
            }
        }
    }
}

/// The offset before which a webhook was told of all.
fn told(webhook: &Webhook, log: &Log) -> Result<Offset, WebhookError> {
    let topic = stored::told_topic(&webhook.url);
    if let Some(record) = log.last(&topic)? {
        let parsed: Result<ToldRecord, _> = serde_json::from_slice(record.payload());
        return match parsed {
            Ok(told) => Ok(Offset::new(told.next)),
            Err(source) => Err(WebhookError::Foreign {
                offset: record.offset(),
                topic: topic.to_string(),
                source,
            }),
        };
    }
    let next = log.next_offset();
    log.append_to(&topic, &stored::to_bytes(&ToldRecord { next: next.get() }))?;
    Ok(next)
}

fn parse_url(webhook: &Webhook) -> Result<Url, WebhookError> {
    let url = webhook.url.clone();
    let Ok(parsed) = Url::parse(&url) else {
        return Err(WebhookError::Url { url });
    };
    let host = parsed.host_str().unwrap_or_default();
    if !matches!(parsed.scheme(), "http" | "https") || host.is_empty() {
        return Err(WebhookError::Url { url });
    }
    // Names are looked at when they are resolved; addresses never are.
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse();
    let is_private = literal.is_ok_and(|address: IpAddr| !is_public(address));
    match is_private && !webhook.allow_private {
        true => Err(WebhookError::Private { url }),
        false => Ok(parsed),
    }
}

/// Resolves names to public addresses only, at each connection: a name cannot be pointed elsewhere
/// between a check and the call.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<_> = found.filter(|found| is_public(found.ip())).collect();
            if public.is_empty() {
                return Err(format!("{} has no public address", name.as_str()).into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_public_v4(address),
            None => is_public_v6(address),
        },
    }
}

/// None of the blocks for special purposes of RFC 6890.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224 // multicast, reserved, broadcast
        || (a == 100 && (64..128).contains(&b)) // shared by a provider's customers
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && matches!(b, 18 | 19));
    !is_special
}

/// Global unicast, and nothing that leads to an address of version 4.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let is_global = (0x2000..0x4000).contains(&a);
    let is_special =
        a == 0x2002 || (a == 0x2001 && (b < 0x200 || b == 0xdb8)) || (a == 0x3fff && b < 0x1000);
    is_global && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_networks_are_told_from_public_ones() {
        for public in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "2001:db8::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "2001::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn urls_of_private_networks_are_refused_however_they_are_written() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]:80/",
            "http://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
        ] {
            let refused = parse_url(&Webhook::new(url));
            assert!(
                matches!(refused, Err(WebhookError::Private { .. })),
                "{url}"
            );
            let allowed = Webhook {
                allow_private: true,
                ..Webhook::new(url)
            };
            assert!(parse_url(&allowed).is_ok(), "{url}");
        }
        for url in [
            "",
            "x",
            "ftp://example.com/",
            "file:///etc/passwd",
            "unix:/run/x",
        ] {
            let refused = parse_url(&Webhook::new(url));
            assert!(matches!(refused, Err(WebhookError::Url { .. })), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_does_not_resolve() {
        let name = "localhost".parse().unwrap();
        let refused = PublicOnly.resolve(name).await.err().unwrap();
        assert!(
            refused.to_string().contains("no public address"),
            "{refused}"
        );
    }

    #[test]
    fn a_signature_is_as_standard_webhooks_have_it() {
        // Of their own test vectors.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = "{\"test\": 2432232314}";
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
