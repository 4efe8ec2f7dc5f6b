//! Certificates of peers: given with a login for the peer's own key, and what others need to believe them: the authorities of
//! the app (`GET /{app}/auth/certs`), and what was revoked (`GET /{app}/auth/revocations`).

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::{ApiError, CertificateRequest, Door, ErrorCode, Granted, IssuedCertificate, Permissions, app_of};
use bigpeer_types::AppId;
use serde_json::{Value, json};

use crate::admin::{authority_json, revocation_json};
use crate::{AuthContext, metrics};

/// How long published authorities may be kept by whoever asked, in seconds: each is published for a day before it issues.
const AUTHORITIES_FOR: &str = "public, max-age=3600";
/// How long a list of revocations is good for, in seconds: peers that are out of reach gossip it.
const REVOCATIONS_FOR_SECS: u64 = 24 * 3600;
const PEM: &str = "application/x-pem-file";

/// The key that a login or a refresh wants a certificate for.
pub(crate) fn requested(csr: Option<&str>) -> Result<Option<CertificateRequest>, ApiError> {
    Ok(csr.map(CertificateRequest::parse).transpose()?)
}

/// Makes sure that the app can give certificates, before anything else is done for a login.
pub(crate) async fn prepare(
    context: &AuthContext,
    app: &AppId,
    request: Option<&CertificateRequest>,
) -> Result<(), ApiError> {
    match request {
        Some(_) => Ok(context.catalogue.authority_if_due(app).await?),
        None => Ok(()),
    }
}

/// The certificate for whoever was just given `granted`, if they asked for one.
pub(crate) fn issue(
    context: &AuthContext,
    granted: &Granted,
    request: Option<&CertificateRequest>,
    permissions: &Permissions,
) -> Result<Option<IssuedCertificate>, ApiError> {
    let Some(request) = request else { return Ok(None) };
    let ttl_secs = context.settings.certificate_ttl_secs;
    let issued = context.catalogue.issue_certificate(granted, request, permissions, ttl_secs)?;
    metrics::certificate();
    Ok(Some(issued))
}

/// `GET /{app}/auth/certs`: as JSON, or with `?format=pem` or by `Accept` as certificates one after the other. Those of an app
/// that does not exist, or has given no certificate yet, are none.
#[allow(clippy::unused_async, reason = "axum's handlers are futures")]
pub(crate) async fn published(
    State(context): State<AuthContext>,
    Path(app): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let as_pem = match query.as_deref() {
        None => accepted.contains(PEM),
        Some("format=pem") => true,
        Some("format=json") => false,
        Some(_) => {
            return Err(ApiError::new(ErrorCode::BadRequest, "only 'format=json' or 'format=pem' can be asked for"));
        }
    };
    let all = context.catalogue.published_authorities(&app_of(&app)?);
    let kept = (header::CACHE_CONTROL, HeaderValue::from_static(AUTHORITIES_FOR));
    if as_pem {
        let all: String = all.iter().map(|one| one.certificate.as_str()).collect();
        return Ok(([kept, (header::CONTENT_TYPE, HeaderValue::from_static(PEM))], all).into_response());
    }
    let all: Vec<Value> = all.iter().map(authority_json).collect();
    Ok(([kept], Json(json!({"authorities": all}))).into_response())
}

/// `GET /{app}/auth/revocations`: what was revoked, signed with the key of the app's access tokens so that peers can pass it on
/// to each other. For whoever is let in.
pub(crate) async fn revocations(
    State(context): State<AuthContext>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 2], String), ApiError> {
    let (app, catalogue) = (app_of(&app)?, &context.catalogue);
    catalogue.authenticate(&app, Door::Sync, &headers)?;
    catalogue.rotate_if_due(&app).await?;
    let all: Vec<Value> = catalogue.revocations(&app).iter().map(|(id, one)| revocation_json(id, one)).collect();
    let now_secs = catalogue.clock().now_ms() / 1000;
    let claims = json!({"aud": app, "iat": now_secs, "exp": now_secs + REVOCATIONS_FOR_SECS, "revocations": all});
    let signed = catalogue.sign_revocations(&app, &claims)?;
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("application/jwt"));
    Ok(([kind, (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], signed))
}
