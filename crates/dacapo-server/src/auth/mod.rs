//! Who may do what: tokens of a file, JSON Web Tokens, and signed tokens for URLs, in one place for all
//! faces.
//!
//! A request says its token as `Authorization: Bearer TOKEN`; one for a URL as `?access_token=TOKEN`,
//! because an `EventSource` and a WebSocket of a browser can send no header. What the tokens look like,
//! and a transcript: docs/security.md.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

mod issue;
mod jwt;
mod rights;
mod tokens;
mod url;

pub use rights::{Grant, Grants, Right};

use crate::keys::Keys;
pub use crate::keys::KeysError;
use crate::problem::Problem;
use jwt::{Invalid, Jwt};
use tokens::Tokens;

/// The parameter of a query that a token stands in.
pub(crate) const ACCESS_TOKEN: &str = "access_token";

/// Where the tokens and keys are, and what is asked of them. Nothing, by default.
///
/// ```
/// use dacapo_server::auth::AuthConfig;
///
/// let config: AuthConfig = serde_json::from_str(
///     r#"{"jwt_keys_file": "keys.json", "jwt_audience": "dacapo", "url_token_max": "5m"}"#,
/// )?;
/// assert_eq!(config.jwt_leeway.as_secs(), 30);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// A file of tokens, one a line: `TOKEN RIGHTS [PREFIX]`, with spaces or tabs between. Rights are
    /// `read`, `append` (which creates and closes as well) and `admin` (which is all, deleting too), or
    /// several with commas between. A prefix limits them to topics whose names begin with it. Several
    /// lines of one token add up; empty lines, and those that begin with `#`, are left out.
    pub token_file: Option<PathBuf>,
    /// The keys of JSON Web Tokens: a JSON Web Key Set with keys of HS256 (`oct`, 32 bytes at least),
    /// RS256 (`RSA`) or EdDSA (`OKP`, Ed25519), or a PEM file of public keys of the latter two.
    pub jwt_keys_file: Option<PathBuf>,
    /// Whom they have to be made for, as `aud`. Without it, none that names anybody is taken.
    pub jwt_audience: Option<String>,
    /// Who has to have made them, as `iss`. Anybody who has a key, by default.
    pub jwt_issuer: Option<String>,
    /// How far the clock of who made them may be from ours; 30 seconds by default, and whole seconds.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub jwt_leeway: Duration,
    /// The keys of tokens for URLs, one a line as 64 hexadecimal digits: the first signs, all verify. Made
    /// if it is not there. `None`: there are no such tokens.
    pub url_keys_file: Option<PathBuf>,
    /// How long such a token may be good; 1 hour by default.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub url_token_max: Duration,
    /// Whether tokens of the file and JSON Web Tokens may stand in a URL, too; not by default: they are good
    /// for longer, and a URL ends up in the logs of proxies.
    pub tokens_in_query: bool,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            token_file: None,
            jwt_keys_file: None,
            jwt_audience: None,
            jwt_issuer: None,
            jwt_leeway: Duration::from_secs(30),
            url_keys_file: None,
            url_token_max: Duration::from_secs(3600),
            tokens_in_query: false,
        }
    }
}

impl AuthConfig {
    /// Whether it names who may come in; everybody may, otherwise.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.token_file.is_none() && self.jwt_keys_file.is_none()
    }
}

/// Tokens or keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line is not as it has to be. The line itself is not shown: it may be a token.
    #[error("line {line} of {} is no `TOKEN RIGHTS [PREFIX]`; rights are read, append and admin, with commas between", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, counted from 1.
        line: usize,
    },
    /// It holds no token, so that nobody could do anything.
    #[error("{} holds no token", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The keys of JSON Web Tokens cannot be used.
    #[error("the keys of {} cannot be used: {what}", path.display())]
    JwtKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. No part of a key is shown.
        what: String,
    },
    /// The keys of tokens for URLs cannot be used.
    #[error(transparent)]
    UrlKeys(#[from] KeysError),
}

