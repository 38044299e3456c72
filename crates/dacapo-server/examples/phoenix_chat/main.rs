//! The chat of the Phoenix guides, which remembers: history for who joins, who is there, and for who was
//! away exactly what was missed.
//!
//! The page speaks through phoenix.js, as it is, and takes nothing from any network but this server.
//! Open it in two windows; write; stop the server, or cut off one of them, and let it come back.
//!
//! ```text
//! cargo run -p dacapo-server --example phoenix_chat -- chat   # then http://127.0.0.1:3000/lobby
//! ```

use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::header;
use axum::response::{Html, Redirect};
use axum::routing::get;
use axum::{Router, serve};
use dacapo_log::{Log, Start};
use dacapo_server::phoenix::{
    Channel, ChannelHandler, Connect, Durable, HandlerError, Join, Joined, Message, Phoenix,
    Refused, Reply, SocketHandler,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// In characters.
const NAME_MAX: usize = 40;
const BODY_MAX: usize = 2000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "chat".to_owned());
    let address = args.next().unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let log = tokio::task::spawn_blocking(move || Log::open(dir)).await??;
    let phoenix = Phoenix::builder(Guests)
        .channel("room:*", Rooms(Durable::new(&log)))
        .build();
    let script = async || {
        let script = include_str!("phoenix.min.js");
        ([(header::CONTENT_TYPE, "text/javascript")], script)
    };
    let app = Router::new()
        .route("/", get(async || Redirect::to("/lobby")))
        .route("/{room}", get(async || Html(include_str!("page.html"))))
        .route("/phoenix.js", get(script))
        .merge(phoenix.router("/socket"));
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/lobby", listener.local_addr()?);
    tokio::select! {
        served = async { serve(listener, app).await } => served?,
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    // Clients hear that another server comes, and come back to it.
    phoenix.drain().await;
    Ok(log.close()?)
}

/// Whoever has a name: where names must be true, look at [`Connect::auth_token`].
struct Guests;

impl SocketHandler for Guests {
    /// The name.
    type Assigns = String;

    async fn connect(&self, connect: &Connect) -> Result<String, Refused> {
        match connect.param("name").map(str::trim) {
            Some(name) if (1..=NAME_MAX).contains(&name.chars().count()) => Ok(name.to_owned()),
            _ => Err(Refused::because("a name of 1 to 40 characters")),
        }
    }
}

/// Every `room:*` is one, once somebody writes in it.
struct Rooms(Durable);

/// What a client writes.
#[derive(Deserialize)]
struct Said {
    body: String,
}

impl ChannelHandler<String> for Rooms {
    type Assigns = ();

    fn durable(&self, _: &str) -> Option<&Durable> {
        Some(&self.0)
    }

    /// Who is new gets the whole story, who comes back the rest of it.
    async fn join(&self, _: &String, join: &Join) -> Result<Joined<()>, Refused> {
        let params: Value = join.payload().parse().unwrap_or_default();
        // Older messages than this are those that were missed.
        let joined = Joined::new(()).reply(json!({"at": now()}));
        match params.get("last_seen_id") {
            None | Some(Value::Null) => Ok(joined.start(Start::Oldest)),
            Some(_) => Ok(joined),
        }
    }

    async fn joined(&self, room: &mut Channel<String, ()>) -> Result<(), HandlerError> {
        let name = room.socket().clone();
        let meta = Map::from_iter([("online_at".to_owned(), json!(now()))]);
        room.track(&name, meta).await;
        Ok(room.push_presence().await?)
    }

    async fn message(
        &self,
        room: &mut Channel<String, ()>,
        message: Message,
    ) -> Result<Reply, HandlerError> {
        let said = match (&*message.event, message.payload.parse::<Said>()) {
            ("new_msg", Ok(said)) => said,
            _ => {
                return Ok(Reply::error(
                    json!({"reason": "this room takes new_msg with a body"}),
                ));
            }
        };
        let body = said.body.trim();
        if !(1..=BODY_MAX).contains(&body.chars().count()) {
            return Ok(Reply::error(
                json!({"reason": "a message has 1 to 2000 characters"}),
            ));
        }
        let line = json!({"name": room.socket(), "body": body, "at": now()});
        room.broadcast("new_msg", line).await?;
        Ok(Reply::ok(json!({})))
    }
}

/// In milliseconds since 1970, as the clocks of browsers have it.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
