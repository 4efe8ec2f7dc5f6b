//! What the fields of a collection are declared to be, and what of a document is therefore visible. Not strict:
//! everything is. Strict: what is a map, counter or attachment must be declared so.

use std::collections::BTreeMap;

use bigpeer_crdt::{Document, MapView, Object, ObjectMode, Value, Visible};

use super::Cell;
use crate::ast::{FieldType, TypeDef};
use crate::error::{DqlError, shown};

/// The declared fields of a collection, and the dialect.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schema {
    pub(crate) strict: bool,
    fields: Fields,
}

type Fields = BTreeMap<String, Declared>;

/// What a field is declared to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Declared {
    Register,
    Map(Fields),
    Counter,
    Attachment,
}

/// A path, and at which key the parts of a register (or of an attachment) begin.
#[derive(Clone, Debug)]
pub(crate) struct FieldPath {
    pub(crate) keys: Vec<Box<str>>,
    /// In strict mode: how many keys lead through declared maps to the first that is not one, that one included.
    node: usize,
    declared: Option<Declared>,
    /// How many keys lead to what may be an attachment, when `id`, `len` or `metadata` follows.
    attachment: Option<usize>,
}

impl Schema {
    pub(crate) fn new(types: &[TypeDef], strict: bool) -> Result<Self, DqlError> {
        let mut fields = Fields::new();
        declare(&mut fields, types)?;
        Ok(Self { strict, fields })
    }

    /// What `path` is declared to be.
    pub(crate) fn declared(&self, path: &[impl AsRef<str>]) -> Option<&Declared> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.fields.get(first.as_ref())?, |declared, key| match declared {
            Declared::Map(fields) => fields.get(key.as_ref()),
            Declared::Register | Declared::Counter | Declared::Attachment => None,
        })
    }

    /// Whether any field is declared.
    pub(crate) fn is_plain(&self) -> bool {
        self.fields.is_empty()
    }

    /// How an object is written that is to be found at `path`.
    pub(crate) fn object_mode(&self, path: &[impl AsRef<str>]) -> ObjectMode {
        match self.declared(path) {
            Some(Declared::Map(_)) => ObjectMode::Map,
            Some(Declared::Register) => ObjectMode::Register,
            None | Some(Declared::Counter | Declared::Attachment) => {
                if self.strict {
                    ObjectMode::Register
                } else {
                    ObjectMode::Map
                }
            }
        }
    }

    pub(crate) fn path(&self, keys: Vec<Box<str>>) -> FieldPath {
        let maps = (1..keys.len())
            .take_while(|length| matches!(self.declared(keys.get(..*length).unwrap_or(&[])), Some(Declared::Map(_))))
            .count();
        let node = maps + 1;
        let declared = keys.get(..node).and_then(|prefix| self.declared(prefix)).cloned();
        let attachment =
            keys.iter().skip(1).position(|key| matches!(&**key, "id" | "len" | "metadata")).map(|at| at + 1);
        FieldPath { keys, node, declared, attachment }
    }

    /// What is visible at `path`.
    pub(crate) fn get<'a>(&self, document: &'a Document, path: &FieldPath) -> Cell<'a> {
        if !self.strict {
            return match document.get(&path.keys) {
                Some(visible) => all(visible),
                None => attachment_part(document, path),
            };
        }
        let (node, rest) = path.keys.split_at_checked(path.node).unwrap_or((&path.keys, &[]));
        let cell = match document.get(node) {
            Some(visible) => declared_only(visible, path.declared.as_ref()),
            None => Cell::Missing,
        };
        rest.iter().fold(cell, |cell, key| cell.member(key))
    }

    /// Everything visible of a document, without `_id`.
    pub(crate) fn object(&self, document: &Document) -> Object {
        const ROOT: &[&str] = &[];
        if !self.strict {
            return document.to_object();
        }
        match document.get(ROOT) {
            Some(Visible::Map(view)) => declared_fields(view, &self.fields),
            Some(Visible::Value(Value::Object(object))) => object.clone(),
            Some(Visible::Value(_) | Visible::Counter(_) | Visible::Attachment(_)) | None => Object::new(),
        }
    }
}

fn declare(fields: &mut Fields, types: &[TypeDef]) -> Result<(), DqlError> {
    for def in types {
        let Some((last, above)) = def.path.split_last() else { continue };
        let conflict = || DqlError::new(format!("The field {} is declared twice", shown(&def.path.join("."))));
        let mut into = &mut *fields;
        for key in above {
            match into.entry(key.clone()).or_insert_with(|| Declared::Map(Fields::new())) {
                Declared::Map(below) => into = below,
                Declared::Register | Declared::Counter | Declared::Attachment => return Err(conflict()),
            }
        }
        let declared = match &def.kind {
            FieldType::Register => Declared::Register,
            FieldType::Counter | FieldType::PnCounter => Declared::Counter,
            FieldType::Attachment => Declared::Attachment,
            FieldType::Map(inner) => {
                let mut below = Fields::new();
                declare(&mut below, inner)?;
                Declared::Map(below)
            }
        };
        match (into.get_mut(last), declared) {
            (None, declared) => {
                into.insert(last.clone(), declared);
            }
            // `a MAP, a.b COUNTER` in either order.
            (Some(Declared::Map(old)), Declared::Map(new)) if new.is_empty() || old.is_empty() => old.extend(new),
            (Some(_), _) => return Err(conflict()),
        }
    }
    Ok(())
}

fn all(visible: Visible<'_>) -> Cell<'_> {
    match visible {
        Visible::Value(value) => Cell::Ref(value),
        Visible::Counter(number) => Cell::Own(Value::Int(number)),
        Visible::Map(view) => Cell::Own(Value::Object(view.to_object())),
        Visible::Attachment(attachment) => Cell::Own(attachment.to_value()),
    }
}

/// `photo.len`, which is not a node of the document but a part of the token.
fn attachment_part<'a>(document: &'a Document, path: &FieldPath) -> Cell<'a> {
    let Some((node, rest)) = path.attachment.and_then(|at| path.keys.split_at_checked(at)) else {
        return Cell::Missing;
    };
    match document.get(node) {
        Some(Visible::Attachment(attachment)) => {
            rest.iter().fold(Cell::Own(attachment.to_value()), |cell, key| cell.member(key))
        }
        Some(Visible::Value(_) | Visible::Map(_) | Visible::Counter(_)) | None => Cell::Missing,
    }
}

fn declared_only<'a>(visible: Visible<'a>, declared: Option<&Declared>) -> Cell<'a> {
    match (visible, declared) {
        (Visible::Value(value), None | Some(Declared::Register | Declared::Map(_))) => Cell::Ref(value),
        (Visible::Map(view), Some(Declared::Map(fields))) => Cell::Own(Value::Object(declared_fields(view, fields))),
        (Visible::Counter(number), Some(Declared::Counter)) => Cell::Own(Value::Int(number)),
        (Visible::Attachment(attachment), Some(Declared::Attachment)) => Cell::Own(attachment.to_value()),
        (Visible::Value(_) | Visible::Map(_) | Visible::Counter(_) | Visible::Attachment(_), _) => Cell::Missing,
    }
}

fn declared_fields(view: MapView<'_>, fields: &Fields) -> Object {
    view.iter()
        .filter_map(|(key, visible)| Some((key, declared_only(visible, fields.get(key)).into_value()?)))
        .collect()
}
