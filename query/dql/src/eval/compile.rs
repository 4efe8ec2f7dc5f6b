//! Bound expressions to nodes. Constants are folded already; patterns, sets and paths are prepared once.

use bigpeer_crdt::Value;

use super::Scope;
use super::compare::total_values;
use super::node::{Comprehension, Node};
use super::pattern::{Pattern, regex};
use super::schema::Schema;
use crate::ast::{BinaryOp, Binding, Expr, LikeKind};
use crate::error::{DqlError, shown};
use crate::functions::Function;

/// From how many constants on a list is sorted for `IN`.
const SET_FROM: usize = 4;

/// Makes nodes of expressions.
#[derive(Debug)]
pub(crate) struct Compiler<'a> {
    sources: Sources<'a>,
    /// Variables in scope, innermost last: the element's name and the index's.
    variables: Vec<(String, Option<String>)>,
    /// Set while what is compiled is evaluated on groups.
    group: Option<Group<'a>>,
}

/// Where paths lead.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sources<'a> {
    /// Into the fields of one collection; its name is taken off already.
    One(&'a Schema),
    /// Into one of a join's sources, which the path begins with.
    Joined(&'a [Scope]),
}

/// The slots of a group's row.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) keys: &'a [Expr],
    /// The aggregates found so far; their slots follow the keys'.
    pub(crate) aggregates: Vec<Expr>,
    /// What is said of a field that is neither.
    refusal: Option<DqlError>,
}

impl<'a> Compiler<'a> {
    pub(crate) fn new(schema: &'a Schema) -> Self {
        Self::over(Sources::One(schema))
    }

    /// A compiler of what is evaluated on rows of these sources.
    pub(crate) fn over(sources: Sources<'a>) -> Self {
        Self { sources, variables: Vec::new(), group: None }
    }

    /// A compiler of what is evaluated on groups.
    pub(crate) fn grouped(sources: Sources<'a>, keys: &'a [Expr]) -> Self {
        Self { sources, variables: Vec::new(), group: Some(Group { keys, aggregates: Vec::new(), refusal: None }) }
    }

    /// What is said from now on of a field that is neither group key nor in an aggregate.
    pub(crate) fn refuse_with(&mut self, refusal: impl FnOnce() -> DqlError) {
        if let Some(group) = &mut self.group {
            group.refusal = Some(refusal());
        }
    }

    /// The aggregates that the compiled expressions use, in the order of their slots.
    pub(crate) fn into_aggregates(self) -> Vec<Expr> {
        self.group.map(|group| group.aggregates).unwrap_or_default()
    }

    pub(crate) fn node(&mut self, expr: &Expr) -> Result<Node, DqlError> {
        if let Some(slot) = self.slot(expr) {
            return Ok(Node::Slot(slot));
        }
        self.inner(expr)
    }

    fn boxed(&mut self, expr: &Expr) -> Result<Box<Node>, DqlError> {
        self.node(expr).map(Box::new)
    }

    pub(crate) fn nodes(&mut self, exprs: &[Expr]) -> Result<Vec<Node>, DqlError> {
        exprs.iter().map(|expr| self.node(expr)).collect()
    }

    fn optional(&mut self, expr: Option<&Expr>) -> Result<Option<Node>, DqlError> {
        expr.map(|expr| self.node(expr)).transpose()
    }

    fn slot(&mut self, expr: &Expr) -> Option<usize> {
        let group = self.group.as_mut()?;
        if self.variables.is_empty()
            && let Some(key) = group.keys.iter().position(|key| key == expr)
        {
            return Some(key);
        }
        if !matches!(expr, Expr::Aggregate { .. }) {
            return None;
        }
        let at = group.aggregates.iter().position(|known| known == expr).unwrap_or_else(|| {
            group.aggregates.push(expr.clone());
            group.aggregates.len() - 1
        });
        Some(group.keys.len() + at)
    }

