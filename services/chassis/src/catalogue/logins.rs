//! Logins: what a refresh token stands for. Each use of one gives the next; one that was replaced and comes again was stolen,
//! and ends the login for everybody who has a token of it.
//!
//! # Consistency
//! A use is one compare-and-swap: of two at once one wins, and the other is judged anew. The answer to a use may be lost, so
//! the token that was used last is good until its successor is used: then whoever else holds it has shown themselves.
//!
//! # Layout
//! Logins are not in the view: they are as many as devices, and only their own device asks for one.

use bigpeer_log::{MetaError, MetaOp};
use bigpeer_types::AppId;
use serde::{Deserialize, Serialize};

use super::identity::Revoked;
use super::keys::{Key, Name};
use super::records::{self, hex};
use super::{ATTEMPTS, Catalogue, CatalogueError};
use crate::secret::{self, Secret};
use crate::token::{AccessToken, Holder};
use crate::{ApiError, ErrorCode};

/// What refresh tokens begin with.
const KIND: &str = "bpr";
/// Tokens that were replaced and are still known.
const MAX_REPLACED: usize = 32;
const PAGE: usize = 500;

/// A login at rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Login {
    site: bigpeer_types::SiteId,
    holder: Holder,
    logged_in_ms: u64,
    /// When the provider, or a new login, has to be asked again, in seconds since the epoch.
    ends_secs: u64,
    /// When it ends unless it is used, in seconds since the epoch.
    idle_ends_secs: u64,
    current: Hash,
    /// The token that was used last.
    last: Option<Hash>,
    replaced: Vec<Hash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Hash(#[serde(with = "hex")] [u8; 32]);

impl Hash {
    fn is(&self, other: &[u8; 32]) -> bool {
        secret::equal(&self.0, other)
    }
}

/// How long logins last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginTimes {
    /// How long an access token is good for, in seconds.
    pub token_ttl_secs: u64,
    /// How long a refresh token that is not used is good for, in seconds.
    pub refresh_ttl_secs: u64,
}

/// What a login or a refresh gives.
#[derive(Clone, Debug)]
pub struct Granted {
    /// What the access token says.
    pub token: AccessToken,
    /// Its text.
    pub access_token: String,
    /// Its end, in milliseconds since the epoch.
    pub expires_at_ms: u64,
    /// The next refresh token.
    pub refresh_token: Secret,
    /// When that ends unless it is used, in milliseconds since the epoch.
    pub refresh_expires_at_ms: u64,
}

/// What is to become of a use.
enum Use {
    Take(Box<Login>),
    Stolen,
    No,
}

impl Login {
    /// What the use of a token with this hash makes of it.
    fn used(&self, presented: &[u8; 32], next: [u8; 32]) -> Use {
        let mut after = self.clone();
        if self.current.is(presented) {
            after.replaced.extend(self.last);
            after.last = Some(self.current);
        } else if self.last.is_some_and(|last| last.is(presented)) {
            // Its answer was lost, or somebody else has it; the next use will tell.
            after.replaced.push(self.current);
        } else if self.replaced.iter().any(|old| old.is(presented)) {
            return Use::Stolen;
        } else {
            return Use::No;
        }
        after.replaced.drain(..after.replaced.len().saturating_sub(MAX_REPLACED));
        after.current = Hash(next);
        Use::Take(Box::new(after))
    }
}

/// The login that a refresh token is of.
fn login_of(refresh_token: &str) -> Option<&str> {
    secret::prefix_of(refresh_token)?
        .strip_prefix(KIND)?
        .strip_prefix('_')
        .filter(|id| !id.is_empty() && id.len() <= 32)
}

/// Whether a credential is a refresh token by its looks.
#[must_use]
pub fn is_refresh_token(credential: &str) -> bool {
    login_of(credential).is_some()
}

