//! Login: with an API key a peer gets a site of its own and an access token for it; with its last token, a new one.
//!
//! `POST /{app}/auth/login` (Bearer API key) and `POST /{app}/auth/refresh` (Bearer token, ended or not, as long as its API
//! key is good) both answer `{"site", "access_token", "expires_at"}`: 16 hexadecimal digits, text, and milliseconds
//! since the epoch.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bigpeer_chassis::{ApiError, ApiKey, Catalogue, TokenAge, app_of, bearer};
use bigpeer_types::{AppId, SiteId};
use serde::Serialize;

/// How long an access token is good for, unless told otherwise: in seconds.
pub const DEFAULT_TOKEN_TTL_SECS: u64 = 3600;

/// What the routes need.
#[derive(Clone, Debug)]
pub struct AuthContext {
    /// Where apps, keys and sites are.
    pub catalogue: Arc<Catalogue>,
    /// How long an access token is good for, in seconds.
    pub token_ttl_secs: u64,
}

#[derive(Serialize)]
struct Session {
    site: SiteId,
    access_token: String,
    /// Milliseconds since the epoch.
    expires_at: u64,
}

/// The routes of login.
pub fn router(context: AuthContext) -> Router {
    Router::new()
        .route("/{app}/auth/login", post(login))
        .route("/{app}/auth/refresh", post(refresh))
        .with_state(context)
}

async fn login(
    State(context): State<AuthContext>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let app = app_of(&app)?;
    let credential = bearer(&headers).ok_or_else(ApiError::unauthorized)?;
    let key = context.catalogue.authenticate_api_key(&app, credential)?;
    let site = context.catalogue.allocate_site(&app).await?;
    tracing::info!(%app, %site, key = %key.name, "a peer logged in and got a site");
    session(&context, &app, site, &key)
}

#[allow(clippy::unused_async, reason = "axum's handlers are futures")]
async fn refresh(
    State(context): State<AuthContext>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let app = app_of(&app)?;
    let credential = bearer(&headers).ok_or_else(ApiError::unauthorized)?;
    let (token, key) = context.catalogue.verify_token(&app, credential, TokenAge::MayHaveEnded)?;
    session(&context, &app, token.site, &key)
}

fn session(context: &AuthContext, app: &AppId, site: SiteId, key: &ApiKey) -> Result<Response, ApiError> {
    let (access_token, expires_at) = context.catalogue.issue_token(app, site, key, context.token_ttl_secs)?;
    let mut response = Json(Session { site, access_token, expires_at }).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[cfg(test)]
mod tests;
