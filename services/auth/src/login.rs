//! The doors themselves: login, refresh, logout.

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json as Answer, body::Bytes};
use bigpeer_chassis::{
    AccessToken, ApiError, ApiKey, Asker, Door, ErrorCode, Granted, Holder, IssuedCertificate, Json, Name,
    ProviderKind, TokenAge, User, app_of, bearer, is_refresh_token,
};
use bigpeer_types::{AppId, SiteId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AuthContext, MAX_BODY_BYTES, anonymous, certificates, metrics};

/// Longest token for a provider, in bytes.
const MAX_PROVIDER_TOKEN_BYTES: usize = 16 * 1024;
/// Longest id of a user, in bytes.
const MAX_USER_BYTES: usize = 256;

/// What may be asked of a login. Without a body it is one of an older peer, which renews its access token by the token.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginRequest {
    /// Who vouches; none for an API key.
    #[serde(default)]
    provider: Option<String>,
    /// What for.
    #[serde(default)]
    token: Option<String>,
    /// The last access token, ended or not: who logs in again keeps the site.
    #[serde(default)]
    previous: Option<String>,
    /// A certificate request for the peer's own key, in PEM.
    #[serde(default)]
    csr: Option<String>,
}

/// What may be asked of a refresh.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshRequest {
    /// As with a login.
    #[serde(default)]
    csr: Option<String>,
}

#[derive(Serialize)]
struct Session {
    site: SiteId,
    access_token: String,
    /// Milliseconds since the epoch.
    expires_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_info: Option<Value>,
    /// The peer's, and its authority's, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    /// Milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_expires_at: Option<u64>,
}

/// What a provider says of whoever carries a token.
#[derive(Debug)]
pub(crate) struct Vouched {
    pub(crate) user: User,
    /// How long for, in seconds.
    pub(crate) session_secs: u64,
    /// For the client.
    pub(crate) client_info: Option<Value>,
}

/// Why a provider does not vouch.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It does not know who that is. With what it wants the client to know.
    Denied(Option<Value>),
    /// It could not be asked, or not be understood.
    Failed(String),
}

/// `POST /{app}/auth/login`
pub(crate) async fn login(
    State(context): State<AuthContext>,
    Path(app): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let app = app_of(&app)?;
    let body = body_of(request).await?;
    if body.iter().all(u8::is_ascii_whitespace) {
        return login_of_an_older_peer(&context, &app, &headers).await;
    }
    // Before the body is looked at: who shows a wrong key hears nothing else.
    let key = match bearer(&headers) {
        Some(credential) => {
            let key = context.catalogue.authenticate_api_key(&app, Door::Sync, credential);
            metrics::login("key", key.is_ok());
            Some(key?)
        }
        None => None,
    };
    let Json(request) = Json::<LoginRequest>::parse(&body)?;
    // Before a provider is asked: what it gets may be good once only.
    let csr = certificates::requested(request.csr.as_deref())?;
    let (holder, session_secs, client_info) = match (&request.provider, key) {
        (Some(provider), _) => {
            let vouched = ask(&context, &app, provider, request.token.as_deref()).await;
            metrics::login("provider", vouched.is_ok());
            let vouched = match vouched? {
                Ok(vouched) => vouched,
                Err(client_info) => return Ok(denied(client_info)),
            };
            (Holder::User(Box::new(vouched.user)), Some(vouched.session_secs), vouched.client_info)
        }
        (None, Some(key)) => (Holder::Key(key.name), None, None),
        (None, None) => return Err(ApiError::unauthorized()),
    };
    let site = match request.previous.as_deref().and_then(|previous| site_before(&context, &app, previous, &holder)) {
        Some(site) => site,
        None => context.catalogue.allocate_site(&app).await?,
    };
    context.catalogue.rotate_if_due(&app).await?;
    certificates::prepare(&context, &app, csr.as_ref()).await?;
    let granted = context.catalogue.log_in(&app, site, holder, session_secs, context.times()).await?;
    // A user who is revoked by a condition, say: no need to hand out what opens nothing.
    let permissions = context.catalogue.judge(&app, &granted.token)?;
    let certificate = certificates::issue(&context, &granted, csr.as_ref(), &permissions)?;
    tracing::info!(%app, %site, who = ?who(&granted.token), certificate = certificate.is_some(), "a peer logged in");
    Ok(answer(granted, client_info, certificate))
}

