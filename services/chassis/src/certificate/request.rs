//! Certificate requests (PKCS#10, RFC 2986) of peers: a key, and the proof that whoever asks has its secret half. Everything
//! else that a request can ask for is refused: who a certificate is for is known from the login.
//!
//! A request that may pass has one shape, so this reads that shape and nothing else (docs/decisions).

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use thiserror::Error;
use tokio_rustls::rustls::pki_types::CertificateSigningRequestDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// Longest request, as PEM: those that pass have a third of it.
const MAX_BYTES: usize = 2048;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const ATTRIBUTES: u8 = 0xa0;

/// `AlgorithmIdentifier`s of signatures, without tag and length.
const SIGNED_ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
const SIGNED_ECDSA_SHA256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
/// What a `SubjectPublicKeyInfo` begins with; 32 bytes follow, and 65.
const KEY_ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
const KEY_P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// Why a request is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// Longer than any that passes.
    #[error("it has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// No PKCS#10 in PEM.
    #[error("it is no certificate request (PKCS#10) in PEM, or of another version")]
    Malformed,
    /// It asks for names, extensions or other attributes.
    #[error(
        "a request names nothing: leave subject, extensions and attributes empty (`openssl req -new -subj /`); what the \
         certificate says is known from the login"
    )]
    Names,
    /// Another kind of key, or one that is no secret.
    #[error("its key is of no kind that is taken; make one of Ed25519 or P-256")]
    Key,
    /// Not signed with the secret half of its key.
    #[error("its signature is not one by its own key, with Ed25519 or with ECDSA and SHA-256")]
    Signature,
}

/// The key of a request whose proof was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    kind: Kind,
    public: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ed25519,
    P256,
}

impl CertificateRequest {
    /// Reads a request in PEM, and checks the proof that whoever made it has the key.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(pem: &str) -> Result<Self, RequestError> {
        if pem.len() > MAX_BYTES {
            return Err(RequestError::TooLarge);
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| RequestError::Malformed)?;
        Self::of_der(&der)
    }

    fn of_der(der: &[u8]) -> Result<Self, RequestError> {
        let Parts { signed, subject, key, attributes, algorithm, signature } =
            parts(der).ok_or(RequestError::Malformed)?;
        if !subject.is_empty() || !attributes.is_empty() {
            return Err(RequestError::Names);
        }
        let request = key_of(key).ok_or(RequestError::Key)?;
        let (expected, verification): (_, &dyn VerificationAlgorithm) = match request.kind {
            Kind::Ed25519 => (SIGNED_ED25519, &ED25519),
            Kind::P256 => (SIGNED_ECDSA_SHA256, &ECDSA_P256_SHA256_ASN1),
        };
        let verified = UnparsedPublicKey::new(verification, &request.public).verify(signed, signature);
        if algorithm == expected && verified.is_ok() { Ok(request) } else { Err(RequestError::Signature) }
    }
}

impl PublicKeyData for CertificateRequest {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            Kind::Ed25519 => &PKCS_ED25519,
            Kind::P256 => &PKCS_ECDSA_P256_SHA256,
        }
    }
}

fn key_of(info: &[u8]) -> Option<CertificateRequest> {
    if let Some(public) = info.strip_prefix(KEY_ED25519) {
        let public: [u8; 32] = public.try_into().ok()?;
        return (!is_small(public)).then(|| CertificateRequest { kind: Kind::Ed25519, public: public.to_vec() });
    }
    // Uncompressed; that the point is on the curve is looked at when the signature is verified.
    let public: [u8; 65] = info.strip_prefix(KEY_P256)?.try_into().ok()?;
    (public[0] == 4).then(|| CertificateRequest { kind: Kind::P256, public: public.to_vec() })
}

/// Whether a point of Ed25519 is one of the few of small order, in any encoding: with such a key everybody's signature is good.
fn is_small(mut public: [u8; 32]) -> bool {
    const MINUS_ONE: [u8; 32] = [
        0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
    ];
    const OF_ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    // The sign of the other coordinate.
    public[31] &= 0x7f;
    let is_near = |first: u8, rest: u8, last: u8| {
        public[0] == first && public[31] == last && public[1..31].iter().all(|byte| *byte == rest)
    };
    // 0, 1, and p-1 = -1; and what is the same modulo p.
    is_near(0, 0, 0)
        || is_near(1, 0, 0)
        || public == MINUS_ONE
        || is_near(0xed, 0xff, 0x7f)
        || is_near(0xee, 0xff, 0x7f)
        || OF_ORDER_8.contains(&public)
}

/// The parts of a request.
struct Parts<'d> {
    /// What the signature is of.
    signed: &'d [u8],
    subject: &'d [u8],
    key: &'d [u8],
    attributes: &'d [u8],
    algorithm: &'d [u8],
    signature: &'d [u8],
}

fn parts(der: &[u8]) -> Option<Parts<'_>> {
    let mut outer = Der(der);
    let mut request = Der(outer.next(SEQUENCE)?.1);
    let (signed, info) = request.next(SEQUENCE)?;
    let (algorithm, signature) = (request.next(SEQUENCE)?.1, request.next(BIT_STRING)?.1);
    let mut info = Der(info);
    let (version, subject, key) = (info.next(INTEGER)?.1, info.next(SEQUENCE)?.1, info.next(SEQUENCE)?.0);
    // Some leave out what is empty.
    let attributes = if info.0.is_empty() { &[][..] } else { info.next(ATTRIBUTES)?.1 };
    let ended = outer.0.is_empty() && request.0.is_empty() && info.0.is_empty();
    // A whole number of bytes.
    let signature = signature.strip_prefix(&[0])?;
    (ended && version == [0]).then_some(Parts { signed, subject, key, attributes, algorithm, signature })
}

/// Bytes of DER that were not read yet.
struct Der<'d>(&'d [u8]);

impl<'d> Der<'d> {
    /// The next element, whole and its content, if it has this tag. Lengths have one spelling.
    fn next(&mut self, tag: u8) -> Option<(&'d [u8], &'d [u8])> {
        let (&found, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match (first, rest) {
            (0..=0x7f, rest) => (usize::from(first), rest),
            (0x81, [length, rest @ ..]) if *length > 0x7f => (usize::from(*length), rest),
            (0x82, [high, low, rest @ ..]) if *high > 0 => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            _longer_or_spelt_wrongly => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = self.0.get(..self.0.len() - rest.len())?;
        self.0 = rest;
        (found == tag).then_some((whole, content))
    }
}

#[cfg(test)]
mod tests;
