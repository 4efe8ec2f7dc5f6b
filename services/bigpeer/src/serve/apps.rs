//! Which apps there are, for tables that keep files for clones: what the catalogue says.

use std::sync::Arc;

use async_trait::async_trait;
use bigpeer_chassis::Catalogue;
use bigpeer_tables::Apps;
use bigpeer_types::AppId;

/// The catalogue's apps.
#[derive(Debug)]
pub(super) struct CatalogueApps(pub(super) Arc<Catalogue>);

#[async_trait]
impl Apps for CatalogueApps {
    async fn is_there(&self, app: &AppId) -> Result<bool, String> {
        self.0.is_there(app).await.map_err(|error| error.to_string())
    }

    async fn give_up(&self, app: &AppId) -> Result<bool, String> {
        self.0.give_up_app(app).await.map_err(|error| error.to_string())
    }
}
