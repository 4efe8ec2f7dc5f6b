//! Providers as administrators write them: checked, with secrets that go in and never come out.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bigpeer_chassis::{
    Algorithm, ApiError, ErrorCode, Name, Oidc, Permissions, Provider, ProviderKind, ProviderSpec, Sealed,
    outbound_url, provider_place,
};
use bigpeer_types::{AppId, RandomIds};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::AuthContext;
use crate::webhook::MAX_ROLES;

/// What is shown in the place of a secret, and means in a request that it stays as it was.
const HIDDEN: &str = "(hidden)";
/// Bytes of a secret that is made here.
const SECRET_BYTES: usize = 128;
/// Shortest secret of a webhook, in bytes; shortest token that all share.
const MIN_SECRET_BYTES: usize = 16;
/// Longest of either.
const MAX_SECRET_BYTES: usize = 1024;
const MAX_SESSION_SECS: u64 = 400 * 24 * 3600;
const DAY_SECS: u64 = 24 * 3600;

/// The body of `PUT …/providers/{name}`, with the names of fields that Ditto has for the same. Its secrets are never printed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderRequest {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    roles: Vec<Name>,
    #[serde(default, alias = "permission")]
    permissions: Option<Permissions>,
    #[serde(default, alias = "sessionLength")]
    session_secs: Option<u64>,
    #[serde(default, alias = "webhookUrl")]
    url: Option<String>,
    #[serde(default)]
    secrets: Option<Vec<String>>,
    #[serde(default)]
    issuer: Option<String>,
    #[serde(default)]
    audiences: Option<Vec<String>>,
    #[serde(default)]
    algorithms: Option<Vec<Algorithm>>,
    #[serde(default)]
    user_claim: Option<String>,
    #[serde(default)]
    claims: Option<BTreeMap<String, String>>,
    #[serde(default)]
    roles_claim: Option<String>,
    #[serde(default)]
    permissions_claim: Option<String>,
    #[serde(default, alias = "sharedToken")]
    shared_token: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Kind {
    #[serde(alias = "webhookUrl", alias = "tokenWebhook")]
    Webhook,
    Oidc,
    Anonymous,
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

/// The secrets of a provider, in the clear.
pub(crate) fn open(
    context: &AuthContext,
    app: &AppId,
    provider: &Name,
    sealed: &[Sealed],
) -> Result<Vec<Vec<u8>>, ApiError> {
    let place = provider_place(app, provider);
    let opened = sealed.iter().map(|sealed| context.catalogue.keyring().open(&place, sealed)).collect::<Result<_, _>>();
    opened.map_err(|error| ApiError::internal(&error))
}

impl fmt::Debug for ProviderRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderRequest").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl ProviderRequest {
    /// The provider that is asked for, and a secret that was made for it.
    pub(crate) fn spec(
        &self,
        context: &AuthContext,
        app: &AppId,
        name: &Name,
        old: Option<&Provider>,
    ) -> Result<(ProviderSpec, Option<String>), ApiError> {
        self.check().map_err(bad)?;
        let private = context.settings.allow_private_providers;
        let seal = |secret: &[u8]| {
            let sealed = context.catalogue.keyring().seal(&provider_place(app, name), secret, &RandomIds);
            sealed.map_err(|error| ApiError::internal(&error))
        };
        let (kind, made) = match self.kind {
            Kind::Webhook => {
                let url = self.webhook_url(private).map_err(bad)?;
                let (secrets, made) = self.webhook_secrets(old, seal)?;
                (ProviderKind::Webhook { url, secrets }, made)
            }
            Kind::Oidc => (ProviderKind::Oidc(self.oidc(private).map_err(bad)?), None),
            Kind::Anonymous => {
                let old = old.and_then(|old| match &old.spec.kind {
                    ProviderKind::Anonymous { shared_token } => Some(shared_token.clone()),
                    ProviderKind::Webhook { .. } | ProviderKind::Oidc(_) => None,
                });
                let shared_token = match (self.shared_token.as_deref(), old) {
                    (Some(HIDDEN) | None, Some(old)) => old,
                    (Some(HIDDEN) | None, None) => return Err(bad("'shared_token' is missing")),
                    (Some(new), _) => seal(new.as_bytes())?,
                };
                (ProviderKind::Anonymous { shared_token }, None)
            }
        };
        let spec = ProviderSpec {
            kind,
            roles: self.roles.clone(),
            permissions: self.permissions.clone(),
            session_secs: self.session_secs(),
        };
        Ok((spec, made))
    }

    /// Refuses what cannot work, whatever app it is for, and whatever addresses the operator allows.
    ///
    /// # Errors
    /// Says what, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let given = [
            ("url", self.url.is_some(), matches!(self.kind, Kind::Webhook)),
            ("secrets", self.secrets.is_some(), matches!(self.kind, Kind::Webhook)),
            ("issuer", self.issuer.is_some(), matches!(self.kind, Kind::Oidc)),
            ("audiences", self.audiences.is_some(), matches!(self.kind, Kind::Oidc)),
            ("algorithms", self.algorithms.is_some(), matches!(self.kind, Kind::Oidc)),
            ("user_claim", self.user_claim.is_some(), matches!(self.kind, Kind::Oidc)),
            ("claims", self.claims.is_some(), matches!(self.kind, Kind::Oidc)),
            ("roles_claim", self.roles_claim.is_some(), matches!(self.kind, Kind::Oidc)),
            ("permissions_claim", self.permissions_claim.is_some(), matches!(self.kind, Kind::Oidc)),
            ("shared_token", self.shared_token.is_some(), matches!(self.kind, Kind::Anonymous)),
        ];
        if let Some((field, ..)) = given.iter().find(|(_, is_given, belongs)| *is_given && !belongs) {
            return Err(format!("a provider of this type has no '{field}'"));
        }
        if self.roles.len() > MAX_ROLES {
            return Err(format!("a provider gives {MAX_ROLES} roles at most"));
        }
        if let Some(permissions) = &self.permissions {
            permissions.check()?;
        }
        if self.session_secs.is_some_and(|secs| !(1..=MAX_SESSION_SECS).contains(&secs)) {
            return Err(format!("'session_secs' must be 1 to {MAX_SESSION_SECS}"));
        }
        match self.kind {
            Kind::Webhook => {
                self.webhook_url(true)?;
                let secrets = self.secrets.as_deref();
                if secrets.is_some_and(|secrets| !(1..=2).contains(&secrets.len())) {
                    return Err(
                        "'secrets' must hold one secret, or two while one is changed, the new one first".to_owned()
                    );
                }
                let new = secrets.unwrap_or_default().iter().filter(|secret| *secret != HIDDEN);
                new.map(|secret| webhook_secret(secret)).collect::<Result<Vec<_>, _>>()?;
            }
            Kind::Oidc => {
                self.oidc(true)?;
            }
            Kind::Anonymous => {
                let new = self.shared_token.as_ref().filter(|token| *token != HIDDEN);
                if new.is_some_and(|new| !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&new.len())) {
                    return Err(format!("'shared_token' must have {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes"));
                }
            }
        }
        Ok(())
    }

    /// How long a login lasts before the provider is asked again, in seconds.
    #[must_use]
    pub fn session_secs(&self) -> u64 {
        self.session_secs.unwrap_or(match self.kind {
            // The webhook says how long; no longer than a month.
            Kind::Webhook | Kind::Anonymous => 30 * DAY_SECS,
            Kind::Oidc => DAY_SECS,
        })
    }

    fn webhook_url(&self, allow_private: bool) -> Result<String, String> {
        let url = needed("url", self.url.as_ref())?;
        outbound_url("url", url, allow_private)?;
        Ok(url.clone())
    }

    /// The secrets, and one that was made because there was none.
    fn webhook_secrets(
        &self,
        old: Option<&Provider>,
        seal: impl Fn(&[u8]) -> Result<Sealed, ApiError>,
    ) -> Result<(Vec<Sealed>, Option<String>), ApiError> {
        let old = match old.map(|old| &old.spec.kind) {
            Some(ProviderKind::Webhook { secrets, .. }) => secrets.as_slice(),
            Some(ProviderKind::Oidc(_) | ProviderKind::Anonymous { .. }) | None => &[],
        };
        let Some(new) = &self.secrets else {
            if !old.is_empty() {
                return Ok((old.to_vec(), None));
            }
            let mut bytes = [0; SECRET_BYTES];
            bigpeer_types::IdGenerator::fill(&RandomIds, &mut bytes);
            return Ok((vec![seal(&bytes)?], Some(STANDARD.encode(bytes))));
        };
        let one = |(at, text): (usize, &String)| {
            // In the place where it was, or where a new one moved it.
            if text == HIDDEN {
                let place = if new.len() == 2 && old.len() == 1 { 0 } else { at };
                return old
                    .get(place)
                    .cloned()
                    .ok_or_else(|| bad(format!("a secret is '{HIDDEN}', and there is none to keep")));
            }
            seal(&webhook_secret(text).map_err(bad)?)
        };
        Ok((new.iter().enumerate().map(one).collect::<Result<_, _>>()?, None))
    }

    fn oidc(&self, allow_private: bool) -> Result<Oidc, String> {
        let issuer = needed("issuer", self.issuer.as_ref())?;
        let url = outbound_url("issuer", issuer, allow_private)?;
        if url.scheme() != "https" && !allow_private {
            return Err("'issuer' must be https".to_owned());
        }
        let audiences = needed("audiences", self.audiences.as_ref())?;
        if audiences.is_empty() || audiences.len() > 16 {
            return Err("'audiences' must name 1 to 16: a token for somebody else is not one for this app".to_owned());
        }
        let algorithms = self.algorithms.clone().unwrap_or_else(|| vec![Algorithm::RS256]);
        if algorithms.is_empty() {
            return Err("'algorithms' must name one".to_owned());
        }
        let claims = self.claims.clone().unwrap_or_default();
        if claims.len() > 64 {
            return Err("'claims' has 64 at most".to_owned());
        }
        Ok(Oidc {
            issuer: issuer.clone(),
            audiences: audiences.clone(),
            algorithms,
            user_claim: self.user_claim.clone().unwrap_or_else(|| "sub".to_owned()),
            claims,
            roles_claim: self.roles_claim.clone(),
            permissions_claim: self.permissions_claim.clone(),
        })
    }
}

