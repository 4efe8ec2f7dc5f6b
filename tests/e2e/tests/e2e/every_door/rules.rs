//! A naive model of rules: random conditions, their text as the server gets it, and what they say of a document by the words
//! of docs/dql.md. It shares nothing with the evaluator, so that it cannot share its mistakes.

use std::cmp::Ordering;

use bigpeer_types::{IdGenerator, SeededIds};
use serde_json::{Value as Json, json};

/// The chance of one seed.
pub(super) struct Chance(SeededIds);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(SeededIds::new(seed))
    }

    pub(super) fn below(&self, end: usize) -> usize {
        (self.0.next_u64() % end as u64) as usize
    }

    pub(super) fn one_in(&self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub(super) fn pick<T: Clone>(&self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

type Path = &'static [&'static str];

const FIELDS: [Path; 10] =
    [&["a"], &["b"], &["c d"], &["o"], &["o", "x"], &["o", "y"], &["a", "x"], &["n"], &["num"], &["_id"]];
const CLAIMS: [Path; 7] = [&["x"], &["y"], &["list"], &["deep"], &["deep", "z"], &["userID"], &["none"]];
const COMPARISONS: [&str; 6] = ["=", "!=", "<", "<=", ">", ">="];

/// Three-valued logic, and MISSING.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Truth {
    True,
    False,
    Null,
    Missing,
}

use Truth::{False, Missing, Null, True};

#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// With the collection's name before it, or without.
    Field(Path, bool),
    Claim(Path),
    Literal(Json),
}

