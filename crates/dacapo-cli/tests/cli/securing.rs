//! `dacapo serve`: who is let in, how often, and over what, tried from outside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::process::{can_run, dacapo, expect_code, tell, text};
use crate::server::{Answer, Server, read_head, send};

const TEXT: (&str, &str) = ("content-type", "text/plain");
const ROOM: &str = "/v1/stream/rooms/a";
const TOKENS: &str = "ada read,append rooms/\nr00t admin\n";

fn asked(server: &Server, method: &str, path: &str, token: Option<&str>) -> Answer {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let mut headers = vec![TEXT];
    headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
    server.ask(method, path, &headers, "")
}

/// A problem document, and the header that says how to get in.
fn expect_refusal(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(answer.json()["status"], status);
    let challenge = answer.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with("Bearer realm=\"dacapo\""),
        "{challenge}"
    );
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

fn with_tokens(dir: &Path, options: &[&str]) -> Server {
    let tokens = write(dir, "tokens", TOKENS);
    let mut all = vec!["--token-file", tokens.to_str().unwrap()];
    all.extend(options);
    Server::start(&dir.join("log"), &all)
}

#[test]
fn no_face_lets_in_a_bad_token_or_one_for_another_topic() {
    let dir = tempdir().unwrap();
    let server = with_tokens(dir.path(), &[]);
    for path in [ROOM, "/v1/events", "/metrics"] {
        expect_refusal(&asked(&server, "GET", path, None), 401);
        expect_refusal(&asked(&server, "GET", path, Some("eve")), 401);
    }
    let mint = "/v1/url-tokens";
    expect_refusal(&asked(&server, "POST", mint, Some("eve")), 401);
    assert_eq!(asked(&server, "PUT", ROOM, Some("ada")).status, 201);
    for (method, path) in [
        ("GET", "/v1/stream/users/a"),
        ("PUT", "/v1/stream/users/a"),
        ("DELETE", ROOM),
        ("GET", "/v1/events"),
        ("GET", "/metrics"),
    ] {
        expect_refusal(&asked(&server, method, path, Some("ada")), 403);
    }
    // As their protocols say it.
    let socket = "/socket/longpoll?vsn=2.0.0";
    assert_eq!(asked(&server, "GET", socket, None).json()["status"], 403);
    assert_eq!(
        asked(&server, "GET", socket, Some("eve")).json()["status"],
        403
    );
    assert_eq!(
        asked(&server, "GET", socket, Some("ada")).json()["status"],
        410
    );
    for (token, status) in [(None, 401), (Some("ada"), 403)] {
        let refused = asked(&server, "POST", "/create", token);
        assert_eq!(refused.status, status, "{refused:?}");
    }
    assert_eq!(asked(&server, "GET", "/metrics", Some("r00t")).status, 200);
    assert_eq!(asked(&server, "GET", "/health", None).status, 200);
}

const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";

fn jwt(expires_in: i64, prefix: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let expires = now.checked_add_signed(expires_in).unwrap();
    let grants = json!([{"rights": ["read", "append"], "prefix": prefix}]);
    let claims = json!({"sub": "ada", "exp": expires, "aud": "dacapo", "dacapo": grants});
    encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(SECRET),
    )
    .unwrap()
}

#[test]
fn a_json_web_token_lets_in_until_it_expires_and_where_its_claims_say() {
    let dir = tempdir().unwrap();
    // base64url of the secret.
    let key = "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s";
    let keys = json!({"keys": [{"kty": "oct", "alg": "HS256", "k": key}]});
    let keys = write(dir.path(), "keys.json", &keys.to_string());
    let options = [
        "--jwt-keys",
        keys.to_str().unwrap(),
        "--jwt-audience",
        "dacapo",
    ];
    let server = Server::start(&dir.path().join("log"), &options);

    let good = jwt(3600, "rooms/");
    assert_eq!(asked(&server, "PUT", ROOM, Some(&good)).status, 201);
    let expired = asked(&server, "GET", ROOM, Some(&jwt(-3600, "rooms/")));
    expect_refusal(&expired, 401);
    assert!(expired.body.contains("expired"), "{expired:?}");
    expect_refusal(
        &asked(&server, "GET", ROOM, Some(&jwt(3600, "users/"))),
        403,
    );
    let (claims, _) = good.rsplit_once('.').unwrap();
    expect_refusal(
        &asked(&server, "GET", ROOM, Some(&format!("{claims}."))),
        401,
    );
    assert_eq!(asked(&server, "GET", ROOM, Some(&good)).status, 200);
}

#[test]
fn a_token_for_a_url_opens_server_sent_events_also_after_a_restart() {
    let dir = tempdir().unwrap();
    let server = with_tokens(dir.path(), &[]);
    assert_eq!(asked(&server, "PUT", ROOM, Some("ada")).status, 201);
    let bearer = ("authorization", "Bearer ada");
    let wanted = json!({"topic": "rooms/a", "seconds": 3600}).to_string();
    let issued = server.ask("POST", "/v1/url-tokens", &[bearer], &wanted);
    assert_eq!(issued.status, 201, "{issued:?}");
    let token = issued.json()["token"].as_str().unwrap().to_owned();
    server.kill();

    let server = with_tokens(dir.path(), &[]);
    let path = format!("{ROOM}?offset=-1&live=sse&access_token={token}");
    let mut events = send(server.address(), "GET", &path, &[], "").unwrap();
    let head = read_head(&mut events).unwrap();
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let other = format!("/v1/stream/rooms/b?access_token={token}");
    expect_refusal(&asked(&server, "GET", &other, None), 403);
    let static_one = format!("{ROOM}?access_token=ada");
    expect_refusal(&asked(&server, "GET", &static_one, None), 401);
}

