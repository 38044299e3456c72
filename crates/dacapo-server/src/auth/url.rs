//! Signed tokens for URLs: for an `EventSource` or a WebSocket of a browser, which cannot send a header.
//!
//! `dcu1.`, the claims as JSON in base64url, a dot, and their HMAC-SHA-256 in base64url. A URL ends up in
//! the logs of proxies and in histories, so that one is good for a short time, and for one topic.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::rights::{Grant, Grants, Right};
use crate::keys::Keys;

const BEGIN: &str = "dcu1.";

/// What is signed says what it is for: the same keys sign nothing else that could pass for it.
const DOMAIN: &[u8] = b"dacapo url token 1\0";

#[derive(Serialize, Deserialize)]
struct Claims {
    exp: u64,
    topic: String,
    rights: Vec<Right>,
    /// Whose it is, for the limits on how often somebody asks.
    client: u64,
}

/// One that is good.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) grants: Grants,
    pub(super) client: u64,
    pub(super) expires: SystemTime,
}

/// Whether it says to be one.
pub(super) fn is_one(token: &[u8]) -> bool {
    token.starts_with(BEGIN.as_bytes())
}

pub(super) fn sign(
    keys: &Keys,
    topic: &str,
    rights: &[Right],
    client: u64,
    expires: SystemTime,
) -> String {
    let exp = expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = Claims {
        exp: exp.as_secs(),
        topic: topic.to_owned(),
        rights: rights.to_vec(),
        client,
    };
    let claims = serde_json::to_vec(&claims).expect("texts and numbers");
    let claims = URL_SAFE_NO_PAD.encode(claims);
    let signature = keys.signer().sign(&[DOMAIN, claims.as_bytes()]);
    format!("{BEGIN}{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// What a token is good for; `None` of one that none of the keys has signed. Whether its time is over is
/// for the caller to see.
pub(super) fn verify(keys: &Keys, token: &[u8]) -> Option<Verified> {
    let token = std::str::from_utf8(token).ok()?.strip_prefix(BEGIN)?;
    let (claims, signature) = token.split_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let mut is_signed = false;
    for key in keys.iter() {
        let expected = key.sign(&[DOMAIN, claims.as_bytes()]);
        is_signed |= bool::from(expected[..].ct_eq(&signature));
    }
    if !is_signed {
        return None;
    }
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    Some(Verified {
        grants: Grants::from([Grant::of_topic(claims.topic, claims.rights)]),
        client: claims.client,
        expires: UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Key;

    const RIGHTS: &[Right] = &[Right::Read];

    fn keys(secrets: &[u8]) -> Keys {
        let mut keys = secrets.iter().map(|byte| Key::new([*byte; 32]));
        Keys::new(keys.next().unwrap(), keys)
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed() {
        let keys = keys(&[1]);
        let token = sign(&keys, "rooms/a", RIGHTS, 7, SystemTime::now());
        assert!(verify(&keys, token.as_bytes()).is_some());
        for at in 0..token.len() {
            for other in [b'A', b'B', b'.', 0, 0xff] {
                let mut changed = token.clone().into_bytes();
                if std::mem::replace(&mut changed[at], other) != other {
                    assert!(verify(&keys, &changed).is_none(), "byte {at} as {other}");
                }
            }
            assert!(verify(&keys, &token.as_bytes()[..at]).is_none());
        }
        assert!(verify(&keys, format!("{token}A").as_bytes()).is_none());
    }

    #[test]
    fn tokens_of_a_key_are_good_until_it_is_taken_out() {
        let token = sign(&keys(&[1]), "a", RIGHTS, 7, SystemTime::now());
        assert!(verify(&keys(&[2, 1]), token.as_bytes()).is_some());
        assert!(verify(&keys(&[2]), token.as_bytes()).is_none());
    }
}
