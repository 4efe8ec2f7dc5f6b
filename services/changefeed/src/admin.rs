//! The admin API of feeds, for whoever has an admin token. `PUT` is idempotent; secrets are never answered.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json as Answer, Router};
use bigpeer_chassis::{ApiError, ErrorCode, Json, Name};
use bigpeer_feed_spec::{FeedSpec, SinkSpec};
use bigpeer_types::{AppId, CollectionName};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ChangefeedContext;
use crate::cursor::Cursor;
use crate::error::FeedError;
use crate::lens::Lens;
use crate::owner::NO_KAFKA;
use crate::reader::everything;
use crate::registry::{Asked, Entry, MAX_DEAD_LETTERS, Retention};
use crate::webhook::{self, Poster};

type Context = State<Arc<ChangefeedContext>>;

pub(crate) fn router() -> Router<Arc<ChangefeedContext>> {
    const FEED: &str = "/admin/v1/apps/{app}/feeds/{name}";
    let at = |rest: &str| format!("{FEED}{rest}");
    Router::new()
        .route("/admin/v1/apps/{app}/feeds", get(list))
        .route("/admin/v1/apps/{app}/feed-retention", get(get_retention).put(put_retention))
        .route(FEED, get(get_feed).put(put_feed).delete(delete_feed))
        .route(&at("/pause"), post(pause))
        .route(&at("/resume"), post(resume))
        .route(&at("/rewind"), post(rewind))
        .route(&at("/snapshot"), post(snapshot))
        .route(&at("/deliveries"), get(deliveries))
        .route(&at("/dead-letters"), get(dead_letters))
        .route(&at("/dead-letters/{id}"), get(dead_letter).delete(discard))
        .route(&at("/dead-letters/{id}/deliver"), post(redeliver))
}

fn refuse(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

fn no_feed(name: &Name) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("this app has no feed '{name}'"))
}

/// The app and the feed that an administrator names.
fn names(context: &ChangefeedContext, headers: &HeaderMap, app: &str, name: &str) -> Result<(AppId, Name), ApiError> {
    let app = app_of(context, headers, app)?;
    let name = name.parse().map_err(|error: bigpeer_chassis::NameError| refuse(error.to_string()))?;
    Ok((app, name))
}

fn app_of(context: &ChangefeedContext, headers: &HeaderMap, app: &str) -> Result<AppId, ApiError> {
    context.catalogue.authenticate_admin(headers)?;
    let unknown = || ApiError::new(ErrorCode::NotFound, "there is no app with this id");
    let id = AppId::new(app).map_err(|_| unknown())?;
    context.catalogue.app(&id).map(|app| app.id).ok_or_else(unknown)
}

/// A feed as it is answered.
async fn describe(context: &ChangefeedContext, app: &AppId, name: &Name, entry: &Entry) -> Result<Value, ApiError> {
    let feeds = &context.feeds;
    let checkpoint = feeds.registry.checkpoint(app, name).await?.map(|stored| stored.record).unwrap_or_default();
    let lag = feeds.lag(context, app, &checkpoint).await?;
    let known = feeds.status(app, name).map(|status| status.now());
    let dead = feeds.registry.dead_letters(app, name, None, MAX_DEAD_LETTERS).await?.len();
    #[allow(clippy::cast_precision_loss, reason = "milliseconds as seconds")]
    let seconds = lag.ms as f64 / 1000.0;
    Ok(json!({
        "app": app,
        "name": name,
        "spec": entry.spec.shown(),
        "state": if entry.paused.is_some() { "paused" } else { "running" },
        "pausedReason": entry.paused,
        "cursor": checkpoint.cursor,
        // Asked for, and not yet carried out.
        "pending": (entry.request > checkpoint.request).then_some(&entry.asked),
        "lag": { "transactions": lag.transactions, "bytes": lag.bytes, "seconds": seconds },
        "delivered": checkpoint.delivered,
        "deliveredAt": checkpoint.delivered_ms,
        "caughtUpAt": checkpoint.caught_up_ms,
        "deadLetters": dead,
        // Of the process that works on it: null anywhere else.
        "process": known,
        "createdAt": entry.created_ms,
    }))
}

