//! API keys and admin tokens: what people and programs show to be let in.

use bigpeer_types::AppId;

use super::keys::{Key, Name};
use super::records::{AdminScope, AdminToken, AdminTokenSpec, ApiKey, ApiKeySpec};
use super::{Catalogue, CatalogueError};
use crate::secret::{self, Secret};

impl Catalogue {
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

    /// Makes the app's API key of that name; the secret is in this answer only. If the key exists everything else becomes
    /// what is given, and there is no secret in the answer.
    ///
    /// # Errors
    /// When there is no such app, or the log does not take it.
    pub async fn put_api_key(
        &self,
        app: &AppId,
        name: &Name,
        spec: ApiKeySpec,
    ) -> Result<(ApiKey, Option<Secret>), CatalogueError> {
        let secret = Secret::generate("bpk", self.ids.as_ref());
        let new = ApiKey {
            name: name.clone(),
            prefix: secret::prefix_of(secret.expose()).unwrap_or_default().to_owned(),
            hash: secret::hash(secret.expose()),
            permissions: spec.permissions,
            expires_at_ms: spec.expires_at_ms,
            limits: spec.limits,
            scopes: spec.scopes,
            description: spec.description,
            created_ms: self.clock.now_ms(),
        };
        let make = |old: Option<&ApiKey>| match old {
            None => new.clone(),
            Some(old) => {
                ApiKey { prefix: old.prefix.clone(), hash: old.hash, created_ms: old.created_ms, ..new.clone() }
            }
        };
        let within = Key::App(app.clone());
        let stored = self.change(&Key::ApiKey(app.clone(), name.clone()), Some(&within), Vec::new(), make).await?;
        let is_mine = stored.hash == new.hash;
        Ok((stored, is_mine.then_some(secret)))
    }

    /// Removes an API key; from then on it opens nothing, and neither do tokens given for it.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete_api_key(&self, app: &AppId, name: &Name) -> Result<(), CatalogueError> {
        self.remove([Key::ApiKey(app.clone(), name.clone()), Key::KeyUse(app.clone(), name.clone())]).await
    }

    /// The admin tokens, in order of their names; never the secrets.
    #[must_use]
    pub fn admin_tokens(&self) -> Vec<(Name, AdminToken)> {
        self.view().admins.iter().map(|(name, token)| (name.clone(), token.clone())).collect()
    }

    /// The admin token of that name.
    #[must_use]
    pub fn admin_token(&self, name: &Name) -> Option<AdminToken> {
        self.view().admins.get(name).cloned()
    }

    /// Makes the operator's token of that name; the secret is in this answer only, none if it exists.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn create_admin(&self, name: &Name) -> Result<Option<Secret>, CatalogueError> {
        let (secret, token) = self.new_admin(AdminTokenSpec::default());
        let stored = self.create(&Key::Admin(name.clone()), token.clone(), Vec::new()).await?;
        Ok((stored == token).then_some(secret))
    }

    /// Makes the admin token of that name; the secret is in this answer only. If it exists everything else becomes what is
    /// given, and there is no secret in the answer.
    ///
    /// # Errors
    /// When its tenant does not exist, or the log does not take it; [`CatalogueError::LastOperator`];
    /// [`CatalogueError::Taken`] when there is one of this name that `may` does not let be changed.
    pub async fn put_admin_token(
        &self,
        name: &Name,
        spec: AdminTokenSpec,
        may: impl Fn(&AdminToken) -> bool + Send + Sync,
    ) -> Result<(AdminToken, Option<Secret>), CatalogueError> {
        let stays = spec.scope == AdminScope::Operator && spec.expires_at_ms.is_none();
        if !stays {
            self.is_not_the_last(name)?;
        }
        let within = match &spec.scope {
            AdminScope::Operator => None,
            AdminScope::Tenant(tenant) => Some(Key::Tenant(tenant.clone())),
        };
        let (secret, new) = self.new_admin(spec);
        let make = |old: Option<&AdminToken>| match old {
            None => new.clone(),
            Some(old) if !may(old) => old.clone(),
            Some(old) => {
                AdminToken { prefix: old.prefix.clone(), hash: old.hash, created_ms: old.created_ms, ..new.clone() }
            }
        };
        let stored = self.change(&Key::Admin(name.clone()), within.as_ref(), Vec::new(), make).await?;
        if !may(&stored) {
            return Err(CatalogueError::Taken { name: name.to_string() });
        }
        let is_mine = stored.hash == new.hash;
        Ok((stored, is_mine.then_some(secret)))
    }

    fn new_admin(&self, spec: AdminTokenSpec) -> (Secret, AdminToken) {
        let secret = Secret::generate("bpa", self.ids.as_ref());
        let token = AdminToken {
            prefix: secret::prefix_of(secret.expose()).unwrap_or_default().to_owned(),
            hash: secret::hash(secret.expose()),
            scope: spec.scope,
            expires_at_ms: spec.expires_at_ms,
            description: spec.description,
            created_ms: self.clock.now_ms(),
        };
        (secret, token)
    }

    /// That somebody could still administer the server without this token. Two who remove the last two at the same moment
    /// are not kept from it: `bigpeer serve` without `--no-dev` makes a token where none of its file is good.
    fn is_not_the_last(&self, name: &Name) -> Result<(), CatalogueError> {
        let view = self.view();
        let lasting = |token: &AdminToken| token.scope == AdminScope::Operator && token.expires_at_ms.is_none();
        let is_one = view.admins.get(name).is_some_and(lasting);
        let others = view.admins.iter().any(|(other, token)| other != name && lasting(token));
        if is_one && !others { Err(CatalogueError::LastOperator) } else { Ok(()) }
    }

    /// Removes an admin token, unless it is the last by which the server can be administered.
    ///
    /// # Errors
    /// When the log does not take it; [`CatalogueError::LastOperator`].
    pub async fn delete_admin_token(&self, name: &Name) -> Result<(), CatalogueError> {
        self.is_not_the_last(name)?;
        self.delete_admin(name).await
    }

    /// Removes an admin token, whatever comes of it.
    ///
    /// # Errors
    /// When the log does not take it.
    pub async fn delete_admin(&self, name: &Name) -> Result<(), CatalogueError> {
        self.remove([Key::Admin(name.clone()), Key::AdminUse(name.clone())]).await
    }
}
