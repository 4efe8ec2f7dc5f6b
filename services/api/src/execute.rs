//! `/store/execute` and `/transaction`: authenticate, parse, bind, wait for the transaction that the caller names, run, answer.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bigpeer_chassis::{ApiError, Asker, Door, ErrorCode, NoTurn, Permissions, app_of, current_request_id};
use bigpeer_crdt::{Object, Value};
use bigpeer_dql::{Mode, Moment, Plan, Statement};
use bigpeer_tables::DocumentStore;
use bigpeer_types::AppId;
use bigpeer_types::limits::MAX_STATEMENT_BYTES;
use serde::{Deserialize, Serialize};

use crate::active::Running;
use crate::body::{self, Format};
use crate::computing::Computing;
use crate::envelope::{Answer, QueryRequest, QueryResponse, QueryType, failure, refused};
use crate::transaction::{Failed, Isolation, Session};
use crate::{Api, metrics};

const TRANSACTION_ID: &str = "x-ditto-txn-id";

/// Most statements of one transaction.
const MAX_STATEMENTS: usize = 1000;

pub(crate) async fn v4(State(api): State<Arc<Api>>, Path(app): Path<String>, request: Request) -> Response {
    execute(&api, &app, request, Mode { strict: true }).await
}

pub(crate) async fn v5(State(api): State<Arc<Api>>, Path(app): Path<String>, request: Request) -> Response {
    execute(&api, &app, request, Mode { strict: false }).await
}

async fn execute(api: &Api, app: &str, request: Request, mode: Mode) -> Response {
    let format = Format::accepted(request.headers());
    let mut query_type = QueryType::Unknown;
    let timed = Timed::start(api);
    let result = timed.within(one(api, app, request, mode, &mut query_type)).await;
    timed
        .end(result, query_type, |answer| {
            format.answer(
                &answer.envelope(query_type),
                Some(answer.transaction_id),
                api.context.settings.max_answer_bytes,
            )
        })
        .unwrap_or_else(|error| failure(query_type, error))
}

async fn one(
    api: &Api,
    app: &str,
    request: Request,
    mode: Mode,
    query_type: &mut QueryType,
) -> Result<Answer, ApiError> {
    let caller = Caller::of(api, app, request.headers())?;
    let body: QueryRequest = body::read(request).await?;
    let _running = caller.running(api, &body.statement);
    let plan = caller.plan(api, body, mode, query_type)?;
    let turn = caller.turn(api).await?;
    let committed = turn.session(api, &caller).run(&[plan], Isolation::Statement).await;
    let committed = committed.map_err(|failed| failed.error)?;
    Ok(committed.answers.into_iter().next().unwrap_or_default())
}

/// Several statements.
#[derive(Debug, Deserialize)]
struct TransactionRequest {
    statements: Vec<QueryRequest>,
    /// As under `/api/v4`.
    #[serde(default)]
    strict: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TransactionResponse<'a> {
    transaction_id: u64,
    results: Vec<QueryResponse<'a>>,
}

/// Several statements as one serializable transaction.
pub(crate) async fn transaction(State(api): State<Arc<Api>>, Path(app): Path<String>, request: Request) -> Response {
    let (api, format) = (&*api, Format::accepted(request.headers()));
    let timed = Timed::start(api);
    let mut query_type = QueryType::Unknown;
    let result = timed.within(several(api, &app, request, &mut query_type)).await;
    timed
        .end(result, query_type, |(transaction_id, answers)| {
            let results = answers.iter().map(|(query_type, answer)| answer.envelope(*query_type)).collect();
            let body = TransactionResponse { transaction_id, results };
            format.answer(&body, Some(transaction_id), api.context.settings.max_answer_bytes)
        })
        .unwrap_or_else(IntoResponse::into_response)
}

