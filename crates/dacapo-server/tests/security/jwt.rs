//! JSON Web Tokens: of each algorithm, and of none that its key is not for.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dacapo_server::auth::{AuthConfig, AuthError, Authorizer};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ED25519, PKCS_RSA_SHA256};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Files, Options, World, problem};

const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";
const ROOM: &str = "/v1/stream/rooms/a";

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// For an hour, in `rooms/`.
fn claims() -> Value {
    let grants = json!([{"rights": ["read", "append"], "prefix": "rooms/"}]);
    json!({"sub": "ada", "exp": now() + 3600, "dacapo": grants})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn signed(algorithm: Algorithm, key: &EncodingKey, claims: &Value) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    signed(Algorithm::HS256, &EncodingKey::from_secret(SECRET), claims)
}

/// A key set of the one secret.
fn secret_set() -> Value {
    json!({"keys": [{"kty": "oct", "kid": "one", "k": URL_SAFE_NO_PAD.encode(SECRET)}]})
}

fn config(files: &Files, keys: &str) -> AuthConfig {
    AuthConfig {
        jwt_keys_file: Some(files.write("jwt.keys", keys)),
        ..AuthConfig::default()
    }
}

async fn serve(config: AuthConfig) -> World {
    let options = Options {
        auth: Some(Authorizer::load(config).unwrap()),
        ..Options::default()
    };
    options.serve().await
}

#[tokio::test]
async fn a_token_gives_the_rights_of_its_claims_until_it_expires() {
    let files = Files::new();
    let world = serve(config(&files, &secret_set().to_string())).await;
    let good = hs256(&claims());
    assert_eq!(world.status(Method::PUT, ROOM, Some(&good)).await, 201);
    assert_eq!(world.status(Method::GET, ROOM, Some(&good)).await, 200);
    for (method, path) in [
        (Method::DELETE, ROOM),
        (Method::GET, "/v1/stream/users/a"),
        (Method::GET, "/v1/events"),
        (Method::GET, "/all"),
    ] {
        problem(world.ask(method, path, Some(&good)).await, 403).await;
    }
    let all = hs256(&with("dacapo", json!([{"rights": ["admin"]}])));
    assert_eq!(world.status(Method::GET, "/all", Some(&all)).await, 200);

    for (claims, said) in [
        (with("exp", json!(now() - 3600)), "has expired"),
        (with("nbf", json!(now() + 3600)), "not good yet"),
        (without("exp"), "exp"),
        (without("dacapo"), "dacapo"),
        (
            with("dacapo", json!([{"rights": ["everything"]}])),
            "dacapo",
        ),
        (with("dacapo", json!("admin")), "dacapo"),
        (with("exp", json!("tomorrow")), "exp"),
        (with("aud", json!("somebody else")), "not for this server"),
    ] {
        let refused = world.get(ROOM, Some(&hs256(&claims))).await;
        let (detail, headers) = problem(refused, 401).await;
        assert!(detail.contains(said), "{claims}: {detail}");
        let challenge = headers["www-authenticate"].to_str().unwrap();
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    assert_eq!(world.status(Method::GET, ROOM, Some(&good)).await, 200);
}

#[tokio::test]
async fn a_token_is_for_the_audience_and_by_the_issuer_that_are_asked_for() {
    let files = Files::new();
    let world = serve(AuthConfig {
        jwt_audience: Some("dacapo".to_owned()),
        jwt_issuer: Some("https://id.example".to_owned()),
        ..config(&files, &secret_set().to_string())
    })
    .await;
    let mut good = with("aud", json!(["others", "dacapo"]));
    good["iss"] = json!("https://id.example");
    assert_eq!(
        world.status(Method::PUT, ROOM, Some(&hs256(&good))).await,
        201
    );
    for (name, value) in [
        ("aud", json!("others")),
        ("aud", Value::Null),
        ("iss", json!("https://evil.example")),
        ("iss", Value::Null),
    ] {
        let mut wrong = good.clone();
        match value {
            Value::Null => drop(wrong.as_object_mut().unwrap().remove(name)),
            value => wrong[name] = value,
        }
        problem(world.get(ROOM, Some(&hs256(&wrong))).await, 401).await;
    }
}

#[tokio::test]
async fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let files = Files::new();
    let rsa = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let ed = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let public = format!("{}{}", rsa.public_key_pem(), ed.public_key_pem());
    let world = serve(config(&files, &public)).await;
    let rsa_key = EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes()).unwrap();
    let ed_key = EncodingKey::from_ed_pem(ed.serialize_pem().as_bytes()).unwrap();
    let by_rsa = signed(Algorithm::RS256, &rsa_key, &claims());
    let by_ed = signed(Algorithm::EdDSA, &ed_key, &claims());
    assert_eq!(world.status(Method::PUT, ROOM, Some(&by_rsa)).await, 201);
    assert_eq!(world.status(Method::GET, ROOM, Some(&by_ed)).await, 200);

    // What everybody knows, the public key, as the secret of another algorithm.
    let as_secret = |secret: &[u8]| {
        let key = EncodingKey::from_secret(secret);
        signed(Algorithm::HS256, &key, &claims())
    };
    let none = |algorithm: &str| {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(&json!({"alg": algorithm, "typ": "JWT"}));
        format!("{header}.{}.", part(&claims()))
    };
    let other = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let other = EncodingKey::from_rsa_pem(other.serialize_pem().as_bytes()).unwrap();
    for forged in [
        as_secret(public.as_bytes()),
        as_secret(rsa.public_key_pem().as_bytes()),
        as_secret(ed.public_key_raw()),
        none("none"),
        none("None"),
        none("RS256"),
        signed(Algorithm::RS384, &rsa_key, &claims()),
        signed(Algorithm::PS256, &rsa_key, &claims()),
        signed(Algorithm::RS256, &other, &claims()),
        format!("{by_rsa}A"),
        by_rsa.replace('.', ""),
    ] {
        problem(world.get(ROOM, Some(&forged)).await, 401).await;
    }
}

