//! One sequence of changes for many clients, each with a filter, over server-sent events and WebSocket.
//!
//! ```text
//! cargo run -p dacapo-server --example realtime -- changes
//! curl -N 'http://127.0.0.1:3000/v1/events?from=1&tables=users,orders'
//! curl -d table=users -d row=7 http://127.0.0.1:3000/changes
//! ```

use std::error::Error;

use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use dacapo_server::realtime::{self, Filter, RealtimeConfig, RealtimeEvent, RealtimeManager};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;

#[derive(Serialize, Deserialize)]
struct Change {
    #[serde(default)]
    seq_id: u64,
    table: String,
    row: u64,
}

impl RealtimeEvent for Change {
    fn event_type(&self) -> &str {
        "change"
    }

    fn numbered(&mut self, seq: u64) {
        self.seq_id = seq;
    }
}

#[derive(Default, Deserialize)]
struct Wanted {
    tables: Option<Vec<String>>,
}

impl Filter<Change> for Wanted {
    fn matches(&self, change: &Change) -> bool {
        let tables = self.tables.as_ref();
        tables.is_none_or(|tables| tables.contains(&change.table))
    }
}

type Changes = RealtimeManager<Change, Wanted>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().unwrap_or_else(|| "changes".to_owned());
    let address = args.next().unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let changes = tokio::task::spawn_blocking(move || Changes::open(dir)).await??;
    let mut config = RealtimeConfig::default();
    if let Ok(token) = std::env::var("TOKEN") {
        config = config.bearer_token(token);
    }
    let app = realtime::router(Some(changes.clone()), config)
        .route("/changes", post(change).with_state(changes.clone()));
    let listener = TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    let stop = async move {
        if ctrl_c().await.is_ok() {
            changes.close(); // otherwise its clients would keep the server
        }
    };
    Ok(axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?)
}

/// Answers with the change's number once it is safe from a power cut.
async fn change(
    State(changes): State<Changes>,
    Form(change): Form<Change>,
) -> Result<String, (StatusCode, String)> {
    let broadcast = changes.broadcast_durable(&change).await;
    let seq = broadcast.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(format!("{seq}\n"))
}
