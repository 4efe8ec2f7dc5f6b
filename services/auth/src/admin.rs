//! The admin API of who may come in: providers, roles, revocations, signing keys, authorities. `PUT` is idempotent.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json as Answer, Router};
use bigpeer_chassis::{
    ApiError, ErrorCode, Json, Name, NameError, Permissions, PublishedAuthority, PublishedKey, Revocation, Revoked,
    Role,
};
use bigpeer_types::AppId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::AuthContext;
use crate::providers::{self, ProviderRequest};

/// The routes of the admin API.
pub fn router(context: AuthContext) -> Router {
    Router::new()
        .route("/admin/v1/apps/{app}/providers", get(list_providers))
        .route("/admin/v1/apps/{app}/providers/{name}", get(get_provider).put(put_provider).delete(delete_provider))
        .route("/admin/v1/apps/{app}/roles", get(list_roles))
        .route("/admin/v1/apps/{app}/roles/{name}", get(get_role).put(put_role).delete(delete_role))
        .route("/admin/v1/apps/{app}/revocations", get(list_revocations).post(revoke))
        .route("/admin/v1/apps/{app}/signing-keys", get(list_signing_keys))
        .route("/admin/v1/apps/{app}/signing-keys/rotate", post(rotate_signing_keys))
        .route("/admin/v1/apps/{app}/authorities", get(list_authorities))
        .route("/admin/v1/apps/{app}/authorities/rotate", post(rotate_authority))
        .route("/admin/v1/secrets/reseal", post(reseal))
        .with_state(context)
}

/// The app that an administrator names, when they may.
fn app(context: &AuthContext, headers: &HeaderMap, text: &str) -> Result<AppId, ApiError> {
    context.catalogue.authenticate_admin(headers)?;
    let unknown = || ApiError::new(ErrorCode::NotFound, "there is no app with this id");
    let id = AppId::new(text).map_err(|_| unknown())?;
    context.catalogue.app(&id).map(|app| app.id).ok_or_else(unknown)
}

fn name(text: &str) -> Result<Name, ApiError> {
    text.parse().map_err(|error: NameError| ApiError::new(ErrorCode::BadRequest, error.to_string()))
}

fn missing(what: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("this app has no {what} of this name"))
}

const fn made(is_new: bool) -> StatusCode {
    if is_new { StatusCode::CREATED } else { StatusCode::OK }
}

type Place = Path<(String, String)>;

async fn list_providers(
    State(context): State<AuthContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let app = app(&context, &headers, &id)?;
    let all = context.catalogue.providers(&app);
    let all: Vec<Value> = all.iter().map(|(name, provider)| providers::shown(name, provider)).collect();
    Ok(Answer(json!({"providers": all})))
}

async fn get_provider(
    State(context): State<AuthContext>,
    Path((id, provider)): Place,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = (app(&context, &headers, &id)?, name(&provider)?);
    let found = context.catalogue.provider(&app, &name).ok_or_else(|| missing("provider"))?;
    Ok(Answer(providers::shown(&name, &found)))
}

async fn put_provider(
    State(context): State<AuthContext>,
    Path((id, provider)): Place,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (app, name) = (app(&context, &headers, &id)?, name(&provider)?);
    let Json(request) = Json::<ProviderRequest>::parse(&body)?;
    let mut secret = None;
    let make = |old: Option<&_>| {
        let (spec, made) = request.spec(&context, &app, &name, old)?;
        secret = made;
        Ok::<_, ApiError>(spec)
    };
    let (stored, is_new) = context.catalogue.put_provider(&app, &name, make).await?;
    let mut json = providers::shown(&name, &stored);
    if let (Some(secret), Value::Object(json)) = (secret, &mut json) {
        // Shown once.
        json.insert("secret".to_owned(), secret.into());
    }
    Ok((made(is_new), Answer(json)).into_response())
}

