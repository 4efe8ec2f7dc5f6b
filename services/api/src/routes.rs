//! The routes, each with its description: the one list that the router and the OpenAPI document are made of.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};
use serde_json::Value;

use crate::openapi::{self, Errors};
use crate::{Api, execute, legacy};

/// A path, what answers there, and what is said of it.
pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) handler: MethodRouter<Arc<Api>>,
    describe: Box<dyn Fn() -> Value>,
}

impl Route {
    pub(crate) fn new(
        path: &'static str,
        handler: MethodRouter<Arc<Api>>,
        describe: impl Fn() -> Value + 'static,
    ) -> Self {
        Self { path, handler, describe: Box::new(describe) }
    }

    /// Its operations, by method, as OpenAPI has them.
    pub(crate) fn describe(&self) -> Value {
        (self.describe)()
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Route> {
    let older = |path, handler, id: &'static str, summary: &'static str, name: &'static str| {
        Route::new(path, handler, move || {
            openapi::post(id, summary, &format!("{name}Request"), &format!("{name}Response"), Errors::Rpc)
        })
    };
    vec![
        Route::new("/{app}/api/v4/store/execute", post(execute::v4), || {
            let summary = "One statement of DQL, in strict mode";
            openapi::post("executeStrict", summary, "QueryRequest", "QueryResponse", Errors::Envelope)
        }),
        Route::new("/{app}/api/v5/store/execute", post(execute::v5), || {
            openapi::post("execute", "One statement of DQL", "QueryRequest", "QueryResponse", Errors::Envelope)
        }),
        Route::new("/{app}/api/v1/transaction", post(execute::transaction), || {
            let summary = "Several statements of DQL as one serializable transaction";
            openapi::post("transaction", summary, "TransactionRequest", "TransactionResponse", Errors::Plain)
        }),
        older("/{app}/api/v4/store/find", post(legacy::find), "find", "Documents of a query", "Find"),
        older("/{app}/api/v4/store/findbyid", post(legacy::find_by_id), "findById", "One document", "FindById"),
        older("/{app}/api/v4/store/count", post(legacy::count), "count", "How many documents a query has", "Count"),
        older("/{app}/api/v4/store/write", post(legacy::write), "write", "Commands, as one transaction", "Write"),
        Route::new("/{app}/api/v4/swagger.json", get(openapi::serve), openapi::get_description),
    ]
}
