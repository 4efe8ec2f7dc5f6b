//! What an app may use: its quota, in force within a second everywhere.

use std::sync::Arc;

use bigpeer_types::AppId;
use serde::{Deserialize, Serialize};

use super::keys::Key;
use super::records::KeyLimits;
use super::{Catalogue, CatalogueError};

/// What an app may use. Of what is not named it may use as much as the server has. What is counted by the second or at once is
/// counted by each process for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Requests a second: statements, queries, attachments, streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// Requests at once after a silence; without, those of one second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_burst: Option<u32>,
    /// Requests a second of each key or user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_requests_per_second: Option<u32>,
    /// Bytes a second that come in: bodies of requests, frames of peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_in_per_second: Option<u64>,
    /// Sync sessions at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Subscriptions of all sessions together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<u32>,
    /// Subscriptions of one session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_subscriptions: Option<u32>,
    /// Bytes of stored documents and attachments; beyond, only deletions are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_bytes: Option<u64>,
    /// SQL queries at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql_queries: Option<u32>,
    /// Seconds that a SQL query may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql_time_secs: Option<u32>,
    /// Bytes of memory for sorts, joins and groups of a SQL query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql_memory_bytes: Option<u64>,
    /// Bytes of changes that are kept for feeds that lag, at most; beyond, they meet a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed_lag_bytes: Option<u64>,
}

impl Quota {
    /// What a key with `limits` may use in an app with this quota: the less of both.
    #[must_use]
    pub fn within(&self, limits: KeyLimits) -> KeyLimits {
        KeyLimits {
            sql_queries: less(self.sql_queries, limits.sql_queries),
            sql_time_secs: less(self.sql_time_secs, limits.sql_time_secs),
            sql_memory_bytes: less(self.sql_memory_bytes, limits.sql_memory_bytes),
            requests_per_second: less(self.key_requests_per_second, limits.requests_per_second),
            ..limits
        }
    }
}

/// The less of both; what is not given is no limit.
fn less<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

impl Catalogue {
    /// What the app may use.
    #[must_use]
    pub fn quota(&self, app: &AppId) -> Arc<Quota> {
        self.view().quotas.get(app).cloned().unwrap_or_default()
    }

    /// Says what the app may use from now on: in open sessions, too.
    ///
    /// # Errors
    /// When there is no such app, or the log does not take it.
    pub async fn put_quota(&self, app: &AppId, quota: Quota) -> Result<Quota, CatalogueError> {
        let within = Key::App(app.clone());
        self.change(&Key::Quota(app.clone()), Some(&within), Vec::new(), |_: Option<&Quota>| quota.clone()).await
    }

    /// The app may use whatever the server has.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete_quota(&self, app: &AppId) -> Result<(), CatalogueError> {
        self.remove([Key::Quota(app.clone())]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::records;

    #[test]
    fn quotas_of_later_versions_are_read_and_misspelt_ones_refused() {
        let key = Key::Quota(AppId::new("a").unwrap());
        let quota = Quota { sessions: Some(3), ..Quota::default() };
        assert_eq!(records::encode(&quota).unwrap(), r#"{"version":1,"sessions":3}"#.as_bytes());
        let later = br#"{"version":1,"sessions":3,"what_is_to_come":[1]}"#;
        assert_eq!(records::decode::<Quota>(&key, later).unwrap(), quota);
        assert!(serde_json::from_str::<Quota>(r#"{"session": 3}"#).is_err());
        assert_eq!(serde_json::from_str::<Quota>("{}").unwrap(), Quota::default());
    }

    #[test]
    fn a_key_has_the_less_of_what_it_and_its_app_may() {
        let quota = Quota { sql_queries: Some(2), sql_time_secs: Some(9), ..Quota::default() };
        let limits =
            KeyLimits { sql_queries: Some(7), sql_scan_bytes: Some(1), sql_time_secs: Some(3), ..KeyLimits::default() };
        let both = quota.within(limits);
        assert_eq!((both.sql_queries, both.sql_time_secs), (Some(2), Some(3)));
        assert_eq!((both.sql_memory_bytes, both.sql_scan_bytes), (None, Some(1)));
    }
}
