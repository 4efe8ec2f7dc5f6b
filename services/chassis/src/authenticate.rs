//! Who asks: an API key, a peer with an access token, or an administrator. Whatever does not open an app is answered alike.

use axum::http::{HeaderMap, header};
use bigpeer_types::{AppId, SiteId};

use crate::catalogue::{Catalogue, CatalogueError, Name, View};
use crate::secret::{self};
use crate::token::AccessToken;
use crate::{ApiError, ApiKey, Permissions};

/// Who makes a request, after it was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Someone with an API key.
    ApiKey {
        /// The key's name in its app.
        name: Name,
        /// What it opens.
        permissions: Permissions,
    },
    /// A Small Peer with an access token.
    Peer {
        /// The site that it writes as.
        site: SiteId,
        /// The name of the API key that it logged in with.
        key: Name,
        /// What it may do: what that key may.
        permissions: Permissions,
        /// When the token ends, in milliseconds since the epoch.
        expires_at_ms: u64,
    },
    /// An administrator of the whole server; opens no app's data.
    Admin,
}

impl Principal {
    /// What it may do in the app that it was authenticated for.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        match self {
            Self::ApiKey { permissions, .. } | Self::Peer { permissions, .. } => permissions.clone(),
            Self::Admin => Permissions::default(),
        }
    }
}

/// Whether a token that has ended is still good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAge {
    /// It must not have ended.
    Valid,
    /// It may have: to be refreshed.
    MayHaveEnded,
}

/// The key or token of a request: `Authorization: Bearer X`, in any case, or `X` alone.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim();
    let credential = match text.split_once(char::is_whitespace) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => rest.trim(),
        Some(_) => return None,
        None => text,
    };
    (!credential.is_empty() && !credential.eq_ignore_ascii_case("bearer")).then_some(credential)
}

impl Catalogue {
    /// Who makes a request to `app`.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`], whatever the reason.
    pub fn authenticate(&self, app: &AppId, headers: &HeaderMap) -> Result<Principal, ApiError> {
        self.authenticate_credential(app, bearer(headers).ok_or_else(ApiError::unauthorized)?)
    }

    /// Who carries `credential`, an API key or an access token of `app`.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`], whatever the reason.
    pub fn authenticate_credential(&self, app: &AppId, credential: &str) -> Result<Principal, ApiError> {
        if credential.contains('.') && !credential.starts_with("bpk_") {
            return self.authenticate_token(app, credential);
        }
        let key = self.authenticate_api_key(app, credential)?;
        Ok(Principal::ApiKey { name: key.name, permissions: key.permissions })
    }

    /// The peer that carries `token`, an access token of `app`.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`], whatever the reason.
    pub fn authenticate_token(&self, app: &AppId, token: &str) -> Result<Principal, ApiError> {
        let (token, key) = self.verify_token(app, token, TokenAge::Valid)?;
        Ok(Principal::Peer {
            site: token.site,
            key: key.name,
            permissions: key.permissions,
            expires_at_ms: token.expires_at_secs.saturating_mul(1000),
        })
    }

    /// The API key of `app` whose secret is `credential`.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`], whatever the reason.
    pub fn authenticate_api_key(&self, app: &AppId, credential: &str) -> Result<ApiKey, ApiError> {
        let view = self.view();
        let found = find_key(&view, app, credential);
        // The same work for a key that is there and one that is not.
        let expected = found.map_or([0; 32], |key| key.hash);
        let matches = secret::equal(&expected, &secret::hash(credential));
        match found {
            Some(key) if matches && key.is_active(self.clock().now_ms()) => Ok(effective(&view, app, key)),
            Some(_) | None => Err(ApiError::unauthorized()),
        }
    }

    /// What `token` says and the API key that stands behind it, when it was given for `app` and that key is still good.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`], whatever the reason.
    pub fn verify_token(&self, app: &AppId, token: &str, age: TokenAge) -> Result<(AccessToken, ApiKey), ApiError> {
        let view = self.view();
        let now_ms = self.clock().now_ms();
        let read = || {
            let token = AccessToken::verify(token, &view.token_keys.get(app)?.secret)?;
            let name: Name = token.key.parse().ok()?;
            let key = view.keys.get(&(app.clone(), name))?;
            let ended = token.expires_at_secs.saturating_mul(1000) <= now_ms;
            let good = token.app == *app && key.is_active(now_ms) && (age == TokenAge::MayHaveEnded || !ended);
            good.then(|| (token, effective(&view, app, key)))
        };
        read().ok_or_else(ApiError::unauthorized)
    }

    /// Signs a token that opens `app` as `site` for what the API key `key` may, for `ttl_secs`, at most until the key ends.
    /// Answers the token's text and its end in milliseconds since the epoch.
    ///
    /// # Errors
    /// When there is no such app.
    pub fn issue_token(
        &self,
        app: &AppId,
        site: SiteId,
        key: &ApiKey,
        ttl_secs: u64,
    ) -> Result<(String, u64), CatalogueError> {
        let missing = || CatalogueError::NotFound { what: "app", name: app.to_string() };
        let secret = self.view().token_keys.get(app).map(|key| key.secret).ok_or_else(missing)?;
        let issued_at_secs = self.clock().now_ms() / 1000;
        let key_ends = key.expires_at_ms.map_or(u64::MAX, |ms| ms / 1000);
        let token = AccessToken {
            app: app.clone(),
            site,
            key: key.name.to_string(),
            issued_at_secs,
            expires_at_secs: issued_at_secs.saturating_add(ttl_secs).min(key_ends),
        };
        let text = token.sign(&secret).map_err(|error| CatalogueError::Rejected { reason: error.to_string() })?;
        Ok((text, token.expires_at_secs.saturating_mul(1000)))
    }

    /// Whether a request is an administrator's.
    ///
    /// # Errors
    /// `unauthorized`, whatever the reason.
    pub fn authenticate_admin(&self, headers: &HeaderMap) -> Result<Principal, ApiError> {
        let credential = bearer(headers).unwrap_or_default();
        let view = self.view();
        let found = secret::prefix_of(credential).and_then(|prefix| view.admins.get(prefix));
        let expected = found.map_or([0; 32], |admin| admin.hash);
        if secret::equal(&expected, &secret::hash(credential)) && found.is_some() {
            return Ok(Principal::Admin);
        }
        let mut refusal = ApiError::unauthorized();
        refusal.message = "no valid admin token; send one as 'Authorization: Bearer TOKEN'".to_owned();
        Err(refusal)
    }
}

/// The key with what it allows in DQL.
fn effective(view: &View, app: &AppId, key: &ApiKey) -> ApiKey {
    let mut key = key.clone();
    if key.permissions.ql_version == 0
        && let Some(permissions) = view.effective.get(&(app.clone(), key.name.clone()))
    {
        key.permissions = permissions.clone();
    }
    key
}

fn find_key<'a>(view: &'a View, app: &AppId, credential: &str) -> Option<&'a ApiKey> {
    let prefix = secret::prefix_of(credential)?;
    let name = view.by_prefix.get(&(app.clone(), prefix.to_owned()))?;
    view.keys.get(&(app.clone(), name.clone()))
}
