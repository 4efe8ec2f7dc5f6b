//! The admin API of who may come in: providers, roles, revocations, signing keys, authorities. `PUT` is idempotent.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json as Answer, Router};
use bigpeer_chassis::admin::{AdminRoute, AskedApp, Asks, Page, admin_router};
use bigpeer_chassis::{
    ApiError, ErrorCode, Json, Name, NameError, Permissions, PublishedAuthority, PublishedKey, Revocation, Revoked,
    Role,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::AuthContext;
use crate::providers::{self, ProviderRequest};

const PROVIDERS: &str = "/admin/v1/apps/{app}/providers";
const PROVIDER: &str = "/admin/v1/apps/{app}/providers/{name}";
const ROLES: &str = "/admin/v1/apps/{app}/roles";
const ROLE: &str = "/admin/v1/apps/{app}/roles/{name}";
const REVOCATIONS: &str = "/admin/v1/apps/{app}/revocations";
const SIGNING_KEYS: &str = "/admin/v1/apps/{app}/signing-keys";
const ROTATE: &str = "/admin/v1/apps/{app}/signing-keys/rotate";
const AUTHORITIES: &str = "/admin/v1/apps/{app}/authorities";
const REPLACE: &str = "/admin/v1/apps/{app}/authorities/rotate";
const RESEAL: &str = "/admin/v1/secrets/reseal";

/// The routes of the admin API.
pub fn router(context: AuthContext) -> Router {
    admin_router(&Arc::clone(&context.catalogue), routes(), context)
}

/// The routes, each with what it asks and what is said of it.
#[must_use]
pub fn routes() -> Vec<AdminRoute<AuthContext>> {
    let object = json!({ "type": "object" });
    let permissions = json!({ "$ref": "#/components/schemas/Permissions" });
    let role = json!({ "type": "object", "required": ["permissions"], "additionalProperties": false,
        "properties": { "permissions": permissions } });
    let rotation = json!({ "type": "object", "additionalProperties": false,
        "properties": { "at_once": { "type": "boolean", "default": false } } });
    vec![
        AdminRoute::get(PROVIDERS, Asks::App, list_providers)
            .says("What vouches for users of an app, by name, without secrets")
            .queried(Page::parameters())
            .answers(200, Some(Page::schema("providers", &object))),
        AdminRoute::get(PROVIDER, Asks::App, get_provider)
            .says("A provider, without its secrets")
            .answers(200, Some(object.clone())),
        AdminRoute::put(PROVIDER, Asks::App, put_provider)
            .says("Makes a provider, or changes it")
            .takes(providers::schema())
            .answers(200, Some(object.clone()))
            .answers(201, Some(object.clone())),
        AdminRoute::delete(PROVIDER, Asks::App, delete_provider).says("Deletes a provider, and shuts its users out"),
        AdminRoute::get(ROLES, Asks::App, list_roles)
            .says("The roles of an app, by name")
            .queried(Page::parameters())
            .answers(200, Some(Page::schema("roles", &object))),
        AdminRoute::get(ROLE, Asks::App, get_role).says("A role").answers(200, Some(object.clone())),
        AdminRoute::put(ROLE, Asks::App, put_role)
            .says("Makes a role, or changes what it allows")
            .takes(role)
            .answers(200, Some(object.clone()))
            .answers(201, Some(object.clone())),
        AdminRoute::delete(ROLE, Asks::App, delete_role).says("Deletes a role: it allows nothing any more"),
        AdminRoute::get(REVOCATIONS, Asks::App, list_revocations)
            .says("The revocations of an app, by id, which is in order of time")
            .queried(Page::parameters())
            .answers(200, Some(Page::schema("revocations", &object))),
        AdminRoute::post(REVOCATIONS, Asks::App, revoke)
            .says("Ends every login up to now that it is about")
            .takes(revocation_schema())
            .answers(201, Some(object.clone())),
        AdminRoute::get(SIGNING_KEYS, Asks::App, list_signing_keys)
            .says("The keys of an app's access tokens, the oldest first; there are few")
            .answers(200, Some(object.clone())),
        AdminRoute::post(ROTATE, Asks::App, rotate_signing_keys)
            .says("Gives an app a new key for its access tokens")
            .takes(rotation.clone())
            .answers(200, Some(object.clone())),
        AdminRoute::get(AUTHORITIES, Asks::App, list_authorities)
            .says("The authorities of an app's certificates, the oldest first; there are few")
            .answers(200, Some(object.clone())),
        AdminRoute::post(REPLACE, Asks::App, rotate_authority)
            .says("Gives an app a new authority for its certificates")
            .takes(rotation)
            .answers(200, Some(object.clone())),
        AdminRoute::post(RESEAL, Asks::Operator, reseal)
            .says("Seals every secret anew that the newest master key did not seal")
            .answers(200, Some(object)),
    ]
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

async fn list_providers(State(context): State<AuthContext>, AskedApp(app): AskedApp, page: Page) -> Answer<Value> {
    let all = page.of(context.catalogue.providers(&app.id), |(name, _)| name.to_string());
    all.json("providers", |(name, provider)| providers::shown(&name, &provider))
}

async fn get_provider(
    State(context): State<AuthContext>,
    AskedApp(app): AskedApp,
    Path((_, provider)): Place,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = (app.id, name(&provider)?);
    let found = context.catalogue.provider(&app, &name).ok_or_else(|| missing("provider"))?;
    Ok(Answer(providers::shown(&name, &found)))
}

async fn put_provider(
    State(context): State<AuthContext>,
    AskedApp(app): AskedApp,
    Path((_, provider)): Place,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (app, name) = (app.id, name(&provider)?);
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
    AskedApp(app): AskedApp,
    Path((_, provider)): Place,
) -> Result<StatusCode, ApiError> {
    let app = app.id;
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

async fn list_roles(State(context): State<AuthContext>, AskedApp(app): AskedApp, page: Page) -> Answer<Value> {
    let all = page.of(context.catalogue.roles(&app.id), |(name, _)| name.to_string());
    all.json("roles", |(name, role)| role_json(&name, &role))
}

async fn get_role(
    State(context): State<AuthContext>,
    AskedApp(app): AskedApp,
    Path((_, role)): Place,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = (app.id, name(&role)?);
    let found = context.catalogue.role(&app, &name).ok_or_else(|| missing("role"))?;
    Ok(Answer(role_json(&name, &found)))
}

async fn put_role(
    State(context): State<AuthContext>,
    AskedApp(app): AskedApp,
    Path((_, role)): Place,
    body: Bytes,
) -> Result<Response, ApiError> {
    let (app, name) = (app.id, name(&role)?);
    let Json(request) = Json::<RoleRequest>::parse(&body)?;
    // A rule that cannot be understood is refused here, where someone can repair it.
    request.permissions.check().map_err(|message| ApiError::new(ErrorCode::BadRequest, message))?;
    let (role, is_new) = context.catalogue.put_role(&app, &name, request.permissions).await?;
    Ok((made(is_new), Answer(role_json(&name, &role))).into_response())
}

async fn delete_role(
    State(context): State<AuthContext>,
    AskedApp(app): AskedApp,
    Path((_, role)): Place,
) -> Result<StatusCode, ApiError> {
    let app = app.id;
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

fn revocation_schema() -> Value {
    let one = |name: &str| {
        json!({ "type": "object", "required": [name], "additionalProperties": false,
        "properties": { name: { "type": "string" } } })
    };
    let all = ["user", "site", "key", "condition", "login"].map(one);
    json!({ "oneOf": all })
}

async fn list_revocations(State(context): State<AuthContext>, AskedApp(app): AskedApp, page: Page) -> Answer<Value> {
    let all = page.of(context.catalogue.revocations(&app.id), |(id, _)| id.to_string());
    all.json("revocations", |(id, revocation)| revocation_json(&id, &revocation))
}

async fn revoke(
    State(context): State<AuthContext>,
    AskedApp(app): AskedApp,
    body: Bytes,
) -> Result<Response, ApiError> {
    let app = app.id;
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
    AskedApp(app): AskedApp,
) -> Result<Answer<Value>, ApiError> {
    let app = app.id;
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
    AskedApp(app): AskedApp,
    body: Bytes,
) -> Result<Answer<Value>, ApiError> {
    let app = app.id;
    let Json(request) = Json::<RotateRequest>::parse_or_default(&body)?;
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
    AskedApp(app): AskedApp,
) -> Result<Answer<Value>, ApiError> {
    let app = app.id;
    let all: Vec<Value> = context.catalogue.published_authorities(&app).iter().map(authority_json).collect();
    Ok(Answer(json!({"authorities": all})))
}

async fn rotate_authority(
    State(context): State<AuthContext>,
    AskedApp(app): AskedApp,
    body: Bytes,
) -> Result<Answer<Value>, ApiError> {
    let app = app.id;
    let Json(request) = Json::<RotateRequest>::parse_or_default(&body)?;
    context.catalogue.rotate_authority(&app, request.at_once).await?;
    let all: Vec<Value> = context.catalogue.published_authorities(&app).iter().map(authority_json).collect();
    Ok(Answer(json!({"authorities": all})))
}

/// Seals every secret anew that the newest master key did not seal.
async fn reseal(State(context): State<AuthContext>) -> Result<Answer<Value>, ApiError> {
    let resealed = context.catalogue.reseal().await?;
    Ok(Answer(json!({"resealed": resealed, "master_keys": context.catalogue.keyring().ids()})))
}
