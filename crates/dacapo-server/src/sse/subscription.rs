//! Events from a log: each message with its id, and what was missed said explicitly.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use dacapo::{Decode, Message, Offset, ReceiveError, Receiver, Start, Subscription};
use dacapo_log::ReadError;
use futures_util::stream::{self, Stream};
use serde::Serialize;

use super::event::{EncodedEvent, Event, EventError};
use super::response::Sse;
use crate::resume::Numbering;

/// After so many messages that a client does not want, other tasks get their turn.
const PASSED_OVER_MAX: u32 = 128;

/// Where messages come from: a [`Receiver`] of a channel, or a [`Subscription`] of a broadcaster.
pub trait Source<T, C>: Send + Sync + Sized + 'static + private::Sealed {
    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// As [`Receiver::message`].
    fn message(&self) -> impl Future<Output = Result<Message<T, C>, ReceiveError>> + Send;

    /// The next message, if it is there.
    ///
    /// # Errors
    /// As [`Receiver::try_message`].
    fn try_message(&self) -> Result<Option<Message<T, C>>, ReceiveError>;

    /// The offset of the next message, or one before which there is none to come.
    fn offset(&self) -> Offset;

    /// Goes on from `start` instead.
    fn seek(&self, start: Start);

    /// Moves behind damage, and returns where receiving goes on.
    fn skip_damage(&self) -> Offset;
}

mod private {
    /// What may be a source is for this crate to say.
    pub trait Sealed {}
    impl<T, C> Sealed for dacapo::Receiver<T, C> {}
    impl<T, C> Sealed for dacapo::Subscription<T, C> {}
}

macro_rules! source {
    ($of:ident) => {
        impl<T: 'static, C: for<'a> Decode<'a, T>> Source<T, C> for $of<T, C> {
            fn message(&self) -> impl Future<Output = Result<Message<T, C>, ReceiveError>> + Send {
                $of::message(self)
            }

            fn try_message(&self) -> Result<Option<Message<T, C>>, ReceiveError> {
                $of::try_message(self)
            }

            fn offset(&self) -> Offset {
                $of::offset(self)
            }

            fn seek(&self, start: Start) {
                $of::seek(self, start);
            }

            fn skip_damage(&self) -> Offset {
                $of::skip_damage(self)
            }
        }
    };
}

source!(Receiver);
source!(Subscription);

impl Sse<Events> {
    /// A response of the messages of a subscription, or of a receiver: `event` makes an event of each,
    /// which gets the message's offset as its id. So a client that comes back says what it has seen last,
    /// and goes on behind that, also after a restart of the server: see
    /// [`LastEventId`](crate::LastEventId).
    ///
    /// Nothing is left out silently. Where messages were missed, an event of the name `gap` that has no
    /// id stands before the next one: its data is `{"reason":..,"requested":N,"resume_at":M}`, with the
    /// first message that was to come, and the next one that can. The reasons are `pruned`,
    /// `beyond_end` (the client has seen messages that a power cut undid, or that were another log's),
    /// `rewound`, `lagged`, `lost` and `damaged`. In the place of a message that cannot be decoded, or of
    /// which `event` makes none, there is an event of the name `error`, with the message's id and the data
    /// `{"id":N,"error":..}`.
    ///
    /// Before the first message there is an event of the name `position`: its id is where the subscription
    /// stands, its data `{"resume_at":N}`. A client that loses its connection before that message goes on
    /// from there.
    ///
    /// The response ends when the source does; one that fell behind and [ends](dacapo::Lag::End) then
    /// brings its client back, with its last id.
    ///
    /// ```
    /// use dacapo::{Broadcaster, Start};
    /// use dacapo_server::{Event, Sse};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prices = Broadcaster::<String, u32>::temporary()?;
    /// let subscription = prices.subscribe_from("tea", Start::Oldest)?;
    /// let response = Sse::subscription(subscription, |price| Event::named("price")?.json(&price));
    /// # Ok(())
    /// # }
    /// ```
    pub fn subscription<T, C, R, M>(source: R, mut event: M) -> Self
    where
        T: Send + 'static,
        C: for<'a> Decode<'a, T>,
        R: Source<T, C>,
        M: FnMut(T) -> Result<Event, EventError> + Send + 'static,
    {
        Self::messages(source, move |message: &Message<T, C>| {
            let decoded = message.decode().map_err(|error| error.to_string())?;
            event(decoded).map(Some).map_err(|error| error.to_string())
        })
    }

