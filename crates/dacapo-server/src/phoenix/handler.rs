//! What an application writes: who may connect, and what its channels do.

use std::error::Error;
use std::fmt;
use std::future::{Future, ready};

use axum::http::HeaderMap;
use dacapo_log::Start;
use serde_json::json;

use super::channel::Channel;
use super::durable::Durable;
use super::payload::Payload;
use super::wire::{Message, Status};

/// Why a handler failed: it ends its channel, and its client joins again.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// Who may connect.
///
/// ```
/// use dacapo_server::phoenix::{Connect, Refused, SocketHandler};
///
/// struct Users;
///
/// impl SocketHandler for Users {
///     /// The user's name.
///     type Assigns = String;
///
///     async fn connect(&self, connect: &Connect) -> Result<String, Refused> {
///         let user = connect.param("user").ok_or_else(|| Refused::because("who are you?"))?;
///         Ok(user.to_owned())
///     }
/// }
/// ```
pub trait SocketHandler: Send + Sync + 'static {
    /// What is known of a connected client, in all of its channels.
    type Assigns: Send + Sync + 'static;

    /// A client connects; what is refused gets a 403, and a panic is a refusal.
    fn connect(
        &self,
        connect: &Connect,
    ) -> impl Future<Output = Result<Self::Assigns, Refused>> + Send;

    /// A client has gone, in whatever way, and its channels have ended.
    fn disconnect(&self, _assigns: &Self::Assigns) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

/// Lets everybody connect, and knows nothing of them.
#[derive(Clone, Copy, Debug)]
pub struct Anybody;

impl SocketHandler for Anybody {
    type Assigns = ();

    async fn connect(&self, _: &Connect) -> Result<(), Refused> {
        Ok(())
    }
}

/// What a client connects with.
#[derive(Clone)]
pub struct Connect {
    pub(super) params: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) auth_token: Option<String>,
}

impl Connect {
    /// A parameter of the socket, as phoenix.js has them in `params`.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// The headers of the request. Browsers give an `origin`, which a socket that trusts cookies must
    /// look at.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// phoenix.js's `authToken`.
    #[must_use]
    pub fn auth_token(&self) -> Option<&str> {
        self.auth_token.as_deref()
    }
}

/// Without what may be secret: tokens, cookies and the values of parameters.
impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let params: Vec<_> = self.params.iter().map(|(name, _)| name).collect();
        f.debug_struct("Connect")
            .field("params", &params)
            .finish_non_exhaustive()
    }
}

/// What the channels of some topics do.
///
/// `S` is what is known of a connected client: the [`Assigns`](SocketHandler::Assigns) of its socket.
/// Each joined topic of each client is a channel, and a task, of its own. What its handler sends to its
/// client arrives in the order in which it was sent: replies, pushes and broadcasts alike. A panic or an
/// error ends the channel with `phx_error` and nothing else.
///
/// ```
/// use dacapo_server::phoenix::{
///     Channel, ChannelHandler, HandlerError, Join, Joined, Message, Refused, Reply,
/// };
/// use serde_json::json;
///
/// struct Rooms;
///
/// impl ChannelHandler for Rooms {
///     type Assigns = ();
///
///     async fn join(&self, _: &(), join: &Join) -> Result<Joined<()>, Refused> {
///         match join.matched() {
///             "private" => Err(Refused::because("unauthorized")),
///             _ => Ok(Joined::new(())),
///         }
///     }
///
///     async fn message(
///         &self,
///         room: &mut Channel<(), ()>,
///         message: Message,
///     ) -> Result<Reply, HandlerError> {
///         match message.event.as_str() {
///             "new:msg" => {
///                 room.broadcast("new:msg", message.payload).await?;
///                 Ok(Reply::ok(json!({})))
///             }
///             _ => Ok(Reply::error(json!({"reason": "unknown event"}))),
///         }
///     }
/// }
/// ```
pub trait ChannelHandler<S: Send + Sync + 'static = ()>: Send + Sync + 'static {
    /// What is known in a channel.
    type Assigns: Send + 'static;

