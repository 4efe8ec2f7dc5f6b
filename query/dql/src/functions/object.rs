//! Objects and arrays.

#![allow(clippy::wildcard_enum_match_arm, reason = "each of these modules names its own functions")]

use bigpeer_crdt::{Object, Value};

use super::Function;
use crate::eval::Cell;
use crate::eval::compare::equals;

/// None when `function` is not one of these, or its arguments are of wrong types.
pub(super) fn call<'a>(function: Function, cells: &[Cell<'a>]) -> Option<Cell<'a>> {
    let value = |at: usize| cells.get(at).and_then(Cell::get);
    let object = |at: usize| value(at).and_then(Value::as_object);
    let array = |at: usize| if let Some(Value::Array(items)) = value(at) { Some(items) } else { None };
    let text = |at: usize| cells.get(at).and_then(Cell::text);
    let flag = |at: usize, default: bool| match value(at) {
        None => Some(default),
        Some(Value::Bool(flag)) => Some(*flag),
        Some(_) => None,
    };
    Some(match function {
        Function::ObjectKeys => Cell::of(object(0)?.keys().map(Value::from).collect::<Vec<_>>()),
        Function::ObjectValues => Cell::of(object(0)?.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>()),
        Function::ObjectLength => Cell::of(length(object(0)?.len())),
        Function::ObjectSize => Cell::of(length(serde_json::to_string(&value(0)?.to_json()).ok()?.len())),
        Function::ObjectSet => {
            let (mut changed, key, replace) = (object(0)?.clone(), text(1)?, flag(3, true)?);
            if replace || !changed.contains_key(key) {
                changed.insert(key, value(2)?.clone());
            }
            Cell::of(changed)
        }
        Function::ObjectUnset => {
            let mut changed = object(0)?.clone();
            let removed = changed.remove(text(1)?).is_some();
            if !removed && !flag(2, true)? {
                return None;
            }
            Cell::of(changed)
        }
        Function::ObjectConcat => {
            let mut all = Vec::new();
            for at in 0..cells.len() {
                all.extend(object(at)?.iter().map(|(key, value)| (key, value.clone())));
            }
            Cell::of(all.into_iter().collect::<Object>())
        }
        Function::ObjectRename => {
            let mut changed = object(0)?.clone();
            if let Some(moved) = changed.remove(text(1)?) {
                changed.insert(text(2)?, moved);
            }
            Cell::of(changed)
        }
        Function::ArrayContains => Cell::of(match (array(0)?, value(1)?) {
            (items, Value::Null) => items.iter().any(Value::is_null),
            (items, sought) => items.iter().any(|item| equals(item, sought)),
        }),
        Function::ArrayContainsNull => Cell::of(array(0)?.iter().any(Value::is_null)),
        Function::ArrayLength => Cell::of(length(array(0)?.len())),
        _ => return None,
    })
}

fn length(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
