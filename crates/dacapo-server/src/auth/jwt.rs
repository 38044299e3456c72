//! JSON Web Tokens: what somebody else has signed, with a key that is known here.
//!
//! Each key stands for one algorithm. What a token says of its own algorithm only ever makes it invalid.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation, decode, decode_header};
use serde::Deserialize;

use super::rights::Grants;
use super::{AuthConfig, AuthError};

/// HS256 is as strong as its secret: shorter ones can be found by trying (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Keys, each with what a token of it has to satisfy.
#[derive(Debug)]
pub(super) struct Jwt {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    /// The `kid` of tokens; those of any, where it has none.
    id: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

/// The claims that are looked at beside those of time, issuer and audience.
#[derive(Deserialize)]
struct Claims {
    exp: u64,
    sub: Option<String>,
    dacapo: Grants,
}

/// A token that is good.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) grants: Grants,
    pub(super) subject: Option<String>,
    pub(super) expires: SystemTime,
}

/// Why a token is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// No key here has signed it, or it is no token at all.
    Unknown,
    /// It was good until some time ago.
    Expired,
    /// It is to be good from some time on.
    TooEarly,
    /// It was made for somebody else, or by somebody else.
    Elsewhere,
    /// It does not say what may be done with it.
    NoGrants,
}

impl Jwt {
    /// A JSON Web Key Set, or the public keys of a PEM file.
    pub(super) fn load(path: &Path, config: &AuthConfig) -> Result<Self, AuthError> {
        let text = fs::read_to_string(path).map_err(|source| AuthError::Io {
            path: path.to_owned(),
            source,
        })?;
        let keys = match text.trim_start().starts_with('{') {
            true => of_set(&text),
            false => of_pem(&text),
        };
        let keys = keys.map_err(|what| AuthError::JwtKeys {
            path: path.to_owned(),
            what,
        })?;
        let keys = keys.into_iter().map(|(id, algorithm, key)| Key {
            id,
            key,
            validation: validation(algorithm, config),
        });
        Ok(Self {
            keys: keys.collect(),
        })
    }

    pub(super) fn verify(&self, token: &[u8]) -> Result<Verified, Invalid> {
        let header = decode_header(token).map_err(|_| Invalid::Unknown)?;
        let mut invalid = Invalid::Unknown;
        for key in &self.keys {
            let is_other = header.kid.is_some() && key.id.is_some() && header.kid != key.id;
            if is_other {
                continue;
            }
            match decode::<Claims>(token, &key.key, &key.validation) {
                Ok(verified) => {
                    let claims = verified.claims;
                    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp));
                    return Ok(Verified {
                        grants: claims.dacapo,
                        subject: claims.sub,
                        // Beyond what the clock can show is never.
                        expires: expires.ok_or(Invalid::NoGrants)?,
                    });
                }
                // Those of an invalid signature, and of another algorithm, may be of another key.
                Err(error) => match error.kind() {
                    ErrorKind::ExpiredSignature => invalid = Invalid::Expired,
                    ErrorKind::ImmatureSignature => invalid = Invalid::TooEarly,
                    ErrorKind::InvalidAudience | ErrorKind::InvalidIssuer => {
                        invalid = Invalid::Elsewhere;
                    }
                    ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => {
                        invalid = Invalid::NoGrants;
                    }
                    _ => {}
                },
            }
        }
        Err(invalid)
    }
}

/// The algorithm is the key's, and `exp` has to be there.
fn validation(algorithm: Algorithm, config: &AuthConfig) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = config.jwt_leeway.as_secs();
    validation.validate_nbf = true;
    if let Some(audience) = &config.jwt_audience {
        validation.set_audience(&[audience]);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    if let Some(issuer) = &config.jwt_issuer {
        validation.set_issuer(&[issuer]);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    validation
}

type Found = (Option<String>, Algorithm, DecodingKey);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

/// Fails for a key that could not be used: what is left out in silence is missed later.
fn of_set(text: &str) -> Result<Vec<Found>, String> {
    let set: Set = serde_json::from_str(text)
        .map_err(|error| format!("it is no JSON Web Key Set: line {}", error.line()))?;
    let keys = set.keys.iter().enumerate();
    let keys = keys
        .map(|(index, jwk)| of_jwk(jwk).map_err(|what| format!("key {} of it {what}", index + 1)));
    let keys: Vec<Found> = keys.collect::<Result<_, _>>()?;
    match keys.is_empty() {
        true => Err("it holds no key".to_owned()),
        false => Ok(keys),
    }
}

fn of_jwk(jwk: &Jwk) -> Result<Found, String> {
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return Err("is of no kind that is taken: oct, RSA, or OKP with Ed25519".to_owned()),
    };
    if jwk.common.key_algorithm.is_some_and(|other| other != name) {
        return Err(format!("names another algorithm than {name}"));
    }
    let used = &jwk.common.public_key_use;
    if used
        .as_ref()
        .is_some_and(|used| *used != PublicKeyUse::Signature)
    {
        return Err("is not for signatures".to_owned());
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|_| "cannot be read".to_owned())?;
    if let (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) = (algorithm, key.kind())
        && secret.len() < SECRET_BYTES_MIN
    {
        return Err(format!(
            "is a secret of {} bytes, and has to have {SECRET_BYTES_MIN}",
            secret.len()
        ));
    }
    Ok((jwk.common.key_id.clone(), algorithm, key))
}

const PEM_END: &str = "-----END ";

fn of_pem(text: &str) -> Result<Vec<Found>, String> {
    let mut keys = Vec::new();
    let mut part = String::new();
    for line in text.lines() {
        part.push_str(line);
        part.push('\n');
        if line.starts_with(PEM_END) {
            // Of a private key there is nothing to verify with, and it should not be here.
            let is_public = line.contains("PUBLIC KEY");
            let rsa = DecodingKey::from_rsa_pem(part.as_bytes());
            let key = match (is_public, rsa, DecodingKey::from_ed_pem(part.as_bytes())) {
                (true, Ok(key), _) => (None, Algorithm::RS256, key),
                (true, Err(_), Ok(key)) => (None, Algorithm::EdDSA, key),
                _ => {
                    return Err(format!(
                        "key {} of it is no public key of RSA or Ed25519",
                        keys.len() + 1
                    ));
                }
            };
            keys.push(key);
            part.clear();
        }
    }
    match keys.is_empty() {
        true => Err("it is neither a JSON Web Key Set nor a PEM file of public keys".to_owned()),
        false => Ok(keys),
    }
}