/// Knows whom a token belongs to, and what it allows; cheap to clone.
///
/// ```
/// use axum::http::HeaderMap;
/// use dacapo_server::auth::{AuthConfig, Authorizer, Right};
///
/// let dir = tempfile::tempdir()?;
/// let token_file = dir.path().join("tokens");
/// std::fs::write(&token_file, "5ca1ab1e read,append rooms/\n0ddba11 admin\n")?;
/// let auth = Authorizer::load(AuthConfig {
///     token_file: Some(token_file),
///     ..AuthConfig::default()
/// })?;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("authorization", "Bearer 5ca1ab1e".parse()?);
/// let somebody = auth.identify(&headers, None)?;
/// assert!(somebody.may(Right::Append, "rooms/a").is_ok());
/// assert!(somebody.may(Right::Append, "users/a").is_err());
/// assert!(auth.identify(&HeaderMap::new(), None).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Authorizer {
    inner: Arc<Inner>,
}

struct Inner {
    config: AuthConfig,
    /// One that stands in no file.
    own: Option<(String, Grants)>,
    ring: RwLock<Arc<Ring>>,
}

/// All that tokens are checked with.
#[derive(Default)]
struct Ring {
    tokens: Tokens,
    own: Tokens,
    jwt: Option<Jwt>,
    url: Option<Keys>,
}

/// Somebody whose token is good.
#[derive(Clone, Debug)]
pub struct Identity {
    grants: Grants,
    client: u64,
    expires: Option<SystemTime>,
    /// By a token for a URL, which yields no further one.
    is_by_url: bool,
}

/// Why somebody is not let in, or may not do this. As a response, 401 or 403 with a JSON problem document
/// and `WWW-Authenticate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// There is no token.
    #[error("send a token: `Authorization: Bearer TOKEN`")]
    Missing,
    /// It is none that is known here.
    #[error("the token is not known here")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time is still to come.
    #[error("the token is not good yet")]
    TooEarly,
    /// It is good somewhere else.
    #[error("the token is not for this server, or not by its issuer")]
    Elsewhere,
    /// It does not say what it allows, or until when.
    #[error(
        "the token has no `dacapo` claim that can be read, or lacks `exp` or another claim that is asked for"
    )]
    NoGrants,
    /// It does not reach so far.
    #[error("the token does not allow this, or not with this topic")]
    Forbidden,
}

