//! TLS for every listener: one certificate with its key, from PEM files, taken up anew when they change; and certificates of
//! peers, where a listener takes them.
//!
//! A certificate that is renewed needs no restart: sessions that are open go on, new ones get the new certificate. Files
//! that are wrong when they change are reported, and the certificate of before stays.

mod peers;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::Shutdown;
use crate::catalogue::Catalogue;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a client has for its part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Largest file of certificates or of a key, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Flags of a listener's certificate.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsSettings {
    /// Certificate chain (PEM), the server's first; with --tls-key every listener speaks TLS. Taken up anew when it changes;
    /// `bigpeer dev-cert` makes one for local use
    #[arg(long, env = "BIGPEER_TLS_CERT", value_name = "FILE", requires = "tls_key", help_heading = "TLS")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, env = "BIGPEER_TLS_KEY", value_name = "FILE", requires = "tls_cert", help_heading = "TLS")]
    pub tls_key: Option<PathBuf>,
}

/// Why a certificate cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {cause}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file holds something else.
    #[error("{path} is no {expected} in PEM: {reason}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The two do not belong together, or are of a kind that is not supported.
    #[error("the certificate {cert} and the key {key} cannot be used together: {reason}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The certificate that listeners show.
#[derive(Clone, Debug)]
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    /// Who vouches for peers, if their certificates are looked at.
    peers: Option<Arc<Catalogue>>,
}

impl Tls {
    /// Reads the files that the settings name; none if they name none.
    ///
    /// # Errors
    /// When the files are not a certificate and its key.
    pub fn open(settings: &TlsSettings) -> Result<Option<Self>, TlsError> {
        let (Some(cert), Some(key)) = (settings.tls_cert.clone(), settings.tls_key.clone()) else { return Ok(None) };
        let bytes = read_both(&cert, &key)?;
        let certified = certified(&cert, &key, &bytes)?;
        let current = Current(RwLock::new((bytes, Arc::new(certified))));
        Ok(Some(Self { cert, key, current: Arc::new(current), peers: None }))
    }

    /// With peers that may show a certificate of their app where HTTP is spoken.
    #[must_use]
    pub fn with_peers(self, catalogue: Arc<Catalogue>) -> Self {
        Self { peers: Some(catalogue), ..self }
    }

    /// Looks at the files now and then until `shutdown`, and takes them up when they have changed.
    pub async fn follow(self, shutdown: Shutdown) {
        let mut refused = None;
        while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            match self.look() {
                Ok(changed) => {
                    refused = None;
                    if changed {
                        tracing::info!(certificate = %self.cert.display(), "a changed certificate is shown from now on");
                    }
                }
                // Half-written files are whole a moment later; the same complaint need not be repeated.
                Err(error) if refused.as_ref() != Some(&error.to_string()) => {
                    tracing::warn!(%error, "the certificate changed and cannot be used; the one of before stays");
                    refused = Some(error.to_string());
                }
                Err(_) => {}
            }
        }
    }

    /// Takes up the files if they have changed; says whether they have.
    fn look(&self) -> Result<bool, TlsError> {
        let bytes = read_both(&self.cert, &self.key)?;
        if self.current.0.read().unwrap_or_else(PoisonError::into_inner).0 == bytes {
            return Ok(false);
        }
        let certified = Arc::new(certified(&self.cert, &self.key, &bytes)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = (bytes, certified);
        Ok(true)
    }

    /// What performs handshakes, for the application protocols `alpn`, the best first.
    ///
    /// # Errors
    /// When this build lacks what TLS needs.
    pub fn acceptor(&self, alpn: &[&[u8]]) -> Result<Acceptor, rustls::Error> {
        self.acceptor_of(alpn, rustls::server::WebPkiClientVerifier::no_client_auth())
    }

    /// [`Self::acceptor`], and a client may show the certificate of a peer. One that shows another is turned away.
    ///
    /// # Errors
    /// When this build lacks what TLS needs.
    pub(crate) fn peer_acceptor(&self, alpn: &[&[u8]]) -> Result<Acceptor, rustls::Error> {
        match &self.peers {
            Some(catalogue) => self.acceptor_of(alpn, Arc::new(peers::Peers::new(Arc::clone(catalogue), provider()))),
            None => self.acceptor(alpn),
        }
    }

    fn acceptor_of(&self, alpn: &[&[u8]], clients: Arc<dyn ClientCertVerifier>) -> Result<Acceptor, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(Arc::clone(&self.current) as _);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Performs handshakes.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    /// The stream below the client's TLS.
    ///
    /// # Errors
    /// When the client is gone, speaks no TLS, trusts no such certificate, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let handshake = tokio::time::timeout(HANDSHAKE, self.0.accept(stream)).await;
        handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The contents of both files, and what was made of them.
struct Current(RwLock<(Contents, Arc<CertifiedKey>)>);

/// The bytes of the certificate's file and of the key's.
type Contents = (Vec<u8>, Vec<u8>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).1))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read_both(cert: &Path, key: &Path) -> Result<Contents, TlsError> {
    Ok((read(cert)?, read(key)?))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    use io::Read;
    let whole = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("more than {MAX_FILE_BYTES} bytes")));
        }
        Ok(bytes)
    };
    whole().map_err(|cause| TlsError::Read { path: path.to_owned(), cause })
}

fn certified(cert: &Path, key: &Path, bytes: &Contents) -> Result<CertifiedKey, TlsError> {
    let content = |path: &Path, expected, reason: String| TlsError::Content { path: path.to_owned(), expected, reason };
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&bytes.0).collect();
    let chain = chain.map_err(|error| content(cert, "certificate chain", error.to_string()))?;
    if chain.is_empty() {
        return Err(content(cert, "certificate chain", "there is no certificate in it".to_owned()));
    }
    let private =
        PrivateKeyDer::from_pem_slice(&bytes.1).map_err(|error| content(key, "private key", error.to_string()))?;
    let pair =
        |error: rustls::Error| TlsError::Pair { cert: cert.to_owned(), key: key.to_owned(), reason: error.to_string() };
    CertifiedKey::from_der(chain, private, &provider()).map_err(pair)
}

#[cfg(test)]
pub(crate) mod tests;
