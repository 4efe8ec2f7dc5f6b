//! The admin API: tenants, apps and API keys for whoever has an admin token. `PUT` is idempotent.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json as Answer, Router};
use bigpeer_chassis::{ApiError, ApiKey, ApiKeySpec, App, Catalogue, ErrorCode, Json, KeyLimits, Name, Permissions};
use bigpeer_types::AppId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::stores::AppStores;

#[derive(Clone, Debug)]
pub(super) struct AdminContext {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) stores: Arc<AppStores>,
}

pub(super) fn router(context: AdminContext) -> Router {
    Router::new()
        .route("/admin/v1/tenants", get(tenants))
        .route("/admin/v1/tenants/{tenant}", put(put_tenant))
        .route("/admin/v1/tenants/{tenant}/apps/{name}", put(put_app).get(get_app))
        .route("/admin/v1/apps/{app}/api-keys", get(api_keys))
        .route("/admin/v1/apps/{app}/api-keys/{name}", put(put_api_key).get(get_api_key).delete(delete_api_key))
        .route("/admin/v1/apps/{app}/compact", post(compact))
        .with_state(context)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRequest {
    permissions: Permissions,
    /// Milliseconds since the epoch.
    #[serde(default)]
    expires_at: Option<u64>,
    #[serde(default)]
    limits: KeyLimits,
}

#[derive(Serialize)]
struct KeyAnswer {
    name: Name,
    prefix: String,
    permissions: Permissions,
    expires_at: Option<u64>,
    limits: KeyLimits,
    created_at: u64,
    /// The secret: in the first answer only.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl KeyAnswer {
    fn new(of: ApiKey, key: Option<String>) -> Self {
        Self {
            name: of.name,
            prefix: of.prefix,
            permissions: of.permissions,
            expires_at: of.expires_at_ms,
            limits: of.limits,
            created_at: of.created_ms,
            key,
        }
    }
}

pub(super) fn name(text: &str) -> Result<Name, ApiError> {
    text.parse().map_err(|error: bigpeer_chassis::NameError| ApiError::new(ErrorCode::BadRequest, error.to_string()))
}

/// The app that an administrator names: unlike at the doors of the data, an unknown one is said to be unknown.
pub(super) fn app(context: &AdminContext, text: &str) -> Result<AppId, ApiError> {
    let unknown = || ApiError::new(ErrorCode::NotFound, "there is no app with this id");
    let id = AppId::new(text).map_err(|_| unknown())?;
    context.catalogue.app(&id).map(|app| app.id).ok_or_else(unknown)
}

pub(super) fn app_json(app: &App) -> Value {
    json!({"id": app.id, "tenant": app.tenant, "name": app.name, "created_at": app.created_ms})
}

async fn tenants(State(context): State<AdminContext>, headers: HeaderMap) -> Result<Answer<Value>, ApiError> {
    context.catalogue.authenticate_admin(&headers)?;
    let tenants: Vec<_> = context
        .catalogue
        .tenants()
        .into_iter()
        .map(|tenant| json!({"name": tenant.name, "created_at": tenant.created_ms}))
        .collect();
    Ok(Answer(json!({"tenants": tenants})))
}

async fn put_tenant(
    State(context): State<AdminContext>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    context.catalogue.authenticate_admin(&headers)?;
    let tenant = context.catalogue.create_tenant(&name(&tenant)?).await?;
    Ok(Answer(json!({"name": tenant.name, "created_at": tenant.created_ms})))
}

async fn put_app(
    State(context): State<AdminContext>,
    Path((tenant, app)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    context.catalogue.authenticate_admin(&headers)?;
    let app = context.catalogue.create_app(&name(&tenant)?, &name(&app)?).await?;
    // So that it can be used at once.
    context.stores.open(&app.id).await.map_err(|error| ApiError::internal(&error))?;
    tracing::info!(app = %app.id, tenant = %app.tenant, name = %app.name, "an app is served");
    Ok(Answer(app_json(&app)))
}

async fn get_app(
    State(context): State<AdminContext>,
    Path((tenant, app)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    context.catalogue.authenticate_admin(&headers)?;
    let found = context.catalogue.app_named(&name(&tenant)?, &name(&app)?);
    found
        .map(|app| Answer(app_json(&app)))
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound, "this tenant has no app of this name"))
}

async fn api_keys(
    State(context): State<AdminContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    context.catalogue.authenticate_admin(&headers)?;
    let keys = context.catalogue.api_keys(&app(&context, &id)?);
    let keys: Vec<_> = keys.into_iter().map(|key| KeyAnswer::new(key, None)).collect();
    Ok(Answer(json!({"api_keys": keys})))
}

async fn get_api_key(
    State(context): State<AdminContext>,
    Path((id, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<KeyAnswer>, ApiError> {
    context.catalogue.authenticate_admin(&headers)?;
    let found = context.catalogue.api_key(&app(&context, &id)?, &name(&key)?);
    found
        .map(|key| Answer(KeyAnswer::new(key, None)))
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound, "this app has no API key of this name"))
}

async fn put_api_key(
    State(context): State<AdminContext>,
    Path((id, key)): Path<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<Response, ApiError> {
    // Before the body is looked at.
    context.catalogue.authenticate_admin(&headers)?;
    let (app, key) = (app(&context, &id)?, name(&key)?);
    let Json(request) = Json::<KeyRequest>::parse(&body)?;
    // A rule that cannot be understood is refused here, where someone can repair it.
    request.permissions.check().map_err(|message| ApiError::new(ErrorCode::BadRequest, message))?;
    let spec =
        ApiKeySpec { permissions: request.permissions, expires_at_ms: request.expires_at, limits: request.limits };
    let (stored, secret) = context.catalogue.put_api_key(&app, &key, spec).await?;
    let status = if secret.is_some() { StatusCode::CREATED } else { StatusCode::OK };
    let secret = secret.map(|secret| secret.expose().to_owned());
    Ok((status, Answer(KeyAnswer::new(stored, secret))).into_response())
}

async fn delete_api_key(
    State(context): State<AdminContext>,
    Path((id, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    context.catalogue.authenticate_admin(&headers)?;
    context.catalogue.delete_api_key(&app(&context, &id)?, &name(&key)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Puts everything applied so far into segments, in one sorted run per collection.
async fn compact(
    State(context): State<AdminContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    context.catalogue.authenticate_admin(&headers)?;
    let closed = || ApiError::new(ErrorCode::Unavailable, "this app is still being opened; try again");
    let done = context.stores.compact(&app(&context, &id)?).await.map_err(|error| ApiError::internal(&error))?;
    let (lsn, manifest) = done.ok_or_else(closed)?;
    Ok(Answer(json!({"lsn": lsn.to_string(), "manifest": manifest})))
}