impl Authorizer {
    /// Reads the files of a configuration, and makes that of the keys for URLs if it is not there.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn load(config: AuthConfig) -> Result<Self, AuthError> {
        Self::new(config, None)
    }

    /// Lets in who says this one token, also in a URL.
    pub fn of_token(token: impl Into<String>, grants: Grants) -> Self {
        let config = AuthConfig {
            tokens_in_query: true,
            ..AuthConfig::default()
        };
        Self::new(config, Some((token.into(), grants))).expect("there are no files to be read")
    }

    fn new(config: AuthConfig, own: Option<(String, Grants)>) -> Result<Self, AuthError> {
        let inner = Inner {
            config,
            own,
            ring: RwLock::default(),
        };
        let authorizer = Self {
            inner: Arc::new(inner),
        };
        authorizer.reload()?;
        Ok(authorizer)
    }

    /// Reads all files again: from now on their tokens and keys count. Responses on their way are finished.
    ///
    /// # Errors
    /// See [`AuthError`]; all is as it was then.
    pub fn reload(&self) -> Result<(), AuthError> {
        let Inner { config, own, ring } = &*self.inner;
        let tokens = config.token_file.as_deref().map(Tokens::load).transpose()?;
        let jwt = config.jwt_keys_file.as_deref();
        let jwt = jwt.map(|path| Jwt::load(path, config)).transpose()?;
        let url = config.url_keys_file.as_deref();
        let url = url.map(Keys::load_or_create).transpose()?;
        let own = own.as_ref();
        let new = Ring {
            tokens: tokens.unwrap_or_default(),
            own: own.map_or_else(Tokens::default, |(token, grants)| {
                Tokens::of(token, grants.clone())
            }),
            jwt,
            url,
        };
        *ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    fn ring(&self) -> Arc<Ring> {
        let ring = self.inner.ring.read();
        Arc::clone(&ring.unwrap_or_else(PoisonError::into_inner))
    }

    /// Whose request this is, by its headers and by the query of its URL. The header counts, if it is there.
    ///
    /// # Errors
    /// See [`Denied`]; never [`Denied::Forbidden`].
    pub fn identify(&self, headers: &HeaderMap, query: Option<&str>) -> Result<Identity, Denied> {
        if headers.contains_key(AUTHORIZATION) {
            return self.identify_token(bearer(headers).ok_or(Denied::Missing)?);
        }
        let said = query.and_then(access_token).ok_or(Denied::Missing)?;
        match self.takes_in_query(&said) {
            true => self.identify_token(&said),
            false => Err(Denied::Unknown),
        }
    }

    /// Whether a token may stand in a URL: one that is for it, or any, if the configuration says so.
    #[must_use]
    pub fn takes_in_query(&self, token: &[u8]) -> bool {
        self.inner.config.tokens_in_query || url::is_one(token)
    }

    /// Whose token this is, wherever it came from.
    ///
    /// # Errors
    /// See [`Denied`]; never [`Denied::Forbidden`].
    pub fn identify_token(&self, token: &[u8]) -> Result<Identity, Denied> {
        let ring = self.ring();
        let hash = tokens::hash(token);
        let of = |grants, client| Identity {
            grants,
            client,
            expires: None,
            is_by_url: false,
        };
        if let Some(grants) = ring.tokens.find(&hash).or(ring.own.find(&hash)) {
            return Ok(of(grants.clone(), client_of(&hash)));
        }
        if url::is_one(token) {
            let keys = ring.url.as_ref().ok_or(Denied::Unknown)?;
            let verified = url::verify(keys, token).ok_or(Denied::Unknown)?;
            if verified.expires <= SystemTime::now() {
                return Err(Denied::Expired);
            }
            return Ok(Identity {
                expires: Some(verified.expires),
                is_by_url: true,
                ..of(verified.grants, verified.client)
            });
        }
        let jwt = ring.jwt.as_ref().ok_or(Denied::Unknown)?;
        let verified = jwt.verify(token).map_err(|invalid| match invalid {
            Invalid::Unknown => Denied::Unknown,
            Invalid::Expired => Denied::Expired,
            Invalid::TooEarly => Denied::TooEarly,
            Invalid::Elsewhere => Denied::Elsewhere,
            Invalid::NoGrants => Denied::NoGrants,
        })?;
        // All tokens of one who has a name are one client.
        let client = verified.subject.map(|name| tokens::hash(name.as_bytes()));
        Ok(Identity {
            expires: Some(verified.expires),
            ..of(verified.grants, client_of(&client.unwrap_or(hash)))
        })
    }

    /// Whether a token is known here and good, whatever it allows.
    #[must_use]
    pub fn knows(&self, token: Option<&[u8]>) -> bool {
        token.is_some_and(|token| self.identify_token(token).is_ok())
    }

    /// Whether a token allows this with `topic`; with an empty one, whether it does with all topics.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn check(&self, token: Option<&[u8]>, right: Right, topic: &str) -> Result<(), Denied> {
        let token = token.ok_or(Denied::Missing)?;
        self.identify_token(token)?.may(right, topic)
    }

    /// Whose request this is, as was found out when it came in, or finds it out.
    pub(crate) fn identify_parts(&self, parts: &Parts) -> Result<Identity, Denied> {
        match parts.extensions.get::<Known>() {
            Some(known) if Arc::ptr_eq(&known.by.inner, &self.inner) => known.identity.clone(),
            _ => self.identify(&parts.headers, parts.uri.query()),
        }
    }

    /// As [`identify_parts`](Self::identify_parts), and keeps it in the request.
    pub(crate) fn identify_request(&self, request: &mut Request) -> Result<Identity, Denied> {
        let identity = match request.extensions().get::<Known>() {
            Some(known) if Arc::ptr_eq(&known.by.inner, &self.inner) => {
                return known.identity.clone();
            }
            _ => self.identify(request.headers(), request.uri().query()),
        };
        request.extensions_mut().insert(Known {
            by: self.clone(),
            identity: identity.clone(),
        });
        identity
    }

    /// Signs a token for a URL, good for `topic` and these rights until then. `None` where there are no keys
    /// for it, or the topic has no name.
    ///
    /// Whether somebody is to have it is the caller's to know; [`Authorizer::router`] gives it to those who
    /// have the rights themselves.
    #[must_use]
    pub fn sign_url_token(
        &self,
        topic: &str,
        rights: &[Right],
        expires: SystemTime,
    ) -> Option<String> {
        self.sign(
            topic,
            rights,
            client_of(&tokens::hash(topic.as_bytes())),
            expires,
        )
    }

    fn sign(
        &self,
        topic: &str,
        rights: &[Right],
        client: u64,
        expires: SystemTime,
    ) -> Option<String> {
        let ring = self.ring();
        let keys = ring.url.as_ref().filter(|_| !topic.is_empty())?;
        Some(url::sign(keys, topic, rights, client, expires))
    }

    /// Lets nobody at `router` who may not do this with all topics that begin with `prefix`: 401 or 403.
    pub fn require(&self, router: Router, right: Right, prefix: &'static str) -> Router {
        let needed = Needed {
            by: self.clone(),
            right,
            prefix,
        };
        router.layer(middleware::from_fn_with_state(needed, check))
    }
}

