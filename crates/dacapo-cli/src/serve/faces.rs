//! Which faces a log has, each at its own paths, and how they end.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use clap::ValueEnum;
use dacapo::{Json, OpenError, ReplayChannel};
use dacapo_log::{Log, Topic};
use dacapo_server::auth::Tokens;
use dacapo_server::megaphone::{self, MegaphoneConfig, Webhook};
use dacapo_server::metrics::Metrics;
use dacapo_server::origins::Origins;
use dacapo_server::phoenix::{Limits, Phoenix, RecordChannels};
use dacapo_server::realtime::{self, AnyEvent, Fields, RealtimeConfig, RealtimeManager};
use dacapo_server::streams::{Streams, StreamsConfig};
use tokio_util::sync::CancellationToken;

use super::door::{Door, Guest};
use super::settings::Args;

/// A protocol that a log is served by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Face {
    /// Durable Streams, at /v1/stream/
    Streams,
    /// One numbered sequence of events, at /v1/events and /ws
    Realtime,
    /// Phoenix channels, at /socket
    Phoenix,
    /// Megaphone's channels, at /create, /write/, /read/ and so on
    Megaphone,
}

type Manager = RealtimeManager<AnyEvent, Fields>;

/// The faces of a log, and what ends them.
pub(super) struct Faces {
    shutdown: CancellationToken,
    streams: Option<Streams>,
    realtime: Option<Manager>,
    phoenix: Option<(Phoenix<Guest>, Door)>,
}

impl Faces {
    /// Opens those that are asked for, with the routes of all of them.
    pub(super) fn open(
        args: &Args,
        log: &Log,
        tokens: Option<&Tokens>,
        metrics: &Metrics,
    ) -> anyhow::Result<(Self, Router)> {
        let mut faces = Self {
            shutdown: CancellationToken::new(),
            streams: None,
            realtime: None,
            phoenix: None,
        };
        let has = |face| args.faces.contains(&face);
        // What is behind tokens by its path.
        let mut guarded = metrics.router();
        if has(Face::Streams) {
            guarded = guarded.merge(faces.streams(args, log, tokens, metrics)?);
        }
        if let Some(tokens) = tokens {
            guarded = tokens.protect(guarded);
        }
        let mut app = guarded.merge(faces.realtime(args, log, tokens, metrics)?);
        if has(Face::Phoenix) {
            app = app.merge(faces.phoenix(args, log, tokens, metrics)?);
        }
        if has(Face::Megaphone) {
            app = app.merge(faces.megaphone(args, log, tokens, metrics)?);
        }
        Ok((faces, app))
    }

    fn streams(
        &mut self,
        args: &Args,
        log: &Log,
        tokens: Option<&Tokens>,
        metrics: &Metrics,
    ) -> anyhow::Result<Router> {
        let config = StreamsConfig {
            long_poll_timeout: args.long_poll_timeout,
            sse_duration: args.sse_duration,
            body_bytes_max: usize::try_from(args.body_bytes_max)?,
            page_bytes_max: usize::try_from(args.page_bytes_max)?,
            cors: args.cors,
            private: tokens.is_some(),
            shutdown: self.shutdown.clone(),
            metrics: metrics.clone(),
            ..StreamsConfig::default()
        };
        let streams = Streams::new(log.clone(), config);
        let router = streams.router();
        self.streams = Some(streams.clone());
        tokio::spawn(sweep(streams, args.sweep_interval));
        Ok(router)
    }

    /// `/health` is there in any case.
    fn realtime(
        &mut self,
        args: &Args,
        log: &Log,
        tokens: Option<&Tokens>,
        metrics: &Metrics,
    ) -> anyhow::Result<Router> {
        if !args.faces.contains(&Face::Realtime) {
            return Ok(realtime::health());
        }
        let manager = Manager::new(events_of(log, &args.realtime_topic)?).durable_only();
        let counted = manager.clone();
        metrics.gauge(
            "dacapo_realtime_clients",
            "Clients of the realtime events.",
            move || counted.client_count() as u64,
        );
        let mut config = RealtimeConfig::default()
            .keep_alive_interval(args.realtime_keep_alive)
            .retry(args.realtime_retry)
            .origins(origins(args));
        if let Some(tokens) = tokens {
            config = config.tokens(tokens, args.realtime_topic.as_str());
        }
        self.realtime = Some(manager.clone());
        Ok(metrics.count_errors(realtime::router(Some(manager), config)))
    }

