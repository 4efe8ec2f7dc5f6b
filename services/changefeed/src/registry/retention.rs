//! `Retention`: how much of an app's past is kept for feeds that lag.

use bigpeer_chassis::ApiError;
use bigpeer_log::MetaOp;
use bigpeer_types::AppId;
use serde::{Deserialize, Serialize};

use super::keys::Key;
use super::{Registry, encode};
use crate::error::FeedError;

/// Longest time for which the past of an app can be kept, in seconds.
const MAX_SECS: u64 = 90 * 24 * 3600;
/// Most of it, in bytes.
const MAX_BYTES: u64 = 1 << 40;

/// How much of an app's past is kept for its feeds that lag. Beyond, they meet a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// How long, in seconds.
    pub secs: u64,
    /// How much, in bytes of changes, as they were in memory before they were flushed.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { secs: 24 * 3600, bytes: 4 << 30 }
    }
}

impl Retention {
    /// Refuses what cannot be kept.
    ///
    /// # Errors
    /// Says what, and what is allowed.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.secs > MAX_SECS {
            return Err(format!("'secs' must be at most {MAX_SECS} (90 days)"));
        }
        if self.bytes > MAX_BYTES {
            return Err(format!("'bytes' must be at most {MAX_BYTES} (1 TiB)"));
        }
        Ok(())
    }
}

/// A field of its own, so that what is stored can grow.
#[derive(Serialize, Deserialize)]
struct Record {
    retention: Retention,
}

impl Registry {
    /// How much of the app's past is kept for its feeds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn retention(&self, app: &AppId) -> Result<Retention, FeedError> {
        let stored = self.get::<Record>(&Key::Retention(app.clone())).await?;
        Ok(stored.map(|stored| stored.record.retention).unwrap_or_default())
    }

    /// Says how much of the app's past is kept for its feeds from now on.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn retain(&self, app: &AppId, retention: Retention) -> Result<(), FeedError> {
        let key = Key::Retention(app.clone()).encode();
        let value = encode(&Record { retention })?;
        self.log.metadata().commit(vec![MetaOp::Put { key, value }]).await?;
        Ok(())
    }

    /// Removes all that is kept of a deleted app: its feeds, what they gave up, how much is kept for them. May be repeated.
    ///
    /// # Errors
    /// When the log does not take it; what was removed until then is.
    pub async fn forget_app(&self, app: &AppId) -> Result<(), ApiError> {
        for (_, name, _) in self.list(Some(app)).await? {
            self.delete(app, &name).await?;
        }
        let key = Key::Retention(app.clone()).encode();
        self.log.metadata().commit(vec![MetaOp::Delete { key }]).await.map_err(FeedError::from)?;
        Ok(())
    }
}
