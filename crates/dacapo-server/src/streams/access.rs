//! Which right a request needs, with which stream.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{headers, name_of};
use crate::auth::{Authorizer, Denied, Right};

/// Lets nobody in who may not do this.
pub(crate) async fn check(
    State(auth): State<Authorizer>,
    mut request: Request,
    next: Next,
) -> Response {
    match may(&auth, &mut request) {
        Ok(()) => next.run(request).await,
        Err(denied) => denied.into_response(),
    }
}

fn may(auth: &Authorizer, request: &mut Request) -> Result<(), Denied> {
    let right = match *request.method() {
        Method::GET | Method::HEAD => Right::Read,
        Method::PUT | Method::POST => Right::Append,
        // What a browser asks before it sends a token; it changes nothing, and tells nothing.
        Method::OPTIONS => return Ok(()),
        _ => Right::Admin,
    };
    let identity = auth.identify_request(request)?;
    // A response that goes on ends with the token.
    request.extensions_mut().insert(identity.clone());
    let name = name_of(request.uri().path()).ok_or(Denied::Forbidden)?;
    identity.may(right, &name)?;
    // A fork shows what its source holds.
    if let Some(source) = request.headers().get(headers::FORKED_FROM) {
        let source = source.to_str().ok().and_then(name_of);
        identity.may(Right::Read, &source.ok_or(Denied::Forbidden)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::AUTHORIZATION;

    use super::*;
    use crate::auth::{Grant, Grants};

    const READ: &[Right] = &[Right::Read];
    const APPEND: &[Right] = &[Right::Read, Right::Append];
    const ADMIN: &[Right] = &[Right::Admin];

    /// Of a token with these rights in `rooms/`.
    fn asked(
        rights: &[Right],
        method: Method,
        path: &str,
        source: Option<&str>,
    ) -> Result<(), Denied> {
        let grant = Grant::of_prefix("rooms/", rights.iter().copied());
        let auth = Authorizer::of_token("tea", Grants::from([grant]));
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(AUTHORIZATION, "Bearer tea");
        if let Some(source) = source {
            request = request.header(headers::FORKED_FROM, source);
        }
        may(&auth, &mut request.body(Body::empty()).unwrap())
    }

    #[test]
    fn a_token_allows_what_it_says_and_no_more() {
        let (room, other) = ("/v1/stream/rooms/a", "/v1/stream/users/a");
        let no = Err(Denied::Forbidden);
        assert_eq!(asked(READ, Method::GET, room, None), Ok(()));
        assert_eq!(asked(READ, Method::POST, room, None), no);
        assert_eq!(asked(READ, Method::GET, other, None), no);
        assert_eq!(asked(APPEND, Method::PUT, room, None), Ok(()));
        assert_eq!(
            asked(APPEND, Method::PUT, "/v1/stream/rooms%2Fa", None),
            Ok(())
        );
        assert_eq!(asked(APPEND, Method::PUT, "/v1/stream/rooms", None), no);
        assert_eq!(asked(APPEND, Method::DELETE, room, None), no);
        assert_eq!(asked(APPEND, Method::PATCH, room, None), no);
        assert_eq!(asked(ADMIN, Method::DELETE, room, None), Ok(()));
        assert_eq!(asked(ADMIN, Method::DELETE, other, None), no);
    }

    #[test]
    fn a_fork_needs_the_right_to_read_its_source() {
        let fork = |source| asked(APPEND, Method::PUT, "/v1/stream/rooms/mine", Some(source));
        assert_eq!(fork("/v1/stream/rooms/a"), Ok(()));
        assert_eq!(fork("/v1/stream/users/a"), Err(Denied::Forbidden));
        assert_eq!(fork("rooms/a"), Err(Denied::Forbidden));
    }
}
