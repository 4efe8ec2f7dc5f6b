//! The compiled expression, and its evaluation.

use bigpeer_crdt::{Object, Value};
use regex::Regex;

use super::compare::{comparison, equals, total_values};
use super::number::{arithmetic, negate};
use super::pattern::Pattern;
use super::schema::FieldPath;
use super::{Cell, Env, Frame, Row, Truth};
use crate::ast::{BinaryOp, CastType, LikeKind, Quantifier};
use crate::functions::{self, Function};

/// A compiled expression: parameters are constants, paths are split, patterns are parsed.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Const(Value),
    Missing,
    Field(FieldPath),
    /// `_id` and keys within.
    Id(Vec<Box<str>>),
    /// The whole row.
    Row,
    /// A field, id or row of one source of a join.
    Of(usize, Box<Node>),
    /// A slot of [`Row::Group`].
    Slot(usize),
    /// A variable, counted from the innermost, or its index.
    Variable {
        up: usize,
        index: bool,
    },
    Member(Box<Node>, Box<str>),
    Index(Box<Node>, Box<Node>),
    Array(Vec<Node>),
    Object(Vec<(Box<str>, Node)>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Vec<Node>),
    Or(Vec<Node>),
    Compare(BinaryOp, Box<Node>, Box<Node>),
    Arithmetic(BinaryOp, Box<Node>, Box<Node>),
    Is {
        node: Box<Node>,
        missing: bool,
        negated: bool,
    },
    Between {
        node: Box<Node>,
        low: Box<Node>,
        high: Box<Node>,
        negated: bool,
    },
    In {
        node: Box<Node>,
        list: Vec<Node>,
        negated: bool,
    },
    /// A constant list, sorted; `null` is not in it but beside it.
    InSet {
        node: Box<Node>,
        set: Vec<Value>,
        null: bool,
        negated: bool,
    },
    InArray {
        node: Box<Node>,
        array: Box<Node>,
        negated: bool,
    },
    Like {
        node: Box<Node>,
        pattern: Pattern,
        negated: bool,
    },
    LikeDynamic {
        node: Box<Node>,
        pattern: Box<Node>,
        escape: Option<char>,
        kind: LikeKind,
        negated: bool,
    },
    Regexp {
        node: Box<Node>,
        regex: Regex,
    },
    Case {
        operand: Option<Box<Node>>,
        branches: Vec<(Node, Node)>,
        otherwise: Option<Box<Node>>,
    },
    Cast(Box<Node>, CastType),
    Call(Function, Vec<Node>),
    Quantified {
        kind: Quantifier,
        source: Box<Node>,
        within: bool,
        condition: Box<Node>,
    },
    Comprehension(Box<Comprehension>),
}

/// `ARRAY` or `OBJECT … FOR`.
#[derive(Clone, Debug)]
pub(crate) struct Comprehension {
    pub(crate) key: Option<Node>,
    pub(crate) element: Node,
    pub(crate) source: Node,
    pub(crate) within: bool,
    pub(crate) condition: Option<Node>,
}

