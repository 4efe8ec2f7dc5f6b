//! SELECT: compiled, and under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bigpeer_crdt::{ConditionOp, DocId, Document, FieldCondition, Object, Value};
use bigpeer_types::{CollectionName, RandomIds};

use super::bind::{Binder, count};
use super::join::{JoinPlan, Stage, Wanted};
use super::join_run::JoinRun;
use super::projection::{Aggregate, Projector};
use super::sorter::{Held, Sorter};
use super::target::{Target, too_expensive};
use super::{Flow, Mode, Params};
use crate::ast::{Expr, Order, Projection, Select};
use crate::error::DqlError;
use crate::eval::aggregate::Accumulator;
use crate::eval::compare::Key;
use crate::eval::compile::{Compiler, Sources};
use crate::eval::node::Node;
use crate::eval::schema::Schema;
use crate::eval::{Env, Row, Truth, full_tank};
use crate::parser::parse;

/// A SELECT ready to run.
#[derive(Clone, Debug)]
pub struct SelectPlan {
    pub(crate) target: Target,
    pub(crate) bound: Select,
    projector: Projector,
    order: Vec<Node>,
    descending: Arc<[bool]>,
    limit: Option<usize>,
    offset: usize,
    grouping: Option<Grouping>,
    joins: Option<Arc<JoinPlan>>,
    /// `PROFILE`: one more row says what it took.
    pub(crate) profile: bool,
}

/// How rows become groups.
#[derive(Clone, Debug)]
struct Grouping {
    keys: Vec<Node>,
    aggregates: Vec<Aggregate>,
    /// What the aggregates were compiled from.
    exprs: Vec<Expr>,
    having: Option<Node>,
}

/// A path that must equal one of `values` for WHERE to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equality {
    /// The field.
    pub path: Vec<Box<str>>,
    /// The values, scalars without null and NaN; empty when WHERE can never be true. Numbers are compared by their
    /// numeric value: an index must find 1.0 under 1.
    pub values: Vec<Value>,
}

impl SelectPlan {
    pub(crate) fn new(mut select: Select, params: &Params, mode: Mode) -> Result<Self, DqlError> {
        let (collection, alias) = (select.source.collection.clone(), select.source.alias.clone());
        let mut binder = if select.joins.is_empty() {
            Binder::new(params, &collection, alias.as_deref())
        } else {
            let joined = select.joins.iter().map(|join| join.source.name().to_owned());
            Binder::joined(params, std::iter::once(select.source.name().to_owned()).chain(joined).collect())?
        };
        binder.source(&mut select.source)?;
        binder.select(&mut select)?;
        let (joins, target) = if select.joins.is_empty() {
            (None, Target::new(&select.source, select.filter.clone(), mode)?)
        } else {
            let (joins, target) = JoinPlan::new(&select, mode)?;
            (Some(Arc::new(joins)), target)
        };
        let sources = match &joins {
            None => Sources::One(&target.schema),
            Some(joins) => Sources::Joined(&joins.scopes),
        };
        let grouped = !select.group_by.is_empty() || select.having.is_some() || uses_aggregates(&select);
        let (projector, order, grouping) =
            if grouped { compile_grouped(&select, sources)? } else { compile_plain(&select, sources)? };
        let (limit, offset) = bounds(&select.order)?;
        let descending = select.order.by.iter().map(|term| term.descending).collect();
        Ok(Self { target, bound: select, projector, order, descending, limit, offset, grouping, joins, profile: false })
    }

    /// The documents of `collection` for which the condition `text` holds: what permissions and filters are written in. It
    /// means what it would after WHERE, names that begin with the collection's included.
    ///
    /// # Errors
    /// Says what is wrong with `text`.
    pub fn of_condition(collection: &CollectionName, text: &str) -> Result<Self, DqlError> {
        let statement = format!("SELECT * FROM `{}` WHERE {text}", collection.as_str().replace('`', "``"));
        parse(&statement)?.bind(&Params::default(), Mode::default(), &RandomIds)?.into_subscription()
    }

    /// The collection.
    #[must_use]
    pub fn collection(&self) -> &CollectionName {
        &self.target.collection
    }

    /// The only documents that can matter, sorted, when WHERE or USE IDS pins `_id`: look these up instead of scanning.
    #[must_use]
    pub fn ids(&self) -> Option<Vec<DocId>> {
        self.target.ids()
    }

    /// What a scan may prune with. Documents that break one of these cannot match; others may still not match.
    #[must_use]
    pub fn conditions(&self) -> Vec<FieldCondition> {
        self.target.conditions()
    }