#[test]
fn who_asks_too_often_is_told_when_to_ask_again() {
    let dir = tempdir().unwrap();
    let options = ["--requests-per-second", "1", "--requests-burst", "2"];
    let server = with_tokens(dir.path(), &options);
    assert_eq!(asked(&server, "PUT", ROOM, Some("ada")).status, 201);
    assert_eq!(asked(&server, "GET", ROOM, Some("ada")).status, 200);
    let refused = asked(&server, "GET", ROOM, Some("ada"));
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("1"))
    );
    assert_eq!(refused.json()["status"], 429);
    assert_eq!(asked(&server, "GET", ROOM, Some("r00t")).status, 200);
    // Guesses share what an address has, over all faces.
    let guesses = ["/v1/events", "/metrics", "/v1/stream/x", "/v1/stream/y"];
    let statuses = guesses.map(|path| asked(&server, "GET", path, Some("eve")).status);
    assert_eq!(statuses[..2], [401, 401]);
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[test]
fn no_token_is_ever_logged() {
    let dir = tempdir().unwrap();
    let server = with_tokens(dir.path(), &["--log-format", "json"]);
    let secret = "s3cret-that-nobody-may-see";
    asked(&server, "GET", ROOM, Some(secret));
    asked(
        &server,
        "GET",
        &format!("{ROOM}?access_token={secret}"),
        None,
    );
    asked(
        &server,
        "GET",
        &format!("/v1/events?access_token={secret}"),
        None,
    );
    asked(
        &server,
        "GET",
        &format!("/socket/longpoll?vsn=2.0.0&token={secret}"),
        None,
    );
    asked(&server, "GET", ROOM, Some("ada"));
    server.signal(Signal::TERM);
    let (status, said) = server.ended();
    assert!(status.success() && said.contains("serving"), "{said}");
    for token in [secret, "\"ada\"", "Bearer"] {
        assert!(!said.contains(token), "{said}");
    }
}

fn certificate(dir: &Path) -> CertifiedKey<KeyPair> {
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write(dir, "certificate.pem", &made.cert.pem());
    write(dir, "key.pem", &made.signing_key.serialize_pem());
    made
}

/// What curl gets of `/health`, trusting this certificate alone.
fn health(server: &Server, trusted: &Path) -> Result<Value, String> {
    let port = server.address().port();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--cacert"])
        .arg(trusted)
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .arg(format!("https://localhost:{port}/health"))
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(text(&output.stderr).to_owned()),
    }
}

#[test]
fn tls_is_spoken_with_a_certificate_that_is_read_again_on_demand() {
    if !can_run("curl", &["--version"]) {
        tell("SKIPPED: this test needs curl");
        return;
    }
    let dir = tempdir().unwrap();
    let old = certificate(dir.path());
    let trusted = write(dir.path(), "trusted.pem", &old.cert.pem());
    let (certificate_file, key) = (
        dir.path().join("certificate.pem"),
        dir.path().join("key.pem"),
    );
    let options = [
        "--tls-certificate",
        certificate_file.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let mut server = Server::start(&dir.path().join("log"), &options);
    assert_eq!(health(&server, &trusted).unwrap()["status"], "ok");
    let plain = server.ask("GET", "/health", &[], "");
    assert_eq!(plain.status, 400, "{plain:?}");
    assert!(plain.body.contains("https://"), "{plain:?}");

    let new = certificate(dir.path());
    server.signal(Signal::HUP);
    server.wait_until_it_says("the certificate was read again");
    assert!(
        health(&server, &trusted)
            .unwrap_err()
            .contains("certificate")
    );
    let trusted = write(dir.path(), "trusted.pem", &new.cert.pem());
    assert_eq!(health(&server, &trusted).unwrap()["status"], "ok");

    fs::write(&key, "no key").unwrap();
    server.signal(Signal::HUP);
    server.wait_until_it_says("the certificate is that of before");
    assert_eq!(health(&server, &trusted).unwrap()["status"], "ok");
}

#[test]
fn keys_that_cannot_be_used_are_said_before_anything_is_served() {
    let dir = tempdir().unwrap();
    let file = write(dir.path(), "file", "s3cret\n");
    let file = file.to_str().unwrap();
    for (options, what) in [
        (&["--token-file", file][..], "TOKEN RIGHTS [PREFIX]"),
        (
            &["--jwt-keys", file],
            "neither a JSON Web Key Set nor a PEM file",
        ),
        (
            &["--tls-certificate", file, "--tls-key", file],
            "holds no certificate",
        ),
        (&["--token-file", "/nowhere"], "/nowhere"),
    ] {
        let mut command = dacapo(["serve", "--listen", "127.0.0.1:0"]);
        let output = command
            .arg(dir.path().join("log"))
            .args(options)
            .output()
            .unwrap();
        expect_code(&output, 1);
        let said = text(&output.stderr);
        assert!(said.contains(what) && !said.contains("s3cret"), "{said}");
    }
}
