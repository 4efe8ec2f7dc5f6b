//! Tenants and their apps: made, looked up, protected, deleted.
//!
//! # Consistency
//! A commit that makes something below a tenant or an app goes through only while that is there. What is deleted is gone at
//! once for every lookup; what was below an app is cleared away behind it, and found by nobody in the meantime, because no id
//! of an app comes again.

use bigpeer_log::MetaOp;
use bigpeer_types::AppId;

use super::keys::{Key, Name};
use super::records::{self, AdminScope, App, AppName, DeletedApp, GivenUpApp, Sites, Tenant};
use super::{ATTEMPTS, Catalogue, CatalogueError};

const PAGE: usize = 500;

impl Catalogue {
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

    /// The tenant's apps, in order of their names.
    #[must_use]
    pub fn apps_of(&self, tenant: &Name) -> Vec<App> {
        let view = self.view();
        let of = view.names.iter().filter(|((of, _), _)| of == tenant);
        of.filter_map(|(_, app)| view.apps.get(app)).cloned().collect()
    }

    /// The tenant, if it exists.
    #[must_use]
    pub fn tenant(&self, name: &Name) -> Option<Tenant> {
        self.view().tenants.get(name).cloned()
    }

    /// All tenants, in order of their names.
    #[must_use]
    pub fn tenants(&self) -> Vec<Tenant> {
        self.view().tenants.values().cloned().collect()
    }

