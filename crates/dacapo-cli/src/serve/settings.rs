//! Every setting: its name, its default, and what it is for.
//!
//! A flag here is also a key of the file and a variable of the environment: `layers` sees to that.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ValueEnum, ValueHint};
use dacapo_log::Topic;
use tracing_subscriber::filter::LevelFilter;

use super::faces::Face;
use crate::UsageError;
use crate::amounts::{parse_bytes, parse_duration};

/// Serve a log over HTTP: Durable Streams, realtime events, Phoenix channels, Megaphone's channels
///
/// What one of these appends, the others replay and follow: a stream, the topic of a Phoenix channel
/// and the realtime events are topics of the one log. What is acknowledged survives a power cut, and
/// readers see nothing that does not. Topics that begin with `__` are the server's own.
///
/// Ends with SIGINT or SIGTERM: appends are finished, reads that wait are answered, clients are told to
/// come back, the log is closed. SIGHUP reads the file of tokens again.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  dacapo serve log
  dacapo serve log --listen 0.0.0.0:4437 --token-file tokens
  dacapo serve --config serve.toml --print-config
  curl -X PUT -H 'Content-Type: application/json' http://127.0.0.1:4437/v1/stream/events
  curl -X POST -H 'Content-Type: application/json' -d '{\"type\":\"joined\"}' \\
      http://127.0.0.1:4437/v1/stream/events
  curl http://127.0.0.1:4437/v1/stream/events
  curl -N 'http://127.0.0.1:4437/v1/events?from=oldest'

/v1/stream/ has the streams, /v1/events and /ws the realtime events, which are the records of one
topic of JSON, /socket the Phoenix channels, and /create, /read/, /write/ and so on Megaphone's.
/health is for whoever looks whether it runs. /metrics is for Prometheus; with tokens, it takes one
with the right to read all topics.

Each option is a setting, and has its value from the first of these that says it: the option, the
environment (--sse-duration is DACAPO_SSE_DURATION), the file of --config, its default. The file is
TOML: `sse-duration = \"60s\"`, and of what begins with megaphone, phoenix or realtime also as tables:
`[megaphone]`, `agent = \"here\"`. Paths in it are relative to its directory.

A file of tokens has one a line, TOKEN RIGHTS [PREFIX]: rights are read, append and admin, with
commas between, and a prefix limits them to topics whose names begin with it. Tokens are said as
`Authorization: Bearer`, to /v1/events and /ws also as ?access_token=, and by phoenix.js as authToken.

