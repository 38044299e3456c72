//! The long-poll transport: sessions that live from one request to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connect::connect;
use super::limits::Limits;
use super::phoenix::Shared;
use super::session::Session;
use super::wire::{self, Frame, Message, Serializer};

/// In which header newer clients give their session's token.
const TOKEN_HEADER: &str = "x-phoenix-longpoll-token";
const AUTH_HEADER: &str = "x-phoenix-authtoken";

/// How many frames one poll takes.
const FRAMES_MAX: usize = 1000;

/// The sessions of long-polling clients, by their tokens.
pub(super) struct Polls<S: Send + Sync + 'static>(Mutex<HashMap<String, Arc<Poll<S>>>>);

/// The session of one long-polling client.
struct Poll<S: Send + Sync + 'static> {
    session: Session<S>,
    /// Held while messages of the client are received.
    receiving: AsyncMutex<()>,
    frames: AsyncMutex<mpsc::Receiver<Frame>>,
    /// Until when it lives, if no request comes.
    lives_until: watch::Sender<Instant>,
    gone: CancellationToken,
}

impl<S: Send + Sync + 'static> Default for Polls<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Send + Sync + 'static> Polls<S> {
    fn get(&self, token: &str) -> Option<Arc<Poll<S>>> {
        let polls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        polls.get(token).cloned()
    }

    fn remove(&self, token: &str) -> Option<Arc<Poll<S>>> {
        let mut polls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        polls.remove(token)
    }
}

impl<S: Send + Sync + 'static> Poll<S> {
    /// A request of the client has come, or has been answered.
    fn lives_on(&self, session: Duration) {
        self.lives_until.send_replace(Instant::now() + session);
    }

    /// Waits until no request has come for too long, or the client is to go.
    async fn end_of_life(&self, drained: &CancellationToken) {
        let disconnected = self.session.disconnected();
        let mut lives_until = self.lives_until.subscribe();
        loop {
            let until = *lives_until.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(until) => {
                    if until == *lives_until.borrow() {
                        return;
                    }
                }
                () = disconnected.cancelled() => return,
                () = drained.cancelled() => return,
                () = self.gone.cancelled() => return,
            }
        }
    }

    /// What there is to send, once there is something, as texts.
    async fn take(&self, wait: Duration) -> Option<Vec<String>> {
        let mut frames = tokio::select! {
            frames = self.frames.lock() => frames,
            () = self.gone.cancelled() => return None,
        };
        let mut taken = Vec::new();
        tokio::select! {
            received = timeout(wait, frames.recv_many(&mut taken, FRAMES_MAX)) => {
                if matches!(received, Ok(0)) {
                    return None;
                }
            }
            () = self.gone.cancelled() => return None,
        }
        let texts = taken.into_iter().filter_map(Frame::into_text);
        Some(texts.map(|text| text.to_string()).collect())
    }
}

pub(super) async fn serve<S: Send + Sync + 'static>(
    State(shared): State<Arc<Shared<S>>>,
    Query(params): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match *request.method() {
        Method::GET => Json(poll(&shared, params, request.headers().clone()).await).into_response(),
        Method::POST => {
            let status = publish(&shared, &params, request).await;
            Json(json!({"status": status})).into_response()
        }
        Method::OPTIONS => StatusCode::OK.into_response(),
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    let headers = response.headers_mut();
    let any = HeaderValue::from_static("*");
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.unwrap_or(any));
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "accept, content-type, x-csrf-token, x-phoenix-authtoken, x-phoenix-longpoll-token",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn token_of(params: &[(String, String)], headers: &HeaderMap) -> Option<String> {
    let header = headers
        .get(TOKEN_HEADER)
        .and_then(|token| token.to_str().ok());
    let param = params
        .iter()
        .find(|(key, _)| key == "token")
        .map(|(_, token)| token.as_str());
    header.or(param).map(str::to_owned)
}