impl Node {
    /// The value.
    pub(crate) fn eval<'a>(&'a self, env: Env<'a>) -> Cell<'a> {
        match self {
            Self::Const(value) => Cell::Ref(value),
            Self::Missing => Cell::Missing,
            Self::Field(path) => field(env, path),
            Self::Id(path) => id(env, path),
            Self::Row if matches!(env.row, Row::Nothing) => Cell::Missing,
            Self::Row => Cell::Own(Value::Object(env.row.to_object())),
            Self::Of(at, node) => node.eval(env.of_source(*at)),
            Self::Slot(slot) => match env.row {
                Row::Group(slots) => Cell::from_option(slots.get(*slot).and_then(Option::as_ref)),
                Row::Nothing | Row::Document(..) | Row::Object(_) | Row::Joined(..) => Cell::Missing,
            },
            Self::Variable { up, index } => variable(env, *up, *index),
            Self::Member(base, key) => base.eval(env).member(key),
            Self::Index(base, index) => subscript(base.eval(env), &index.eval(env)),
            Self::Array(items) => {
                // MISSING has no place in an array: it becomes null, so that the others keep their places.
                Cell::Own(Value::Array(
                    items.iter().map(|item| item.eval(env).into_value().unwrap_or(Value::Null)).collect(),
                ))
            }
            Self::Object(entries) => {
                let present =
                    entries.iter().filter_map(|(key, item)| Some((key.clone(), item.eval(env).into_value()?)));
                Cell::Own(Value::Object(present.collect()))
            }
            Self::Negate(inner) => negate(inner.eval(env).get()),
            Self::Arithmetic(BinaryOp::Concat, left, right) => functions::concat(&[left.eval(env), right.eval(env)]),
            Self::Arithmetic(op, left, right) => arithmetic(*op, left.eval(env).get(), right.eval(env).get()),
            Self::Case { operand, branches, otherwise } => {
                case(env, operand.as_deref(), branches, otherwise.as_deref())
            }
            Self::Cast(inner, kind) => functions::cast(&inner.eval(env), *kind),
            Self::Call(function, args) => functions::call(*function, args, env),
            Self::Comprehension(comprehension) => comprehension.eval(env),
            Self::Not(_)
            | Self::And(_)
            | Self::Or(_)
            | Self::Compare(..)
            | Self::Is { .. }
            | Self::Between { .. }
            | Self::In { .. }
            | Self::InSet { .. }
            | Self::InArray { .. }
            | Self::Like { .. }
            | Self::LikeDynamic { .. }
            | Self::Regexp { .. }
            | Self::Quantified { .. } => self.truth(env).cell(),
        }
    }

    /// The value as a condition.
    #[allow(clippy::too_many_lines, reason = "one case for each kind of condition")]
    pub(crate) fn truth<'a>(&'a self, env: Env<'a>) -> Truth {
        match self {
            Self::Not(inner) => inner.truth(env).not(),
            Self::And(terms) => {
                let mut all = Truth::True;
                for term in terms {
                    all = all.and(term.truth(env));
                    if all == Truth::False {
                        break;
                    }
                }
                all
            }
            Self::Or(terms) => {
                let mut any = Truth::False;
                for term in terms {
                    any = any.or(term.truth(env));
                    if any == Truth::True {
                        break;
                    }
                }
                any
            }
            Self::Compare(op, left, right) => comparison(*op, left.eval(env).get(), right.eval(env).get()),
            Self::Is { node, missing, negated } => {
                let cell = node.eval(env);
                Truth::from_bool(if *missing { cell.is_missing() } else { cell.is_null() }).negate_if(*negated)
            }
            Self::Between { node, low, high, negated } => {
                let cell = node.eval(env);
                comparison(BinaryOp::GtEq, cell.get(), low.eval(env).get())
                    .and(comparison(BinaryOp::LtEq, cell.get(), high.eval(env).get()))
                    .negate_if(*negated)
            }
            Self::In { node, list, negated } => {
                let items: Vec<Cell<'a>> = list.iter().map(|item| item.eval(env)).collect();
                member_of(node.eval(env).get(), items.iter().filter_map(Cell::get)).negate_if(*negated)
            }
            Self::InSet { node, set, null, negated } => in_set(node.eval(env).get(), set, *null).negate_if(*negated),
            Self::InArray { node, array, negated } => match array.eval(env).get() {
                Some(Value::Array(items)) => member_of(node.eval(env).get(), items.iter()).negate_if(*negated),
                Some(Value::Null) => Truth::Null,
                _ => Truth::Missing,
            },
            Self::Like { node, pattern, negated } => match node.eval(env).get() {
                Some(Value::String(text)) => Truth::from_bool(pattern.matches(text)).negate_if(*negated),
                Some(Value::Null) => Truth::Null,
                _ => Truth::Missing,
            },
            Self::LikeDynamic { node, pattern, escape, kind, negated } => {
                like_dynamic(env, &node.eval(env), &pattern.eval(env), *escape, *kind).negate_if(*negated)
            }
            Self::Regexp { node, regex } => match node.eval(env).get() {
                Some(Value::String(text)) => Truth::from_bool(regex.is_match(text)),
                Some(Value::Null) => Truth::Null,
                _ => Truth::Missing,
            },
            Self::Quantified { kind, source, within, condition } => quantified(env, *kind, source, *within, condition),
            Self::Const(_)
            | Self::Missing
            | Self::Field(_)
            | Self::Id(_)
            | Self::Row
            | Self::Of(..)
            | Self::Slot(_)
            | Self::Variable { .. }
            | Self::Member(..)
            | Self::Index(..)
            | Self::Array(_)
            | Self::Object(_)
            | Self::Negate(_)
            | Self::Arithmetic(..)
            | Self::Case { .. }
            | Self::Cast(..)
            | Self::Call(..)
            | Self::Comprehension(_) => Truth::of(self.eval(env).get()),
        }
    }
}

