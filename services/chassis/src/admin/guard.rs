//! The guard: who asks, whether they may, and a record of it.
//!
//! # Consistency
//! A change is recorded before it is tried, and with its outcome before it is answered. When the record cannot be written
//! the change is not tried.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bigpeer_types::AppId;
use serde::de::IgnoredAny;

use super::{AskedApp, AskedTenant, Asks};
use crate::catalogue::{App, AuditEntry, Catalogue, Name, NameError, Tenant};
use crate::http::{body_bytes, current_request_id};
use crate::{Administrator, ApiError, ClientAddr, ErrorCode, Reach, bearer, secret};

/// Longest path that is recorded, in characters.
const MAX_PATH: usize = 300;
/// Most fields of a body that are recorded.
const MAX_FIELDS: usize = 64;

/// What a handler adds to the record of what it did: an extension of its answer. Without, it is what the path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concerns {
    /// Whose resource it is.
    pub tenant: Option<Name>,
    /// The app that it is of.
    pub app: Option<AppId>,
}

/// What stands before one route.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) asks: Asks,
    /// Whether the route changes something.
    pub(super) changes: bool,
}

/// What a path names.
#[derive(Debug, Default)]
struct Named {
    tenant: Option<Tenant>,
    app: Option<App>,
}

pub(super) async fn stand(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut entry = guard.entry(&parts.method, parts.uri.path(), &parts.extensions);
    let admin = match guard.catalogue.authenticate_admin(&parts.headers) {
        Ok(admin) => admin,
        Err(refusal) => {
            entry.prefix = prefix(&parts.headers);
            guard.refused(None, entry, refusal.code.status()).await;
            return refusal.into_response();
        }
    };
    entry.by = Some(admin.audited());
    entry.prefix = Some(admin.prefix.clone());
    entry.tenant = admin.reach.tenant().cloned();
    if let Reach::App(app) = &admin.reach {
        entry.app = Some(app.id.clone());
    }
    let params = RawPathParams::from_request_parts(&mut parts, &()).await;
    let params = params.map_err(|_| ApiError::new(ErrorCode::BadRequest, "the path is not UTF-8"));
    let named = match params.and_then(|params| guard.admit(&admin, &params)) {
        Ok(named) => named,
        Err(refusal) => {
            guard.refused(Some(&admin), entry, refusal.code.status()).await;
            return refusal.into_response();
        }
    };
    if let Some(tenant) = named.tenant {
        entry.tenant = Some(tenant.name.clone());
        parts.extensions.insert(AskedTenant(tenant));
    }
    if let Some(app) = named.app {
        (entry.tenant, entry.app) = (Some(app.tenant.clone()), Some(app.id.clone()));
        parts.extensions.insert(AskedApp(app));
    }
    parts.extensions.insert(admin.clone());
    if !guard.changes {
        let response = next.run(Request::from_parts(parts, body)).await;
        guard.refused(Some(&admin), entry, response.status()).await;
        return response;
    }
    let body = match body_bytes(Request::from_parts(parts.clone(), body)).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into_response(),
    };
    let id = match guard.catalogue.audit(&entry).await {
        Ok(id) => id,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let fields = fields(&body);
    let mut response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if response.status().is_success() {
        entry.fields = fields;
    }
    if let Some(Concerns { tenant, app }) = response.extensions_mut().remove::<Concerns>() {
        entry.tenant = tenant.or(entry.tenant);
        entry.app = app.or(entry.app);
    }
    entry.status = Some(response.status().as_u16());
    if let Err(error) = guard.catalogue.audit_as(&id, &entry).await {
        // It is recorded that it was tried.
        tracing::warn!(%error, "the outcome of a change could not be written into the audit log");
    }
    response
}

impl Guard {
    fn entry(&self, method: &axum::http::Method, path: &str, extensions: &axum::http::Extensions) -> AuditEntry {
        AuditEntry {
            at: self.catalogue.clock().now_ms(),
            method: method.to_string(),
            path: path.chars().take(MAX_PATH).collect(),
            from: extensions.get::<ClientAddr>().map(|from| from.0.to_string()),
            request_id: current_request_id(),
            ..AuditEntry::default()
        }
    }

