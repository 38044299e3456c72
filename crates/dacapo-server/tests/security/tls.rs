//! TLS: served over it, by the certificate that is there, and what plain HTTP is told.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dacapo_server::connections::{ConnectionsConfig, Tls, TlsConfig};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::server::{Files, Options, World, problem, soon};

fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn write(files: &Files, made: &CertifiedKey<KeyPair>) -> TlsConfig {
    TlsConfig {
        certificate_file: files.write("certificate.pem", &made.cert.pem()),
        key_file: files.write("key.pem", &made.signing_key.serialize_pem()),
    }
}

async fn serve(tls: Tls, connections: ConnectionsConfig) -> World {
    let options = Options {
        tls: Some(tls),
        connections,
        ..Options::default()
    };
    options.serve().await
}

/// Connects as somebody who trusts this certificate alone.
async fn connect(
    world: &World,
    trusted: &CertifiedKey<KeyPair>,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(world.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

async fn ask(stream: &mut TlsStream<TcpStream>, head: &str) -> String {
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1024];
    let bytes = soon(stream.read(&mut answer)).await.unwrap();
    String::from_utf8(answer[..bytes].to_vec()).unwrap()
}

const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_client_that_trusts_the_certificate_is_served_and_others_do_not_go_on() {
    let files = Files::new();
    let made = certificate();
    let tls = Tls::load(write(&files, &made)).unwrap();
    let world = serve(tls, ConnectionsConfig::default()).await;
    let mut stream = connect(&world, &made).await.unwrap();
    let answer = ask(&mut stream, HEALTH).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let put = "PUT /v1/stream/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
    let created = ask(&mut stream, put).await;
    assert!(
        created.contains("location: https://localhost/v1/stream/a\r\n"),
        "{created}"
    );
    assert!(connect(&world, &certificate()).await.is_err());
    let again = ask(&mut stream, HEALTH).await;
    assert!(again.starts_with("HTTP/1.1 200 "), "{again}");
}

#[tokio::test]
async fn plain_http_at_a_port_of_tls_is_told_so() {
    let files = Files::new();
    let tls = Tls::load(write(&files, &certificate())).unwrap();
    let world = serve(tls, ConnectionsConfig::default()).await;
    let (detail, _) = problem(world.get("/health", None).await, 400).await;
    assert!(detail.contains("https://"), "{detail}");
}

#[tokio::test]
async fn a_certificate_is_changed_under_connections_that_go_on() {
    let files = Files::new();
    let (old, new) = (certificate(), certificate());
    let tls = Tls::load(write(&files, &old)).unwrap();
    let world = serve(tls.clone(), ConnectionsConfig::default()).await;
    let mut before = connect(&world, &old).await.unwrap();

    write(&files, &new);
    tls.reload().unwrap();

    assert!(connect(&world, &old).await.is_err());
    let mut after = connect(&world, &new).await.unwrap();
    for stream in [&mut before, &mut after] {
        let answer = ask(stream, HEALTH).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    fs::write(files.path("key.pem"), "no key").unwrap();
    assert!(tls.reload().is_err());
    connect(&world, &new).await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off() {
    let files = Files::new();
    let tls = Tls::load(write(&files, &certificate())).unwrap();
    let connections = ConnectionsConfig {
        head_timeout: Duration::from_millis(200),
        ..ConnectionsConfig::default()
    };
    let world = serve(tls, connections).await;
    // The first bytes of a handshake, and nothing at all.
    for begun in [&[22, 3, 1, 2, 0][..], &[]] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_answered_over_tls_too() {
    let files = Files::new();
    let made = certificate();
    let tls = Tls::load(write(&files, &made)).unwrap();
    let connections = ConnectionsConfig {
        head_timeout: Duration::from_secs(1),
        ..ConnectionsConfig::default()
    };
    let world = serve(tls, connections).await;
    let mut stream = connect(&world, &made).await.unwrap();
    let answer = ask(&mut stream, "GET /health HTTP/1.1\r\nHo").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}