#[derive(Clone)]
struct Needed {
    by: Authorizer,
    right: Right,
    prefix: &'static str,
}

async fn check(State(needed): State<Needed>, mut request: Request, next: Next) -> Response {
    let identity = needed.by.identify_request(&mut request);
    match identity.and_then(|identity| identity.may(needed.right, needed.prefix)) {
        Ok(()) => next.run(request).await,
        Err(denied) => denied.into_response(),
    }
}

/// In a request: whose it is.
#[derive(Clone)]
struct Known {
    by: Authorizer,
    identity: Result<Identity, Denied>,
}

impl Identity {
    /// Whether this is allowed with `topic`, or, where it is empty, with all topics.
    ///
    /// # Errors
    /// [`Denied::Forbidden`]; [`Denied::Expired`] where the token was good, and no longer is.
    pub fn may(&self, right: Right, topic: &str) -> Result<(), Denied> {
        if self.expires.is_some_and(|at| at <= SystemTime::now()) {
            return Err(Denied::Expired);
        }
        match self.grants.allow(right, topic) {
            true => Ok(()),
            false => Err(Denied::Forbidden),
        }
    }

    /// When its token expires, if it does.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// Waits until its token has expired, which may be never.
    pub(crate) async fn expired(self) {
        let Some(at) = self.expires else {
            return std::future::pending().await;
        };
        // The clock may be set meanwhile; a wait has a length.
        while let Ok(rest) = at.duration_since(SystemTime::now()) {
            tokio::time::sleep(rest.min(Duration::from_secs(60))).await;
        }
    }

    /// A number of its own, by which how often it asks is counted.
    pub(crate) fn client(&self) -> u64 {
        self.client
    }
}

fn client_of(hash: &tokens::Hash) -> u64 {
    let (first, _) = hash.split_first_chunk().expect("a hash of 32 bytes");
    u64::from_le_bytes(*first)
}

/// The token of a request's `Authorization: Bearer TOKEN`.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?;
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

fn access_token(query: &str) -> Option<Vec<u8>> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, token) = pairs.find(|(name, _)| *name == ACCESS_TOKEN)?;
    let token: Vec<u8> = percent_decode_str(token).collect();
    (!token.is_empty()).then_some(token)
}

impl Denied {
    /// What it is as a status: 401, which a better token would change, or 403.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Forbidden => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// The value of `WWW-Authenticate`, as RFC 6750 has it.
    pub(crate) fn challenge(self) -> HeaderValue {
        let error = match self {
            Self::Missing => return HeaderValue::from_static("Bearer realm=\"dacapo\""),
            Self::Forbidden => "insufficient_scope",
            _ => "invalid_token",
        };
        let said = self.to_string().replace('"', "'");
        let challenge =
            format!("Bearer realm=\"dacapo\", error=\"{error}\", error_description=\"{said}\"");
        HeaderValue::try_from(challenge).expect("words of ASCII")
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        Self::new(denied.status(), denied.to_string()).with(WWW_AUTHENTICATE, denied.challenge())
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

/// Without any token or key.
impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer")
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::try_from(authorization).unwrap();
        headers.insert(AUTHORIZATION, value);
        headers
    }

