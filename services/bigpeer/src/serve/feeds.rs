//! Change feeds: what they need of the other roles, and what they keep the compactor from giving up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bigpeer_changefeed::{ChangefeedContext, ChangefeedSettings, FeedError, Registry};
use bigpeer_chassis::Catalogue;
use bigpeer_compactor::{Needed, Readers};
use bigpeer_types::AppId;

use super::Parts;

/// What streams and feeds need.
pub(super) fn context(parts: &Parts, allow_private_receivers: bool, is_alone: bool) -> ChangefeedContext {
    // Of an embedded log there is one process: what worked on a feed before was this one.
    let process = is_alone.then(|| "embedded".to_owned());
    let settings = ChangefeedSettings { allow_private_receivers, process, ..ChangefeedSettings::default() };
    let context = ChangefeedContext::new(
        Arc::clone(&parts.catalogue),
        Arc::clone(&parts.log),
        Arc::clone(&parts.stores) as _,
        (Arc::clone(&parts.clock), Arc::clone(&parts.ids)),
        settings,
        parts.shutdown.clone(),
    );
    with_kafka(context)
}

#[cfg(feature = "kafka")]
fn with_kafka(context: ChangefeedContext) -> ChangefeedContext {
    context.with_kafka(Arc::new(bigpeer_kafka::Librdkafka))
}

#[cfg(not(feature = "kafka"))]
const fn with_kafka(context: ChangefeedContext) -> ChangefeedContext {
    context
}

/// Feeds as readers of the past: as much of it as their app's quota allows.
#[derive(Debug)]
pub(super) struct FeedReaders {
    pub(super) feeds: Registry,
    pub(super) catalogue: Arc<Catalogue>,
}

#[async_trait]
impl Readers for FeedReaders {
    async fn needed(&self, app: &AppId) -> Result<Option<Needed>, String> {
        let told = |error: FeedError| error.to_string();
        let Some(after) = self.feeds.needed(app).await.map_err(told)? else { return Ok(None) };
        let kept = self.feeds.retention(app).await.map_err(told)?;
        let keep_bytes = kept.bytes.min(self.catalogue.quota(app).feed_lag_bytes.unwrap_or(u64::MAX));
        Ok(Some(Needed { after, keep: Duration::from_secs(kept.secs), keep_bytes }))
    }
}
