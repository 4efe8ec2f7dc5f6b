//! The admin API of feeds, for whoever has an admin token. `PUT` is idempotent; secrets are never answered.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json as Answer, Router};
use bigpeer_chassis::admin::{AdminRoute, AskedApp, Asks, Page, Query, admin_router};
use bigpeer_chassis::{ApiError, App, Door, ErrorCode, Json, Name};
use bigpeer_feed_spec::{FeedSpec, SinkSpec};
use bigpeer_types::{AppId, CollectionName};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ChangefeedContext;
use crate::cursor::Cursor;
use crate::error::FeedError;
use crate::lens::Lens;
use crate::owner::NO_KAFKA;
use crate::reader::{MAX_NAMED_BYTES, everything};
use crate::registry::{Asked, Entry, Retention};
use crate::webhook::{self, Poster};

/// About how many deliveries an answer has.
const PAGE: usize = 100;

type Context = State<Arc<ChangefeedContext>>;

const FEEDS: &str = "/admin/v1/apps/{app}/feeds";
const RETENTION: &str = "/admin/v1/apps/{app}/feed-retention";
const FEED: &str = "/admin/v1/apps/{app}/feeds/{name}";
const PAUSE: &str = "/admin/v1/apps/{app}/feeds/{name}/pause";
const RESUME: &str = "/admin/v1/apps/{app}/feeds/{name}/resume";
const REWIND: &str = "/admin/v1/apps/{app}/feeds/{name}/rewind";
const SNAPSHOT: &str = "/admin/v1/apps/{app}/feeds/{name}/snapshot";
const DELIVERIES: &str = "/admin/v1/apps/{app}/feeds/{name}/deliveries";
const LETTERS: &str = "/admin/v1/apps/{app}/feeds/{name}/dead-letters";
const LETTER: &str = "/admin/v1/apps/{app}/feeds/{name}/dead-letters/{id}";
const DELIVER: &str = "/admin/v1/apps/{app}/feeds/{name}/dead-letters/{id}/deliver";

pub(crate) fn router(context: Arc<ChangefeedContext>) -> Router {
    admin_router(&Arc::clone(&context.catalogue), routes(), context)
}

/// The routes, each with what it asks and what is said of it.
#[must_use]
pub fn routes() -> Vec<AdminRoute<Arc<ChangefeedContext>>> {
    let object = || Some(json!({ "type": "object" }));
    let list = |field: &str| Some(Page::schema(field, &json!({ "type": "object" })));
    let retention = json!({ "type": "object", "required": ["secs", "bytes"], "additionalProperties": false, "properties": {
        "secs": { "type": "integer", "minimum": 0, "maximum": 90 * 24 * 3600 },
        "bytes": { "type": "integer", "minimum": 0, "maximum": 1_u64 << 40 } } });
    let text = |name: &str| {
        json!({ "type": "object", "required": [name], "additionalProperties": false,
        "properties": { name: { "type": "string" } } })
    };
    let collections = json!({ "type": "object", "required": ["collections"], "additionalProperties": false,
        "properties": { "collections": { "type": "array", "minItems": 1, "maxItems": crate::MAX_SOURCES, "items": { "type": "string" } } } });
    vec![
        AdminRoute::get(FEEDS, Asks::App, list_feeds)
            .says("The feeds of an app, by name")
            .queried(Page::parameters())
            .answers(200, list("feeds")),
        AdminRoute::get(RETENTION, Asks::App, get_retention)
            .says("How much of an app's past is kept for its feeds")
            .answers(200, Some(retention.clone())),
        AdminRoute::put(RETENTION, Asks::App, put_retention)
            .says("Says how much of an app's past is kept for its feeds")
            .takes(retention.clone())
            .answers(200, Some(retention)),
        AdminRoute::get(FEED, Asks::App, get_feed).says("A feed, and how far it is").answers(200, object()),
        AdminRoute::put(FEED, Asks::App, put_feed)
            .says("Makes a feed, or changes one without moving it")
            .takes(feed_schema())
            .answers(200, object())
            .answers(201, object()),
        AdminRoute::delete(FEED, Asks::App, delete_feed).says("Deletes a feed, and what it has given up"),
        AdminRoute::post(PAUSE, Asks::App, pause).says("Lets a feed stand still").answers(200, object()),
        AdminRoute::post(RESUME, Asks::App, resume).says("Lets a feed go on").answers(200, object()),
        AdminRoute::post(REWIND, Asks::App, rewind)
            .says("Puts a feed to a cursor")
            .takes(text("cursor"))
            .answers(200, object()),
        AdminRoute::post(SNAPSHOT, Asks::App, snapshot)
            .says("Sends all documents of collections once more")
            .takes(collections)
            .answers(200, object()),
        AdminRoute::get(DELIVERIES, Asks::App, deliveries)
            .says("What was delivered of late, the newest first")
            .queried(vec![(
                "before",
                json!({ "type": "integer", "minimum": 0, "description": "The `next` of the page before." }),
            )])
            .answers(200, object()),
        AdminRoute::get(LETTERS, Asks::App, dead_letters)
            .says("What was given up, by id")
            .queried(Page::parameters())
            .answers(200, list("deadLetters")),
        AdminRoute::get(LETTER, Asks::App, dead_letter).says("What was given up, and why").answers(200, object()),
        AdminRoute::delete(LETTER, Asks::App, discard).says("Forgets what was given up"),
        AdminRoute::post(DELIVER, Asks::App, redeliver)
            .says("Delivers once more what was given up, now")
            .answers(200, object()),
    ]
}

