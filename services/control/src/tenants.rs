//! Tenants: made, protected and deleted by operators.

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::admin::{AdminRoute, AskedTenant, Asks, Concerns, Page};
use bigpeer_chassis::{Administrator, ApiError, Json, Tenant};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ControlContext, made, name, schemas};

const ALL: &str = "/admin/v1/tenants";
const ONE: &str = "/admin/v1/tenants/{tenant}";

pub(crate) fn routes() -> Vec<AdminRoute<ControlContext>> {
    let schema = schemas::tenant();
    vec![
        AdminRoute::get(ALL, Asks::Tenants, list)
            .says("The tenants, by name; to who administers a tenant, that one")
            .queried(Page::parameters())
            .answers(200, Some(Page::schema("tenants", &schema))),
        AdminRoute::get(ONE, Asks::Tenant, find).says("A tenant").answers(200, Some(schema.clone())),
        AdminRoute::put(ONE, Asks::Operator, put)
            .says("Makes a tenant, or protects it as said")
            .takes(schemas::protection(false))
            .answers(200, Some(schema.clone()))
            .answers(201, Some(schema)),
        AdminRoute::delete(ONE, Asks::Operator, delete).says("Deletes a tenant that has no apps, and its admin tokens"),
    ]
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantRequest {
    #[serde(default)]
    deletion_protection: bool,
}

fn shown(tenant: &Tenant) -> Value {
    json!({
        "name": tenant.name,
        "deletion_protection": tenant.deletion_protection,
        "created_at": tenant.created_ms,
    })
}

async fn list(State(context): State<ControlContext>, admin: Administrator, page: Page) -> Answer<Value> {
    let mut all = context.catalogue.tenants();
    all.retain(|tenant| admin.reach.covers_tenant(&tenant.name));
    page.of(all, |tenant| tenant.name.to_string()).json("tenants", |tenant| shown(&tenant))
}

async fn find(AskedTenant(tenant): AskedTenant) -> Answer<Value> {
    Answer(shown(&tenant))
}

async fn put(
    State(context): State<ControlContext>,
    Path(tenant): Path<String>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let name = name(&tenant)?;
    let Json(request) = Json::<TenantRequest>::parse_or_default(&body)?;
    let (tenant, is_new) = context.catalogue.put_tenant(&name, request.deletion_protection).await?;
    let mut response = (made(is_new), Answer(shown(&tenant))).into_response();
    response.extensions_mut().insert(Concerns { tenant: Some(name), app: None });
    Ok(response)
}

async fn delete(State(context): State<ControlContext>, Path(tenant): Path<String>) -> Result<StatusCode, ApiError> {
    context.catalogue.delete_tenant(&name(&tenant)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
