//! EXPLAIN: a plan as rows, in the reference's words.

use bigpeer_crdt::{Object, Value};

use super::Plan;
use super::target::Target;

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
