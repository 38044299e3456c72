//! Static tokens: without one, with a wrong one, with one that does not reach so far.

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, ORIGIN, WWW_AUTHENTICATE};

use crate::server::{Files, Options, World, json, problem, soon};

const TOKENS: &str = "r3ad read rooms/\nwr1te read,append rooms/\n3v3nts read events\na11 admin\n";

async fn world(files: &Files) -> World {
    let options = Options {
        auth: Some(files.tokens(TOKENS)),
        ..Options::default()
    };
    options.serve().await
}

#[tokio::test]
async fn nobody_enters_any_face_without_a_token_that_is_known() {
    let files = Files::new();
    let world = world(&files).await;
    for path in ["/v1/stream/rooms/a", "/v1/events", "/ws", "/all"] {
        let (_, headers) = problem(world.get(path, None).await, 401).await;
        assert_eq!(
            headers[WWW_AUTHENTICATE], "Bearer realm=\"dacapo\"",
            "{path}"
        );
        for token in ["r3a", "r3add", "tokens", "a.b.c", "dcu1.e30.AAAA"] {
            let (_, headers) = problem(world.get(path, Some(token)).await, 401).await;
            let challenge = headers[WWW_AUTHENTICATE].to_str().unwrap();
            assert!(
                challenge.contains("error=\"invalid_token\""),
                "{path} {challenge}"
            );
        }
    }
    let basic = world
        .request(Method::GET, "/all")
        .basic_auth("r3ad", Some("r3ad"));
    problem(soon(basic.send()).await.unwrap(), 401).await;
    problem(world.ask(Method::POST, "/v1/url-tokens", None).await, 401).await;
}

#[tokio::test]
async fn a_token_allows_what_its_line_says_and_no_more() {
    let files = Files::new();
    let world = world(&files).await;
    let (room, other) = ("/v1/stream/rooms/a", "/v1/stream/users/a");
    assert_eq!(world.status(Method::PUT, room, Some("wr1te")).await, 201);
    assert_eq!(world.status(Method::GET, room, Some("r3ad")).await, 200);
    for (method, path, token) in [
        (Method::POST, room, "r3ad"),
        (Method::GET, other, "r3ad"),
        (Method::PUT, other, "wr1te"),
        (Method::DELETE, room, "wr1te"),
        (Method::GET, "/v1/events", "r3ad"),
        (Method::GET, "/ws", "r3ad"),
        (Method::GET, "/all", "r3ad"),
        (Method::GET, room, "3v3nts"),
        (Method::PUT, "/v1/stream/__ds/rooms/a", "a11"),
        (Method::GET, "/v1/stream/__mp/gone", "a11"),
    ] {
        let refused = world.ask(method.clone(), path, Some(token)).await;
        let (_, headers) = problem(refused, 403).await;
        let challenge = headers[WWW_AUTHENTICATE].to_str().unwrap();
        assert!(
            challenge.contains("insufficient_scope"),
            "{method} {path} {challenge}"
        );
    }
    assert_eq!(
        world
            .status(Method::GET, "/v1/events", Some("3v3nts"))
            .await,
        200
    );
    assert_eq!(world.status(Method::GET, "/all", Some("a11")).await, 200);
    assert_eq!(world.status(Method::DELETE, room, Some("a11")).await, 204);
}

#[tokio::test]
async fn megaphones_creators_and_admins_are_asked_for_their_tokens_in_its_own_words() {
    let files = Files::new();
    let world = world(&files).await;
    let list = "/channel/list";
    for (method, path, token, status, code) in [
        (Method::POST, "/create", None, 401, "UNAUTHORIZED"),
        (Method::POST, "/create", Some("wr1te"), 403, "FORBIDDEN"),
        (Method::GET, list, None, 401, "UNAUTHORIZED"),
        (Method::GET, list, Some("r3ad"), 403, "FORBIDDEN"),
    ] {
        let refused = world.request(method, path);
        let refused = match token {
            Some(token) => refused.bearer_auth(token),
            None => refused,
        };
        let refused = soon(refused.send()).await.unwrap();
        assert_eq!(refused.status(), status, "{path}");
        assert_eq!(
            refused.headers().contains_key(WWW_AUTHENTICATE),
            status == 401
        );
        let body = json(refused).await;
        assert_eq!(body["code"], code, "{path}");
    }
    let created = world.request(Method::POST, "/create").bearer_auth("a11");
    let created = json(soon(created.send()).await.unwrap()).await;
    let read = format!("/channel/{}", created["consumerAddress"].as_str().unwrap());
    assert_eq!(world.status(Method::GET, list, Some("a11")).await, 200);
    assert_eq!(world.status(Method::DELETE, &read, Some("r3ad")).await, 403);
    assert_eq!(world.status(Method::DELETE, &read, Some("a11")).await, 200);
}

