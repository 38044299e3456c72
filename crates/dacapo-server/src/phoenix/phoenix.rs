//! The handlers of one mount, and its routes.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::routing::{any, get};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::broadcaster::ChannelBroadcaster;
use super::handler::{ChannelHandler, Connect, Refused, SocketHandler};
use super::hub::{HasLog, Hub};
use super::limits::Limits;
use super::longpoll::{self, Polls};
use super::pattern::Pattern;
use super::task::{Route, Routed};
use super::websocket;

/// Phoenix channels: who may connect, which handler each topic has, and the routes for axum.
///
/// ```
/// use dacapo_server::phoenix::{
///     Anybody, Channel, ChannelHandler, HandlerError, Join, Joined, Message, Phoenix, Refused, Reply,
/// };
///
/// struct Echo;
///
/// impl ChannelHandler for Echo {
///     type Assigns = ();
///
///     async fn join(&self, _: &(), _: &Join) -> Result<Joined<()>, Refused> {
///         Ok(Joined::new(()))
///     }
///
///     async fn message(
///         &self,
///         _: &mut Channel<(), ()>,
///         message: Message,
///     ) -> Result<Reply, HandlerError> {
///         Ok(Reply::ok(message.payload))
///     }
/// }
///
/// let phoenix = Phoenix::builder(Anybody).channel("echo:*", Echo).build();
/// let app: axum::Router = phoenix.router("/socket");
/// ```
pub struct Phoenix<S: Send + Sync + 'static = ()>(Arc<Shared<S>>);

/// What all sockets share.
pub(super) struct Shared<S: Send + Sync + 'static> {
    pub(super) sockets: Box<dyn Sockets<S>>,
    routes: Vec<(Pattern, Arc<dyn Route<S>>)>,
    pub(super) hub: Arc<Hub>,
    connected: Mutex<HashMap<u64, (Arc<S>, CancellationToken)>>,
    pub(super) polls: Polls<S>,
    /// Cancelled when the server goes away.
    pub(super) drained: CancellationToken,
    pub(super) clients: TaskTracker,
}

/// A [`SocketHandler`], whatever its type.
pub(super) trait Sockets<S>: Send + Sync {
    fn connecting<'a>(
        &'a self,
        connect: &'a Connect,
    ) -> Pin<Box<dyn Future<Output = Result<S, Refused>> + Send + 'a>>;
    fn disconnected<'a>(&'a self, assigns: &'a S) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

impl<H: SocketHandler> Sockets<H::Assigns> for H {
    fn connecting<'a>(
        &'a self,
        connect: &'a Connect,
    ) -> Pin<Box<dyn Future<Output = Result<H::Assigns, Refused>> + Send + 'a>> {
        Box::pin(self.connect(connect))
    }

    fn disconnected<'a>(
        &'a self,
        assigns: &'a H::Assigns,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.disconnect(assigns))
    }
}

impl<S: Send + Sync + 'static> Phoenix<S> {
    /// Begins with who may connect.
    pub fn builder<H: SocketHandler<Assigns = S>>(sockets: H) -> PhoenixBuilder<S> {
        PhoenixBuilder {
            sockets: Box::new(sockets),
            routes: Vec::new(),
            logs: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// The routes below `mount`, which begins with a slash: `{mount}/websocket` and `{mount}/longpoll`.
    ///
    /// # Panics
    /// Where `mount` is no path, as [`Router::route`].
    pub fn router<T: Clone + Send + Sync + 'static>(&self, mount: &str) -> Router<T> {
        let mount = mount.trim_end_matches('/');
        Router::new()
            .route(&format!("{mount}/websocket"), get(websocket::serve::<S>))
            .route(&format!("{mount}/longpoll"), any(longpoll::serve::<S>))
            .with_state(Arc::clone(&self.0))
    }

    /// Broadcasts from anywhere in the program.
    #[must_use]
    pub fn broadcaster(&self) -> ChannelBroadcaster {
        ChannelBroadcaster(Arc::clone(&self.0.hub))
    }

    /// Disconnects those clients of whom `whom` is true, with 1001; phoenix.js comes back, and is asked
    /// again who it is.
    pub fn disconnect(&self, whom: impl Fn(&S) -> bool) {
        let connected = self
            .0
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (socket, disconnected) in connected.values() {
            if whom(socket) {
                disconnected.cancel();
            }
        }
    }

    /// Sends all clients away, with 1012, refuses new ones, and waits until all channels have ended.
    /// Clients come back by themselves, to the server that comes next.
    pub async fn drain(&self) {
        self.0.drained.cancel();
        self.0.clients.close();
        self.0.clients.wait().await;
    }
}

impl<S: Send + Sync + 'static> Shared<S> {
    /// The handler of a topic, and what its `*` stands for.
    pub(super) fn route<'t>(&self, topic: &'t str) -> Option<(Arc<dyn Route<S>>, &'t str)> {
        self.routes.iter().find_map(|(pattern, route)| {
            let matched = pattern.matched(topic)?;
            Some((Arc::clone(route), matched))
        })
    }

    /// A client is there.
    pub(super) fn enter(&self, socket: &Arc<S>) -> (u64, CancellationToken) {
        let (number, disconnected) = (self.hub.number(), CancellationToken::new());
        let mut connected = self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connected.insert(number, (Arc::clone(socket), disconnected.clone()));
        self.hub.clients.fetch_add(1, Ordering::AcqRel);
        (number, disconnected)
    }

    /// A client has gone.
    pub(super) fn leave(&self, number: u64) {
        let mut connected = self
            .connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if connected.remove(&number).is_some() {
            self.hub.clients.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl<S: Send + Sync + 'static> Clone for Phoenix<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Send + Sync + 'static> fmt::Debug for Phoenix<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Phoenix").field(&self.broadcaster()).finish()
    }
}

/// Which handler each topic has; made by [`Phoenix::builder`].
#[must_use = "it serves nothing until it is built"]
pub struct PhoenixBuilder<S: Send + Sync + 'static> {
    sockets: Box<dyn Sockets<S>>,
    routes: Vec<(Pattern, Arc<dyn Route<S>>)>,
    logs: Vec<(Pattern, Arc<dyn HasLog>)>,
    limits: Limits,
}

impl<S: Send + Sync + 'static> PhoenixBuilder<S> {
    /// Gives the topics of `pattern` to `handler`: a name, or a prefix and `*`. The first pattern that
    /// matches counts.
    ///
    /// # Panics
    /// Where a `*` stands anywhere but at the end.
    pub fn channel<H: ChannelHandler<S>>(mut self, pattern: &str, handler: H) -> Self {
        let pattern = Pattern::new(pattern);
        let routed = Arc::new(Routed::new(handler));
        self.logs
            .push((pattern.clone(), Arc::clone(&routed) as Arc<dyn HasLog>));
        self.routes.push((pattern, routed));
        self
    }

    /// How much of anything a client may have, and how long everything may take.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// All of it.
    #[must_use]
    pub fn build(self) -> Phoenix<S> {
        Phoenix(Arc::new(Shared {
            sockets: self.sockets,
            routes: self.routes,
            hub: Arc::new(Hub::new(self.limits, self.logs)),
            connected: Mutex::default(),
            polls: Polls::default(),
            drained: CancellationToken::new(),
            clients: TaskTracker::new(),
        }))
    }
}

impl<S: Send + Sync + 'static> fmt::Debug for PhoenixBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<_> = self.routes.iter().map(|(pattern, _)| pattern).collect();
        f.debug_struct("PhoenixBuilder")
            .field("patterns", &patterns)
            .finish_non_exhaustive()
    }
}
