//! The life of one channel: joined, told what comes, and ended, with its handler's panics caught.

use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use dacapo_log::Start;
use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, Core};
use super::durable::{Durable, Tail};
use super::handler::{ChannelHandler, HandlerError, Join, Joined, Left, Reply};
use super::hub::HasLog;
use super::payload::Payload;
use super::session::Channels;
use super::wire::{Message, Status};

/// How many broadcasts a channel delivers before it looks for messages of its client.
const DELIVERED_IN_A_ROW: usize = 64;

/// A handler, whatever it knows in its channels.
pub(super) trait Route<S>: Send + Sync {
    fn run(self: Arc<Self>, begun: Begun<S>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A handler of a type, for the sockets of one.
pub(super) struct Routed<S, H> {
    handler: H,
    sockets: PhantomData<fn(&S)>,
}

impl<S, H> Routed<S, H> {
    pub(super) fn new(handler: H) -> Self {
        Self {
            handler,
            sockets: PhantomData,
        }
    }
}

/// A channel that is about to be joined.
pub(super) struct Begun<S> {
    pub(super) core: Box<Core>,
    pub(super) socket: Arc<S>,
    pub(super) join: Join,
    pub(super) reference: Option<String>,
    pub(super) mailbox: mpsc::Receiver<Ask>,
    pub(super) stop: watch::Receiver<Option<Left>>,
    /// Cancelled when this channel has ended.
    pub(super) ended: CancellationToken,
    pub(super) channels: Weak<Mutex<Channels>>,
}

/// What a client asks of a channel.
#[derive(Debug)]
pub(super) enum Ask {
    /// On the heap, because a channel has room for many of them from its beginning.
    Message(Box<Message>),
    /// To leave; with the reference of that.
    Leave(Option<String>),
}

/// How a channel comes to its end.
enum End {
    Left(Option<String>),
    Stopped(Left),
    Closed,
    Failed(&'static str),
}

impl<S: Send + Sync + 'static, H: ChannelHandler<S>> HasLog for Routed<S, H> {
    fn durable(&self, topic: &str) -> Option<Durable> {
        self.handler.durable(topic).cloned()
    }
}

impl<S: Send + Sync + 'static, H: ChannelHandler<S>> Route<S> for Routed<S, H> {
    fn run(self: Arc<Self>, begun: Begun<S>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { run(&self.handler, begun).await })
    }
}

/// From the join to the end. What a channel does only once is on the heap meanwhile, so that one that
/// waits is small.
async fn run<S: Send + Sync + 'static, H: ChannelHandler<S>>(handler: &H, begun: Begun<S>) {
    let Begun {
        mut core,
        socket,
        join,
        reference,
        mut mailbox,
        mut stop,
        ended,
        channels,
    } = begun;
    let _ended = ended.drop_guard();
    let joined = caught(Box::pin(granted(handler, &socket, &join))).await;
    let joined = joined.unwrap_or_else(|panic| {
        tracing::error!(topic = join.topic, %panic, "a join has crashed");
        Err(Payload::from(json!({"reason": "join crashed"})))
    });
    let (joined, log) = match joined {
        Ok(joined) => joined,
        Err(response) => {
            remove(&channels, &core);
            core.reply(reference.as_deref(), Status::Error, &response)
                .await;
            return refuse_rest(&mut core, &mut mailbox).await;
        }
    };
    let mut response = joined.response;
    if let Some((durable, tail)) = log {
        if let Some(gap) = tail.gap {
            response = response.with("gap", &gap.to_json());
        }
        core.feed.read(durable, tail);
    }
    core.reply(reference.as_deref(), Status::Ok, &response)
        .await;
    let mut channel = Channel {
        assigns: joined.assigns,
        socket,
        core,
    };
    let lived = caught(live(handler, &mut channel, &mut mailbox, &mut stop)).await;
    let end = match lived {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => {
            channel.core.fail("channel_crash", &error);
            End::Failed("channel_crash")
        }
        Err(panic) => {
            channel.core.fail("channel_crash", &panic);
            End::Failed("channel_crash")
        }
    };
    remove(&channels, &channel.core);
    Box::pin(finish(handler, &mut channel, end)).await;
    refuse_rest(&mut channel.core, &mut mailbox).await;
}

/// A join that is granted, and where it begins in the log of a durable topic.
type WithLog<A> = (Joined<A>, Option<(Durable, Tail)>);

/// Asks the handler, and what is in the log for the client; or with what it is refused.
async fn granted<S: Send + Sync + 'static, H: ChannelHandler<S>>(
    handler: &H,
    socket: &S,
    join: &Join,
) -> Result<WithLog<H::Assigns>, Payload> {
    let reason = |reason: String| Payload::from(json!({"reason": reason}));
    let durable = handler.durable(&join.topic);
    // Before the handler looks: what is broadcast while it does is not missed.
    let log = open_log(durable, join, None).map_err(reason)?;
    let joined = handler
        .join(socket, join)
        .await
        .map_err(|refused| refused.0)?;
    let log = match joined.start {
        Some(start) => open_log(durable, join, Some(start)).map_err(reason)?,
        None => log,
    };
    Ok((joined, log))
}

