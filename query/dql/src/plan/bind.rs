//! Binding: parameters become constants, the collection's name or alias is taken off paths, constants are folded.

#![allow(clippy::wildcard_enum_match_arm, reason = "most kinds of expressions are treated alike")]

use bigpeer_crdt::Value;
use bigpeer_types::CollectionName;

use super::Params;
use crate::ast::{Binding, Expr, Order, OrderTerm, Projection, Select, Source, UseIds};
use crate::error::{DqlError, shown};
use crate::eval::compile::Compiler;
use crate::eval::schema::Schema;
use crate::eval::{Env, Row, full_tank};

/// Rewrites the expressions of one statement.
#[derive(Debug)]
pub(crate) struct Binder<'a> {
    params: &'a Params,
    names: Names<'a>,
    /// Names of variables in scope.
    variables: Vec<String>,
}

/// What paths may begin with.
#[derive(Debug)]
enum Names<'a> {
    /// One collection: its alias, or without one its name.
    One { alias: Option<&'a str>, collection: &'a str },
    /// The names of a join's sources, which stay in the paths.
    Joined(Vec<String>),
}

impl<'a> Binder<'a> {
    pub(crate) fn new(params: &'a Params, collection: &'a CollectionName, alias: Option<&'a str>) -> Self {
        let names = Names::One { alias, collection: collection.as_str() };
        Self { params, names, variables: Vec::new() }
    }

    /// For a statement over several collections.
    ///
    /// # Errors
    /// When two of them have the same name.
    pub(crate) fn joined(params: &'a Params, names: Vec<String>) -> Result<Self, DqlError> {
        for (at, name) in names.iter().enumerate() {
            if names.iter().take(at).any(|other| other == name) {
                return Err(DqlError::new(format!("Two of the joined collections are called `{}`", shown(name)))
                    .hint("give each an alias: FROM c AS a JOIN c AS b ON …"));
            }
        }
        Ok(Self { params, names: Names::Joined(names), variables: Vec::new() })
    }

    /// Takes the alias, or a collection's name that something follows, off a path.
    pub(crate) fn strip(&self, path: &mut Vec<String>) {
        let Some(first) = path.first() else { return };
        let named = match &self.names {
            Names::One { alias: Some(alias), .. } => first == alias,
            Names::One { alias: None, collection } => first == collection && path.len() > 1,
            Names::Joined(_) => false,
        };
        if named {
            path.remove(0);
        }
    }

    /// Whether `name.*` means the collection.
    fn is_source(&self, name: &str) -> bool {
        match &self.names {
            Names::One { alias, collection } => name == alias.unwrap_or(collection),
            Names::Joined(names) => names.iter().any(|known| known == name),
        }
    }

    pub(crate) fn expr(&mut self, expr: &mut Expr) -> Result<(), DqlError> {
        match expr {
            Expr::Parameter(name) => {
                let Some(value) = self.params.get(name) else {
                    return Err(DqlError::new(format!("The parameter :{} has no value", shown(name)))
                        .hint(format!("pass it in args as \"{}\"", shown(name))));
                };
                *expr = Expr::Literal(value.clone().normalized());
                return Ok(());
            }
            Expr::Path(path) => {
                if !path.first().is_some_and(|first| self.variables.contains(first)) {
                    self.strip(path);
                }
            }
            Expr::Quantified { binding, condition, .. } => {
                self.expr(&mut binding.source)?;
                self.with(binding, |binder| binder.expr(condition))?;
            }
            Expr::Comprehension { key, element, binding, condition } => {
                self.expr(&mut binding.source)?;
                self.with(binding, |binder| {
                    binder.expr(element)?;
                    for part in [key, condition].into_iter().flatten() {
                        binder.expr(part)?;
                    }
                    Ok(())
                })?;
            }
            _ => {
                for child in expr.children_mut() {
                    self.expr(child)?;
                }
            }
        }
        fold(expr)
    }

    fn with(
        &mut self,
        binding: &Binding,
        inner: impl FnOnce(&mut Self) -> Result<(), DqlError>,
    ) -> Result<(), DqlError> {
        let before = self.variables.len();
        self.variables.push(binding.name.clone());
        self.variables.extend(binding.index.clone());
        let result = inner(self);
        self.variables.truncate(before);
        result
    }

    pub(crate) fn optional(&mut self, expr: &mut Option<Expr>) -> Result<(), DqlError> {
        expr.as_mut().map_or(Ok(()), |expr| self.expr(expr))
    }

