//! The peer's own key, which never leaves the store, and the certificate that the server gives for it: shown to the server
//! where TLS is spoken, and for peers among themselves.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bigpeer_types::IdGenerator;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring::{default_provider, sign};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::PeerError;

const SEED_BYTES: usize = 32;
/// What a key of Ed25519 begins with as PKCS#8; the seed follows.
const PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
/// A certificate request (PKCS#10) that names nothing: what is signed begins so, and the public key and no attributes follow;
/// the whole begins and ends so around it.
const REQUEST_INFO: &[u8] = b"\x30\x33\x02\x01\x00\x30\x00\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const NO_ATTRIBUTES: &[u8] = b"\xa0\x00";
const REQUEST: &[u8] = b"\x30\x7f";
const SIGNED: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70\x03\x41\x00";

/// The peer's own key (Ed25519). Made once for a store.
#[derive(Clone)]
pub(crate) struct PeerKey([u8; SEED_BYTES]);

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A certificate that says who this peer is, for others of its app and for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// It and its authority's, in PEM.
    pub chain: String,
    /// When it ends, in milliseconds since the epoch.
    pub expires_ms: u64,
}

impl PeerKey {
    /// A new one.
    pub(crate) fn generate(ids: &dyn IdGenerator) -> Self {
        let mut seed = [0; SEED_BYTES];
        ids.fill(&mut seed);
        Self(seed)
    }

    /// The key as the store keeps it.
    pub(crate) const fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.0
    }

    /// The key that the store kept.
    pub(crate) fn of_seed(seed: &[u8]) -> Result<Self, PeerError> {
        Ok(Self(seed.try_into().map_err(|_| PeerError::Damaged("the peer's key".to_owned()))?))
    }

    /// A request for a certificate, in PEM: the key, and the proof that it is here. It names nothing, as who the peer is is
    /// known from its login.
    pub(crate) fn request(&self) -> Result<String, PeerError> {
        let unusable = |_| PeerError::Damaged("the peer's key".to_owned());
        let pair = Ed25519KeyPair::from_seed_unchecked(&self.0).map_err(unusable)?;
        let info = [REQUEST_INFO, pair.public_key().as_ref(), NO_ATTRIBUTES].concat();
        let signature = pair.sign(&info);
        let der = [REQUEST, &info, SIGNED, signature.as_ref()].concat();
        let text = STANDARD.encode(der);
        let lines: String = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n").collect();
        Ok(format!("-----BEGIN CERTIFICATE REQUEST-----\n{lines}-----END CERTIFICATE REQUEST-----\n"))
    }

    /// How to speak TLS while showing `certificate`; servers are trusted as in `base`, without one as the web does.
    pub(crate) fn shows(
        &self,
        certificate: &Certificate,
        base: Option<Arc<ClientConfig>>,
    ) -> Result<Arc<ClientConfig>, PeerError> {
        let refused = |reason: String| PeerError::Damaged(format!("the peer's certificate: {reason}"));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.chain.as_bytes()).collect();
        let chain = chain.map_err(|error| refused(error.to_string()))?;
        let key = PrivatePkcs8KeyDer::from([PKCS8, self.0.as_slice()].concat());
        let signer = sign::any_eddsa_type(&key).map_err(|error| refused(error.to_string()))?;
        let mut config = match base {
            Some(base) => ClientConfig::clone(&base),
            None => trusting_the_web()?,
        };
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, signer)));
        // What is resumed would be a session of an earlier certificate.
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}

fn trusting_the_web() -> Result<ClientConfig, PeerError> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| PeerError::Trust(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bigpeer_types::SeededIds;

    #[test]
    fn a_request_is_pkcs10_and_the_key_is_never_shown() {
        let key = PeerKey::generate(&SeededIds::new(1));
        let pem = key.request().expect("a request");
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(body).expect("base64");
        // A sequence of 127 bytes: what is signed, the algorithm, the signature.
        assert_eq!((der.len(), &der[..2]), (129, REQUEST));
        let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &der[21..53]);
        public.verify(&der[2..55], &der[65..]).expect("its own signature");
        assert_eq!(format!("{key:?}"), "***");
        assert_eq!(PeerKey::of_seed(key.seed()).expect("a seed").request().expect("a request"), pem);
        assert!(PeerKey::of_seed(b"short").is_err());
    }

    #[test]
    fn both_bases_can_show_a_certificate_and_nonsense_cannot_be_shown() {
        let key = PeerKey::generate(&SeededIds::new(1));
        let certificate = Certificate { chain: String::new(), expires_ms: 1 };
        let shown = key.shows(&certificate, None).expect("a configuration");
        assert!(shown.client_auth_cert_resolver.has_certs());
        assert!(key.shows(&certificate, Some(shown)).is_ok());
        let broken = Certificate {
            chain: "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_owned(),
            ..certificate
        };
        assert!(matches!(key.shows(&broken, None), Err(PeerError::Damaged(_))));
    }
}
