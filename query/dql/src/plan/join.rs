//! JOIN, compiled: which collections are read in which order, what each of their documents must fulfil by itself, and how it
//! finds its partners. Collections are read once each; partners are found through an ordered index over the rows that
//! were made so far, or by looking at all pairs when ON compares nothing for equality.

#![allow(clippy::wildcard_enum_match_arm, reason = "whatever is not named says nothing about partners")]

use bigpeer_crdt::{ConditionOp, DocId, FieldCondition, Value};
use bigpeer_types::CollectionName;

use super::target::Target;
use super::{Mode, prune};
use crate::ast::{BinaryOp, Expr, JoinKind, Select, Source};
use crate::error::{DqlError, shown};
use crate::eval::Scope;
use crate::eval::compile::{Compiler, Sources};
use crate::eval::node::Node;

/// Which documents a run wants next.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of this collection.
    pub collection: CollectionName,
    /// Only these, sorted: to be looked up.
    pub ids: Option<Vec<DocId>>,
    /// What a scan may prune with.
    pub conditions: Vec<FieldCondition>,
}

/// The sources of a SELECT with joins.
#[derive(Clone, Debug)]
pub(crate) struct JoinPlan {
    /// In the order of the statement.
    pub(crate) scopes: Vec<Scope>,
    /// Which of them is read first.
    pub(crate) first: usize,
    /// The others, in the order in which they are read.
    pub(crate) stages: Vec<Stage>,
    /// WHERE on whole rows.
    pub(crate) filter: Option<Node>,
}

/// One collection that is joined to what was read before.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Which source it is.
    pub(crate) place: usize,
    pub(crate) target: Target,
    /// Rows without a partner are kept.
    pub(crate) outer: bool,
    /// What must be equal.
    pub(crate) keys: Vec<JoinKey>,
    /// ON on whole rows.
    pub(crate) on: Node,
    /// How EXPLAIN prints it.
    pub(crate) text: String,
}

/// An equality of ON.
#[derive(Clone, Debug)]
pub(crate) struct JoinKey {
    /// On a document of the stage.
    pub(crate) inner: Node,
    /// On a row of what was read before.
    pub(crate) outer: Node,
    /// The field that `inner` is, if it is one.
    pub(crate) path: Option<Vec<String>>,
}

impl Stage {
    /// What must be read, when the partners' keys have these values.
    pub(crate) fn wanted(&self, values: &[Vec<Value>]) -> Wanted {
        let mut ids = self.target.ids();
        let mut conditions = self.target.conditions();
        for (key, values) in self.keys.iter().zip(values) {
            let Some(path) = &key.path else { continue };
            if path.len() == 1 && path.first().is_some_and(|key| key == "_id") {
                let mut known = prune::known(values);
                if let Some(ids) = &ids {
                    known.retain(|id| ids.binary_search(id).is_ok());
                }
                if known.len() <= prune::MAX_POINT_LOOKUPS {
                    ids = Some(known);
                }
            } else if values.len() <= MAX_CONDITION_VALUES && values.iter().all(prune::is_prunable) {
                let path = path.iter().map(|key| key.as_str().into()).collect();
                conditions.push(FieldCondition { path, op: ConditionOp::In, values: values.clone() });
            }
        }
        Wanted { collection: self.target.collection.clone(), ids, conditions }
    }
}

/// Most values of a key that a scan is pruned by.
const MAX_CONDITION_VALUES: usize = 1000;

