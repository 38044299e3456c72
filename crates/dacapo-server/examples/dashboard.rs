//! Live numbers in the browser: the load of this machine, four times a second, and the last minute of it
//! for those who come later.
//!
//! Who falls behind is to see the present, and not all of the past: it goes on with the newest numbers,
//! and is told how many it has missed.
//!
//! ```text
//! cargo run -p dacapo-server --example dashboard   # then http://127.0.0.1:3000
//! ```

use std::error::Error;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Router, serve};
use dacapo::{Broadcaster, Lag, Retention, Start};
use dacapo_server::{Event, LastEventId, Sse};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Serialize, Deserialize)]
struct Load {
    one_minute: f64,
    five_minutes: f64,
}

type Numbers = Broadcaster<String, Load>;

const LAST: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let numbers = Numbers::builder()
        .on_lag(Lag::Error { buffer: 20 })
        .retention(Retention::default().age_max(10 * LAST))
        .temporary()?;
    tokio::spawn(measure(numbers.clone()));
    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/events", get(follow))
        .with_state(numbers);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("http://{}", listener.local_addr()?);
    Ok(serve(listener, app).await?)
}

async fn measure(numbers: Numbers) {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    loop {
        ticks.tick().await;
        let load = tokio::fs::read_to_string("/proc/loadavg").await;
        let load = load.unwrap_or_default();
        let mut fields = load
            .split(' ')
            .map(|field| field.parse().unwrap_or_default());
        let load = Load {
            one_minute: fields.next().unwrap_or_default(),
            five_minutes: fields.next().unwrap_or_default(),
        };
        if let Err(error) = numbers.send("load", &load) {
            eprintln!("{error}");
        }
    }
}

async fn follow(
    State(numbers): State<Numbers>,
    last: LastEventId,
) -> Result<impl IntoResponse, String> {
    let (start, lag) = match last.0 {
        Some(_) => (last.start(), Lag::Error { buffer: 20 }),
        // A minute of numbers is more than may be unread.
        None => (Start::Since(SystemTime::now() - LAST), Lag::Never),
    };
    let loads = numbers.subscribe_from("load", start);
    let loads = loads.map_err(|error| error.to_string())?.on_lag(lag);
    Ok(Sse::subscription(loads, |load| {
        Event::named("load")?.json(&load)
    }))
}

const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8">
<title>Load</title>
<h1><span id="now">…</span> <small id="five"></small></h1>
<svg width="480" height="120" viewBox="0 0 240 100" preserveAspectRatio="none">
  <polyline id="line" fill="none" stroke="currentColor" vector-effect="non-scaling-stroke"></polyline>
</svg>
<p id="gaps"></p>
<script>
  const at = (id) => document.getElementById(id);
  const loads = [];
  const events = new EventSource("/events");
  events.addEventListener("load", ({ data }) => {
    const load = JSON.parse(data);
    at("now").textContent = load.one_minute.toFixed(2);
    at("five").textContent = `${load.five_minutes.toFixed(2)} over five minutes`;
    loads.push(load.one_minute);
    if (loads.length > 240) loads.shift();
    const top = Math.max(1, ...loads);
    at("line").setAttribute("points", loads.map((load, x) => `${x},${100 - 95 * load / top}`).join(" "));
  });
  events.addEventListener("gap", ({ data }) => {
    const { requested, resume_at } = JSON.parse(data);
    at("gaps").textContent = `numbers ${requested} to ${resume_at - 1} were passed over`;
  });
</script>
"#;
