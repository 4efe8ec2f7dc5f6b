//! Admin tokens: of operators, and of who administers a tenant. The secret is in the first answer only.

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::admin::{AdminRoute, Asks, Concerns, Page};
use bigpeer_chassis::{AdminScope, AdminToken, AdminTokenSpec, Administrator, ApiError, ErrorCode, Json, Name, Reach};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ControlContext, bad, described_well, made, name, schemas};

const ALL: &str = "/admin/v1/admin-tokens";
const ONE: &str = "/admin/v1/admin-tokens/{name}";

pub(crate) fn routes() -> Vec<AdminRoute<ControlContext>> {
    let schema = schemas::admin_token();
    vec![
        AdminRoute::get(ALL, Asks::Tenants, list)
            .says("The admin tokens, by name, without their secrets; to who administers a tenant, those of the tenant")
            .queried(Page::parameters())
            .answers(200, Some(Page::schema("admin_tokens", &schema))),
        AdminRoute::get(ONE, Asks::Tenants, find)
            .says("An admin token, without its secret")
            .answers(200, Some(schema.clone())),
        AdminRoute::put(ONE, Asks::Tenants, put)
            .says("Makes an admin token, and shows its secret this once; or changes what it administers")
            .takes(schemas::admin_token_request())
            .answers(200, Some(schema))
            .answers(201, Some(schemas::new_admin_token())),
        AdminRoute::delete(ONE, Asks::Tenants, delete).says("Deletes an admin token"),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    scope: AdminScope,
    /// Milliseconds since the epoch.
    #[serde(default)]
    expires_at: Option<u64>,
    #[serde(default)]
    description: Option<String>,
}

fn shown(name: &Name, token: &AdminToken, last_used: Option<u64>) -> Value {
    json!({
        "name": name,
        "prefix": token.prefix,
        "scope": token.scope,
        "expires_at": token.expires_at_ms,
        "description": token.description,
        "created_at": token.created_ms,
        "last_used": last_used,
    })
}

/// Whether a token is the caller's to see and change.
fn is_theirs(admin: &Administrator, scope: &AdminScope) -> bool {
    match (&admin.reach, scope) {
        (Reach::Operator, _) => true,
        (Reach::Tenant(own), AdminScope::Tenant(tenant)) => own == tenant,
        (Reach::Tenant(_) | Reach::App(_), _) => false,
    }
}

/// The token of that name, when the caller may know of it.
fn known(context: &ControlContext, admin: &Administrator, name: &Name) -> Result<AdminToken, ApiError> {
    let token = context.catalogue.admin_token(name).filter(|token| is_theirs(admin, &token.scope));
    token.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "there is no admin token of this name"))
}

fn tenant_of(scope: &AdminScope) -> Option<Name> {
    match scope {
        AdminScope::Operator => None,
        AdminScope::Tenant(tenant) => Some(tenant.clone()),
    }
}

async fn list(
    State(context): State<ControlContext>,
    admin: Administrator,
    page: Page,
) -> Result<Answer<Value>, ApiError> {
    let uses = context.catalogue.admin_uses().await?;
    let mut all = context.catalogue.admin_tokens();
    all.retain(|(_, token)| is_theirs(&admin, &token.scope));
    let page = page.of(all, |(name, _)| name.to_string());
    Ok(page.json("admin_tokens", |(name, token)| shown(&name, &token, uses.get(&name).copied())))
}

async fn find(
    State(context): State<ControlContext>,
    admin: Administrator,
    Path(token): Path<String>,
) -> Result<Answer<Value>, ApiError> {
    let name = name(&token)?;
    let token = known(&context, &admin, &name)?;
    let uses = context.catalogue.admin_uses().await?;
    Ok(Answer(shown(&name, &token, uses.get(&name).copied())))
}

/// Whether the caller may give away what is asked for: not more than they have, and not for longer.
fn may(admin: &Administrator, request: &TokenRequest) -> Result<(), ApiError> {
    if !is_theirs(admin, &request.scope) {
        return Err(match &request.scope {
            AdminScope::Operator => {
                ApiError::new(ErrorCode::Forbidden, "only an operator makes tokens of operators; ask for your tenant")
            }
            // In the words for a tenant that is not there.
            AdminScope::Tenant(tenant) => ApiError::new(ErrorCode::NotFound, format!("there is no tenant '{tenant}'")),
        });
    }
    let longer = |end: u64| request.expires_at.is_none_or(|new| new > end);
    if admin.expires_at_ms.is_some_and(longer) {
        let message =
            "a token that ends cannot make or change tokens to last longer; set 'expires_at' to its own end at most";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    Ok(())
}

async fn put(
    State(context): State<ControlContext>,
    admin: Administrator,
    Path(token): Path<String>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let name = name(&token)?;
    let Json(request) = Json::<TokenRequest>::parse(&body)?;
    described_well(request.description.as_ref()).map_err(bad)?;
    may(&admin, &request)?;
    if request.expires_at.is_some_and(|end| end <= context.catalogue.clock().now_ms()) {
        return Err(bad("'expires_at' has passed"));
    }
    let tenant = tenant_of(&request.scope);
    let spec =
        AdminTokenSpec { scope: request.scope, expires_at_ms: request.expires_at, description: request.description };
    let theirs = |token: &AdminToken| is_theirs(&admin, &token.scope);
    let (stored, secret) = context.catalogue.put_admin_token(&name, spec, theirs).await?;
    let uses = context.catalogue.admin_uses().await?;
    let mut json = shown(&name, &stored, uses.get(&name).copied());
    let is_new = secret.is_some();
    if let (Some(secret), Value::Object(json)) = (secret, &mut json) {
        json.insert("token".to_owned(), secret.expose().into());
    }
    let mut response = (made(is_new), Answer(json)).into_response();
    response.extensions_mut().insert(Concerns { tenant, app: None });
    Ok(response)
}

async fn delete(
    State(context): State<ControlContext>,
    admin: Administrator,
    Path(token): Path<String>,
) -> Result<Response, ApiError> {
    let name = name(&token)?;
    let token = known(&context, &admin, &name)?;
    context.catalogue.delete_admin_token(&name).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Concerns { tenant: tenant_of(&token.scope), app: None });
    Ok(response)
}
