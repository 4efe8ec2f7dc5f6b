//! Apps: made below a tenant by name, and known by an id from then on.

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::admin::{AdminRoute, AskedApp, AskedTenant, Asks, Concerns, Page};
use bigpeer_chassis::{Administrator, ApiError, App, ErrorCode, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ControlContext, made, name, schemas};

const OF_TENANT: &str = "/admin/v1/tenants/{tenant}/apps";
const NAMED: &str = "/admin/v1/tenants/{tenant}/apps/{name}";
const ALL: &str = "/admin/v1/apps";
const ONE: &str = "/admin/v1/apps/{app}";
const COMPACT: &str = "/admin/v1/apps/{app}/compact";

pub(crate) fn routes() -> Vec<AdminRoute<ControlContext>> {
    let schema = schemas::app();
    let page = Page::schema("apps", &schema);
    vec![
        AdminRoute::get(OF_TENANT, Asks::Tenant, list_of_tenant)
            .says("The apps of a tenant, by name")
            .queried(Page::parameters())
            .answers(200, Some(page.clone())),
        AdminRoute::get(NAMED, Asks::App, find).says("A tenant's app").answers(200, Some(schema.clone())),
        AdminRoute::put(NAMED, Asks::Tenant, put)
            .says("Makes an app, or protects it as said")
            .takes(schemas::protection(true))
            .answers(200, Some(schema.clone()))
            .answers(201, Some(schema.clone())),
        AdminRoute::delete(NAMED, Asks::Tenant, delete)
            .says("Deletes an app: from then on it is as if it had never been, and its id is not given again"),
        AdminRoute::get(ALL, Asks::Anyone, list)
            .says("The apps that the caller administers, by id")
            .queried(Page::parameters())
            .answers(200, Some(page)),
        AdminRoute::get(ONE, Asks::App, find).says("An app by its id").answers(200, Some(schema)),
        AdminRoute::post(COMPACT, Asks::App, compact)
            .says("Puts everything into Parquet now, and publishes what is to be published")
            .answers(200, Some(schemas::compacted())),
    ]
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AppRequest {
    deletion_protection: bool,
}

impl Default for AppRequest {
    fn default() -> Self {
        Self { deletion_protection: true }
    }
}

/// An app as it is answered.
#[must_use]
pub fn shown(app: &App) -> Value {
    json!({
        "id": app.id,
        "tenant": app.tenant,
        "name": app.name,
        "deletion_protection": app.deletion_protection,
        "created_at": app.created_ms,
    })
}

async fn list_of_tenant(
    State(context): State<ControlContext>,
    AskedTenant(tenant): AskedTenant,
    page: Page,
) -> Answer<Value> {
    let all = context.catalogue.apps_of(&tenant.name);
    page.of(all, |app| app.name.to_string()).json("apps", |app| shown(&app))
}

async fn list(State(context): State<ControlContext>, admin: Administrator, page: Page) -> Answer<Value> {
    let mut all = context.catalogue.apps();
    all.retain(|app| admin.reach.covers(app));
    page.of(all, |app| app.id.to_string()).json("apps", |app| shown(&app))
}

async fn find(AskedApp(app): AskedApp) -> Answer<Value> {
    Answer(shown(&app))
}

async fn put(
    State(context): State<ControlContext>,
    AskedTenant(tenant): AskedTenant,
    Path((_, app)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let name = name(&app)?;
    let Json(request) = Json::<AppRequest>::parse_or_default(&body)?;
    let (app, is_new) = context.catalogue.put_app(&tenant.name, &name, request.deletion_protection).await?;
    // So that it can be used at once.
    context.process.open(&app.id).await?;
    if is_new {
        tracing::info!(app = %app.id, tenant = %app.tenant, name = %app.name, "an app is served");
    }
    let mut response = (made(is_new), Answer(shown(&app))).into_response();
    response.extensions_mut().insert(Concerns { tenant: None, app: Some(app.id) });
    Ok(response)
}

async fn delete(
    State(context): State<ControlContext>,
    AskedTenant(tenant): AskedTenant,
    Path((_, app)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let app = context.catalogue.delete_app(&tenant.name, &name(&app)?).await?;
    tracing::info!(app = %app.id, tenant = %app.tenant, name = %app.name, "an app is deleted");
    crate::clear(&context, &app.id).await;
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.extensions_mut().insert(Concerns { tenant: None, app: Some(app.id) });
    Ok(response)
}

async fn compact(State(context): State<ControlContext>, AskedApp(app): AskedApp) -> Result<Answer<Value>, ApiError> {
    let closed = || ApiError::new(ErrorCode::Unavailable, "this app is still being opened; try again");
    let (lsn, manifest) = context.process.compact(&app.id).await?.ok_or_else(closed)?;
    Ok(Answer(json!({"lsn": lsn.to_string(), "manifest": manifest})))
}
