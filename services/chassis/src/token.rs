//! Access tokens: JSON Web Tokens, EdDSA (Ed25519) with a key of the app. For each key one header is issued, and only that
//! one, byte for byte, is accepted: there is no algorithm to confuse, and no key id that leads anywhere.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_types::{AppId, SiteId};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Name, Permissions};

/// Longest token that is issued or looked at: what the sync protocol takes, too.
pub(crate) const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// What a token says, after its signature has been checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessToken {
    /// The app that it opens.
    #[serde(rename = "aud")]
    pub app: AppId,
    /// The site that it speaks for.
    #[serde(rename = "sub")]
    pub site: SiteId,
    /// Whose it is.
    #[serde(flatten)]
    pub holder: Holder,
    /// When it was given, in seconds since the epoch.
    #[serde(rename = "iat")]
    pub issued_at_secs: u64,
    /// When it ends, in seconds since the epoch.
    #[serde(rename = "exp")]
    pub expires_at_secs: u64,
    /// When its holder logged in, in milliseconds since the epoch.
    #[serde(rename = "auth_ms")]
    pub logged_in_ms: u64,
    /// The login that it is of, where there is a refresh token.
    #[serde(rename = "sid", default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
}

/// Whose a token is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holder {
    /// Whoever had the API key of this name: its permissions are the token's, as they are at the moment.
    Key(Name),
    /// A user that a provider of the app vouched for.
    User(Box<User>),
}

/// A user, and what the provider said of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The provider's name in the app.
    pub provider: Name,
    /// What the provider calls the user.
    pub id: String,
    /// Roles of the app: what they allow is looked up at the moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Name>,
    /// What the provider allows itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
    /// What conditions can use as `:claims`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
}

fn header(kid: &str) -> String {
    header_of("JWT", kid)
}

fn header_of(kind: &str, kid: &str) -> String {
    // Key ids are hexadecimal digits that were made here.
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","typ":"{kind}","kid":"{kid}"}}"#))
}

/// A list of revocations as text, signed with `pair`, which is known as `kid`. Its header is of another type than a token's,
/// so neither is ever taken for the other.
pub(crate) fn sign_revocations(claims: &Value, kid: &str, pair: &Ed25519KeyPair) -> Result<String, serde_json::Error> {
    Ok(signed(header_of("bigpeer-revocations+jwt", kid), &serde_json::to_vec(claims)?, pair))
}

fn signed(header: String, claims: &[u8], pair: &Ed25519KeyPair) -> String {
    let mut text = header + "." + &URL_SAFE_NO_PAD.encode(claims);
    let signature = pair.sign(text.as_bytes());
    text.push('.');
    text.push_str(&URL_SAFE_NO_PAD.encode(signature));
    text
}

impl AccessToken {
    /// The token as text, signed with `pair`, which is known as `kid`.
    pub(crate) fn sign(&self, kid: &str, pair: &Ed25519KeyPair) -> Result<String, serde_json::Error> {
        Ok(signed(header(kid), &serde_json::to_vec(self)?, pair))
    }

    /// Reads `text` when it was signed with one of `keys` (key id and public key), and says with which. Says nothing about
    /// time, app or holder.
    pub(crate) fn verify<'k>(
        text: &str,
        keys: impl IntoIterator<Item = (&'k str, &'k [u8; 32])>,
    ) -> Option<(Self, &'k str)> {
        if text.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let (kid, public) = keys.into_iter().find(|(kid, _)| header(kid) == head)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        UnparsedPublicKey::new(&ED25519, public).verify(signed.as_bytes(), &signature).ok()?;
        let token = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        Some((token, kid))
    }
}

#[cfg(test)]
mod tests;