#[derive(Clone, Debug)]
pub(super) enum Condition {
    Value(Operand),
    Compare(Operand, &'static str, Operand),
    Between(Operand, Operand, Operand, bool),
    /// `IN (…)`, or `NOT IN`.
    In(Operand, Vec<Operand>, bool),
    /// `IN` what should be an array.
    InArray(Operand, Operand, bool),
    /// `IS NULL` or `IS MISSING`, or `NOT`.
    Is(Operand, &'static str, bool),
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
}

/// One of a few draws that `splits`: is true of some documents and not of others. At times just any.
pub(super) fn drawn<T>(chance: &Chance, draw: impl Fn() -> T, splits: impl Fn(&T) -> bool) -> T {
    let tries = if chance.one_in(6) { 0 } else { 10 };
    (0..tries).map(|_| draw()).find(|one| splits(one)).unwrap_or_else(&draw)
}

/// A value that a field may have: of every type, few of each, so that they meet.
pub(super) fn value(chance: &Chance) -> Json {
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(-1),
        json!(0),
        json!(1),
        json!(2),
        json!(1.0),
        json!(1.5),
        json!(""),
        json!("a"),
        json!("b"),
        json!("it's"),
        json!([1, "a"]),
        json!([]),
        json!(["a", null, 2.0]),
    ];
    chance.pick(&values)
}

/// Claims of a user, of every type and shape.
pub(super) fn claims(chance: &Chance, serial: u64) -> Json {
    let mut claims = json!({"serial": format!("rule {serial}")});
    for name in ["x", "y"] {
        if !chance.one_in(5) {
            claims[name] = value(chance);
        }
    }
    if !chance.one_in(4) {
        let list: Vec<Json> = (0..chance.below(7)).map(|_| value(chance)).collect();
        claims["list"] = if chance.one_in(4) { value(chance) } else { list.into() };
    }
    if !chance.one_in(4) {
        claims["deep"] = if chance.one_in(4) { value(chance) } else { json!({"z": value(chance)}) };
    }
    claims
}

fn operand(chance: &Chance, with_claims: bool) -> Operand {
    match chance.below(4) {
        0 => Operand::Field(chance.pick(&FIELDS), chance.one_in(6)),
        1 | 2 if with_claims => Operand::Claim(chance.pick(&CLAIMS)),
        _ => Operand::Literal(value(chance)),
    }
}

/// A random condition, with claims in it or without.
pub(super) fn condition(chance: &Chance, depth: u32, with_claims: bool) -> Condition {
    let field = || Operand::Field(chance.pick(&FIELDS), chance.one_in(6));
    let operand = || operand(chance, with_claims);
    let several = || (0..2 + chance.below(2)).map(|_| condition(chance, depth - 1, with_claims)).collect();
    match if depth == 0 { chance.below(8) } else { chance.below(14) } {
        0 => Condition::Is(operand(), chance.pick(&["NULL", "MISSING"]), chance.one_in(2)),
        1 => Condition::In(field(), (0..1 + chance.below(7)).map(|_| operand()).collect(), chance.one_in(3)),
        2 if with_claims => Condition::InArray(field(), Operand::Claim(&["list"]), chance.one_in(3)),
        2 => Condition::InArray(field(), field(), chance.one_in(3)),
        3 => Condition::Between(field(), operand(), operand(), chance.one_in(3)),
        4 => Condition::Value(operand()),
        8 | 9 => Condition::Not(Box::new(condition(chance, depth - 1, with_claims))),
        10 | 11 => Condition::And(several()),
        12 | 13 => Condition::Or(several()),
        _ => Condition::Compare(field(), chance.pick(&COMPARISONS), operand()),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn literal(value: &Json) -> String {
    match value {
        Json::Null => "NULL".to_owned(),
        Json::Bool(flag) => flag.to_string(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => quoted(text),
        Json::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Json::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", quoted(key), literal(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

fn dotted(path: Path) -> String {
    let key = |key: &&str| if key.contains(' ') { format!("`{key}`") } else { (*key).to_owned() };
    path.iter().map(key).collect::<Vec<_>>().join(".")
}

fn at(value: &Json, path: Path) -> Option<Json> {
    path.iter().try_fold(value, |value, key| value.as_object()?.get(*key)).cloned()
}

impl Operand {
    fn text(&self) -> String {
        match self {
            Self::Field(path, true) => format!("docs.{}", dotted(path)),
            Self::Field(path, false) => dotted(path),
            Self::Claim(path) => format!(":claims.{}", dotted(path)),
            Self::Literal(value) => literal(value),
        }
    }

    /// The value; none is MISSING.
    fn of(&self, document: &Json, claims: &Json) -> Option<Json> {
        match self {
            Self::Field(path, _) => at(document, path),
            Self::Claim(path) => at(claims, path),
            Self::Literal(value) => Some(value.clone()),
        }
    }
}

impl Condition {
    pub(super) fn text(&self) -> String {
        let not = |negated: bool| if negated { "NOT " } else { "" };
        let joined = |parts: &[Self], word: &str| {
            parts.iter().map(|part| format!("({})", part.text())).collect::<Vec<_>>().join(word)
        };
        match self {
            Self::Value(operand) => operand.text(),
            Self::Compare(left, op, right) => format!("{} {op} {}", left.text(), right.text()),
            Self::Between(value, low, high, negated) => {
                format!("{} {}BETWEEN {} AND {}", value.text(), not(*negated), low.text(), high.text())
            }
            Self::In(value, list, negated) => {
                let list: Vec<String> = list.iter().map(Operand::text).collect();
                format!("{} {}IN ({})", value.text(), not(*negated), list.join(", "))
            }
            Self::InArray(value, array, negated) => {
                format!("{} {}IN {}", value.text(), not(*negated), array.text())
            }
            Self::Is(value, what, negated) => format!("{} IS {}{what}", value.text(), not(*negated)),
            Self::Not(inner) => format!("NOT ({})", inner.text()),
            Self::And(parts) => joined(parts, " AND "),
            Self::Or(parts) => joined(parts, " OR "),
        }
    }

    pub(super) fn holds(&self, document: &Json, claims: &Json) -> bool {
        self.truth(document, claims) == True
    }

    fn truth(&self, document: &Json, claims: &Json) -> Truth {
        let value = |operand: &Operand| operand.of(document, claims);
        match self {
            Self::Value(operand) => match value(operand) {
                Some(Json::Bool(flag)) => truth_of(flag),
                Some(Json::Null) => Null,
                _ => Missing,
            },
            Self::Compare(left, op, right) => compared(value(left).as_ref(), op, value(right).as_ref()),
            Self::Between(operand, low, high, negated) => {
                let of = value(operand);
                let above = compared(of.as_ref(), ">=", value(low).as_ref());
                let below = compared(of.as_ref(), "<=", value(high).as_ref());
                negated_if(*negated, first_of(&[above, below], [False, Missing, Null], True))
            }
            Self::In(operand, list, negated) => {
                let list: Vec<Json> = list.iter().filter_map(value).collect();
                negated_if(*negated, is_among(value(operand).as_ref(), &list))
            }
            Self::InArray(operand, array, negated) => match value(array) {
                Some(Json::Array(items)) => negated_if(*negated, is_among(value(operand).as_ref(), &items)),
                Some(Json::Null) => Null,
                _ => Missing,
            },
            Self::Is(operand, what, negated) => {
                let is = value(operand).map_or(*what == "MISSING", |value| *what == "NULL" && value.is_null());
                truth_of(is != *negated)
            }
            Self::Not(inner) => negated_if(true, inner.truth(document, claims)),
            Self::And(parts) => first_of(&truths(parts, document, claims), [False, Missing, Null], True),
            Self::Or(parts) => first_of(&truths(parts, document, claims), [True, Null, Missing], False),
        }
    }
}

fn truths(parts: &[Condition], document: &Json, claims: &Json) -> Vec<Truth> {
    parts.iter().map(|part| part.truth(document, claims)).collect()
}

const fn truth_of(flag: bool) -> Truth {
    if flag { True } else { False }
}

const fn negated_if(negated: bool, truth: Truth) -> Truth {
    match (negated, truth) {
        (true, True) => False,
        (true, False) => True,
        (_, other) => other,
    }
}

/// The first of `deciding` that is among `truths`.
fn first_of(truths: &[Truth], deciding: [Truth; 3], otherwise: Truth) -> Truth {
    deciding.into_iter().find(|one| truths.contains(one)).unwrap_or(otherwise)
}

fn is_among(value: Option<&Json>, list: &[Json]) -> Truth {
    match value {
        None => Missing,
        Some(value) if list.iter().any(|item| compared(Some(value), "=", Some(item)) == True) => True,
        Some(value) if value.is_null() || list.iter().any(Json::is_null) => Null,
        Some(_) => False,
    }
}

/// Where a type stands in the order of types.
fn rank(value: &Json) -> u8 {
    match value {
        Json::Bool(_) => 0,
        Json::Number(_) => 1,
        Json::String(_) => 2,
        Json::Array(_) => 3,
        Json::Object(_) => 4,
        Json::Null => 5,
    }
}

fn order(left: &Json, right: &Json) -> Ordering {
    match (left, right) {
        (Json::Bool(left), Json::Bool(right)) => left.cmp(right),
        // Small numbers only, which floats hold exactly.
        (Json::Number(left), Json::Number(right)) => left.as_f64().unwrap().total_cmp(&right.as_f64().unwrap()),
        (Json::String(left), Json::String(right)) => left.as_bytes().cmp(right.as_bytes()),
        (Json::Array(left), Json::Array(right)) => {
            let differing = left.iter().zip(right).map(|(left, right)| order(left, right)).find(|order| order.is_ne());
            differing.unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Json::Object(left), Json::Object(right)) => {
            let entries = |of: &serde_json::Map<String, Json>| {
                let mut entries: Vec<_> = of.iter().map(|(key, value)| json!([key, value])).collect();
                entries.sort_by(order);
                Json::Array(entries)
            };
            order(&entries(left), &entries(right))
        }
        _ => rank(left).cmp(&rank(right)),
    }
}

fn compared(left: Option<&Json>, op: &str, right: Option<&Json>) -> Truth {
    let (Some(left), Some(right)) = (left, right) else { return Missing };
    if left.is_null() || right.is_null() {
        return Null;
    }
    if rank(left) != rank(right) {
        return Missing;
    }
    let order = order(left, right);
    truth_of(match op {
        "=" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })
}

/// What somebody may read of a collection.
#[derive(Clone, Debug)]
pub(super) enum Grant {
    Nothing,
    Whole,
    AnyOf(Vec<Condition>),
}

impl Grant {
    pub(super) fn random(chance: &Chance, with_claims: bool) -> Self {
        match chance.below(16) {
            0 => Self::Nothing,
            1 => Self::Whole,
            _ => Self::AnyOf(
                (0..1 + chance.below(2)).map(|_| condition(chance, 1 + chance.below(3) as u32, with_claims)).collect(),
            ),
        }
    }

    pub(super) fn allows(&self, document: &Json, claims: &Json) -> bool {
        match self {
            Self::Nothing => false,
            Self::Whole => true,
            Self::AnyOf(conditions) => conditions.iter().any(|condition| condition.holds(document, claims)),
        }
    }

    /// Whether it allows the whole collection by what it says, without a look at documents.
    pub(super) fn is_whole(&self, claims: &Json) -> bool {
        let says_true = |condition: &Condition| {
            let Condition::Value(operand @ (Operand::Claim(_) | Operand::Literal(_))) = condition else { return false };
            operand.of(&Json::Null, claims) == Some(json!(true))
        };
        match self {
            Self::Nothing => false,
            Self::Whole => true,
            Self::AnyOf(conditions) => conditions.iter().any(says_true),
        }
    }

    /// The texts of its conditions; none if there is no rule. `serial` makes them differ from those of before, whatever they
    /// mean: so a session notices.
    pub(super) fn texts(&self, serial: u64) -> Option<Vec<String>> {
        match self {
            Self::Nothing => None,
            Self::Whole => Some(vec!["true".to_owned()]),
            Self::AnyOf(conditions) => {
                let named = [format!("_id = 'rule {serial}'"), "_id = :claims.serial".to_owned()];
                Some(conditions.iter().map(Condition::text).chain(named).collect())
            }
        }
    }
}
