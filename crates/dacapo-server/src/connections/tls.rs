//! TLS by rustls, with a certificate that can be changed while the server runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Where a certificate is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate in PEM, and behind it those that lead to one that clients trust.
    pub certificate_file: PathBuf,
    /// Its private key in PEM: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
}

/// A certificate and its key, for TLS 1.3 and 1.2; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: TlsConfig,
    current: RwLock<Arc<ServerConfig>>,
}

/// A certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{} holds no certificate in PEM", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The two do not go together, or cannot be used.
    #[error("cannot serve with the certificate of {} and the key of {}: {source}", config.certificate_file.display(), config.key_file.display())]
    Unusable {
        /// The two files.
        config: TlsConfig,
        /// What is wrong with them.
        source: rustls::Error,
    },
}

impl Tls {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(config: TlsConfig) -> Result<Self, TlsError> {
        let current = RwLock::new(read(&config)?);
        Ok(Self {
            inner: Arc::new(Inner { config, current }),
        })
    }

    /// Reads the two files again. Connections from now on get that certificate; those that are there stay.
    ///
    /// # Errors
    /// See [`TlsError`]; the certificate is that of before then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = read(&self.inner.config)?;
        let current = self.inner.current.write();
        *current.unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let current = self.inner.current.read();
        let current = Arc::clone(&current.unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(current).accept(stream).await
    }
}

fn read(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &Path, source| TlsError::File {
        path: path.to_owned(),
        source,
    };
    let path = &config.certificate_file;
    let chain = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let chain: Vec<CertificateDer<'_>> = chain.map_err(|source| failed(path, source))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: path.clone() });
    }
    let path = &config.key_file;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|source| failed(path, source))?;
    let built = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    let mut built = built.map_err(|source| TlsError::Unusable {
        config: config.clone(),
        source,
    })?;
    built.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(built))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_certificate_that_cannot_be_used_is_named_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let made = |names: &str| rcgen::generate_simple_self_signed([names.to_owned()]).unwrap();
        let (one, other) = (made("one.example"), made("other.example"));
        let config = TlsConfig {
            certificate_file: dir.path().join("certificate.pem"),
            key_file: dir.path().join("key.pem"),
        };
        fs::write(&config.certificate_file, one.cert.pem()).unwrap();
        fs::write(&config.key_file, one.signing_key.serialize_pem()).unwrap();
        let tls = Tls::load(config.clone()).unwrap();
        let before = Arc::clone(&tls.inner.current.read().unwrap());

        fs::write(&config.key_file, other.signing_key.serialize_pem()).unwrap();
        let error = tls.reload().unwrap_err();
        assert!(matches!(error, TlsError::Unusable { .. }), "{error}");
        fs::write(&config.certificate_file, "none\n").unwrap();
        let error = tls.reload().unwrap_err();
        assert!(matches!(error, TlsError::NoCertificate { .. }), "{error}");
        fs::remove_file(&config.certificate_file).unwrap();
        let error = tls.reload().unwrap_err();
        assert!(error.to_string().contains("certificate.pem"), "{error}");
        assert!(Arc::ptr_eq(&before, &tls.inner.current.read().unwrap()));

        fs::write(&config.certificate_file, other.cert.pem()).unwrap();
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.inner.current.read().unwrap()));
    }
}
