//! Who may do what: bearer tokens, from a file that can be changed while the server runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::{fmt, fs, io};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::problem::Problem;
use crate::streams;

/// The tokens of a file: one a line, with what it may do, and with which streams.
///
/// A line is `TOKEN RIGHTS [PREFIX]`, with spaces or tabs between. Rights are `read`, `append` (which
/// creates and closes as well) and `admin` (which is all, deleting too), or several with commas
/// between. A prefix limits them to streams whose names begin with it. Empty lines, and those that
/// begin with `#`, are left out.
///
/// ```
/// use dacapo_server::auth::Tokens;
///
/// let dir = tempfile::tempdir()?;
/// let file = dir.path().join("tokens");
/// std::fs::write(&file, "5ca1ab1e read,append rooms/\n0ddba11 admin\n")?;
/// let tokens = Tokens::load(&file)?;
/// let app = tokens.protect(axum::Router::new());
/// # let _: axum::Router = app;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tokens {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    grants: RwLock<Vec<Grant>>,
}

/// What a token is good for.
#[derive(PartialEq, Eq)]
struct Grant {
    token: String,
    rights: Rights,
    prefix: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rights {
    read: bool,
    append: bool,
    admin: bool,
}

/// What somebody wants to do with a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Get its records.
    Read,
    /// Append to it.
    Append,
    /// Everything, deleting too.
    Admin,
}

/// Why a token does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no token, or it is not known here.
    #[error("send a token that is known here: `Authorization: Bearer TOKEN`")]
    Unknown,
    /// It does not reach so far.
    #[error("the token does not allow this, or not with this topic")]
    Forbidden,
}

/// A file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// It cannot be read.
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
}

impl Tokens {
    /// Reads a file of tokens.
    ///
    /// # Errors
    /// See [`TokensError`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TokensError> {
        let path = path.as_ref().to_owned();
        let grants = RwLock::new(read(&path)?);
        Ok(Self {
            inner: Arc::new(Inner { path, grants }),
        })
    }

    /// Reads the file again: from now on its tokens count. Responses on their way are finished.
    ///
    /// # Errors
    /// See [`TokensError`]; the tokens are those of before then.
    pub fn reload(&self) -> Result<(), TokensError> {
        let grants = read(&self.inner.path)?;
        *self
            .inner
            .grants
            .write()
            .unwrap_or_else(PoisonError::into_inner) = grants;
        Ok(())
    }

    /// Lets nobody at `router` who has no token for what is asked: 401 without a token that is known,
    /// 403 where it does not reach so far. Of a path that is no stream's, a token with the right to
    /// read all streams may do anything.
    pub fn protect(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), check))
    }

    /// Whether a token allows this with a topic; with an empty one, whether it does with all topics.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn check(&self, token: Option<&[u8]>, right: Right, topic: &str) -> Result<(), Denied> {
        let grants = self.grants();
        let grant = find(&grants, token).ok_or(Denied::Unknown)?;
        match grant.allows(right, topic) {
            true => Ok(()),
            false => Err(Denied::Forbidden),
        }
    }

    /// Whether a token is one of these, whatever it is good for.
    #[must_use]
    pub fn knows(&self, token: Option<&[u8]>) -> bool {
        find(&self.grants(), token).is_some()
    }

    fn grants(&self) -> RwLockReadGuard<'_, Vec<Grant>> {
        let grants = self.inner.grants.read();
        grants.unwrap_or_else(PoisonError::into_inner)
    }

    fn check_request(&self, request: &Request) -> Result<(), Problem> {
        // What a browser asks before it sends a token.
        if request.method() == Method::OPTIONS {
            return Ok(());
        }
        let grants = self.grants();
        let Some(grant) = find(&grants, bearer(request.headers())) else {
            let challenge = HeaderValue::from_static("Bearer realm=\"dacapo\"");
            let problem = Problem::new(StatusCode::UNAUTHORIZED, Denied::Unknown.to_string());
            return Err(problem.with(WWW_AUTHENTICATE, challenge));
        };
        let right = match *request.method() {
            Method::GET | Method::HEAD => Right::Read,
            Method::PUT | Method::POST => Right::Append,
            _ => Right::Admin,
        };
        let is_granted = match streams::name_of(request.uri().path()) {
            Some(name) => grant.allows(right, &name),
            None => grant.allows(Right::Read, ""),
        };
        // A fork shows what its source holds.
        let source = request.headers().get("stream-forked-from");
        let may_read_source = source.is_none_or(|source| {
            let name = source.to_str().ok().and_then(streams::name_of);
            name.is_some_and(|name| grant.allows(Right::Read, &name))
        });
        match is_granted && may_read_source {
            true => Ok(()),
            false => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "the token does not allow this, or not with this stream",
            )),
        }
    }
}

async fn check(State(tokens): State<Tokens>, request: Request, next: Next) -> Response {
    match tokens.check_request(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// What a token is good for, if it is known.
fn find<'a>(grants: &'a [Grant], token: Option<&[u8]>) -> Option<&'a Grant> {
    let token = token?;
    let mut found = None;
    for grant in grants {
        // All of them, whichever it is.
        if bool::from(grant.token.as_bytes().ct_eq(token)) {
            found = Some(grant);
        }
    }
    found
}

/// The token in a request's headers.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

