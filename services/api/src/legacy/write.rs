//! `write`: commands, in their order, as one serializable transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use bigpeer_chassis::{ApiError, ErrorCode};
use bigpeer_crdt::{Object, Value};
use bigpeer_dql::ast::{
    ConflictPolicy, CounterOp, Delete, Expr, FieldType, Insert, InsertInput, Order, Statement, TypeDef, Update,
};
use bigpeer_dql::{Mode, parse_legacy_path};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{bad, failure, filter, source};
use crate::Api;
use crate::body::{self, Format};
use crate::envelope::{QueryType, refused};
use crate::execute::{Caller, Timed, arguments};
use crate::transaction::{Failed, Isolation};

/// Most commands of one request.
const MAX_COMMANDS: usize = 1000;

#[derive(Debug, Deserialize)]
struct WriteRequest {
    commands: Vec<Command>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
enum Command {
    #[serde(rename_all = "camelCase")]
    Upsert {
        collection: String,
        value: Json,
        id: Option<Json>,
        value_type_overrides: Option<BTreeMap<String, TypeOverride>>,
    },
    Update {
        collection: String,
        query: String,
        args: Option<Json>,
        commands: Vec<FieldCommand>,
    },
    Remove {
        collection: String,
        query: String,
        args: Option<Json>,
    },
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TypeOverride {
    Counter,
    Register,
    Attachment,
}

#[derive(Debug, Deserialize)]
struct FieldCommand {
    method: FieldMethod,
    path: String,
    value: Json,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum FieldMethod {
    Set,
    SetAttachment,
    Increment,
    ReplaceWithCounter,
}

#[derive(Serialize)]
struct WriteResponse {
    results: Vec<CommandResult>,
}

#[derive(Serialize)]
#[serde(tag = "method", rename_all = "lowercase")]
enum CommandResult {
    #[serde(rename_all = "camelCase")]
    Upsert {
        transaction_id: u64,
        /// Of the document, also when it was made up.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<Value>,
    },
    #[serde(rename_all = "camelCase")]
    Update { transaction_id: u64, updated: usize, error: usize },
    #[serde(rename_all = "camelCase")]
    Remove { transaction_id: u64, deleted: usize },
}

/// Which result a command has.
#[derive(Clone, Copy)]
enum Method {
    Upsert,
    Update,
    Remove,
}

/// Commands that write.
pub(crate) async fn write(State(api): State<Arc<Api>>, Path(app): Path<String>, request: Request) -> Response {
    let (api, format) = (&*api, Format::accepted(request.headers()));
    let timed = Timed::start(api);
    let result = timed.within(written(api, &app, request)).await;
    timed
        .end(result, QueryType::Mutation, |(body, transaction_id)| {
            format.answer(&body, Some(transaction_id), api.context.settings.max_answer_bytes)
        })
        .unwrap_or_else(failure)
}

async fn written(api: &Api, app: &str, request: Request) -> Result<(WriteResponse, u64), ApiError> {
    let caller = Caller::of(api, app, request.headers())?;
    let body: WriteRequest = body::read(request).await?;
    let count = body.commands.len();
    if count == 0 || count > MAX_COMMANDS {
        return Err(bad(format!("'commands' must be a list of 1 to {MAX_COMMANDS} commands, not {count}")));
    }
    let _running = caller.running(api, &format!("{count} commands"));
    let numbered = |at: usize, error: ApiError| {
        let message = format!("command {} of {count}: {}; nothing was written", at + 1, error.message);
        ApiError { message, ..error }
    };
    let (mut plans, mut methods) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (at, command) in body.commands.into_iter().enumerate() {
        let translated = statement(command).and_then(|(method, statement, args)| {
            methods.push(method);
            caller.bind(api, statement, &args, Mode { strict: false })
        });
        plans.push(translated.map_err(|error| numbered(at, error))?);
    }
    let turn = caller.turn(api).await?;
    let committed = turn.session(api, &caller).run(&plans, Isolation::Serializable).await;
    let committed = committed.map_err(|failed| match failed {
        Failed { statement: Some(at), error } => numbered(at, error),
        Failed { statement: None, error } => error,
    })?;
    let transaction_id = committed.transaction_id;
    let results = methods.into_iter().zip(committed.answers).map(|(method, answer)| match method {
        Method::Upsert => CommandResult::Upsert { transaction_id, id: answer.mutated.into_iter().next() },
        Method::Update => CommandResult::Update { transaction_id, updated: answer.mutated.len(), error: 0 },
        Method::Remove => CommandResult::Remove { transaction_id, deleted: answer.mutated.len() },
    });
    Ok((WriteResponse { results: results.collect() }, transaction_id))
}

/// A command as a statement of DQL.
fn statement(command: Command) -> Result<(Method, Statement, Object), ApiError> {
    Ok(match command {
        Command::Upsert { collection, value, id, value_type_overrides } => {
            (Method::Upsert, upsert(&collection, value, id, value_type_overrides.unwrap_or_default())?, Object::new())
        }
        Command::Update { collection, query, args, commands } => {
            (Method::Update, update(&collection, &query, commands)?, arguments(args)?)
        }
        Command::Remove { collection, query, args } => {
            let (source, filter) = (source(&collection)?, filter(&query)?);
            let delete = Delete { source, filter, order: Order::default(), returning: Vec::new() };
            (Method::Remove, Statement::Delete(delete), arguments(args)?)
        }
    })
}

fn value(what: &str, json: Json) -> Result<Value, ApiError> {
    Value::from_json(json).map_err(|error| bad(format!("'{what}' cannot be taken: {error}")))
}

fn path(text: &str) -> Result<Vec<String>, ApiError> {
    parse_legacy_path(text).map_err(|error| refused(&error))
}

fn upsert(
    collection: &str,
    document: Json,
    id: Option<Json>,
    overrides: BTreeMap<String, TypeOverride>,
) -> Result<Statement, ApiError> {
    let Value::Object(mut document) = value("value", document)? else {
        return Err(bad("'value' must be an object: the document"));
    };
    match id {
        None | Some(Json::Null) => {}
        Some(id) => _ = document.insert("_id", value("id", id)?),
    }
    let mut source = source(collection)?;
    for (field, kind) in overrides {
        let kind = match kind {
            TypeOverride::Counter => FieldType::Counter,
            TypeOverride::Register => FieldType::Register,
            TypeOverride::Attachment => FieldType::Attachment,
        };
        source.types.push(TypeDef { path: path(&field)?, kind });
    }
    Ok(Statement::Insert(Insert {
        source,
        input: InsertInput::Documents(vec![Expr::Literal(Value::Object(document))]),
        conflict: ConflictPolicy::DoUpdate,
        returning: Vec::new(),
    }))
}

fn update(collection: &str, query: &str, commands: Vec<FieldCommand>) -> Result<Statement, ApiError> {
    if commands.is_empty() {
        return Err(bad("'commands' of an update must say at least one change"));
    }
    let mut update = Update {
        source: source(collection)?,
        apply: Vec::new(),
        set: Vec::new(),
        unset: Vec::new(),
        filter: filter(query)?,
        returning: Vec::new(),
    };
    for FieldCommand { method, path: field, value: given } in commands {
        let (field, given) = (path(&field)?, value("value", given)?);
        match method {
            FieldMethod::Set => update.set.push((field, Expr::Literal(given))),
            FieldMethod::SetAttachment => {
                update.source.types.push(TypeDef { path: field.clone(), kind: FieldType::Attachment });
                update.set.push((field, Expr::Literal(given)));
            }
            FieldMethod::Increment => {
                let by = whole(given)?;
                update.apply.push((field, CounterOp::Increment(Expr::Literal(by))));
            }
            FieldMethod::ReplaceWithCounter => {
                // Anything that is no number begins at 0.
                let with = whole(given).unwrap_or(Value::Int(0));
                update.apply.push((field, CounterOp::Restart(Some(Expr::Literal(with)))));
            }
        }
    }
    Ok(Statement::Update(update))
}

/// A number without a fraction, also when it is written with one: clients of JavaScript know no integers.
fn whole(value: Value) -> Result<Value, ApiError> {
    match value {
        Value::Int(_) => Ok(value),
        #[allow(clippy::cast_possible_truncation, reason = "checked")]
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => Ok(Value::Int(number as i64)),
        Value::Null
        | Value::Bool(_)
        | Value::UInt(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Array(_)
        | Value::Object(_) => {
            Err(ApiError::new(ErrorCode::BadRequest, "'value' of an increment must be a whole number"))
        }
    }
}
