//! A client of Phoenix channels, as small as it can be.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let url = format!("ws://{address}/socket/websocket?vsn=2.0.0");
        let connected = connect_async(&url).await;
        let (socket, _) = connected.with_context(|| format!("cannot connect to {url}"))?;
        Ok(Self(socket))
    }

    /// Joins a topic, from now on.
    pub(crate) async fn join(&mut self, topic: &str) -> anyhow::Result<()> {
        let join = json!(["1", "1", topic, "phx_join", {}]);
        self.0.send(Message::text(join.to_string())).await?;
        let answer = self.next().await?.context("the socket was closed")?;
        let answer: Value = serde_json::from_slice(&answer)?;
        if answer[4]["status"] != "ok" {
            bail!("the join of {topic} was answered {answer}");
        }
        Ok(())
    }

    /// The next text; `None` at the end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(message) = self.0.next().await {
            if let Message::Text(text) = message? {
                return Ok(Some(text.into()));
            }
        }
        Ok(None)
    }
}
