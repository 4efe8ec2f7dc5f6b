//! What a statement may know of when and for whom it is run. Put in before anything else is compiled, so that one
//! statement sees one time.

#![allow(clippy::wildcard_enum_match_arm, reason = "all other kinds of expressions are left alone")]

use bigpeer_crdt::{Object, Value};

use crate::ast::{Expr, Statement};
use crate::error::DqlError;
use crate::functions::Function;

/// When and for whom a statement is run. Without it `clock()` and `request_info()` are refused: a subscription and a
/// permission must answer alike tomorrow.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Milliseconds since the epoch, of `clock()`.
    pub now_ms: i64,
    /// What `request_info()` answers: `app_id`, `request_id`, `start_time`.
    pub request: Object,
}

/// Puts the moment in place of the functions that ask for it.
pub(crate) fn fix(statement: &mut Statement, moment: Option<&Moment>) -> Result<(), DqlError> {
    statement.each_expr(&mut |expr| fix_expr(expr, moment))
}

fn fix_expr(expr: &mut Expr, moment: Option<&Moment>) -> Result<(), DqlError> {
    for child in expr.children_mut() {
        fix_expr(child, moment)?;
    }
    let Expr::Call(function @ (Function::Clock | Function::RequestInfo), args) = expr else { return Ok(()) };
    let Some(moment) = moment else {
        return Err(DqlError::new(format!("{}() is not available here", function.name())).hint(
            "subscriptions, live queries and permissions must not depend on when they are asked; pass a parameter",
        ));
    };
    *expr = match function {
        Function::RequestInfo => Expr::Literal(Value::Object(moment.request.clone())),
        _ => {
            let now = Expr::Literal(Value::Int(moment.now_ms));
            if args.is_empty() {
                now
            } else {
                Expr::Call(Function::DateFormat, std::iter::once(now).chain(std::mem::take(args)).collect())
            }
        }
    };
    Ok(())
}