/// Answers a GET: what there is to send, or a new session.
async fn poll<S: Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    params: Vec<(String, String)>,
    headers: HeaderMap,
) -> Value {
    let token = token_of(&params, &headers);
    let known = token.and_then(|token| Some((shared.polls.get(&token)?, token)));
    let Some((poll, token)) = known else {
        return begin(shared, params, headers).await;
    };
    let limits = &shared.hub.limits;
    poll.lives_on(limits.poll_session.max(limits.poll));
    let taken = poll.take(limits.poll).await;
    poll.lives_on(limits.poll_session);
    match taken {
        None => json!({"status": 410, "token": token, "messages": []}),
        Some(messages) if messages.is_empty() => {
            json!({"status": 204, "token": token, "messages": []})
        }
        Some(messages) => json!({"status": 200, "token": token, "messages": messages}),
    }
}

/// Begins a session, which lives until it has not been asked for long enough.
async fn begin<S: Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    mut params: Vec<(String, String)>,
    headers: HeaderMap,
) -> Value {
    params.retain(|(key, _)| key != "token");
    let auth_token = headers
        .get(AUTH_HEADER)
        .and_then(|token| token.to_str().ok());
    let auth_token = auth_token.map(str::to_owned);
    let Ok((assigns, serializer)) = connect(shared, params, headers, auth_token).await else {
        return json!({"status": 403});
    };
    let (session, frames) = Session::new(shared, assigns, serializer.as_text());
    let token = uuid::Uuid::new_v4().simple().to_string();
    let poll = Arc::new(Poll {
        session,
        receiving: AsyncMutex::default(),
        frames: AsyncMutex::new(frames),
        lives_until: watch::Sender::new(Instant::now() + shared.hub.limits.poll_session),
        gone: CancellationToken::new(),
    });
    let mut polls = shared
        .polls
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    polls.insert(token.clone(), Arc::clone(&poll));
    drop(polls);
    let (all, name) = (Arc::clone(shared), token.clone());
    shared.clients.spawn(async move {
        poll.end_of_life(&all.drained).await;
        all.polls.remove(&name);
        poll.gone.cancel();
        // Whoever polled has been answered by now. Channels that wait for room are told that nobody takes
        // anything any more.
        poll.frames.lock().await.close();
        poll.session.end().await;
    });
    json!({"status": 410, "token": token, "messages": []})
}

/// Answers a POST: messages of the client.
async fn publish<S: Send + Sync + 'static>(
    shared: &Shared<S>,
    params: &[(String, String)],
    request: Request,
) -> u16 {
    let token = token_of(params, request.headers());
    let Some(poll) = token.and_then(|token| shared.polls.get(&token)) else {
        return 410;
    };
    let limits = &shared.hub.limits;
    poll.lives_on(limits.poll_session.max(limits.poll));
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_lines =
        content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-ndjson"));
    let body = to_bytes(request.into_body(), limits.message_bytes.saturating_mul(4)).await;
    let serializer = poll.session.serializer();
    let messages = body
        .ok()
        .and_then(|body| messages_of(serializer, &body, is_lines, limits));
    let Some(messages) = messages else {
        poll.gone.cancel();
        return 400;
    };
    let received = timeout(limits.poll, async {
        // Two requests at once keep their messages apart.
        let _receiving = poll.receiving.lock().await;
        for message in messages {
            poll.session.receive(message).await;
        }
    });
    match received.await {
        Ok(()) => 200,
        // Some were received and some not: the client begins anew.
        Err(_) => {
            poll.gone.cancel();
            408
        }
    }
}

/// The messages of a body, a line each or one in all; `None` where one of them is none or too large, or
/// there are too many.
pub(super) fn messages_of(
    serializer: Serializer,
    body: &[u8],
    is_lines: bool,
    limits: &Limits,
) -> Option<Vec<Message>> {
    let body = std::str::from_utf8(body).ok()?;
    let all: Vec<_> = if is_lines {
        let lines = body.trim_end_matches('\n').split('\n');
        lines.take(limits.poll_lines.saturating_add(1)).collect()
    } else {
        vec![body]
    };
    if all.len() > limits.poll_lines {
        return None;
    }
    let message = |text: &str| {
        let decoded = match text.as_bytes().first() {
            _ if text.len() > limits.message_bytes => return None,
            Some(b'[' | b'{') => wire::decode_text(serializer, text),
            _ => wire::decode_binary(serializer, &STANDARD.decode(text.trim_end()).ok()?.into()),
        };
        decoded.ok()
    };
    all.into_iter().map(message).collect()
}
