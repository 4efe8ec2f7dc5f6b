//! The signature of a webhook: `t=SECONDS,v1=HEX[,v1=HEX]`, the HMAC-SHA256 of `SECONDS.BODY` under each secret. While a
//! secret is changed there are two, and a receiver that knows either can verify.

use std::fmt::Write as _;

use bigpeer_feed_spec::Hidden;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The header that carries it.
pub(crate) const SIGNATURE: &str = "bigpeer-signature";

/// Signs `body` at `now_ms`.
pub(crate) fn sign(secrets: &[Hidden], now_ms: u64, body: &[u8]) -> String {
    let seconds = now_ms / 1000;
    let mut out = format!("t={seconds}");
    for secret in secrets {
        // Keys of any length are good.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else { continue };
        mac.update(format!("{seconds}.").as_bytes());
        mac.update(body);
        out.push_str(",v1=");
        for byte in mac.finalize().into_bytes() {
            let _fits = write!(out, "{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_over_time_and_body_with_every_secret() {
        let secrets = ["a secret of some length", "the one before it"].map(Hidden::from);
        let both = sign(&secrets, 1_700_000_000_999, b"{}");
        let first = sign(&secrets[..1], 1_700_000_000_000, b"{}");
        assert!(both.starts_with(&format!("{first},v1=")), "{both}");
        assert_eq!(first.len(), "t=1700000000,v1=".len() + 64);
        assert_ne!(first, sign(&secrets[..1], 1_700_000_001_000, b"{}"));
        assert_ne!(first, sign(&secrets[..1], 1_700_000_000_000, b"{} "));
        // echo -n '1700000000.{}' | openssl dgst -sha256 -hmac 'key'
        let known = sign(&[Hidden::from("key")], 1_700_000_000_000, b"{}");
        assert_eq!(known, "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae");
    }
}
