//! Statements by their text: clients send the same ones again and again, with other arguments. What a text parses to never
//! changes, so nothing has to be thrown away but for room.

use std::sync::Arc;

use bigpeer_chassis::Recent;
use bigpeer_dql::{DqlError, Statement, parse};

/// Longest statement that is kept, in bytes: longer ones have their values in them, and do not come again.
const MAX_TEXT: usize = 2048;

/// Most statements that are kept, twice.
const MAX_STATEMENTS: usize = 1024;

/// Parsed statements.
#[derive(Debug, Default)]
pub(crate) struct Statements(Recent<Box<str>, Arc<Statement>>);

impl Statements {
    /// What `text` parses to.
    ///
    /// # Errors
    /// Those of [`parse`].
    pub(crate) fn parse(&self, text: &str) -> Result<Arc<Statement>, DqlError> {
        if text.len() > MAX_TEXT {
            return parse(text).map(Arc::new);
        }
        if let Some(known) = self.0.get(text) {
            return Ok(known);
        }
        let statement = Arc::new(parse(text)?);
        self.0.add(text.into(), Arc::clone(&statement), MAX_STATEMENTS);
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_means_the_same_the_second_time_and_errors_are_not_kept() {
        let statements = Statements::default();
        let first = statements.parse("SELECT * FROM c WHERE x = :x").unwrap();
        assert!(Arc::ptr_eq(&first, &statements.parse("SELECT * FROM c WHERE x = :x").unwrap()));
        let error = statements.parse("SELECT FROM").unwrap_err();
        assert_eq!(statements.parse("SELECT FROM").unwrap_err(), error);
        let long = format!("SELECT * FROM c WHERE x = '{}'", "x".repeat(MAX_TEXT));
        assert!(!Arc::ptr_eq(&statements.parse(&long).unwrap(), &statements.parse(&long).unwrap()));
    }
}
