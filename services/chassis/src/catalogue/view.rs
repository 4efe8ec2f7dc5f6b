//! The catalogue in memory, as of one moment: what every request is looked up in, without waiting.

use std::collections::BTreeMap;
use std::sync::Arc;

use bigpeer_log::{MetaError, Metadata};
use bigpeer_types::AppId;

use super::authorities::Authorities;
use super::identity::{Provider, Revocations, Role};
use super::keys::{Key, Name};
use super::quota::Quota;
use super::records::{self, AdminToken, ApiKey, App, Tenant};
use super::uses::Use;
use super::{CatalogueError, SigningKeys};
use crate::authenticate::Checked;
use crate::keyring::Keyring;
use crate::{Door, Permissions, Recent};

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
    /// What keys allow, with conditions in DQL and without parameters.
    pub(crate) effective: BTreeMap<(AppId, Name), Arc<Permissions>>,
    pub(crate) signing: BTreeMap<AppId, SigningKeys>,
    pub(crate) authorities: BTreeMap<AppId, Authorities>,
    pub(crate) providers: BTreeMap<(AppId, Name), Arc<Provider>>,
    pub(crate) quotas: BTreeMap<AppId, Arc<Quota>>,
    pub(crate) roles: BTreeMap<(AppId, Name), Arc<Role>>,
    /// The revocations of each app, and their ids in the same order.
    pub(crate) revocations: BTreeMap<AppId, (Vec<Name>, Revocations)>,
    pub(crate) admins: BTreeMap<Name, AdminToken>,
    /// By prefix.
    pub(crate) admins_by_prefix: BTreeMap<String, Name>,
    /// The keys that open the admin API, by prefix.
    pub(crate) admin_keys: BTreeMap<String, (AppId, Name)>,
    /// When keys were used last, as far as this process knows.
    pub(crate) key_uses: BTreeMap<(AppId, Name), Arc<Use>>,
    /// When admin tokens were used last, as far as this process knows.
    pub(crate) admin_uses: BTreeMap<Name, Arc<Use>>,
    /// The newest revision that was read.
    pub(crate) revision: u64,
    /// Who carries a token, as long as this view is in force.
    pub(crate) checked: Recent<Box<str>, Arc<Checked>>,
}

impl View {
    /// Reads all of it.
    pub(crate) async fn load(metadata: &dyn Metadata, keyring: &Keyring) -> Result<Self, CatalogueError> {
        let mut view = Self::default();
        let mut after: Option<bytes::Bytes> = None;
        loop {
            let page = metadata.range(Key::WATCHED.as_bytes(), after.as_deref(), PAGE).await?;
            let full = page.len() == PAGE;
            for (key, value) in page {
                view.add(&key, &value.value, keyring)?;
                view.revision = view.revision.max(value.revision);
                after = Some(key);
            }
            if !full {
                return Ok(view);
            }
        }
    }

    /// Goes on with what the view before this one knows of uses.
    pub(crate) fn take_uses(&mut self, old: &Self) {
        for (name, used) in &mut self.key_uses {
            let same = |key: &ApiKey| self.keys.get(name).is_some_and(|new| new.hash == key.hash);
            if let Some(known) = old.key_uses.get(name).filter(|_| old.keys.get(name).is_some_and(same)) {
                *used = Arc::clone(known);
            }
        }
        for (name, used) in &mut self.admin_uses {
            let same = |token: &AdminToken| self.admins.get(name).is_some_and(|new| new.hash == token.hash);
            if let Some(known) = old.admin_uses.get(name).filter(|_| old.admins.get(name).is_some_and(same)) {
                *used = Arc::clone(known);
            }
        }
    }

    fn add(&mut self, key: &[u8], value: &[u8], keyring: &Keyring) -> Result<(), CatalogueError> {
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
                self.add_api_key((app.clone(), name.clone()), records::decode(&key, value)?);
            }
            Key::SigningKeys(app) => {
                let mut record: SigningKeys = records::decode(&key, value)?;
                for (_, sealed) in record.sealed(app) {
                    keyring.knows(sealed).map_err(|error| records::corrupt(&key, error.to_string()))?;
                }
                self.signing.insert(app.clone(), record);
            }
            Key::Authorities(app) => {
                let mut record: Authorities = records::decode(&key, value)?;
                for (_, sealed) in record.sealed(app) {
                    keyring.knows(sealed).map_err(|error| records::corrupt(&key, error.to_string()))?;
                }
                self.authorities.insert(app.clone(), record);
            }
            Key::Provider(app, name) => {
                let mut record: Provider = records::decode(&key, value)?;
                for sealed in record.sealed() {
                    keyring.knows(sealed).map_err(|error| records::corrupt(&key, error.to_string()))?;
                }
                self.providers.insert((app.clone(), name.clone()), Arc::new(record));
            }
            Key::Quota(app) => {
                self.quotas.insert(app.clone(), Arc::new(records::decode(&key, value)?));
            }
            Key::Role(app, name) => {
                self.roles.insert((app.clone(), name.clone()), Arc::new(records::decode(&key, value)?));
            }
            Key::Revocation(app, id) => {
                let (ids, revocations) = self.revocations.entry(app.clone()).or_default();
                revocations.add(records::decode(&key, value)?);
                ids.push(id.clone());
            }
            Key::Admin(name) => {
                let record: AdminToken = records::decode(&key, value)?;
                self.admins_by_prefix.insert(record.prefix.clone(), name.clone());
                self.admin_uses.insert(name.clone(), Arc::default());
                self.admins.insert(name.clone(), record);
            }
            // Nobody needs the first; the others are not below the watched prefix.
            Key::TokenKey(_)
            | Key::Sites(_)
            | Key::Login(..)
            | Key::Usage(_)
            | Key::Deleted(_)
            | Key::GivenUp(_)
            | Key::KeyUse(..)
            | Key::AdminUse(_)
            | Key::Audit(_) => {}
        }
        Ok(())
    }

    fn add_api_key(&mut self, of: (AppId, Name), key: ApiKey) {
        let (app, name) = &of;
        self.by_prefix.insert((app.clone(), key.prefix.clone()), name.clone());
        if key.scopes.contain(Door::Admin) {
            self.admin_keys.insert(key.prefix.clone(), of.clone());
        }
        self.key_uses.insert(of.clone(), Arc::default());
        self.effective.insert(of.clone(), Arc::new(key.permissions.bound(&serde_json::Map::new())));
        self.keys.insert(of, key);
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
