//! A bound on how many clients are connected at once, and on how long they may be silent.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::metrics::{Counted, Metrics};

const IDLE_MAX: Duration = Duration::from_secs(120);

/// A listener that has at most so many clients connected; further ones wait to be accepted, in the
/// kernel's queue.
///
/// ```no_run
/// use axum::Router;
/// use dacapo_server::connections::Bounded;
/// use tokio::net::TcpListener;
///
/// # async fn serve() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// axum::serve(Bounded::new(listener, 1000), Router::new()).await
/// # }
/// ```
#[derive(Debug)]
pub struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
    metrics: Metrics,
    idle_max: Duration,
}

/// A connection of a [`Bounded`] listener: one place, until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Over when nothing was read or written for so long.
    silence: Pin<Box<Sleep>>,
    idle_max: Duration,
    _place: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Bounded {
    /// Accepts from `listener`, up to `connections_max` at once; 1 at least.
    #[must_use]
    pub fn new(listener: TcpListener, connections_max: usize) -> Self {
        let places = connections_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            listener,
            free: Arc::new(Semaphore::new(places)),
            metrics: Metrics::default(),
            idle_max: IDLE_MAX,
        }
    }

    /// Cuts off clients with whom nothing was exchanged for so long, two minutes by default: longer than a
    /// long-poll waits, and than server-sent events are silent.
    #[must_use]
    pub fn idle_max(mut self, idle_max: Duration) -> Self {
        self.idle_max = idle_max;
        self
    }

    /// Counts connections in `metrics`.
    #[must_use]
    pub fn counted_in(mut self, metrics: &Metrics) -> Self {
        self.metrics = metrics.clone();
        self
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let free = Arc::clone(&self.free);
        let place = free.acquire_owned().await.expect("it is never closed");
        // Waits a while where the process has no descriptors left.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Small answers go at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let connection = Connection {
            stream,
            silence: Box::pin(tokio::time::sleep(self.idle_max)),
            idle_max: self.idle_max,
            _place: place,
            _counted: self.metrics.connected(),
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connection {
    /// Looks whether the client was silent for too long, after a poll that came to `polled`.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.silence.as_mut().reset(Instant::now() + self.idle_max);
            return polled;
        }
        self.silence
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watch(cx, polled)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
