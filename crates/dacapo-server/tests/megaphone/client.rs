//! Megaphone's own client, and what it relies on.

use std::time::Duration;

use dacapo_server::megaphone::MegaphoneConfig;
use futures_util::StreamExt;
use megaphone::client::MegaphoneClient;
use megaphone::client::model::StreamSpec;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::server::start;

/// Acceptance 20: through several reads, each of which the client follows with the next.
#[tokio::test]
async fn even_and_odd_streams_through_the_published_client_stay_in_order() {
    const MESSAGES: u64 = 600;
    let config = MegaphoneConfig {
        read_duration: Duration::from_millis(100),
        ..MegaphoneConfig::default()
    };
    let server = start(config).await;
    let channel = server.create().await;
    let mut client = MegaphoneClient::new(&server.url("/read"), 10);
    let consumer = channel.consumer.clone();
    let open = |stream: &'static str| {
        let consumer = consumer.clone();
        move |known: Option<String>| {
            let channel = known.unwrap_or_else(|| consumer.clone());
            async move {
                Ok::<_, anyhow::Error>(StreamSpec {
                    channel,
                    streams: vec![stream.to_owned()],
                })
            }
        }
    };
    let even = client
        .new_unbounded_stream::<_, _, _, u64>(open("even"))
        .await
        .unwrap();
    let odd = client
        .new_unbounded_stream::<_, _, _, u64>(open("odd"))
        .await
        .unwrap();
    let half = usize::try_from(MESSAGES / 2).unwrap();
    let even = tokio::spawn(even.take(half).map(Result::unwrap).collect::<Vec<u64>>());
    let odd = tokio::spawn(odd.take(half).map(Result::unwrap).collect::<Vec<u64>>());
    for number in 0..MESSAGES {
        let stream = if number % 2 == 0 { "even" } else { "odd" };
        assert_eq!(
            server.write(&channel, stream, json!(number)).await.status,
            201
        );
    }
    let expected = |first: u64| (first..MESSAGES).step_by(2).collect::<Vec<u64>>();
    assert_eq!(even.await.unwrap(), expected(0));
    assert_eq!(odd.await.unwrap(), expected(1));
}

/// The clients in browsers parse each chunk by itself.
#[tokio::test]
async fn each_message_is_one_line_and_one_chunk_however_its_body_was_written() {
    let server = start(MegaphoneConfig::default()).await;
    let channel = server.create().await;
    let pretty = "{\n  \"text\": \"a\\nb\",\r\n  \"number\": 1.50\n}\n";
    let url = server.url(&format!("/write/{}/a%20b%2Fc", channel.producer));
    let request = server
        .client
        .post(url)
        .header("content-type", "application/json");
    assert_eq!(request.body(pretty).send().await.unwrap().status(), 201);
    server
        .write(&channel, "s", json!("x".repeat(100_000)))
        .await;

    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /read/{} HTTP/1.1\r\nhost: here\r\n\r\n",
        channel.consumer
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
    for (sid, body) in [
        ("a b/c", "{   \"text\": \"a\\nb\",    \"number\": 1.50 }"),
        ("s", "\"xxx"),
    ] {
        let mut size = String::new();
        stream.read_line(&mut size).await.unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.unwrap();
        let line = String::from_utf8(chunk).unwrap();
        let line = line.strip_suffix("\n\r\n").unwrap();
        assert!(!line.contains('\n'), "{line:.100}");
        assert!(line.contains(body), "{line:.200}");
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["sid"], sid);
    }
}