    #[allow(clippy::too_many_lines, reason = "one line or two for each kind of expression")]
    fn inner(&mut self, expr: &Expr) -> Result<Node, DqlError> {
        Ok(match expr {
            Expr::Literal(value) => Node::Const(value.clone()),
            Expr::Missing => Node::Missing,
            Expr::Parameter(name) => return Err(DqlError::new(format!("The parameter :{} has no value", shown(name)))),
            Expr::Path(path) => self.path(path)?,
            Expr::Member(base, key) => Node::Member(self.boxed(base)?, key.as_str().into()),
            Expr::Index(base, index) => Node::Index(self.boxed(base)?, self.boxed(index)?),
            Expr::Array(items) => Node::Array(self.nodes(items)?),
            Expr::Object(entries) => {
                let entries = entries.iter().map(|(key, item)| Ok((key.as_str().into(), self.node(item)?)));
                Node::Object(entries.collect::<Result<_, DqlError>>()?)
            }
            Expr::Not(inner) => Node::Not(self.boxed(inner)?),
            Expr::Negate(inner) => Node::Negate(self.boxed(inner)?),
            Expr::And(terms) => Node::And(self.nodes(terms)?),
            Expr::Or(terms) => Node::Or(self.nodes(terms)?),
            Expr::Binary(op, left, right) => self.binary(*op, left, right)?,
            Expr::Is { expr, missing, negated } => {
                Node::Is { node: self.boxed(expr)?, missing: *missing, negated: *negated }
            }
            Expr::Between { expr, low, high, negated } => Node::Between {
                node: self.boxed(expr)?,
                low: self.boxed(low)?,
                high: self.boxed(high)?,
                negated: *negated,
            },
            Expr::In { expr, list, negated } => {
                let (node, list) = (self.boxed(expr)?, self.nodes(list)?);
                in_list(node, list, *negated)
            }
            Expr::InArray { expr, array, negated } => match (self.boxed(expr)?, self.node(array)?) {
                (node, Node::Const(Value::Array(items))) => {
                    in_list(node, items.into_iter().map(Node::Const).collect(), *negated)
                }
                (node, array) => Node::InArray { node, array: Box::new(array), negated: *negated },
            },
            Expr::Like { expr, pattern, escape, kind, negated } => {
                let (node, pattern) = (self.boxed(expr)?, self.node(pattern)?);
                like(node, pattern, *escape, *kind, *negated)?
            }
            Expr::Case { operand, branches, otherwise } => {
                let branches = branches.iter().map(|(when, then)| Ok((self.node(when)?, self.node(then)?)));
                let branches = branches.collect::<Result<_, DqlError>>()?;
                let operand = self.optional(operand.as_deref())?.map(Box::new);
                Node::Case { operand, branches, otherwise: self.optional(otherwise.as_deref())?.map(Box::new) }
            }
            Expr::Cast(inner, kind) => Node::Cast(self.boxed(inner)?, *kind),
            Expr::Call(function, args) => call(*function, self.nodes(args)?)?,
            Expr::Aggregate { kind, .. } => {
                return Err(DqlError::new(format!("{} is not allowed here", kind.name()))
                    .hint("aggregates belong into the projection, HAVING and ORDER BY, not into each other"));
            }
            Expr::Quantified { kind, binding, condition } => {
                let source = self.boxed(&binding.source)?;
                let condition = Box::new(self.with(binding, |compiler| compiler.node(condition))?);
                Node::Quantified { kind: *kind, source, within: binding.within, condition }
            }
            Expr::Comprehension { key, element, binding, condition } => {
                let source = self.node(&binding.source)?;
                let comprehension = self.with(binding, |compiler| {
                    Ok(Comprehension {
                        key: compiler.optional(key.as_deref())?,
                        element: compiler.node(element)?,
                        condition: compiler.optional(condition.as_deref())?,
                        source,
                        within: binding.within,
                    })
                })?;
                Node::Comprehension(Box::new(comprehension))
            }
        })
    }

    fn with<T>(
        &mut self,
        binding: &Binding,
        inner: impl FnOnce(&mut Self) -> Result<T, DqlError>,
    ) -> Result<T, DqlError> {
        self.variables.push((binding.name.clone(), binding.index.clone()));
        let result = inner(self);
        self.variables.pop();
        result
    }

    fn binary(&mut self, op: BinaryOp, left: &Expr, right: &Expr) -> Result<Node, DqlError> {
        let (left, right) = (self.boxed(left)?, self.boxed(right)?);
        Ok(match op {
            BinaryOp::Eq | BinaryOp::NotEq | BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::Gt | BinaryOp::GtEq => {
                Node::Compare(op, left, right)
            }
            BinaryOp::Add
            | BinaryOp::Subtract
            | BinaryOp::Multiply
            | BinaryOp::Divide
            | BinaryOp::Modulo
            | BinaryOp::Concat => Node::Arithmetic(op, left, right),
        })
    }

