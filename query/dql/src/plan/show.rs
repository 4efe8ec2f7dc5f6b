//! SHOW and ALTER SYSTEM: the system parameters that hold here. They are set elsewhere: a statement that asks for what holds
//! is content, any other is refused.

use bigpeer_crdt::{Object, Value};

use super::Mode;
use crate::ast::{Alter, LikeKind, Show};
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

/// The parameter of this name, or all.
fn named(name: Option<&str>, mode: Mode) -> Result<Vec<(&'static str, Value)>, DqlError> {
    let mut parameters = parameters(mode);
    if let Some(name) = name {
        parameters.retain(|(known, _)| known.eq_ignore_ascii_case(name));
        if parameters.is_empty() {
            return Err(DqlError::new(format!("unknown parameter '{}'", shown(name))).hint("SHOW ALL lists them"));
        }
    }
    Ok(parameters)
}

/// One row: each parameter and its value.
pub(crate) fn rows(show: &Show, mode: Mode) -> Result<Vec<Value>, DqlError> {
    let mut parameters = named(show.name.as_deref(), mode)?;
    if let Some(like) = &show.like {
        let pattern = Pattern::new(LikeKind::Ilike, like, None)?;
        parameters.retain(|(known, _)| pattern.matches(known));
    }
    Ok(vec![Value::Object(parameters.into_iter().collect::<Object>())])
}

/// No rows, when what is asked for holds.
pub(crate) fn altered(alter: &Alter, mode: Mode) -> Result<Vec<Value>, DqlError> {
    for (name, holds) in named(alter.name.as_deref(), mode)? {
        if alter.to.as_ref().is_some_and(|to| *to != holds) {
            let message = format!("{name} is {} here, and no statement changes that", holds.to_json());
            return Err(DqlError::new(message).hint(
                "strict mode is the path's (/api/v4 is strict, /api/v5 is not), or a setting of the Small Peer; all else is configured where the server runs",
            ));
        }
    }
    Ok(Vec::new())
}