/// The schema of a request.
pub(crate) fn schema() -> Value {
    let text = || json!({ "type": ["string", "null"] });
    let texts = || json!({ "type": ["array", "null"], "items": { "type": "string" } });
    let algorithms = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"];
    json!({
        "type": "object", "required": ["type"], "additionalProperties": false,
        "properties": {
            "type": { "type": "string", "enum": ["webhook", "oidc", "anonymous"] },
            "roles": { "type": "array", "maxItems": MAX_ROLES, "items": { "type": "string", "pattern": "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,62}$" } },
            "permissions": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Permissions" }] },
            "session_secs": { "type": ["integer", "null"], "minimum": 1, "maximum": MAX_SESSION_SECS },
            "url": text(),
            "secrets": texts(),
            "issuer": text(),
            "audiences": texts(),
            "algorithms": { "type": ["array", "null"], "items": { "type": "string", "enum": algorithms } },
            "user_claim": text(),
            "claims": { "type": ["object", "null"], "additionalProperties": { "type": "string" } },
            "roles_claim": text(),
            "permissions_claim": text(),
            "shared_token": text(),
        }
    })
}

fn needed<'f, T>(name: &str, field: Option<&'f T>) -> Result<&'f T, String> {
    field.ok_or_else(|| format!("'{name}' is missing"))
}