    fn path(&self, path: &[String]) -> Result<Node, DqlError> {
        let keys = |from: usize| path.iter().skip(from).map(|key| key.as_str().into()).collect::<Vec<Box<str>>>();
        let Some(first) = path.first() else { return Ok(Node::Row) };
        for (up, (name, index)) in self.variables.iter().rev().enumerate() {
            let is_index = index.as_ref() == Some(first);
            if is_index || name == first {
                let variable = Node::Variable { up, index: is_index };
                return Ok(keys(1).into_iter().fold(variable, |node, key| Node::Member(Box::new(node), key)));
            }
        }
        if let Some(group) = &self.group {
            // `a.b` of the key `a`.
            for length in (1..path.len()).rev() {
                let prefix = Expr::Path(path.iter().take(length).cloned().collect());
                if let Some(slot) = group.keys.iter().position(|key| *key == prefix) {
                    return Ok(keys(length)
                        .into_iter()
                        .fold(Node::Slot(slot), |node, key| Node::Member(Box::new(node), key)));
                }
            }
            let neither =
                || DqlError::new(format!("\"{}\" is neither a group key nor in an aggregate", shown(&path.join("."))));
            return Err(group.refusal.clone().unwrap_or_else(neither));
        }
        match self.sources {
            Sources::One(schema) => Ok(leaf(schema, keys(0))),
            Sources::Joined(scopes) => joined(scopes, path),
        }
    }

    /// Which of a join's sources `name` is.
    pub(crate) fn source(&self, name: &str) -> Option<usize> {
        match self.sources {
            Sources::One(_) => None,
            Sources::Joined(scopes) => scopes.iter().position(|scope| scope.name == name),
        }
    }
}

/// What is at `keys` of a document.
fn leaf(schema: &Schema, mut keys: Vec<Box<str>>) -> Node {
    match keys.first() {
        None => Node::Row,
        Some(first) if &**first == "_id" => Node::Id(keys.split_off(1)),
        Some(_) => Node::Field(schema.path(keys)),
    }
}

/// What is at `path` of a join's row, which begins with the name of a source.
fn joined(scopes: &[Scope], path: &[String]) -> Result<Node, DqlError> {
    let Some((first, rest)) = path.split_first() else { return Ok(Node::Row) };
    if let Some((at, scope)) = scopes.iter().enumerate().find(|(_, scope)| scope.name == *first) {
        let keys = rest.iter().map(|key| key.as_str().into()).collect();
        return Ok(Node::Of(at, Box::new(leaf(&scope.schema, keys))));
    }
    if first == "_id" && rest.is_empty() {
        let ids = scopes.iter().enumerate();
        return Ok(Node::Object(
            ids.map(|(at, scope)| (scope.name.as_str().into(), Node::Of(at, Box::new(Node::Id(Vec::new()))))).collect(),
        ));
    }
    let names: Vec<String> = scopes.iter().map(|scope| format!("{}.{}", scope.name, first)).collect();
    Err(DqlError::new(format!("Ambiguous reference to field: {}", shown(first)))
        .hint(format!("say of which: {}", shown(&names.join(", ")))))
}

fn in_list(node: Box<Node>, list: Vec<Node>, negated: bool) -> Node {
    if list.len() < SET_FROM || !list.iter().all(|item| matches!(item, Node::Const(_) | Node::Missing)) {
        return Node::In { node, list, negated };
    }
    let mut set: Vec<Value> =
        list.into_iter().filter_map(|item| if let Node::Const(value) = item { Some(value) } else { None }).collect();
    let length = set.len();
    set.retain(|value| !value.is_null());
    let null = set.len() < length;
    set.sort_by(total_values);
    set.dedup_by(|a, b| total_values(a, b).is_eq());
    Node::InSet { node, set, null, negated }
}

fn like(node: Box<Node>, pattern: Node, escape: Option<char>, kind: LikeKind, negated: bool) -> Result<Node, DqlError> {
    if let Node::Const(Value::String(text)) = &pattern {
        return Ok(Node::Like { node, pattern: Pattern::new(kind, text, escape)?, negated });
    }
    Ok(Node::LikeDynamic { node, pattern: Box::new(pattern), escape, kind, negated })
}

/// A call; a constant regular expression is compiled now.
fn call(function: Function, mut args: Vec<Node>) -> Result<Node, DqlError> {
    if matches!(function, Function::Clock | Function::RequestInfo) {
        return Err(DqlError::new(format!("{}() is not available here", function.name())));
    }
    if function == Function::RegexpLike {
        let flags = match args.get(2) {
            None => Some(""),
            Some(Node::Const(Value::String(flags))) => Some(&**flags),
            Some(_) => None,
        };
        if let (Some(Node::Const(Value::String(pattern))), Some(flags)) = (args.get(1), flags) {
            let regex = regex(pattern, flags)?;
            return Ok(Node::Regexp { node: Box::new(args.swap_remove(0)), regex });
        }
    }
    Ok(Node::Call(function, args))
}
