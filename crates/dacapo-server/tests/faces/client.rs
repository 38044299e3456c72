//! A server on a port of its own, and a client of server-sent events that reads frames as they are.

use std::future::{Future, IntoFuture};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt::MakeWriter;

/// What never comes is a failure after this long, and no hanging test.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(60), event).await;
    waited.expect("it came within a minute")
}

/// Lets other tasks run until it is so.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    soon(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Says loudly, also where the output of tests that pass is not shown, what was not tested.
pub(crate) fn skipped(what: &str) {
    // The harness catches what `eprintln!` writes, and not this.
    let _ = writeln!(io::stderr(), "SKIPPED: {what}");
}

/// Serves until it is told to stop, or dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

pub(crate) async fn serve(app: Router) -> Server {
    serve_on(([127, 0, 0, 1], 0).into(), app).await
}

/// At the address of a server that has stopped, for instance.
pub(crate) async fn serve_on(address: SocketAddr, app: Router) -> Server {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let serving = tokio::spawn(serving.into_future());
    Server {
        address,
        stop,
        serving,
    }
}

impl Server {
    /// Takes no more requests; `end` is to end the responses that are under way.
    pub(crate) async fn stop(mut self, end: impl FnOnce()) {
        self.stop.cancel();
        end();
        soon(&mut self.serving).await.unwrap().unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn frames(&self, path: &str) -> Frames {
        Frames::open(&self.url(path), None).await
    }

    pub(crate) async fn frames_behind(&self, path: &str, last_event_id: &str) -> Frames {
        Frames::open(&self.url(path), Some(last_event_id)).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The frames of a response, as they come.
pub(crate) struct Frames {
    pub(crate) response: reqwest::Response,
    received: Vec<u8>,
}

impl Frames {
    pub(crate) async fn open(url: &str, last_event_id: Option<&str>) -> Self {
        let mut request = reqwest::Client::new().get(url);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = soon(request.send()).await.unwrap();
        assert_eq!(response.status(), 200, "{url}");
        Self::of(response)
    }

    pub(crate) fn of(response: reqwest::Response) -> Self {
        Self {
            response,
            received: Vec::new(),
        }
    }

    /// The next frame, without the empty line that ends it; `None` where the response has ended.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\n\n") {
                let rest = self.received.split_off(end + 2);
                let mut frame = std::mem::replace(&mut self.received, rest);
                frame.truncate(end);
                return Some(String::from_utf8(frame).unwrap());
            }
            match soon(self.response.chunk()).await.unwrap() {
                Some(chunk) => self.received.extend_from_slice(&chunk),
                None => {
                    assert_eq!(self.received, b"", "the response ended inside a frame");
                    return None;
                }
            }
        }
    }

    /// The next event, but for a position.
    pub(crate) async fn event(&mut self) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            let has_data = frame.lines().any(|line| line.starts_with("data:"));
            let frame = Frame(frame);
            if has_data && frame.name() != Some("position") {
                return Some(frame);
            }
        }
    }

    /// The next one, a position: the id of it.
    pub(crate) async fn position(&mut self) -> String {
        let frame = Frame(self.next().await.expect("the response goes on"));
        assert_eq!(frame.name(), Some("position"));
        frame.id().expect("a position has an id").to_owned()
    }

    pub(crate) async fn events<const N: usize>(&mut self) -> [Frame; N] {
        let mut events = Vec::new();
        while events.len() < N {
            events.push(self.event().await.expect("the response goes on"));
        }
        events.try_into().expect("as many as that")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame(pub(crate) String);

impl Frame {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn id(&self) -> Option<&str> {
        self.field("id")
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.field("event")
    }

    pub(crate) fn data(&self) -> &str {
        self.field("data").expect("an event has data")
    }
}

/// What is logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Begins to listen, until the guard is dropped.
    pub(crate) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(self.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logged {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
