//! Certificates that clients show: those of peers, which an authority of their app vouches for.
//!
//! None is needed. One that is shown and not believed ends the handshake: whoever shows it means to be somebody, and is not.
//! What was revoked is not looked at here but where a session opens, which can say so.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{self, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::catalogue::{AUTHORITY_NAME_DER, Catalogue};
use crate::certificate::CertificateError;
use crate::metrics;

/// Believes the certificates of peers, as the catalogue is at the moment.
pub(super) struct Peers {
    catalogue: Arc<Catalogue>,
    provider: Arc<CryptoProvider>,
    /// The one name that all authorities have: clients with certificates of others need not ask their users which to show.
    hint: [DistinguishedName; 1],
}

impl Peers {
    pub(super) fn new(catalogue: Arc<Catalogue>, provider: Arc<CryptoProvider>) -> Self {
        Self { catalogue, provider, hint: [DistinguishedName::in_sequence(AUTHORITY_NAME_DER)] }
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peers")
    }
}

impl ClientCertVerifier for Peers {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hint
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.catalogue.verify_certificate(end_entity);
        metrics::client_certificate(verified.is_ok());
        let refused = |error| match error {
            CertificateError::Unreadable => rustls::CertificateError::BadEncoding,
            CertificateError::Foreign => rustls::CertificateError::UnknownIssuer,
            CertificateError::Expired => rustls::CertificateError::Expired,
        };
        verified.map(|_| ClientCertVerified::assertion()).map_err(|error| refused(error).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