    /// Whether the document is visible and WHERE is true of it: for subscriptions and permissions. False also when that
    /// takes too long to find out.
    #[must_use]
    pub fn matches(&self, id: &DocId, document: &Document) -> bool {
        self.target.accepts(id, document).unwrap_or(false)
    }

    /// Whether this can be a subscription: `SELECT * FROM collection [WHERE …]`.
    ///
    /// # Errors
    /// Names the part that cannot be in a subscription.
    pub fn is_subscription(&self) -> Result<(), DqlError> {
        let refuse = |what: &str| {
            Err(DqlError::new(format!("Unsupported feature: {what}"))
                .hint("a subscription is SELECT * FROM collection WHERE …"))
        };
        let select = &self.bound;
        if select.projections != [Projection::All] {
            return refuse("A projection other than wildcard (*)");
        }
        if select.distinct {
            return refuse("DISTINCT");
        }
        if self.grouping.is_some() {
            return refuse("Grouping");
        }
        if !select.joins.is_empty() {
            return refuse("JOIN");
        }
        if select.source.ids.is_some() {
            return refuse("USE IDS");
        }
        if select.order != Order::default() {
            return refuse("Limit or Order by");
        }
        Ok(())
    }

    /// The paths that must equal one of some values for WHERE to be true: what a subscription can be indexed by.
    #[must_use]
    pub fn equalities(&self) -> Vec<Equality> {
        let equality = |condition: FieldCondition| match condition.op {
            ConditionOp::Eq | ConditionOp::In => Some(Equality { path: condition.path, values: condition.values }),
            ConditionOp::Lt | ConditionOp::LtEq | ConditionOp::Gt | ConditionOp::GtEq | ConditionOp::Exists => None,
        };
        self.conditions().into_iter().filter_map(equality).collect()
    }

    /// One text for all statements that are the same once parameters are put in, in one mode: what equal subscriptions
    /// are found by.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut select = self.bound.clone();
        select.source.alias = None;
        format!("{}{select}", if self.target.schema.strict { "strict " } else { "" })
    }

    /// The keys of GROUP BY, if there are groups.
    pub(crate) fn grouping_text(&self) -> Option<String> {
        let keys: Vec<String> = self.bound.group_by.iter().map(ToString::to_string).collect();
        self.grouping.as_ref().map(|_| keys.join(", "))
    }

    /// The aggregates of a statement with groups.
    pub(crate) fn grouping_exprs(&self) -> Option<&[Expr]> {
        self.grouping.as_ref().map(|grouping| grouping.exprs.as_slice())
    }

    /// The collections that are joined.
    pub(crate) fn stages(&self) -> &[Stage] {
        self.joins.as_ref().map_or(&[], |joins| &joins.stages)
    }

    /// Whether there are joins: after the plan's own collection the run asks for others, see [`SelectRun::next_wanted`].
    #[must_use]
    pub fn has_joins(&self) -> bool {
        self.joins.is_some()
    }

    /// Starts to run.
    #[must_use]
    pub fn run(self) -> SelectRun {
        let keep = self.limit.map_or(usize::MAX, |limit| limit.saturating_add(self.offset));
        let sorter = Sorter::new(Arc::clone(&self.descending), keep);
        let join = self.joins.clone().map(JoinRun::new);
        SelectRun {
            plan: self,
            join,
            pushed: 0,
            sorter,
            groups: BTreeMap::new(),
            seen: BTreeSet::new(),
            held: Held::default(),
        }
    }
}

fn uses_aggregates(select: &Select) -> bool {
    let projected = select.projections.iter().any(|projection| match projection {
        Projection::Expr { expr, .. } => expr.has_aggregate(),
        Projection::All | Projection::AllOf(_) | Projection::Missing(_) => false,
    });
    projected || select.order.by.iter().any(|term| term.expr.has_aggregate())
}

/// LIMIT and OFFSET.
pub(crate) fn bounds(order: &Order) -> Result<(Option<usize>, usize), DqlError> {
    Ok((count("LIMIT", order.limit.as_ref())?, count("OFFSET", order.offset.as_ref())?.unwrap_or(0)))
}

type Compiled = (Projector, Vec<Node>, Option<Grouping>);

fn compile_plain(select: &Select, sources: Sources<'_>) -> Result<Compiled, DqlError> {
    let mut compiler = Compiler::over(sources);
    let projector = Projector::new(&select.projections, &mut compiler, false)?;
    let order = select.order.by.iter().map(|term| compiler.node(&term.expr)).collect::<Result<_, _>>()?;
    Ok((projector, order, None))
}

