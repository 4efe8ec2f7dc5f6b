//! When to publish collections as tables for outside readers.

use std::collections::BTreeMap;
use std::time::Duration;

use bigpeer_tables::manifest::{CollectionSettings, PublicationMode};
use bigpeer_types::CollectionName;

use crate::{Compactor, CompactorError, Pause};

/// What was published of a collection last, or tried to be.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// None until there was something to publish.
    at: Option<Duration>,
    manifest: u64,
}

impl Compactor {
    /// Changes what is to be done with a collection.
    ///
    /// # Errors
    /// As [`Self::run`]; also failures that may pass.
    pub async fn configure(
        &self,
        collection: &CollectionName,
        settings: CollectionSettings,
    ) -> Result<(), CompactorError> {
        self.writer.configure(collection, settings).await?;
        self.changed.notify_one();
        Ok(())
    }

    pub(crate) async fn publish_for_ever(&self) -> CompactorError {
        let mut last = BTreeMap::new();
        let mut pause = Pause::default();
        loop {
            let next = match self.publish_what_is_due(&mut last).await {
                Ok(next) => {
                    pause.reset();
                    next
                }
                Err(error) if error.is_retryable() => {
                    pause.after(&error, "publication", &self.store).await;
                    continue;
                }
                Err(error) => return error,
            };
            let later = async {
                match next {
                    Some(next) => tokio::time::sleep(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = later => {}
            }
        }
    }

    /// Publishes what is due; how long until something may be due that is not now.
    async fn publish_what_is_due(
        &self,
        last: &mut BTreeMap<CollectionName, Last>,
    ) -> Result<Option<Duration>, CompactorError> {
        let mut next: Option<Duration> = None;
        for (collection, settings) in self.store.collection_settings() {
            let Some(publication) = settings.publication else { continue };
            let (now, manifest) = (self.settings.clock.monotonic(), self.store.manifest_number());
            let before = last.get(&collection);
            if before.is_some_and(|before| before.manifest == manifest) {
                continue;
            }
            let at = before.and_then(|before| before.at);
            let interval = Duration::from_secs(publication.interval_secs);
            let wait = match publication.mode {
                PublicationMode::DeletionVectors => Duration::ZERO,
                PublicationMode::Compatible => at.map_or(Duration::ZERO, |at| (at + interval).saturating_sub(now)),
            };
            if wait > Duration::ZERO {
                next = Some(next.map_or(wait, |next| next.min(wait)));
                continue;
            }
            let published = self.writer.publish(&collection).await?;
            let at = if published.is_some() || at.is_some() { Some(now) } else { None };
            // Of the manifest that was the newest before: what came meanwhile is for the next version.
            last.insert(collection, Last { at, manifest });
        }
        Ok(next)
    }
}
