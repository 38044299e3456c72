//! One connection over HTTP/1.1, kept from request to request.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

/// What a server has answered, to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What a client takes in before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// As much as the kernel thinks is good.
    Usual,
    /// As little as it lets: what is not read stays with the server.
    Small,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Self::open_with(address, Window::Usual).await
    }

    pub(crate) async fn open_with(address: SocketAddr, window: Window) -> anyhow::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        let mut http = http1::Builder::new();
        if window == Window::Small {
            socket.set_recv_buffer_size(4096)?;
            http.max_buf_size(8192);
        }
        let stream = socket.connect(address).await;
        let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await?;
        // An end that matters is an error of what was asked.
        tokio::spawn(connection);
        Ok(Self {
            sender,
            host: address.to_string(),
        })
    }

    /// Asks, and returns once the head of the answer is there.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host);
        if !body.is_empty() {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .header(CONTENT_LENGTH, body.len());
        }
        self.sender.ready().await?;
        let request = request.body(Full::new(body))?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Asks, and expects that all goes well.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let answer = self.try_ask(method.clone(), path, body).await?;
        if !answer.status.is_success() {
            let said = String::from_utf8_lossy(&answer.body);
            bail!("{method} {path} was answered {}: {said}", answer.status);
        }
        Ok(answer)
    }

    /// Asks, and takes any answer.
    pub(crate) async fn try_ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let response = self.send(method, path, body).await?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }

    /// Begins to read what never ends: server-sent events, or lines.
    pub(crate) async fn follow(mut self, path: &str) -> anyhow::Result<Incoming> {
        let request = Request::get(path)
            .header(HOST, &self.host)
            .header(ACCEPT, "text/event-stream")
            .body(Full::new(Bytes::new()))?;
        let response = self.sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let said = body.collect().await?.to_bytes();
            let said = String::from_utf8_lossy(&said);
            bail!("GET {path} was answered {}: {said}", head.status);
        }
        Ok(body)
    }
}

/// The next bytes of a response; `None` at its end.
pub(crate) async fn next_piece(body: &mut Incoming) -> anyhow::Result<Option<Bytes>> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