    /// Makes the tenant unless it exists.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn create_tenant(&self, name: &Name) -> Result<Tenant, CatalogueError> {
        let tenant = Tenant { name: name.clone(), created_ms: self.clock.now_ms(), deletion_protection: false };
        self.create(&Key::Tenant(name.clone()), tenant, Vec::new()).await
    }

    /// Makes the tenant, or protects it as said. Says whether it is new.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn put_tenant(&self, name: &Name, deletion_protection: bool) -> Result<(Tenant, bool), CatalogueError> {
        let key = Key::Tenant(name.clone());
        let is_new = self.get::<Tenant>(&key).await?.is_none();
        let now_ms = self.clock.now_ms();
        let make = |old: Option<&Tenant>| Tenant {
            name: name.clone(),
            created_ms: old.map_or(now_ms, |old| old.created_ms),
            deletion_protection,
        };
        Ok((self.change(&key, None, Vec::new(), make).await?, is_new))
    }

    /// Removes a tenant without apps, and its admin tokens.
    ///
    /// # Errors
    /// When there is no such tenant, it is protected or has apps, or the log does not take it.
    pub async fn delete_tenant(&self, name: &Name) -> Result<(), CatalogueError> {
        let key = Key::Tenant(name.clone());
        let mut seen = false;
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.log.metadata().get(&key.encode()).await? else {
                // A commit of before, of which it was not known whether it had happened.
                self.reload().await?;
                return if seen { Ok(()) } else { Err(key.missing()) };
            };
            seen = true;
            let tenant: Tenant = records::decode(&key, &stored.value)?;
            if tenant.deletion_protection {
                return Err(CatalogueError::Protected { what: "tenant", name: name.to_string() });
            }
            let apps = format!("catalogue/names/{name}/");
            if !self.log.metadata().range(apps.as_bytes(), None, 1).await?.is_empty() {
                return Err(CatalogueError::NotEmpty { name: name.to_string() });
            }
            // After the tenant was read: a token that is made from here on changes it.
            self.reload().await?;
            let view = self.view();
            let its = view.admins.iter().filter(|(_, token)| token.scope == AdminScope::Tenant(name.clone()));
            let its = its.flat_map(|(token, _)| [Key::Admin(token.clone()), Key::AdminUse(token.clone())]);
            let mut ops = vec![MetaOp::Check { key: key.encode(), revision: Some(stored.revision) }];
            ops.extend(its.chain([key.clone()]).map(|key| MetaOp::Delete { key: key.encode() }));
            if self.commit(ops).await? {
                return self.reload().await;
            }
        }
        Err(CatalogueError::Busy)
    }

    /// Makes the tenant's app of that name, with a random id and a key for its tokens, unless it exists. Protected from
    /// deletion.
    ///
    /// # Errors
    /// When there is no such tenant, or the log does not take it.
    pub async fn create_app(&self, tenant: &Name, name: &Name) -> Result<App, CatalogueError> {
        let id = self.new_app_id()?;
        Ok(self.put_app_as(id, tenant, name, None, Vec::new()).await?.0)
    }

    /// Makes the tenant's app of that name, or protects it as said. Says whether it is new.
    ///
    /// # Errors
    /// When there is no such tenant, or the log does not take it.
    pub async fn put_app(
        &self,
        tenant: &Name,
        name: &Name,
        deletion_protection: bool,
    ) -> Result<(App, bool), CatalogueError> {
        let id = self.new_app_id()?;
        self.put_app_as(id, tenant, name, Some(deletion_protection), Vec::new()).await
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
    /// [`CatalogueError::Busy`] when the tenant has an app of that name, or `origin` is changed; [`CatalogueError::NotFound`] when
    /// that is not there any more; [`CatalogueError::Rejected`] after [`Self::give_up_app`]; as [`Self::create_app`].
    pub async fn create_clone(&self, id: AppId, origin: &App, name: &Name) -> Result<App, CatalogueError> {
        let mut with = self.stays(&Key::App(origin.id.clone())).await?;
        let sites = self.get::<Sites>(&Key::Sites(origin.id.clone())).await?.unwrap_or_default();
        with.push(MetaOp::Put { key: Key::Sites(id.clone()).encode(), value: records::encode(&sites)? });
        let (made, is_new) = self.put_app_as(id, &origin.tenant, name, None, with).await?;
        if is_new { Ok(made) } else { Err(CatalogueError::Busy) }
    }

    /// Whether the log says that the app is there, whatever is known here.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn is_there(&self, app: &AppId) -> Result<bool, CatalogueError> {
        Ok(self.get::<App>(&Key::App(app.clone())).await?.is_some())
    }

    /// Sees to it that an app that is not there never will be, whoever is making it. False if it is there; then nothing has changed.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn give_up_app(&self, app: &AppId) -> Result<bool, CatalogueError> {
        let (deleted, given_up) = (Key::Deleted(app.clone()), Key::GivenUp(app.clone()));
        for _ in 0..ATTEMPTS {
            if self.is_there(app).await? {
                return Ok(false);
            }
            let gone =
                self.get::<DeletedApp>(&deleted).await?.is_some() || self.get::<GivenUpApp>(&given_up).await?.is_some();
            if gone {
                return Ok(true);
            }
            let record = GivenUpApp { given_up_ms: self.clock.now_ms() };
            let ops = vec![
                MetaOp::Check { key: Key::App(app.clone()).encode(), revision: None },
                MetaOp::Check { key: deleted.encode(), revision: None },
                MetaOp::Put { key: given_up.encode(), value: records::encode(&record)? },
            ];
            if self.commit(ops).await? {
                return Ok(true);
            }
        }
        Err(CatalogueError::Busy)
    }

    async fn put_app_as(
        &self,
        id: AppId,
        tenant: &Name,
        name: &Name,
        protected: Option<bool>,
        with: Vec<MetaOp>,
    ) -> Result<(App, bool), CatalogueError> {
        let named = Key::AppName(tenant.clone(), name.clone());
        for _ in 0..ATTEMPTS {
            let mut ops = self.stays(&Key::Tenant(tenant.clone())).await?;
            let new = match self.get::<AppName>(&named).await? {
                Some(AppName { app }) => {
                    let key = Key::App(app.clone());
                    let Some(stored) = self.log.metadata().get(&key.encode()).await? else { continue };
                    let mut known: App = records::decode(&key, &stored.value)?;
                    if protected.is_none_or(|protected| protected == known.deletion_protection) {
                        self.reload().await?;
                        let is_new = known.id == id;
                        return Ok((known, is_new));
                    }
                    known.deletion_protection = protected.unwrap_or(true);
                    ops = vec![
                        MetaOp::Check { key: key.encode(), revision: Some(stored.revision) },
                        MetaOp::Put { key: key.encode(), value: records::encode(&known)? },
                    ];
                    known
                }
                None => {
                    let app = App {
                        id: id.clone(),
                        tenant: tenant.clone(),
                        name: name.clone(),
                        created_ms: self.clock.now_ms(),
                        deletion_protection: protected.unwrap_or(true),
                    };
                    let (key, deleted) = (Key::App(id.clone()).encode(), Key::Deleted(id.clone()).encode());
                    let given_up = Key::GivenUp(id.clone());
                    if self.get::<GivenUpApp>(&given_up).await?.is_some() {
                        let reason = "it took too long to make the app; begin anew".to_owned();
                        return Err(CatalogueError::Rejected { reason });
                    }
                    ops.extend([
                        MetaOp::Check { key: named.encode(), revision: None },
                        MetaOp::Check { key: key.clone(), revision: None },
                        MetaOp::Check { key: deleted, revision: None },
                        MetaOp::Check { key: given_up.encode(), revision: None },
                        MetaOp::Put { key: named.encode(), value: records::encode(&AppName { app: id.clone() })? },
                        MetaOp::Put { key, value: records::encode(&app)? },
                        self.first_signing_key(&id)?,
                    ]);
                    ops.extend(with.iter().cloned());
                    app
                }
            };
            if self.commit(ops).await? {
                self.reload().await?;
                let is_new = new.id == id;
                return Ok((new, is_new));
            }
        }
        Err(CatalogueError::Busy)
    }

    /// Deletes the tenant's app of that name: from now on every door answers as for an app that never was. Its id is never
    /// given away again. What else there is of it in the metadata space goes with [`Self::clear_app`].
    ///
    /// # Errors
    /// When there is no such app, it is protected, or the log does not take it.
    pub async fn delete_app(&self, tenant: &Name, name: &Name) -> Result<App, CatalogueError> {
        let named = Key::AppName(tenant.clone(), name.clone());
        let missing = || CatalogueError::NotFound { what: "app", name: name.to_string() };
        let mut seen: Option<App> = None;
        for _ in 0..ATTEMPTS {
            // A commit of before, of which it was not known whether it had happened.
            if let Some(app) = seen.take()
                && self.get::<DeletedApp>(&Key::Deleted(app.id.clone())).await?.is_some()
            {
                self.reload().await?;
                return Ok(app);
            }
            let Some(AppName { app: id }) = self.get(&named).await? else { return Err(missing()) };
            let key = Key::App(id.clone());
            let Some(stored) = self.log.metadata().get(&key.encode()).await? else { return Err(missing()) };
            let app: App = records::decode(&key, &stored.value)?;
            if app.deletion_protection {
                return Err(CatalogueError::Protected { what: "app", name: name.to_string() });
            }
            let deleted = DeletedApp { app: app.clone(), deleted_ms: self.clock.now_ms(), cleared: false };
            let mut ops = vec![
                MetaOp::Check { key: key.encode(), revision: Some(stored.revision) },
                MetaOp::Put { key: Key::Deleted(id.clone()).encode(), value: records::encode(&deleted)? },
            ];
            let of_app = [Key::SigningKeys, Key::TokenKey, Key::Authorities, Key::Quota].map(|of| of(id.clone()));
            ops.extend([named.clone(), key].iter().chain(&of_app).map(|key| MetaOp::Delete { key: key.encode() }));
            if self.commit(ops).await? {
                self.reload().await?;
                return Ok(app);
            }
            seen = Some(app);
        }
        Err(CatalogueError::Busy)
    }

    /// Apps that were deleted, and of which something may still be in the metadata space.
    ///
    /// # Errors
    /// When the log does not answer.
    pub async fn uncleared_apps(&self) -> Result<Vec<AppId>, CatalogueError> {
        let (mut uncleared, mut after) = (Vec::new(), None::<bytes::Bytes>);
        loop {
            let page = self.log.metadata().range(Key::DELETED.as_bytes(), after.as_deref(), PAGE).await?;
            for (bytes, value) in &page {
                let Some(key) = Key::decode(bytes) else { continue };
                let deleted: DeletedApp = records::decode(&key, &value.value)?;
                if !deleted.cleared {
                    uncleared.push(deleted.app.id);
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
                Some(_) | None => return Ok(uncleared),
            }
        }
    }

    /// Removes what the catalogue still has of a deleted app: keys, providers, roles, revocations, logins. May be repeated.
    ///
    /// # Errors
    /// When the app was not deleted, or the log does not answer; what was removed until then is.
    pub async fn clear_app(&self, app: &AppId) -> Result<(), CatalogueError> {
        let key = Key::Deleted(app.clone());
        let missing = || CatalogueError::NotFound { what: "deleted app", name: app.to_string() };
        if self.get::<DeletedApp>(&key).await?.is_none() {
            return Err(missing());
        }
        for place in Key::below(app) {
            loop {
                let page = self.log.metadata().range(place.as_bytes(), None, PAGE).await?;
                if page.is_empty() {
                    break;
                }
                let ops = page.into_iter().map(|(key, _)| MetaOp::Delete { key }).collect();
                self.log.metadata().commit(ops).await?;
            }
        }
        let others = [Key::Sites(app.clone()), Key::Usage(app.clone())];
        let others = others.map(|key| MetaOp::Delete { key: key.encode() });
        self.log.metadata().commit(others.into()).await?;
        for _ in 0..ATTEMPTS {
            let stored = self.log.metadata().get(&key.encode()).await?.ok_or_else(missing)?;
            let deleted = DeletedApp { cleared: true, ..records::decode(&key, &stored.value)? };
            let ops = vec![
                MetaOp::Check { key: key.encode(), revision: Some(stored.revision) },
                MetaOp::Put { key: key.encode(), value: records::encode(&deleted)? },
            ];
            if self.commit(ops).await? {
                return self.reload().await;
            }
        }
        Err(CatalogueError::Busy)
    }
}