async fn found(context: &ChangefeedContext, app: &AppId, name: &Name) -> Result<Entry, ApiError> {
    let entry = context.feeds.registry.entry(app, name).await?;
    entry.map(|stored| stored.record).ok_or_else(|| no_feed(name))
}

async fn list(State(context): Context, Path(app): Path<String>, headers: HeaderMap) -> Result<Answer<Value>, ApiError> {
    let app = app_of(&context, &headers, &app)?;
    let mut feeds = Vec::new();
    for (_, name, entry) in context.feeds.registry.list(Some(&app)).await? {
        feeds.push(describe(&context, &app, &name, &entry).await?);
    }
    Ok(Answer(json!({ "feeds": feeds })))
}

async fn get_retention(
    State(context): Context,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Retention>, ApiError> {
    let app = app_of(&context, &headers, &app)?;
    Ok(Answer(context.feeds.registry.retention(&app).await?))
}

async fn put_retention(
    State(context): Context,
    Path(app): Path<String>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<Answer<Retention>, ApiError> {
    let app = app_of(&context, &headers, &app)?;
    let Json(retention) = Json::<Retention>::parse(&body)?;
    retention.check().map_err(refuse)?;
    context.feeds.registry.retain(&app, retention).await?;
    Ok(Answer(retention))
}

async fn get_feed(
    State(context): Context,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    let entry = found(&context, &app, &name).await?;
    Ok(Answer(describe(&context, &app, &name, &entry).await?))
}

async fn put_feed(
    State(context): Context,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<Response, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    let Json(spec) = Json::<FeedSpec>::parse(&body)?;
    let start = start(&context, &app, &spec).await?;
    match &spec.sink {
        SinkSpec::Webhook(webhook) => {
            let allowed = context.settings.allow_private_receivers;
            Poster::new(webhook, allowed, Arc::clone(&context.clock)).map_err(refuse)?;
        }
        SinkSpec::Kafka(_) if context.kafka.is_none() => return Err(refuse(NO_KAFKA)),
        SinkSpec::Kafka(_) => {}
    }
    let (entry, is_new) = context.feeds.registry.put(&app, &name, spec, &start).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(describe(&context, &app, &name, &entry).await?)).into_response())
}

/// Where a feed that is new starts.
async fn start(context: &ChangefeedContext, app: &AppId, spec: &FeedSpec) -> Result<Cursor, ApiError> {
    let allowed = context.catalogue.permissions_of_key(app, &spec.owner);
    let allowed =
        allowed.ok_or_else(|| refuse(format!("'owner' must be an API key of this app; '{}' is none", spec.owner)))?;
    let lens = Lens::compile(&spec.sources, allowed.read.clone(), spec.values).map_err(refuse)?;
    let opening = || ApiError::new(ErrorCode::Unavailable, "this app is still being opened; try again");
    let store = context.stores.store(app).ok_or_else(opening)?;
    match &spec.cursor {
        Some(cursor) => checked(context, app, cursor).await,
        None if spec.snapshot => Ok(everything(&store.snapshot(), &lens)),
        None => Ok(Cursor::after(store.applied())),
    }
}

/// A cursor that an administrator sent.
async fn checked(context: &ChangefeedContext, app: &AppId, text: &str) -> Result<Cursor, ApiError> {
    let cursor: Cursor = text.parse().map_err(|error: crate::CursorError| refuse(error.to_string()))?;
    let head = context.log.head(app).await.map_err(FeedError::Log)?;
    if cursor.position.lsn > head {
        return Err(FeedError::Ahead { after: cursor.position.lsn, head }.into());
    }
    Ok(cursor)
}

