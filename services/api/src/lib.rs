//! The HTTP data API: DQL statements as requests. `POST /{app}/api/v4/store/execute` is strict, `/api/v5/…` is not; several
//! statements at once are `POST /{app}/api/v1/transaction`; `find`, `findbyid`, `count` and `write` are the older endpoints.
//! Attachments lie beside documents ([`attachments`]).
//!
//! # Consistency
//! A statement reads one snapshot. A mutation is one transaction: it is answered when the log has it durably and this
//! process's own store shows it, so the next read sees it. What it decided on is checked by the log at the append, and the
//! statement runs again on a newer snapshot when it changed meanwhile.
//!
//! # Crash safety
//! The process keeps nothing: its site is new after every start, so no sequence number is ever used for two things.

mod active;
mod attachments;
mod body;
mod columns;
mod computing;
mod envelope;
mod execute;
mod legacy;
mod metrics;
mod openapi;
mod read;
mod routes;
mod rules;
mod sequencer;
mod settings;
mod statements;
mod system;
#[cfg(test)]
mod tests;
mod transaction;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bigpeer_chassis::{Catalogue, SystemCollections, TurnLimits, Turns};
use bigpeer_log::TransactionLog;
use bigpeer_tables::Stores;
use bigpeer_types::{Clock, IdGenerator};
use tokio::runtime::Handle;

pub use attachments::expire_uploads;
pub use columns::ColumnScans;
pub use openapi::description as openapi;
pub use settings::{ApiSettings, AttachmentSettings};

use active::ActiveRequests;
use rules::CompiledRules;
use sequencer::Writers;
use statements::Statements;

/// What the routes need.
#[derive(Clone)]
pub struct ApiContext {
    /// Who may do what.
    pub catalogue: Arc<Catalogue>,
    /// Where writes go.
    pub log: Arc<dyn TransactionLog>,
    /// Where reads come from.
    pub stores: Arc<dyn Stores>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where ids of documents come from.
    pub ids: Arc<dyn IdGenerator>,
    /// What answers large scans from columns; none: all are answered from documents.
    pub columns: Option<Arc<dyn ColumnScans>>,
    /// Where scans and work on many documents are done: threads of a runtime of their own, so that nobody waits behind them who
    /// asks for little.
    pub threads: Handle,
    /// System collections that other roles fill.
    pub system: SystemCollections,
    /// Limits.
    pub settings: ApiSettings,
}

impl std::fmt::Debug for ApiContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiContext").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The context and what the routes share while they run.
struct Api {
    context: ApiContext,
    writers: Writers,
    /// Room for statements.
    turns: Turns,
    /// Turns of what computes for long.
    computing: Turns,
    statements: Statements,
    rules: CompiledRules,
    active: ActiveRequests,
    /// Attachments that are received at once.
    uploads: Turns,
}

/// The routes of the data API.
pub fn router(context: ApiContext) -> Router {
    let writers = Writers::new(Arc::clone(&context.log), Arc::clone(&context.catalogue), Arc::clone(&context.clock));
    let settings = &context.settings;
    let turns = Turns::new(TurnLimits {
        running: settings.max_concurrent_statements,
        waiting: settings.max_waiting_statements,
        patience: settings.turn_wait,
    });
    let computing = computing::turns(settings.statement_timeout);
    let running = settings.attachments.max_concurrent_uploads;
    let uploads = Turns::new(TurnLimits { running, waiting: 0, patience: Duration::ZERO });
    let api = Api {
        context,
        writers,
        turns,
        computing,
        statements: Statements::default(),
        rules: CompiledRules::default(),
        active: ActiveRequests::default(),
        uploads,
    };
    let api = Arc::new(api);
    let router = routes::all().into_iter().fold(Router::new(), |router, route| router.route(route.path, route.handler));
    router.merge(attachments::routes()).with_state(api)
}
