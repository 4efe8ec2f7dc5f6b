//! EXPLAIN: a plan as rows, in the reference's words.

use bigpeer_crdt::{Object, Value};

use super::join::Stage;
use super::target::Target;
use super::{Plan, SelectPlan};

fn operator(name: &str, parts: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let mut object: Object = parts.into_iter().collect();
    object.insert("#operator", name);
    Value::Object(object)
}

/// The rows of EXPLAIN.
pub(crate) fn rows(plan: &Plan) -> Vec<Value> {
    let mut children = match plan {
        Plan::Select(select) => {
            let mut children = reading(&select.target);
            for stage in select.stages() {
                children.push(joining(stage));
            }
            if let Some(grouped) = select.grouping_text() {
                children.push(operator("group", [("keys", Value::from(grouped))]));
            }
            children
        }
        Plan::Insert(insert) => vec![operator("insert", [("collection", Value::from(insert.collection().as_str()))])],
        Plan::Update(update) => {
            let mut children = reading(&update.target);
            children.push(operator("update", []));
            children
        }
        Plan::Delete(delete) => {
            let mut children = reading(&delete.target);
            children.push(operator("delete", []));
            children
        }
        Plan::Evict(evict) => {
            let mut children = reading(&evict.target);
            children.push(operator("evict", []));
            children
        }
        Plan::Explain(_) => Vec::new(),
    };
    if let Plan::Select(select) = plan {
        let order = &select.bound.order;
        if !order.by.is_empty() {
            let terms = order
                .by
                .iter()
                .map(|term| Value::from(format!("{}{}", term.expr, if term.descending { " DESC" } else { "" })));
            children.push(operator("sort", [("by", Value::Array(terms.collect()))]));
        }
        let bound = |expr: &crate::ast::Expr| Value::from(expr.to_string());
        if order.limit.is_some() || order.offset.is_some() {
            let limit = order.limit.iter().map(|limit| ("limit", bound(limit)));
            children.push(operator("limit", limit.chain(order.offset.iter().map(|offset| ("offset", bound(offset))))));
        }
        children.push(operator("projection", [("distinct", Value::Bool(select.bound.distinct))]));
    }
    let sequence = operator("sequence", [("children", Value::Array(children))]);
    vec![Value::Object([("plan", sequence)].into_iter().collect())]
}

/// A collection that is joined: `hashJoin` when partners are found by what must be equal, `nlJoin` when every pair is
/// looked at.
fn joining(stage: &Stage) -> Value {
    let name = if stage.keys.is_empty() { "nlJoin" } else { "hashJoin" };
    let children = Value::Array(reading(&stage.target));
    operator(
        name,
        [("on", Value::from(stage.text.as_str())), ("outer", Value::Bool(stage.outer)), ("children", children)],
    )
}

/// The row that PROFILE adds.
pub(crate) fn profile(plan: &SelectPlan, pushed: u64, rows: usize) -> Value {
    let count = |number: usize| Value::from(u64::try_from(number).unwrap_or(u64::MAX));
    let stats: Object = [("documentsIn", Value::from(pushed)), ("documentsOut", count(rows))].into_iter().collect();
    let mut profile = match self::rows(&Plan::Select(plan.clone())).pop() {
        Some(Value::Object(plan)) => plan,
        _ => Object::new(),
    };
    profile.insert("#stats", Value::Object(stats));
    Value::Object([("~request_profile", Value::Object(profile))].into_iter().collect())
}

/// The rows of ADVISE: there are no indexes to make, because scans are pruned by what was stored, of every field.
pub(crate) fn advice(plan: &Plan, statement: &str) -> Vec<Value> {
    let target = match plan {
        Plan::Select(select) => Some(&select.target),
        Plan::Update(update) => Some(&update.target),
        Plan::Delete(delete) | Plan::Evict(delete) => Some(&delete.target),
        Plan::Insert(_) | Plan::Explain(_) => None,
    };
    let outcome = match target {
        None => "no advice available for statement",
        Some(target) if target.ids().is_none() && target.conditions().is_empty() => "no keys to advise on",
        Some(_) => "optimal indexes already exist",
    };
    let none = || Value::Array(Vec::new());
    let advice: Object = [
        ("statement", Value::from(statement)),
        ("suggestedIndexes", none()),
        ("existingIndexes", none()),
        ("createdIndexes", none()),
        ("failedIndexes", none()),
        ("outcome", Value::from(outcome)),
    ]
    .into_iter()
    .collect();
    vec![Value::Object([("advice", Value::Object(advice))].into_iter().collect())]
}

/// How the documents of a target are found.
fn reading(target: &Target) -> Vec<Value> {
    let collection = ("collection", Value::from(target.collection.as_str()));
    let mut out = vec![match target.ids() {
        Some(ids) => operator(
            "idScan",
            [collection, ("ids", Value::Array(ids.iter().map(bigpeer_crdt::DocId::to_value).collect()))],
        ),
        None => {
            let conditions = target.conditions().into_iter().map(|condition| {
                let path: Vec<String> = condition.path.iter().map(ToString::to_string).collect();
                Value::Object(Object::from_iter([
                    ("path", Value::from(path.join("."))),
                    ("op", Value::from(format!("{:?}", condition.op))),
                    ("values", Value::Array(condition.values)),
                ]))
            });
            operator("scan", [collection, ("prune", Value::Array(conditions.collect()))])
        }
    }];
    if let Some(filter) = &target.filter {
        out.push(operator("filter", [("condition", Value::from(filter.to_string()))]));
    }
    out
}