#[tokio::test]
async fn keys_are_rotated_by_their_ids_while_the_server_runs() {
    let files = Files::new();
    let auth = Authorizer::load(config(&files, &secret_set().to_string())).unwrap();
    let options = Options {
        auth: Some(auth.clone()),
        ..Options::default()
    };
    let world = options.serve().await;
    let of = |id: &str, secret: &[u8]| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(id.to_owned());
        encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap()
    };
    let new_secret = [7; 32];
    let (old, new) = (of("one", SECRET), of("two", &new_secret));
    assert_eq!(world.status(Method::PUT, ROOM, Some(&old)).await, 201);
    assert_eq!(world.status(Method::GET, ROOM, Some(&new)).await, 401);
    assert_eq!(
        world
            .status(Method::GET, ROOM, Some(&of("two", SECRET)))
            .await,
        401
    );

    let mut both = secret_set();
    let second = json!({"kty": "oct", "kid": "two", "k": URL_SAFE_NO_PAD.encode(new_secret)});
    both["keys"].as_array_mut().unwrap().push(second);
    files.write("jwt.keys", &both.to_string());
    auth.reload().unwrap();
    assert_eq!(world.status(Method::GET, ROOM, Some(&old)).await, 200);
    assert_eq!(world.status(Method::GET, ROOM, Some(&new)).await, 200);

    both["keys"].as_array_mut().unwrap().remove(0);
    files.write("jwt.keys", &both.to_string());
    auth.reload().unwrap();
    assert_eq!(world.status(Method::GET, ROOM, Some(&old)).await, 401);
    assert_eq!(world.status(Method::GET, ROOM, Some(&new)).await, 200);
}

#[test]
fn keys_that_cannot_be_trusted_are_refused_and_not_shown() {
    let files = Files::new();
    let short = URL_SAFE_NO_PAD.encode([b's'; 31]);
    let private = KeyPair::generate_for(&PKCS_ED25519)
        .unwrap()
        .serialize_pem();
    for keys in [
        String::new(),
        "s3cret".to_owned(),
        r#"{"keys": []}"#.to_owned(),
        r#"{"keys": [{"kty": "oct", "k": "s3cret"#.to_owned(),
        json!({"keys": [{"kty": "oct", "k": short}]}).to_string(),
        json!({"keys": [{"kty": "oct", "alg": "HS512", "k": URL_SAFE_NO_PAD.encode(SECRET)}]})
            .to_string(),
        json!({"keys": [{"kty": "oct", "use": "enc", "k": URL_SAFE_NO_PAD.encode(SECRET)}]})
            .to_string(),
        json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}).to_string(),
        private.clone(),
    ] {
        let error = Authorizer::load(config(&files, &keys)).unwrap_err();
        assert!(
            matches!(error, AuthError::JwtKeys { .. }),
            "{keys}: {error}"
        );
        let said = format!("{error} {error:?}");
        for secret in ["s3cret", &short, &URL_SAFE_NO_PAD.encode(SECRET), &private] {
            assert!(!said.contains(secret.trim()), "{said}");
        }
    }
}