async fn delete_provider(
    State(context): State<AuthContext>,
    Path((id, provider)): Place,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let app = app(&context, &headers, &id)?;
    context.catalogue.delete_provider(&app, &name(&provider)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleRequest {
    permissions: Permissions,
}

fn role_json(name: &Name, role: &Role) -> Value {
    json!({"name": name, "permissions": role.permissions, "created_at": role.created_ms})
}

async fn list_roles(
    State(context): State<AuthContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let app = app(&context, &headers, &id)?;
    let roles: Vec<Value> = context.catalogue.roles(&app).iter().map(|(name, role)| role_json(name, role)).collect();
    Ok(Answer(json!({"roles": roles})))
}

async fn get_role(
    State(context): State<AuthContext>,
    Path((id, role)): Place,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = (app(&context, &headers, &id)?, name(&role)?);
    let found = context.catalogue.role(&app, &name).ok_or_else(|| missing("role"))?;
    Ok(Answer(role_json(&name, &found)))
}

async fn put_role(
    State(context): State<AuthContext>,
    Path((id, role)): Place,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (app, name) = (app(&context, &headers, &id)?, name(&role)?);
    let Json(request) = Json::<RoleRequest>::parse(&body)?;
    // A rule that cannot be understood is refused here, where someone can repair it.
    request.permissions.check().map_err(|message| ApiError::new(ErrorCode::BadRequest, message))?;
    let (role, is_new) = context.catalogue.put_role(&app, &name, request.permissions).await?;
    Ok((made(is_new), Answer(role_json(&name, &role))).into_response())
}

async fn delete_role(
    State(context): State<AuthContext>,
    Path((id, role)): Place,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let app = app(&context, &headers, &id)?;
    context.catalogue.delete_role(&app, &name(&role)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn revocation_json(id: &Name, revocation: &Revocation) -> Value {
    let (kind, whom) = match &revocation.what {
        Revoked::User(user) => ("user", user.clone()),
        Revoked::Site(site) => ("site", site.to_string()),
        Revoked::Key(key) => ("key", key.to_string()),
        Revoked::Condition(condition) => ("condition", condition.clone()),
        Revoked::Login(login) => ("login", login.clone()),
    };
    json!({"id": id, kind: whom, "before": revocation.before_ms})
}

async fn list_revocations(
    State(context): State<AuthContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let app = app(&context, &headers, &id)?;
    let all = context.catalogue.revocations(&app);
    let all: Vec<Value> = all.iter().map(|(id, revocation)| revocation_json(id, revocation)).collect();
    Ok(Answer(json!({"revocations": all})))
}

async fn revoke(
    State(context): State<AuthContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let app = app(&context, &headers, &id)?;
    let Json(what) = Json::<Revoked>::parse(&body)?;
    let (id, revocation) = context.catalogue.revoke(&app, what).await?;
    tracing::info!(%app, revocation = %id, "logins are revoked");
    Ok((StatusCode::CREATED, Answer(revocation_json(&id, &revocation))).into_response())
}

fn key_json(key: &PublishedKey) -> Value {
    json!({"kid": key.kid, "signs_from": key.signs_from_ms, "verifies_until": key.verifies_until_ms})
}

async fn list_signing_keys(
    State(context): State<AuthContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let app = app(&context, &headers, &id)?;
    let keys: Vec<Value> = context.catalogue.published_keys(&app).iter().map(key_json).collect();
    Ok(Answer(json!({"signing_keys": keys})))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateRequest {
    /// Whether everything that was signed before is good no more.
    #[serde(default)]
    at_once: bool,
}

async fn rotate_signing_keys(
    State(context): State<AuthContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer<Value>, ApiError> {
    let app = app(&context, &headers, &id)?;
    let request = if body.is_empty() { RotateRequest::default() } else { Json::<RotateRequest>::parse(&body)?.0 };
    context.catalogue.rotate_signing_keys(&app, request.at_once).await?;
    let keys: Vec<Value> = context.catalogue.published_keys(&app).iter().map(key_json).collect();
    Ok(Answer(json!({"signing_keys": keys})))
}

/// An authority as everybody may see it.
pub(crate) fn authority_json(one: &PublishedAuthority) -> Value {
    json!({"id": one.id, "certificate": one.certificate, "issues_from": one.issues_from_ms,
        "verifies_until": one.verifies_until_ms})
}

async fn list_authorities(
    State(context): State<AuthContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let app = app(&context, &headers, &id)?;
    let all: Vec<Value> = context.catalogue.published_authorities(&app).iter().map(authority_json).collect();
    Ok(Answer(json!({"authorities": all})))
}

async fn rotate_authority(
    State(context): State<AuthContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer<Value>, ApiError> {
    let app = app(&context, &headers, &id)?;
    let request = if body.is_empty() { RotateRequest::default() } else { Json::<RotateRequest>::parse(&body)?.0 };
    context.catalogue.rotate_authority(&app, request.at_once).await?;
    let all: Vec<Value> = context.catalogue.published_authorities(&app).iter().map(authority_json).collect();
    Ok(Answer(json!({"authorities": all})))
}

/// Seals every secret anew that the newest master key did not seal.
async fn reseal(State(context): State<AuthContext>, headers: HeaderMap) -> Result<Answer<Value>, ApiError> {
    context.catalogue.authenticate_admin(&headers)?;
    let resealed = context.catalogue.reseal().await?;
    Ok(Answer(json!({"resealed": resealed, "master_keys": context.catalogue.keyring().ids()})))
}
