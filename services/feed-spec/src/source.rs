//! `Source`: one collection that a reader is interested in, and what of it; compiled, so that what cannot be understood is
//! refused where somebody can repair it.
//!
//! As text, the keys of a path are separated by dots; a key with a dot or backtick stands in backticks, doubled inside.

use std::collections::BTreeMap;

use bigpeer_dql::SelectPlan;
use bigpeer_types::CollectionName;
use serde::{Deserialize, Serialize};

/// Most sources of one reader.
pub const MAX_SOURCES: usize = 1000;

/// One collection that a reader is interested in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// The collection.
    pub collection: CollectionName,
    /// A condition in DQL; without, all documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What the condition is asked of.
    #[serde(default, skip_serializing_if = "On::is_default")]
    pub on: On,
    /// Only changes of one of these paths, or of something at or below it; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Only these fields of documents; empty: all. `_id` is always there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// What a source's condition is asked of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum On {
    /// Each image by itself: the source is the view of documents for which it is true.
    #[default]
    View,
    /// The document before the change: the event is seen, whole, when it is true of that.
    Before,
    /// The document after the change.
    After,
}

impl On {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_default(&self) -> bool {
        *self == Self::View
    }
}

/// How values are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Values {
    /// As JSON has them.
    #[default]
    Untyped,
    /// Each with what it is: `{"register": {"value": …}}`.
    Typed,
}

/// A [`Source`], understood.
#[derive(Debug)]
pub struct CompiledSource {
    /// Its condition.
    pub plan: Option<SelectPlan>,
    /// What the condition is asked of.
    pub on: On,
    /// Where changes are interesting; empty: everywhere.
    pub paths: Vec<Path>,
    /// What is shown; empty: all.
    pub fields: Vec<Path>,
}

/// Understands the sources of one reader.
///
/// # Errors
/// Says which source cannot be understood, and why.
pub fn compile_sources(sources: &[Source]) -> Result<BTreeMap<CollectionName, CompiledSource>, String> {
    if sources.len() > MAX_SOURCES {
        return Err(format!("there are {} sources; {MAX_SOURCES} are allowed", sources.len()));
    }
    let mut compiled: BTreeMap<CollectionName, CompiledSource> = BTreeMap::new();
    for source in sources {
        let plan = source.query.as_deref().map(|query| SelectPlan::of_condition(&source.collection, query));
        let plan = plan.transpose();
        let plan =
            plan.map_err(|error| format!("the query of the source '{}': {}", source.collection, error.message))?;
        let parse = |texts: &[String], what: &str| {
            let paths: Result<Vec<Path>, String> = texts.iter().map(|text| parse_path(text)).collect();
            paths.map_err(|reason| format!("{what} of the source '{}': {reason}", source.collection))
        };
        let (paths, fields) = (parse(&source.paths, "paths")?, parse(&source.fields, "fields")?);
        let each = CompiledSource { plan, on: source.on, paths, fields };
        if compiled.insert(source.collection.clone(), each).is_some() {
            // Of two views of one collection a document could leave one and be in the other.
            let name = &source.collection;
            return Err(format!("there are two sources for '{name}'; make one of them, with OR between the queries"));
        }
    }
    Ok(compiled)
}

/// Keys from the root.
pub type Path = Vec<Box<str>>;

/// Reads a path.
///
/// # Errors
/// Says what of it is none.
pub fn parse_path(text: &str) -> Result<Path, String> {
    let bad = |what: &str| format!("'{text}' is not a path: {what}");
    let mut path = Path::new();
    let mut rest = text;
    loop {
        let key = if let Some(quoted) = rest.strip_prefix('`') {
            let mut key = String::new();
            let mut chars = quoted.char_indices().peekable();
            loop {
                match chars.next() {
                    Some((at, '`')) => {
                        if chars.next_if(|(_, next)| *next == '`').is_none() {
                            rest = quoted.get(at + 1..).unwrap_or_default();
                            break;
                        }
                        key.push('`');
                    }
                    Some((_, other)) => key.push(other),
                    None => return Err(bad("a backtick is not closed")),
                }
            }
            key
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let (key, after) = rest.split_at(end);
            rest = after;
            if key.is_empty() || key.contains('`') {
                return Err(bad("a key is empty, or holds a backtick outside of backticks"));
            }
            key.to_owned()
        };
        path.push(key.into());
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(path),
            None => return Err(bad("a dot is missing behind a backtick")),
        }
    }
}
