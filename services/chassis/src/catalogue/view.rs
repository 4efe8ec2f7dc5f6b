//! The catalogue in memory, as of one moment: what every request is looked up in, without waiting.

use std::collections::BTreeMap;

use bigpeer_log::{MetaError, Metadata};
use bigpeer_types::AppId;

use super::CatalogueError;
use super::keys::{Key, Name};
use super::records::{self, Admin, ApiKey, App, Tenant, TokenKey};
use crate::Permissions;

const PAGE: usize = 1000;

/// Everything under [`Key::WATCHED`].
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) tenants: BTreeMap<Name, Tenant>,
    pub(crate) apps: BTreeMap<AppId, App>,
    pub(crate) names: BTreeMap<(Name, Name), AppId>,
    /// By app and name.
    pub(crate) keys: BTreeMap<(AppId, Name), ApiKey>,
    /// By app and prefix, to find the one that a request may carry.
    pub(crate) by_prefix: BTreeMap<(AppId, String), Name>,
    /// Permissions of keys whose conditions are of the older language, in DQL.
    pub(crate) effective: BTreeMap<(AppId, Name), Permissions>,
    pub(crate) token_keys: BTreeMap<AppId, TokenKey>,
    /// By prefix.
    pub(crate) admins: BTreeMap<String, Admin>,
    /// The newest revision that was read.
    pub(crate) revision: u64,
}

impl View {
    /// Reads all of it.
    pub(crate) async fn load(metadata: &dyn Metadata) -> Result<Self, CatalogueError> {
        let mut view = Self::default();
        let mut after: Option<bytes::Bytes> = None;
        loop {
            let page = metadata.range(Key::WATCHED.as_bytes(), after.as_deref(), PAGE).await?;
            let full = page.len() == PAGE;
            for (key, value) in page {
                view.add(&key, &value.value)?;
                view.revision = view.revision.max(value.revision);
                after = Some(key);
            }
            if !full {
                return Ok(view);
            }
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), CatalogueError> {
        let Some(key) = Key::decode(key) else {
            return Err(CatalogueError::Corrupt {
                key: String::from_utf8_lossy(key).into_owned(),
                reason: "not a key of the catalogue; it may be of a newer version".to_owned(),
            });
        };
        match &key {
            Key::Tenant(name) => {
                self.tenants.insert(name.clone(), records::decode(&key, value)?);
            }
            Key::AppName(tenant, name) => {
                let record: records::AppName = records::decode(&key, value)?;
                self.names.insert((tenant.clone(), name.clone()), record.app);
            }
            Key::App(app) => {
                self.apps.insert(app.clone(), records::decode(&key, value)?);
            }
            Key::ApiKey(app, name) => {
                let record: ApiKey = records::decode(&key, value)?;
                self.by_prefix.insert((app.clone(), record.prefix.clone()), name.clone());
                if record.permissions.ql_version == 0 {
                    self.effective.insert((app.clone(), name.clone()), record.permissions.in_dql());
                }
                self.keys.insert((app.clone(), name.clone()), record);
            }
            Key::TokenKey(app) => {
                self.token_keys.insert(app.clone(), records::decode(&key, value)?);
            }
            Key::Admin(_) => {
                let record: Admin = records::decode(&key, value)?;
                self.admins.insert(record.prefix.clone(), record);
            }
            // Not below the watched prefix.
            Key::Sites(_) => {}
        }
        Ok(())
    }
}

impl From<MetaError> for CatalogueError {
    fn from(error: MetaError) -> Self {
        match error {
            MetaError::Conflict { .. } => Self::Busy,
            MetaError::Rejected { reason } => Self::Rejected { reason },
            MetaError::Unavailable { reason } => Self::Unavailable { reason },
            MetaError::Unknown { reason } => Self::Unknown { reason },
        }
    }
}
