//! The past: an app as it was after a transaction, for as long as that is kept.

use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_tables::{DocumentStore, Snapshot, TablesError};
use bigpeer_types::Lsn;

/// The prefix of schemas that are the app at a transaction: `as_of_4711`.
const PREFIX: &str = "as_of_";

/// The transaction that a schema's name asks for.
pub(crate) fn transaction_of(schema: &str) -> Option<u64> {
    let digits = schema.strip_prefix(PREFIX)?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// The app as it was when transaction `version`, and nothing after it, was applied.
///
/// # Errors
/// `not_found`: not visible yet, or no longer kept.
pub(crate) async fn snapshot(store: &DocumentStore, version: u64) -> Result<Snapshot, ApiError> {
    let now = store.snapshot();
    if now.lsn().version < version {
        let message = format!("transaction {version} is not visible here yet; see whether the id is right");
        return Err(ApiError::new(ErrorCode::NotFound, message));
    }
    if now.lsn().version == version {
        return Ok(now);
    }
    store.at(Lsn::new(version, u32::MAX)).await.map_err(|error| match error {
        TablesError::Forgotten { .. } => {
            let message = format!("the state at transaction {version} is no longer kept; ask for a later one");
            ApiError::new(ErrorCode::NotFound, message)
        }
        error => ApiError::internal(&error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_name_a_transaction() {
        assert_eq!(transaction_of("as_of_17"), Some(17));
        for other in ["as_of_", "as_of_+1", "as_of_1x", "as_of_99999999999999999999", "public", "AS_OF_1"] {
            assert_eq!(transaction_of(other), None, "{other}");
        }
    }
}
