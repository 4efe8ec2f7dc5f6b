//! Writing values into documents, by declared type and mode. Shared by INSERT and UPDATE.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named is refused")]

use bigpeer_crdt::{Attachment, Document, EditError, Editor, Object, ObjectMode, Value, Visible};

use crate::error::{DqlError, shown};
use crate::eval::schema::{Declared, Schema};

pub(crate) fn edit_error(error: EditError) -> DqlError {
    DqlError::new(format!("The change cannot be made: {error}"))
}

/// Writes a new document.
pub(crate) fn insert(editor: &mut Editor<'_>, schema: &Schema, fields: &Object) -> Result<(), DqlError> {
    let mode = if schema.strict { ObjectMode::Register } else { ObjectMode::Map };
    if schema.is_plain() {
        return editor.insert(fields, mode).map_err(edit_error);
    }
    editor.insert(&Object::new(), mode).map_err(edit_error)?;
    merge(editor, schema, fields)
}

/// Writes each field of `fields`.
pub(crate) fn merge(editor: &mut Editor<'_>, schema: &Schema, fields: &Object) -> Result<(), DqlError> {
    fields.iter().try_for_each(|(key, value)| set(editor, schema, &mut vec![key.to_owned()], value))
}

/// Writes each field of `fields` that differs from what `current` shows.
pub(crate) fn merge_differing(
    editor: &mut Editor<'_>,
    schema: &Schema,
    current: &Document,
    path: &mut Vec<String>,
    fields: &Object,
) -> Result<(), DqlError> {
    for (key, value) in fields.iter() {
        path.push(key.to_owned());
        match (current.get(path), value) {
            (Some(Visible::Map(_)), Value::Object(below)) if schema.object_mode(path) == ObjectMode::Map => {
                merge_differing(editor, schema, current, path, below)?;
            }
            (Some(visible), value) if visible.to_value() == *value => {}
            (_, value) => set(editor, schema, path, value)?,
        }
        path.pop();
    }
    Ok(())
}

/// Writes `value` at `path` as what the field is declared to be.
pub(crate) fn set(
    editor: &mut Editor<'_>,
    schema: &Schema,
    path: &mut Vec<String>,
    value: &Value,
) -> Result<(), DqlError> {
    match (schema.declared(path), value) {
        (Some(Declared::Counter), value) => {
            let number = integer(value)?;
            editor.restart(path, number).map_err(edit_error)
        }
        (Some(Declared::Attachment), value) => {
            let token = Attachment::from_value(value).ok_or_else(|| {
                DqlError::new(format!(
                    "The field {} is an ATTACHMENT; expected a token {{id, len, metadata}}",
                    shown(&path.join("."))
                ))
            })?;
            editor.attach(path, token).map_err(edit_error)
        }
        (Some(Declared::Map(_)), Value::Object(below)) => {
            editor.set(path, Value::Object(Object::new()), ObjectMode::Map).map_err(edit_error)?;
            for (key, value) in below.iter() {
                path.push(key.to_owned());
                set(editor, schema, path, value)?;
                path.pop();
            }
            Ok(())
        }
        (Some(Declared::Register | Declared::Map(_)) | None, value) => {
            editor.set(path, value.clone(), schema.object_mode(path)).map_err(edit_error)
        }
    }
}

/// A counter's operand.
pub(crate) fn integer(value: &Value) -> Result<i64, DqlError> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(DqlError::new(format!(
            "Expected {} to be an integer value",
            shown(&crate::ast::Expr::Literal(other.clone()).to_string())
        ))),
    }
}
