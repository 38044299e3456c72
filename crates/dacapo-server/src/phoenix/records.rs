//! The channels of a log, whoever writes it: to join a topic is to tail it.

use std::fmt;

use dacapo_log::{Log, Start};
use serde_json::{Value, json};

use super::channel::Channel;
use super::durable::Durable;
use super::handler::{ChannelHandler, HandlerError, Join, Joined, Refused, Reply};
use super::wire::Message;
use crate::reserved;
use crate::streams::Streams;

/// What a client wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Join it, and get its records.
    Read,
    /// Append to it.
    Append,
}

type Rights<S> = Box<dyn Fn(&S, &str, Access) -> bool + Send + Sync>;

/// The handler of the topics of a log: a client of phoenix.js needs no other.
///
/// To join a topic is to tail it. Each record, whoever wrote it, is an event `message` with a payload
/// `{"data": .., "offset": N}`: the record if it is JSON, otherwise its text, or its bytes in base64 beside
/// `"encoding": "base64"`. A client joins with `last_seen_id` to go on where it was, or with
/// `{"from": "oldest"}` to begin at the beginning. A push `publish` appends its payload, a JSON object or
/// bytes, and is answered with `{"offset": N}`. Topics that begin with `__` are the server's own, and are
/// refused.
///
/// ```
/// use dacapo_log::Log;
/// use dacapo_server::phoenix::{Access, Anybody, Phoenix, RecordChannels};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path())?;
/// let records = RecordChannels::new(&log, |_: &(), topic, access| match access {
///     Access::Read => true,
///     Access::Append => topic.starts_with("public:"),
/// });
/// let phoenix = Phoenix::builder(Anybody).channel("*", records).build();
/// # Ok(())
/// # }
/// ```
pub struct RecordChannels<S> {
    durable: Durable,
    may: Rights<S>,
    streams: Option<Streams>,
}

impl<S> RecordChannels<S> {
    /// The topics of `log`, for those who `may`.
    pub fn new(log: &Log, may: impl Fn(&S, &str, Access) -> bool + Send + Sync + 'static) -> Self {
        Self {
            durable: Durable::of_any_records(log),
            may: Box::new(may),
            streams: None,
        }
    }

    /// For a log whose topics may be streams as well, which is served by `streams`: a stream knows what
    /// was published to it, and one that is closed, or takes JSON only, refuses what it would of others.
    #[must_use]
    pub fn through(mut self, streams: &Streams) -> Self {
        self.durable = self.durable.through(streams);
        self.streams = Some(streams.clone());
        self
    }

    /// Records are safe from power loss before anybody gets them, and before their offset is told.
    #[must_use]
    pub fn synced(mut self) -> Self {
        self.durable = self.durable.synced();
        self
    }
}

impl<S: Send + Sync + 'static> ChannelHandler<S> for RecordChannels<S> {
    type Assigns = ();

    fn durable(&self, _topic: &str) -> Option<&Durable> {
        Some(&self.durable)
    }

    async fn join(&self, socket: &S, join: &Join) -> Result<Joined<()>, Refused> {
        if reserved::is_reserved(join.topic()) {
            return Err(Refused::because("the topic is the server's own"));
        }
        if !(self.may)(socket, join.topic(), Access::Read) {
            return Err(Refused::because("unauthorized"));
        }
        let params: Value = join.payload().parse().unwrap_or_default();
        let has_seen = matches!(self.durable.wanted(join.payload()), Ok(Some(_)));
        match params.get("from").and_then(Value::as_str) {
            // One that joins again goes on where it was.
            Some("oldest") if !has_seen => Ok(Joined::new(()).start(Start::Oldest)),
            Some("oldest" | "latest") | None => Ok(Joined::new(())),
            Some(_) => Err(Refused::because("from is neither oldest nor latest")),
        }
    }

    async fn message(
        &self,
        channel: &mut Channel<S, ()>,
        message: Message,
    ) -> Result<Reply, HandlerError> {
        let reason = |reason: &str| Reply::error(json!({"reason": reason}));
        if message.event != "publish" {
            return Ok(reason("unknown event"));
        }
        if !(self.may)(channel.socket(), channel.topic(), Access::Append) {
            return Ok(reason("unauthorized"));
        }
        if let Some(streams) = &self.streams {
            // What it waits for the disk for is done by then.
            if let Err(problem) = streams.open(channel.topic()).await {
                return Ok(reason(problem.detail()));
            }
        }
        match channel.broadcast("message", message.payload).await {
            Ok(Some(offset)) => Ok(Reply::ok(json!({"offset": offset.get()}))),
            Ok(None) => unreachable!("these topics are durable"),
            Err(error) => Ok(reason(&error.to_string())),
        }
    }
}

impl<S> fmt::Debug for RecordChannels<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordChannels")
            .field("log", self.durable.log())
            .finish_non_exhaustive()
    }
}