fn compile_grouped(select: &Select, sources: Sources<'_>) -> Result<Compiled, DqlError> {
    if let Some(key) = select.group_by.iter().find(|key| key.has_aggregate()) {
        return Err(DqlError::new(format!("GROUP BY cannot use an aggregate: {key}")));
    }
    let mut compiler = Compiler::grouped(sources, &select.group_by);
    let projector = Projector::new(&select.projections, &mut compiler, true)?;
    compiler.refuse_with(|| DqlError::new("HAVING clause terms must depend only on group keys or aggregates"));
    let having = select.having.as_ref().map(|having| compiler.node(having)).transpose()?;
    compiler.refuse_with(|| DqlError::new("ORDER BY clause terms must depend only on group keys or aggregates"));
    let order = select.order.by.iter().map(|term| compiler.node(&term.expr)).collect::<Result<_, _>>()?;
    let exprs = compiler.into_aggregates();
    let mut compiler = Compiler::over(sources);
    let keys = compiler.nodes(&select.group_by)?;
    let aggregates = exprs.iter().map(|expr: &Expr| Aggregate::new(expr, &mut compiler)).collect::<Result<_, _>>()?;
    Ok((projector, order, Some(Grouping { keys, aggregates, exprs, having })))
}

/// A SELECT under way: feed it documents, then take the rows.
#[derive(Debug)]
pub struct SelectRun {
    plan: SelectPlan,
    join: Option<JoinRun>,
    /// How many documents it was given.
    pushed: u64,
    sorter: Sorter<Value>,
    groups: BTreeMap<Vec<Key>, Vec<Accumulator>>,
    /// The rows seen, of DISTINCT.
    seen: BTreeSet<Key>,
    held: Held,
}

impl SelectRun {
    /// Takes a document. Invisible ones, and those of which WHERE is not true, are ignored.
    ///
    /// # Errors
    /// When the result becomes too large to hold, or an expression takes too long.
    pub fn push(&mut self, id: &DocId, document: &Document) -> Result<Flow, DqlError> {
        if self.is_settled() {
            return Ok(Flow::Enough);
        }
        self.pushed += 1;
        if let Some(join) = &mut self.join {
            join.push(id, document, &self.plan.target, &mut self.held)?;
            return Ok(Flow::More);
        }
        if self.plan.target.accepts(id, document)? {
            self.take(|schema| Row::Document(id, document, schema))?;
        }
        Ok(self.flow())
    }

