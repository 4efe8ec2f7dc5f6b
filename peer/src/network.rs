//! How a peer reaches a server: handed in, as time and chance are, so that the simulation owns it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::{PeerError, Secret};

/// The bytes of a connection, in both directions, in order.
pub trait Wire: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin + 'static> Wire for T {}

/// What carries a peer's connections and requests.
pub trait Network: Send + Sync + fmt::Debug {
    /// Opens a connection. TLS, where the URL asks for it, comes on top.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Wire>>>;

    /// Which servers are trusted below TLS; none for those that the web trusts.
    fn tls(&self) -> Option<Arc<ClientConfig>> {
        None
    }

    /// Sends `POST url` with a bearer token and `body`, which is JSON. Answers status and body.
    ///
    /// # Errors
    /// [`PeerError::Unreachable`] when no answer came within `timeout`.
    fn post<'a>(
        &'a self,
        url: &'a str,
        bearer: &'a Secret,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<(u16, Bytes), PeerError>>;
}

/// The machine's own network.
#[derive(Clone, Debug, Default)]
pub struct SystemNetwork {
    tls: Option<Arc<ClientConfig>>,
}

impl SystemNetwork {
    /// Trusts servers by the certificate authorities in `pem`, and no others.
    ///
    /// # Errors
    /// [`PeerError::Trust`] when there is no certificate in it.
    pub fn trusting(pem: &[u8]) -> Result<Self, PeerError> {
        let refused = |reason: String| PeerError::Trust(reason);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| refused(error.to_string()))?;
            roots.add(certificate).map_err(|error| refused(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(refused("there is no certificate in it".to_owned()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| refused(error.to_string()))?;
        Ok(Self { tls: Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())) })
    }
}

impl Network for SystemNetwork {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Wire>>> {
        async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        }
        .boxed()
    }

    fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.clone()
    }

    fn post<'a>(
        &'a self,
        url: &'a str,
        bearer: &'a Secret,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<(u16, Bytes), PeerError>> {
        async move {
            let client = http_client(self)
                .timeout(timeout)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| unreachable(&error))?;
            let sent = client.post(url).bearer_auth(bearer.reveal()).body(body).send().await;
            let response = sent.map_err(|error| unreachable(&error))?;
            let status = response.status().as_u16();
            Ok((status, response.bytes().await.map_err(|error| unreachable(&error))?))
        }
        .boxed()
    }
}

/// A client of HTTP that trusts what the network does.
pub fn http_client(network: &dyn Network) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder();
    match network.tls() {
        Some(tls) => builder.use_preconfigured_tls(ClientConfig::clone(&tls)),
        None => builder,
    }
}

/// The innermost reason: reqwest's own text only says that sending failed.
fn unreachable(error: &reqwest::Error) -> PeerError {
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    PeerError::Unreachable(reason.to_string())
}
