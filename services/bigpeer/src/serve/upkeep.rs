//! The admin API of what is kept: collections' settings, purges, examinations, backups and clones.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json as Answer, Router};
use bigpeer_chassis::admin::{AdminRoute, AskedApp, Asks, Concerns, Page, admin_router};
use bigpeer_chassis::{
    Administrator, ApiError, App, Catalogue, CatalogueError, ErrorCode, Json, Name, NameError, Reach,
};
use bigpeer_compactor::{Compactor, CompactorError};
use bigpeer_crdt::{DocId, Value as DocValue};
use bigpeer_tables::manifest::CollectionSettings;
use bigpeer_tables::paths::PinName;
use bigpeer_tables::{DocumentStore, Examination, Stores, TablesError};
use bigpeer_types::{AppId, CollectionName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::stores::AppStores;

/// Most documents that one request purges.
const MAX_PURGED: usize = 10_000;
/// How long a restore waits for a transaction that was not applied yet.
const WAIT: Duration = Duration::from_secs(30);
const SECONDS_A_DAY: u64 = 86_400;
/// How long a backup is kept that does not say.
const DEFAULT_DAYS: u64 = 30;

const COLLECTIONS: &str = "/admin/v1/apps/{app}/collections";
const COLLECTION: &str = "/admin/v1/apps/{app}/collections/{collection}";
const PURGE: &str = "/admin/v1/apps/{app}/collections/{collection}/purge";
const EXAMINE: &str = "/admin/v1/apps/{app}/examine";
const BACKUPS: &str = "/admin/v1/apps/{app}/backups";
const BACKUP: &str = "/admin/v1/apps/{app}/backups/{name}";
const VERIFY: &str = "/admin/v1/apps/{app}/backups/{name}/verify";
const CLONE: &str = "/admin/v1/apps/{app}/clones/{name}";

/// What the routes need.
#[derive(Clone, Debug)]
pub(super) struct UpkeepContext {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) stores: Arc<AppStores>,
}

pub(super) fn router(context: UpkeepContext) -> Router {
    admin_router(&Arc::clone(&context.catalogue), routes(), context)
}

/// The routes, each with what it asks and what is said of it.
pub(super) fn routes() -> Vec<AdminRoute<UpkeepContext>> {
    let object = || Some(json!({ "type": "object" }));
    let closed = |properties: Value| json!({ "type": "object", "required": [], "additionalProperties": false, "properties": properties });
    let list = |field: &str| Some(Page::schema(field, &json!({ "type": "object" })));
    vec![
        AdminRoute::get(COLLECTIONS, Asks::App, collections)
            .says("The collections that have settings, by name")
            .queried(Page::parameters())
            .answers(200, list("collections")),
        AdminRoute::get(COLLECTION, Asks::App, get_collection)
            .says("The settings of a collection")
            .answers(200, object()),
        AdminRoute::put(COLLECTION, Asks::App, put_collection)
            .says("Says how a collection is published, and when its documents go")
            .takes(json!({ "type": "object" }))
            .answers(200, object()),
        AdminRoute::post(PURGE, Asks::App, purge)
            .says("Leaves nothing of documents")
            .takes(json!({ "type": "object", "required": ["ids"], "additionalProperties": false,
                "properties": { "ids": { "type": "array", "maxItems": MAX_PURGED, "items": {} } } }))
            .answers(200, object()),
        AdminRoute::post(EXAMINE, Asks::App, examine)
            .says("What is missing, extra or damaged of an app")
            .takes(closed(json!({ "thorough": { "type": "boolean", "default": false } })))
            .answers(200, object()),
        AdminRoute::get(BACKUPS, Asks::App, backups)
            .says("The backups of an app, by name")
            .queried(Page::parameters())
            .answers(200, list("backups")),
        AdminRoute::put(BACKUP, Asks::App, put_backup)
            .says("Keeps an app as it is now")
            .takes(closed(json!({ "keep_days": { "type": "integer", "minimum": 0, "default": DEFAULT_DAYS } })))
            .answers(201, object()),
        AdminRoute::delete(BACKUP, Asks::App, delete_backup).says("Deletes a backup"),
        AdminRoute::post(VERIFY, Asks::App, verify_backup).says("Reads all of a backup").answers(200, object()),
        // Another app of the tenant comes of it: more than who administers one app may make.
        AdminRoute::put(CLONE, Asks::App, put_clone)
            .says("Makes an app of the same tenant out of this one; not for API keys")
            .takes(closed(json!({ "transaction_id": { "type": ["integer", "null"], "minimum": 0 },
                "backup": { "type": ["string", "null"] } })))
            .answers(201, object()),
    ]
}

fn opening() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "this app is still being opened; try again")
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message.into())
}

