//! Tokens of OpenID Connect issuers: the issuer's keys are found by discovery, kept, and looked for again when a token names
//! one that is not known, but not more often than every half minute, whatever strangers send.

mod jwk;
mod jwt;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bigpeer_chassis::{Name, Oidc, User, bounded_body, outbound_client, outbound_url, said};
use bigpeer_types::Clock;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::login::{Refusal, Vouched};
use crate::webhook::MAX_ROLES;
use jwk::Jwk;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest document of an issuer, in bytes.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Most keys of an issuer that are looked at.
const MAX_KEYS: usize = 64;
/// Shortest time between two looks at an issuer's keys.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long keys are believed without another look.
const FRESH_FOR: Duration = Duration::from_secs(3600);
/// How long they are believed when the issuer does not answer.
const BELIEVED_FOR: Duration = Duration::from_secs(24 * 3600);
/// How far clocks may be apart, in seconds.
const LEEWAY_SECS: u64 = 60;
/// Issuers whose keys are kept.
const MAX_ISSUERS: usize = 1024;

/// Verifies tokens of issuers.
#[derive(Debug)]
pub(crate) struct Issuers {
    client: Result<Client, String>,
    allow_private: bool,
    clock: Arc<dyn Clock>,
    known: Mutex<BTreeMap<String, Arc<Issuer>>>,
}