/// The schema of a feed: what holds for all of them. What goes for a kind of receiver is in docs/changes.md.
fn feed_schema() -> Value {
    let name = json!({ "type": "string", "pattern": "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,62}$" });
    let sink = json!({ "type": "object", "required": ["type"], "properties": {
        "type": { "type": "string", "enum": ["webhook", "kafka"] } } });
    json!({
        "type": "object", "required": ["owner", "sink"], "additionalProperties": false,
        "properties": {
            "owner": name,
            "sources": { "type": "array", "items": { "type": "object" } },
            "format": { "type": "string" },
            "values": { "type": "string" },
            "snapshot": { "type": "boolean" },
            "cursor": { "type": ["string", "null"] },
            "sink": sink,
        }
    })
}

fn refuse(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

fn no_feed(name: &Name) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("this app has no feed '{name}'"))
}

/// The app and the feed that an administrator names.
fn names(app: App, name: &str) -> Result<(AppId, Name), ApiError> {
    let name = name.parse().map_err(|error: bigpeer_chassis::NameError| refuse(error.to_string()))?;
    Ok((app.id, name))
}

/// A feed as it is answered.
async fn describe(context: &ChangefeedContext, app: &AppId, name: &Name, entry: &Entry) -> Result<Value, ApiError> {
    let feeds = &context.feeds;
    let checkpoint = feeds.registry.checkpoint(app, name).await?.map(|stored| stored.record).unwrap_or_default();
    let lag = feeds.lag(context, app, &checkpoint).await?;
    let known = feeds.status(app, name).map(|status| status.now());
    let dead = feeds.registry.count_dead_letters(app, name).await?;
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

async fn list_feeds(
    State(context): Context,
    AskedApp(App { id: app, .. }): AskedApp,
    page: Page,
) -> Result<Answer<Value>, ApiError> {
    let page = page.of(context.feeds.registry.list(Some(&app)).await?, |(_, name, _)| name.to_string());
    let mut feeds = Vec::with_capacity(page.entries.len());
    for (_, name, entry) in &page.entries {
        feeds.push(describe(&context, &app, name, entry).await?);
    }
    Ok(Answer(json!({ "feeds": feeds, "next": page.next })))
}

async fn get_retention(
    State(context): Context,
    AskedApp(App { id: app, .. }): AskedApp,
) -> Result<Answer<Retention>, ApiError> {
    Ok(Answer(context.feeds.registry.retention(&app).await?))
}

async fn put_retention(
    State(context): Context,
    AskedApp(App { id: app, .. }): AskedApp,
    body: bytes::Bytes,
) -> Result<Answer<Retention>, ApiError> {
    let Json(retention) = Json::<Retention>::parse(&body)?;
    retention.check().map_err(refuse)?;
    context.feeds.registry.retain(&app, retention).await?;
    Ok(Answer(retention))
}

async fn get_feed(
    State(context): Context,
    AskedApp(app): AskedApp,
    Path((_, name)): Path<(String, String)>,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(app, &name)?;
    let entry = found(&context, &app, &name).await?;
    Ok(Answer(describe(&context, &app, &name, &entry).await?))
}

async fn put_feed(
    State(context): Context,
    AskedApp(app): AskedApp,
    Path((_, name)): Path<(String, String)>,
    body: bytes::Bytes,
) -> Result<Response, ApiError> {
    let (app, name) = names(app, &name)?;
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
    let allowed = context.catalogue.permissions_of_key(app, &spec.owner, Door::Changes);
    let allowed = allowed.ok_or_else(|| {
        refuse(format!("'owner' must be an API key of this app that opens 'changes'; '{}' is none", spec.owner))
    })?;
    let lens = Lens::compile(&spec.sources, allowed.read.clone(), spec.values).map_err(refuse)?;
    if let Some(hidden) = lens.collections().into_iter().flatten().find(|collection| !lens.sees(collection)) {
        return Err(refuse(format!("the API key '{}' may not read the collection '{hidden}'", spec.owner)));
    }
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
    AskedApp(app): AskedApp,
    Path((_, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (app, name) = names(app, &name)?;
    context.feeds.registry.delete(&app, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn pause(
    State(context): Context,
    AskedApp(app): AskedApp,
    Path((_, name)): Path<(String, String)>,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(app, &name)?;
    let entry = context.feeds.registry.pause(&app, &name, "an administrator paused it").await?;
    Ok(Answer(describe(&context, &app, &name, &entry).await?))
}

async fn resume(
    State(context): Context,
    AskedApp(app): AskedApp,
    Path((_, name)): Path<(String, String)>,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(app, &name)?;
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
    AskedApp(app): AskedApp,
    Path((_, name)): Path<(String, String)>,
    body: bytes::Bytes,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(app, &name)?;
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
    AskedApp(app): AskedApp,
    Path((_, name)): Path<(String, String)>,
    body: bytes::Bytes,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(app, &name)?;
    let Json(request) = Json::<SnapshotRequest>::parse(&body)?;
    if request.collections.is_empty() || request.collections.len() > crate::MAX_SOURCES {
        return Err(refuse(format!("'collections' must name 1 to {} collections", crate::MAX_SOURCES)));
    }
    let bytes: usize = request.collections.iter().map(|name| name.as_str().len()).sum();
    if bytes > MAX_NAMED_BYTES {
        let message =
            format!("'collections' has {bytes} bytes of names; {MAX_NAMED_BYTES} are allowed: ask for fewer at once");
        return Err(refuse(message));
    }
    let entry = context.feeds.registry.ask(&app, &name, Asked::Snapshot(request.collections)).await?;
    Ok(Answer(describe(&context, &app, &name, &entry).await?))
}

/// Which deliveries: those before a page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Before {
    #[serde(default)]
    before: Option<u64>,
}

async fn deliveries(
    State(context): Context,
    AskedApp(app): AskedApp,
    Path((_, name)): Path<(String, String)>,
    Query(page): Query<Before>,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(app, &name)?;
    found(&context, &app, &name).await?;
    let found = context.feeds.registry.deliveries(&app, &name, page.before, PAGE).await?;
    Ok(Answer(json!({ "deliveries": found.deliveries, "omitted": found.omitted, "next": found.next })))
}

async fn dead_letters(
    State(context): Context,
    AskedApp(app): AskedApp,
    Path((_, name)): Path<(String, String)>,
    page: Page,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(app, &name)?;
    found(&context, &app, &name).await?;
    let letters = context.feeds.registry.dead_letters(&app, &name, page.after.as_deref(), page.limit).await?;
    let next = (letters.len() == page.limit).then(|| letters.last().map(|letter| letter.id.clone())).flatten();
    Ok(Answer(json!({ "deadLetters": letters, "next": next })))
}

fn no_letter() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "this feed has no such dead letter")
}

async fn dead_letter(
    State(context): Context,
    AskedApp(app): AskedApp,
    Path((_, name, id)): Path<(String, String, String)>,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(app, &name)?;
    let (letter, body) = context.feeds.registry.dead_letter(&app, &name, &id).await?.ok_or_else(no_letter)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Answer(json!({ "deadLetter": letter, "body": body })))
}

async fn discard(
    State(context): Context,
    AskedApp(app): AskedApp,
    Path((_, name, id)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let (app, name) = names(app, &name)?;
    if context.feeds.registry.discard(&app, &name, &id).await? { Ok(StatusCode::NO_CONTENT) } else { Err(no_letter()) }
}

/// Delivers a dead letter once more, now, and forgets it when the receiver takes it.
async fn redeliver(
    State(context): Context,
    AskedApp(app): AskedApp,
    Path((_, name, id)): Path<(String, String, String)>,
) -> Result<Answer<Value>, ApiError> {
    let (app, name) = names(app, &name)?;
    let entry = found(&context, &app, &name).await?;
    let SinkSpec::Webhook(spec) = &entry.spec.sink else { return Err(no_letter()) };
    let (letter, body) = context.feeds.registry.dead_letter(&app, &name, &id).await?.ok_or_else(no_letter)?;
    let allowed = context.settings.allow_private_receivers;
    let poster = Poster::new(spec, allowed, Arc::clone(&context.clock)).map_err(refuse)?;
    let content_type =
        if body.starts_with(b"[") { entry.spec.format.batch_content_type() } else { entry.spec.format.content_type() };
    let answer = poster.post(&letter.event_id, content_type, letter.attempts.saturating_add(1), body).await;
    let why = match answer {
        webhook::Answer::Taken(_) => {
            context.feeds.registry.discard(&app, &name, &id).await?;
            return Ok(Answer(json!({ "delivered": letter.count })));
        }
        webhook::Answer::Refused(status) => format!("it answered {status}"),
        webhook::Answer::Failed { reason, .. } => reason,
    };
    Err(ApiError::new(ErrorCode::Conflict, format!("the receiver does not take it: {why}")))
}