fn field<'a>(env: Env<'a>, path: &FieldPath) -> Cell<'a> {
    match env.row {
        Row::Document(_, document, schema) => schema.get(document, path),
        Row::Object(object) => Cell::from_option(object.get_path(&path.keys)),
        Row::Nothing | Row::Joined(..) | Row::Group(_) => Cell::Missing,
    }
}

fn id<'a>(env: Env<'a>, path: &[Box<str>]) -> Cell<'a> {
    match env.row {
        Row::Document(id, ..) => path.iter().fold(Cell::Own(id.to_value()), |cell, key| cell.member(key)),
        Row::Object(object) => path.iter().fold(Cell::from_option(object.get("_id")), |cell, key| cell.member(key)),
        Row::Nothing | Row::Joined(..) | Row::Group(_) => Cell::Missing,
    }
}

fn variable(env: Env<'_>, up: usize, index: bool) -> Cell<'_> {
    let mut frame = env.frame;
    for _ in 0..up {
        frame = frame.and_then(|frame| frame.outer);
    }
    frame.map_or(Cell::Missing, |frame| Cell::Ref(if index { frame.index } else { frame.value }))
}

fn subscript<'a>(base: Cell<'a>, index: &Cell<'_>) -> Cell<'a> {
    match index.get() {
        Some(Value::Int(at)) => base.element(*at),
        Some(Value::String(key)) => base.member(key),
        _ => Cell::Missing,
    }
}

/// Whether `value` is one of `items`: TRUE, else NULL if `value` or an item is null, else FALSE.
fn member_of<'v>(value: Option<&Value>, items: impl Iterator<Item = &'v Value>) -> Truth {
    let Some(value) = value else { return Truth::Missing };
    let mut null = value.is_null();
    for item in items {
        if equals(value, item) {
            return Truth::True;
        }
        null |= item.is_null();
    }
    if null { Truth::Null } else { Truth::False }
}

fn in_set(value: Option<&Value>, set: &[Value], null: bool) -> Truth {
    let Some(value) = value else { return Truth::Missing };
    if value.is_null() {
        return Truth::Null;
    }
    let found = set.binary_search_by(|probe| total_values(probe, value)).is_ok();
    match (found && equals(value, value), null) {
        (true, _) => Truth::True,
        (false, true) => Truth::Null,
        (false, false) => Truth::False,
    }
}

fn like_dynamic(env: Env<'_>, value: &Cell<'_>, pattern: &Cell<'_>, escape: Option<char>, kind: LikeKind) -> Truth {
    if value.is_missing() || pattern.is_missing() {
        return Truth::Missing;
    }
    if value.is_null() || pattern.is_null() {
        return Truth::Null;
    }
    let (Some(text), Some(pattern)) = (value.text(), pattern.text()) else { return Truth::Missing };
    // Making a regular expression costs far more than a step of a loop.
    if !env.spend(1000) {
        return Truth::Missing;
    }
    Pattern::new(kind, pattern, escape).map_or(Truth::Missing, |pattern| Truth::from_bool(pattern.matches(text)))
}