    /// As [`subscription`](Self::subscription), of messages with their times and topics, not decoded yet:
    /// for events that say to which key a message was sent, and for a choice of messages. Of those that
    /// `event` returns `None` for, the client hears nothing.
    ///
    /// ```
    /// use dacapo::{Broadcaster, Message, Start};
    /// use dacapo_server::{Event, Sse};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let prices = Broadcaster::<String, u32>::temporary()?;
    /// let teas = prices.subscribe_prefix("tea:", Start::Oldest);
    /// let response = Sse::messages(teas, |message: &Message<u32>| {
    ///     let price = message.decode()?;
    ///     let event = Event::named(message.topic())?.json(&price)?;
    ///     Ok::<_, Box<dyn std::error::Error>>((price > 3).then_some(event))
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn messages<T, C, R, M, E>(source: R, mut event: M) -> Self
    where
        T: Send + 'static,
        C: for<'a> Decode<'a, T>,
        R: Source<T, C>,
        M: FnMut(&Message<T, C>) -> Result<Option<Event>, E> + Send + 'static,
        E: fmt::Display,
    {
        let events = events(source, Numbering::OFFSETS, move |id, message| {
            let event = event(message).map_err(|error| error.to_string())?;
            Ok(event.map(|event| event.number(id).into()))
        });
        Self::new(events)
    }
}

/// The events of a [subscription](Sse::subscription).
#[must_use = "nothing is received until it is polled"]
pub struct Events(Pin<Box<dyn Stream<Item = Result<EncodedEvent, ReceiveError>> + Send>>);

