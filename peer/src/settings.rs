//! What a peer is opened and connected with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bigpeer_types::{AppId, Clock, IdGenerator, RandomIds, SiteId, SystemClock};

use crate::{Network, SystemNetwork};

/// How to open a local store.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// The directory that holds the store. It is made, readable by this user only, when it does not exist.
    pub store_dir: PathBuf,
    /// DQL's strict mode: objects are written whole, as one value. Off: key by key, so that concurrent changes of
    /// different keys merge.
    pub strict: bool,
    /// Bytes of attachments above which the least recently used go. Those that the server does not have yet stay.
    pub attachment_cache_bytes: u64,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where ids of documents inserted without `_id`, and the jitter of reconnecting, come from.
    pub ids: Arc<dyn IdGenerator>,
}

impl PeerSettings {
    /// The machine's clock and randomness, not strict.
    #[must_use]
    pub fn new(store_dir: impl Into<PathBuf>) -> Self {
        Self {
            store_dir: store_dir.into(),
            strict: false,
            attachment_cache_bytes: 1 << 30,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
        }
    }
}

/// Text that must not be shown: `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends or stores it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// What a peer proves who it is with.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// An API key: exchanged for a site and a token at `POST /{app}/auth/login`, and again when the token expires.
    ApiKey(Secret),
    /// A site and a token from elsewhere. When the token has expired the session ends and stays ended.
    Token {
        /// The site that the token is for.
        site: SiteId,
        /// The access token.
        token: Secret,
    },
}

/// Which bigpeer to sync with, and how to come back after the connection was lost.
#[derive(Clone, Debug)]
pub struct ConnectSettings {
    /// Base URL of the server: `http://…`, `https://…`, `ws://…` or `wss://…`.
    pub url: String,
    /// The app. A store belongs to the first app that it connected to.
    pub app: AppId,
    /// Who the peer is.
    pub credentials: Credentials,
    /// Name and version of the device, for the list of connected devices.
    pub device: String,
    /// First delay before reconnecting; doubled after every failure, with jitter.
    pub backoff_min: Duration,
    /// Longest delay before reconnecting.
    pub backoff_max: Duration,
    /// How long connecting, logging in and the server's welcome may take.
    pub connect_timeout: Duration,
    /// How long the server may be silent before the connection counts as lost (the peer pings at a third of it).
    pub idle_timeout: Duration,
    /// What carries connections and requests.
    pub network: Arc<dyn Network>,
}

impl ConnectSettings {
    /// Production's defaults, with an API key.
    #[must_use]
    pub fn new(url: impl Into<String>, app: AppId, api_key: impl Into<Secret>) -> Self {
        Self {
            url: url.into(),
            app,
            credentials: Credentials::ApiKey(api_key.into()),
            device: concat!("bigpeer-peer ", env!("CARGO_PKG_VERSION")).to_owned(),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            network: Arc::new(SystemNetwork::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let app = AppId::new("an-app").expect("valid");
        let settings = ConnectSettings::new("http://localhost:8080", app, "very-secret");
        assert!(!format!("{settings:?}").contains("very-secret"));
        assert_eq!(format!("{:?}", Secret::new("very-secret")), "***");
    }
}