async fn several(
    api: &Api,
    app: &str,
    request: Request,
    query_type: &mut QueryType,
) -> Result<(u64, Vec<(QueryType, Answer)>), ApiError> {
    let caller = Caller::of(api, app, request.headers())?;
    let body: TransactionRequest = body::read(request).await?;
    let count = body.statements.len();
    if count == 0 || count > MAX_STATEMENTS {
        let message = format!("'statements' must be a list of 1 to {MAX_STATEMENTS} statements, not {count}");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let numbered = |at: usize, error: ApiError| {
        let message = format!("statement {} of {count}: {}; nothing was written", at + 1, error.message);
        ApiError { message, ..error }
    };
    let _running = caller.running(api, &format!("a transaction of {count} statements"));
    let (mut plans, mut types) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (at, statement) in body.statements.into_iter().enumerate() {
        let mut of_this = QueryType::Unknown;
        let plan = caller.plan(api, statement, Mode { strict: body.strict }, &mut of_this);
        plans.push(plan.map_err(|error| numbered(at, error))?);
        types.push(of_this);
        if *query_type != QueryType::Mutation {
            *query_type = of_this;
        }
    }
    let turn = caller.turn(api).await?;
    let committed = turn.session(api, &caller).run(&plans, Isolation::Serializable).await;
    let committed = committed.map_err(|failed| match failed {
        Failed { statement: Some(at), error } => numbered(at, error),
        Failed { statement: None, error } => error,
    })?;
    Ok((committed.transaction_id, types.into_iter().zip(committed.answers).collect()))
}

/// A request's time, and how it is counted.
pub(crate) struct Timed<'a> {
    api: &'a Api,
    started: std::time::Duration,
}

impl<'a> Timed<'a> {
    pub(crate) fn start(api: &'a Api) -> Self {
        Self { api, started: api.context.clock.monotonic() }
    }

    /// The result; none when it took longer than it may.
    pub(crate) async fn within<T>(
        &self,
        run: impl Future<Output = Result<T, ApiError>>,
    ) -> Option<Result<T, ApiError>> {
        tokio::time::timeout(self.api.context.settings.statement_timeout, run).await.ok()
    }

    /// Counts it, and answers.
    pub(crate) fn end<T>(
        self,
        result: Option<Result<T, ApiError>>,
        query_type: QueryType,
        answer: impl FnOnce(T) -> Result<Response, ApiError>,
    ) -> Result<Response, ApiError> {
        let timeout = self.api.context.settings.statement_timeout;
        let result = result.unwrap_or_else(|| Err(too_slow(query_type, timeout))).and_then(answer);
        let seconds = self.api.context.clock.monotonic().saturating_sub(self.started).as_secs_f64();
        let outcome = result.as_ref().err().map_or("ok", |error| error.code.as_str());
        metrics::statement(query_type.as_str(), outcome, seconds);
        result
    }
}

fn too_slow(query_type: QueryType, timeout: std::time::Duration) -> ApiError {
    let seconds = timeout.as_secs_f64();
    let message = match query_type {
        QueryType::Mutation => format!(
            "the statement took longer than {seconds} s; it may have been carried out: look before you repeat it, and change fewer documents at once"
        ),
        QueryType::Select | QueryType::Unknown => {
            format!("the statement took longer than {seconds} s; narrow it with WHERE on _id or with LIMIT")
        }
    };
    ApiError::new(ErrorCode::Timeout, message)
}

/// Who asks, of which app, and what they want to see at least.
pub(crate) struct Caller {
    app: AppId,
    permissions: Arc<Permissions>,
    wait_for: Option<u64>,
    now_ms: u64,
    computing: Computing,
}

/// A statement's turn: there is room for it, and what it must see is visible.
pub(crate) struct Turn {
    store: Arc<DocumentStore>,
    _turn: bigpeer_chassis::Turn,
}

impl Turn {
    /// The newest transaction that is visible.
    pub(crate) fn version(&self) -> u64 {
        self.store.snapshot().lsn().version
    }

    pub(crate) fn session<'s>(&'s self, api: &'s Api, caller: &'s Caller) -> Session<'s> {
        Session {
            api,
            app: &caller.app,
            store: &self.store,
            permissions: &caller.permissions,
            computing: &caller.computing,
        }
    }
}

impl Caller {
    pub(crate) fn of(api: &Api, app: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let app = app_of(app)?;
        let principal = api.context.catalogue.authenticate(&app, Door::Data, headers)?;
        api.context.catalogue.admit(&app, &principal)?;
        Ok(Self {
            permissions: principal.permissions(),
            wait_for: transaction_id(headers)?,
            now_ms: api.context.clock.now_ms(),
            computing: Computing::new(api.computing.clone(), api.context.threads.clone(), app.clone()),
            app,
        })
    }