    /// Records a refusal, if it is one that says something about its caller.
    async fn refused(&self, admin: Option<&Administrator>, mut entry: AuditEntry, status: StatusCode) {
        let is_operator = admin.is_some_and(|admin| admin.reach == Reach::Operator);
        let counts = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
            // An operator mistyped something; others may be looking for what is not theirs.
            StatusCode::NOT_FOUND => !is_operator,
            _ => false,
        };
        if !counts {
            return;
        }
        entry.status = Some(status.as_u16());
        let written = match admin {
            Some(_) => self.catalogue.audit(&entry).await.map(drop),
            None => self.catalogue.audit_stranger(entry).await,
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a refusal could not be written into the audit log");
        }
    }

    /// What the path names, when the caller may ask about it. What is another's is answered as what is not there.
    fn admit(&self, admin: &Administrator, params: &RawPathParams) -> Result<Named, ApiError> {
        let find = |name: &str| params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
        match self.asks {
            Asks::Nothing | Asks::Anyone => Ok(Named::default()),
            Asks::Operator => match &admin.reach {
                Reach::Operator => Ok(Named {
                    tenant: find("tenant").and_then(|name| self.catalogue.tenant(&name.parse().ok()?)),
                    app: None,
                }),
                Reach::Tenant(_) | Reach::App(_) => Err(forbidden("this is for an operator's admin token")),
            },
            Asks::Tenants => match &admin.reach {
                Reach::Operator | Reach::Tenant(_) => Ok(Named::default()),
                Reach::App(_) => Err(forbidden("this is for an admin token, not for an API key")),
            },
            Asks::Tenant => {
                let unknown = || missing("there is no tenant of this name");
                let tenant = self.catalogue.tenant(&name(find("tenant").unwrap_or_default())?);
                let tenant = tenant.ok_or_else(unknown)?;
                match &admin.reach {
                    reach if reach.covers_tenant(&tenant.name) => Ok(Named { tenant: Some(tenant), app: None }),
                    Reach::App(own) if own.tenant == tenant.name => {
                        Err(forbidden("this is for an admin token of the tenant; an API key administers its app"))
                    }
                    Reach::Operator | Reach::Tenant(_) | Reach::App(_) => Err(unknown()),
                }
            }
            Asks::App => {
                let app = match (find("app"), find("tenant")) {
                    (Some(id), _) => AppId::new(id)
                        .ok()
                        .and_then(|id| self.catalogue.app(&id))
                        .filter(|app| admin.reach.covers(app))
                        .ok_or_else(|| missing("there is no app with this id"))?,
                    (None, tenant) => {
                        let (tenant, name) =
                            (name(tenant.unwrap_or_default())?, name(find("name").unwrap_or_default())?);
                        let app = self.catalogue.app_named(&tenant, &name);
                        app.filter(|app| admin.reach.covers(app))
                            .ok_or_else(|| missing("this tenant has no app of this name"))?
                    }
                };
                Ok(Named { tenant: None, app: Some(app) })
            }
        }
    }
}

fn name(text: &str) -> Result<Name, ApiError> {
    text.parse().map_err(|error: NameError| ApiError::new(ErrorCode::BadRequest, error.to_string()))
}

fn missing(message: &str) -> ApiError {
    ApiError::new(ErrorCode::NotFound, message)
}

fn forbidden(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Forbidden, message)
}

/// What a credential begins with, if it looks like one of ours: of anything else nothing is recorded.
fn prefix(headers: &HeaderMap) -> Option<String> {
    let prefix = secret::prefix_of(bearer(headers)?)?;
    let ours = prefix.len() == "bpa_".len() + 12 && (prefix.starts_with("bpa_") || prefix.starts_with("bpk_"));
    ours.then(|| prefix.to_owned())
}

/// The names of a body's fields.
fn fields(body: &[u8]) -> Vec<String> {
    let all: BTreeMap<String, IgnoredAny> = serde_json::from_slice(body).unwrap_or_default();
    let short = |name: &String| name.chars().count() <= MAX_FIELDS;
    all.into_keys().filter(short).take(MAX_FIELDS).collect()
}
