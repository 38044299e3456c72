//! The routes of the realtime faces, and what is checked before one is entered.

use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
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
use crate::auth::{ACCESS_TOKEN, Identity};
use crate::limits::Subscribed;
use crate::problem::Problem;
use crate::resume::Numbering;
use crate::sse::LastEventId;

/// Names in a query that are not for the filter.
const FROM: &str = "from";

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
        .expose_headers([RETRY_AFTER, WWW_AUTHENTICATE])
        .allow_origin(AllowOrigin::predicate(move |origin, _| {
            allowing.origins.allows(origin)
        }));
    let followed = Router::new()
        .route("/v1/events", get(events::<E, F>))
        .route("/ws", get(web_socket::<E, F>));
    let face = Face {
        manager,
        config: Arc::clone(&config),
    };
    let followed = followed.with_state(face.clone());
    let followed = match &config.rate {
        Some(rate) => rate.limit(followed, config.authorizer()),
        None => followed,
    };
    let health = Router::new().route("/health", get(clients::<E, F>));
    followed.merge(health.with_state(face)).layer(cors)
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
    parts: Parts,
) -> Result<Response, Problem> {
    let Entered { manager, guest } = face.enter(&parts)?;
    let Asked { filter, from } = asked(&pairs)?;
    let start = match last {
        Some(_) => Numbering::FROM_ONE.behind(last.as_deref()),
        None => from.unwrap_or(Start::Latest),
    };
    Ok(sse::follow(manager, filter, start, &face.config, guest))
}

async fn web_socket<E: RealtimeEvent, F: Filter<E>>(
    State(face): State<Face<E, F>>,
    Query(pairs): Query<Pairs>,
    parts: Parts,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let Entered { manager, guest } = face.enter(&parts)?;
    let Asked { filter, from } = asked(&pairs)?;
    let upgrade = upgrade.map_err(|why| Problem::new(why.status(), why.body_text()))?;
    let start = from.unwrap_or(Start::Latest);
    Ok(websocket::follow(
        upgrade,
        manager,
        filter,
        start,
        &face.config,
        guest,
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
    fn enter(&self, parts: &Parts) -> Result<Entered<E, F>, Problem> {
        if !self.config.origins.let_in(&parts.headers) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "pages of this origin are not allowed; the server's configuration names those that are",
            ));
        }
        let identity = self.config.check(parts)?;
        let manager = self.manager.clone().ok_or_else(|| {
            let detail = "there are no realtime events on this server";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        })?;
        let guest = Guest {
            identity,
            _place: self.config.subscriptions.subscribe()?,
        };
        Ok(Entered { manager, guest })
    }
}

struct Entered<E, F> {
    manager: RealtimeManager<E, F>,
    guest: Guest,
}

/// Who follows, until it is dropped.
pub(super) struct Guest {
    identity: Option<Identity>,
    _place: Subscribed,
}

impl Guest {
    /// Waits until it may follow no longer.
    pub(super) fn expired(&self) -> impl Future<Output = ()> + Send + use<> {
        let identity = self.identity.clone();
        async {
            match identity {
                Some(identity) => identity.expired().await,
                None => std::future::pending().await,
            }
        }
    }
}

/// What a query asks for.
struct Asked<F> {
    filter: F,
    from: Option<Start>,
}

fn asked<F: DeserializeOwned>(pairs: &Pairs) -> Result<Asked<F>, Problem> {
    let from = match value(pairs, FROM) {
        None => None,
        Some(text) => match Numbering::FROM_ONE.place(text) {
            Some(start) => Some(start),
            None => {
                return Err(Problem::bad_request(format!(
                    "`from` is the number of an event, `oldest` or `latest`, and not `{text:.80}`"
                )));
            }
        },
    };
    let rest = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let rest = rest.filter(|(name, _)| ![FROM, ACCESS_TOKEN].contains(name));
    let filter = query::read(rest).map_err(|error| {
        Problem::bad_request(format!("the filter in the query cannot be read: {error}"))
    })?;
    Ok(Asked { filter, from })
}

fn value<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    let found = pairs.iter().find(|(found, _)| found == name);
    found.map(|(_, value)| value.as_str())
}
