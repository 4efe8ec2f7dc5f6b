//! The admin API's one door: a list of routes, each with what it asks of its caller, and the guard that stands before all of
//! them. A handler behind it cannot be reached by who may not, and nothing that it does goes unrecorded.
//!
//! A route says what it asks ([`Asks`]), and its handler takes what was proven ([`AskedApp`], [`AskedTenant`],
//! [`Administrator`]): without the guard there is nothing to take, and the handler is not reached.

mod asked;
mod guard;
mod page;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::Value;

pub use asked::{AskedApp, AskedTenant};
pub use guard::Concerns;
pub use page::{MAX_PAGE, Page, Paged, Query};

use crate::Catalogue;
use guard::Guard;

/// What a route asks of who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// An operator: it is about the whole server.
    Operator,
    /// Who administers the tenant that the path names as `{tenant}`.
    Tenant,
    /// Who administers the app that the path names as `{app}`, or as `{tenant}` and `{name}`.
    App,
    /// An operator, or who administers some tenant: the handler gives each only what is theirs.
    Tenants,
    /// Any administrator: the handler gives each only what is theirs.
    Anyone,
    /// Nobody in particular.
    Nothing,
}

/// What is said of a route.
#[derive(Clone, Debug)]
pub struct Described {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: &'static str,
    /// What it asks of who comes.
    pub asks: Asks,
    /// What it does, in a line.
    pub summary: &'static str,
    /// What can be in its query, as OpenAPI has parameters: name and schema.
    pub query: Vec<(&'static str, Value)>,
    /// The schema of its body, if it takes one.
    pub body: Option<Value>,
    /// Its answers that are no refusals: status, and schema if there is a body.
    pub answers: Vec<(u16, Option<Value>)>,
    /// The media type besides JSON in which it answers where that is asked for.
    pub also: Option<&'static str>,
}

/// A route of the admin API.
#[derive(Debug)]
pub struct AdminRoute<S> {
    described: Described,
    handler: MethodRouter<S>,
}

impl<S: Clone + Send + Sync + 'static> AdminRoute<S> {
    fn new<H: Handler<T, S>, T: 'static>(method: Method, path: &'static str, asks: Asks, handler: H) -> Self {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE);
        let described = Described {
            method,
            path,
            asks,
            summary: "",
            query: Vec::new(),
            body: None,
            answers: Vec::new(),
            also: None,
        };
        Self { described, handler: on(filter, handler) }
    }

    /// Answers to `GET`, and changes nothing.
    pub fn get<H: Handler<T, S>, T: 'static>(path: &'static str, asks: Asks, handler: H) -> Self {
        Self::new(Method::GET, path, asks, handler)
    }

    /// Answers to `PUT`.
    pub fn put<H: Handler<T, S>, T: 'static>(path: &'static str, asks: Asks, handler: H) -> Self {
        Self::new(Method::PUT, path, asks, handler)
    }

    /// Answers to `POST`.
    pub fn post<H: Handler<T, S>, T: 'static>(path: &'static str, asks: Asks, handler: H) -> Self {
        Self::new(Method::POST, path, asks, handler)
    }

    /// Answers to `DELETE`, with 204 where nothing else is said.
    pub fn delete<H: Handler<T, S>, T: 'static>(path: &'static str, asks: Asks, handler: H) -> Self {
        Self::new(Method::DELETE, path, asks, handler).answers(204, None)
    }

    /// Says what it does.
    #[must_use]
    pub fn says(mut self, summary: &'static str) -> Self {
        self.described.summary = summary;
        self
    }

    /// Says what its body is.
    #[must_use]
    pub fn takes(mut self, schema: Value) -> Self {
        self.described.body = Some(schema);
        self
    }

    /// Says what can be in its query.
    #[must_use]
    pub fn queried(mut self, parameters: Vec<(&'static str, Value)>) -> Self {
        self.described.query.extend(parameters);
        self
    }

    /// Says what it answers.
    #[must_use]
    pub fn answers(mut self, status: u16, schema: Option<Value>) -> Self {
        self.described.answers.push((status, schema));
        self
    }

    /// Says that it answers in this media type, too.
    #[must_use]
    pub fn also(mut self, media_type: &'static str) -> Self {
        self.described.also = Some(media_type);
        self
    }

    /// What is said of it.
    #[must_use]
    pub const fn described(&self) -> &Described {
        &self.described
    }
}

/// The routes behind the guard: the only way to serve them.
pub fn admin_router<S: Clone + Send + Sync + 'static>(
    catalogue: &Arc<Catalogue>,
    routes: Vec<AdminRoute<S>>,
    state: S,
) -> Router {
    let mut router = Router::new();
    for AdminRoute { described: Described { method, path, asks, .. }, handler } in routes {
        let guard = Guard { catalogue: Arc::clone(catalogue), asks, changes: method != Method::GET };
        let handler = match asks {
            Asks::Nothing => handler,
            Asks::Operator | Asks::Tenant | Asks::App | Asks::Tenants | Asks::Anyone => {
                handler.route_layer(from_fn_with_state(guard, guard::stand))
            }
        };
        router = router.route(path, handler);
    }
    router.with_state(state)
}