/// Looks into the log of a durable topic, from where the client goes on.
fn open_log(
    durable: Option<&Durable>,
    join: &Join,
    start: Option<Start>,
) -> Result<Option<(Durable, Tail)>, String> {
    let Some(durable) = durable else {
        return Ok(None);
    };
    let start = match (start, durable.wanted(&join.payload)?) {
        (Some(start), _) => start,
        (None, Some(next)) => Start::AtOrOldest(next),
        (None, None) => Start::Latest,
    };
    let topic = durable
        .topic(&join.topic)
        .map_err(|error| error.to_string())?;
    let tail = durable
        .tail(&topic, start)
        .map_err(|error| error.to_string())?;
    Ok(Some((durable.clone(), tail)))
}

/// Does what comes, until the channel comes to its end.
async fn live<S: Send + Sync + 'static, H: ChannelHandler<S>>(
    handler: &H,
    channel: &mut Channel<S, H::Assigns>,
    mailbox: &mut mpsc::Receiver<Ask>,
    stop: &mut watch::Receiver<Option<Left>>,
) -> Result<End, HandlerError> {
    handler.joined(channel).await?;
    loop {
        for _ in 0..DELIVERED_IN_A_ROW {
            if channel.core.failed.is_some() || channel.core.closing {
                break;
            }
            match channel.core.feed.try_take() {
                Ok(Some(item)) => channel.core.deliver(item).await,
                Ok(None) => break,
                Err(broken) => channel.core.fail(broken.reason(), &broken),
            }
        }
        while let Some(info) = channel.core.infos.pop_front() {
            handler.info(channel, &info.event, &info.payload).await?;
        }
        if let Some(reason) = channel.core.failed {
            return Ok(End::Failed(reason));
        }
        if channel.core.closing {
            return Ok(End::Closed);
        }
        tokio::select! {
            biased;
            why = stopped(stop) => return Ok(End::Stopped(why)),
            asked = mailbox.recv() => match asked {
                Some(Ask::Message(message)) => {
                    let reference = message.reference.clone();
                    let Reply(reply) = handler.message(channel, *message).await?;
                    if let Some((status, response)) = reply {
                        channel.core.reply(reference.as_deref(), status, &response).await;
                    }
                }
                Some(Ask::Leave(reference)) => return Ok(End::Left(reference)),
                None => return Ok(End::Stopped(Left::Disconnected)),
            },
            arrived = channel.core.feed.wait() => {
                if let Err(broken) = arrived {
                    channel.core.fail(broken.reason(), &broken);
                }
            }
        }
    }
}

/// Waits until the socket wants the channel to end. Cancel-safe.
async fn stopped(stop: &mut watch::Receiver<Option<Left>>) -> Left {
    let why = stop
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|why| *why);
    why.unwrap_or(Left::Disconnected)
}

/// Tells the handler and then the client.
async fn finish<S: Send + Sync + 'static, H: ChannelHandler<S>>(
    handler: &H,
    channel: &mut Channel<S, H::Assigns>,
    end: End,
) {
    let why = match end {
        End::Left(_) => Left::Asked,
        End::Stopped(why) => why,
        End::Closed => Left::Closed,
        End::Failed(_) => Left::Failed,
    };
    if let Err(panic) = caught(handler.leave(channel, why)).await {
        tracing::error!(topic = channel.topic(), %panic, "a handler has crashed while its channel ended");
    }
    let core = &mut channel.core;
    core.untrack_all();
    match end {
        End::Left(reference) => {
            core.reply(reference.as_deref(), Status::Ok, &Payload::empty())
                .await;
            core.tell_closed().await;
        }
        End::Stopped(Left::Rejoined) | End::Closed => core.tell_closed().await,
        End::Stopped(_) => {}
        End::Failed(reason) => core.tell_failed(reason).await,
    }
}

/// The channel is no longer joined.
fn remove(channels: &Weak<Mutex<Channels>>, core: &Core) {
    if let Some(channels) = channels.upgrade() {
        let mut channels = channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.remove(&core.topic.name, core.number);
    }
}

/// Answers what was sent to a channel that had ended.
async fn refuse_rest(core: &mut Core, mailbox: &mut mpsc::Receiver<Ask>) {
    mailbox.close();
    while let Some(asked) = mailbox.recv().await {
        match asked {
            Ask::Message(message) => {
                let reference = message.reference.as_deref();
                core.reply(reference, Status::Error, &unmatched()).await;
            }
            Ask::Leave(reference) => {
                core.reply(reference.as_deref(), Status::Ok, &Payload::empty())
                    .await;
            }
        }
    }
}

pub(super) fn unmatched() -> Payload {
    Payload::from(json!({"reason": "unmatched topic"}))
}

/// What a panic says of itself.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a text".to_owned())
}
