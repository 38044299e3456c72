//! The application under test: rooms in memory, rooms in a log, and who is there.

use dacapo_log::{Log, Start};
use dacapo_server::phoenix::{
    Channel, ChannelHandler, Connect, Durable, HandlerError, Join, Joined, Left, Limits, Message,
    Payload, Phoenix, Refused, Reply, SocketHandler,
};
use serde_json::{Map, json};
use tokio::sync::mpsc;

/// What the handlers were told, for tests to wait for.
pub(crate) type Told = mpsc::UnboundedSender<String>;

pub(crate) struct Users(pub(crate) Told);

pub(crate) struct User {
    name: String,
    token: Option<String>,
}

impl User {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl SocketHandler for Users {
    type Assigns = User;

    async fn connect(&self, connect: &Connect) -> Result<User, Refused> {
        let name = connect.param("user").unwrap_or("nobody").to_owned();
        match name.as_str() {
            _ if connect.auth_token() == Some("expired") => Err(Refused::because("log in again")),
            "mallory" => Err(Refused::because("go away")),
            "bomb" => panic!("boom"),
            _ => Ok(User {
                name,
                token: connect.auth_token().map(str::to_owned),
            }),
        }
    }

    async fn disconnect(&self, user: &User) {
        let _ = self.0.send(format!("{} has gone", user.name));
    }
}

pub(crate) struct Rooms {
    durable: Option<Durable>,
    told: Told,
}

type Room = Channel<User, u64>;

impl ChannelHandler<User> for Rooms {
    /// How many messages there were.
    type Assigns = u64;

    fn durable(&self, _: &str) -> Option<&Durable> {
        self.durable.as_ref()
    }

    async fn join(&self, user: &User, join: &Join) -> Result<Joined<u64>, Refused> {
        match join.matched() {
            "private" => Err(Refused::because("unauthorized")),
            "bomb" => panic!("boom"),
            "all" => Ok(Joined::new(0).start(Start::Oldest)),
            room => Ok(Joined::new(0).reply(json!({"room": room, "user": user.name}))),
        }
    }

    async fn message(&self, room: &mut Room, message: Message) -> Result<Reply, HandlerError> {
        room.assigns += 1;
        let payload = message.payload.clone();
        match message.event.as_str() {
            "new:msg" => {
                room.broadcast("new:msg", payload).await?;
                Ok(Reply::ok(json!({"count": room.assigns})))
            }
            "quietly" => {
                room.broadcast_from("new:msg", payload).await?;
                Ok(Reply::ok(json!({})))
            }
            "in order" => {
                room.push("first", json!({})).await?;
                room.broadcast("second", json!({})).await?;
                room.broadcast_in_memory("third", json!({})).await?;
                room.broadcast("fourth", json!({})).await?;
                room.push("fifth", json!({})).await?;
                Ok(Reply::ok(json!({})))
            }
            "bin" => {
                room.push("bin", payload.clone()).await?;
                room.broadcast("bin", payload.clone()).await?;
                Ok(Reply::ok(payload))
            }
            "token" => Ok(Reply::ok(json!({"token": room.socket().token}))),
            "silence" => Ok(Reply::none()),
            "close" => {
                room.close();
                Ok(Reply::ok(json!({})))
            }
            "fail" => Err("as asked".into()),
            "panic" => panic!("as asked"),
            _ => Ok(Reply::error(json!({"reason": "unknown event"}))),
        }
    }

    async fn info(
        &self,
        room: &mut Room,
        event: &str,
        payload: &Payload,
    ) -> Result<(), HandlerError> {
        Ok(room.push(event, payload.clone()).await?)
    }

    async fn leave(&self, room: &mut Room, why: Left) {
        let _ = self.told.send(format!("{} {why:?}", room.topic()));
    }
}

/// Who is there.
pub(crate) struct Lobby;

impl ChannelHandler<User> for Lobby {
    type Assigns = ();

    async fn join(&self, _: &User, _: &Join) -> Result<Joined<()>, Refused> {
        Ok(Joined::new(()))
    }

    async fn joined(&self, lobby: &mut Channel<User, ()>) -> Result<(), HandlerError> {
        let name = lobby.socket().name.clone();
        lobby.track(&name, Map::new()).await;
        Ok(lobby.push_presence().await?)
    }

    async fn message(
        &self,
        lobby: &mut Channel<User, ()>,
        message: Message,
    ) -> Result<Reply, HandlerError> {
        let name = lobby.socket().name.clone();
        lobby.track(&name, message.payload.parse()?).await;
        Ok(Reply::none())
    }
}

/// All of it, and what its handlers are told.
pub(crate) fn phoenix(
    log: &Log,
    limits: Limits,
) -> (Phoenix<User>, mpsc::UnboundedReceiver<String>) {
    let (told, telling) = mpsc::unbounded_channel();
    let rooms = |durable| Rooms {
        durable,
        told: told.clone(),
    };
    let phoenix = Phoenix::builder(Users(told.clone()))
        .channel("rooms:*", rooms(None))
        .channel("kept:*", rooms(Some(Durable::new(log))))
        .channel(
            "safe:*",
            rooms(Some(
                Durable::new(log)
                    .synced()
                    .offset_key("id")
                    .last_seen_key("since"),
            )),
        )
        .channel("lobby", Lobby)
        .limits(limits)
        .build();
    (phoenix, telling)
}
