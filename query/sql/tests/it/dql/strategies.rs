//! Random documents, whose fields mostly have one type in one case, and random statements about them.

use bigpeer_crdt::{DocId, Editor, Object, ObjectMode, Value};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What a case's field holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    kind: Kind,
    nulls: bool,
    missing: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Int,
    Huge,
    Float,
    Odd,
    IntOrFloat,
    Text,
    Bool,
    Bytes,
    Mixed,
    List,
}

/// Documents and statements.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) documents: Vec<Doc>,
    /// What is done after each few documents.
    pub(super) upkeep: Vec<u8>,
    pub(super) strict: bool,
    pub(super) statements: Vec<String>,
}

/// One document, or its end.
#[derive(Clone, Debug)]
pub(crate) struct Doc {
    id: u8,
    fields: Option<Object>,
    counter: u8,
    register: bool,
}

impl Doc {
    pub(crate) fn id(&self) -> DocId {
        DocId::from_value(&Value::Int(self.id.into())).unwrap()
    }

    pub(crate) fn apply(&self, editor: &mut Editor<'_>) {
        editor.delete();
        let Some(fields) = &self.fields else { return };
        let mode = if self.register { ObjectMode::Register } else { ObjectMode::Map };
        editor.insert(fields, mode).unwrap();
        if self.counter > 0 {
            editor.increment(&["n"], self.counter.into()).unwrap();
        }
    }
}

const FIELDS: [&str; 5] = ["a", "b", "c", "d", "e"];

impl Profile {
    fn value(self, byte: u8) -> Option<Value> {
        let v = i64::from(byte / 7);
        match byte % 7 {
            0 if self.missing => return None,
            1 if self.nulls => return Some(Value::Null),
            _ => {}
        }
        let half = |v: i64| Value::Float((v % 9 - 4) as f64 / 2.0);
        let pick = |from: &[Value]| from[usize::from(byte / 7) % from.len()].clone();
        Some(match self.kind {
            Kind::Int => Value::Int(v % 7 - 3),
            Kind::Huge => pick(&[i64::MAX, i64::MIN, 0, 1 << 53, (1 << 53) + 1, -1].map(Value::Int)),
            Kind::Float => half(v),
            Kind::Odd => pick(&[-0.0, 0.0, 1.5, f64::NAN].map(Value::Float)),
            Kind::IntOrFloat if v % 2 == 0 => Value::Int(v % 7 - 3),
            Kind::IntOrFloat => half(v),
            Kind::Text => pick(&["", "a", "ab", "b", "ä", "a%b", "A"].map(Value::from)),
            Kind::Bool => Value::Bool(v % 2 == 0),
            Kind::Bytes => pick(&[vec![0_u8], vec![0, 1], vec![255]].map(Value::from)),
            Kind::Mixed => pick(&[Value::Int(1), "a".into(), true.into(), half(1), Value::Array(vec![1.into()])]),
            Kind::List => pick(&[Value::Array(vec![1.into()]), Value::Array(vec![])]),
        })
    }
}

fn profile() -> impl Strategy<Value = Profile> {
    use Kind::{Bool, Bytes, Float, Huge, Int, IntOrFloat, List, Mixed, Odd, Text};
    let kind = select(vec![
        Int, Int, Int, Float, Float, Text, Text, Text, Bool, Bool, IntOrFloat, IntOrFloat, Huge, Bytes, Odd, Mixed,
        List,
    ]);
    (kind, prop::bool::weighted(0.3), prop::bool::weighted(0.5)).prop_map(|(kind, nulls, missing)| Profile {
        kind,
        nulls,
        missing,
    })
}

