//! A server on a port of its own, a client that speaks plain HTTP, and a clock that the test moves.

use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use axum::serve::ListenerExt;
use dacapo_log::{Flush, Log};
use dacapo_server::megaphone::{self, MegaphoneConfig};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const TOKEN: &str = "a long random text";

/// Serves until it is stopped, or dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    pub(crate) log: Log,
    dir: TempDir,
    stop: CancellationToken,
    serving: Serving,
}

struct Serving(JoinHandle<io::Result<()>>);

/// A channel, as its creator knows it.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) producer: String,
    pub(crate) consumer: String,
}

/// Where a test lets time pass that is not about that.
pub(crate) fn without_expiry() -> MegaphoneConfig {
    MegaphoneConfig {
        expire_after: None,
        ..MegaphoneConfig::default()
    }
}

pub(crate) async fn start(config: MegaphoneConfig) -> Server {
    start_in(tempfile::tempdir().unwrap(), config).await
}

pub(crate) async fn start_in(dir: TempDir, config: MegaphoneConfig) -> Server {
    // What is acknowledged is durable because it was waited for, and not by chance.
    let log = Log::options().flush(Flush::OnDemand).open(dir.path());
    start_on(log.unwrap(), dir, config).await
}

pub(crate) async fn start_on(log: Log, dir: TempDir, config: MegaphoneConfig) -> Server {
    let stop = CancellationToken::new();
    let config = MegaphoneConfig {
        admin_token: Some(TOKEN.to_owned()),
        shutdown: stop.clone(),
        ..config
    };
    let app = megaphone::router(log.clone(), config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let serving = tokio::spawn(serving.into_future());
    Server {
        address,
        client: Client::builder().no_proxy().build().unwrap(),
        log,
        dir,
        stop,
        serving: Serving(serving),
    }
}

impl Server {
    /// Takes no more requests, ends the reads that are under way, and leaves the log.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.stop.cancel();
        // Idle connections end with their client.
        drop(self.client);
        (&mut self.serving.0).await.unwrap().unwrap();
        // A sweep may be at work still.
        self.log.close().unwrap();
        self.dir
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.client.post(self.url(path)).body(body.to_string());
        let request = request.header("content-type", "application/json");
        Answer::of(request.send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.client.get(self.url(path)).send().await.unwrap()).await
    }

    pub(crate) async fn admin(&self, method: Method, path: &str) -> Answer {
        let request = self
            .client
            .request(method, self.url(path))
            .bearer_auth(TOKEN);
        Answer::of(request.send().await.unwrap()).await
    }

    pub(crate) async fn create(&self) -> Addresses {
        let answer = self.post("/create", &json!({})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = |name: &str| answer.body[name].as_str().unwrap().to_owned();
        Addresses {
            producer: text("producerAddress"),
            consumer: text("consumerAddress"),
        }
    }

    pub(crate) async fn write(&self, channel: &Addresses, sid: &str, body: Value) -> Answer {
        self.post(&format!("/write/{}/{sid}", channel.producer), &body)
            .await
    }

    pub(crate) async fn exists(&self, channel: &Addresses) -> bool {
        let asked = json!({"channels": [channel.producer]});
        let answer = self.post("/channelsExists", &asked).await;
        answer.body["channels"][&channel.producer]
            .as_bool()
            .unwrap()
    }

    /// Begins a read, as soon as the one before is seen to be over.
    pub(crate) async fn read(&self, channel: &Addresses, query: &str) -> Read {
        loop {
            let read = self.try_read(channel, query).await;
            if read.response.status() != 409 {
                assert_eq!(read.response.status(), 200, "{query}");
                return read;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn try_read(&self, channel: &Addresses, query: &str) -> Read {
        let url = self.url(&format!("/read/{}{query}", channel.consumer));
        Read {
            response: self.client.get(url).send().await.unwrap(),
            received: Vec::new(),
        }
    }

    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let response = self.client.get(self.url("/metrics")).send().await.unwrap();
        let text = response.text().await.unwrap();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .unwrap_or_else(|| panic!("{name} is not in {text}"))
            .parse()
            .unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let status = response.status();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text);
        let body = body.unwrap_or_else(|_| panic!("{status} is no JSON: {text:.500}"));
        Self { status, body }
    }

    pub(crate) fn code(&self) -> &str {
        let code = self.body["code"].as_str();
        assert!(self.body["message"].is_string(), "{}", self.body);
        code.unwrap_or_else(|| panic!("there is no code in {}", self.body))
    }
}

/// The body of a read, as it comes.
pub(crate) struct Read {
    pub(crate) response: Response,
    received: Vec<u8>,
}

impl Read {
    /// The next line; `None` where the response has ended as it should.
    pub(crate) async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match self.response.chunk().await.unwrap() {
                Some(chunk) => self.received.extend_from_slice(&chunk),
                None => {
                    assert_eq!(self.received, b"", "the response ended inside a line");
                    return None;
                }
            }
        }
    }

    pub(crate) async fn lines(&mut self, number: usize) -> Vec<Value> {
        let mut lines = Vec::new();
        while lines.len() < number {
            lines.push(self.line().await.expect("the response goes on"));
        }
        lines
    }

    pub(crate) async fn bodies(&mut self, number: usize) -> Vec<Value> {
        let lines = self.lines(number).await;
        lines.into_iter().map(|line| line["body"].clone()).collect()
    }

    /// What is left until it ends.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        lines
    }
}

/// The paused clock of a test, which does not move by itself while the test waits for a socket.
pub(crate) struct Clock {
    passed: Duration,
    _hold: mpsc::Sender<()>,
}

impl Clock {
    /// In a runtime that was started with its clock paused.
    pub(crate) fn hold() -> Self {
        let (hold, released) = mpsc::channel::<()>();
        // Tokio does not move a paused clock while such a task runs.
        tokio::task::spawn_blocking(move || released.recv().is_err());
        Self {
            passed: Duration::ZERO,
            _hold: hold,
        }
    }

    pub(crate) async fn advance(&mut self, seconds: u64) {
        let step = Duration::from_secs(seconds);
        tokio::time::advance(step).await;
        self.passed += step;
    }

    /// Lets second after second pass until a task is done, and returns how many have.
    pub(crate) async fn pass_until<T>(
        &mut self,
        server: &Server,
        task: impl Future<Output = T> + Send + 'static,
    ) -> (T, u64)
    where
        T: Send + 'static,
    {
        let (before, task) = (self.passed, tokio::spawn(task));
        while !task.is_finished() {
            // A round trip: as much as the server had to do is done by then.
            server.metric("megaphone_channel_created").await;
            self.advance(1).await;
        }
        (task.await.unwrap(), (self.passed - before).as_secs())
    }
}
