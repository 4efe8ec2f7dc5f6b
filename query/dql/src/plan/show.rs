//! SHOW: the system parameters that hold here. They are set elsewhere, and cannot be changed by a statement.

use bigpeer_crdt::{Object, Value};

use super::Mode;
use crate::ast::{LikeKind, Show};
use crate::error::{DqlError, shown};
use crate::eval::pattern::Pattern;

fn parameters(mode: Mode) -> Vec<(&'static str, Value)> {
    let bytes = |number: usize| Value::from(u64::try_from(number).unwrap_or(u64::MAX));
    vec![
        ("DOCUMENT_SIZE_HARD_LIMIT_BYTES", bytes(bigpeer_types::limits::MAX_DOCUMENT_BYTES)),
        ("DQL_RESTRICT_SUBSCRIPTIONS", Value::Bool(true)),
        ("DQL_STRICT_MODE", Value::Bool(mode.strict)),
    ]
}

/// One row: each parameter and its value.
pub(crate) fn rows(show: &Show, mode: Mode) -> Result<Vec<Value>, DqlError> {
    let mut parameters = parameters(mode);
    if let Some(name) = &show.name {
        parameters.retain(|(known, _)| known.eq_ignore_ascii_case(name));
        if parameters.is_empty() {
            return Err(DqlError::new(format!("unknown parameter '{}'", shown(name))).hint("SHOW ALL lists them"));
        }
    }
    if let Some(like) = &show.like {
        let pattern = Pattern::new(LikeKind::Ilike, like, None)?;
        parameters.retain(|(known, _)| pattern.matches(known));
    }
    Ok(vec![Value::Object(parameters.into_iter().collect::<Object>())])
}
