//! Functions about NULL and MISSING. Their arguments are evaluated one by one.

#![allow(clippy::wildcard_enum_match_arm, reason = "each of these modules names its own functions")]

use super::Function;
use crate::ast::BinaryOp;
use crate::eval::compare::comparison;
use crate::eval::node::Node;
use crate::eval::{Cell, Env, Truth};

/// None when `function` is not one of these.
pub(super) fn call<'a>(function: Function, args: &'a [Node], env: Env<'a>) -> Option<Cell<'a>> {
    let eval = |at: usize| args.get(at).map_or(Cell::Missing, |arg| arg.eval(env));
    // The first argument that is not `skipped`; NULL if all are.
    let first = |skipped: fn(&Cell<'a>) -> bool| {
        args.iter().map(|arg| arg.eval(env)).find(|cell| !skipped(cell)).unwrap_or(Cell::NULL)
    };
    let absent = |cell: &Cell<'a>| cell.is_missing() || cell.is_null();
    Some(match function {
        Function::Coalesce | Function::IfMissingOrNull => first(absent),
        Function::IfMissing => first(Cell::is_missing),
        Function::IfNull => first(Cell::is_null),
        Function::Nvl => {
            let cell = eval(0);
            match (args.len(), absent(&cell)) {
                // nvl(v, r, r2): r when there is a value, r2 when there is none.
                (3, false) => eval(1),
                (3, true) => eval(2),
                (_, true) => eval(1),
                (_, false) => cell,
            }
        }
        Function::IsMissing => Cell::of(eval(0).is_missing()),
        Function::IsNull => Cell::of(eval(0).is_null()),
        Function::IsMissingOrNull => Cell::of(absent(&eval(0))),
        Function::NullIf => if_equal(eval(0), &eval(1), Cell::NULL),
        Function::MissingIf => if_equal(eval(0), &eval(1), Cell::Missing),
        Function::Decode => decode(args, env),
        _ => return None,
    })
}

fn if_equal<'a>(cell: Cell<'a>, other: &Cell<'_>, then: Cell<'a>) -> Cell<'a> {
    if comparison(BinaryOp::Eq, cell.get(), other.get()) == Truth::True { then } else { cell }
}

/// `decode(in, c, r, …[, default])`; here NULL equals NULL and MISSING equals MISSING.
fn decode<'a>(args: &'a [Node], env: Env<'a>) -> Cell<'a> {
    let Some((subject, rest)) = args.split_first() else { return Cell::Missing };
    let subject = subject.eval(env);
    let mut pairs = rest.chunks_exact(2);
    for pair in &mut pairs {
        let [when, then] = pair else { continue };
        let when = when.eval(env);
        let same = (subject.is_missing() && when.is_missing())
            || (subject.is_null() && when.is_null())
            || comparison(BinaryOp::Eq, subject.get(), when.get()) == Truth::True;
        if same {
            return then.eval(env);
        }
    }
    pairs.remainder().first().map_or(Cell::NULL, |otherwise| otherwise.eval(env))
}