    /// The log that broadcasts of a topic go through; `None`, the default, where they live in memory. It
    /// must be the same whenever it is asked.
    fn durable(&self, _topic: &str) -> Option<&Durable> {
        None
    }

    /// A client joins. Broadcasts from this moment on are sent to it behind the reply.
    fn join(
        &self,
        socket: &S,
        join: &Join,
    ) -> impl Future<Output = Result<Joined<Self::Assigns>, Refused>> + Send;

    /// A client has joined and been told so.
    fn joined(
        &self,
        _channel: &mut Channel<S, Self::Assigns>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        ready(Ok(()))
    }

    /// A client has sent something.
    fn message(
        &self,
        channel: &mut Channel<S, Self::Assigns>,
        message: Message,
    ) -> impl Future<Output = Result<Reply, HandlerError>> + Send;

    /// The program has sent something to the handlers of this topic, by
    /// [`ChannelBroadcaster::info`](super::ChannelBroadcaster::info).
    fn info(
        &self,
        _channel: &mut Channel<S, Self::Assigns>,
        _event: &str,
        _payload: &Payload,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        ready(Ok(()))
    }

    /// The channel ends. Its client hears of it behind this.
    fn leave(
        &self,
        _channel: &mut Channel<S, Self::Assigns>,
        _why: Left,
    ) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

/// A join that is asked for.
#[derive(Clone, Debug)]
pub struct Join {
    pub(super) topic: String,
    pub(super) matched: String,
    pub(super) payload: Payload,
}

impl Join {
    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What the `*` of the handler's pattern stands for; empty without one.
    #[must_use]
    pub fn matched(&self) -> &str {
        &self.matched
    }

    /// What the client joins with.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }
}

/// A join that is granted.
#[derive(Debug)]
#[must_use = "return it, and the client has joined"]
pub struct Joined<A> {
    pub(super) assigns: A,
    pub(super) response: Payload,
    pub(super) start: Option<Start>,
}

impl<A> Joined<A> {
    /// Granted, with what is to be known in the channel.
    pub fn new(assigns: A) -> Self {
        Self {
            assigns,
            response: Payload::empty(),
            start: None,
        }
    }

    /// What the client is told; an empty object by default.
    pub fn reply(mut self, response: impl Into<Payload>) -> Self {
        self.response = response.into();
        self
    }

    /// Where the client begins in the log of a durable topic, whatever it has asked for. By default behind
    /// the offset that it says it has seen, and live if it says none.
    pub fn start(mut self, start: Start) -> Self {
        self.start = Some(start);
        self
    }
}

/// No, and why not.
#[derive(Clone, Debug)]
#[must_use = "return it, and the client is refused"]
pub struct Refused(pub(super) Payload);

impl Refused {
    /// `{"reason": reason}`.
    pub fn because(reason: &str) -> Self {
        Self(Payload::from(json!({"reason": reason})))
    }

    /// What the client is told, as it is.
    pub fn with(response: impl Into<Payload>) -> Self {
        Self(response.into())
    }
}

/// What a client's message is answered with.
#[derive(Clone, Debug)]
#[must_use = "return it, and the client is answered"]
pub struct Reply(pub(super) Option<(Status, Payload)>);

impl Reply {
    /// Ok, with this response.
    pub fn ok(response: impl Into<Payload>) -> Self {
        Self(Some((Status::Ok, response.into())))
    }

    /// Error, with this response.
    pub fn error(response: impl Into<Payload>) -> Self {
        Self(Some((Status::Error, response.into())))
    }

    /// None: the client's push stays without an answer, or is answered later by
    /// [`Channel::reply`].
    pub fn none() -> Self {
        Self(None)
    }
}

/// Why a channel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Left {
    /// The client left.
    Asked,
    /// The client joined the topic again.
    Rejoined,
    /// The handler closed it.
    Closed,
    /// The client has gone, or was disconnected.
    Disconnected,
    /// The handler failed, or the client was too slow, or the log could not be read.
    Failed,
}
