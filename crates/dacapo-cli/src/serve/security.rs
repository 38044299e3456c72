//! Who is let in, how often, and over what: flags, and what they come to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use dacapo_server::auth::{AuthConfig, Authorizer};
use dacapo_server::connections::{ConnectionsConfig, Tls, TlsConfig};
use dacapo_server::limits::{RateConfig, RateLimits, Subscriptions};

use clap::{ArgAction, ValueHint};

use crate::UsageError;
use crate::amounts::parse_duration;

/// The file of keys for URLs, in the log's directory, unless another one is named.
const URL_KEYS_FILE: &str = "url.keys";

/// Who is let in.
#[derive(clap::Args)]
pub(crate) struct SecurityArgs {
    /// Let in those with a token of this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          env = "DACAPO_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// Let in those with a JSON Web Token of one of these keys: a JSON Web Key Set, or public keys in PEM
    ///
    /// HS256 with secrets of 32 bytes at least, RS256, and EdDSA with Ed25519. What a token allows is its
    /// claim `dacapo`: [{"rights":["read","append"],"prefix":"rooms/"}].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          env = "DACAPO_JWT_KEYS")]
    jwt_keys: Option<PathBuf>,

    /// Take JSON Web Tokens for this audience alone; without it, those that name none
    #[arg(long, value_name = "NAME", env = "DACAPO_JWT_AUDIENCE")]
    jwt_audience: Option<String>,

    /// Take JSON Web Tokens of this issuer alone
    #[arg(long, value_name = "NAME", env = "DACAPO_JWT_ISSUER")]
    jwt_issuer: Option<String>,

    /// The keys of tokens for URLs; made if it is not there [default: url.keys in DIR]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          env = "DACAPO_URL_KEYS")]
    url_keys: Option<PathBuf>,

    /// Take any token as ?access_token=, too, and not only those for URLs: it may end up in logs of proxies
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", env = "DACAPO_TOKENS_IN_QUERY")]
    tokens_in_query: bool,

    /// Speak TLS, with this certificate in PEM and those that lead to a trusted one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          env = "DACAPO_TLS_CERTIFICATE")]
    tls_certificate: Option<PathBuf>,

    /// The private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath,
          env = "DACAPO_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// Listen beyond this machine also without tokens, or without TLS
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", env = "DACAPO_INSECURE")]
    insecure: bool,

    /// How often a client may ask in a second, over a while; 0 is as often as it likes
    ///
    /// A client is a token that is good, or else an address.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 0,
        env = "DACAPO_REQUESTS_PER_SECOND"
    )]
    requests_per_second: u32,

    /// How often it may at once [default: as often as in a second]
    #[arg(long, value_name = "COUNT", env = "DACAPO_REQUESTS_BURST")]
    requests_burst: Option<u32>,

    /// How many clients may follow at once; others are answered 503
    #[arg(long, value_name = "COUNT", env = "DACAPO_SUBSCRIPTIONS_MAX")]
    subscriptions_max: Option<usize>,

    /// How many clients may be connected at once; others are answered 503
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 10_000,
        env = "DACAPO_CONNECTIONS_MAX"
    )]
    connections_max: usize,

    /// How many of them may come from one address; others are answered 429
    #[arg(long, value_name = "COUNT", env = "DACAPO_CONNECTIONS_PER_ADDRESS_MAX")]
    connections_per_address_max: Option<usize>,

    /// How long the head of a request may take, and a handshake of TLS
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration,
          env = "DACAPO_HEAD_TIMEOUT")]
    head_timeout: Duration,
}

/// What is asked of clients.
pub(super) struct Security {
    pub(super) auth: Option<Authorizer>,
    pub(super) tls: Option<Tls>,
    pub(super) rate: Option<RateLimits>,
    pub(super) subscriptions: Subscriptions,
}

impl SecurityArgs {
    /// Whether it may listen there.
    pub(super) fn check(&self, listen: SocketAddr) -> Result<(), UsageError> {
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            let refused = "--tls-certificate and --tls-key go together".to_owned();
            return Err(UsageError(refused));
        }
        if self.insecure || listen.ip().is_loopback() {
            return Ok(());
        }
        let is_open = self.token_file.is_none() && self.jwt_keys.is_none();
        let missing = match (is_open, self.tls_certificate.is_none()) {
            (false, false) => return Ok(()),
            (true, false) => "name a --token-file or --jwt-keys",
            (false, true) => {
                "name a --tls-certificate and a --tls-key: tokens could be read on the way"
            }
            (true, true) => {
                "name a --token-file or --jwt-keys, and a --tls-certificate and a --tls-key"
            }
        };
        Err(UsageError(format!(
            "{listen} can be reached from other machines: {missing}; or say --insecure, as behind a proxy that sees to it"
        )))
    }

    /// Reads what it names; `dir` is the log's.
    pub(super) fn load(&self, dir: &Path) -> anyhow::Result<Security> {
        let config = AuthConfig {
            token_file: self.token_file.clone(),
            jwt_keys_file: self.jwt_keys.clone(),
            jwt_audience: self.jwt_audience.clone(),
            jwt_issuer: self.jwt_issuer.clone(),
            tokens_in_query: self.tokens_in_query,
            ..AuthConfig::default()
        };
        let auth = (!config.is_open()).then(|| {
            let own = || dir.join(URL_KEYS_FILE);
            Authorizer::load(AuthConfig {
                url_keys_file: Some(self.url_keys.clone().unwrap_or_else(own)),
                ..config
            })
        });
        let tls = self.tls_certificate.as_ref().zip(self.tls_key.as_ref());
        let tls = tls.map(|(certificate_file, key_file)| {
            Tls::load(TlsConfig {
                certificate_file: certificate_file.clone(),
                key_file: key_file.clone(),
            })
        });
        let rate = RateConfig {
            requests_per_second: Some(self.requests_per_second),
            requests_burst: self.requests_burst,
        };
        let subscriptions = self.subscriptions_max.map(Subscriptions::at_most);
        Ok(Security {
            auth: auth.transpose()?,
            tls: tls.transpose()?,
            rate: rate.limits(),
            subscriptions: subscriptions.unwrap_or_default(),
        })
    }

    pub(super) fn connections(&self, idle_timeout: Duration) -> ConnectionsConfig {
        ConnectionsConfig {
            connections_max: self.connections_max,
            connections_per_address_max: self.connections_per_address_max,
            idle_timeout,
            head_timeout: self.head_timeout,
        }
    }
}

impl Security {
    /// Lets each client ask a router no more often than it may.
    pub(super) fn limited(&self, router: Router) -> Router {
        match &self.rate {
            Some(rate) => rate.limit(router, self.auth.as_ref()),
            None => router,
        }
    }

    /// Reads all files again; what cannot be used stays as it was.
    pub(super) fn reload(&self) {
        match self.auth.as_ref().map(Authorizer::reload) {
            Some(Ok(())) => tracing::info!("the tokens were read again"),
            Some(Err(error)) => tracing::error!(%error, "the tokens are those of before"),
            None => {}
        }
        match self.tls.as_ref().map(Tls::reload) {
            Some(Ok(())) => tracing::info!("the certificate was read again"),
            Some(Err(error)) => tracing::error!(%error, "the certificate is that of before"),
            None => {}
        }
    }
}
