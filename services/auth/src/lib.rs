//! Login: who has an API key, or whom a provider of the app vouches for, gets a site of their own and an access token for it;
//! a refresh token gives the next.
//!
//! `POST /{app}/auth/login`, `/auth/refresh` and `/auth/logout`, `GET /{app}/.well-known/jwks.json`, `/auth/certs` and
//! `/auth/revocations`, and the admin API of providers, roles, revocations, signing keys and authorities. docs/auth.md is the
//! guide.

mod admin;
mod anonymous;
mod certificates;
mod keys;
mod login;
mod metrics;
mod oidc;
mod providers;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use bigpeer_chassis::{Catalogue, LoginTimes, Shutdown, TurnLimits, Turns};

pub use admin::{router as admin_router, routes as admin_routes};
pub use providers::ProviderRequest;

/// How long an access token is good for, unless told otherwise: in seconds.
pub const DEFAULT_TOKEN_TTL_SECS: u64 = 3600;
/// How long a refresh token that is not used is good for, unless told otherwise: in seconds.
pub const DEFAULT_REFRESH_TTL_SECS: u64 = 90 * 24 * 3600;
/// How long a peer's certificate is good for, unless told otherwise: in seconds.
pub const DEFAULT_CERTIFICATE_TTL_SECS: u64 = 12 * 3600;
/// Largest body of a login, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Logins that wait for a provider at once.
const MAX_ASKING: usize = 256;
/// How often logins that have ended are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// How logins are.
#[derive(Clone, Copy, Debug)]
pub struct AuthSettings {
    /// How long an access token is good for, in seconds.
    pub token_ttl_secs: u64,
    /// How long a refresh token that is not used is good for, in seconds.
    pub refresh_ttl_secs: u64,
    /// How long a peer's certificate is good for, in seconds; a week at most.
    pub certificate_ttl_secs: u64,
    /// Whether webhooks and issuers may have private addresses.
    pub allow_private_providers: bool,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            token_ttl_secs: DEFAULT_TOKEN_TTL_SECS,
            refresh_ttl_secs: DEFAULT_REFRESH_TTL_SECS,
            certificate_ttl_secs: DEFAULT_CERTIFICATE_TTL_SECS,
            allow_private_providers: false,
        }
    }
}

/// What the routes need. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuthContext {
    /// Where apps, keys and sites are.
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) settings: AuthSettings,
    pub(crate) issuers: Arc<oidc::Issuers>,
    pub(crate) webhooks: Arc<webhook::Webhooks>,
    /// A place for each login that waits for a provider.
    pub(crate) asking: Turns,
}

impl AuthContext {
    /// What the routes need.
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>, settings: AuthSettings) -> Self {
        let clock = Arc::clone(catalogue.clock());
        Self {
            issuers: Arc::new(oidc::Issuers::new(settings.allow_private_providers, Arc::clone(&clock))),
            webhooks: Arc::new(webhook::Webhooks::new(settings.allow_private_providers, clock)),
            asking: Turns::new(TurnLimits { running: MAX_ASKING, waiting: 0, patience: Duration::ZERO }),
            catalogue,
            settings,
        }
    }

    pub(crate) const fn times(&self) -> LoginTimes {
        LoginTimes { token_ttl_secs: self.settings.token_ttl_secs, refresh_ttl_secs: self.settings.refresh_ttl_secs }
    }
}

/// The routes of login.
pub fn router(context: AuthContext) -> Router {
    Router::new()
        .route("/{app}/auth/login", post(login::login))
        .route("/{app}/auth/refresh", post(login::refresh))
        .route("/{app}/auth/logout", post(login::logout))
        .route("/{app}/auth/certs", get(certificates::published))
        .route("/{app}/auth/revocations", get(certificates::revocations))
        .route("/{app}/.well-known/jwks.json", get(keys::published))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(context)
}

/// Forgets logins that have ended, now and then, until shutdown.
pub async fn forget_logins(catalogue: Arc<Catalogue>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(FORGET_EVERY) => {}
        }
        match catalogue.forget_ended_logins().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "logins that have ended are forgotten"),
            Err(error) => {
                tracing::warn!(%error, "logins that have ended could not be forgotten; the next try is in an hour")
            }
        }
    }
}

#[cfg(test)]
mod tests;