impl Catalogue {
    /// Gives a login to `holder`, who writes as `site`: an access token, and a refresh token for the next. It lasts for
    /// `session_secs` at most.
    ///
    /// # Errors
    /// When there is no such app, or the log does not take it; [`CatalogueError::Rejected`] when a token cannot say all.
    pub async fn log_in(
        &self,
        app: &AppId,
        site: bigpeer_types::SiteId,
        holder: Holder,
        session_secs: Option<u64>,
        times: LoginTimes,
    ) -> Result<Granted, CatalogueError> {
        let secret = Secret::generate(KIND, self.ids.as_ref());
        let id = login_of(secret.expose()).unwrap_or_default().to_owned();
        let now_ms = self.clock.now_ms();
        let now_secs = now_ms / 1000;
        let login = Login {
            site,
            holder,
            logged_in_ms: now_ms,
            ends_secs: session_secs.map_or(u64::MAX, |secs| now_secs.saturating_add(secs)),
            idle_ends_secs: now_secs.saturating_add(times.refresh_ttl_secs),
            current: Hash(secret::hash(secret.expose())),
            last: None,
            replaced: Vec::new(),
        };
        let granted = self.grant(app, &id, &login, secret, times)?;
        let key = Key::Login(app.clone(), id).encode();
        // The id is new: whatever became of a commit that is not known, writing it again is the same.
        for _ in 0..ATTEMPTS {
            let op = MetaOp::Put { key: key.clone(), value: records::encode(&login)? };
            match self.log.metadata().commit(vec![op]).await {
                Ok(_) => return Ok(granted),
                Err(MetaError::Conflict { .. } | MetaError::Unknown { .. }) => {}
                Err(error @ (MetaError::Rejected { .. } | MetaError::Unavailable { .. })) => return Err(error.into()),
            }
        }
        Err(CatalogueError::Busy)
    }

    /// Takes a refresh token of `app`, and gives the next with a new access token.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`] for one that is not good (any more), whatever the reason; when the log does not answer.
    pub async fn refresh(&self, app: &AppId, refresh_token: &str, times: LoginTimes) -> Result<Granted, ApiError> {
        self.may_try(refresh_token)?;
        let granted = self.refreshed(app, refresh_token, times).await;
        if granted.as_ref().is_err_and(|error| error.code == ErrorCode::Unauthorized) {
            self.was_wrong();
        }
        granted
    }

    async fn refreshed(&self, app: &AppId, refresh_token: &str, times: LoginTimes) -> Result<Granted, ApiError> {
        let id = login_of(refresh_token).ok_or_else(ApiError::unauthorized)?;
        let presented = secret::hash(refresh_token);
        let next = Secret::generate_as(KIND, id, self.ids.as_ref());
        let key = Key::Login(app.clone(), id.to_owned());
        for _ in 0..ATTEMPTS {
            let stored = self.log.metadata().get(&key.encode()).await.map_err(CatalogueError::from)?;
            let stored = stored.ok_or_else(ApiError::unauthorized)?;
            let login: Login = records::decode(&key, &stored.value)?;
            let now_secs = self.clock.now_ms() / 1000;
            if now_secs >= login.ends_secs.min(login.idle_ends_secs) {
                return Err(ApiError::unauthorized());
            }
            let hash = secret::hash(next.expose());
            let mut after = if login.current.is(&hash) {
                // A commit of before, of which it was not known whether it had happened.
                Box::new(login)
            } else {
                match login.used(&presented, hash) {
                    Use::Take(after) => after,
                    Use::No => return Err(ApiError::unauthorized()),
                    Use::Stolen => {
                        tracing::warn!(%app, site = %login.site, "a refresh token was used twice; its login is revoked");
                        self.end_login(app, id).await?;
                        return Err(ApiError::unauthorized());
                    }
                }
            };
            after.idle_ends_secs = now_secs.saturating_add(times.refresh_ttl_secs);
            let granted = self.grant(app, id, &after, next.clone(), times)?;
            // Its holder may be gone, or revoked.
            self.judge(app, &granted.token)?;
            let ops = vec![
                MetaOp::Check { key: key.encode(), revision: Some(stored.revision) },
                MetaOp::Put { key: key.encode(), value: records::encode(after.as_ref())? },
            ];
            match self.log.metadata().commit(ops).await {
                Ok(_) => return Ok(granted),
                Err(MetaError::Conflict { .. } | MetaError::Unknown { .. }) => {}
                Err(error @ (MetaError::Rejected { .. } | MetaError::Unavailable { .. })) => {
                    return Err(CatalogueError::from(error).into());
                }
            }
        }
        Err(ApiError::new(ErrorCode::Conflict, "the refresh token is used by others at the same time; try again"))
    }

