//! Who may enter by a Phoenix socket, and what they may do there.

use axum::http::header::AUTHORIZATION;
use dacapo_server::auth::{Right, Tokens};
use dacapo_server::origins::Origins;
use dacapo_server::phoenix::{Access, Connect, Refused, SocketHandler};

/// Asks for a token, where there are some, and of pages whose they are.
#[derive(Clone, Debug)]
pub(super) struct Door {
    tokens: Option<Tokens>,
    origins: Origins,
}

/// A client, by its token: what that is good for may change while it is connected.
pub(super) struct Guest {
    token: Option<String>,
}

impl Door {
    pub(super) fn new(tokens: Option<&Tokens>, origins: Origins) -> Self {
        Self {
            tokens: tokens.cloned(),
            origins,
        }
    }

    pub(super) fn knows(&self, guest: &Guest) -> bool {
        let tokens = self.tokens.as_ref();
        tokens.is_none_or(|tokens| tokens.knows(guest.bytes()))
    }

    pub(super) fn lets(&self, guest: &Guest, topic: &str, access: Access) -> bool {
        let right = match access {
            Access::Read => Right::Read,
            Access::Append => Right::Append,
        };
        let tokens = self.tokens.as_ref();
        tokens.is_none_or(|tokens| tokens.check(guest.bytes(), right, topic).is_ok())
    }
}

impl Guest {
    fn bytes(&self) -> Option<&[u8]> {
        self.token.as_deref().map(str::as_bytes)
    }
}

impl SocketHandler for Door {
    type Assigns = Guest;

    /// The token is phoenix.js's `authToken`, the parameter `token`, or in the header of a client that is
    /// no browser.
    async fn connect(&self, connect: &Connect) -> Result<Guest, Refused> {
        if !self.origins.let_in(connect.headers()) {
            return Err(Refused::because("pages of this origin are not allowed"));
        }
        let header = connect.headers().get(AUTHORIZATION);
        let header = header
            .and_then(|value| value.to_str().ok())
            .and_then(|value| {
                let (scheme, token) = value.split_once(' ')?;
                scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
            });
        let token = connect.auth_token().or(connect.param("token")).or(header);
        let guest = Guest {
            token: token.map(str::to_owned),
        };
        match self.knows(&guest) {
            true => Ok(guest),
            false => Err(Refused::because("unauthorized")),
        }
    }
}
