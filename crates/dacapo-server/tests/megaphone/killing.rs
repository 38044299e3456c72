//! Kills the server under its writers and readers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tokio::sync::watch;

use crate::child::ServerProcess;

/// Far more than any run takes: one that takes longer hangs.
const HANGS: Duration = Duration::from_secs(300);

/// How often the server is killed, and under how many channels; the environment can ask for more.
const KILLS: usize = 4;
const CHANNELS: usize = 8;

/// How many writes are acknowledged between two kills.
const WRITES: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_kills_under_writers_and_readers() {
    let dir = tempfile::tempdir().unwrap();
    let (kills, channels) = (
        asked("DACAPO_KILLS", KILLS),
        asked("DACAPO_CHANNELS", CHANNELS),
    );
    let port = free_port();
    let mut server = ServerProcess::start(dir.path(), port);
    let run = Arc::new(Run {
        url: format!("http://127.0.0.1:{port}"),
        client: Client::builder().no_proxy().build().unwrap(),
        starts: watch::channel(0).0,
        acknowledged: AtomicUsize::new(0),
        progress: watch::channel(0).0,
        is_over: watch::channel(false).0,
    });
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..channels {
        let created = run
            .client
            .post(format!("{}/create", run.url))
            .send()
            .await
            .unwrap();
        let created: Value = serde_json::from_str(&created.text().await.unwrap()).unwrap();
        let text = |name: &str| created[name].as_str().unwrap().to_owned();
        let (total, known) = watch::channel(None);
        let (producer, consumer) = (text("producerAddress"), text("consumerAddress"));
        let writing = Arc::clone(&run).write(producer);
        writers.push(tokio::spawn(async move {
            total.send(Some(writing.await)).unwrap()
        }));
        readers.push(tokio::spawn(Arc::clone(&run).read(consumer, known)));
    }

    let mut progress = run.progress.subscribe();
    for kill in 1..=kills {
        let enough = progress.wait_for(|&acknowledged| acknowledged >= kill * WRITES);
        tokio::time::timeout(HANGS, enough).await.unwrap().unwrap();
        server.kill();
        server = ServerProcess::start(dir.path(), port);
        run.starts.send_modify(|starts| *starts += 1);
    }
    run.is_over.send_replace(true);

    for writer in writers {
        tokio::time::timeout(HANGS, writer).await.unwrap().unwrap();
    }
    let mut repeated = 0;
    for reader in readers {
        let read = tokio::time::timeout(HANGS, reader).await.unwrap().unwrap();
        // In order; a message that was sent again, because no answer came, may be there twice.
        let bodies: Vec<u64> = read.messages.iter().map(|(_, body)| *body).collect();
        assert!(bodies.is_sorted(), "{bodies:?}");
        let mut numbers = bodies.clone();
        numbers.dedup();
        // The last one may be there without an answer, too.
        assert!(numbers.len() as u64 <= read.total + 1);
        numbers.truncate(usize::try_from(read.total).unwrap());
        assert_eq!(numbers, (0..read.total).collect::<Vec<_>>());
        repeated += read.repeated;
    }
    let acknowledged = run.acknowledged.load(Relaxed);
    eprintln!("{acknowledged} acknowledged, {repeated} repeated with their eid");
}

fn asked(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// What writers and readers share.
struct Run {
    url: String,
    client: Client,
    /// How often the server was started again.
    starts: watch::Sender<usize>,
    acknowledged: AtomicUsize,
    progress: watch::Sender<usize>,
    is_over: watch::Sender<bool>,
}

/// What one reader got.
struct Read {
    total: u64,
    /// Each eid once, in the order of their first coming.
    messages: Vec<(String, u64)>,
    repeated: usize,
}

impl Run {
    /// Writes number after number, each until it is acknowledged, and returns how many.
    async fn write(self: Arc<Self>, producer: String) -> u64 {
        let url = format!("{}/write/{producer}/s", self.url);
        let mut next = 0_u64;
        while !*self.is_over.borrow() {
            let starts = *self.starts.borrow();
            let request = self
                .client
                .post(&url)
                .header("content-type", "application/json");
            match request.body(next.to_string()).send().await {
                Ok(response) => {
                    assert_eq!(response.status(), 201);
                    next += 1;
                    let acknowledged = self.acknowledged.fetch_add(1, Relaxed) + 1;
                    self.progress.send_replace(acknowledged);
                }
                // Killed: the same again, once there is a server.
                Err(_) => self.started_since(starts).await,
            }
        }
        next
    }

    /// Reads, and reads again, until it has all that were acknowledged.
    async fn read(self: Arc<Self>, consumer: String, total: watch::Receiver<Option<u64>>) -> Read {
        let url = format!("{}/read/{consumer}", self.url);
        let mut known: HashMap<String, u64> = HashMap::new();
        let mut read = Read {
            total: 0,
            messages: Vec::new(),
            repeated: 0,
        };
        loop {
            let starts = *self.starts.borrow();
            match self.read_once(&url, &mut known, &mut read).await {
                Ok(()) => {}
                Err(_) => self.started_since(starts).await,
            }
            if let Some(total) = *total.borrow()
                && read.messages.last().map_or(0, |(_, body)| body + 1) >= total
            {
                return Read { total, ..read };
            }
        }
    }

    async fn read_once(
        &self,
        url: &str,
        known: &mut HashMap<String, u64>,
        read: &mut Read,
    ) -> Result<(), reqwest::Error> {
        let mut response = self.client.get(url).send().await?;
        assert_eq!(response.status(), 200);
        let mut received = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            received.extend_from_slice(&chunk);
            while let Some(end) = received.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = received.drain(..=end).collect();
                let line: Value = serde_json::from_slice(&line).unwrap();
                let (eid, body) = (
                    line["eid"].as_str().unwrap(),
                    line["body"].as_u64().unwrap(),
                );
                match known.insert(eid.to_owned(), body) {
                    None => read.messages.push((eid.to_owned(), body)),
                    Some(before) => {
                        assert_eq!(before, body, "{eid} was another message");
                        read.repeated += 1;
                    }
                }
            }
        }
        Ok(())
    }

    async fn started_since(&self, starts: usize) {
        let mut started = self.starts.subscribe();
        let again = started.wait_for(|&now| now > starts);
        tokio::time::timeout(HANGS, again).await.unwrap().unwrap();
    }
}
