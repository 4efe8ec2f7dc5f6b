//! `Readers`: who still needs what lies behind the manifest, in this process or another.

use std::fmt;

use async_trait::async_trait;
use bigpeer_types::{AppId, Lsn};

/// Readers of an app's past that are not to lose it, up to the limits in the settings.
#[async_trait]
pub trait Readers: Send + Sync + fmt::Debug {
    /// The position behind which everything is needed, and the state at which; none: nobody needs anything.
    ///
    /// # Errors
    /// Why it cannot be said now: then nothing is given up until it can.
    async fn needed(&self, app: &AppId) -> Result<Option<Lsn>, String>;
}
