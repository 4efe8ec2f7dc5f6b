//! API keys of an app. The secret is in the first answer only.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::admin::{AdminRoute, AskedApp, Asks, Page};
use bigpeer_chassis::{
    Administrator, ApiError, ApiKey, ApiKeySpec, Door, Doors, ErrorCode, Json, KeyLimits, Name, Permissions, Reach,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ControlContext, bad, described_well, made, name, schemas};

const ALL: &str = "/admin/v1/apps/{app}/api-keys";
const ONE: &str = "/admin/v1/apps/{app}/api-keys/{name}";

pub(crate) fn routes() -> Vec<AdminRoute<ControlContext>> {
    let schema = schemas::api_key();
    vec![
        AdminRoute::get(ALL, Asks::App, list)
            .says("The API keys of an app, by name, without their secrets")
            .queried(Page::parameters())
            .answers(200, Some(Page::schema("api_keys", &schema))),
        AdminRoute::get(ONE, Asks::App, find).says("An API key, without its secret").answers(200, Some(schema.clone())),
        AdminRoute::put(ONE, Asks::App, put)
            .says("Makes an API key, and shows its secret this once; or changes what it opens")
            .takes(schemas::api_key_request())
            .answers(200, Some(schema))
            .answers(201, Some(schemas::new_api_key())),
        AdminRoute::delete(ONE, Asks::App, delete).says("Deletes an API key, and ends all that was opened with it"),
    ]
}

/// The body of `PUT …/api-keys/{name}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyRequest {
    permissions: Permissions,
    /// Milliseconds since the epoch.
    #[serde(default)]
    expires_at: Option<u64>,
    #[serde(default)]
    limits: KeyLimits,
    #[serde(default)]
    scopes: Doors,
    #[serde(default)]
    description: Option<String>,
}

impl ApiKeyRequest {
    /// Refuses what cannot work, whatever app it is for and whoever asks.
    ///
    /// # Errors
    /// Says what, and what to do.
    pub fn check(&self) -> Result<(), String> {
        // A rule that cannot be understood is refused here, where someone can repair it.
        self.permissions.check()?;
        if self.scopes.is_empty() {
            return Err("'scopes' must name a door: 'data', 'sql', 'changes', 'sync' or 'admin'".to_owned());
        }
        described_well(self.description.as_ref())
    }
}

fn shown(key: &ApiKey, last_used: Option<u64>) -> Value {
    json!({
        "name": key.name,
        "prefix": key.prefix,
        "permissions": key.permissions,
        "scopes": key.scopes,
        "expires_at": key.expires_at_ms,
        "limits": key.limits,
        "description": key.description,
        "created_at": key.created_ms,
        "last_used": last_used,
    })
}

async fn list(
    State(context): State<ControlContext>,
    AskedApp(app): AskedApp,
    page: Page,
) -> Result<Answer<Value>, ApiError> {
    let uses = context.catalogue.key_uses(&app.id).await?;
    let page = page.of(context.catalogue.api_keys(&app.id), |key| key.name.to_string());
    Ok(page.json("api_keys", |key| shown(&key, uses.get(&key.name).copied())))
}

async fn find(
    State(context): State<ControlContext>,
    AskedApp(app): AskedApp,
    Path((_, key)): Path<(String, String)>,
) -> Result<Answer<Value>, ApiError> {
    let key = context.catalogue.api_key(&app.id, &name(&key)?);
    let key = key.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "this app has no API key of this name"))?;
    let uses: BTreeMap<Name, u64> = context.catalogue.key_uses(&app.id).await?;
    Ok(Answer(shown(&key, uses.get(&key.name).copied())))
}

/// An API key cannot make, change or delete what administers the app: it could outlive its own end, or shut out others.
fn may(admin: &Administrator, key: Option<&ApiKey>, scopes: Doors) -> Result<(), ApiError> {
    let administers = scopes.contain(Door::Admin) || key.is_some_and(|key| key.scopes.contain(Door::Admin));
    match &admin.reach {
        Reach::App(_) if administers => {
            let message =
                "keys that open 'admin' are for an admin token of the tenant, or an operator, to make and change";
            Err(ApiError::new(ErrorCode::Forbidden, message))
        }
        Reach::Operator | Reach::Tenant(_) | Reach::App(_) => Ok(()),
    }
}

async fn put(
    State(context): State<ControlContext>,
    AskedApp(app): AskedApp,
    admin: Administrator,
    Path((_, key)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let key = name(&key)?;
    let Json(request) = Json::<ApiKeyRequest>::parse(&body)?;
    request.check().map_err(bad)?;
    may(&admin, context.catalogue.api_key(&app.id, &key).as_ref(), request.scopes)?;
    let spec = ApiKeySpec {
        permissions: request.permissions,
        expires_at_ms: request.expires_at,
        limits: request.limits,
        scopes: request.scopes,
        description: request.description,
    };
    let (stored, secret) = context.catalogue.put_api_key(&app.id, &key, spec).await?;
    let uses = context.catalogue.key_uses(&app.id).await?;
    let mut json = shown(&stored, uses.get(&key).copied());
    let is_new = secret.is_some();
    if let (Some(secret), Value::Object(json)) = (secret, &mut json) {
        json.insert("key".to_owned(), secret.expose().into());
    }
    Ok((made(is_new), Answer(json)).into_response())
}

async fn delete(
    State(context): State<ControlContext>,
    AskedApp(app): AskedApp,
    admin: Administrator,
    Path((_, key)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let key = name(&key)?;
    let Some(known) = context.catalogue.api_key(&app.id, &key) else { return Ok(StatusCode::NO_CONTENT) };
    may(&admin, Some(&known), known.scopes)?;
    context.catalogue.delete_api_key(&app.id, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}