fn tables(error: &TablesError) -> ApiError {
    match error {
        TablesError::Forgotten { .. } => ApiError::new(
            ErrorCode::NotFound,
            "the app's state of that time is no longer kept; ask for a later one, or restore a backup",
        ),
        TablesError::NoPin { .. } => ApiError::new(ErrorCode::NotFound, "there is no backup of this name"),
        TablesError::NotEmpty { .. } => ApiError::new(ErrorCode::Conflict, error.to_string()),
        TablesError::Objects { .. }
        | TablesError::Corrupt { .. }
        | TablesError::Log(_)
        | TablesError::BadTransaction { .. }
        | TablesError::Fenced { .. }
        | TablesError::Stopped
        | TablesError::Encoding(_) => ApiError::internal(error),
    }
}

fn compactor_error(error: &CompactorError) -> ApiError {
    match error {
        CompactorError::Tables(error) => tables(error),
        CompactorError::Removal(reason) | CompactorError::Readers(reason) => {
            ApiError::new(ErrorCode::Unavailable, reason.clone())
        }
        CompactorError::Log(_) => ApiError::internal(error),
    }
}

/// The app that an administrator asks about, opened.
struct Opened {
    app: AppId,
    store: Arc<DocumentStore>,
    compactor: Arc<Compactor>,
}

fn opened(context: &UpkeepContext, app: App) -> Result<Opened, ApiError> {
    let app = app.id;
    let store = context.stores.store(&app).ok_or_else(opening)?;
    let compactor = context.stores.compactor(&app).ok_or_else(opening)?;
    Ok(Opened { app, store, compactor })
}

fn name(text: &str) -> Result<Name, ApiError> {
    text.parse().map_err(|error: NameError| bad(error.to_string()))
}

fn collection_name(text: &str) -> Result<CollectionName, ApiError> {
    CollectionName::new(text).map_err(|error| bad(error.to_string()))
}

fn backup_name(text: &str) -> Result<PinName, ApiError> {
    let good = PinName::new(text).filter(|name| !is_clone(name));
    good.ok_or_else(|| bad("a backup's name has 1 to 80 of a-z, 0-9, '-' and '_', and does not begin with 'clone-'"))
}

/// Whether a pin keeps files for a clone rather than being a backup.
fn is_clone(name: &PinName) -> bool {
    name.as_str().starts_with("clone-")
}

async fn collections(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    page: Page,
) -> Result<Answer<Value>, ApiError> {
    let all = opened(&context, app)?.store.collection_settings();
    let page = page.of(all.iter(), |(name, _)| name.to_string());
    Ok(page.json("collections", |(name, settings)| json!({"name": name, "settings": settings})))
}

async fn get_collection(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    Path((_, collection)): Path<(String, String)>,
) -> Result<Answer<CollectionSettings>, ApiError> {
    let opened = opened(&context, app)?;
    let settings = opened.store.collection_settings();
    Ok(Answer(settings.get(&collection_name(&collection)?).copied().unwrap_or_default()))
}