impl Stream for Events {
    type Item = Result<EncodedEvent, ReceiveError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// The events that `event` makes of messages and their numbers, which are to be the ids. Of those that it
/// makes none of, the client hears nothing.
pub(crate) fn events<T, C, R, M>(source: R, numbering: Numbering, event: M) -> Events
where
    T: 'static,
    C: for<'a> Decode<'a, T>,
    R: Source<T, C>,
    M: FnMut(u64, &Message<T, C>) -> Result<Option<EncodedEvent>, String> + Send + 'static,
{
    let follow = Follow {
        incoming: Incoming::new(source),
        numbering,
        event,
        has_begun: false,
        position: None,
        first: None,
    };
    Events(Box::pin(stream::unfold(follow, |mut follow| async {
        Some((follow.next().await?, follow))
    })))
}

struct Follow<T, C, R, M> {
    incoming: Incoming<R>,
    numbering: Numbering,
    event: M,
    has_begun: bool,
    /// Said before any message.
    position: Option<Offset>,
    /// A message that was taken to see whether it is a gap.
    first: Option<Received<T, C>>,
}

impl<T, C, R, M> Follow<T, C, R, M>
where
    T: 'static,
    C: for<'a> Decode<'a, T>,
    R: Source<T, C>,
    M: FnMut(u64, &Message<T, C>) -> Result<Option<EncodedEvent>, String> + Send,
{
    async fn next(&mut self) -> Option<Result<EncodedEvent, ReceiveError>> {
        if !self.has_begun {
            self.has_begun = true;
            self.position = Some(self.incoming.offset());
            match self.incoming.try_next() {
                // Before the position, with which the client would not ask for it again.
                Ok(Some(Received::Gap(gap))) => {
                    self.position = Some(gap.resume_at);
                    return Some(Ok(self.gap(gap)));
                }
                Ok(first) => self.first = first,
                Err(error) => return Some(Err(error)),
            }
        }
        if let Some(next) = self.position.take() {
            return Some(Ok(position(self.numbering, next).into()));
        }
        let mut passed_over = 0;
        loop {
            let received = match self.first.take() {
                Some(first) => Ok(Some(first)),
                None => self.incoming.next().await,
            };
            match received {
                Ok(Some(Received::Message(message))) => match self.event_of(&message) {
                    Some(event) => return Some(Ok(event)),
                    None => {
                        passed_over += 1;
                        if passed_over % PASSED_OVER_MAX == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                },
                Ok(Some(Received::Gap(gap))) => return Some(Ok(self.gap(gap))),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn event_of(&mut self, message: &Message<T, C>) -> Option<EncodedEvent> {
        let id = self.numbering.id(message.offset());
        match (self.event)(id, message) {
            Ok(event) => event,
            Err(error) => Some(unreadable(id, &error)),
        }
    }

    fn gap(&self, gap: Gap) -> EncodedEvent {
        control("gap", &gap.numbered(self.numbering)).into()
    }
}

/// An event of the stream's own. Without an id, it moves no client's position.
fn control(name: &str, data: &impl Serialize) -> Event {
    Event::named(name)
        .and_then(|event| event.json(data))
        .expect("a name of one line, and data of numbers and texts")
}

/// Where a client goes on that has received no message yet.
///
/// A frame of an `id:` alone would do by the standard, but not for every client.
fn position(numbering: Numbering, next: Offset) -> Event {
    #[derive(Serialize)]
    struct Position {
        resume_at: u64,
    }
    let resume_at = numbering.id(next);
    control("position", &Position { resume_at })
        .id(numbering.seen_before(next))
        .expect("a number")
}

/// In the place of a message that no event can be made of.
fn unreadable(id: u64, error: &str) -> EncodedEvent {
    tracing::error!(id, %error, "a message cannot be sent; an error event goes out in its place");
    #[derive(Serialize)]
    struct Unreadable<'a> {
        id: u64,
        error: &'a str,
    }
    control("error", &Unreadable { id, error })
        .number(id)
        .into()
}

/// A message, or that some were missed.
pub(crate) enum Received<T, C> {
    Message(Message<T, C>),
    Gap(Gap),
}

/// Messages were missed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    reason: &'static str,
    /// The first message that was to come.
    requested: Offset,
    /// The next one that can.
    resume_at: Offset,
}

impl Gap {
    pub(crate) fn numbered(self, numbering: Numbering) -> NumberedGap {
        NumberedGap {
            reason: self.reason,
            requested: numbering.id(self.requested),
            resume_at: numbering.id(self.resume_at),
        }
    }
}

/// A gap as clients are told of it.
#[derive(Debug, Serialize)]
pub(crate) struct NumberedGap {
    reason: &'static str,
    requested: u64,
    resume_at: u64,
}

/// A source, of which every error behind which it can go on has become a gap.
pub(crate) struct Incoming<R> {
    source: R,
    /// Behind the last message received.
    expected: Offset,
}

impl<R> Incoming<R> {
    pub(crate) fn new<T, C>(source: R) -> Self
    where
        R: Source<T, C>,
    {
        let expected = source.offset();
        Self { source, expected }
    }

    /// Where the next message is, or an offset before which there is none to come.
    pub(crate) fn offset<T, C>(&self) -> Offset
    where
        R: Source<T, C>,
    {
        self.source.offset()
    }

    /// Waits for the next message, or gap; `None` at the end. Cancel-safe.
    pub(crate) async fn next<T, C>(&mut self) -> Result<Option<Received<T, C>>, ReceiveError>
    where
        R: Source<T, C>,
    {
        let received = self.source.message().await;
        self.note(received)
    }

    /// The next message, or gap, if it is there. `None` also at the end, which [`next`](Self::next)
    /// tells.
    pub(crate) fn try_next<T, C>(&mut self) -> Result<Option<Received<T, C>>, ReceiveError>
    where
        R: Source<T, C>,
    {
        match self.source.try_message().transpose() {
            None => Ok(None),
            Some(received) => self.note(received),
        }
    }

    pub(crate) fn seek<T, C>(&mut self, start: Start)
    where
        R: Source<T, C>,
    {
        self.source.seek(start);
        self.expected = self.source.offset();
    }

    fn note<T, C>(
        &mut self,
        received: Result<Message<T, C>, ReceiveError>,
    ) -> Result<Option<Received<T, C>>, ReceiveError>
    where
        R: Source<T, C>,
    {
        let (reason, requested, resume_at) = match received {
            Ok(message) => {
                self.expected = message.offset().next();
                return Ok(Some(Received::Message(message)));
            }
            Err(error) if error.is_end() => return Ok(None),
            Err(ReceiveError::Lagged(lagged)) => ("lagged", self.expected, lagged.resume_at),
            Err(ReceiveError::Read(error)) => match error {
                ReadError::Pruned { requested, oldest } => ("pruned", requested, oldest),
                ReadError::Rewound {
                    requested,
                    resume_at,
                    ..
                } => ("rewound", requested, resume_at),
                ReadError::BeyondEnd { requested, next } => {
                    // What was appended since that look is read, too.
                    self.source.seek(Start::AtOrOldest(next));
                    ("beyond_end", requested, next)
                }
                ReadError::Lost { from, to } => ("lost", from, to),
                error @ (ReadError::Corrupt(_) | ReadError::SegmentMissing { .. }) => {
                    tracing::error!(%error, "messages cannot be read; clients are told of a gap");
                    let from = self.source.offset();
                    ("damaged", from, self.source.skip_damage())
                }
                error => return Err(ReceiveError::Read(error)),
            },
            Err(error) => return Err(error),
        };
        self.expected = resume_at;
        Ok(Some(Received::Gap(Gap {
            reason,
            requested,
            resume_at,
        })))
    }
}
