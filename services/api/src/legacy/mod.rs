//! The older endpoints: `find`, `findbyid`, `count` and `write`, in the older query language. Each is translated to a statement of
//! DQL, not strict, and run as one.

mod typed;
mod write;

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use bigpeer_chassis::{ApiError, ErrorCode, current_request_id};
use bigpeer_crdt::{DocId, Document, Object, Value};
use bigpeer_dql::ast::{AggregateKind, Delete, Expr, Order, OrderTerm, Projection, Select, Source, Statement};
use bigpeer_dql::{DeletePlan, Mode, Plan, parse_legacy, parse_legacy_path};
use bigpeer_types::CollectionName;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::Api;
use crate::body::{self, Format};
use crate::envelope::{QueryType, refused, with_body};
use crate::execute::{Caller, Timed, arguments};
use crate::system::is_virtual;
use crate::transaction::Isolation;

pub(crate) use write::write;

/// How many documents `find` returns when nothing is said.
const DEFAULT_LIMIT: u64 = 1000;
/// Most documents of one `find`.
const MAX_LIMIT: u64 = 100_000;

/// How values are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum SerializedAs {
    #[default]
    LatestValues,
    LatestValuesAndTypes,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FindRequest {
    collection: String,
    query: String,
    args: Option<Json>,
    limit: Option<u64>,
    offset: Option<u64>,
    sort: Option<Vec<Sort>>,
    serialized_as: Option<SerializedAs>,
    // Attachments are tokens either way.
    #[serde(rename = "formatAttachment")]
    _format_attachment: Option<bool>,
    describe: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Sort {
    property: String,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Direction {
    Asc,
    Desc,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FindByIdRequest {
    collection: String,
    id: Json,
    serialized_as: Option<SerializedAs>,
    #[serde(rename = "formatAttachment")]
    _format_attachment: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct CountRequest {
    collection: String,
    query: String,
    args: Option<Json>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FindResponse {
    documents: Vec<FoundDocument>,
    txn_id: u64,
}

#[derive(Serialize)]
struct FoundDocument {
    id: Value,
    fields: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FindByIdResponse {
    #[serde(flatten)]
    document: FoundDocument,
    txn_id: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CountResponse {
    count: Value,
    txn_id: u64,
}

/// `{"message": …}`, as these endpoints always had it, and what every error has.
#[derive(Serialize)]
struct RpcError<'a> {
    message: &'a str,
    code: ErrorCode,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<bigpeer_chassis::Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

fn failure(error: ApiError) -> Response {
    let body = RpcError {
        message: &error.message,
        code: error.code,
        position: error.position,
        request_id: current_request_id(),
    };
    let body = serde_json::to_vec(&body);
    with_body(error, body)
}

/// Documents of a query.
pub(crate) async fn find(State(api): State<Arc<Api>>, Path(app): Path<String>, request: Request) -> Response {
    respond(&api, Format::accepted(request.headers()), QueryType::Select, found(&api, &app, request)).await
}

/// One document.
pub(crate) async fn find_by_id(State(api): State<Arc<Api>>, Path(app): Path<String>, request: Request) -> Response {
    respond(&api, Format::accepted(request.headers()), QueryType::Select, found_by_id(&api, &app, request)).await
}

/// How many documents a query has.
pub(crate) async fn count(State(api): State<Arc<Api>>, Path(app): Path<String>, request: Request) -> Response {
    respond(&api, Format::accepted(request.headers()), QueryType::Select, counted(&api, &app, request)).await
}

async fn respond<T: Serialize>(
    api: &Api,
    format: Format,
    query_type: QueryType,
    run: impl Future<Output = Result<(T, u64), ApiError>>,
) -> Response {
    let timed = Timed::start(api);
    let result = timed.within(run).await;
    let answer = |(body, transaction_id): (T, u64)| {
        format.answer(&body, Some(transaction_id), api.context.settings.max_answer_bytes)
    };
    timed.end(result, query_type, answer).unwrap_or_else(failure)
}

async fn found(api: &Api, app: &str, request: Request) -> Result<(FindResponse, u64), ApiError> {
    let caller = Caller::of(api, app, request.headers())?;
    let body: FindRequest = body::read(request).await?;
    let _running = caller.running(api, &body.query);
    let limit = body.limit.unwrap_or(DEFAULT_LIMIT);
    if limit > MAX_LIMIT {
        let message = format!("'limit' is at most {MAX_LIMIT}; ask for the rest with 'offset', or use /sql");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let mut by = Vec::new();
    for Sort { property, direction } in body.sort.unwrap_or_default() {
        let path = parse_legacy_path(&property).map_err(|error| refused(&error))?;
        by.push(OrderTerm { expr: Expr::Path(path), descending: direction == Direction::Desc });
    }
    let number = |number: u64| Some(Expr::Literal(Value::from(number)));
    let order = Order { by, limit: number(limit), offset: body.offset.and_then(number) };
    let source = source(&body.collection)?;
    let delete = Delete { source, filter: filter(&body.query)?, order, returning: Vec::new() };
    let plan = documents_plan(&caller, api, delete, &arguments(body.args)?)?;
    if body.describe == Some(true) {
        let turn = caller.turn(api).await?;
        turn.session(api, &caller).may_read(plan.collection())?;
        let version = turn.version();
        return Ok((FindResponse { documents: vec![described(&plan)], txn_id: version }, version));
    }
    let turn = caller.turn(api).await?;
    let (found, txn_id) = turn.session(api, &caller).documents(plan).await?;
    let serialized_as = body.serialized_as.unwrap_or_default();
    let documents = found.iter().map(|(id, document)| found_document(id, document, serialized_as)).collect();
    Ok((FindResponse { documents, txn_id }, txn_id))
}

async fn found_by_id(api: &Api, app: &str, request: Request) -> Result<(FindByIdResponse, u64), ApiError> {
    let caller = Caller::of(api, app, request.headers())?;
    let body: FindByIdRequest = body::read(request).await?;
    let _running = caller.running(api, "findbyid");
    let id = Value::from_json(body.id).map_err(|error| bad(format!("'id' cannot be taken: {error}")))?;
    if id.is_null() {
        return Err(bad("'id' cannot be null"));
    }
    DocId::from_value(&id).map_err(|error| bad(format!("'id' is no document's id: {error}")))?;
    let source = source(&body.collection)?;
    let filter = Some(Expr::Binary(
        bigpeer_dql::ast::BinaryOp::Eq,
        Box::new(Expr::Path(vec!["_id".to_owned()])),
        Box::new(Expr::Literal(id)),
    ));
    let delete = Delete { source, filter, order: Order::default(), returning: Vec::new() };
    let plan = documents_plan(&caller, api, delete, &Object::new())?;
    let turn = caller.turn(api).await?;
    let (found, txn_id) = turn.session(api, &caller).documents(plan).await?;
    let Some((id, document)) = found.first() else {
        return Err(ApiError::new(ErrorCode::NotFound, "there is no document of this id in the collection"));
    };
    let document = found_document(id, document, body.serialized_as.unwrap_or_default());
    Ok((FindByIdResponse { document, txn_id }, txn_id))
}

async fn counted(api: &Api, app: &str, request: Request) -> Result<(CountResponse, u64), ApiError> {
    let caller = Caller::of(api, app, request.headers())?;
    let body: CountRequest = body::read(request).await?;
    let _running = caller.running(api, &body.query);
    let select = Select {
        distinct: false,
        projections: vec![Projection::Expr {
            expr: Expr::Aggregate { kind: AggregateKind::Count, distinct: false, arg: None },
            alias: Some("count".to_owned()),
        }],
        source: source(&body.collection)?,
        joins: Vec::new(),
        filter: filter(&body.query)?,
        group_by: Vec::new(),
        having: None,
        order: Order::default(),
    };
    let plan = caller.bind(api, Statement::Select(select), &arguments(body.args)?, Mode { strict: false })?;
    let turn = caller.turn(api).await?;
    let committed = turn.session(api, &caller).run(&[plan], Isolation::Statement).await;
    let committed = committed.map_err(|failed| failed.error)?;
    let row = committed.answers.first().and_then(|answer| answer.items.first()).and_then(Value::as_object);
    let count = row.and_then(|row| row.get("count")).cloned().unwrap_or(Value::Int(0));
    Ok((CountResponse { count, txn_id: committed.transaction_id }, committed.transaction_id))
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

/// The collection, as a statement's source.
fn source(collection: &str) -> Result<Source, ApiError> {
    let collection = CollectionName::new(collection).map_err(|error| bad(format!("'collection': {error}")))?;
    if is_virtual(&collection) {
        return Err(bad(format!("'{collection}' is the system's; read it with DQL, at /store/execute")));
    }
    Ok(Source { collection, types: Vec::new(), alias: None, ids: None })
}

/// WHERE of a query; `true` is all.
fn filter(query: &str) -> Result<Option<Expr>, ApiError> {
    let expr = parse_legacy(query).map_err(|error| refused(&error))?;
    Ok((expr != Expr::Literal(Value::Bool(true))).then_some(expr))
}

/// What finds documents and changes nothing.
fn documents_plan(caller: &Caller, api: &Api, delete: Delete, args: &Object) -> Result<DeletePlan, ApiError> {
    match caller.bind(api, Statement::Evict(delete), args, Mode { strict: false })? {
        Plan::Evict(plan) => Ok(plan),
        Plan::Select(_) | Plan::Insert(_) | Plan::Update(_) | Plan::Delete(_) | Plan::Explain(_) => {
            Err(ApiError::internal(&"EVICT became another plan"))
        }
    }
}

/// The pseudo document of `describe`.
fn described(plan: &DeletePlan) -> FoundDocument {
    let object = |key: &str, value: Value| Value::Object([(key, value)].into_iter().collect());
    let fields = match (plan.ids(), plan.conditions().first()) {
        (Some(_), _) => object("index_scan", object("path", Value::Array(vec!["_id".into()]))),
        // Every field's values are known per stored file: what can be left out is.
        (None, Some(condition)) => {
            let path = condition.path.iter().map(|key| Value::from(&**key)).collect();
            object("index_scan", object("path", Value::Array(path)))
        }
        (None, None) => object("full_scan", Value::Object(Object::new())),
    };
    FoundDocument { id: "query_details".into(), fields }
}

fn found_document(id: &DocId, document: &Document, serialized_as: SerializedAs) -> FoundDocument {
    let fields = match serialized_as {
        SerializedAs::LatestValues => Value::Object(document.to_object()),
        SerializedAs::LatestValuesAndTypes => typed::fields(document),
    };
    FoundDocument { id: id.to_value(), fields }
}