    pub(crate) fn all(&mut self, exprs: &mut [Expr]) -> Result<(), DqlError> {
        exprs.iter_mut().try_for_each(|expr| self.expr(expr))
    }

    pub(crate) fn source(&mut self, source: &mut Source) -> Result<(), DqlError> {
        match &mut source.ids {
            None => Ok(()),
            Some(UseIds::Each(ids)) => self.all(ids),
            Some(UseIds::List(ids)) => self.expr(ids),
        }
    }

    pub(crate) fn projections(&mut self, projections: &mut [Projection]) -> Result<(), DqlError> {
        for projection in projections {
            match projection {
                Projection::All => {}
                Projection::AllOf(name) => {
                    if !self.is_source(name) {
                        return Err(DqlError::new(format!("Unknown alias `{}`", shown(name))));
                    }
                }
                Projection::Missing(path) => {
                    if matches!(self.names, Names::Joined(_)) {
                        return Err(DqlError::new("Unsupported feature: MISSING with a JOIN")
                            .hint("name the fields that are wanted"));
                    }
                    self.strip(path);
                }
                Projection::Expr { expr, alias } => {
                    if alias.is_none() {
                        // The column keeps the name that was written.
                        *alias = column_name(expr);
                    }
                    self.expr(expr)?;
                }
            }
        }
        Ok(())
    }

    /// ORDER BY may use the names of projections; LIMIT and OFFSET are constants.
    pub(crate) fn order(&mut self, order: &mut Order, projections: &[Projection]) -> Result<(), DqlError> {
        for OrderTerm { expr, .. } in &mut order.by {
            substitute(expr, projections);
            self.expr(expr)?;
        }
        self.optional(&mut order.limit)?;
        self.optional(&mut order.offset)
    }

    pub(crate) fn select(&mut self, select: &mut Select) -> Result<(), DqlError> {
        let named = select.projections.clone();
        self.projections(&mut select.projections)?;
        for join in &mut select.joins {
            self.source(&mut join.source)?;
            self.expr(&mut join.on)?;
        }
        self.optional(&mut select.filter)?;
        self.all(&mut select.group_by)?;
        self.optional(&mut select.having)?;
        self.order(&mut select.order, &named)
    }
}

/// The name of a column that has no alias: the last key of a path.
fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Path(path) => path.last().cloned(),
        Expr::Member(_, key) => Some(key.clone()),
        _ => None,
    }
}

/// Puts a projection's expression in place of its alias.
fn substitute(expr: &mut Expr, projections: &[Projection]) {
    if let Expr::Path(path) = expr {
        let Some((first, rest)) = path.split_first() else { return };
        let named = projections.iter().find_map(|projection| match projection {
            Projection::Expr { expr, alias: Some(alias) } if alias == first => Some(expr),
            Projection::Expr { .. } | Projection::All | Projection::AllOf(_) | Projection::Missing(_) => None,
        });
        if let Some(named) = named {
            *expr = rest.iter().fold(named.clone(), |base, key| match base {
                Expr::Path(mut path) => {
                    path.push(key.clone());
                    Expr::Path(path)
                }
                other => Expr::Member(Box::new(other), key.clone()),
            });
        }
        return;
    }
    for child in expr.children_mut() {
        substitute(child, projections);
    }
}

/// Replaces an expression without fields by its value.
fn fold(expr: &mut Expr) -> Result<(), DqlError> {
    if matches!(expr, Expr::Literal(_) | Expr::Missing) || !expr.is_constant() {
        return Ok(());
    }
    let schema = Schema::default();
    let node = Compiler::new(&schema).node(expr)?;
    let fuel = full_tank();
    let value = node.eval(Env::new(Row::Nothing, &fuel)).into_value();
    if fuel.get() == 0 {
        return Err(DqlError::new("The statement takes too long to evaluate"));
    }
    *expr = value.map_or(Expr::Missing, Expr::Literal);
    Ok(())
}

/// A bound LIMIT or OFFSET.
pub(crate) fn count(word: &str, expr: Option<&Expr>) -> Result<Option<usize>, DqlError> {
    match expr {
        None => Ok(None),
        Some(Expr::Literal(Value::Int(number))) if *number >= 0 => {
            Ok(Some(usize::try_from(*number).unwrap_or(usize::MAX)))
        }
        Some(other) => {
            Err(DqlError::new(format!("{word} must be a non-negative integer, not {}", shown(&other.to_string()))))
        }
    }
}
