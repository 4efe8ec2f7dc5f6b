//! What is printed parses to what was printed.

use bigpeer_dql::{parse, parse_expr};
use proptest::prelude::*;

use super::strategies::{expr, statement};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn an_expression_parses_to_itself(expr in expr()) {
        let text = expr.to_string();
        prop_assert_eq!(parse_expr(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?, expr, "{}", text);
    }

    #[test]
    fn a_statement_parses_to_itself(statement in statement()) {
        let text = statement.to_string();
        prop_assert_eq!(parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?, statement, "{}", text);
    }
}
