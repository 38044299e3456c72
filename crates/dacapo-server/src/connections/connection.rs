//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::tls::Tls;
use super::watched::{Inner, Transport, Watched};
use super::{Peer, TurnedAway};

/// The first byte of who speaks TLS: the type of a record that holds a handshake.
const HANDSHAKE: u8 = 22;

/// The answer to a head that was begun, and not ended in time.
const TOO_SLOW: &str = "HTTP/1.1 408 Request Timeout\r\n\
    content-type: application/problem+json\r\n\
    cache-control: no-store\r\n\
    connection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Request Timeout\",\"status\":408,\
    \"detail\":\"the head of the request did not come in time\"}";

/// What all connections are served by.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) app: Router,
    pub(super) head_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) tls: Option<Tls>,
    pub(super) shutdown: CancellationToken,
}

impl Serving {
    /// Serves one until its end; until it is upgraded, where it is.
    pub(super) async fn connection(
        &self,
        stream: TcpStream,
        peer: Peer,
        turned_away: Option<TurnedAway>,
    ) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            return self.http(stream, peer, turned_away).await;
        };
        let begun = timeout(self.head_timeout, async {
            let mut first = [0];
            match stream.peek(&mut first).await? {
                1 if first[0] != HANDSHAKE => Ok(Err(stream)),
                _ => Ok(Ok(tls.accept(stream).await?)),
            }
        });
        let begun: io::Result<_> = begun.await.map_err(|_| io::ErrorKind::TimedOut)?;
        match begun? {
            Ok(secret) => self.http(secret, peer, turned_away).await,
            Err(plain) => self.http(plain, peer, Some(TurnedAway::Plain)).await,
        }
    }

    async fn http(
        &self,
        transport: impl Transport + 'static,
        peer: Peer,
        turned_away: Option<TurnedAway>,
    ) -> io::Result<()> {
        let (watched, left) = Watched::new(transport, self.idle_timeout);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let app = self.app.clone();
            async move {
                if let Some(why) = turned_away {
                    return Ok(why.problem().into_response());
                }
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                app.oneshot(request).await
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .serve_connection(TokioIo::new(watched), service);
        // It leaves what it was served by when it is dropped, in there.
        let Err(error) = until_its_end(connection.with_upgrades(), &self.shutdown).await else {
            return Ok(());
        };
        let inner = left.lock().unwrap_or_else(PoisonError::into_inner).take();
        match inner.filter(|inner| error.is_timeout() && inner.is_asked) {
            Some(inner) => timeout(self.head_timeout, tell_too_slow(inner)).await?,
            None => Err(io::Error::other(error)),
        }
    }
}

type Connection<S> = http1::UpgradeableConnection<TokioIo<Watched>, S>;

/// Serves until the end, which comes with the answer to the next request once there is to be a shutdown.
async fn until_its_end<S>(
    connection: Connection<S>,
    shutdown: &CancellationToken,
) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    let mut connection = pin!(connection);
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = shutdown.cancelled(), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn tell_too_slow(mut inner: Inner) -> io::Result<()> {
    inner.transport.write_all(TOO_SLOW.as_bytes()).await?;
    inner.transport.shutdown().await
}
