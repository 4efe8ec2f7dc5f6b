//! Tokens of issuers (RFC 7519, compact and signed), before and after their signature was checked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_chassis::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwk::Jwk;

/// A token of which nothing is believed yet.
#[derive(Debug)]
pub(super) struct Unverified<'t> {
    /// How it says that it is signed: one that is known.
    pub(super) algorithm: Algorithm,
    kid: Option<String>,
    signed: &'t str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    /// Extensions that must be understood: none are.
    crit: Option<Value>,
}

impl<'t> Unverified<'t> {
    /// Takes a token apart; none for what is no token, or is not signed in a way that is known.
    pub(super) fn parse(token: &'t str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.crit.is_some() {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        Some(Self { algorithm: header.alg, kid: header.kid, signed, signature })
    }

    /// Whether `key` may have signed it: by its id, and by its kind.
    pub(super) fn may_be_of(&self, key: &Jwk) -> bool {
        key.is_for(self.algorithm) && (self.kid.is_none() || self.kid == key.kid)
    }

    /// The claims, when one of `keys` signed them.
    pub(super) fn verify(&self, keys: &[Jwk]) -> Option<Map<String, Value>> {
        let mut candidates = keys.iter().filter(|key| self.may_be_of(key));
        candidates.find(|key| key.verifies(self.algorithm, self.signed.as_bytes(), &self.signature))?;
        let (_, claims) = self.signed.split_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}
