//! `ApiDataSource`: looks up what somebody else made.

use std::sync::Arc;

use async_trait::async_trait;
use tf_provider::schema::Schema;
use tf_provider::value::ValueEmpty;
use tf_provider::{DataSource, Diagnostics};

use crate::connection::Connection;
use crate::field::schema;
use crate::kinds::Kind;
use crate::mapping::state;
use crate::resource::path;
use crate::rules::problems;
use crate::value::{Val, as_map, object};

/// A kind of resource, on a server, to be read.
#[derive(Debug)]
pub(crate) struct ApiDataSource {
    pub(crate) kind: Arc<Kind>,
    pub(crate) connection: Connection,
}

#[async_trait]
impl DataSource for ApiDataSource {
    type State<'a> = Val;
    type ProviderMetaState<'a> = ValueEmpty;

    fn schema(&self, _diags: &mut Diagnostics) -> Option<Schema> {
        Some(schema(&self.kind.fields, self.kind.doc, true))
    }

    async fn validate<'a>(&self, diags: &mut Diagnostics, config: Val) -> Option<()> {
        for problem in as_map(&config).map(|config| problems(&self.kind, config)).unwrap_or_default() {
            diags.error("There can be none", problem.message, problem.path);
        }
        Some(())
    }

    async fn read<'a>(&self, diags: &mut Diagnostics, config: Val, _meta: ValueEmpty) -> Option<Val> {
        let client = self.connection.client(diags)?;
        let config = as_map(&config)?;
        let at = path(&self.kind, config)?;
        match client.get(&at).await {
            Ok(Some(answer)) => Some(object(state(&self.kind.fields, &(self.kind.from_api)(answer), config))),
            Ok(None) => {
                diags.root_error_short(format!("There is no such {} ({})", self.kind.name, at.join("/")));
                None
            }
            Err(failure) => {
                diags.root_error(format!("A {} cannot be read", self.kind.name), failure.to_string());
                None
            }
        }
    }
}
