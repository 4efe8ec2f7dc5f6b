//! Access tokens: JSON Web Tokens, HS256 with the app's own key. One header is issued and only that one, byte for byte, is
//! accepted, so there is no algorithm to confuse.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_types::{AppId, SiteId};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// Longest token that is looked at.
const MAX_TOKEN_BYTES: usize = 4096;

/// What a token says, after its signature has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessToken {
    /// The app that it opens.
    #[serde(rename = "aud")]
    pub app: AppId,
    /// The site that it speaks for.
    #[serde(rename = "sub")]
    pub site: SiteId,
    /// The API key that it was given for: its permissions are the token's, and its end is the token's.
    pub key: String,
    /// When it was given, in seconds since the epoch.
    #[serde(rename = "iat")]
    pub issued_at_secs: u64,
    /// When it ends, in seconds since the epoch.
    #[serde(rename = "exp")]
    pub expires_at_secs: u64,
}

impl AccessToken {
    /// The token as text, signed with `key`.
    pub(crate) fn sign(&self, key: &[u8]) -> Result<String, serde_json::Error> {
        let claims = serde_json::to_vec(self)?;
        let mut text = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
        let tag = mac(key, &text).map(|mac| mac.finalize().into_bytes()).unwrap_or_default();
        text.push('.');
        text.push_str(&URL_SAFE_NO_PAD.encode(tag));
        Ok(text)
    }

    /// Reads `text` when it was signed with `key`. Says nothing about time, app or API key.
    pub(crate) fn verify(text: &str, key: &[u8]) -> Option<Self> {
        if text.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, tag) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if header != URL_SAFE_NO_PAD.encode(HEADER) {
            return None;
        }
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        mac(key, signed)?.verify_slice(&tag).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}

/// HMAC takes keys of any length: none only when the library changes its mind.
fn mac(key: &[u8], text: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text.as_bytes());
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> AccessToken {
        AccessToken {
            app: AppId::new("app").unwrap(),
            site: SiteId::new(9),
            key: "dev".to_owned(),
            issued_at_secs: 1,
            expires_at_secs: 2,
        }
    }

    #[test]
    fn only_what_was_signed_with_the_key_is_read() {
        let text = token().sign(b"key").unwrap();
        assert_eq!(AccessToken::verify(&text, b"key"), Some(token()));
        assert_eq!(AccessToken::verify(&text, b"other"), None);
        for at in 0..text.len() {
            let mut broken = text.clone().into_bytes();
            broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(broken).unwrap();
            if let Some(read) = AccessToken::verify(&broken, b"key") {
                panic!("changing byte {at} was not noticed: {read:?}");
            }
        }
    }

    #[test]
    fn other_algorithms_are_refused() {
        let text = token().sign(b"key").unwrap();
        let (_, rest) = text.split_once('.').unwrap();
        let claims = rest.split_once('.').unwrap().0;
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS512","typ":"JWT"}"#, r#"{"typ":"JWT","alg":"HS256"}"#, ""] {
            let header = URL_SAFE_NO_PAD.encode(header);
            for tail in [String::new(), rest.rsplit_once('.').unwrap().1.to_owned()] {
                assert_eq!(AccessToken::verify(&format!("{header}.{claims}.{tail}"), b"key"), None);
            }
        }
        assert_eq!(AccessToken::verify(&"a.".repeat(4000), b"key"), None);
    }

    #[test]
    fn it_is_an_ordinary_json_web_token() {
        // Signed by another implementation (Python's hmac over RFC 7515's signing input).
        let text = concat!(
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.",
            "eyJhdWQiOiJhcHAiLCJzdWIiOiIwMDAwMDAwMDAwMDAwMDA5Iiwia2V5IjoiZGV2IiwiaWF0IjoxLCJleHAiOjJ9.",
            "EILQHpbDsjM-Jg-r-o8zUYs8sPPHQXfcE9LvXKegy4I"
        );
        assert_eq!(token().sign(b"key").unwrap(), text);
    }
}