/// The bytes of a webhook's secret.
fn webhook_secret(text: &str) -> Result<Vec<u8>, String> {
    let bytes = STANDARD.decode(text).map_err(|_| "a secret of a webhook is base64".to_owned())?;
    if !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&bytes.len()) {
        return Err(format!("a secret must have {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, in base64"));
    }
    Ok(bytes)
}

/// A provider as it is shown: what a request for the same would be, without secrets.
pub(crate) fn shown(name: &Name, provider: &Provider) -> Value {
    let spec = &provider.spec;
    let mut json = match &spec.kind {
        ProviderKind::Webhook { url, secrets } => {
            json!({"type": "webhook", "url": url, "secrets": vec![HIDDEN; secrets.len()]})
        }
        ProviderKind::Oidc(oidc) => json!({"type": "oidc", "issuer": oidc.issuer, "audiences": oidc.audiences,
            "algorithms": oidc.algorithms, "user_claim": oidc.user_claim, "claims": oidc.claims,
            "roles_claim": oidc.roles_claim, "permissions_claim": oidc.permissions_claim}),
        ProviderKind::Anonymous { .. } => json!({"type": "anonymous", "shared_token": HIDDEN}),
    };
    let rest = json!({"name": name, "roles": spec.roles, "permissions": spec.permissions,
        "session_secs": spec.session_secs, "created_at": provider.created_ms});
    if let (Value::Object(json), Value::Object(rest)) = (&mut json, rest) {
        json.extend(rest);
    }
    json
}
