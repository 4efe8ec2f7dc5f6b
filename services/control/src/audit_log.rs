//! The audit log: who asked what of the admin API, when and from where, and what came of it.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::admin::{AdminRoute, Asks, Page, Query};
use bigpeer_chassis::{Administrator, ApiError, AuditEntry, AuditQuery, ErrorCode, Name, Reach};
use bigpeer_types::AppId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ControlContext, bad, name, schemas};

const ALL: &str = "/admin/v1/audit-log";
const NDJSON: &str = "application/x-ndjson";

pub(crate) fn routes() -> Vec<AdminRoute<ControlContext>> {
    let mut parameters = Page::parameters();
    let moment =
        json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX, "description": "Milliseconds since the epoch." });
    parameters.extend([
        ("tenant", schemas::name()),
        ("app", schemas::app_id()),
        ("since", moment.clone()),
        ("until", moment),
        ("format", json!({ "type": "string", "enum": ["json", "ndjson"], "default": "json" })),
    ]);
    vec![
        AdminRoute::get(ALL, Asks::Anyone, list)
            .says("What was asked of the admin API, the oldest first; to each administrator what is of their tenant or app")
            .queried(parameters)
            .answers(200, Some(Page::schema("entries", &schemas::audit_entry())))
            .also(NDJSON),
    ]
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Ndjson,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    tenant: Option<String>,
    app: Option<String>,
    since: Option<u64>,
    until: Option<u64>,
    limit: Option<usize>,
    after: Option<String>,
    format: Option<Format>,
}

/// The tenant and the app whose entries the caller gets.
fn limited(
    admin: &Administrator,
    tenant: Option<Name>,
    app: Option<AppId>,
) -> Result<(Option<Name>, Option<AppId>), ApiError> {
    let missing = |message: &str| ApiError::new(ErrorCode::NotFound, message);
    match &admin.reach {
        Reach::Operator => Ok((tenant, app)),
        Reach::Tenant(own) => match tenant {
            Some(other) if other != *own => Err(missing("there is no tenant of this name")),
            Some(_) | None => Ok((Some(own.clone()), app)),
        },
        Reach::App(own) => match (tenant, app) {
            (Some(other), _) if other != own.tenant => Err(missing("there is no tenant of this name")),
            (_, Some(other)) if other != own.id => Err(missing("there is no app with this id")),
            (_, Some(_) | None) => Ok((Some(own.tenant.clone()), Some(own.id.clone()))),
        },
    }
}

fn shown(id: String, entry: &AuditEntry) -> Value {
    let mut json = json!(entry);
    if let Value::Object(json) = &mut json {
        json.insert("id".to_owned(), id.into());
    }
    json
}

async fn list(
    State(context): State<ControlContext>,
    admin: Administrator,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let tenant = query.tenant.as_deref().map(name).transpose()?;
    let app = query.app.as_deref().map(|id| AppId::new(id).map_err(|error| bad(error.to_string()))).transpose()?;
    let (tenant, app) = limited(&admin, tenant, app)?;
    let page = Page::new(query.limit, query.after)?;
    let asked =
        AuditQuery { tenant, app, since_ms: query.since, until_ms: query.until, after: page.after, limit: page.limit };
    let (entries, more) = context.catalogue.audit_log(&asked).await?;
    let next = entries.last().filter(|_| more).map(|(id, _)| id.clone());
    let entries: Vec<Value> = entries.into_iter().map(|(id, entry)| shown(id, &entry)).collect();
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let lines = match query.format {
        Some(format) => matches!(format, Format::Ndjson),
        None => accepted.is_some_and(|accept| accept.contains(NDJSON)),
    };
    if !lines {
        return Ok(Answer(json!({"entries": entries, "next": next})).into_response());
    }
    let body: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON))], body).into_response())
}
