//! The admin API of what is kept: collections' settings, purges, examinations, backups and clones.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use axum::{Json as Answer, Router};
use bigpeer_chassis::{ApiError, CatalogueError, ErrorCode, Json};
use bigpeer_compactor::{Compactor, CompactorError};
use bigpeer_crdt::{DocId, Value as DocValue};
use bigpeer_tables::manifest::CollectionSettings;
use bigpeer_tables::paths::PinName;
use bigpeer_tables::{DocumentStore, Examination, Stores, TablesError};
use bigpeer_types::{AppId, CollectionName};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{AdminContext, app, app_json, name};

/// Most documents that one request purges.
const MAX_PURGED: usize = 10_000;
/// How long a restore waits for a transaction that was not applied yet.
const WAIT: Duration = Duration::from_secs(30);
const SECONDS_A_DAY: u64 = 86_400;
/// How long a backup is kept that does not say.
const DEFAULT_DAYS: u64 = 30;

pub(super) fn router(context: AdminContext) -> Router {
    Router::new()
        .route("/admin/v1/apps/{app}/collections", get(collections))
        .route("/admin/v1/apps/{app}/collections/{collection}", put(put_collection).get(get_collection))
        .route("/admin/v1/apps/{app}/collections/{collection}/purge", post(purge))
        .route("/admin/v1/apps/{app}/examine", post(examine))
        .route("/admin/v1/apps/{app}/backups", get(backups))
        .route("/admin/v1/apps/{app}/backups/{name}", put(put_backup).delete(delete_backup))
        .route("/admin/v1/apps/{app}/backups/{name}/verify", post(verify_backup))
        .route("/admin/v1/apps/{app}/clones/{name}", put(put_clone))
        .with_state(context)
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

fn opened(context: &AdminContext, headers: &HeaderMap, id: &str) -> Result<Opened, ApiError> {
    context.catalogue.authenticate_admin(headers)?;
    let app = app(context, id)?;
    let store = context.stores.store(&app).ok_or_else(opening)?;
    let compactor = context.stores.compactor(&app).ok_or_else(opening)?;
    Ok(Opened { app, store, compactor })
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
    State(context): State<AdminContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let opened = opened(&context, &headers, &id)?;
    let all = opened.store.collection_settings();
    let all: Vec<Value> = all.iter().map(|(name, settings)| json!({"name": name, "settings": settings})).collect();
    Ok(Answer(json!({"collections": all})))
}

async fn get_collection(
    State(context): State<AdminContext>,
    Path((id, collection)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<CollectionSettings>, ApiError> {
    let opened = opened(&context, &headers, &id)?;
    let settings = opened.store.collection_settings();
    Ok(Answer(settings.get(&collection_name(&collection)?).copied().unwrap_or_default()))
}

async fn put_collection(
    State(context): State<AdminContext>,
    Path((id, collection)): Path<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<Answer<CollectionSettings>, ApiError> {
    let opened = opened(&context, &headers, &id)?;
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
    State(context): State<AdminContext>,
    Path((id, collection)): Path<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<Answer<Value>, ApiError> {
    let opened = opened(&context, &headers, &id)?;
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
    State(context): State<AdminContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<Answer<Examination>, ApiError> {
    let opened = opened(&context, &headers, &id)?;
    let Json(request) = Json::<ExamineRequest>::parse(&body)?;
    opened.store.examine(request.thorough).await.map(Answer).map_err(|error| tables(&error))
}

async fn backups(
    State(context): State<AdminContext>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Answer<Value>, ApiError> {
    let opened = opened(&context, &headers, &id)?;
    let pins = opened.store.pins().await.map_err(|error| tables(&error))?;
    let backups = pins.iter().filter(|pin| !is_clone(&pin.name));
    let backups: Vec<Value> =
        backups.map(|pin| json!({"name": pin.name.as_str(), "kept_until": pin.until_ms})).collect();
    Ok(Answer(json!({"backups": backups})))
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
    State(context): State<AdminContext>,
    Path((id, backup)): Path<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<(StatusCode, Answer<Value>), ApiError> {
    let opened = opened(&context, &headers, &id)?;
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
    State(context): State<AdminContext>,
    Path((id, backup)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let opened = opened(&context, &headers, &id)?;
    opened.store.unpin(&backup_name(&backup)?).await.map_err(|error| tables(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn verify_backup(
    State(context): State<AdminContext>,
    Path((id, backup)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Answer<Examination>, ApiError> {
    let opened = opened(&context, &headers, &id)?;
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
    State(context): State<AdminContext>,
    Path((id, clone)): Path<(String, String)>,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> Result<(StatusCode, Answer<Value>), ApiError> {
    let Opened { app, store, .. } = opened(&context, &headers, &id)?;
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
    if let (Err(CatalogueError::Busy | CatalogueError::Rejected { .. }), Some(pin)) = (&made, &cloned.pin) {
        store.unpin(&pin.name).await.map_err(|error| tables(&error))?;
    }
    let made = made?;
    context.stores.open(&made.id).await.map_err(|error| ApiError::internal(&error))?;
    tracing::info!(app = %made.id, origin = %app, lsn = %cloned.lsn, "an app was cloned");
    let mut answer = app_json(&made);
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("origin".to_owned(), json!(app));
        answer.insert("transaction_id".to_owned(), json!(cloned.lsn.version));
    }
    Ok((StatusCode::CREATED, Answer(answer)))
}