impl JoinPlan {
    /// From a bound SELECT. Also the target of the source that is read first.
    pub(crate) fn new(select: &Select, mode: Mode) -> Result<(Self, Target), DqlError> {
        let sources: Vec<&Source> =
            std::iter::once(&select.source).chain(select.joins.iter().map(|join| &join.source)).collect();
        let right = select.joins.first().is_some_and(|join| join.kind == JoinKind::Right);
        let (first, mut places) = if right { (1, vec![0]) } else { (0, vec![1]) };
        places.extend(2..sources.len());
        let filters = terms(select.filter.as_ref());
        let target = |place: usize, own: &[&Expr]| {
            let Some(source) = sources.get(place) else { return Err(DqlError::new("A join without its collection")) };
            let own: Vec<Expr> = own.iter().filter_map(|term| only_of(term, source.name())).collect();
            let filter = if own.len() > 1 { Some(Expr::And(own)) } else { own.into_iter().next() };
            Target::new(source, filter, mode)
        };
        // Rows of the first source are in every result: WHERE alone can leave them out.
        let base = target(first, &filters)?;
        let mut stages = Vec::new();
        let mut targets = Vec::new();
        for (join, place) in select.joins.iter().zip(places) {
            let outer = join.kind != JoinKind::Inner;
            let own: Vec<&Expr> = if outer {
                terms(Some(&join.on))
            } else {
                terms(Some(&join.on)).into_iter().chain(filters.clone()).collect()
            };
            targets.push((join, place, outer, target(place, &own)?));
        }
        let mut scopes: Vec<Option<Scope>> = vec![None; sources.len()];
        let all = targets.iter().map(|(_, place, _, target)| (*place, target)).chain([(first, &base)]);
        for (place, target) in all {
            if let (Some(slot), Some(source)) = (scopes.get_mut(place), sources.get(place)) {
                *slot = Some(Scope { name: source.name().to_owned(), schema: target.schema.clone() });
            }
        }
        let scopes: Vec<Scope> = scopes.into_iter().flatten().collect();
        for (join, place, outer, target) in targets {
            let later = sources.iter().skip(place.max(1) + 1).map(|source| source.name());
            for name in later {
                if mentions(&join.on, name) {
                    return Err(DqlError::new(format!("ON refers to `{}`, which is joined later", shown(name)))
                        .hint("change the order of the joins"));
                }
            }
            let name = sources.get(place).map_or("", |source| source.name());
            let keys = keys(&join.on, name, &target, &scopes)?;
            let on = Compiler::over(Sources::Joined(&scopes)).node(&join.on)?;
            stages.push(Stage { place, target, outer, keys, on, text: join.on.to_string() });
        }
        let filter = select.filter.as_ref();
        let filter = filter.map(|filter| Compiler::over(Sources::Joined(&scopes)).node(filter)).transpose()?;
        Ok((Self { scopes, first, stages, filter }, base))
    }
}

/// What is ANDed together.
fn terms(filter: Option<&Expr>) -> Vec<&Expr> {
    match filter {
        None => Vec::new(),
        Some(Expr::And(terms)) => terms.iter().collect(),
        Some(other) => vec![other],
    }
}

/// Whether all fields in it are of the source `name`; false also when that is not simple to say.
fn is_only_of(expr: &Expr, name: &str) -> bool {
    !expr.any(&|part| match part {
        Expr::Path(path) => path.first().is_none_or(|first| first != name),
        // Their variables look like sources.
        Expr::Quantified { .. } | Expr::Comprehension { .. } | Expr::Aggregate { .. } => true,
        _ => false,
    })
}

/// The expression on documents of `name` alone, if it looks at nothing else.
fn only_of(expr: &Expr, name: &str) -> Option<Expr> {
    is_only_of(expr, name).then(|| {
        let mut own = expr.clone();
        strip(&mut own);
        own
    })
}

fn strip(expr: &mut Expr) {
    if let Expr::Path(path) = expr {
        path.remove(0);
        return;
    }
    for child in expr.children_mut() {
        strip(child);
    }
}

/// Whether it looks at the source `name`.
fn mentions(expr: &Expr, name: &str) -> bool {
    expr.any(&|part| matches!(part, Expr::Path(path) if path.first().is_some_and(|first| first == name)))
}

/// The equalities of `on` between the source `name` and others.
fn keys(on: &Expr, name: &str, target: &Target, scopes: &[Scope]) -> Result<Vec<JoinKey>, DqlError> {
    let mut keys = Vec::new();
    for term in terms(Some(on)) {
        let Expr::Binary(BinaryOp::Eq, left, right) = term else { continue };
        for (inner, outer) in [(left, right), (right, left)] {
            if !is_only_of(inner, name) || !mentions(inner, name) || mentions(outer, name) {
                continue;
            }
            let Some(own) = only_of(inner, name) else { continue };
            let path =
                if let Expr::Path(path) = &own { Some(path.clone()).filter(|path| !path.is_empty()) } else { None };
            keys.push(JoinKey {
                inner: Compiler::new(&target.schema).node(&own)?,
                outer: Compiler::over(Sources::Joined(scopes)).node(outer)?,
                path,
            });
            break;
        }
    }
    Ok(keys)
}
