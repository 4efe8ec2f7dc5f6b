//! The catalogue: tenants, apps, API keys, admin tokens, token keys and sites, in the log's metadata space.
//!
//! # Consistency
//! Changes are compare-and-swap commits, so of two that race one wins and the other sees it. Lookups are synchronous, from
//! a view in memory that is read anew when the log says that something changed; after a change through this process the
//! view holds it before the call returns.
//!
//! # Crash safety
//! Each change is one atomic commit. Of an unknown commit the outcome is read before it is tried again.

mod authorities;
mod identity;
mod keys;
mod logins;
mod records;
mod sealing;
mod signing;
#[cfg(test)]
mod tests;
mod view;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bigpeer_log::{MetaError, MetaOp, TransactionLog};
use bigpeer_types::{AppId, Clock, IdGenerator, SiteId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::watch;

pub(crate) use authorities::AUTHORITY_NAME_DER;
pub use authorities::{AUTHORITY_PUBLISHED_BEFORE_MS, IssuedCertificate, MAX_CERTIFICATE_TTL_SECS, PublishedAuthority};
pub use identity::{Algorithm, Oidc, Provider, ProviderKind, ProviderSpec, Revocation, Revoked, Role, provider_place};
pub use keys::{Key, Name, NameError};
pub use logins::{Granted, LoginTimes, is_refresh_token};
use records::{Admin, AppName, Sites};
pub use records::{ApiKey, ApiKeySpec, App, KeyLimits, Tenant};
use ring::signature::Ed25519KeyPair;
pub(crate) use signing::SigningKeys;
pub use signing::{MAX_TOKEN_TTL_SECS, PUBLISHED_BEFORE_MS, PublishedKey, ROTATE_AFTER_MS};
pub(crate) use view::View;

use crate::authenticate::Proven;
use crate::keyring::Keyring;
use crate::secret::{self, Secret};
use crate::{ApiError, ErrorCode, Recent};

/// How often a change is tried again when others change the same.
const ATTEMPTS: usize = 64;
/// How long a failed reading of the catalogue waits before the next.
const RELOAD_PAUSE: Duration = Duration::from_millis(200);

/// Why the catalogue did not do as asked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CatalogueError {
    /// What it should belong to does not exist.
    #[error("there is no {what} '{name}'")]
    NotFound {
        /// A tenant or an app.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Others kept changing the same; nothing was changed.
    #[error("others are changing the same; try again")]
    Busy,
    /// Over a limit of the log; nothing was changed.
    #[error("the catalogue refused: {reason}")]
    Rejected {
        /// Which.
        reason: String,
    },
    /// The log cannot be asked now; nothing was changed.
    #[error("the catalogue is not available: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The change may have happened.
    #[error("it is not known whether the catalogue changed: {reason}")]
    Unknown {
        /// Why.
        reason: String,
    },
    /// Stored bytes that this version cannot read.
    #[error("the catalogue's entry {key} cannot be read: {reason}")]
    Corrupt {
        /// Under which key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

impl From<CatalogueError> for ApiError {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::NotFound { .. } => Self::new(ErrorCode::NotFound, error.to_string()),
            CatalogueError::Busy => Self::new(ErrorCode::Conflict, error.to_string()),
            CatalogueError::Rejected { .. } => Self::new(ErrorCode::BadRequest, error.to_string()),
            CatalogueError::Unavailable { .. } => Self::new(ErrorCode::Unavailable, "the catalogue cannot be reached"),
            CatalogueError::Unknown { .. } => {
                Self::new(ErrorCode::Unknown, "it is not known whether the change was made; look, and try again")
            }
            CatalogueError::Corrupt { .. } => Self::internal(&error),
        }
    }
}

/// Tenants, apps, keys and sites, with a watched view for synchronous lookups.
#[derive(Debug)]
pub struct Catalogue {
    log: Arc<dyn TransactionLog>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdGenerator>,
    view: RwLock<Arc<View>>,
    /// Held while the view is read anew, so that an older reading never replaces a newer one.
    reloading: tokio::sync::Mutex<()>,
    changed: watch::Sender<u64>,
    /// Why the view may be old, if it may.
    stale: RwLock<Option<String>>,
    /// What secrets are sealed with.
    keyring: Keyring,
    /// Secret halves of signing keys, by key id: opening one takes longer than signing.
    ready: Recent<String, Arc<Ed25519KeyPair>>,
    /// Secret keys of authorities, by their ids.
    authority_keys: Recent<String, Arc<rcgen::KeyPair>>,
    /// Tokens whose signature was checked, by their text.
    proven: Recent<Box<str>, Arc<Proven>>,
}

impl Catalogue {
    /// [`Self::open_sealed`] without a master key: secrets are stored as they are.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn open(
        log: Arc<dyn TransactionLog>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdGenerator>,
    ) -> Result<Arc<Self>, CatalogueError> {
        Self::open_sealed(log, clock, ids, Keyring::none()).await
    }

    /// Reads the catalogue and watches it from now on, until the last reference is dropped. Its secrets are sealed with
    /// `keyring`.
    ///
    /// # Errors
    /// When it cannot be read; when something was sealed with a master key that is not there.
    pub async fn open_sealed(
        log: Arc<dyn TransactionLog>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdGenerator>,
        keyring: Keyring,
    ) -> Result<Arc<Self>, CatalogueError> {
        let mut changes = log.metadata().watch(Key::WATCHED.as_bytes());
        let view = View::load(log.metadata(), &keyring).await?;
        let catalogue = Arc::new(Self {
            changed: watch::Sender::new(view.revision),
            view: RwLock::new(Arc::new(view)),
            reloading: tokio::sync::Mutex::default(),
            stale: RwLock::default(),
            log,
            clock,
            ids,
            keyring,
            ready: Recent::default(),
            authority_keys: Recent::default(),
            proven: Recent::default(),
        });
        let weak = Arc::downgrade(&catalogue);
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                loop {
                    let Some(catalogue) = weak.upgrade() else { return };
                    let Err(error) = catalogue.reload().await else { break };
                    tracing::warn!(%error, "the catalogue changed and could not be read; the old one is in force");
                    drop(catalogue);
                    tokio::time::sleep(RELOAD_PAUSE).await;
                }
            }
        });
        Ok(catalogue)
    }

    /// The clock that decides what has expired.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// What secrets are sealed with.
    #[must_use]
    pub const fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    pub(crate) const fn proven(&self) -> &Recent<Box<str>, Arc<Proven>> {
        &self.proven
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells of every change of the catalogue: open sessions check their permissions again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether lookups are of what is stored.
    ///
    /// # Errors
    /// Why they may be old.
    pub fn is_fresh(&self) -> Result<(), String> {
        match &*self.stale.read().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(reason) => Err(reason.clone()),
        }
    }

    /// The app, if it exists.
    #[must_use]
    pub fn app(&self, app: &AppId) -> Option<App> {
        self.view().apps.get(app).cloned()
    }

    /// All apps, in order of their ids.
    #[must_use]
    pub fn apps(&self) -> Vec<App> {
        self.view().apps.values().cloned().collect()
    }

    /// The tenant's app of that name, if it exists.
    #[must_use]
    pub fn app_named(&self, tenant: &Name, name: &Name) -> Option<App> {
        let view = self.view();
        view.names.get(&(tenant.clone(), name.clone())).and_then(|app| view.apps.get(app)).cloned()
    }

    /// All tenants, in order of their names.
    #[must_use]
    pub fn tenants(&self) -> Vec<Tenant> {
        self.view().tenants.values().cloned().collect()
    }

    /// The app's API keys, in order of their names; never the secrets.
    #[must_use]
    pub fn api_keys(&self, app: &AppId) -> Vec<ApiKey> {
        self.view().keys.iter().filter(|((of, _), _)| of == app).map(|(_, key)| key.clone()).collect()
    }

    /// The app's API key of that name.
    #[must_use]
    pub fn api_key(&self, app: &AppId, name: &Name) -> Option<ApiKey> {
        self.view().keys.get(&(app.clone(), name.clone())).cloned()
    }

    /// Makes the tenant unless it exists.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn create_tenant(&self, name: &Name) -> Result<Tenant, CatalogueError> {
        let tenant = Tenant { name: name.clone(), created_ms: self.clock.now_ms() };
        self.create(&Key::Tenant(name.clone()), tenant, Vec::new()).await
    }

    /// Makes the tenant's app of that name, with a random id and a key for its tokens, unless it exists.
    ///
    /// # Errors
    /// When there is no such tenant, or the log does not take it.
    pub async fn create_app(&self, tenant: &Name, name: &Name) -> Result<App, CatalogueError> {
        let id = self.new_app_id()?;
        self.create_app_as(id, tenant, name, Vec::new()).await
    }

    /// An id for an app that is not made yet.
    ///
    /// # Errors
    /// None that is seen.
    pub fn new_app_id(&self) -> Result<AppId, CatalogueError> {
        AppId::new(&self.ids.uuid()).map_err(|error| CatalogueError::Rejected { reason: error.to_string() })
    }

    /// Makes an app of an id from [`Self::new_app_id`] whose documents are those of `origin`: none of their sites is given
    /// away again.
    ///
    /// # Errors
    /// [`CatalogueError::Busy`] when the tenant has an app of that name; as [`Self::create_app`].
    pub async fn create_clone(&self, id: AppId, origin: &App, name: &Name) -> Result<App, CatalogueError> {
        let sites = self.get::<Sites>(&Key::Sites(origin.id.clone())).await?.unwrap_or_default();
        let with = vec![MetaOp::Put { key: Key::Sites(id.clone()).encode(), value: records::encode(&sites)? }];
        let made = self.create_app_as(id.clone(), &origin.tenant, name, with).await?;
        if made.id == id { Ok(made) } else { Err(CatalogueError::Busy) }
    }

    async fn create_app_as(
        &self,
        id: AppId,
        tenant: &Name,
        name: &Name,
        mut with: Vec<MetaOp>,
    ) -> Result<App, CatalogueError> {
        if self.get::<Tenant>(&Key::Tenant(tenant.clone())).await?.is_none() {
            return Err(CatalogueError::NotFound { what: "tenant", name: tenant.to_string() });
        }
        let app = App { id: id.clone(), tenant: tenant.clone(), name: name.clone(), created_ms: self.clock.now_ms() };
        with.extend([
            MetaOp::Put { key: Key::App(id.clone()).encode(), value: records::encode(&app)? },
            self.first_signing_key(&id)?,
        ]);
        let named = self.create(&Key::AppName(tenant.clone(), name.clone()), AppName { app: id }, with).await?;
        let key = Key::App(named.app.clone());
        self.get(&key).await?.ok_or(CatalogueError::NotFound { what: "app", name: named.app.to_string() })
    }

    /// Makes the app's API key of that name; the secret is in this answer only. If the key exists its permissions, end
    /// and limits become those given, and there is no secret in the answer.
    ///
    /// # Errors
    /// When there is no such app, or the log does not take it.
    pub async fn put_api_key(
        &self,
        app: &AppId,
        name: &Name,
        spec: ApiKeySpec,
    ) -> Result<(ApiKey, Option<Secret>), CatalogueError> {
        if self.get::<App>(&Key::App(app.clone())).await?.is_none() {
            return Err(CatalogueError::NotFound { what: "app", name: app.to_string() });
        }
        let secret = Secret::generate("bpk", self.ids.as_ref());
        let new = ApiKey {
            name: name.clone(),
            prefix: secret::prefix_of(secret.expose()).unwrap_or_default().to_owned(),
            hash: secret::hash(secret.expose()),
            permissions: spec.permissions,
            expires_at_ms: spec.expires_at_ms,
            limits: spec.limits,
            created_ms: self.clock.now_ms(),
        };
        let stored = self
            .change(&Key::ApiKey(app.clone(), name.clone()), Vec::new(), |old: Option<&ApiKey>| match old {
                None => new.clone(),
                Some(old) => ApiKey {
                    permissions: new.permissions.clone(),
                    expires_at_ms: new.expires_at_ms,
                    limits: new.limits,
                    ..old.clone()
                },
            })
            .await?;
        let is_mine = stored.hash == new.hash;
        Ok((stored, is_mine.then_some(secret)))
    }

    /// Removes an API key; from then on it opens nothing, and neither do tokens given for it.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete_api_key(&self, app: &AppId, name: &Name) -> Result<(), CatalogueError> {
        let key = Key::ApiKey(app.clone(), name.clone()).encode();
        self.log.metadata().commit(vec![MetaOp::Delete { key }]).await?;
        self.reload().await
    }

    /// Makes the admin token of that name; the secret is in this answer only, none if it exists.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn create_admin(&self, name: &Name) -> Result<Option<Secret>, CatalogueError> {
        let secret = Secret::generate("bpa", self.ids.as_ref());
        let admin = Admin {
            prefix: secret::prefix_of(secret.expose()).unwrap_or_default().to_owned(),
            hash: secret::hash(secret.expose()),
            created_ms: self.clock.now_ms(),
        };
        let stored = self.create(&Key::Admin(name.clone()), admin.clone(), Vec::new()).await?;
        Ok((stored == admin).then_some(secret))
    }

    /// Removes an admin token.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete_admin(&self, name: &Name) -> Result<(), CatalogueError> {
        let key = Key::Admin(name.clone()).encode();
        self.log.metadata().commit(vec![MetaOp::Delete { key }]).await?;
        self.reload().await
    }

    /// Gives away a site of the app that was never given before.
    ///
    /// # Errors
    /// When there is no such app, or the log does not take it.
    pub async fn allocate_site(&self, app: &AppId) -> Result<SiteId, CatalogueError> {
        if !self.view().apps.contains_key(app) && self.get::<App>(&Key::App(app.clone())).await?.is_none() {
            return Err(CatalogueError::NotFound { what: "app", name: app.to_string() });
        }
        let key = Key::Sites(app.clone());
        for _ in 0..ATTEMPTS {
            let old = self.log.metadata().get(&key.encode()).await?;
            let last = match &old {
                Some(old) => records::decode::<Sites>(&key, &old.value)?.last,
                None => 0,
            };
            let next = last.checked_add(1).ok_or(CatalogueError::Busy)?;
            let ops = vec![
                MetaOp::Check { key: key.encode(), revision: old.map(|old| old.revision) },
                MetaOp::Put { key: key.encode(), value: records::encode(&Sites { last: next })? },
            ];
            match self.log.metadata().commit(ops).await {
                Ok(_) => return Ok(SiteId::new(next)),
                // After an unknown commit a number may be lost, which is nothing: the next one is free for sure.
                Err(MetaError::Conflict { .. } | MetaError::Unknown { .. }) => {}
                Err(error @ (MetaError::Rejected { .. } | MetaError::Unavailable { .. })) => return Err(error.into()),
            }
        }
        Err(CatalogueError::Busy)
    }

    /// Puts `record` and what belongs to it, unless something stands there already, which is then the answer.
    async fn create<T>(&self, key: &Key, record: T, with: Vec<MetaOp>) -> Result<T, CatalogueError>
    where
        T: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync,
    {
        self.change(key, with, |old: Option<&T>| old.unwrap_or(&record).clone()).await
    }

    /// Replaces what stands under `key` by what `make` makes of it, with `with` in the same commit if nothing stood there.
    async fn change<T, F>(&self, key: &Key, with: Vec<MetaOp>, make: F) -> Result<T, CatalogueError>
    where
        T: Serialize + DeserializeOwned + PartialEq + Send + Sync,
        F: Fn(Option<&T>) -> T + Send + Sync,
    {
        for _ in 0..ATTEMPTS {
            let stored = self.log.metadata().get(&key.encode()).await?;
            let old: Option<T> = match &stored {
                Some(stored) => Some(records::decode(key, &stored.value)?),
                None => None,
            };
            let new = make(old.as_ref());
            if old.as_ref() == Some(&new) {
                self.reload().await?;
                return Ok(new);
            }
            let mut ops = vec![MetaOp::Check { key: key.encode(), revision: stored.map(|stored| stored.revision) }];
            ops.push(MetaOp::Put { key: key.encode(), value: records::encode(&new)? });
            if old.is_none() {
                ops.extend(with.iter().cloned());
            }
            match self.log.metadata().commit(ops).await {
                Ok(_) => {
                    self.reload().await?;
                    return Ok(new);
                }
                Err(MetaError::Conflict { .. } | MetaError::Unknown { .. }) => {}
                Err(error @ (MetaError::Rejected { .. } | MetaError::Unavailable { .. })) => return Err(error.into()),
            }
        }
        Err(CatalogueError::Busy)
    }

    async fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, CatalogueError> {
        let stored = self.log.metadata().get(&key.encode()).await?;
        stored.map(|stored| records::decode(key, &stored.value)).transpose()
    }

    async fn reload(&self) -> Result<(), CatalogueError> {
        let _one_at_a_time = self.reloading.lock().await;
        let loaded = View::load(self.log.metadata(), &self.keyring).await;
        let stale = loaded.as_ref().err().map(ToString::to_string);
        *self.stale.write().unwrap_or_else(PoisonError::into_inner) = stale;
        let view = loaded?;
        let revision = view.revision;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        self.changed.send_replace(revision);
        Ok(())
    }
}
