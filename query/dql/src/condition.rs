//! Conditions on objects that are no documents: the claims of a caller.

use bigpeer_crdt::Object;

use crate::ast::Expr;
use crate::error::DqlError;
use crate::eval::compile::Compiler;
use crate::eval::schema::Schema;
use crate::eval::{Env, Row, Truth, full_tank};

/// A condition that can be asked of any object.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition(Expr);

impl Condition {
    /// A condition without parameters.
    ///
    /// # Errors
    /// Says where it is wrong.
    pub fn parse(text: &str) -> Result<Self, DqlError> {
        let expr = crate::parse_expr(text)?;
        if let Some(name) = expr.parameter() {
            return Err(DqlError::new(format!("The parameter :{} has no value", crate::error::shown(name))));
        }
        Compiler::new(&Schema::default()).node(&expr)?;
        Ok(Self(expr))
    }

    /// Whether it is true of the object; none when that takes too long to find out.
    #[must_use]
    pub fn holds(&self, object: &Object) -> Option<bool> {
        let schema = Schema::default();
        let node = Compiler::new(&schema).node(&self.0).ok()?;
        let fuel = full_tank();
        let truth = node.truth(Env::new(Row::Object(object), &fuel));
        (fuel.get() > 0).then_some(truth == Truth::True)
    }
}

#[cfg(test)]
mod tests {
    use bigpeer_crdt::Value;

    use super::*;

    #[test]
    fn a_condition_is_asked_of_an_object() {
        let json = serde_json::json!({"team": "red", "level": 3, "tags": ["a"], "deep": {"er": true}});
        let Ok(Value::Object(object)) = Value::from_json(json) else { panic!("an object") };
        for (text, expected) in [
            ("team = 'red' AND level > 2", true),
            ("team = 'blue'", false),
            ("deep.er", true),
            ("nobody = 1", false),
            ("NOT nobody = 1", false),
            ("nobody IS MISSING", true),
            ("'a' IN tags", true),
            ("level", false),
        ] {
            assert_eq!(Condition::parse(text).unwrap().holds(&object), Some(expected), "{text}");
        }
        for bad in ["", "team =", "team = :x", "a; b", "COUNT(*) > 1"] {
            assert!(Condition::parse(bad).is_err(), "{bad}");
        }
    }
}
