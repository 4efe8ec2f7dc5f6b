//! `Readers`: who still needs what lies behind the manifest, in this process or another.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bigpeer_types::{AppId, Lsn};

/// What readers of an app need of its past, and how much of it they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Everything behind this position is needed, and the state at it.
    pub after: Lsn,
    /// How long it is kept for them.
    pub keep: Duration,
    /// How much is kept for them: bytes of changes, as they were in memory before they were flushed.
    pub keep_bytes: u64,
}

/// Readers of an app's past that are not to lose it, up to limits.
#[async_trait]
pub trait Readers: Send + Sync + fmt::Debug {
    /// What they need; none: nobody needs anything.
    ///
    /// # Errors
    /// Why it cannot be said now: then nothing is given up until it can.
    async fn needed(&self, app: &AppId) -> Result<Option<Needed>, String>;
}
