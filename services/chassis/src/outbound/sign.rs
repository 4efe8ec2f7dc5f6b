//! The signature of a request that this process makes for others: `t=SECONDS,v1=HEX[,v1=HEX]`, the HMAC-SHA256 of `SECONDS.BODY`
//! under each secret. While a secret is changed there are two, and a receiver that knows either can verify.

use std::fmt;

use ring::hmac;

/// The header that carries it.
pub const SIGNATURE: &str = "bigpeer-signature";

/// Signs with one secret, or with two while one is changed.
#[derive(Clone)]
pub struct Signer(Vec<hmac::Key>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    /// With these secrets, in this order.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self(secrets.into_iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)).collect())
    }

    /// The signature of `body` at `now_ms`.
    #[must_use]
    pub fn sign(&self, now_ms: u64, body: &[u8]) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let seconds = (now_ms / 1000).to_string();
        let mut out = format!("t={seconds}");
        for key in &self.0 {
            let mut mac = hmac::Context::with_key(key);
            mac.update(seconds.as_bytes());
            mac.update(b".");
            mac.update(body);
            out.push_str(",v1=");
            for byte in mac.sign().as_ref() {
                out.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(secrets: &[&str], now_ms: u64, body: &[u8]) -> String {
        Signer::new(secrets.iter().map(|secret| secret.as_bytes())).sign(now_ms, body)
    }

    #[test]
    fn a_signature_is_over_time_and_body_with_every_secret() {
        // echo -n '1700000000.{}' | openssl dgst -sha256 -hmac 'key'
        let known = "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(sign(&["key"], 1_700_000_000_999, b"{}"), known);
        let both = sign(&["key", "the one before it"], 1_700_000_000_000, b"{}");
        assert!(both.starts_with(&format!("{known},v1=")), "{both}");
        assert_eq!(both.len(), known.len() + ",v1=".len() + 64);
        assert_ne!(sign(&["key"], 1_700_000_001_000, b"{}"), known);
        assert_ne!(sign(&["key"], 1_700_000_000_000, b"{} "), known);
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", Signer::new([&b"a secret"[..]])), "Signer(…)");
    }
}
