//! The routes: authenticate, parse, bind, wait for the transaction that the caller names, run, answer in the envelope.

use std::sync::Arc;

use axum::extract::{FromRequest, Path, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bigpeer_chassis::{ApiError, ErrorCode, Json, Permissions, app_of};
use bigpeer_crdt::{Object, Value};
use bigpeer_dql::{Mode, Plan, SelectPlan, parse};
use bigpeer_tables::DocumentStore;
use bigpeer_types::AppId;
use bigpeer_types::limits::MAX_STATEMENT_BYTES;

use crate::envelope::{Answer, QueryRequest, QueryType, failure, refused};
use crate::read::{Wanted, feed};
use crate::rules::Allowed;
use crate::write::{MutationPlan, Rights, mutate};
use crate::{Api, metrics};

const TRANSACTION_ID: &str = "x-ditto-txn-id";

pub(crate) async fn v4(State(api): State<Arc<Api>>, Path(app): Path<String>, request: Request) -> Response {
    answer(&api, &app, request, Mode { strict: true }).await
}

pub(crate) async fn v5(State(api): State<Arc<Api>>, Path(app): Path<String>, request: Request) -> Response {
    answer(&api, &app, request, Mode { strict: false }).await
}

async fn answer(api: &Api, app: &str, request: Request, mode: Mode) -> Response {
    let started = api.context.clock.monotonic();
    let mut query_type = QueryType::Unknown;
    let timeout = api.context.settings.statement_timeout;
    let result = match tokio::time::timeout(timeout, execute(api, app, request, mode, &mut query_type)).await {
        Ok(result) => result,
        Err(_) => Err(too_slow(query_type, timeout)),
    };
    let seconds = api.context.clock.monotonic().saturating_sub(started).as_secs_f64();
    let outcome = result.as_ref().err().map_or("ok", |error| error.code.as_str());
    metrics::statement(query_type.as_str(), outcome, seconds);
    let max_bytes = api.context.settings.max_answer_bytes;
    result
        .and_then(|answer| answer.into_response(query_type, max_bytes))
        .unwrap_or_else(|error| failure(query_type, error))
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

async fn execute(
    api: &Api,
    app: &str,
    request: Request,
    mode: Mode,
    query_type: &mut QueryType,
) -> Result<Answer, ApiError> {
    let app = app_of(app)?;
    let principal = api.context.catalogue.authenticate(&app, request.headers())?;
    let wait_for = transaction_id(request.headers())?;
    let Json(body) = <Json<QueryRequest> as FromRequest<()>>::from_request(request, &()).await?;
    let plan = bind(api, body, mode, query_type)?;
    let _slot = api.slots.acquire().await.map_err(|error| ApiError::internal(&error))?;
    let not_open = || ApiError::new(ErrorCode::Unavailable, "this app is still being opened; try again");
    let store = api.context.stores.store(&app).ok_or_else(not_open)?;
    if let Some(version) = wait_for {
        wait(api, &store, version).await?;
    }
    let permissions = principal.permissions();
    match plan {
        Plan::Select(plan) => select(api, &store, plan, &permissions).await,
        Plan::Insert(plan) => write(api, &app, &store, MutationPlan::Insert(plan), &permissions).await,
        Plan::Update(plan) => write(api, &app, &store, MutationPlan::Update(plan), &permissions).await,
        Plan::Delete(plan) => write(api, &app, &store, MutationPlan::Delete(plan), &permissions).await,
        Plan::Explain(items) => {
            Ok(Answer { transaction_id: store.snapshot().lsn().version, items, ..Answer::default() })
        }
        Plan::Evict(_) => {
            let message = "EVICT makes a Small Peer forget; the server forgets nothing; use DELETE";
            Err(ApiError::new(ErrorCode::InvalidStatement, message))
        }
    }
}

fn bind(api: &Api, body: QueryRequest, mode: Mode, query_type: &mut QueryType) -> Result<Plan, ApiError> {
    if body.statement.len() > MAX_STATEMENT_BYTES {
        let message = format!(
            "the statement is longer than {MAX_STATEMENT_BYTES} bytes; pass documents as args, with :parameters"
        );
        return Err(ApiError::new(ErrorCode::TooLarge, message));
    }
    let statement = parse(&body.statement).map_err(|error| refused(&error))?;
    *query_type = statement.query_type().into();
    let args = match body.args {
        None | Some(serde_json::Value::Null) => Object::new(),
        Some(json @ serde_json::Value::Object(_)) => object(json)?,
        Some(_) => {
            let message = "'args' must be an object of parameters, such as {\"color\": \"blue\"} for :color";
            return Err(ApiError::new(ErrorCode::BadRequest, message));
        }
    };
    statement.bind(&args, mode, api.context.ids.as_ref()).map_err(|error| refused(&error))
}

fn object(json: serde_json::Value) -> Result<Object, ApiError> {
    // Each argument by itself, so that an object that stands for something else (bytes) is not taken for the arguments.
    let serde_json::Value::Object(map) = json else { return Ok(Object::new()) };
    map.into_iter()
        .map(|(name, json)| {
            let value = Value::from_json(json).map_err(|error| {
                ApiError::new(ErrorCode::BadRequest, format!("the argument '{name}' cannot be taken: {error}"))
            })?;
            Ok((name, value))
        })
        .collect()
}

fn transaction_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(TRANSACTION_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let message = "X-DITTO-TXN-ID must be a transaction id, a number from an earlier answer's transactionId";
    id.map(Some).ok_or_else(|| ApiError::new(ErrorCode::BadRequest, message))
}

async fn wait(api: &Api, store: &DocumentStore, version: u64) -> Result<(), ApiError> {
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

async fn select(
    api: &Api,
    store: &DocumentStore,
    plan: SelectPlan,
    permissions: &Permissions,
) -> Result<Answer, ApiError> {
    let ids = api.context.ids.as_ref();
    let readable = Arc::new(Allowed::compile(&permissions.read, plan.collection(), "read", ids)?);
    let wanted = Wanted { collection: plan.collection().clone(), ids: plan.ids(), conditions: plan.conditions() };
    let snapshot = store.snapshot();
    let run = feed(plan.run(), &snapshot, wanted, &readable).await?;
    let rows = tokio::task::spawn_blocking(move || run.finish()).await;
    let items = rows.map_err(|error| ApiError::internal(&error))?.map_err(|error| refused(&error))?;
    Ok(Answer { transaction_id: snapshot.lsn().version, items, ..Answer::default() })
}

async fn write(
    api: &Api,
    app: &AppId,
    store: &DocumentStore,
    plan: MutationPlan,
    permissions: &Permissions,
) -> Result<Answer, ApiError> {
    let (collection, ids) = (plan.collection(), api.context.ids.as_ref());
    let write = Allowed::compile(&permissions.write, collection, "write", ids)?;
    let read = match plan {
        // Nothing is read that the caller did not name.
        MutationPlan::Insert(_) => Allowed::Everything,
        MutationPlan::Update(_) | MutationPlan::Delete(_) => {
            Allowed::compile(&permissions.read, collection, "read", ids)?
        }
    };
    mutate(api, app, store, plan, &Rights { read: Arc::new(read), write }).await
}
