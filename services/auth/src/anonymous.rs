//! Everybody who has a token that all share: for development.

use bigpeer_chassis::{Name, User};
use ring::digest::{SHA256, digest};

use crate::login::{Refusal, Vouched};

/// Whether `token` is the one that all share; digests are compared, so that the time says nothing about it.
pub(crate) fn verify(shared: &[Vec<u8>], provider: &Name, token: &str, session_secs: u64) -> Result<Vouched, Refusal> {
    let given = digest(&SHA256, token.as_bytes());
    let good = shared.iter().any(|shared| digest(&SHA256, shared).as_ref() == given.as_ref());
    if !good || token.is_empty() {
        return Err(Refusal::Denied(None));
    }
    let user = User {
        provider: provider.clone(),
        id: "anonymous".to_owned(),
        roles: Vec::new(),
        permissions: None,
        claims: serde_json::Map::new(),
    };
    Ok(Vouched { user, session_secs, client_info: None })
}
