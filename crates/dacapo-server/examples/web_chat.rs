//! A chat in the browser, whose rooms survive a restart of the server.
//!
//! Open the page in two windows; write; stop the server, start it again: both windows come back by
//! themselves, and miss nothing. A new window shows the whole story.
//!
//! ```text
//! cargo run -p dacapo-server --example web_chat -- rooms   # then http://127.0.0.1:3000/lobby
//! ```

use std::error::Error;

use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Router, serve};
use dacapo::{Broadcaster, Start};
use dacapo_server::{Event, LastEventId, Sse};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Serialize, Deserialize)]
pub(crate) struct Line {
    name: String,
    text: String,
}

pub(crate) type Rooms = Broadcaster<String, Line>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "rooms".to_owned());
    let address = args.next().unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let rooms = tokio::task::spawn_blocking(move || Rooms::open(dir)).await??;
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/lobby", listener.local_addr()?);
    Ok(serve(listener, app(rooms)).await?)
}

pub(crate) fn app(rooms: Rooms) -> Router {
    Router::new()
        .route("/{room}", get(page).post(say))
        .route("/{room}/events", get(follow))
        .with_state(rooms)
}

/// Who is new gets the whole story, who comes back the rest of it.
async fn follow(
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
    last: LastEventId,
) -> Result<impl IntoResponse, (StatusCode, String)> {
    let start = match last.0 {
        Some(_) => last.start(),
        None => Start::Oldest,
    };
    let lines = rooms.subscribe_from(&room, start).map_err(bad_request)?;
    Ok(Sse::subscription(lines, |line| {
        Event::named("line")?.json(&line)
    }))
}

async fn say(
    State(rooms): State<Rooms>,
    Path(room): Path<String>,
    Form(line): Form<Line>,
) -> Result<StatusCode, (StatusCode, String)> {
    rooms.send(&room, &line).map_err(bad_request)?;
    Ok(StatusCode::NO_CONTENT)
}

fn bad_request(error: impl Error) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, error.to_string())
}

async fn page() -> Html<&'static str> {
    Html(include_str!("web_chat.html"))
}
