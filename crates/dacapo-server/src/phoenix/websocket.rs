//! The WebSocket transport.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as WsMessage, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite;

use super::connect::{SUBPROTOCOL, connect, token_of_subprotocols};
use super::phoenix::Shared;
use super::session::Session;
use super::wire::{self, Frame, close};

/// How many frames are written before the socket is flushed.
const FRAMES_IN_A_ROW: usize = 64;

/// What a socket reads at once. It has this buffer while it is idle too, where the default of 128 KiB
/// would be all that it costs.
const READ_BYTES: usize = 1 << 10;

/// What piles up before it is written.
const WRITE_BYTES: usize = 4 << 10;

/// How long a client may take to close once it was told so.
const CLOSING_MAX: Duration = Duration::from_secs(2);

pub(super) async fn serve<S: Send + Sync + 'static>(
    State(shared): State<Arc<Shared<S>>>,
    Query(params): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let token = token_of_subprotocols(&headers);
    let (assigns, serializer) = match connect(&shared, params, headers, token).await {
        Ok(connected) => connected,
        Err(forbidden) => return forbidden.into_response(),
    };
    let bytes = shared.hub.limits.message_bytes;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(WRITE_BYTES)
        .max_message_size(bytes)
        .max_frame_size(bytes);
    upgrade.on_upgrade(move |socket| {
        let clients = shared.clients.clone();
        clients.track_future(async move {
            let (session, frames) = Session::new(&shared, assigns, serializer);
            run(&shared, session, frames, socket).await;
        })
    })
}

async fn run<S: Send + Sync + 'static>(
    shared: &Shared<S>,
    session: Session<S>,
    mut frames: mpsc::Receiver<Frame>,
    socket: WebSocket,
) {
    let idle = shared.hub.limits.idle;
    let (mut sink, mut stream) = socket.split();
    let disconnected = session.disconnected();
    let code = tokio::select! {
        code = read(&session, &mut stream, idle) => code,
        () = write(&mut frames, &mut sink, idle) => None,
        () = disconnected.cancelled() => Some(close::DISCONNECTED),
        () = shared.drained.cancelled() => Some(close::DRAINED),
    };
    // Channels that wait for room are told that nobody takes anything any more.
    drop(frames);
    session.end().await;
    if let Some(code) = code {
        // Who does not answer has lost its connection in any case.
        let _ = timeout(CLOSING_MAX, tell_closed(code, &mut sink, &mut stream)).await;
    }
}

/// Says that the socket is closed, and waits for the client to close it too: a socket that is dropped
/// with bytes unread is reset, and a reset overtakes what was said.
async fn tell_closed(
    code: u16,
    sink: &mut SplitSink<WebSocket, WsMessage>,
    stream: &mut SplitStream<WebSocket>,
) {
    let frame = CloseFrame {
        code,
        reason: "".into(),
    };
    if sink.send(WsMessage::Close(Some(frame))).await.is_err() {
        return;
    }
    loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => return,
            // Nothing more can be read behind a message that was not, and the client is still sending it.
            None if code == close::TOO_LARGE => sleep(CLOSING_MAX).await,
            None => return,
        }
    }
}

/// Reads until the end, and with what code to close.
async fn read<S: Send + Sync + 'static>(
    session: &Session<S>,
    stream: &mut SplitStream<WebSocket>,
    idle: Duration,
) -> Option<u16> {
    loop {
        let Ok(received) = timeout(idle, stream.next()).await else {
            return Some(close::IDLE);
        };
        let message = match received? {
            Ok(WsMessage::Text(text)) => wire::decode_text(session.serializer(), &text),
            Ok(WsMessage::Binary(bytes)) => wire::decode_binary(session.serializer(), &bytes),
            Ok(WsMessage::Ping(_) | WsMessage::Pong(_)) => continue,
            // The protocol below answers it.
            Ok(WsMessage::Close(_)) => return None,
            Err(error) => {
                tracing::debug!(%error, "a socket is closed");
                return code_of(&error);
            }
        };
        match message {
            Ok(message) => session.receive(message).await,
            Err(malformed) => {
                tracing::debug!(%malformed, "a socket is closed");
                return Some(close::MALFORMED);
            }
        }
    }
}

/// With what code to close a socket that cannot be read; `None` where it is broken.
fn code_of(error: &axum::Error) -> Option<u16> {
    // What axum's error is of: the same version, or a test fails.
    match error.source()?.downcast_ref()? {
        tungstenite::Error::Capacity(_) => Some(close::TOO_LARGE),
        tungstenite::Error::Utf8(_) => Some(close::NO_TEXT),
        tungstenite::Error::Protocol(_) => Some(close::MALFORMED),
        _ => None,
    }
}

/// Writes until the end, or until the client takes nothing for so long.
async fn write(
    frames: &mut mpsc::Receiver<Frame>,
    sink: &mut SplitSink<WebSocket, WsMessage>,
    idle: Duration,
) {
    let mut ready = Vec::new();
    while frames.recv_many(&mut ready, FRAMES_IN_A_ROW).await > 0 {
        for frame in ready.drain(..) {
            let message = match frame {
                Frame::Text(text) => WsMessage::Text(text),
                Frame::Binary(bytes) => WsMessage::Binary(bytes),
            };
            // Each for itself: a client that is slow and takes one after the other may go on.
            if !matches!(timeout(idle, sink.feed(message)).await, Ok(Ok(()))) {
                return;
            }
        }
        if !matches!(timeout(idle, sink.flush()).await, Ok(Ok(()))) {
            return;
        }
    }
}