#[tokio::test]
async fn a_page_of_another_site_hears_why_it_was_refused() {
    let files = Files::new();
    let options = Options {
        auth: Some(files.tokens(TOKENS)),
        cors: true,
        ..Options::default()
    };
    let world = options.serve().await;
    let origin = "https://app.example";
    for (token, status) in [(None, 401), (Some("r3ad"), 403)] {
        let request = world.request(Method::GET, "/v1/stream/users/a");
        let mut request = request.header(ORIGIN, origin);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let (_, headers) = problem(soon(request.send()).await.unwrap(), status).await;
        assert_eq!(headers["access-control-allow-origin"], "*");
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("www-authenticate"), "{exposed}");
    }
    // What a browser asks first has no token.
    let asked = world.request(Method::OPTIONS, "/v1/stream/users/a");
    let asked = asked.header(ORIGIN, origin);
    let asked = asked.header("access-control-request-method", "PUT");
    let asked = asked.header("access-control-request-headers", AUTHORIZATION.as_str());
    let allowed = soon(asked.send()).await.unwrap();
    assert_eq!(allowed.status(), 200);
    let headers = allowed.headers()["access-control-allow-headers"]
        .to_str()
        .unwrap();
    assert!(headers.contains("authorization"), "{headers}");
}

#[tokio::test]
async fn a_page_of_this_machine_hears_why_the_realtime_events_refused_it_and_others_do_not() {
    let files = Files::new();
    let world = world(&files).await;
    for (origin, status, is_told) in [
        ("http://localhost:5173", 401, true),
        ("https://evil.example", 403, false),
    ] {
        let request = world
            .request(Method::GET, "/v1/events")
            .header(ORIGIN, origin);
        let refused = soon(request.send()).await.unwrap();
        assert_eq!(refused.status(), status, "{origin}");
        let told = refused
            .headers()
            .contains_key("access-control-allow-origin");
        assert_eq!(told, is_told, "{origin}");
    }
}

#[tokio::test]
async fn without_cors_no_page_of_another_site_is_told_anything() {
    let files = Files::new();
    let world = world(&files).await;
    let request = world.request(Method::GET, "/v1/stream/rooms/a");
    let request = request.header(ORIGIN, "https://app.example");
    let (_, headers) = problem(soon(request.send()).await.unwrap(), 401).await;
    assert!(!headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn what_a_token_gets_is_kept_by_no_shared_cache() {
    let files = Files::new();
    let world = world(&files).await;
    let room = "/v1/stream/rooms/a";
    assert_eq!(world.status(Method::PUT, room, Some("wr1te")).await, 201);
    let read = world.get(room, Some("r3ad")).await;
    let caching = read.headers()["cache-control"].to_str().unwrap();
    assert!(caching.starts_with("private"), "{caching}");
}

#[tokio::test]
async fn tokens_that_were_taken_out_of_the_file_are_good_no_more() {
    let files = Files::new();
    let auth = files.tokens("0ld admin\n");
    let options = Options {
        auth: Some(auth.clone()),
        ..Options::default()
    };
    let world = options.serve().await;
    assert_eq!(world.status(Method::GET, "/all", Some("0ld")).await, 200);
    files.write("tokens", "n3w admin\n");
    auth.reload().unwrap();
    assert_eq!(world.status(Method::GET, "/all", Some("0ld")).await, 401);
    assert_eq!(world.status(Method::GET, "/all", Some("n3w")).await, 200);
}