impl Grant {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (token, rights) = (words.next()?, words.next()?);
        let prefix = words.next().unwrap_or_default();
        if words.next().is_some() {
            return None;
        }
        let mut allowed = Rights::default();
        for right in rights.split(',') {
            match right {
                "read" => allowed.read = true,
                "append" => allowed.append = true,
                "admin" => allowed.admin = true,
                _ => return None,
            }
        }
        Some(Self {
            token: token.to_owned(),
            rights: allowed,
            prefix: prefix.to_owned(),
        })
    }

    fn allows(&self, right: Right, name: &str) -> bool {
        let allowed = match right {
            Right::Read => self.rights.read,
            Right::Append => self.rights.append,
            Right::Admin => false,
        };
        (allowed || self.rights.admin) && name.starts_with(&self.prefix)
    }
}

/// Without the token.
impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("rights", &self.rights)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<Grant>, TokensError> {
    let text = fs::read_to_string(path).map_err(|source| TokensError::Io {
        path: path.to_owned(),
        source,
    })?;
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let grants = lines.map(|(number, line)| {
        Grant::parse(line).ok_or_else(|| TokensError::Line {
            path: path.to_owned(),
            line: number + 1,
        })
    });
    let grants: Vec<Grant> = grants.collect::<Result<_, _>>()?;
    match grants.is_empty() {
        true => Err(TokensError::Empty {
            path: path.to_owned(),
        }),
        false => Ok(grants),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::HeaderName;

    use super::*;

    const FILE: &str = "# who may\nr3ad read rooms/\n\nwr1te\tread,append rooms/\na11 admin\n";

    fn status(method: Method, path: &str, headers: &[(HeaderName, &str)]) -> Option<StatusCode> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        fs::write(&file, FILE).unwrap();
        let tokens = Tokens::load(file).unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let checked = tokens.check_request(&request.body(Body::empty()).unwrap());
        checked
            .err()
            .map(|problem| problem.into_response().status())
    }

    fn of(token: &str, method: Method, path: &str) -> Option<StatusCode> {
        status(method, path, &[(AUTHORIZATION, &format!("Bearer {token}"))])
    }

    #[test]
    fn nobody_is_let_in_without_a_token_that_is_known() {
        let path = "/v1/stream/rooms/a";
        assert_eq!(
            status(Method::GET, path, &[]),
            Some(StatusCode::UNAUTHORIZED)
        );
        for token in ["", "r3a", "r3add", "# who may"] {
            assert_eq!(
                of(token, Method::GET, path),
                Some(StatusCode::UNAUTHORIZED),
                "{token}"
            );
        }
        let basic = [(AUTHORIZATION, "Basic r3ad")];
        assert_eq!(
            status(Method::GET, path, &basic),
            Some(StatusCode::UNAUTHORIZED)
        );
    }

    #[test]
    fn a_token_allows_what_stands_behind_it_and_no_more() {
        let forbidden = Some(StatusCode::FORBIDDEN);
        let (room, other) = ("/v1/stream/rooms/a", "/v1/stream/users/a");
        assert_eq!(of("r3ad", Method::GET, room), None);
        assert_eq!(of("r3ad", Method::POST, room), forbidden);
        assert_eq!(of("r3ad", Method::GET, other), forbidden);
        assert_eq!(of("r3ad", Method::GET, "/metrics"), forbidden);
        assert_eq!(of("wr1te", Method::PUT, room), None);
        assert_eq!(of("wr1te", Method::PUT, "/v1/stream/rooms%2Fa"), None);
        assert_eq!(of("wr1te", Method::DELETE, room), forbidden);
        assert_eq!(of("a11", Method::DELETE, other), None);
        assert_eq!(of("a11", Method::GET, "/metrics"), None);
    }

    #[test]
    fn a_fork_needs_the_right_to_read_its_source() {
        let bearer = (AUTHORIZATION, "Bearer wr1te");
        let from = HeaderName::from_static("stream-forked-from");
        let fork = |source| {
            let headers = [bearer.clone(), (from.clone(), source)];
            status(Method::PUT, "/v1/stream/rooms/mine", &headers)
        };
        assert_eq!(fork("/v1/stream/rooms/a"), None);
        assert_eq!(fork("/v1/stream/users/a"), Some(StatusCode::FORBIDDEN));
        assert_eq!(fork("rooms/a"), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn a_file_that_cannot_be_used_changes_nothing_and_is_not_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        fs::write(&file, FILE).unwrap();
        let tokens = Tokens::load(&file).unwrap();
        fs::write(&file, "n3w read\ns3cret raed\n").unwrap();

        let error = tokens.reload().unwrap_err();

        assert!(matches!(error, TokensError::Line { line: 2, .. }));
        assert!(!format!("{error} {error:?} {tokens:?}").contains("s3cret"));
        assert_eq!(
            *tokens.inner.grants.read().unwrap(),
            Tokens::load_text(FILE)
        );
        fs::write(&file, "# none\n").unwrap();
        assert!(matches!(tokens.reload(), Err(TokensError::Empty { .. })));
        fs::write(&file, "n3w read\n").unwrap();
        tokens.reload().unwrap();
        assert_eq!(tokens.inner.grants.read().unwrap().len(), 1);
    }

    impl Tokens {
        fn load_text(text: &str) -> Vec<Grant> {
            text.lines()
                .filter_map(Grant::parse)
                .filter(|grant| grant.token != "#")
                .collect()
        }
    }
}