Beyond this machine, put it behind a proxy that speaks TLS: tokens are sent as they are.")]
pub(crate) struct Args {
    /// The log's directory; created if it is not there
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath, env = "DACAPO_DIR")]
    pub(super) dir: Option<PathBuf>,

    /// Read settings from a file of TOML
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "DACAPO_CONFIG")]
    pub(super) config: Option<PathBuf>,

    /// Print which settings are in force, and from where, and end
    #[arg(long)]
    pub(super) print_config: bool,

    /// Where to listen; port 0 is any that is free
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:4437",
        env = "DACAPO_LISTEN"
    )]
    pub(super) listen: SocketAddr,

    /// By which protocols it is served, with commas between
    #[arg(
        long,
        value_name = "FACES",
        value_delimiter = ',',
        env = "DACAPO_FACES",
        default_value = "streams,realtime,phoenix,megaphone"
    )]
    pub(super) faces: Vec<Face>,

    /// Let in only those with a token of this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "DACAPO_TOKEN_FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// Let everybody in, also from other machines
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", env = "DACAPO_INSECURE")]
    pub(super) insecure: bool,

    /// Let pages of any web site in
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", env = "DACAPO_CORS")]
    pub(super) cors: bool,

    /// Let pages of these origins use /v1/events, /ws and /socket, beside those of this machine and of
    /// the server's own host
    #[arg(
        long,
        value_name = "ORIGIN",
        value_delimiter = ',',
        env = "DACAPO_ALLOW_ORIGIN"
    )]
    pub(super) allow_origin: Vec<String>,

    /// How long a long-poll of a stream waits for data
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration,
          env = "DACAPO_LONG_POLL_TIMEOUT")]
    pub(super) long_poll_timeout: Duration,

    /// After how long a stream's response of server-sent events ends, for the client to come back
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration,
          env = "DACAPO_SSE_DURATION")]
    pub(super) sse_duration: Duration,

    /// The largest body of a request to a stream
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = parse_bytes,
          env = "DACAPO_BODY_BYTES_MAX")]
    pub(super) body_bytes_max: u64,

    /// How much one read of a stream returns; the last message may go beyond it
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_bytes,
          env = "DACAPO_PAGE_BYTES_MAX")]
    pub(super) page_bytes_max: u64,

    /// How many clients may be connected at once; others wait
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 10_000,
        env = "DACAPO_CONNECTIONS_MAX"
    )]
    pub(super) connections_max: usize,

    /// Cut off clients with whom nothing was exchanged for so long; longer than whatever waits
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration,
          env = "DACAPO_IDLE_TIMEOUT")]
    pub(super) idle_timeout: Duration,

    /// How often all streams are looked at, for those whose time is over
    ///
    /// One that is asked for is deleted at once; the others give their space back then.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration,
          env = "DACAPO_SWEEP_INTERVAL")]
    pub(super) sweep_interval: Duration,

    /// How long responses on their way may take once it is to end
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration,
          env = "DACAPO_GRACE")]
    pub(super) grace: Duration,

    /// The size of a segment file once the log has grown: 16K to 1G; an append fits into one
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = parse_bytes,
          env = "DACAPO_SEGMENT_BYTES_MAX")]
    pub(super) segment_bytes_max: u64,

    /// The form of the log lines on standard error
    #[arg(
        long,
        value_name = "FORM",
        default_value = "text",
        env = "DACAPO_LOG_FORMAT"
    )]
    pub(super) log_format: LogFormat,

    /// Which log lines there are: off, error, warn, info, debug or trace
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "DACAPO_LOG_LEVEL"
    )]
    pub(super) log_level: LevelFilter,

    /// The topic whose records are the realtime events
    #[arg(
        long,
        value_name = "TOPIC",
        default_value = "events",
        env = "DACAPO_REALTIME_TOPIC"
    )]
    pub(super) realtime_topic: Topic,

    /// After how long without an event a realtime client is sent a comment, or a ping
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration,
          env = "DACAPO_REALTIME_KEEP_ALIVE")]
    pub(super) realtime_keep_alive: Duration,

    /// How long clients of /v1/events wait before they connect again
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration,
          env = "DACAPO_REALTIME_RETRY")]
    pub(super) realtime_retry: Duration,

    /// How many channels one Phoenix socket may have joined
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 100,
        env = "DACAPO_PHOENIX_CHANNELS_MAX"
    )]
    pub(super) phoenix_channels_max: usize,

    /// The largest message of a Phoenix client
    #[arg(long, value_name = "BYTES", default_value = "1M", value_parser = parse_bytes,
          env = "DACAPO_PHOENIX_MESSAGE_BYTES_MAX")]
    pub(super) phoenix_message_bytes_max: u64,

    /// After how long a Phoenix client of whom nothing is heard is closed; longer than its heartbeats
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration,
          env = "DACAPO_PHOENIX_IDLE_TIMEOUT")]
    pub(super) phoenix_idle_timeout: Duration,

    /// What the addresses of Megaphone's channels begin with
    #[arg(
        long,
        value_name = "NAME",
        default_value = "megaphone",
        env = "DACAPO_MEGAPHONE_AGENT"
    )]
    pub(super) megaphone_agent: String,

    /// Where the keys of addresses are; in the log's directory unless it is said
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          env = "DACAPO_MEGAPHONE_KEYS_FILE")]
    pub(super) megaphone_keys_file: Option<PathBuf>,

    /// How many messages of a channel may be unread before writers wait; 0: the log grows
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 100,
        env = "DACAPO_MEGAPHONE_UNREAD_MAX"
    )]
    pub(super) megaphone_unread_max: u64,

    /// How long writers wait for a reader
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration,
          env = "DACAPO_MEGAPHONE_WRITE_TIMEOUT")]
    pub(super) megaphone_write_timeout: Duration,

    /// After how long a read ends
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration,
          env = "DACAPO_MEGAPHONE_READ_DURATION")]
    pub(super) megaphone_read_duration: Duration,

    /// How long after its last read a channel goes; 0s: never
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration,
          env = "DACAPO_MEGAPHONE_EXPIRE_AFTER")]
    pub(super) megaphone_expire_after: Duration,

    /// How often the server looks for such channels
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration,
          env = "DACAPO_MEGAPHONE_SWEEP_INTERVAL")]
    pub(super) megaphone_sweep_interval: Duration,

    /// The largest body of a request
    #[arg(long, value_name = "BYTES", default_value = "2M", value_parser = parse_bytes,
          env = "DACAPO_MEGAPHONE_BODY_BYTES_MAX")]
    pub(super) megaphone_body_bytes_max: u64,

    /// How many channels there can be
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 1_000_000,
        env = "DACAPO_MEGAPHONE_CHANNELS_MAX"
    )]
    pub(super) megaphone_channels_max: usize,

    /// How many channels can be created in a second; 0: as many as anybody likes
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 1_000,
        env = "DACAPO_MEGAPHONE_CREATES_PER_SECOND"
    )]
    pub(super) megaphone_creates_per_second: u32,

    /// Whom to tell of channels that are gone
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        env = "DACAPO_MEGAPHONE_WEBHOOK"
    )]
    pub(super) megaphone_webhook: Vec<String>,

    /// What webhooks are signed with: all that is in this file, but for white space around it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          env = "DACAPO_MEGAPHONE_WEBHOOK_SECRET_FILE")]
    pub(super) megaphone_webhook_secret_file: Option<PathBuf>,

    /// Let webhooks lead to this machine and into private networks
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true",
          env = "DACAPO_MEGAPHONE_WEBHOOK_ALLOW_PRIVATE")]
    pub(super) megaphone_webhook_allow_private: bool,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

