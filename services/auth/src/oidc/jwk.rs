//! Public keys of issuers (RFC 7517), and what was signed with them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_chassis::Algorithm;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::Value;

/// A key that signatures can be checked with.
#[derive(Clone, Debug)]
pub(super) struct Jwk {
    /// Its id, if it has one.
    pub(super) kid: Option<String>,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<String>,
    public: Public,
}

#[derive(Clone, Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Fields {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// Reads a key; none for one of a kind that is not known, or not for signatures.
    pub(super) fn read(json: &Value) -> Option<Self> {
        let fields = Fields::deserialize(json).ok()?;
        if fields.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?.trim_end_matches('=')).ok();
        let point = |size: usize| {
            let (x, y) = (bytes(&fields.x)?, bytes(&fields.y)?);
            (x.len() == size && y.len() == size).then(|| [&[4_u8][..], &x, &y].concat())
        };
        let public = match (fields.kty.as_str(), fields.crv.as_deref()) {
            ("RSA", _) => Public::Rsa { n: bytes(&fields.n)?, e: bytes(&fields.e)? },
            ("EC", Some("P-256")) => Public::P256(point(32)?),
            ("EC", Some("P-384")) => Public::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Public::Ed25519(bytes(&fields.x)?),
            // Symmetric keys ("oct") above all: what is published is no secret.
            _ => return None,
        };
        Some(Self { kid: fields.kid, algorithm: fields.alg, public })
    }

    /// Whether it is a key for `algorithm`.
    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{ES256, ES384, EdDSA, PS256, RS256, RS384, RS512};
        let kind = match &self.public {
            Public::Rsa { .. } => matches!(algorithm, RS256 | RS384 | RS512 | PS256),
            Public::P256(_) => algorithm == ES256,
            Public::P384(_) => algorithm == ES384,
            Public::Ed25519(_) => algorithm == EdDSA,
        };
        kind && self.algorithm.as_deref().is_none_or(|only| only == format!("{algorithm:?}"))
    }

    /// Whether it signed `message`. The key's kind decides how that is found out, not the token.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        let ec = |how: &'static dyn VerificationAlgorithm, public: &[u8]| {
            UnparsedPublicKey::new(how, public).verify(message, signature).is_ok()
        };
        self.is_for(algorithm)
            && match &self.public {
                Public::Rsa { n, e } => rsa(algorithm)
                    .is_some_and(|how| RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok()),
                Public::P256(public) => ec(&ECDSA_P256_SHA256_FIXED, public),
                Public::P384(public) => ec(&ECDSA_P384_SHA384_FIXED, public),
                Public::Ed25519(public) => ec(&ED25519, public),
            }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&RSA_PSS_2048_8192_SHA256),
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => None,
    }
}