fn case<'a>(
    env: Env<'a>,
    operand: Option<&'a Node>,
    branches: &'a [(Node, Node)],
    otherwise: Option<&'a Node>,
) -> Cell<'a> {
    let operand = operand.map(|operand| operand.eval(env));
    let chosen = branches.iter().find(|(when, _)| match &operand {
        Some(operand) => comparison(BinaryOp::Eq, operand.get(), when.eval(env).get()) == Truth::True,
        None => when.truth(env) == Truth::True,
    });
    match (chosen, otherwise) {
        (Some((_, then)), _) => then.eval(env),
        (None, Some(otherwise)) => otherwise.eval(env),
        (None, None) => Cell::NULL,
    }
}

/// The elements of an array with their positions, of an object with their keys; with `within` everything below, too.
/// None when it is neither; an error when the fuel is out.
fn elements<'v>(env: Env<'_>, source: &'v Value, within: bool, out: &mut Vec<(Value, &'v Value)>) -> Option<bool> {
    let mut add = |index: Value, item: &'v Value| {
        if !env.spend(1) {
            return false;
        }
        out.push((index, item));
        !within || !matches!(item, Value::Array(_) | Value::Object(_)) || elements(env, item, true, out) == Some(true)
    };
    match source {
        Value::Array(items) => {
            let mut positions = 0_i64..;
            Some(items.iter().all(|item| add(Value::Int(positions.next().unwrap_or(0)), item)))
        }
        Value::Object(object) => Some(object.iter().all(|(key, item)| add(Value::from(key), item))),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::Bytes(_) => None,
    }
}

fn quantified<'a>(env: Env<'a>, kind: Quantifier, source: &'a Node, within: bool, condition: &'a Node) -> Truth {
    let source = source.eval(env);
    let Some(value) = source.get() else { return Truth::Missing };
    if value.is_null() {
        return Truth::Null;
    }
    let mut items = Vec::new();
    if elements(env, value, within, &mut items) != Some(true) {
        return Truth::Missing;
    }
    let satisfied = |(index, value): &(Value, &Value)| {
        let frame = Frame { value, index, outer: env.frame };
        env.spend(1) && condition.truth(env.with(&frame)) == Truth::True
    };
    Truth::from_bool(match kind {
        Quantifier::Any => items.iter().any(satisfied),
        Quantifier::Every => items.iter().all(satisfied),
        Quantifier::AnyAndEvery => !items.is_empty() && items.iter().all(satisfied),
    })
}

impl Comprehension {
    fn eval<'a>(&'a self, env: Env<'a>) -> Cell<'a> {
        let source = self.source.eval(env);
        let Some(value) = source.get() else { return Cell::Missing };
        if value.is_null() {
            return Cell::NULL;
        }
        let mut items = Vec::new();
        if elements(env, value, self.within, &mut items) != Some(true) {
            return Cell::Missing;
        }
        let (mut array, mut entries): (Vec<Value>, Vec<(Box<str>, Value)>) = (Vec::new(), Vec::new());
        for (index, value) in &items {
            let frame = Frame { value, index, outer: env.frame };
            let inner = env.with(&frame);
            if self.condition.as_ref().is_some_and(|condition| condition.truth(inner) != Truth::True) {
                continue;
            }
            let Some(element) = self.element.eval(inner).into_value() else { continue };
            // What is copied is paid for, so that nested comprehensions cannot fill the memory.
            if !env.spend(1 + u64::try_from(element.heap_bytes() / 64).unwrap_or(u64::MAX)) {
                return Cell::Missing;
            }
            match &self.key {
                None => array.push(element),
                Some(key) => {
                    if let Some(Value::String(key)) = key.eval(inner).into_value() {
                        entries.push((key, element));
                    }
                }
            }
        }
        Cell::Own(match self.key {
            None => Value::Array(array),
            Some(_) => Value::Object(entries.into_iter().collect::<Object>()),
        })
    }
}