impl Args {
    /// What each setting for itself may say, and not together with the others.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        let refused = |text: &str| Err(UsageError(text.to_owned()));
        if self.dir.is_none() {
            return refused(
                "name the log's directory: `dacapo serve DIR`, DACAPO_DIR, or `dir` in the file of --config",
            );
        }
        if self.insecure && self.token_file.is_some() {
            return refused(
                "insecure lets everybody in, and token-file does not: leave one of them out",
            );
        }
        let is_open = self.token_file.is_none() && !self.insecure;
        if is_open && !self.listen.ip().is_loopback() {
            return Err(UsageError(format!(
                "{} can be reached from other machines: name a --token-file, or say --insecure",
                self.listen
            )));
        }
        let has = |face| self.faces.contains(&face);
        for (face, name, waits) in [
            (Face::Streams, "long-poll-timeout", self.long_poll_timeout),
            (
                Face::Realtime,
                "realtime-keep-alive",
                self.realtime_keep_alive,
            ),
            (
                Face::Phoenix,
                "phoenix-idle-timeout",
                self.phoenix_idle_timeout,
            ),
            (
                Face::Megaphone,
                "megaphone-read-duration",
                self.megaphone_read_duration,
            ),
            (
                Face::Megaphone,
                "megaphone-write-timeout",
                self.megaphone_write_timeout,
            ),
        ] {
            if has(face) && self.idle_timeout <= waits {
                return Err(UsageError(format!(
                    "--idle-timeout must be longer than --{name}: {:?} is not longer than {waits:?}",
                    self.idle_timeout
                )));
            }
        }
        Ok(())
    }
}
