//! What apps have used, as far as it is counted by the processes and not by the log: written now and then.
//!
//! # Crash safety
//! A process that is killed loses what it has counted since it wrote last, [`EVERY`] at most; one whose commit has an unknown
//! outcome may lose as much. Nothing is counted twice. What must be exact is not in here: see `bigpeer_tables::Written`.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_log::{MetaError, MetaOp};
use bigpeer_types::AppId;
use serde::{Deserialize, Serialize};

use super::keys::Key;
use super::{ATTEMPTS, Catalogue, CatalogueError, records};
use crate::Shutdown;

/// How often it is written.
const EVERY: Duration = Duration::from_secs(10);

/// What an app has used since it was made, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Requests that were admitted: statements, queries, attachments, streams.
    pub requests: u64,
    /// Requests that its quota did not allow.
    pub requests_refused: u64,
    /// Bytes of requests, and of what peers sent.
    pub bytes_in: u64,
    /// Bytes of answers over HTTP, and of what peers were sent.
    pub bytes_out: u64,
    /// Milliseconds that SQL queries ran.
    pub sql_ms: u64,
}

impl Usage {
    /// Adds what was used besides.
    pub fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.requests_refused = self.requests_refused.saturating_add(other.requests_refused);
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.sql_ms = self.sql_ms.saturating_add(other.sql_ms);
    }

    pub(crate) fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Catalogue {
    /// What the app has used: what was written, and what this process has counted since.
    ///
    /// # Errors
    /// When the log cannot be asked.
    pub async fn usage(&self, app: &AppId) -> Result<Usage, CatalogueError> {
        let mut usage: Usage = self.get(&Key::Usage(app.clone())).await?.unwrap_or_default();
        usage.add(self.meter(app).usage());
        Ok(usage)
    }

    /// Writes what was used since this was called last.
    ///
    /// # Errors
    /// When the log does not take it; it is written the next time.
    pub async fn write_usage(&self) -> Result<(), CatalogueError> {
        for (app, meter) in self.meters().used() {
            let used = meter.take_usage();
            if let Err(error) = self.add_usage(&app, used).await {
                meter.put_back(used);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn add_usage(&self, app: &AppId, used: Usage) -> Result<(), CatalogueError> {
        let key = Key::Usage(app.clone());
        for _ in 0..ATTEMPTS {
            let stored = self.log.metadata().get(&key.encode()).await?;
            let mut usage: Usage =
                stored.as_ref().map(|stored| records::decode(&key, &stored.value)).transpose()?.unwrap_or_default();
            usage.add(used);
            let ops = vec![
                MetaOp::Check { key: key.encode(), revision: stored.map(|stored| stored.revision) },
                MetaOp::Put { key: key.encode(), value: records::encode(&usage)? },
            ];
            match self.log.metadata().commit(ops).await {
                // Rather lost than twice.
                Ok(_) | Err(MetaError::Unknown { .. }) => return Ok(()),
                Err(MetaError::Conflict { .. }) => {}
                Err(error @ (MetaError::Rejected { .. } | MetaError::Unavailable { .. })) => return Err(error.into()),
            }
        }
        Err(CatalogueError::Busy)
    }

    /// Writes what is used now and then, until the shutdown. After that [`Self::write_usage`] writes what is left.
    pub async fn keep_usage(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = self.write_usage().await {
                tracing::warn!(%error, "what apps have used could not be written; it is written the next time");
            }
        }
    }
}