async fn put_collection(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    Path((_, collection)): Path<(String, String)>,
    body: bytes::Bytes,
) -> Result<Answer<CollectionSettings>, ApiError> {
    let opened = opened(&context, app)?;
    let Json(settings) = Json::<CollectionSettings>::parse(&body)?;
    settings.check().map_err(bad)?;
    let collection = collection_name(&collection)?;
    opened.compactor.configure(&collection, settings).await.map_err(|error| compactor_error(&error))?;
    tracing::info!(app = %opened.app, %collection, ?settings, "a collection's settings are");
    Ok(Answer(settings))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PurgeRequest {
    ids: Vec<Value>,
}

async fn purge(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    Path((_, collection)): Path<(String, String)>,
    body: bytes::Bytes,
) -> Result<Answer<Value>, ApiError> {
    let opened = opened(&context, app)?;
    let collection = collection_name(&collection)?;
    let Json(request) = Json::<PurgeRequest>::parse(&body)?;
    if request.ids.len() > MAX_PURGED {
        return Err(bad(format!("{MAX_PURGED} documents can be purged at once; send more in several requests")));
    }
    let ids = request.ids.into_iter().map(|id| {
        let shown = id.to_string();
        let value = DocValue::from_json(id).map_err(|error| bad(format!("{shown} is not an id: {error}")))?;
        DocId::from_value(&value).map_err(|error| bad(format!("{shown} is not an id: {error}")))
    });
    let ids = ids.collect::<Result<Vec<DocId>, ApiError>>()?;
    let remover = context.stores.remover_of(&opened.app).ok_or_else(opening)?;
    let last = remover.purge(&collection, &ids).await.map_err(|error| compactor_error(&error))?;
    tracing::info!(app = %opened.app, %collection, documents = ids.len(), "documents were purged");
    Ok(Answer(json!({"transaction_id": last.map(|lsn| lsn.version)})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExamineRequest {
    #[serde(default)]
    thorough: bool,
}

async fn examine(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    body: bytes::Bytes,
) -> Result<Answer<Examination>, ApiError> {
    let opened = opened(&context, app)?;
    let Json(request) = Json::<ExamineRequest>::parse(&body)?;
    opened.store.examine(request.thorough).await.map(Answer).map_err(|error| tables(&error))
}

async fn backups(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    page: Page,
) -> Result<Answer<Value>, ApiError> {
    let pins = opened(&context, app)?.store.pins().await.map_err(|error| tables(&error))?;
    let mut backups: Vec<_> = pins.into_iter().filter(|pin| !is_clone(&pin.name)).collect();
    backups.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    let page = page.of(backups, |pin| pin.name.as_str().to_owned());
    Ok(page.json("backups", |pin| json!({"name": pin.name.as_str(), "kept_until": pin.until_ms})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    #[serde(default = "default_days")]
    keep_days: u64,
}

fn default_days() -> u64 {
    DEFAULT_DAYS
}

async fn put_backup(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    Path((_, backup)): Path<(String, String)>,
    body: bytes::Bytes,
) -> Result<(StatusCode, Answer<Value>), ApiError> {
    let opened = opened(&context, app)?;
    let backup = backup_name(&backup)?;
    let Json(request) = Json::<BackupRequest>::parse(&body)?;
    let pins = opened.store.pins().await.map_err(|error| tables(&error))?;
    if pins.iter().any(|pin| pin.name == backup) {
        return Err(ApiError::new(ErrorCode::Conflict, "there is a backup of this name; delete it, or take another"));
    }
    let keep = Duration::from_secs(request.keep_days.saturating_mul(SECONDS_A_DAY));
    let made = opened.compactor.back_up(backup, keep).await.map_err(|error| compactor_error(&error))?;
    let (pin, lsn) = made;
    tracing::info!(app = %opened.app, name = pin.name.as_str(), %lsn, "a backup was made");
    let answer = json!({"name": pin.name.as_str(), "transaction_id": lsn.version, "kept_until": pin.until_ms});
    Ok((StatusCode::CREATED, Answer(answer)))
}

async fn delete_backup(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    Path((_, backup)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let opened = opened(&context, app)?;
    opened.store.unpin(&backup_name(&backup)?).await.map_err(|error| tables(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn verify_backup(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    Path((_, backup)): Path<(String, String)>,
) -> Result<Answer<Examination>, ApiError> {
    let opened = opened(&context, app)?;
    opened.store.examine_pin(&backup_name(&backup)?).await.map(Answer).map_err(|error| tables(&error))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloneRequest {
    /// As of this transaction id; by default as it is now.
    #[serde(default)]
    transaction_id: Option<u64>,
    /// As of this backup.
    #[serde(default)]
    backup: Option<String>,
}

/// Makes another app of the same tenant out of this one.
async fn put_clone(
    State(context): State<UpkeepContext>,
    AskedApp(app): AskedApp,
    admin: Administrator,
    Path((_, clone)): Path<(String, String)>,
    body: bytes::Bytes,
) -> Result<Response, ApiError> {
    if matches!(admin.reach, Reach::App(_)) {
        let message = "a clone is another app of the tenant; it needs an admin token of the tenant";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let Opened { app, store, .. } = opened(&context, app)?;
    let clone = name(&clone)?;
    let Json(request) = Json::<CloneRequest>::parse(&body)?;
    let origin = context.catalogue.app(&app).ok_or_else(opening)?;
    if context.catalogue.app_named(&origin.tenant, &clone).is_some() {
        return Err(ApiError::new(ErrorCode::Conflict, "this tenant has an app of this name"));
    }
    let snapshot = match (&request.backup, request.transaction_id) {
        (Some(_), Some(_)) => return Err(bad("give either 'transaction_id' or 'backup'")),
        (Some(backup), None) => store.at_pin(&backup_name(backup)?).await,
        (None, Some(version)) => {
            let waited = tokio::time::timeout(WAIT, store.at_transaction(version)).await;
            waited.map_err(|_| ApiError::new(ErrorCode::NotFound, "there is no such transaction yet"))?
        }
        (None, None) => Ok(store.snapshot()),
    };
    let snapshot = snapshot.map_err(|error| tables(&error))?;
    // The files first: an app that can be found is whole.
    let target = context.catalogue.new_app_id()?;
    let cloned = store.clone_as(&target, &snapshot).await.map_err(|error| tables(&error))?;
    let made = context.catalogue.create_clone(target, &origin, &clone).await;
    // Nothing was changed, and nobody will ever find what was made: nothing of the origin is to be kept for it.
    let refused = matches!(
        made,
        Err(CatalogueError::NotFound { .. }
            | CatalogueError::Taken { .. }
            | CatalogueError::Busy
            | CatalogueError::Rejected { .. })
    );
    if let (true, Some(pin)) = (refused, &cloned.pin) {
        store.unpin(&pin.name).await.map_err(|error| tables(&error))?;
    }
    let made = made?;
    context.stores.open(&made.id).await.map_err(|error| ApiError::internal(&error))?;
    tracing::info!(app = %made.id, origin = %app, lsn = %cloned.lsn, "an app was cloned");
    let mut answer = bigpeer_control::app_json(&made);
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("origin".to_owned(), json!(app));
        answer.insert("transaction_id".to_owned(), json!(cloned.lsn.version));
    }
    let mut response = (StatusCode::CREATED, Answer(answer)).into_response();
    response.extensions_mut().insert(Concerns { tenant: None, app: Some(made.id) });
    Ok(response)
}