async fn body_of(request: Request) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, &()).await.map_err(|_| {
        let message = format!("the body ended early, or has more than {MAX_BODY_BYTES} bytes");
        ApiError::new(ErrorCode::TooLarge, message)
    })
}

/// For the log: `Debug` escapes what could forge a line.
fn who(token: &AccessToken) -> (&'static str, String) {
    match &token.holder {
        Holder::Key(name) => ("key", name.to_string()),
        Holder::User(user) => ("user", user.id.clone()),
    }
}

/// Somebody who logs in again as the same keeps the site, and what was written as it and not pushed yet.
fn site_before(context: &AuthContext, app: &AppId, previous: &str, holder: &Holder) -> Option<SiteId> {
    // It may have ended, or be revoked: who it is was proven anew.
    let token = context.catalogue.read_token(app, previous)?;
    let same = match (&token.holder, holder) {
        (Holder::Key(before), Holder::Key(now)) => before == now,
        (Holder::User(before), Holder::User(now)) => before.provider == now.provider && before.id == now.id,
        (Holder::Key(_), Holder::User(_)) | (Holder::User(_), Holder::Key(_)) => false,
    };
    same.then_some(token.site)
}

/// Asks a provider. The inner error is its refusal, with what it wants the client to know.
async fn ask(
    context: &AuthContext,
    app: &AppId,
    provider: &str,
    token: Option<&str>,
) -> Result<Result<Vouched, Option<Value>>, ApiError> {
    let token = token.unwrap_or_default();
    if token.len() > MAX_PROVIDER_TOKEN_BYTES {
        let message = format!("'token' has more than {MAX_PROVIDER_TOKEN_BYTES} bytes");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    // An app without such a provider, and an app that is not there, are as good as one that refuses.
    let Ok(name) = provider.parse::<Name>() else { return Err(ApiError::unauthorized()) };
    let found = context.catalogue.provider(app, &name).ok_or_else(ApiError::unauthorized)?;
    context.catalogue.may_try(token)?;
    let Ok(_place) = context.asking.take(Asker::new(app.clone())).await else {
        let message = "as many logins are waiting for providers as may at once, of this app or of all; try again";
        return Err(ApiError::new(ErrorCode::TooManyRequests, message));
    };
    let asked = match &found.spec.kind {
        ProviderKind::Webhook { url, secrets } => {
            let secrets = crate::providers::open(context, app, &name, secrets)?;
            context.webhooks.ask(app, &name, url, &secrets, token).await
        }
        ProviderKind::Oidc(oidc) => context.issuers.verify(oidc, &name, token, found.spec.session_secs).await,
        ProviderKind::Anonymous { shared_token } => {
            let shared = crate::providers::open(context, app, &name, std::slice::from_ref(shared_token))?;
            anonymous::verify(&shared, &name, token, found.spec.session_secs)
        }
    };
    match asked.and_then(checked) {
        Ok(mut vouched) => {
            vouched.session_secs = vouched.session_secs.min(found.spec.session_secs);
            Ok(Ok(vouched))
        }
        Err(Refusal::Denied(client_info)) => {
            context.catalogue.was_wrong();
            Ok(Err(client_info))
        }
        Err(Refusal::Failed(reason)) => {
            tracing::warn!(%app, provider = %name, ?reason, "a provider could not be asked");
            let message = format!("the provider '{name}' could not be asked: {reason}");
            Err(ApiError::new(ErrorCode::Unavailable, message))
        }
    }
}

/// Refuses what a provider may not say.
fn checked(vouched: Vouched) -> Result<Vouched, Refusal> {
    let id = &vouched.user.id;
    if id.is_empty() || id.len() > MAX_USER_BYTES || id.chars().any(char::is_control) {
        let reason = format!("its user id is not 1 to {MAX_USER_BYTES} bytes without control characters");
        return Err(Refusal::Failed(reason));
    }
    if let Some(permissions) = &vouched.user.permissions {
        permissions.check().map_err(|reason| Refusal::Failed(format!("its permissions cannot be used: {reason}")))?;
    }
    if vouched.session_secs == 0 {
        return Err(Refusal::Failed("its session is over at once".to_owned()));
    }
    Ok(vouched)
}

/// The answer to a login that a provider refused, with what it wants the client to know.
fn denied(client_info: Option<Value>) -> Response {
    let Some(client_info) = client_info else { return ApiError::unauthorized().into_response() };
    let error = ApiError::unauthorized();
    let body = serde_json::json!({
        "error": {"code": error.code, "message": "the provider refused the login; see 'client_info'"},
        "client_info": client_info,
        "request_id": bigpeer_chassis::current_request_id(),
    });
    (StatusCode::UNAUTHORIZED, Answer(body)).into_response()
}

/// `POST /{app}/auth/refresh`, with a refresh token; older peers send an access token, ended or not, that was given for an API
/// key.
pub(crate) async fn refresh(
    State(context): State<AuthContext>,
    Path(app): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, ApiError> {
    let app = app_of(&app)?;
    let credential = bearer(&headers).ok_or_else(ApiError::unauthorized)?;
    if is_refresh_token(credential) {
        let body = body_of(request).await?;
        let is_empty = body.iter().all(u8::is_ascii_whitespace);
        let request = if is_empty { RefreshRequest::default() } else { Json::<RefreshRequest>::parse(&body)?.0 };
        // Before the token is used.
        let csr = certificates::requested(request.csr.as_deref())?;
        context.catalogue.rotate_if_due(&app).await?;
        let granted = context.catalogue.refresh(&app, credential, context.times()).await;
        metrics::refresh(granted.is_ok());
        let granted = granted?;
        certificates::prepare(&context, &app, csr.as_ref()).await?;
        let permissions = context.catalogue.judge(&app, &granted.token)?;
        let certificate = certificates::issue(&context, &granted, csr.as_ref(), &permissions)?;
        return Ok(answer(granted, None, certificate));
    }
    let token = context.catalogue.verify_token(&app, credential, TokenAge::MayHaveEnded)?;
    // Where there is a refresh token, it is the only way: a stolen access token must not live for ever.
    let (Holder::Key(name), None) = (token.holder, token.login) else { return Err(ApiError::unauthorized()) };
    let key = context.catalogue.api_key(&app, &name).filter(|key| key.scopes.contain(Door::Sync));
    let key = key.ok_or_else(ApiError::unauthorized)?;
    without_refresh_token(&context, &app, token.site, &key).await
}

/// `POST /{app}/auth/logout`, with a refresh token: the login is over for everybody who has a token of it.
pub(crate) async fn logout(
    State(context): State<AuthContext>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let app = app_of(&app)?;
    let credential = bearer(&headers).ok_or_else(ApiError::unauthorized)?;
    context.catalogue.log_out(&app, credential).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn login_of_an_older_peer(context: &AuthContext, app: &AppId, headers: &HeaderMap) -> Result<Response, ApiError> {
    let credential = bearer(headers).ok_or_else(ApiError::unauthorized)?;
    let key = context.catalogue.authenticate_api_key(app, Door::Sync, credential);
    metrics::login("key", key.is_ok());
    let key = key?;
    let site = context.catalogue.allocate_site(app).await?;
    tracing::info!(%app, %site, key = %key.name, "a peer logged in and got a site");
    without_refresh_token(context, app, site, &key).await
}

async fn without_refresh_token(
    context: &AuthContext,
    app: &AppId,
    site: SiteId,
    key: &ApiKey,
) -> Result<Response, ApiError> {
    context.catalogue.rotate_if_due(app).await?;
    let (access_token, expires_at) = context.catalogue.issue_token(app, site, key, context.settings.token_ttl_secs)?;
    Ok(private(Session {
        site,
        access_token,
        expires_at,
        refresh_token: None,
        refresh_expires_at: None,
        user: None,
        client_info: None,
        certificate: None,
        certificate_expires_at: None,
    }))
}

fn answer(granted: Granted, client_info: Option<Value>, certificate: Option<IssuedCertificate>) -> Response {
    let certificate_expires_at = certificate.as_ref().map(|issued| issued.expires_at_ms);
    let user = match granted.token.holder {
        Holder::Key(_) => None,
        Holder::User(user) => Some(user.id),
    };
    private(Session {
        site: granted.token.site,
        access_token: granted.access_token,
        expires_at: granted.expires_at_ms,
        refresh_token: Some(granted.refresh_token.expose().to_owned()),
        refresh_expires_at: Some(granted.refresh_expires_at_ms),
        user,
        client_info,
        certificate: certificate.map(|issued| issued.chain),
        certificate_expires_at,
    })
}

fn private(session: Session) -> Response {
    let mut response = Answer(session).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