    fn phoenix(
        &mut self,
        args: &Args,
        log: &Log,
        tokens: Option<&Tokens>,
        metrics: &Metrics,
    ) -> anyhow::Result<Router> {
        let door = Door::new(tokens, origins(args));
        let mut limits = Limits::default();
        limits.channels = args.phoenix_channels_max;
        limits.message_bytes = usize::try_from(args.phoenix_message_bytes_max)?;
        limits.idle = args.phoenix_idle_timeout;
        let asked = door.clone();
        let may = move |guest: &Guest, topic: &str, access| asked.lets(guest, topic, access);
        let mut records = RecordChannels::new(log, may).synced();
        if let Some(streams) = &self.streams {
            records = records.through(streams);
        }
        let phoenix = Phoenix::builder(door.clone())
            .channel("*", records)
            .limits(limits)
            .build();
        let broadcaster = phoenix.broadcaster();
        metrics.gauge(
            "dacapo_phoenix_clients",
            "Clients of Phoenix channels.",
            move || broadcaster.connected_clients() as u64,
        );
        let router = phoenix.router("/socket");
        self.phoenix = Some((phoenix, door));
        Ok(metrics.count_errors(router))
    }

    fn megaphone(
        &self,
        args: &Args,
        log: &Log,
        tokens: Option<&Tokens>,
        metrics: &Metrics,
    ) -> anyhow::Result<Router> {
        let secret = args.megaphone_webhook_secret_file.as_ref();
        let secret = secret.map(|path| {
            let secret = fs::read(path);
            let secret = secret.with_context(|| format!("cannot read {}", path.display()))?;
            match secret.trim_ascii() {
                b"" => anyhow::bail!("{} holds no secret", path.display()),
                secret => Ok(secret.to_vec()),
            }
        });
        let secret = secret.transpose()?;
        let webhooks = args.megaphone_webhook.iter().map(|url| Webhook {
            secret: secret.clone(),
            allow_private: args.megaphone_webhook_allow_private,
            ..Webhook::new(url)
        });
        let config = MegaphoneConfig {
            agent: args.megaphone_agent.clone(),
            keys_file: args.megaphone_keys_file.clone(),
            unread_max: Some(args.megaphone_unread_max).filter(|&unread| unread > 0),
            write_timeout: args.megaphone_write_timeout,
            read_duration: args.megaphone_read_duration,
            expire_after: Some(args.megaphone_expire_after).filter(|after| !after.is_zero()),
            sweep_interval: args.megaphone_sweep_interval,
            body_bytes_max: usize::try_from(args.megaphone_body_bytes_max)?,
            channels_max: args.megaphone_channels_max,
            creates_per_second: Some(args.megaphone_creates_per_second).filter(|&most| most > 0),
            webhooks: webhooks.collect(),
            shutdown: self.shutdown.clone(),
            metrics: Some(metrics.clone()),
            tokens: tokens.cloned(),
            ..MegaphoneConfig::default()
        };
        let router = megaphone::router(log.clone(), config);
        Ok(metrics.count_errors(router.context("cannot serve Megaphone's channels")?))
    }

    /// Sends away those whose tokens are no longer known.
    pub(super) fn tokens_were_read_again(&self) {
        if let Some((phoenix, door)) = &self.phoenix {
            phoenix.disconnect(|guest| !door.knows(guest));
        }
    }

    /// Ends what waits, tells clients to come back, and returns once all of them were told.
    pub(super) async fn end(&self) {
        self.shutdown.cancel();
        let realtime = async {
            if let Some(manager) = &self.realtime {
                manager.drain().await;
            }
        };
        let phoenix = async {
            if let Some((phoenix, _)) = &self.phoenix {
                phoenix.drain().await;
            }
        };
        tokio::join!(realtime, phoenix);
    }

    /// Cancelled once they are to end.
    pub(super) fn ending(&self) -> CancellationToken {
        self.shutdown.clone()
    }
}

/// Whose pages may use what browsers do not guard by themselves.
fn origins(args: &Args) -> Origins {
    let origins = match args.cors {
        true => Origins::any(),
        false => Origins::default(),
    };
    args.allow_origin.iter().fold(origins, Origins::allow)
}

/// The topic whose records are the events. A program that has a type for them has said so beside the
/// log; as JSON, they are read all the same.
fn events_of(log: &Log, topic: &Topic) -> anyhow::Result<ReplayChannel<AnyEvent, Json>> {
    let opening = || ReplayChannel::builder().codec(Json).topic(topic);
    let opened = match opening().schema("any JSON").on(log) {
        Err(OpenError::Schema(other)) if other.recorded.codec == other.opened.codec => {
            opening().schema(other.recorded.name).on(log)
        }
        opened => opened,
    };
    opened.with_context(|| {
        format!("cannot serve topic {topic} as realtime events; name another --realtime-topic")
    })
}

/// Looking at all streams takes a while in which nothing much can have changed.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Deletes streams whose time is over, for as long as the server runs.
async fn sweep(streams: Streams, interval: Duration) {
    loop {
        tokio::time::sleep(interval.max(SWEEP_INTERVAL_MIN)).await;
        let streams = streams.clone();
        match tokio::task::spawn_blocking(move || streams.delete_expired()).await {
            Ok(Ok(0)) => {}
            Ok(Ok(deleted)) => tracing::info!(deleted, "the time of some streams was over"),
            Ok(Err(error)) => tracing::warn!(%error, "not all streams could be looked at"),
            Err(error) => tracing::error!(%error, "looking at the streams failed"),
        }
    }
}
