//! The catalogue: tenants, apps, API keys, admin tokens, token keys and sites, in the log's metadata space.
//!
//! # Consistency
//! Changes are compare-and-swap commits, so of two that race one wins and the other sees it. Lookups are synchronous, from
//! a view in memory that is read anew when the log says that something changed; after a change through this process the
//! view holds it before the call returns.
//!
//! # Crash safety
//! Each change is one atomic commit. Of an unknown commit the outcome is read before it is tried again.

mod audit;
mod authorities;
mod credentials;
mod identity;
mod keys;
mod logins;
mod quota;
mod records;
mod sealing;
mod signing;
mod sites;
mod tenancy;
#[cfg(test)]
mod tests;
mod usage;
mod uses;
mod view;

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bigpeer_log::{MetaError, MetaOp, TransactionLog};
use bigpeer_types::{AppId, Clock, IdGenerator, SiteId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::watch;

pub(crate) use audit::Audit;
pub use audit::{AuditCaller, AuditEntry, AuditQuery};
pub(crate) use authorities::AUTHORITY_NAME_DER;
pub use authorities::{AUTHORITY_PUBLISHED_BEFORE_MS, IssuedCertificate, MAX_CERTIFICATE_TTL_SECS, PublishedAuthority};
pub use identity::{Algorithm, Oidc, Provider, ProviderKind, ProviderSpec, Revocation, Revoked, Role, provider_place};
pub use keys::{Key, Name, NameError};
pub use logins::{Granted, LoginTimes, is_refresh_token};
pub use quota::Quota;
use records::Sites;
pub use records::{AdminScope, AdminToken, AdminTokenSpec, ApiKey, ApiKeySpec, App, DeletedApp, KeyLimits, Tenant};
use ring::signature::Ed25519KeyPair;
pub(crate) use signing::SigningKeys;
pub use signing::{MAX_TOKEN_TTL_SECS, PUBLISHED_BEFORE_MS, PublishedKey, ROTATE_AFTER_MS};
pub use usage::Usage;
pub(crate) use uses::Use;
pub(crate) use view::View;

use crate::authenticate::Proven;
use crate::guesses::Guesses;
use crate::keyring::Keyring;
use crate::meters::Meters;
use crate::{ApiError, ErrorCode, Recent};
use sites::SiteQueue;

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
    /// It is protected from deletion; nothing was changed.
    #[error("{what} '{name}' is protected from deletion; set 'deletion_protection' to false first")]
    Protected {
        /// A tenant or an app.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The tenant still has apps; nothing was changed.
    #[error("tenant '{name}' still has apps; delete them first")]
    NotEmpty {
        /// The tenant.
        name: String,
    },
    /// Nobody would administer the server any more; nothing was changed.
    #[error("this is the last operator's token that does not end; make another one first")]
    LastOperator,
    /// Somebody else has that name; nothing was changed.
    #[error("the name '{name}' is taken; choose another")]
    Taken {
        /// The name.
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
            CatalogueError::Busy
            | CatalogueError::Protected { .. }
            | CatalogueError::NotEmpty { .. }
            | CatalogueError::LastOperator
            | CatalogueError::Taken { .. } => Self::new(ErrorCode::Conflict, error.to_string()),
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
    /// Keys and tokens that were wrong.
    guesses: Guesses,
    /// What apps use.
    meters: Meters,
    /// What is written of uses of keys and tokens, in milliseconds since the epoch, by key of the metadata space.
    uses: uses::Written,
    /// What is asked of the admin API.
    audit: Audit,
    /// Who waits for sites.
    sites: Recent<AppId, Arc<SiteQueue>>,
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
            guesses: Guesses::default(),
            meters: Meters::default(),
            uses: uses::Written::default(),
            audit: Audit::default(),
            sites: Recent::default(),
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

    pub(crate) const fn guesses(&self) -> &Guesses {
        &self.guesses
    }

    pub(crate) const fn meters(&self) -> &Meters {
        &self.meters
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

    /// Gives away a site of the app that was never given before.
    ///
    /// # Errors
    /// When there is no such app, or the log does not take it.
    pub async fn allocate_site(&self, app: &AppId) -> Result<SiteId, CatalogueError> {
        if !self.view().apps.contains_key(app) && self.get::<App>(&Key::App(app.clone())).await?.is_none() {
            return Err(CatalogueError::NotFound { what: "app", name: app.to_string() });
        }
        let queue = self.sites.get(app).unwrap_or_else(|| {
            let new = Arc::new(SiteQueue::default());
            self.sites.add(app.clone(), Arc::clone(&new), sites::MAX_QUEUES);
            new
        });
        let _waits = queue.wait();
        let mut free = queue.free.lock().await;
        if free.is_empty() {
            *free = self.reserve_sites(app, queue.waiting()).await?;
        }
        free.next().map(SiteId::new).ok_or(CatalogueError::Busy)
    }

    /// Takes so many numbers of sites.
    async fn reserve_sites(&self, app: &AppId, count: u64) -> Result<Range<u64>, CatalogueError> {
        let key = Key::Sites(app.clone());
        for _ in 0..ATTEMPTS {
            let old = self.log.metadata().get(&key.encode()).await?;
            let last = match &old {
                Some(old) => records::decode::<Sites>(&key, &old.value)?.last,
                None => 0,
            };
            let next = last.checked_add(count).filter(|next| *next < u64::MAX).ok_or(CatalogueError::Busy)?;
            let ops = vec![
                MetaOp::Check { key: key.encode(), revision: old.map(|old| old.revision) },
                MetaOp::Put { key: key.encode(), value: records::encode(&Sites { last: next })? },
            ];
            // After an unknown commit a number may be lost, which is nothing: the next one is free for sure.
            if self.commit(ops).await? {
                return Ok(last + 1..next + 1);
            }
            // It may have been deleted in between.
            if self.get::<App>(&Key::App(app.clone())).await?.is_none() {
                return Err(Key::App(app.clone()).missing());
            }
        }
        Err(CatalogueError::Busy)
    }

    /// Puts `record` and what belongs to it, unless something stands there already, which is then the answer.
    async fn create<T>(&self, key: &Key, record: T, with: Vec<MetaOp>) -> Result<T, CatalogueError>
    where
        T: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync,
    {
        self.change(key, None, with, |old: Option<&T>| old.unwrap_or(&record).clone()).await
    }

    /// Replaces what stands under `key` by what `make` makes of it, with `with` in the same commit if nothing stood there.
    /// What stands under `within` must be there.
    async fn change<T, F>(
        &self,
        key: &Key,
        within: Option<&Key>,
        with: Vec<MetaOp>,
        make: F,
    ) -> Result<T, CatalogueError>
    where
        T: Serialize + DeserializeOwned + PartialEq + Send + Sync,
        F: Fn(Option<&T>) -> T + Send + Sync,
    {
        for _ in 0..ATTEMPTS {
            let mut ops = match within {
                Some(within) => self.stays(within).await?,
                None => Vec::new(),
            };
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
            ops.push(MetaOp::Check { key: key.encode(), revision: stored.map(|stored| stored.revision) });
            ops.push(MetaOp::Put { key: key.encode(), value: records::encode(&new)? });
            if old.is_none() {
                ops.extend(with.iter().cloned());
            }
            if self.commit(ops).await? {
                self.reload().await?;
                return Ok(new);
            }
        }
        Err(CatalogueError::Busy)
    }

    /// That a commit goes through only if the tenant or app under `key` is there. A tenant is written again, so that it
    /// cannot be deleted at the same time: what is made below it would be found by the next tenant of its name.
    async fn stays(&self, key: &Key) -> Result<Vec<MetaOp>, CatalogueError> {
        let stored = self.log.metadata().get(&key.encode()).await?.ok_or_else(|| key.missing())?;
        let mut ops = vec![MetaOp::Check { key: key.encode(), revision: Some(stored.revision) }];
        if matches!(key, Key::Tenant(_)) {
            ops.push(MetaOp::Put { key: key.encode(), value: stored.value });
        }
        Ok(ops)
    }

    /// Whether `ops` were carried out; if not, or if it is not known, it is time to look again.
    async fn commit(&self, ops: Vec<MetaOp>) -> Result<bool, CatalogueError> {
        match self.log.metadata().commit(ops).await {
            Ok(_) => Ok(true),
            Err(MetaError::Conflict { .. } | MetaError::Unknown { .. }) => Ok(false),
            Err(error @ (MetaError::Rejected { .. } | MetaError::Unavailable { .. })) => Err(error.into()),
        }
    }

    /// Removes what stands under `keys`.
    async fn remove(&self, keys: impl IntoIterator<Item = Key> + Send) -> Result<(), CatalogueError> {
        let ops = keys.into_iter().map(|key| MetaOp::Delete { key: key.encode() }).collect();
        self.log.metadata().commit(ops).await?;
        self.reload().await
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
        let mut view = loaded?;
        view.take_uses(&self.view());
        let revision = view.revision;
        let view = Arc::new(view);
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&view);
        self.meters.changed(&view);
        self.changed.send_replace(revision);
        Ok(())
    }
}
