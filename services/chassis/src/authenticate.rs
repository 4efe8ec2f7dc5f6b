//! Who asks an app: an API key, or a peer with an access token; and whether they may use the door that they came to.
//! Whatever does not open an app is answered alike. Administrators are in `administrator`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use bigpeer_types::{AppId, SiteId};

use crate::catalogue::{Catalogue, CatalogueError, MAX_TOKEN_TTL_SECS, Name, Use, View};
use crate::secret::{self};
use crate::token::{self, AccessToken, Holder, MAX_TOKEN_BYTES, User};
use crate::{ApiError, ApiKey, Door, Doors, ErrorCode, Permissions};

/// Most tokens that are remembered, twice: those of so many peers cost one look-up each.
const MAX_REMEMBERED: usize = 8192;

/// Who makes a request, after it was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// Someone with an API key.
    ApiKey {
        /// The key's name in its app.
        name: Name,
        /// What it opens.
        permissions: Arc<Permissions>,
    },
    /// A Small Peer with an access token.
    Peer {
        /// The site that it writes as.
        site: SiteId,
        /// Who logged in.
        account: Account,
        /// What it may do: what that key or user may.
        permissions: Arc<Permissions>,
        /// When the token ends, in milliseconds since the epoch.
        expires_at_ms: u64,
    },
}

/// Who is behind a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// The API key of this name.
    Key(Name),
    /// A user.
    User {
        /// The provider that vouched for them.
        provider: Name,
        /// What the provider calls them.
        id: Arc<str>,
    },
}

impl Account {
    /// Whose tokens name this holder.
    pub(crate) fn of(holder: &Holder) -> Self {
        match holder {
            Holder::Key(name) => Self::Key(name.clone()),
            Holder::User(user) => Self::User { provider: user.provider.clone(), id: user.id.as_str().into() },
        }
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(name) => name.fmt(f),
            Self::User { id, .. } => f.write_str(id),
        }
    }
}

impl Principal {
    /// What it may do in the app that it was authenticated for.
    #[must_use]
    pub fn permissions(&self) -> Arc<Permissions> {
        match self {
            Self::ApiKey { permissions, .. } | Self::Peer { permissions, .. } => Arc::clone(permissions),
        }
    }

    /// Whose requests are counted together.
    #[must_use]
    pub fn account(&self) -> Account {
        match self {
            Self::ApiKey { name, .. } => Account::Key(name.clone()),
            Self::Peer { account, .. } => account.clone(),
        }
    }
}

/// A token whose signature is good.
#[derive(Debug)]
pub(crate) struct Proven {
    token: AccessToken,
    /// The key that signed it: when it is gone, so is the token.
    kid: String,
}

/// A token whose signature is good, and whose holder is there.
#[derive(Debug)]
pub(crate) struct Checked {
    proven: Arc<Proven>,
    principal: Principal,
    /// When the holder ends, in milliseconds since the epoch.
    holder_ends_ms: u64,
    /// The doors that it opens.
    doors: Doors,
    /// Where uses of the key are noted that it is of, if it is of one.
    used: Option<Arc<Use>>,
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
    /// Who makes a request to `app` at `door`.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`], whatever the reason; `forbidden` for who is known, and does not open this door.
    pub fn authenticate(&self, app: &AppId, door: Door, headers: &HeaderMap) -> Result<Principal, ApiError> {
        self.authenticate_credential(app, door, bearer(headers).ok_or_else(ApiError::unauthorized)?)
    }