    #[test]
    fn a_token_is_said_by_header_or_by_query_and_the_header_counts() {
        let auth = Authorizer::of_token("tea", Grants::all());
        let none = HeaderMap::new();
        for good in ["Bearer tea", "bearer tea", "BEARER  tea"] {
            assert!(auth.identify(&headers(good), None).is_ok(), "{good}");
        }
        for good in ["access_token=tea", "a=b&access_token=te%61&c"] {
            assert!(auth.identify(&none, Some(good)).is_ok(), "{good}");
        }
        for (wrong, why) in [
            ("Bearer te", Denied::Unknown),
            ("Bearer teas", Denied::Unknown),
            ("Bearer ", Denied::Missing),
            ("Basic tea", Denied::Missing),
            ("tea", Denied::Missing),
            ("", Denied::Missing),
        ] {
            let denied = auth.identify(&headers(wrong), Some("access_token=tea"));
            assert_eq!(denied.unwrap_err(), why, "{wrong:?}");
        }
        for wrong in ["", "access_token", "access_token=", "xaccess_token=tea"] {
            let denied = auth.identify(&none, Some(wrong)).unwrap_err();
            assert_eq!(denied, Denied::Missing, "{wrong}");
        }
        let denied = auth.identify(&none, Some("access_token=milk"));
        assert_eq!(denied.unwrap_err(), Denied::Unknown);
    }

    #[test]
    fn what_is_read_again_counts_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("tokens");
        std::fs::write(&token_file, "0ld read\n").unwrap();
        let auth = Authorizer::load(AuthConfig {
            token_file: Some(token_file.clone()),
            url_keys_file: Some(dir.path().join("keys")),
            ..AuthConfig::default()
        })
        .unwrap();
        let soon = SystemTime::now() + Duration::from_secs(60);
        let url = auth.sign_url_token("a", &[Right::Read], soon).unwrap();
        let is_known = |token: &str| auth.identify_token(token.as_bytes()).is_ok();

        std::fs::write(&token_file, "n3w read\n").unwrap();
        std::fs::write(dir.path().join("keys"), "s3cret\n").unwrap();
        let error = auth.reload().unwrap_err();

        assert!(!format!("{error} {error:?} {auth:?}").contains("s3cret"));
        assert!(is_known("0ld") && is_known(&url) && !is_known("n3w"));

        std::fs::remove_file(dir.path().join("keys")).unwrap();
        auth.reload().unwrap();

        assert!(!is_known("0ld") && !is_known(&url) && is_known("n3w"));
    }

    #[test]
    fn no_token_is_shown() {
        let auth = Authorizer::of_token("tea", Grants::all());
        assert!(!format!("{auth:?}").contains("tea"));
    }

    #[test]
    fn only_a_token_for_urls_may_stand_in_one() {
        let dir = tempfile::tempdir().unwrap();
        let token_file = dir.path().join("tokens");
        std::fs::write(&token_file, "tea admin\n").unwrap();
        let auth = Authorizer::load(AuthConfig {
            token_file: Some(token_file),
            url_keys_file: Some(dir.path().join("keys")),
            ..AuthConfig::default()
        })
        .unwrap();
        let none = HeaderMap::new();
        let denied = auth.identify(&none, Some("access_token=tea"));
        assert_eq!(denied.unwrap_err(), Denied::Unknown);

        let soon = SystemTime::now() + Duration::from_secs(60);
        let token = auth.sign_url_token("a", &[Right::Read], soon).unwrap();
        let somebody = auth.identify(&none, Some(&format!("access_token={token}")));
        let somebody = somebody.unwrap();
        assert_eq!(somebody.may(Right::Read, "a"), Ok(()));
        for (right, topic) in [(Right::Append, "a"), (Right::Read, "ab"), (Right::Read, "")] {
            assert_eq!(somebody.may(right, topic), Err(Denied::Forbidden));
        }

        let over = SystemTime::now() - Duration::from_secs(1);
        let token = auth.sign_url_token("a", &[Right::Read], over).unwrap();
        let denied = auth.identify_token(token.as_bytes());
        assert_eq!(denied.unwrap_err(), Denied::Expired);
        assert!(auth.sign_url_token("", &[Right::Read], soon).is_none());
    }
}
