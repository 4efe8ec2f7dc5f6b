//! What stands under the catalogue's keys: JSON with a version. A field that is added gets a default; anything else is a
//! new version, and the old one stays readable.

use bigpeer_types::AppId;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::CatalogueError;
use super::keys::{Key, Name};
use crate::{Doors, Permissions};

/// The version that is written.
const VERSION: u32 = 1;

/// A customer: owns apps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub name: Name,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
    /// Whether it is there to stay until somebody says otherwise.
    #[serde(default)]
    pub deletion_protection: bool,
}

/// One database, isolated in every way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Its id, in every path.
    pub id: AppId,
    /// Whose it is.
    pub tenant: Name,
    /// What its tenant calls it.
    pub name: Name,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
    /// Whether it is there to stay until somebody says otherwise. Apps hold data: those that do not say are.
    #[serde(default = "yes")]
    pub deletion_protection: bool,
}

const fn yes() -> bool {
    true
}

/// An app that is no more. Its id is never given to another: objects and transactions of it may still be around.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedApp {
    /// What it was.
    pub app: App,
    /// When it was deleted, in milliseconds since the epoch.
    pub deleted_ms: u64,
    /// Whether everything that the log's metadata space had of it is gone.
    pub cleared: bool,
}

/// An app that was being made, and that somebody gave up: it never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GivenUpApp {
    /// When that was, in milliseconds since the epoch.
    pub(super) given_up_ms: u64,
}

/// What a new API key is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiKeySpec {
    /// What it opens.
    pub permissions: Permissions,
    /// When it ends, in milliseconds since the epoch; never, without.
    pub expires_at_ms: Option<u64>,
    /// What it may use.
    pub limits: KeyLimits,
    /// The doors that it opens.
    pub scopes: Doors,
    /// What people say of it.
    pub description: Option<String>,
}

/// What a key may use, where that is less than what the server allows any key. Of what is not named the server decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// SQL queries at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql_queries: Option<u32>,
    /// Seconds that a SQL query may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql_time_secs: Option<u32>,
    /// Bytes of memory for sorts, joins and groups of a SQL query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql_memory_bytes: Option<u64>,
    /// Bytes of stored data that a SQL query may read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql_scan_bytes: Option<u64>,
    /// Requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
}

/// An API key at rest: everything but the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// What its app calls it.
    pub name: Name,
    /// What its secret starts with: to find it, and for people to recognize it.
    pub prefix: String,
    /// SHA-256 of the secret.
    #[serde(with = "hex")]
    pub(crate) hash: [u8; 32],
    /// What it opens.
    pub permissions: Permissions,
    /// When it ends, in milliseconds since the epoch; never, without.
    pub expires_at_ms: Option<u64>,
    /// What it may use.
    #[serde(default)]
    pub limits: KeyLimits,
    /// The doors that it opens.
    #[serde(default)]
    pub scopes: Doors,
    /// What people say of it.
    #[serde(default)]
    pub description: Option<String>,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
}

impl ApiKey {
    /// Whether it still opens anything at `now_ms`.
    #[must_use]
    pub fn is_active(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|end| now_ms < end)
    }
}

/// An admin token at rest: everything but the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminToken {
    /// What its secret starts with: to find it, and for people to recognize it.
    pub prefix: String,
    /// SHA-256 of the secret.
    #[serde(with = "hex")]
    pub(crate) hash: [u8; 32],
    /// What it administers. Those of before there was a choice: everything.
    #[serde(default)]
    pub scope: AdminScope,
    /// When it ends, in milliseconds since the epoch; never, without.
    #[serde(default)]
    pub expires_at_ms: Option<u64>,
    /// What people say of it.
    #[serde(default)]
    pub description: Option<String>,
    /// When it was made, in milliseconds since the epoch.
    pub created_ms: u64,
}

impl AdminToken {
    /// Whether it still opens anything at `now_ms`.
    #[must_use]
    pub fn is_active(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_none_or(|end| now_ms < end)
    }
}

/// What a new admin token is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminTokenSpec {
    /// What it administers.
    pub scope: AdminScope,
    /// When it ends, in milliseconds since the epoch; never, without.
    pub expires_at_ms: Option<u64>,
    /// What people say of it.
    pub description: Option<String>,
}

/// What an admin token administers: `"operator"` or `{"tenant": "acme"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminScope {
    /// The whole server.
    #[default]
    Operator,
    /// One tenant: its apps and all below them, and its admin tokens.
    Tenant(Name),
}

/// When a key or token was used last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastUse {
    pub(crate) last_used_ms: u64,
}

/// The id behind a tenant's name for an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppName {
    pub(crate) app: AppId,
}

/// The greatest site given away in an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sites {
    pub(crate) last: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    version: u32,
    #[serde(flatten)]
    record: T,
}

/// The bytes under a key.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<Bytes, CatalogueError> {
    serde_json::to_vec(&Stored { version: VERSION, record })
        .map(Bytes::from)
        .map_err(|error| CatalogueError::Corrupt { key: "(new)".to_owned(), reason: error.to_string() })
}

/// That what stands under `key` is of no use.
pub(crate) fn corrupt(key: &Key, reason: String) -> CatalogueError {
    CatalogueError::Corrupt { key: String::from_utf8_lossy(&key.encode()).into_owned(), reason }
}

/// Reads what stands under `key`.
pub(crate) fn decode<T: DeserializeOwned>(key: &Key, bytes: &[u8]) -> Result<T, CatalogueError> {
    let stored: Stored<T> = serde_json::from_slice(bytes).map_err(|error| corrupt(key, error.to_string()))?;
    if stored.version != VERSION {
        return Err(corrupt(key, format!("version {} is not known to this build; it knows {VERSION}", stored.version)));
    }
    Ok(stored.record)
}

/// 32 bytes as 64 hexadecimal digits.
pub(crate) mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let refused = || D::Error::custom("expected 64 hexadecimal digits");
        let mut out = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(refused());
        }
        for (place, pair) in out.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| refused())?;
            *place = u8::from_str_radix(pair, 16).map_err(|_| refused())?;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_other_versions_are_refused() {
        let key = Key::Sites(AppId::new("a").unwrap());
        assert_eq!(encode(&Sites { last: 7 }).unwrap(), r#"{"version":1,"last":7}"#.as_bytes());
        assert_eq!(decode::<Sites>(&key, br#"{"version":1,"last":7}"#).unwrap(), Sites { last: 7 });
        for bad in [r#"{"version":2,"last":7}"#, r#"{"last":7}"#, r#"{"version":1}"#, ""] {
            let error = decode::<Sites>(&key, bad.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("sites/a"), "{error}");
        }
    }
}