/// Fields' values are made of bytes, so that a failing case can be made smaller.
fn documents() -> impl Strategy<Value = Vec<Doc>> {
    let profiles = vec(profile(), FIELDS.len() + 2);
    let raw = (0_u8..40, vec(any::<u8>(), FIELDS.len() + 2), 0_u8..12, 0_u8..4, 0_u8..10);
    (profiles, vec(raw, 0..50), any::<bool>(), any::<bool>()).prop_map(|(profiles, raw, counters, registers)| {
        let document = |(id, bytes, gone, counter, register): (u8, Vec<u8>, u8, u8, u8)| {
            let mut values = profiles.iter().zip(&bytes).map(|(profile, byte)| profile.value(*byte));
            let of = |names: &[&str], values: &mut dyn Iterator<Item = Option<Value>>| -> Object {
                names.iter().zip(values).filter_map(|(name, value)| Some((*name, value?))).collect()
            };
            let mut fields = of(&FIELDS, &mut values);
            let map = of(&["x", "y"], &mut values);
            if bytes[0] % 5 > 0 {
                fields.insert("m", Value::Object(map));
            }
            Doc {
                id,
                fields: (gone > 0).then_some(fields),
                counter: if counters { counter } else { 0 },
                register: registers && register > 3,
            }
        };
        raw.into_iter().map(document).collect()
    })
}

fn path() -> impl Strategy<Value = String> {
    let paths = ["a", "b", "c", "d", "e", "a", "b", "c", "d", "e", "m.x", "m.y", "m", "z", "n", "_id", "a.x"];
    select(paths.map(str::to_owned).to_vec())
}

fn literal() -> impl Strategy<Value = String> {
    let literals = [
        "0",
        "1",
        "-2",
        "2",
        "1.5",
        "-0.5",
        "2.0",
        "0.0",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "1e300",
        "''",
        "'a'",
        "'ab'",
        "'ä'",
        "true",
        "false",
        "NULL",
        "MISSING",
        "X'00'",
        "[1]",
    ];
    select(literals.map(str::to_owned).to_vec())
}