    /// Who carries `credential`, an API key or an access token of `app`, to `door`.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub fn authenticate_credential(&self, app: &AppId, door: Door, credential: &str) -> Result<Principal, ApiError> {
        if credential.contains('.') && !credential.starts_with("bpk_") {
            return self.authenticate_token(app, door, credential);
        }
        let view = self.view();
        let key = self.find_api_key(&view, app, door, credential)?;
        Ok(Principal::ApiKey { name: key.name.clone(), permissions: effective(&view, app, &key.name) })
    }

    /// The peer that carries `token`, an access token of `app`, to `door`.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub fn authenticate_token(&self, app: &AppId, door: Door, token: &str) -> Result<Principal, ApiError> {
        let checked = self.check_token(app, token, TokenAge::Valid)?;
        if !checked.doors.contain(door) {
            return Err(shut(door));
        }
        if let Some(used) = &checked.used {
            used.note(self.clock().now_ms());
        }
        Ok(checked.principal.clone())
    }

    /// The API key of `app` whose secret is `credential`, when it opens `door`.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub fn authenticate_api_key(&self, app: &AppId, door: Door, credential: &str) -> Result<ApiKey, ApiError> {
        self.find_api_key(&self.view(), app, door, credential).cloned()
    }

    fn find_api_key<'v>(
        &self,
        view: &'v View,
        app: &AppId,
        door: Door,
        credential: &str,
    ) -> Result<&'v ApiKey, ApiError> {
        self.may_try(credential)?;
        let found = find_key(view, app, credential);
        // The same work for a key that is there and one that is not.
        let expected = found.map_or([0; 32], |key| key.hash);
        let matches = secret::equal(&expected, &secret::hash(credential));
        let now_ms = self.clock().now_ms();
        let Some(key) = found.filter(|key| matches && key.is_active(now_ms)) else {
            self.was_wrong();
            return Err(ApiError::unauthorized());
        };
        self.was_right(credential);
        if !key.scopes.contain(door) {
            return Err(shut(door));
        }
        if let Some(used) = view.key_uses.get(&(app.clone(), key.name.clone())) {
            used.note(now_ms);
        }
        Ok(key)
    }

    /// What the app's API key of this name allows at `door`, with conditions in DQL and without parameters; none when it is
    /// gone, has ended or does not open it.
    #[must_use]
    pub fn permissions_of_key(&self, app: &AppId, name: &Name, door: Door) -> Option<Arc<Permissions>> {
        let view = self.view();
        let key = view.keys.get(&(app.clone(), name.clone())).filter(|_| view.apps.contains_key(app))?;
        let opens = key.is_active(self.clock().now_ms()) && key.scopes.contain(door);
        opens.then(|| effective(&view, app, name))
    }

    /// What `token` says, when it was given for `app` and its holder is still good.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`], whatever the reason.
    pub fn verify_token(&self, app: &AppId, token: &str, age: TokenAge) -> Result<AccessToken, ApiError> {
        self.check_token(app, token, age).map(|checked| checked.proven.token.clone())
    }

    /// What `token` says when this app signed it, whether or not it opens anything any more.
    #[must_use]
    pub fn read_token(&self, app: &AppId, token: &str) -> Option<AccessToken> {
        self.prove(&self.view(), app, token).map(|proven| proven.token.clone())
    }

    fn check_token(&self, app: &AppId, text: &str, age: TokenAge) -> Result<Arc<Checked>, ApiError> {
        self.may_try(text)?;
        let view = self.view();
        // One that was signed here has only ended; it was not made up.
        let mut made_up = true;
        let mut read = || {
            let checked = match view.checked.get(text) {
                Some(checked) => checked,
                None => {
                    let proven = self.prove(&view, app, text)?;
                    made_up = false;
                    let checked = Arc::new(check(&view, proven)?);
                    view.checked.add(text.into(), Arc::clone(&checked), MAX_REMEMBERED);
                    checked
                }
            };
            made_up = false;
            let token = &checked.proven.token;
            let now_ms = self.clock().now_ms();
            let ended = token.expires_at_secs.saturating_mul(1000) <= now_ms;
            let good =
                token.app == *app && now_ms < checked.holder_ends_ms && (age == TokenAge::MayHaveEnded || !ended);
            good.then_some(checked)
        };
        let good = read();
        match &good {
            Some(_) => self.was_right(text),
            None if made_up => self.was_wrong(),
            None => {}
        }
        good.ok_or_else(ApiError::unauthorized)
    }

    /// Whether the holder of a token that was just made may log in.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`], whatever the reason; `forbidden` when it is known, and may not.
    pub fn judge(&self, app: &AppId, token: &AccessToken) -> Result<Arc<Permissions>, ApiError> {
        let proven = Arc::new(Proven { token: token.clone(), kid: String::new() });
        let checked = check(&self.view(), proven)
            .filter(|checked| checked.proven.token.app == *app && self.clock().now_ms() < checked.holder_ends_ms);
        let checked = checked.ok_or_else(ApiError::unauthorized)?;
        if !checked.doors.contain(Door::Sync) {
            return Err(shut(Door::Sync));
        }
        Ok(checked.principal.permissions())
    }

    /// A token of `app` whose signature is good. What was found out is remembered: the signature is checked once.
    fn prove(&self, view: &View, app: &AppId, text: &str) -> Option<Arc<Proven>> {
        let keys = view.signing.get(app)?;
        if let Some(known) = self.proven().get(text) {
            let still = known.token.app == *app && keys.verifiers().any(|(kid, _)| kid == known.kid);
            return still.then_some(known);
        }
        let (token, kid) = AccessToken::verify(text, keys.verifiers())?;
        if token.app != *app {
            return None;
        }
        let proven = Arc::new(Proven { token, kid: kid.to_owned() });
        self.proven().add(text.into(), Arc::clone(&proven), MAX_REMEMBERED);
        Some(proven)
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
        let issued_at_secs = self.clock().now_ms() / 1000;
        let key_ends = key.expires_at_ms.map_or(u64::MAX, |ms| ms / 1000);
        let token = AccessToken {
            app: app.clone(),
            site,
            holder: Holder::Key(key.name.clone()),
            issued_at_secs,
            expires_at_secs: issued_at_secs.saturating_add(ttl_secs).min(key_ends),
            logged_in_ms: self.clock().now_ms(),
            login: None,
        };
        self.sign_token(token)
    }

    /// Signs `token`, which lives for [`MAX_TOKEN_TTL_SECS`] at most. Answers its text and its end in milliseconds since the
    /// epoch.
    ///
    /// # Errors
    /// When there is no such app; [`CatalogueError::Rejected`] when the token says more than fits.
    pub fn sign_token(&self, mut token: AccessToken) -> Result<(String, u64), CatalogueError> {
        let (kid, pair) = self.signer(&token.app)?;
        token.expires_at_secs = token.expires_at_secs.min(token.issued_at_secs.saturating_add(MAX_TOKEN_TTL_SECS));
        let rejected = |reason: String| CatalogueError::Rejected { reason };
        let text = token.sign(&kid, &pair).map_err(|error| rejected(error.to_string()))?;
        if text.len() > MAX_TOKEN_BYTES {
            let reason = "permissions and claims are more than fits in a token; let the provider name roles instead";
            return Err(rejected(reason.to_owned()));
        }
        Ok((text, token.expires_at_secs.saturating_mul(1000)))
    }

    /// Signs a list of revocations of `app` with the key of its access tokens; `claims` are as in a JSON Web Token.
    ///
    /// # Errors
    /// When there is no such app.
    pub fn sign_revocations(&self, app: &AppId, claims: &serde_json::Value) -> Result<String, CatalogueError> {
        let (kid, pair) = self.signer(app)?;
        let rejected = |error: serde_json::Error| CatalogueError::Rejected { reason: error.to_string() };
        token::sign_revocations(claims, &kid, &pair).map_err(rejected)
    }
}