/// An issuer, and what is known of its keys. The lock is held while they are asked for: who comes meanwhile waits for that
/// answer.
#[derive(Debug, Default)]
struct Issuer(tokio::sync::Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    keys: Arc<Vec<Jwk>>,
    /// When they were read.
    read: Option<Duration>,
    /// When they were asked for.
    asked: Option<Duration>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Issuers {
    pub(crate) fn new(allow_private: bool, clock: Arc<dyn Clock>) -> Self {
        let client = outbound_client(allow_private, TIMEOUT)
            .user_agent(concat!("bigpeer-auth/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("there is no HTTP client: {}", said(&error)));
        Self { client, allow_private, clock, known: Mutex::default() }
    }

    /// Who carries `token`, when it is one of the issuer's for this audience.
    pub(crate) async fn verify(
        &self,
        oidc: &Oidc,
        provider: &Name,
        token: &str,
        session_secs: u64,
    ) -> Result<Vouched, Refusal> {
        let denied = || Refusal::Denied(None);
        let unverified = jwt::Unverified::parse(token).ok_or_else(denied)?;
        if !oidc.algorithms.contains(&unverified.algorithm) {
            return Err(denied());
        }
        let keys = self.keys(oidc, &unverified).await?;
        let claims = unverified.verify(&keys).ok_or_else(denied)?;
        self.judge(oidc, &claims).ok_or_else(denied)?;
        vouch(oidc, provider, &claims, session_secs)
    }

    /// Whether the claims are of this issuer, for this audience, and good now.
    fn judge(&self, oidc: &Oidc, claims: &Map<String, Value>) -> Option<()> {
        let now_secs = self.clock.now_ms() / 1000;
        let seconds = |name: &str| match claims.get(name) {
            None => Some(None),
            // Whole seconds, or parts of them.
            Some(Value::Number(number)) => number.as_f64().filter(|secs| secs.is_finite()).map(Some),
            Some(_) => None,
        };
        #[allow(clippy::cast_precision_loss, reason = "seconds since the epoch are far below 2^52")]
        let (now, leeway) = (now_secs as f64, LEEWAY_SECS as f64);
        let audience = |one: &Value| one.as_str().is_some_and(|one| oidc.audiences.iter().any(|good| good == one));
        let given = claims.get("aud")?;
        let audiences = given.as_array().map_or_else(|| audience(given), |all| all.iter().any(audience));
        let good = claims.get("iss")?.as_str()? == oidc.issuer
            && audiences
            && now < seconds("exp")?? + leeway
            && seconds("nbf")?.is_none_or(|from| from <= now + leeway)
            && seconds("iat")?.is_none_or(|issued| issued <= now + leeway);
        good.then_some(())
    }

    /// The issuer's keys: those that are known, unless they are old or the token's is not among them.
    async fn keys(&self, oidc: &Oidc, token: &jwt::Unverified<'_>) -> Result<Arc<Vec<Jwk>>, Refusal> {
        let issuer = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MAX_ISSUERS && !known.contains_key(&oidc.issuer) {
                known.clear();
            }
            Arc::clone(known.entry(oidc.issuer.clone()).or_default())
        };
        let mut known = issuer.0.lock().await;
        let now = self.clock.monotonic();
        let age = known.read.map(|read| now.saturating_sub(read));
        let has = known.keys.iter().any(|key| token.may_be_of(key));
        if has && age.is_some_and(|age| age < FRESH_FOR) {
            return Ok(Arc::clone(&known.keys));
        }
        // Not again for everybody who names a key that nobody has.
        if known.asked.is_none_or(|asked| now.saturating_sub(asked) >= LOOK_AGAIN_AFTER) {
            known.asked = Some(now);
            match self.read(oidc).await {
                Ok(keys) => (known.keys, known.read) = (Arc::new(keys), Some(now)),
                Err(reason) => {
                    tracing::warn!(issuer = %oidc.issuer, ?reason, "the keys of an issuer could not be read");
                    if !has || age.is_none_or(|age| age >= BELIEVED_FOR) {
                        return Err(Refusal::Failed(reason));
                    }
                }
            }
        } else if known.read.is_none() {
            return Err(Refusal::Failed("the issuer's keys could not be read a moment ago".to_owned()));
        } else if age.is_some_and(|age| age >= BELIEVED_FOR) {
            return Err(Refusal::Failed("the issuer's keys have not been read for a day".to_owned()));
        }
        Ok(Arc::clone(&known.keys))
    }

    async fn read(&self, oidc: &Oidc) -> Result<Vec<Jwk>, String> {
        let at = format!("{}/.well-known/openid-configuration", oidc.issuer.trim_end_matches('/'));
        let found: Discovery = self.get("issuer", &at).await?;
        if found.issuer != oidc.issuer {
            return Err("its configuration is of another issuer".to_owned());
        }
        let set: KeySet = self.get("jwks_uri", &found.jwks_uri).await?;
        // Keys of kinds that are not known are left out.
        Ok(set.keys.into_iter().take(MAX_KEYS).filter_map(|key| Jwk::read(&key)).collect())
    }

    async fn get<T: for<'de> Deserialize<'de>>(&self, what: &str, url: &str) -> Result<T, String> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let url = outbound_url(what, url, self.allow_private)?;
        let answer = client.get(url).send().await.map_err(|error| said(&error))?;
        if !answer.status().is_success() {
            return Err(format!("'{what}' answered {}", answer.status()));
        }
        let body = bounded_body(answer, MAX_DOCUMENT_BYTES).await?;
        serde_json::from_slice(&body)
            .map_err(|error| format!("'{what}' cannot be understood: line {}, column {}", error.line(), error.column()))
    }
}

/// What the claims of a good token say, by the provider's mapping.
fn vouch(oidc: &Oidc, provider: &Name, claims: &Map<String, Value>, session_secs: u64) -> Result<Vouched, Refusal> {
    let id = match at(claims, &oidc.user_claim) {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) | None => {
            return Err(Refusal::Failed(format!("its tokens have no claim '{}' that names the user", oidc.user_claim)));
        }
    };
    let named = oidc.roles_claim.as_deref().and_then(|name| at(claims, name));
    let named: Vec<&str> = match named {
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(all)) => all.split_whitespace().collect(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => Vec::new(),
    };
    // Other systems have roles of their own, with names that are none here.
    let roles = named.into_iter().filter_map(|name| name.parse().ok()).take(MAX_ROLES).collect();
    let permissions = oidc.permissions_claim.as_deref().and_then(|name| at(claims, name)).cloned();
    let permissions = permissions.map(serde_json::from_value).transpose();
    let permissions = permissions.map_err(|_| Refusal::Failed("its permissions cannot be understood".to_owned()))?;
    let mapped = oidc.claims.iter().filter_map(|(name, of)| Some((name.clone(), at(claims, of)?.clone()))).collect();
    let user = User { provider: provider.clone(), id, roles, permissions, claims: mapped };
    Ok(Vouched { user, session_secs, client_info: None })
}

/// A claim by its name, or by the path to it.
fn at<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    let mut parts = name.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}

#[cfg(test)]
mod tests;
