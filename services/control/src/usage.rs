//! What apps have used: exactly what their logs say, and about what processes have counted.

use axum::Json as Answer;
use axum::extract::State;
use bigpeer_chassis::admin::{AdminRoute, AskedApp, AskedTenant, Asks};
use bigpeer_chassis::{ApiError, App, ErrorCode, Usage};
use serde_json::{Value, json};

use crate::{ControlContext, Stored, schemas};

const APP: &str = "/admin/v1/apps/{app}/usage";
const TENANT: &str = "/admin/v1/tenants/{tenant}/usage";

pub(crate) fn routes() -> Vec<AdminRoute<ControlContext>> {
    let schema = schemas::usage_of_app();
    vec![
        AdminRoute::get(APP, Asks::App, of_app)
            .says("What an app has used since it was made")
            .answers(200, Some(schema.clone())),
        AdminRoute::get(TENANT, Asks::Tenant, of_tenant)
            .says("What the apps of a tenant have used since they were made, and their sum")
            .answers(200, Some(schemas::usage_of_tenant(schema))),
    ]
}

async fn used(context: &ControlContext, app: &App) -> Result<(Stored, Usage), ApiError> {
    let closed = || ApiError::new(ErrorCode::Unavailable, "an app is still being opened; try again");
    let stored = context.process.stored(&app.id).await?.ok_or_else(closed)?;
    Ok((stored, context.catalogue.usage(&app.id).await?))
}

fn shown(stored: &Stored, usage: &Usage) -> Value {
    json!({
        "written": {
            "transactions": stored.transactions, "documents": stored.documents, "bytes": stored.bytes,
        },
        "stored": {
            "document_bytes": stored.document_bytes, "attachment_bytes": stored.attachment_bytes,
        },
        "about": usage,
    })
}

fn shown_of(app: &App, stored: &Stored, usage: &Usage) -> Value {
    let mut shown = shown(stored, usage);
    shown["app"] = json!(app.id);
    shown["transaction_id"] = json!(stored.through.version);
    shown
}

async fn of_app(State(context): State<ControlContext>, AskedApp(app): AskedApp) -> Result<Answer<Value>, ApiError> {
    let (stored, usage) = used(&context, &app).await?;
    Ok(Answer(shown_of(&app, &stored, &usage)))
}

async fn of_tenant(
    State(context): State<ControlContext>,
    AskedTenant(tenant): AskedTenant,
) -> Result<Answer<Value>, ApiError> {
    let (mut all, mut sum, mut about) = (Vec::new(), Stored::default(), Usage::default());
    for app in context.catalogue.apps_of(&tenant.name) {
        let (stored, usage) = used(&context, &app).await?;
        sum.add(&stored);
        about.add(usage);
        all.push(shown_of(&app, &stored, &usage));
    }
    let mut shown = shown(&sum, &about);
    shown["apps"] = Value::Array(all);
    Ok(Answer(shown))
}
