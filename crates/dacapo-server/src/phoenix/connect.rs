//! What every transport asks of a request before there is a session.

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::handler::Connect;
use super::phoenix::Shared;
use super::task::caught;
use super::wire::Serializer;

/// What phoenix.js puts before its token.
const TOKEN_PREFIX: &str = "base64url.bearer.phx.";

/// The subprotocol that is selected where a client offers it.
pub(super) const SUBPROTOCOL: &str = "phoenix";

/// A connection is refused.
pub(super) struct Forbidden;

impl IntoResponse for Forbidden {
    fn into_response(self) -> Response {
        StatusCode::FORBIDDEN.into_response()
    }
}

/// Asks the application whether a client may connect.
pub(super) async fn connect<S: Send + Sync + 'static>(
    shared: &Shared<S>,
    mut params: Vec<(String, String)>,
    headers: HeaderMap,
    auth_token: Option<String>,
) -> Result<(S, Serializer), Forbidden> {
    if shared.drained.is_cancelled() {
        return Err(Forbidden);
    }
    let vsn = params
        .iter()
        .find(|(key, _)| key == "vsn")
        .map(|(_, vsn)| vsn.as_str());
    let serializer = Serializer::of(vsn).ok_or(Forbidden)?;
    params.retain(|(key, _)| key != "vsn");
    let connect = Connect {
        params,
        headers,
        auth_token,
    };
    match caught(shared.sockets.connecting(&connect)).await {
        Ok(Ok(assigns)) => Ok((assigns, serializer)),
        Ok(Err(_)) => Err(Forbidden),
        Err(panic) => {
            tracing::error!(%panic, "a handler has crashed while a client connected");
            Err(Forbidden)
        }
    }
}

/// The token that a WebSocket offers among its subprotocols: browsers can send no header.
pub(super) fn token_of_subprotocols(headers: &HeaderMap) -> Option<String> {
    let offered = headers.get_all("sec-websocket-protocol").into_iter();
    let mut offered = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|all| all.split(','));
    let token = offered.find_map(|offer| offer.trim().strip_prefix(TOKEN_PREFIX))?;
    // phoenix.js leaves `+` and `/` as they are, in spite of the name.
    let token = token.replace('+', "-").replace('/', "_");
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&URL_SAFE, config).decode(token).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(offered: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert("sec-websocket-protocol", offered.parse().unwrap());
        token_of_subprotocols(&headers)
    }

    #[test]
    fn a_token_is_read_from_the_subprotocols() {
        assert_eq!(
            token("phoenix, base64url.bearer.phx.c2VjcmV0").as_deref(),
            Some("secret")
        );
        assert_eq!(
            token("phoenix, base64url.bearer.phx.Pz8/Pj4+").as_deref(),
            Some("???>>>")
        );
        assert_eq!(
            token("phoenix, base64url.bearer.phx.Pz8_Pj4-").as_deref(),
            Some("???>>>")
        );
        assert_eq!(
            token("phoenix, base64url.bearer.phx.YQ").as_deref(),
            Some("a")
        );
        assert_eq!(token("phoenix"), None);
        assert_eq!(token("phoenix, base64url.bearer.phx.****"), None);
        assert_eq!(token("phoenix, base64url.bearer.phx._w"), None);
    }
}
