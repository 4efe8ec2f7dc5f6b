//! In which SQL a query is written, and what the app is called in it.

use bigpeer_types::AppId;
use datafusion::config::Dialect;
use datafusion::sql::sqlparser::dialect::{Dialect as Syntax, GenericDialect, PostgreSqlDialect};

/// The SQL of a door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// Ours: an app is a schema of the catalogue `bigpeer`.
    #[default]
    Own,
    /// What PostgreSQL's clients speak: an app is a database, its collections are in the schema `public`, and there is a
    /// `pg_catalog`.
    Postgres,
}

impl Language {
    /// The name of the only catalogue.
    pub(crate) fn catalogue(self, app: &AppId) -> &str {
        match self {
            Self::Own => "bigpeer",
            Self::Postgres => app.as_str(),
        }
    }

    /// The name of the schema that holds the app's collections.
    pub(crate) fn schema(self, app: &AppId) -> &str {
        match self {
            Self::Own => app.as_str(),
            Self::Postgres => "public",
        }
    }

    pub(crate) const fn dialect(self) -> Dialect {
        match self {
            Self::Own => Dialect::Generic,
            Self::Postgres => Dialect::PostgreSQL,
        }
    }

    pub(crate) fn syntax(self) -> Box<dyn Syntax> {
        match self {
            Self::Own => Box::new(GenericDialect {}),
            Self::Postgres => Box::new(PostgreSqlDialect {}),
        }
    }
}
