//! An app with its truth in memory, a key for it, and the routes to ask it by.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use bigpeer_chassis::{ApiError, ApiKeySpec, Catalogue, Permissions, SystemCollections, finish_router};
use bigpeer_crdt::{DocId, Document, Editor, Object, ObjectMode, TransactionBuilder, Value as DocValue};
use bigpeer_log::{AppendEntry, AppendOutcome, MemoryLog, TransactionLog};
use bigpeer_sql::{Question, SqlContext, SqlSettings, router};
use bigpeer_tables::{DocumentStore, Stores, TablesSettings};
use bigpeer_types::{AppId, Clock, CollectionName, Hlc, HlcClock, Lsn, ManualClock, SeededIds, SiteId};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tower::ServiceExt;

pub(crate) struct World {
    pub(crate) app: AppId,
    pub(crate) key: String,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) context: SqlContext,
    pub(crate) store: Arc<DocumentStore>,
    stores: Arc<Apps>,
    pub(crate) log: Arc<dyn TransactionLog>,
    router: Router,
    clock: HlcClock,
    seq: u64,
    documents: BTreeMap<(CollectionName, DocId), Document>,
}

#[derive(Default)]
pub(crate) struct Apps(pub(crate) std::sync::Mutex<BTreeMap<AppId, Arc<DocumentStore>>>);

impl Stores for Apps {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        self.0.lock().unwrap().get(app).cloned()
    }
}

pub(crate) fn collection(name: &str) -> CollectionName {
    CollectionName::new(name).unwrap()
}

/// Small files and row groups, so that few documents make many of them.
pub(crate) fn small_tables() -> TablesSettings {
    TablesSettings {
        segment_bytes: 4_000,
        row_group_bytes: 1_000,
        row_group_rows: 16,
        clock: Arc::new(ManualClock::new(1_700_000_000_000)),
        ids: Arc::new(SeededIds::new(7)),
        ..TablesSettings::default()
    }
}

