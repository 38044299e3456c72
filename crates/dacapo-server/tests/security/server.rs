//! A server of all faces on a port of its own, and what a client sees of it.

use std::fs;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use dacapo::{Json, ReplayChannel};
use dacapo_log::{Log, Topic};
use dacapo_server::auth::{AuthConfig, Authorizer, Right};
use dacapo_server::connections::{ConnectionsConfig, Server, Tls};
use dacapo_server::limits::{RateLimits, Subscriptions};
use dacapo_server::megaphone::{self, MegaphoneConfig};
use dacapo_server::realtime::{self, Everything, RealtimeConfig, RealtimeEvent, RealtimeManager};
use dacapo_server::streams::{self, StreamsConfig};
use reqwest::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The topic of the realtime events.
pub(crate) const EVENTS: &str = "events";

/// What never comes is a failure after this long, and no hanging test.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(60), event).await;
    waited.expect("it came within a minute")
}

/// The event of the realtime face, of which there is none.
#[derive(Serialize, Deserialize)]
struct Tick;

impl RealtimeEvent for Tick {
    fn event_type(&self) -> &str {
        "tick"
    }
}

/// What is to be served, and how.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) auth: Option<Authorizer>,
    pub(crate) rate: Option<RateLimits>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) cors: bool,
    pub(crate) connections: ConnectionsConfig,
    pub(crate) tls: Option<Tls>,
}

/// Serves until it is told to stop, or dropped.
pub(crate) struct World {
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<()>,
    _dir: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.serving.abort();
    }
}

impl Options {
    pub(crate) async fn serve(self) -> World {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let app = self.app(&log);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Server::new(listener).config(self.connections);
        if let Some(tls) = self.tls {
            server = server.tls(tls);
        }
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.serve(app, shutdown.clone()));
        World {
            address,
            shutdown,
            serving,
            _dir: dir,
        }
    }

    fn app(&self, log: &Log) -> Router {
        let streams = StreamsConfig {
            auth: self.auth.clone(),
            rate: self.rate.clone(),
            subscriptions: self.subscriptions.clone(),
            cors: self.cors,
            ..StreamsConfig::default()
        };
        let channel = ReplayChannel::builder()
            .codec(Json)
            .topic(&Topic::new(EVENTS).unwrap())
            .on(log);
        let manager = RealtimeManager::<Tick, Everything>::new(channel.unwrap());
        let mut realtime = RealtimeConfig::default().subscriptions(self.subscriptions.clone());
        if let Some(auth) = &self.auth {
            realtime = realtime.auth(auth.clone(), EVENTS);
        }
        if let Some(rate) = &self.rate {
            realtime = realtime.rate(rate.clone());
        }
        let megaphone = MegaphoneConfig {
            auth: self.auth.clone(),
            ..MegaphoneConfig::default()
        };
        let app = streams::router(log.clone(), streams)
            .merge(realtime::router(Some(manager), realtime))
            .merge(megaphone::router(log.clone(), megaphone).unwrap());
        match &self.auth {
            Some(auth) => {
                let private = Router::new().route("/all", axum::routing::get(async || "all"));
                app.merge(auth.router())
                    .merge(auth.require(private, Right::Read, ""))
            }
            None => app,
        }
    }
}

impl World {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        reqwest::Client::new().request(method, self.url(path))
    }

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> Response {
        self.ask(Method::GET, path, token).await
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, token: Option<&str>) -> Response {
        let mut request = self
            .request(method, path)
            .header("content-type", "text/plain");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        soon(request.send()).await.unwrap()
    }

    pub(crate) async fn status(&self, method: Method, path: &str, token: Option<&str>) -> u16 {
        self.ask(method, path, token).await.status().as_u16()
    }
}

/// A refusal as every face has it: a problem document that says its own status. What it says, and its
/// headers.
pub(crate) async fn problem(response: Response, status: u16) -> (String, HeaderMap) {
    assert_eq!(response.status(), status, "{response:?}");
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(problem["status"], status);
    let is_for_tokens = status == 401 || status == 403;
    assert_eq!(headers.contains_key(WWW_AUTHENTICATE), is_for_tokens);
    (problem["detail"].as_str().unwrap().to_owned(), headers)
}

/// What was answered, as JSON.
pub(crate) async fn json(response: Response) -> Value {
    let text = soon(response.text()).await.unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Files of tokens and keys.
pub(crate) struct Files {
    dir: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Knows the tokens of such a file, and those for URLs.
    pub(crate) fn tokens(&self, text: &str) -> Authorizer {
        let config = AuthConfig {
            token_file: Some(self.write("tokens", text)),
            url_keys_file: Some(self.path("url.keys")),
            ..AuthConfig::default()
        };
        Authorizer::load(config).unwrap()
    }
}
