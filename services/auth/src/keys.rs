//! The keys that an app's tokens can be verified with by whoever likes to: `GET /{app}/.well-known/jwks.json`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bigpeer_chassis::{ApiError, PUBLISHED_BEFORE_MS, app_of};
use serde_json::{Value, json};

use crate::AuthContext;

/// A JSON Web Key Set (RFC 7517, RFC 8037). That of an app that does not exist is empty.
#[allow(clippy::unused_async, reason = "axum's handlers are futures")]
pub(crate) async fn published(
    State(context): State<AuthContext>,
    Path(app): Path<String>,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Value>), ApiError> {
    let keys: Vec<Value> = context
        .catalogue
        .published_keys(&app_of(&app)?)
        .into_iter()
        .map(|key| {
            json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid,
                "x": URL_SAFE_NO_PAD.encode(key.public)})
        })
        .collect();
    // A key is published for longer than that before it signs.
    let max_age = format!("public, max-age={}", PUBLISHED_BEFORE_MS / 1000 - 60);
    let max_age = HeaderValue::from_str(&max_age).map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CACHE_CONTROL, max_age)], Json(json!({"keys": keys}))))
}
