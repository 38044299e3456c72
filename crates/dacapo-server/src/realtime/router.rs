//! The routes of the realtime faces, and what is checked before one is entered.

use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dacapo::Start;
use serde::de::DeserializeOwned;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::config::RealtimeConfig;
use super::event::RealtimeEvent;
use super::filter::Filter;
use super::manager::RealtimeManager;
use super::{query, sse, websocket};
use crate::auth::Denied;
use crate::resume::Numbering;
use crate::sse::LastEventId;

/// Names in a query that are not for the filter.
const FROM: &str = "from";
const ACCESS_TOKEN: &str = "access_token";

/// The realtime faces:
///
/// - `GET /v1/events`: server-sent events, behind `Last-Event-ID` or from `?from=` on, otherwise live
///   only; the rest of the query is the filter.
/// - `GET /ws`: the same over a WebSocket, whose client can replace its filter, and go on elsewhere.
/// - `GET /health`: `{"status":"ok","clients":N}`.
///
/// Without a manager, the first two answer 503. All that is said: docs/protocols/realtime.md.
pub fn router<E: RealtimeEvent, F: Filter<E>>(
    manager: Option<RealtimeManager<E, F>>,
    config: RealtimeConfig,
) -> Router {
    let config = Arc::new(config);
    let allowing = Arc::clone(&config);
    let cors = CorsLayer::new()
        .allow_methods([Method::GET])
        .allow_headers([AUTHORIZATION, HeaderName::from_static("last-event-id")])
        .allow_origin(AllowOrigin::predicate(move |origin, _| {
            allowing.origins.allows(origin)
        }));
    Router::new()
        .route("/v1/events", get(events::<E, F>))
        .route("/ws", get(web_socket::<E, F>))
        .route("/health", get(clients::<E, F>))
        .layer(cors)
        .with_state(Face { manager, config })
}

/// `GET /health` alone, for servers without realtime events: `{"status":"ok","clients":0}`.
pub fn health() -> Router {
    Router::new().route("/health", get(async || healthy(0)))
}

struct Face<E, F> {
    manager: Option<RealtimeManager<E, F>>,
    config: Arc<RealtimeConfig>,
}

impl<E, F> Clone for Face<E, F> {
    fn clone(&self) -> Self {
        Self {
            manager: self.manager.clone(),
            config: Arc::clone(&self.config),
        }
    }
}

type Pairs = Vec<(String, String)>;

async fn events<E: RealtimeEvent, F: Filter<E>>(
    State(face): State<Face<E, F>>,
    Query(pairs): Query<Pairs>,
    LastEventId(last): LastEventId,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let manager = face.enter(&headers, &pairs)?;
    let Asked { filter, from } = asked(&pairs)?;
    let start = match last {
        Some(_) => Numbering::FROM_ONE.behind(last.as_deref()),
        None => from.unwrap_or(Start::Latest),
    };
    Ok(sse::follow(manager, filter, start, &face.config))
}

async fn web_socket<E: RealtimeEvent, F: Filter<E>>(
    State(face): State<Face<E, F>>,
    Query(pairs): Query<Pairs>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let manager = face.enter(&headers, &pairs)?;
    let Asked { filter, from } = asked(&pairs)?;
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Ok(rejection.into_response()),
    };
    let start = from.unwrap_or(Start::Latest);
    Ok(websocket::follow(
        upgrade,
        manager,
        filter,
        start,
        &face.config,
    ))
}

async fn clients<E, F>(State(face): State<Face<E, F>>) -> Response {
    healthy(face.manager.map_or(0, |manager| manager.client_count()))
}

fn healthy(clients: usize) -> Response {
    let body = format!(r#"{{"status":"ok","clients":{clients}}}"#);
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

impl<E, F> Face<E, F> {
    /// Who may not enter learns nothing more.
    fn enter(&self, headers: &HeaderMap, pairs: &Pairs) -> Result<RealtimeManager<E, F>, Refusal> {
        if !self.config.origins.let_in(headers) {
            return Err(Refusal::Origin);
        }
        let access_token = value(pairs, ACCESS_TOKEN);
        match self.config.check(headers, access_token) {
            Ok(()) => {}
            Err(Denied::Unknown) => return Err(Refusal::Token),
            Err(Denied::Forbidden) => return Err(Refusal::Forbidden),
        }
        self.manager.clone().ok_or(Refusal::Unavailable)
    }
}

/// What a query asks for.
struct Asked<F> {
    filter: F,
    from: Option<Start>,
}

fn asked<F: DeserializeOwned>(pairs: &Pairs) -> Result<Asked<F>, Refusal> {
    let from = match value(pairs, FROM) {
        None => None,
        Some(text) => match Numbering::FROM_ONE.place(text) {
            Some(start) => Some(start),
            None => return Err(Refusal::From(text.to_owned())),
        },
    };
    let rest = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let rest = rest.filter(|(name, _)| ![FROM, ACCESS_TOKEN].contains(name));
    let filter = query::read(rest).map_err(|error| Refusal::Filter(error.to_string()))?;
    Ok(Asked { filter, from })
}

fn value<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(found, _)| found == name);
    found.map(|(_, value)| value.as_str())
}

/// Why a request is not served.
enum Refusal {
    Origin,
    Token,
    Forbidden,
    Unavailable,
    From(String),
    Filter(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "pages of this origin are not allowed; the server's configuration names those that are\n",
            )
                .into_response(),
            Self::Token => (
                StatusCode::UNAUTHORIZED,
                [(WWW_AUTHENTICATE, "Bearer")],
                "say the token: `authorization: Bearer TOKEN`, or `?access_token=TOKEN`\n",
            )
                .into_response(),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "the token does not allow to read these events\n",
            )
                .into_response(),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "there are no realtime events on this server\n",
            )
                .into_response(),
            Self::From(text) => (
                StatusCode::BAD_REQUEST,
                format!("`from` is the number of an event, `oldest` or `latest`, and not `{text:.80}`\n"),
            )
                .into_response(),
            Self::Filter(error) => (
                StatusCode::BAD_REQUEST,
                format!("the filter in the query cannot be read: {error}\n"),
            )
                .into_response(),
        }
    }
}
