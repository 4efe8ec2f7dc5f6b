//! What apps use, beside serving them: written now and then, and how much room their attachments take.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::{Catalogue, Shutdown};
use bigpeer_tables::Stores;
use tokio::task::JoinHandle;

use super::stores::AppStores;

/// How often attachments are looked at, of apps that may not store whatever they like.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Until the shutdown.
pub(super) async fn keep(catalogue: Arc<Catalogue>, stores: Arc<AppStores>, shutdown: Shutdown) {
    let looking = tokio::spawn(look(Arc::clone(&catalogue), stores, shutdown.clone()));
    catalogue.keep_usage(shutdown).await;
    looking.abort();
}

/// When nobody uses anything any more.
pub(super) async fn write_the_rest(catalogue: &Catalogue, keeping: JoinHandle<()>) {
    if let Err(error) = keeping.await {
        tracing::error!(%error, "the counting of what apps use did not end in order");
    }
    if let Err(error) = catalogue.write_usage().await {
        tracing::warn!(%error, "what apps have used in the last seconds could not be written");
    }
}

/// Looks at attachments now and then, and when the catalogue has changed.
async fn look(catalogue: Arc<Catalogue>, stores: Arc<AppStores>, shutdown: Shutdown) {
    let mut changes = catalogue.changes();
    loop {
        for app in catalogue.apps() {
            let Some(store) = stores.store(&app.id).filter(|_| catalogue.quota(&app.id).storage_bytes.is_some()) else {
                continue;
            };
            match store.attachment_bytes().await {
                Ok(bytes) => catalogue.meter(&app.id).set_attachment_bytes(bytes),
                Err(error) => tracing::warn!(app = %app.id, %error, "an app's attachments cannot be counted now"),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}