    /// Is shown as running while it is held.
    pub(crate) fn running<'a>(&self, api: &'a Api, text: &str) -> Running<'a> {
        api.active.start(&self.app, text, self.now_ms, current_request_id())
    }

    /// Waits for room, and for the transaction that the caller names.
    pub(crate) async fn turn(&self, api: &Api) -> Result<Turn, ApiError> {
        let turn = api.turns.take(Asker::new(self.app.clone())).await.map_err(busy)?;
        let not_open = || ApiError::new(ErrorCode::Unavailable, "this app is still being opened; try again");
        let store = api.context.stores.store(&self.app).ok_or_else(not_open)?;
        if let Some(version) = self.wait_for {
            wait(api, &store, version).await?;
        }
        Ok(Turn { store, _turn: turn })
    }

    fn plan(&self, api: &Api, body: QueryRequest, mode: Mode, query_type: &mut QueryType) -> Result<Plan, ApiError> {
        if body.statement.len() > MAX_STATEMENT_BYTES {
            let message = format!(
                "the statement is longer than {MAX_STATEMENT_BYTES} bytes; pass documents as args, with :parameters"
            );
            return Err(ApiError::new(ErrorCode::TooLarge, message));
        }
        let statement = api.statements.parse(&body.statement).map_err(|error| refused(&error))?;
        *query_type = statement.query_type().into();
        self.bind(api, Statement::clone(&statement), &arguments(body.args)?, mode)
    }

    /// A statement with its arguments, at the moment of the request.
    pub(crate) fn bind(&self, api: &Api, statement: Statement, args: &Object, mode: Mode) -> Result<Plan, ApiError> {
        let mut request: Object =
            [("app_id", Value::from(self.app.as_str())), ("start_time", Value::from(self.now_ms))]
                .into_iter()
                .collect();
        if let Some(id) = current_request_id() {
            request.insert("request_id", id);
        }
        let moment = Moment { now_ms: i64::try_from(self.now_ms).unwrap_or(i64::MAX), request };
        statement.bind_at(args, mode, api.context.ids.as_ref(), &moment).map_err(|error| refused(&error))
    }
}

/// What is said to a statement that there is no room for.
fn busy(none: NoTurn) -> ApiError {
    let (NoTurn::OfAll(most) | NoTurn::OfApp(most) | NoTurn::OfKey(most)) = none;
    let whose = if matches!(none, NoTurn::OfAll(_)) { "" } else { " of this app" };
    let message = format!("{most} statements{whose} are running, and others wait already; nothing was done; try again");
    ApiError::new(ErrorCode::TooManyRequests, message).retry_after(1)
}

/// The arguments of a statement.
pub(crate) fn arguments(args: Option<serde_json::Value>) -> Result<Object, ApiError> {
    match args {
        None | Some(serde_json::Value::Null) => Ok(Object::new()),
        // Each argument by itself, so that an object that stands for something else (bytes) is not taken for all of them.
        Some(serde_json::Value::Object(map)) => map
            .into_iter()
            .map(|(name, json)| {
                let value = Value::from_json(json).map_err(|error| {
                    ApiError::new(ErrorCode::BadRequest, format!("the argument '{name}' cannot be taken: {error}"))
                })?;
                Ok((name, value))
            })
            .collect(),
        Some(_) => {
            let message = "'args' must be an object of parameters, such as {\"color\": \"blue\"} for :color";
            Err(ApiError::new(ErrorCode::BadRequest, message))
        }
    }
}

pub(crate) fn transaction_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(TRANSACTION_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let message = "X-DITTO-TXN-ID must be a transaction id, a number from an earlier answer's transactionId";
    id.map(Some).ok_or_else(|| ApiError::new(ErrorCode::BadRequest, message))
}

pub(crate) async fn wait(api: &Api, store: &DocumentStore, version: u64) -> Result<(), ApiError> {
    let patience = api.context.settings.transaction_wait;
    match tokio::time::timeout(patience, store.wait_for_version(version)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(crate::read::failed(&error)),
        Err(_) => {
            let (seen, seconds) = (store.applied().version, patience.as_secs_f64());
            let message = format!(
                "the transaction {version} did not become visible within {seconds} s; the newest here is {seen}"
            );
            Err(ApiError::new(ErrorCode::NotFound, message))
        }
    }
}