    /// Ends the login of a refresh token that is good, or was: its tokens open nothing any more.
    ///
    /// # Errors
    /// [`ApiError::unauthorized`]; when the log does not answer.
    pub async fn log_out(&self, app: &AppId, refresh_token: &str) -> Result<(), ApiError> {
        self.may_try(refresh_token)?;
        let wrong = || {
            self.was_wrong();
            ApiError::unauthorized()
        };
        let id = login_of(refresh_token).ok_or_else(wrong)?;
        let key = Key::Login(app.clone(), id.to_owned());
        let login = self.get::<Login>(&key).await?.ok_or_else(wrong)?;
        match login.used(&secret::hash(refresh_token), [0; 32]) {
            Use::No => Err(wrong()),
            Use::Take(_) | Use::Stolen => Ok(self.end_login(app, id).await?),
        }
    }

    /// Revokes a login: first for its access tokens, then for its refresh tokens.
    async fn end_login(&self, app: &AppId, id: &str) -> Result<(), CatalogueError> {
        self.revoke(app, Revoked::Login(id.to_owned())).await?;
        let key = Key::Login(app.clone(), id.to_owned()).encode();
        self.log.metadata().commit(vec![MetaOp::Delete { key }]).await?;
        Ok(())
    }

    /// Forgets logins that have ended. Answers how many.
    ///
    /// # Errors
    /// When the log does not answer; what was forgotten until then is.
    pub async fn forget_ended_logins(&self) -> Result<usize, CatalogueError> {
        let (mut after, mut forgotten) = (None::<bytes::Bytes>, 0);
        loop {
            let page = self.log.metadata().range(Key::LOGINS.as_bytes(), after.as_deref(), PAGE).await?;
            let full = page.len() == PAGE;
            let now_secs = self.clock.now_ms() / 1000;
            for (key, value) in page {
                after = Some(key.clone());
                let Some(parsed) = Key::decode(&key) else { continue };
                let login: Login = records::decode(&parsed, &value.value)?;
                if now_secs < login.ends_secs.min(login.idle_ends_secs) {
                    continue;
                }
                let ops =
                    vec![MetaOp::Check { key: key.clone(), revision: Some(value.revision) }, MetaOp::Delete { key }];
                match self.log.metadata().commit(ops).await {
                    Ok(_) => forgotten += 1,
                    // It was used just now, or it is gone already.
                    Err(MetaError::Conflict { .. } | MetaError::Unknown { .. }) => {}
                    Err(error @ (MetaError::Rejected { .. } | MetaError::Unavailable { .. })) => {
                        return Err(error.into());
                    }
                }
            }
            if !full {
                return Ok(forgotten);
            }
        }
    }

    fn grant(
        &self,
        app: &AppId,
        id: &str,
        login: &Login,
        refresh_token: Secret,
        times: LoginTimes,
    ) -> Result<Granted, CatalogueError> {
        let now_secs = self.clock.now_ms() / 1000;
        let holder_ends = match &login.holder {
            Holder::Key(name) => self.key_ends_secs(app, name),
            Holder::User(_) => u64::MAX,
        };
        let token = AccessToken {
            app: app.clone(),
            site: login.site,
            holder: login.holder.clone(),
            issued_at_secs: now_secs,
            expires_at_secs: now_secs.saturating_add(times.token_ttl_secs).min(login.ends_secs).min(holder_ends),
            logged_in_ms: login.logged_in_ms,
            login: Some(id.to_owned()),
        };
        let (access_token, expires_at_ms) = self.sign_token(token.clone())?;
        let refresh_ends = login.idle_ends_secs.min(login.ends_secs).min(holder_ends);
        let refresh_expires_at_ms = refresh_ends.saturating_mul(1000);
        Ok(Granted { token, access_token, expires_at_ms, refresh_token, refresh_expires_at_ms })
    }

    fn key_ends_secs(&self, app: &AppId, name: &Name) -> u64 {
        self.api_key(app, name).and_then(|key| key.expires_at_ms).map_or(u64::MAX, |ms| ms / 1000)
    }
}

#[cfg(test)]
mod tests;