pub(crate) fn small_sql() -> SqlSettings {
    SqlSettings { max_concurrent: 2, parallelism: 2.try_into().unwrap(), ..SqlSettings::default() }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Arc::new(InMemory::new()), small_tables(), small_sql()).await
    }

    pub(crate) async fn with(objects: Arc<dyn ObjectStore>, tables: TablesSettings, sql: SqlSettings) -> Self {
        let log: Arc<dyn TransactionLog> = Arc::new(MemoryLog::new());
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_700_000_000_000));
        let catalogue =
            Catalogue::open(Arc::clone(&log), Arc::clone(&clock), Arc::new(SeededIds::new(1))).await.unwrap();
        let stores = Arc::new(Apps::default());
        let context =
            SqlContext::new(Arc::clone(&stores) as _, Arc::clone(&catalogue), sql, Handle::current()).unwrap();
        let (app, key) = add_app(&catalogue, "main").await;
        let store = DocumentStore::open(app.clone(), objects, Arc::clone(&log), tables).await.unwrap();
        stores.0.lock().unwrap().insert(app.clone(), Arc::clone(&store));
        let router = finish_router(router(context.clone()), Arc::clone(&clock), Arc::new(SeededIds::new(2)));
        let clock = HlcClock::new(SiteId::new(1), Hlc::ZERO, clock);
        let documents = BTreeMap::new();
        Self { app, key, catalogue, context, store, stores, log, router, clock, seq: 0, documents }
    }

    /// Lets the routes answer for system collections, too.
    pub(crate) fn serve_system(&mut self, system: SystemCollections) {
        self.context = self.context.clone().with_system(system);
        let (clock, ids) = (Arc::new(ManualClock::new(1_700_000_000_000)), Arc::new(SeededIds::new(2)));
        self.router = finish_router(router(self.context.clone()), clock, ids);
    }

    /// A second app in the same process, with nothing in it but `collections` of one document each.
    pub(crate) async fn another_app(&self, collections: &[&str]) -> (AppId, String) {
        let (app, key) = add_app(&self.catalogue, "other").await;
        let objects = Arc::new(InMemory::new());
        let store = DocumentStore::open(app.clone(), objects, Arc::clone(&self.log), small_tables()).await.unwrap();
        let mut builder = TransactionBuilder::new();
        let mut clock = HlcClock::new(SiteId::new(9), Hlc::ZERO, Arc::new(ManualClock::new(1)));
        for name in collections {
            let mut editor = Editor::new(&Document::new(), &mut clock);
            editor.insert(&Object::from_iter([("secret", DocValue::Int(1))]), ObjectMode::Map).unwrap();
            builder.change(
                &collection(name),
                &DocId::from_value(&DocValue::Int(1)).unwrap(),
                &editor.finish().unwrap(),
            );
        }
        let lsn = append(&self.log, &app, SiteId::new(9), 1, builder).await;
        store.wait_for(lsn).await.unwrap();
        self.stores.0.lock().unwrap().insert(app.clone(), store);
        (app, key)
    }

    /// One transaction: documents put (`Some`, JSON objects without `_id`) and deleted (`None`).
    pub(crate) async fn write(&mut self, changes: &[(&str, Value, Option<Value>)]) -> Lsn {
        let edits = changes.iter().map(|(name, id, fields)| {
            let id = DocId::from_value(&DocValue::from_json(id.clone()).unwrap()).unwrap();
            let edit = move |editor: &mut Editor<'_>| {
                editor.delete();
                if let Some(fields) = fields {
                    let fields = DocValue::from_json(fields.clone()).unwrap();
                    editor.insert(fields.as_object().unwrap(), ObjectMode::Map).unwrap();
                }
            };
            (*name, id, edit)
        });
        self.commit(edits).await
    }

    /// One transaction of edits of documents of one collection.
    pub(crate) async fn edit(
        &mut self,
        name: &str,
        edits: impl Iterator<Item = (DocId, impl FnOnce(&mut Editor<'_>))>,
    ) -> Lsn {
        self.commit(edits.map(|(id, edit)| (name, id, edit))).await
    }

    /// Every document that was ever written, deleted ones included.
    pub(crate) fn documents(&self) -> &BTreeMap<(CollectionName, DocId), Document> {
        &self.documents
    }

    async fn commit<'a>(&mut self, edits: impl Iterator<Item = (&'a str, DocId, impl FnOnce(&mut Editor<'_>))>) -> Lsn {
        let mut deltas: BTreeMap<(CollectionName, DocId), Document> = BTreeMap::new();
        for (name, id, edit) in edits {
            let key = (collection(name), id);
            let current = self.documents.entry(key.clone()).or_default();
            let mut editor = Editor::new(current, &mut self.clock);
            edit(&mut editor);
            let Some(delta) = editor.finish() else { continue };
            current.join(&delta);
            deltas.entry(key).or_default().join(&delta);
        }
        if deltas.is_empty() {
            return self.store.applied();
        }
        let mut builder = TransactionBuilder::new();
        deltas.iter().for_each(|((collection, id), delta)| builder.change(collection, id, delta));
        self.seq += 1;
        let lsn = append(&self.log, &self.app, SiteId::new(1), self.seq, builder).await;
        self.store.wait_for(lsn).await.unwrap();
        lsn
    }

    pub(crate) async fn put(&mut self, name: &str, id: impl Into<Value>, fields: Value) -> Lsn {
        self.write(&[(name, id.into(), Some(fields))]).await
    }

    pub(crate) async fn flush(&self) {
        self.store.writer().await.unwrap().flush().await.unwrap();
    }

    pub(crate) fn request(&self, body: &Value) -> Request<Body> {
        let path = format!("/{}/sql", self.app);
        let request = Request::post(path).header("authorization", format!("Bearer {}", self.key));
        request.body(Body::from(body.to_string())).unwrap()
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn post(&self, body: Value) -> (StatusCode, HeaderMap, Vec<u8>) {
        let (parts, body) = self.send(self.request(&body)).await.into_parts();
        (parts.status, parts.headers, to_bytes(body, usize::MAX).await.unwrap().to_vec())
    }

    /// The rows of `query`.
    pub(crate) async fn rows(&self, query: &str) -> Value {
        self.rows_with(query, json!(null)).await
    }

    pub(crate) async fn rows_with(&self, query: &str, params: Value) -> Value {
        let (status, _, body) = self.post(json!({"query": query, "params": params})).await;
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, StatusCode::OK, "{query}: {text}");
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{query}: {error}: {text}"))
    }

    /// The rows of a question that did not come over HTTP.
    pub(crate) async fn answer(&self, question: Question) -> Result<Value, ApiError> {
        let user = self.context.user(self.app.as_str(), &self.key)?;
        let mut answer = self.context.ask(&user, question).await?;
        let mut writer = arrow::json::ArrayWriter::new(Vec::new());
        let schema = bigpeer_sql::plain_schema(answer.schema());
        while let Some(batch) = answer.next().await? {
            writer.write(&bigpeer_sql::plain_batch(&batch, &schema).unwrap()).unwrap();
        }
        writer.finish().unwrap();
        Ok(serde_json::from_slice(&writer.into_inner()).unwrap_or_else(|_| json!([])))
    }

    /// The error of `query`: status and body.
    pub(crate) async fn error(&self, query: &str) -> (u16, Value) {
        let (status, _, body) = self.post(json!({"query": query})).await;
        let text = String::from_utf8_lossy(&body).into_owned();
        (status.as_u16(), serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{query}: {error}: {text}")))
    }
}

pub(crate) async fn append(
    log: &Arc<dyn TransactionLog>,
    app: &AppId,
    site: SiteId,
    seq: u64,
    builder: TransactionBuilder,
) -> Lsn {
    let payload = builder.finish().unwrap();
    let entry = AppendEntry { site, seq, writes: Vec::new(), unchanged: Vec::new(), payload };
    let outcome = log.append(app, vec![entry]).await.unwrap();
    let [AppendOutcome::Applied(lsn)] = outcome.as_slice() else { panic!("{outcome:?}") };
    *lsn
}

async fn add_app(catalogue: &Catalogue, name: &str) -> (AppId, String) {
    let (tenant, name) = ("tenant".parse().unwrap(), name.parse().unwrap());
    catalogue.create_tenant(&tenant).await.unwrap();
    let app = catalogue.create_app(&tenant, &name).await.unwrap().id;
    let key = add_key(catalogue, &app, "all", Permissions::all()).await;
    (app, key)
}

pub(crate) async fn add_key(catalogue: &Catalogue, app: &AppId, name: &str, permissions: Permissions) -> String {
    add_key_of(catalogue, app, name, ApiKeySpec { permissions, expires_at_ms: None, ..Default::default() }).await
}

pub(crate) async fn add_key_of(catalogue: &Catalogue, app: &AppId, name: &str, spec: ApiKeySpec) -> String {
    let mut changes = catalogue.changes();
    let (_, secret) = catalogue.put_api_key(app, &name.parse().unwrap(), spec).await.unwrap();
    let key = secret.unwrap().expose().to_owned();
    while catalogue.authenticate_credential(app, bigpeer_chassis::Door::Sql, &key).is_err() {
        changes.changed().await.unwrap();
    }
    key
}
