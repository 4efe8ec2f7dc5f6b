//! Providers that are somebody's server: it gets the token, and says who that is and what they may.
//!
//! The request is `{"version": "1", "databaseID", "appID", "provider", "token"}` (the app by both of its names), signed like
//! those of feeds. An answer comes within five seconds or is not waited for.

use std::sync::Arc;
use std::time::Duration;

use bigpeer_chassis::{Name, Permissions, SIGNATURE, Signer, User, bounded_body, outbound_client, outbound_url, said};
use bigpeer_types::{AppId, Clock};
use bytes::Bytes;
use reqwest::{Client, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::login::{Refusal, Vouched};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses before another attempt.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Most roles that an answer may name.
pub(crate) const MAX_ROLES: usize = 64;

/// Asks webhooks.
#[derive(Debug)]
pub(crate) struct Webhooks {
    client: Result<Client, String>,
    allow_private: bool,
    clock: Arc<dyn Clock>,
}

/// What a webhook answers. Fields that it has beyond these are its own business.
#[derive(Deserialize)]
struct Answer {
    authenticated: Option<bool>,
    /// The older name of the same.
    authenticate: Option<bool>,
    #[serde(rename = "userID")]
    user_id: Option<String>,
    #[serde(rename = "expirationSeconds")]
    expiration_seconds: Option<u64>,
    permissions: Option<Permissions>,
    #[serde(default)]
    roles: Vec<Name>,
    #[serde(rename = "clientInfo")]
    client_info: Option<Value>,
    #[serde(rename = "identityServiceMetadata")]
    metadata: Option<Map<String, Value>>,
    /// The older name of the same.
    #[serde(rename = "identityServiceSignedInfo")]
    signed_info: Option<Map<String, Value>>,
}

impl Webhooks {
    pub(crate) fn new(allow_private: bool, clock: Arc<dyn Clock>) -> Self {
        let client = outbound_client(allow_private, TIMEOUT)
            .user_agent(concat!("bigpeer-auth/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("there is no HTTP client: {}", said(&error)));
        Self { client, allow_private, clock }
    }

    /// Asks the webhook at `url` who carries `token`.
    pub(crate) async fn ask(
        &self,
        app: &AppId,
        provider: &Name,
        url: &str,
        secrets: &[Vec<u8>],
        token: &str,
    ) -> Result<Vouched, Refusal> {
        let client = self.client.as_ref().map_err(|reason| Refusal::Failed(reason.clone()))?;
        let url = outbound_url("url", url, self.allow_private).map_err(Refusal::Failed)?;
        let request = json!({"version": "1", "databaseID": app, "appID": app, "provider": provider, "token": token});
        let body = Bytes::from(request.to_string());
        let signer = Signer::new(secrets.iter().map(Vec::as_slice));
        let mut pauses = PAUSES.iter();
        loop {
            let signature = signer.sign(self.clock.now_ms(), &body);
            let asked = client
                .post(url.clone())
                .header(header::CONTENT_TYPE, "application/json")
                .header(SIGNATURE, &signature)
                .header("ditto-signature", signature)
                .body(body.clone());
            let reason = match asked.send().await {
                Ok(answer) if answer.status().is_success() => {
                    let body = bounded_body(answer, MAX_ANSWER_BYTES).await.map_err(Refusal::Failed)?;
                    return understand(&body, provider);
                }
                // A refusal by status.
                Ok(answer) if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                    return Err(Refusal::Denied(None));
                }
                Ok(answer) if answer.status().is_server_error() => format!("it answered {}", answer.status()),
                // A redirect, too: where it leads was never checked.
                Ok(answer) => return Err(Refusal::Failed(format!("it answered {}", answer.status()))),
                // Whoever waits has waited long enough.
                Err(error) if error.is_timeout() => return Err(Refusal::Failed(said(&error))),
                Err(error) => said(&error),
            };
            let Some(pause) = pauses.next() else { return Err(Refusal::Failed(reason)) };
            tokio::time::sleep(*pause).await;
        }
    }
}

/// Reads an answer.
fn understand(body: &[u8], provider: &Name) -> Result<Vouched, Refusal> {
    let failed = |reason: &str| Refusal::Failed(format!("its answer cannot be understood: {reason}"));
    // Where something is wrong, not what: it is not this client's answer.
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| failed(&format!("line {}, column {}", error.line(), error.column())))?;
    let is_good = match (answer.authenticated, answer.authenticate) {
        (Some(good), None) | (None, Some(good)) => good,
        (Some(new), Some(old)) => new && old,
        (None, None) => return Err(failed("there is no 'authenticated'")),
    };
    if !is_good {
        return Err(Refusal::Denied(answer.client_info));
    }
    if answer.roles.len() > MAX_ROLES {
        return Err(failed(&format!("more than {MAX_ROLES} roles")));
    }
    let user = User {
        provider: provider.clone(),
        id: answer.user_id.ok_or_else(|| failed("there is no 'userID'"))?,
        roles: answer.roles,
        permissions: answer.permissions,
        claims: answer.metadata.or(answer.signed_info).unwrap_or_default(),
    };
    let session_secs = answer.expiration_seconds.ok_or_else(|| failed("there is no 'expirationSeconds'"))?;
    Ok(Vouched { user, session_secs, client_info: answer.client_info })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(body: &Value) -> Result<Vouched, Refusal> {
        understand(body.to_string().as_bytes(), &"hook".parse().unwrap())
    }

    #[test]
    fn both_spellings_are_understood() {
        let permissions = json!({"read": {"everything": true, "queriesByCollection": {}},
            "write": {"everything": false, "queriesByCollection": {"books": ["_id.userID == 'a'"]}}});
        let new = json!({"authenticated": true, "userID": "a", "expirationSeconds": 60, "permissions": permissions,
            "identityServiceMetadata": {"team": "red"}, "clientInfo": "hello", "unknown": 1});
        let old = json!({"authenticate": true, "userID": "a", "expirationSeconds": 60, "permissions": permissions,
            "identityServiceSignedInfo": {"team": "red"}, "clientInfo": "hello"});
        for answer in [new, old] {
            let vouched = understood(&answer).unwrap();
            assert_eq!((vouched.user.id.as_str(), vouched.session_secs), ("a", 60));
            assert_eq!(vouched.user.claims["team"], "red");
            assert!(vouched.user.permissions.unwrap().read.everything);
            assert_eq!(vouched.client_info, Some(json!("hello")));
        }
    }

    #[test]
    fn refusals_are_told_from_nonsense() {
        for answer in [
            json!({"authenticated": false}),
            json!({"authenticate": false, "userID": "a"}),
            json!({"authenticated": true, "authenticate": false, "userID": "a", "expirationSeconds": 1}),
            json!({"authenticated": false, "clientInfo": {"why": "locked"}}),
        ] {
            assert!(
                matches!(understood(&answer), Err(Refusal::Denied(info)) if info.as_ref() == answer.get("clientInfo"))
            );
        }
        for answer in [
            json!({}),
            json!([]),
            json!({"authenticated": "yes"}),
            json!({"authenticated": true, "expirationSeconds": 60}),
            json!({"authenticated": true, "userID": "a"}),
            json!({"authenticated": true, "userID": "a", "expirationSeconds": -1}),
            json!({"authenticated": true, "userID": "a", "expirationSeconds": 1, "permissions": {"reed": true}}),
            json!({"authenticated": true, "userID": "a", "expirationSeconds": 1, "roles": vec!["r"; 65]}),
        ] {
            assert!(matches!(understood(&answer), Err(Refusal::Failed(_))), "{answer}");
        }
    }
}
