//! Who may enter by a Phoenix socket, and what they may do there.

use dacapo_server::auth::{self, Authorizer, Right};
use dacapo_server::origins::Origins;
use dacapo_server::phoenix::{Access, Connect, Refused, SocketHandler};

/// Asks for a token, where there are some, and of pages whose they are.
#[derive(Clone, Debug)]
pub(super) struct Door {
    auth: Option<Authorizer>,
    origins: Origins,
}

/// A client, by its token: what that is good for may change while it is connected.
pub(super) struct Guest {
    token: Option<String>,
}

impl Door {
    pub(super) fn new(auth: Option<&Authorizer>, origins: Origins) -> Self {
        Self {
            auth: auth.cloned(),
            origins,
        }
    }

    pub(super) fn knows(&self, guest: &Guest) -> bool {
        let auth = self.auth.as_ref();
        auth.is_none_or(|auth| auth.knows(guest.bytes()))
    }

    pub(super) fn lets(&self, guest: &Guest, topic: &str, access: Access) -> bool {
        let right = match access {
            Access::Read => Right::Read,
            Access::Append => Right::Append,
        };
        let auth = self.auth.as_ref();
        auth.is_none_or(|auth| auth.check(guest.bytes(), right, topic).is_ok())
    }
}

impl Guest {
    fn bytes(&self) -> Option<&[u8]> {
        self.token.as_deref().map(str::as_bytes)
    }
}

impl SocketHandler for Door {
    type Assigns = Guest;

    /// The token is phoenix.js's `authToken`, or in the header of a client that is no browser. As the
    /// parameter `token` or `access_token`, which stands in the URL, it is one for URLs.
    async fn connect(&self, connect: &Connect) -> Result<Guest, Refused> {
        if !self.origins.let_in(connect.headers()) {
            return Err(Refused::because("pages of this origin are not allowed"));
        }
        let header = auth::bearer(connect.headers());
        let header = header.and_then(|token| str::from_utf8(token).ok());
        let param = connect.param("token").or(connect.param("access_token"));
        let param = param.filter(|token| {
            let auth = self.auth.as_ref();
            auth.is_some_and(|auth| auth.takes_in_query(token.as_bytes()))
        });
        let token = connect.auth_token().or(header).or(param);
        let guest = Guest {
            token: token.map(str::to_owned),
        };
        match self.knows(&guest) {
            true => Ok(guest),
            false => Err(Refused::because("unauthorized")),
        }
    }
}