async fn delete_feed(
    State(context): Context,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    context.feeds.registry.delete(&app, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn pause(
    State(context): Context,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    let entry = context.feeds.registry.pause(&app, &name, "an administrator paused it").await?;
    Ok(Answer(describe(&context, &app, &name, &entry).await?))
}

async fn resume(
    State(context): Context,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    let entry = context.feeds.registry.resume(&app, &name).await?;
    Ok(Answer(describe(&context, &app, &name, &entry).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RewindRequest {
    cursor: String,
}

async fn rewind(
    State(context): Context,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    let Json(request) = Json::<RewindRequest>::parse(&body)?;
    let cursor = checked(&context, &app, &request.cursor).await?;
    let entry = context.feeds.registry.ask(&app, &name, Asked::Rewind(cursor.to_string())).await?;
    Ok(Answer(describe(&context, &app, &name, &entry).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotRequest {
    collections: Vec<CollectionName>,
}

async fn snapshot(
    State(context): Context,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    let Json(request) = Json::<SnapshotRequest>::parse(&body)?;
    if request.collections.is_empty() || request.collections.len() > crate::MAX_SOURCES {
        return Err(refuse(format!("'collections' must name 1 to {} collections", crate::MAX_SOURCES)));
    }
    let entry = context.feeds.registry.ask(&app, &name, Asked::Snapshot(request.collections)).await?;
    Ok(Answer(describe(&context, &app, &name, &entry).await?))
}

async fn deliveries(
    State(context): Context,
    Path((app, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    found(&context, &app, &name).await?;
    let deliveries = context.feeds.status(&app, &name).map(|status| status.deliveries()).unwrap_or_default();
    Ok(Answer(json!({ "deliveries": deliveries })))
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    after: Option<String>,
}

async fn dead_letters(
    State(context): Context,
    Path((app, name)): Path<(String, String)>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    found(&context, &app, &name).await?;
    let letters = context.feeds.registry.dead_letters(&app, &name, page.after.as_deref(), 100).await?;
    let next = (letters.len() == 100).then(|| letters.last().map(|letter| letter.id.clone())).flatten();
    Ok(Answer(json!({ "deadLetters": letters, "next": next })))
}

fn no_letter() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "this feed has no such dead letter")
}

async fn dead_letter(
    State(context): Context,
    Path((app, name, id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    let (letter, body) = context.feeds.registry.dead_letter(&app, &name, &id).await?.ok_or_else(no_letter)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Answer(json!({ "deadLetter": letter, "body": body })))
}

async fn discard(
    State(context): Context,
    Path((app, name, id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    context.feeds.registry.discard(&app, &name, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Delivers a dead letter once more, now, and forgets it when the receiver takes it.
async fn redeliver(
    State(context): Context,
    Path((app, name, id)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(&context, &headers, &app, &name)?;
    let entry = found(&context, &app, &name).await?;
    let SinkSpec::Webhook(spec) = &entry.spec.sink else { return Err(no_letter()) };
    let (letter, body) = context.feeds.registry.dead_letter(&app, &name, &id).await?.ok_or_else(no_letter)?;
    let allowed = context.settings.allow_private_receivers;
    let poster = Poster::new(spec, allowed, Arc::clone(&context.clock)).map_err(refuse)?;
    let content_type =
        if body.starts_with(b"[") { entry.spec.format.batch_content_type() } else { entry.spec.format.content_type() };
    let events = letter.events.join(",");
    let answer = poster.post(&events, content_type, letter.attempts.saturating_add(1), body).await;
    let why = match answer {
        webhook::Answer::Taken(_) => {
            context.feeds.registry.discard(&app, &name, &id).await?;
            return Ok(Answer(json!({ "delivered": letter.events })));
        }
        webhook::Answer::Refused(status) => format!("it answered {status}"),
        webhook::Answer::Failed { reason, .. } => reason,
    };
    Err(ApiError::new(ErrorCode::Conflict, format!("the receiver does not take it: {why}")))
}
