//! A connection that is cut off when nothing was read or written for too long.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Where a connection is left by who is through with it.
pub(super) type Left = Arc<Mutex<Option<Inner>>>;

/// A connection, until it is dropped; then it is [`Left`].
pub(super) struct Watched {
    /// Here until it is dropped.
    inner: Option<Inner>,
    left: Left,
}

/// What is sent and received by.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

pub(super) struct Inner {
    pub(super) transport: Box<dyn Transport>,
    /// Over when nothing was read or written for so long.
    silence: Pin<Box<Sleep>>,
    idle_max: Duration,
    /// Whether something was read since anything was written: a part of a request.
    pub(super) is_asked: bool,
}

impl Watched {
    pub(super) fn new(transport: impl Transport + 'static, idle_max: Duration) -> (Self, Left) {
        let inner = Inner {
            transport: Box::new(transport),
            silence: Box::pin(tokio::time::sleep(idle_max)),
            idle_max,
            is_asked: false,
        };
        let left = Left::default();
        let watched = Self {
            inner: Some(inner),
            left: Arc::clone(&left),
        };
        (watched, left)
    }

    fn inner(&mut self) -> &mut Inner {
        self.inner
            .as_mut()
            .expect("it is there until it is dropped")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = self.inner.take();
    }
}

impl Inner {
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
        let silence = self.silence.as_mut();
        silence
            .poll(cx)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = self.inner();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut inner.transport).poll_read(cx, buffer);
        inner.is_asked |= buffer.filled().len() > before;
        inner.watch(cx, polled)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let inner = self.inner();
        let polled = Pin::new(&mut inner.transport).poll_write(cx, bytes);
        inner.is_asked &= !polled.is_ready();
        inner.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = self.inner();
        let polled = Pin::new(&mut inner.transport).poll_write_vectored(cx, slices);
        inner.is_asked &= !polled.is_ready();
        inner.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        let inner = self.inner.as_ref();
        inner.is_some_and(|inner| inner.transport.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner().transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner().transport).poll_shutdown(cx)
    }
}
