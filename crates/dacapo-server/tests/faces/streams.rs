//! Streams beside what else a log does.

use dacapo_log::{Log, Offset};
use dacapo_server::streams::{Streams, StreamsConfig};
use reqwest::{Method, StatusCode};

use crate::client::{Server, serve, soon};

async fn ask(server: &Server, method: Method) -> StatusCode {
    let request = reqwest::Client::new().request(method, server.url("/v1/stream/a"));
    let request = request.header("content-type", "text/plain");
    soon(request.send()).await.unwrap().status()
}

/// Of a producer, which is recognised when it sends something again.
async fn append(server: &Server, seq: &str, body: &'static str) -> StatusCode {
    let request = reqwest::Client::new().post(server.url("/v1/stream/a"));
    let request = request.header("content-type", "text/plain");
    let request = request
        .header("producer-id", "p")
        .header("producer-epoch", "0");
    let request = request.header("producer-seq", seq).body(body);
    soon(request.send()).await.unwrap().status()
}

/// Appends what is no stream's, until it fills some more segments.
fn fill(log: &Log) {
    for _ in 0..100 {
        log.append(&[7; 1024]).unwrap();
    }
}

#[tokio::test]
async fn a_stream_is_known_after_retention_has_dropped_where_it_was_created() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options()
        .segment_bytes_max(16 << 10)
        .open(dir.path())
        .unwrap();
    fill(&log);
    let streams = Streams::new(log.clone(), StreamsConfig::default());
    let server = serve(streams.router()).await;
    assert_eq!(ask(&server, Method::PUT).await, 201);
    assert_eq!(append(&server, "0", "hello").await, 200);
    let created = log.next_offset();
    fill(&log);
    fill(&log);
    log.prune(Offset::new(50)).unwrap();
    assert!(Offset::ZERO < log.oldest() && log.oldest() < created);

    streams.delete_expired().unwrap();
    log.prune(created.plus(50)).unwrap();

    assert!(log.oldest() > created);
    let anew = Streams::new(log.clone(), StreamsConfig::default());
    let server = serve(anew.router()).await;
    assert_eq!(append(&server, "0", "hello").await, 204, "sent before");
    assert_eq!(append(&server, "1", "again").await, 200);
    let read = soon(reqwest::get(server.url("/v1/stream/a")))
        .await
        .unwrap();
    assert_eq!(read.headers()["content-type"], "text/plain");
    assert_eq!(soon(read.text()).await.unwrap(), "again");

    // Looked at again, it is where it was: the state is not in the older half.
    let end = log.next_offset();
    anew.delete_expired().unwrap();
    assert_eq!(log.next_offset(), end);
}

#[tokio::test]
async fn a_page_of_another_log_under_the_same_url_has_another_tag() {
    let mut tags = Vec::new();
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let server = serve(Streams::new(log, StreamsConfig::default()).router()).await;
        let put = reqwest::Client::new().put(server.url("/v1/stream/a"));
        soon(put.body("hello").send()).await.unwrap();
        let get = reqwest::Client::new().get(server.url("/v1/stream/a"));
        let known = tags
            .iter()
            .fold(get, |get, tag| get.header("if-none-match", tag));
        let read = soon(known.send()).await.unwrap();
        assert_eq!(read.status(), 200);
        let tag = read.headers()["etag"].clone();
        let get = reqwest::Client::new().get(server.url("/v1/stream/a"));
        let again = soon(get.header("if-none-match", &tag).send())
            .await
            .unwrap();
        assert_eq!(again.status(), 304);
        tags.push(tag);
    }
    assert_ne!(tags[0], tags[1]);
}