    /// Takes a row of a virtual collection, `_id` included.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_row(&mut self, row: &Object) -> Result<Flow, DqlError> {
        if self.is_settled() {
            return Ok(Flow::Enough);
        }
        self.pushed += 1;
        if let Some(join) = &mut self.join {
            join.push_row(row, &self.plan.target, &mut self.held)?;
            return Ok(Flow::More);
        }
        if self.plan.target.holds(Row::Object(row))? {
            self.take(|_| Row::Object(row))?;
        }
        Ok(self.flow())
    }

    /// All documents of a collection were pushed: which are wanted next, of a statement with joins. Push those, and ask
    /// again. Nothing for other statements.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn next_wanted(&mut self) -> Result<Option<Wanted>, DqlError> {
        self.join.as_mut().map_or(Ok(None), JoinRun::next_wanted)
    }

    fn is_settled(&self) -> bool {
        self.plan.limit == Some(0) || (self.join.is_none() && self.plan.grouping.is_none() && self.sorter.is_settled())
    }

    fn flow(&self) -> Flow {
        if self.is_settled() { Flow::Enough } else { Flow::More }
    }

    pub(super) fn take<'r>(&'r mut self, row: impl FnOnce(&'r Schema) -> Row<'r>) -> Result<(), DqlError> {
        let fuel = full_tank();
        let env = Env::new(row(&self.plan.target.schema), &fuel);
        match &self.plan.grouping {
            Some(grouping) => grouping.add(env, &mut self.groups, &mut self.held)?,
            None => emit(&self.plan, env, &mut self.sorter, &mut self.seen, &mut self.held)?,
        }
        if fuel.get() == 0 { Err(too_expensive()) } else { Ok(()) }
    }

    /// The rows.
    ///
    /// # Errors
    /// When the result is too large to hold.
    pub fn finish(mut self) -> Result<Vec<Value>, DqlError> {
        if let Some(join) = self.join.take() {
            self.take_joined(join)?;
        }
        if let Some(grouping) = &self.plan.grouping {
            if self.groups.is_empty() && grouping.keys.is_empty() {
                let start = grouping.start();
                self.groups.insert(Vec::new(), start);
            }
            for (keys, accumulators) in std::mem::take(&mut self.groups) {
                let results = accumulators.into_iter().map(Accumulator::finish);
                let slots: Vec<Option<Value>> = keys.into_iter().map(|key| key.0).chain(results).collect();
                self.take_group(&slots)?;
            }
        }
        self.finish_groups()
    }

    /// Takes a group: its keys, and its aggregates' values.
    pub(super) fn take_group(&mut self, slots: &[Option<Value>]) -> Result<(), DqlError> {
        let having = self.plan.grouping.as_ref().and_then(|grouping| grouping.having.as_ref());
        let fuel = full_tank();
        let env = Env::new(Row::Group(slots), &fuel);
        if having.is_none_or(|having| having.truth(env) == Truth::True) {
            emit(&self.plan, env, &mut self.sorter, &mut self.seen, &mut self.held)?;
        }
        Ok(())
    }

    /// The rows, when the groups were taken.
    pub(super) fn finish_groups(self) -> Result<Vec<Value>, DqlError> {
        let pushed = self.pushed;
        let mut rows: Vec<Value> = self.sorter.finish(self.plan.offset).collect();
        if self.plan.profile {
            rows.push(super::explain::profile(&self.plan, pushed, rows.len()));
        }
        Ok(rows)
    }

    /// The rows of a join: WHERE on all of each, and on.
    fn take_joined(&mut self, join: JoinRun) -> Result<(), DqlError> {
        let Some(plan) = self.plan.joins.clone() else { return Ok(()) };
        for parts in join.finish()? {
            if self.is_settled() || (self.plan.grouping.is_none() && self.sorter.is_settled()) {
                break;
            }
            let fuel = full_tank();
            let row = Row::Joined(&plan.scopes, &parts);
            let holds = plan.filter.as_ref().is_none_or(|filter| filter.truth(Env::new(row, &fuel)) == Truth::True);
            if fuel.get() == 0 {
                return Err(too_expensive());
            }
            if holds {
                self.take(|_| row)?;
            }
        }
        Ok(())
    }
}

/// Puts the row of `env` into its place.
fn emit(
    plan: &SelectPlan,
    env: Env<'_>,
    sorter: &mut Sorter<Value>,
    seen: &mut BTreeSet<Key>,
    held: &mut Held,
) -> Result<(), DqlError> {
    let keys = plan.order.iter().map(|node| Key(node.eval(env).into_value())).collect();
    if !plan.bound.distinct {
        return sorter.push(keys, held, || {
            let row = plan.projector.row(env);
            let bytes = row.heap_bytes();
            Ok((row, bytes))
        });
    }
    let row = Key(Some(plan.projector.row(env)));
    if seen.contains(&row) {
        return Ok(());
    }
    let bytes = row.0.as_ref().map_or(0, Value::heap_bytes);
    held.add(bytes + size_of::<Key>())?;
    seen.insert(row.clone());
    sorter.push(keys, held, || Ok((row.0.unwrap_or(Value::Null), bytes)))
}

impl Grouping {
    fn start(&self) -> Vec<Accumulator> {
        self.aggregates.iter().map(Aggregate::start).collect()
    }

    fn add(
        &self,
        env: Env<'_>,
        groups: &mut BTreeMap<Vec<Key>, Vec<Accumulator>>,
        held: &mut Held,
    ) -> Result<(), DqlError> {
        let keys: Vec<Key> = self.keys.iter().map(|key| Key(key.eval(env).into_value())).collect();
        let accumulators = match groups.get_mut(&keys) {
            Some(accumulators) => accumulators,
            None => {
                let bytes = keys
                    .iter()
                    .map(|key| key.0.as_ref().map_or(0, Value::heap_bytes) + size_of::<Key>())
                    .sum::<usize>();
                held.add(bytes + self.aggregates.len() * size_of::<Accumulator>())?;
                groups.entry(keys).or_insert_with(|| self.start())
            }
        };
        for (aggregate, accumulator) in self.aggregates.iter().zip(accumulators) {
            let cell = aggregate.arg.as_ref().map_or(crate::eval::Cell::Missing, |arg| arg.eval(env));
            held.add(accumulator.add(&cell))?;
        }
        Ok(())
    }
}