fn value() -> BoxedStrategy<String> {
    let leaf = prop_oneof![4 => path(), 1 => literal()];
    leaf.prop_recursive(2, 6, 3, |inner| {
        let op = select(vec!["+", "-", "*", "/", "%"]);
        prop_oneof![
            3 => (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            1 => inner.clone().prop_map(|a| format!("-({a})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
            1 => (comparison(inner.clone()), inner.clone(), inner)
                .prop_map(|(when, a, b)| format!("CASE WHEN {when} THEN {a} ELSE {b} END")),
        ]
    })
    .boxed()
}

fn comparison(value: impl Strategy<Value = String> + 'static) -> BoxedStrategy<String> {
    let op = select(vec!["=", "!=", "<", "<=", ">", ">="]);
    (value, op, prop_oneof![3 => literal(), 1 => path()]).prop_map(|(a, op, b)| format!("{a} {op} {b}")).boxed()
}

fn condition() -> BoxedStrategy<String> {
    let not = || select(vec!["", "NOT "]);
    let leaf = prop_oneof![
        4 => comparison(value()),
        2 => comparison(path()),
        1 => (path(), not(), vec(literal(), 1..6)).prop_map(|(a, not, list)| format!("{a} {not}IN ({})", list.join(", "))),
        1 => (path(), not(), literal(), literal()).prop_map(|(a, not, b, c)| format!("{a} {not}BETWEEN {b} AND {c}")),
        1 => (path(), not(), select(vec!["NULL", "MISSING"])).prop_map(|(a, not, what)| format!("{a} IS {not}{what}")),
        1 => (path(), not(), select(vec!["a%", "%b", "_", "%", "", "a\\%b", "ä"]))
            .prop_map(|(a, not, pattern)| format!("{a} {not}LIKE '{pattern}'")),
        1 => (select(vec!["starts_with", "ends_with", "contains"]), path(), literal())
            .prop_map(|(function, a, b)| format!("{function}({a}, {b})")),
        1 => value().prop_map(|value| format!("ismissingornull({value})")),
        1 => path(),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            2 => vec(inner.clone(), 2..4).prop_map(|terms| format!("({})", terms.join(" AND "))),
            2 => vec(inner.clone(), 2..4).prop_map(|terms| format!("({})", terms.join(" OR "))),
            1 => inner.prop_map(|inner| format!("NOT ({inner})")),
        ]
    })
    .boxed()
}

fn filter() -> impl Strategy<Value = String> {
    prop_oneof![1 => Just(String::new()), 2 => condition().prop_map(|condition| format!(" WHERE {condition}"))]
}

fn aggregate() -> impl Strategy<Value = String> {
    let function = select(vec!["COUNT", "SUM", "AVG", "MIN", "MAX", "MID", "COUNT", "SUM", "MEDIAN"]);
    prop_oneof![
        1 => Just("COUNT(*)".to_owned()),
        4 => (function, value()).prop_map(|(function, value)| format!("{function}({value})")),
        1 => path().prop_map(|path| format!("COUNT(DISTINCT {path})")),
    ]
}

fn groups() -> impl Strategy<Value = String> {
    let having = prop_oneof![
        3 => Just(String::new()),
        1 => (aggregate(), literal()).prop_map(|(aggregate, literal)| format!(" HAVING {aggregate} > {literal}")),
    ];
    (vec(path(), 0..3), vec(aggregate(), 0..3), filter(), having, any::<bool>(), prop::option::of(0_u8..5)).prop_map(
        |(mut keys, aggregates, filter, having, order, limit)| {
            keys.sort();
            keys.dedup();
            let named = aggregates.iter().enumerate().map(|(at, aggregate)| format!("{aggregate} AS g{at}"));
            let columns: Vec<String> =
                keys.iter().enumerate().map(|(at, key)| format!("{key} AS k{at}")).chain(named).collect();
            let columns = if columns.is_empty() { "COUNT(*)".to_owned() } else { columns.join(", ") };
            let by = if keys.is_empty() { String::new() } else { format!(" GROUP BY {}", keys.join(", ")) };
            let order = match aggregates.first().filter(|_| order) {
                Some(aggregate) => format!(" ORDER BY {aggregate} DESC"),
                None => String::new(),
            };
            let limit = limit.map_or_else(String::new, |limit| format!(" LIMIT {limit}"));
            format!("SELECT {columns} FROM c{filter}{by}{having}{order}{limit}")
        },
    )
}

fn distinct() -> impl Strategy<Value = String> {
    (vec(path(), 1..3), filter(), any::<bool>()).prop_map(|(paths, filter, order)| {
        let order = if order { format!(" ORDER BY {}", paths[0]) } else { String::new() };
        let columns: Vec<String> = paths.iter().enumerate().map(|(at, path)| format!("{path} AS p{at}")).collect();
        format!("SELECT DISTINCT {} FROM c{filter}{order}", columns.join(", "))
    })
}

fn documents_of() -> impl Strategy<Value = String> {
    let order = prop_oneof![
        1 => Just(String::new()),
        2 => (path(), select(vec!["", " DESC"])).prop_map(|(path, direction)| format!(" ORDER BY {path}{direction}")),
    ];
    let limit = prop::option::of((0_u8..6, 0_u8..4));
    (filter(), order, limit).prop_map(|(filter, order, limit)| {
        let limit = limit.map_or_else(String::new, |(limit, offset)| format!(" LIMIT {limit} OFFSET {offset}"));
        format!("SELECT * FROM c{filter}{order}{limit}")
    })
}

/// Random documents and `statements` random statements.
pub(super) fn case(statements: usize) -> impl Strategy<Value = Case> {
    let statement = prop_oneof![4 => groups(), 2 => distinct(), 3 => documents_of()];
    (documents(), vec(0_u8..5, 8), prop::bool::weighted(0.3), vec(statement, 1..=statements))
        .prop_map(|(documents, upkeep, strict, statements)| Case { documents, upkeep, strict, statements })
}