/// The answer to a key that is good, but not for this door.
fn shut(door: Door) -> ApiError {
    let message = format!(
        "this key does not open '{}'; use one whose 'scopes' name it, or have it added to this one's",
        door.as_str()
    );
    ApiError::new(ErrorCode::Forbidden, message)
}

/// Who the token's holder is, as the catalogue is now.
fn check(view: &View, proven: Arc<Proven>) -> Option<Checked> {
    let token = &proven.token;
    if !view.apps.contains_key(&token.app) {
        return None;
    }
    let (mut doors, mut used) = (Doors::default(), None);
    let account = Account::of(&token.holder);
    let (permissions, holder_ends_ms) = match &token.holder {
        Holder::Key(name) => {
            let of = (token.app.clone(), name.clone());
            let key = view.keys.get(&of)?;
            (doors, used) = (key.scopes, view.key_uses.get(&of).cloned());
            (effective(view, &token.app, name), key.expires_at_ms.unwrap_or(u64::MAX))
        }
        Holder::User(user) => (Arc::new(permissions_of(view, &token.app, user)?), u64::MAX),
    };
    if view.revocations.get(&token.app).is_some_and(|(_, revocations)| revocations.revoke(token)) {
        return None;
    }
    let expires_at_ms = token.expires_at_secs.saturating_mul(1000);
    let principal = Principal::Peer { site: token.site, account, permissions, expires_at_ms };
    Some(Checked { proven, principal, holder_ends_ms, doors, used })
}

/// What a user may do: what the provider said, what all of the provider's users may, and roles. Nothing else. None when the
/// provider is gone.
fn permissions_of(view: &View, app: &AppId, user: &User) -> Option<Permissions> {
    let provider = &view.providers.get(&(app.clone(), user.provider.clone()))?.spec;
    let claims = user.all_claims();
    let roles: BTreeSet<&Name> = provider.roles.iter().chain(&user.roles).collect();
    let roles = roles.into_iter().filter_map(|role| view.roles.get(&(app.clone(), role.clone())));
    let all = user.permissions.iter().chain(&provider.permissions).chain(roles.map(|role| &role.permissions));
    let nothing = Permissions { ql_version: 1, ..Permissions::default() };
    Some(all.fold(nothing, |sum, one| sum.or(one.bound(&claims))))
}

/// What the key allows, with conditions in DQL and without parameters.
fn effective(view: &View, app: &AppId, key: &Name) -> Arc<Permissions> {
    view.effective.get(&(app.clone(), key.clone())).cloned().unwrap_or_default()
}

fn find_key<'a>(view: &'a View, app: &AppId, credential: &str) -> Option<&'a ApiKey> {
    let prefix = secret::prefix_of(credential).filter(|_| view.apps.contains_key(app))?;
    let name = view.by_prefix.get(&(app.clone(), prefix.to_owned()))?;
    view.keys.get(&(app.clone(), name.clone()))
}
