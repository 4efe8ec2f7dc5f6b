//! Random syntax trees, values and documents.

use bigpeer_crdt::{Object, Value};
use bigpeer_dql::Function;
use bigpeer_dql::ast::{
    AggregateKind, Alter, BinaryOp, Binding, CastType, ConflictPolicy, CounterOp, Delete, Expr, FieldType, Insert,
    InsertInput, Join, JoinKind, LikeKind, Order, OrderTerm, Projection, Quantifier, Select, Show, Source, Statement,
    TypeDef, Update, UseIds,
};
use bigpeer_types::CollectionName;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c", "_id"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["year", "select", "a b", "ü", "`", "x", "count"]).prop_map(str::to_owned),
    ]
}

pub(crate) fn path() -> impl Strategy<Value = Vec<String>> {
    vec(name(), 1..4)
}

/// Scalars as they can be written.
pub(crate) fn literal() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-6_i32..6).prop_map(|half| Value::from(f64::from(half) / 2.0)),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        prop::sample::select(vec!["", "a", "b", "ab%", "(", "2013-01-01"]).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        vec(any::<u8>(), 0..4).prop_map(Value::from),
    ]
}

/// Any value.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    literal().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((name(), inner), 0..4).prop_map(|entries| Value::from(entries.into_iter().collect::<Object>())),
        ]
    })
}

pub(crate) fn fields() -> impl Strategy<Value = Object> {
    vec((prop::sample::select(vec!["a", "b", "c", "year", "x"]), value()), 0..5)
        .prop_map(|entries| entries.into_iter().collect())
}

fn op() -> impl Strategy<Value = BinaryOp> {
    use BinaryOp::{Add, Concat, Divide, Eq, Gt, GtEq, Lt, LtEq, Modulo, Multiply, NotEq, Subtract};
    prop::sample::select(vec![Eq, NotEq, Lt, LtEq, Gt, GtEq, Add, Subtract, Multiply, Divide, Modulo, Concat])
}

fn binding(source: impl Strategy<Value = Expr>) -> impl Strategy<Value = Binding> {
    (option::of(name()), name(), any::<bool>(), source).prop_map(|(index, name, within, source)| Binding {
        index,
        name,
        within,
        source: Box::new(source),
    })
}

fn boxed(expr: impl Strategy<Value = Expr>) -> impl Strategy<Value = Box<Expr>> {
    expr.prop_map(Box::new)
}

fn maybe() -> BoxedStrategy<Option<Expr>> {
    option::of(expr()).boxed()
}

pub(crate) fn expr() -> BoxedStrategy<Expr> {
    let leaf = prop_oneof![
        4 => literal().prop_map(Expr::Literal),
        4 => path().prop_map(Expr::Path),
        1 => Just(Expr::Missing),
        1 => prop::sample::select(vec!["p", "limit"]).prop_map(|name| Expr::Parameter(name.to_owned())),
        1 => Just(Expr::Aggregate { kind: AggregateKind::Count, distinct: false, arg: None }),
    ];
    leaf.prop_recursive(4, 40, 4, |e| prop_oneof![operators(e.clone()), predicates(e.clone()), forms(e)]).boxed()
}

fn operators(e: BoxedStrategy<Expr>) -> BoxedStrategy<Expr> {
    prop_oneof![
        (boxed(e.clone()), name()).prop_map(|(base, key)| Expr::Member(base, key)),
        (boxed(e.clone()), boxed(e.clone())).prop_map(|(base, index)| Expr::Index(base, index)),
        vec(e.clone(), 0..3).prop_map(Expr::Array),
        vec((".{0,4}", e.clone()), 0..3).prop_map(Expr::Object),
        boxed(e.clone()).prop_map(Expr::Not),
        boxed(e.clone()).prop_map(Expr::Negate),
        vec(e.clone(), 2..4).prop_map(Expr::And),
        vec(e.clone(), 2..4).prop_map(Expr::Or),
        (op(), boxed(e.clone()), boxed(e)).prop_map(|(op, left, right)| Expr::Binary(op, left, right)),
    ]
    .boxed()
}

fn predicates(e: BoxedStrategy<Expr>) -> BoxedStrategy<Expr> {
    let kind = prop::sample::select(vec![LikeKind::Like, LikeKind::Ilike, LikeKind::Similar]);
    let array = prop_oneof![
        path().prop_map(Expr::Path),
        Just(Expr::Parameter("list".into())),
        vec(e.clone(), 0..3).prop_map(Expr::Array)
    ];
    prop_oneof![
        (boxed(e.clone()), any::<bool>(), any::<bool>()).prop_map(|(expr, missing, negated)| Expr::Is {
            expr,
            missing,
            negated
        }),
        (boxed(e.clone()), boxed(e.clone()), boxed(e.clone()), any::<bool>())
            .prop_map(|(expr, low, high, negated)| Expr::Between { expr, low, high, negated }),
        (boxed(e.clone()), vec(e.clone(), 0..6), any::<bool>()).prop_map(|(expr, list, negated)| Expr::In {
            expr,
            list,
            negated
        }),
        (boxed(e.clone()), boxed(array), any::<bool>()).prop_map(|(expr, array, negated)| Expr::InArray {
            expr,
            array,
            negated
        }),
        (boxed(e.clone()), boxed(e), option::of(any::<char>()), kind, any::<bool>())
            .prop_map(|(expr, pattern, escape, kind, negated)| Expr::Like { expr, pattern, escape, kind, negated }),
    ]
    .boxed()
}

fn forms(e: BoxedStrategy<Expr>) -> BoxedStrategy<Expr> {
    let cast = prop::sample::select(vec![
        CastType::String,
        CastType::Integer,
        CastType::Float,
        CastType::Boolean,
        CastType::Binary,
    ]);
    let quantifier = prop::sample::select(vec![Quantifier::Any, Quantifier::Every, Quantifier::AnyAndEvery]);
    let aggregate = prop::sample::select(AggregateKind::ALL.to_vec());
    let call = (prop::sample::select(Function::ALL.to_vec()), vec(e.clone(), 4..5), any::<prop::sample::Index>())
        .prop_map(|(function, mut args, at)| {
            let (least, most) = function.arity();
            args.truncate(least + at.index(most.min(4) - least + 1));
            Expr::Call(function, args)
        });
    prop_oneof![
        (option::of(boxed(e.clone())), vec((e.clone(), e.clone()), 1..3), option::of(boxed(e.clone())))
            .prop_map(|(operand, branches, otherwise)| Expr::Case { operand, branches, otherwise }),
        (boxed(e.clone()), cast).prop_map(|(inner, cast)| Expr::Cast(inner, cast)),
        call,
        (aggregate, any::<bool>(), boxed(e.clone())).prop_map(|(kind, distinct, arg)| Expr::Aggregate {
            kind,
            distinct,
            arg: Some(arg)
        }),
        (quantifier, binding(e.clone()), boxed(e.clone())).prop_map(|(kind, binding, condition)| Expr::Quantified {
            kind,
            binding,
            condition
        }),
        (option::of(boxed(e.clone())), boxed(e.clone()), binding(e.clone()), option::of(boxed(e)))
            .prop_map(|(key, element, binding, condition)| Expr::Comprehension { key, element, binding, condition }),
    ]
    .boxed()
}

fn types() -> BoxedStrategy<Vec<TypeDef>> {
    let leaf = prop_oneof![
        Just(FieldType::Register),
        Just(FieldType::Counter),
        Just(FieldType::PnCounter),
        Just(FieldType::Attachment),
        Just(FieldType::Map(vec![]))
    ];
    let kind = leaf
        .prop_recursive(2, 6, 2, |inner| vec((path(), inner), 0..3).prop_map(|defs| FieldType::Map(type_defs(defs))));
    vec((path(), kind), 0..3).prop_map(type_defs).boxed()
}

fn type_defs(defs: Vec<(Vec<String>, FieldType)>) -> Vec<TypeDef> {
    defs.into_iter().map(|(path, kind)| TypeDef { path, kind }).collect()
}

fn source(row: bool) -> BoxedStrategy<Source> {
    let ids = option::of(prop_oneof![vec(expr(), 1..3).prop_map(UseIds::Each), boxed(expr()).prop_map(UseIds::List)]);
    let collection = prop::sample::select(vec!["flights", "a b", "order", "system:dual", "system:a b"]);
    (collection, types(), option::of(name()), ids)
        .prop_map(move |(collection, types, alias, ids)| Source {
            collection: CollectionName::new(collection).unwrap(),
            types,
            alias: alias.filter(|_| row),
            ids: ids.filter(|_| row),
        })
        .boxed()
}

fn projections() -> BoxedStrategy<Vec<Projection>> {
    let one = prop_oneof![
        1 => name().prop_map(Projection::AllOf),
        1 => path().prop_map(Projection::Missing),
        4 => (expr(), option::of(name())).prop_map(|(expr, alias)| Projection::Expr { expr, alias }),
    ];
    prop_oneof![1 => Just(vec![Projection::All]), 4 => vec(one, 1..4)].boxed()
}

fn order() -> BoxedStrategy<Order> {
    let term = (expr(), any::<bool>()).prop_map(|(expr, descending)| OrderTerm { expr, descending });
    (vec(term, 0..3), maybe(), maybe()).prop_map(|(by, limit, offset)| Order { by, limit, offset }).boxed()
}

fn joins() -> BoxedStrategy<Vec<Join>> {
    let kind = prop::sample::select(vec![JoinKind::Inner, JoinKind::Left, JoinKind::Right]);
    let join = (kind, source(true), expr()).prop_map(|(kind, source, on)| Join { kind, source, on });
    prop_oneof![3 => Just(vec![]), 1 => vec(join, 1..3)]
        .prop_map(|mut joins| {
            for join in joins.iter_mut().skip(1).filter(|join| join.kind == JoinKind::Right) {
                join.kind = JoinKind::Left;
            }
            joins
        })
        .boxed()
}

pub(crate) fn select() -> BoxedStrategy<Select> {
    (any::<bool>(), projections(), source(true), joins(), maybe(), vec(expr(), 0..3), maybe(), order())
        .prop_map(|(distinct, projections, source, joins, filter, group_by, having, order)| Select {
            distinct,
            projections,
            source,
            joins,
            filter,
            group_by,
            having,
            order,
        })
        .boxed()
}

fn insert() -> BoxedStrategy<Insert> {
    use ConflictPolicy::{DoNothing, DoUpdate, DoUpdateLocalDiff, Fail, Initial};
    let input = prop_oneof![
        vec(expr(), 1..3).prop_map(InsertInput::Documents),
        select().prop_map(|select| InsertInput::Select(Box::new(select)))
    ];
    let policy = prop::sample::select(vec![Fail, DoNothing, DoUpdate, DoUpdateLocalDiff, Initial]);
    (source(false), input, policy, prop_oneof![Just(vec![]), projections()])
        .prop_map(|(source, input, conflict, returning)| {
            let select = matches!(input, InsertInput::Select(_));
            Insert { source, input, conflict: if select && conflict == Initial { Fail } else { conflict }, returning }
        })
        .boxed()
}

fn update() -> BoxedStrategy<Update> {
    let counter = prop_oneof![
        expr().prop_map(CounterOp::Increment),
        maybe().prop_map(CounterOp::Restart),
        expr().prop_map(CounterOp::PnIncrement)
    ];
    (
        source(true),
        vec((path(), counter), 0..3),
        vec((path(), expr()), 1..3),
        vec(path(), 0..3),
        maybe(),
        prop_oneof![Just(vec![]), projections()],
    )
        .prop_map(|(source, apply, set, unset, filter, returning)| Update {
            source,
            apply,
            set,
            unset,
            filter,
            returning,
        })
        .boxed()
}

fn delete() -> BoxedStrategy<Delete> {
    (source(true), maybe(), order(), prop_oneof![Just(vec![]), projections()])
        .prop_map(|(source, filter, order, returning)| Delete { source, filter, order, returning })
        .boxed()
}

pub(crate) fn statement() -> BoxedStrategy<Statement> {
    let core = prop_oneof![
        select().prop_map(Statement::Select),
        insert().prop_map(Statement::Insert),
        update().prop_map(Statement::Update),
        delete().prop_map(Statement::Delete),
        delete().prop_map(Statement::Evict),
    ];
    let show = (option::of(name()), option::of(".{0,4}")).prop_map(|(name, like)| Statement::Show(Show { name, like }));
    let about = (core, 0..6).prop_map(|(core, about)| match (about, core) {
        (0, core) => Statement::Explain(Box::new(core)),
        (1, core) => Statement::Advise(Box::new(core)),
        (2, select @ Statement::Select(_)) => Statement::Profile(Box::new(select)),
        (_, core) => core,
    });
    let value = prop_oneof![any::<bool>().prop_map(Value::from), any::<u32>().prop_map(|n| Value::from(i64::from(n)))];
    let alter = (option::of(name()), option::of(value)).prop_map(|(name, to)| {
        let to = to.filter(|_| name.is_some());
        Statement::Alter(Alter { name, to })
    });
    prop_oneof![20 => about, 1 => show, 1 => alter].boxed()
}
