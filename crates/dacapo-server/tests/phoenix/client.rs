//! A server on a real socket, and a client that sees every byte.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use dacapo_server::phoenix::Phoenix;
use futures_util::{SinkExt, Stream, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// What must happen at all happens by then: a test that waits for longer has failed.
pub(crate) async fn soon<F: Future>(event: F) -> F::Output {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, event)
        .await
        .expect("it never happened")
}

/// A server, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn of<S: Send + Sync + 'static>(phoenix: &Phoenix<S>) -> Self {
        Self::at("127.0.0.1:0", phoenix).await
    }

    pub(crate) async fn at<S: Send + Sync + 'static>(address: &str, phoenix: &Phoenix<S>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router: Router = phoenix.router("/socket");
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, serving }
    }

    pub(crate) fn websocket(&self, query: &str) -> String {
        format!("ws://{}/socket/websocket?{query}", self.address)
    }

    pub(crate) fn longpoll(&self, query: &str) -> String {
        format!("http://{}/socket/longpoll?{query}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A client that sends and receives frames as they are.
pub(crate) struct Client(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub(crate) async fn open(server: &Server) -> Self {
        Self::try_open(&server.websocket("vsn=2.0.0"))
            .await
            .unwrap()
    }

    /// What the server refused with, otherwise.
    pub(crate) async fn try_open(url: &str) -> Result<Self, u16> {
        match soon(connect_async(url)).await {
            Ok((stream, _)) => Ok(Self(stream)),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    /// Sends `[join_ref, ref, topic, event, payload]`.
    pub(crate) async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn send_binary(&mut self, bytes: &[u8]) {
        self.0.send(Message::binary(bytes.to_vec())).await.unwrap();
    }

    /// The next frame.
    pub(crate) async fn frame(&mut self) -> Message {
        soon(self.0.next()).await.expect("it goes on").unwrap()
    }

    pub(crate) async fn next(&mut self) -> Value {
        let frame = self.frame().await;
        serde_json::from_str(frame.to_text().unwrap()).unwrap()
    }

    pub(crate) async fn binary(&mut self) -> Vec<u8> {
        match self.frame().await {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("{other}"),
        }
    }

    /// The code with which the server closes.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        closed(&mut self.0).await
    }

    /// Joins a topic with the reference `1`, and what was answered.
    pub(crate) async fn join(&mut self, topic: &str, params: Value) -> Value {
        self.send(json!(["1", "1", topic, "phx_join", params]))
            .await;
        let reply = self.next().await;
        assert_eq!(
            &reply.as_array().unwrap()[..4],
            &[json!("1"), json!("1"), json!(topic), json!("phx_reply")]
        );
        reply[4].clone()
    }
}

/// The code with which the server closes.
pub(crate) async fn closed(
    mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
) -> Option<u16> {
    loop {
        match soon(stream.next()).await {
            Some(Ok(Message::Close(close))) => return close.map(|close| close.code.into()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}

pub(crate) fn ok(response: Value) -> Value {
    json!({"status": "ok", "response": response})
}

pub(crate) fn error(reason: &str) -> Value {
    json!({"status": "error", "response": {"reason": reason}})
}
