//! An app that is served: its routes, asked as a client would.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use bigpeer_changefeed::{ChangefeedContext, ChangefeedSettings, router};
use bigpeer_chassis::{ApiKeySpec, Catalogue, Name, Permissions, Shutdown, finish_router};
use bigpeer_crdt::{DocId, Document, Editor, ObjectMode, TransactionBuilder, Value};
use bigpeer_log::{AppendEntry, MemoryLog, MetaOp, TransactionLog};
use bigpeer_tables::{DocumentStore, Stores, TablesSettings};
use bigpeer_types::{AppId, Clock, Hlc, HlcClock, IdGenerator, RandomIds, SiteId, SystemClock};
use futures::StreamExt;
use object_store::memory::InMemory;
use serde_json::Value as Json;
use tower::ServiceExt;

use crate::world::{collection, object};

#[derive(Default)]
struct OneStore(Mutex<Option<Arc<DocumentStore>>>);

impl Stores for OneStore {
    fn store(&self, app: &AppId) -> Option<Arc<DocumentStore>> {
        self.0.lock().unwrap().clone().filter(|store| store.app() == app)
    }
}

pub(crate) struct Served {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) store: Arc<DocumentStore>,
    pub(crate) catalogue: Arc<Catalogue>,
    stores: Arc<OneStore>,
    pub(crate) context: ChangefeedContext,
    router: Router,
    pub(crate) app: AppId,
    pub(crate) key: String,
    admin: String,
    /// One for all writes: of two in the same millisecond the second is the later one.
    writer: HlcClock,
    seq: u64,
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) async fn serve(settings: ChangefeedSettings) -> Served {
    serve_at(Arc::new(SystemClock), settings).await
}

/// As [`serve`], by a clock of one's own.
pub(crate) async fn serve_at(clock: Arc<dyn Clock>, settings: ChangefeedSettings) -> Served {
    let log = Arc::new(MemoryLog::new());
    let catalogue = Catalogue::open(Arc::clone(&log) as _, Arc::clone(&clock), Arc::new(RandomIds)).await.unwrap();
    catalogue.create_tenant(&name("t")).await.unwrap();
    let app = catalogue.create_app(&name("t"), &name("a")).await.unwrap().id;
    let (objects, settings_) = (Arc::new(InMemory::new()), TablesSettings::default());
    let store = DocumentStore::open(app.clone(), objects, Arc::clone(&log) as _, settings_).await.unwrap();
    let stores = Arc::new(OneStore(Mutex::new(Some(Arc::clone(&store)))));
    let admin = catalogue.create_admin(&name("root")).await.unwrap().unwrap().expose().to_owned();
    let world: (Arc<dyn Clock>, Arc<dyn IdGenerator>) = (clock, Arc::new(RandomIds));
    let log_ = Arc::clone(&log) as _;
    let context = ChangefeedContext::new(
        Arc::clone(&catalogue),
        log_,
        Arc::clone(&stores) as _,
        world,
        settings,
        Shutdown::new(),
    );
    let router = finish_router(router(context.clone()), Arc::new(SystemClock), Arc::new(RandomIds));
    let writer = HlcClock::new(SiteId::new(1), Hlc::ZERO, Arc::new(SystemClock));
    let key = String::new();
    let mut served = Served { log, store, catalogue, stores, context, router, app, key, admin, writer, seq: 0 };
    served.key = served.key("all", Permissions::all()).await;
    served
}

impl Served {
    /// Another process over the same log.
    pub(crate) fn another(&self) -> ChangefeedContext {
        let world: (Arc<dyn Clock>, Arc<dyn IdGenerator>) = (Arc::new(SystemClock), Arc::new(RandomIds));
        let (stores, settings) = (Arc::clone(&self.stores) as _, self.context.settings.clone());
        let log = Arc::clone(&self.log) as _;
        ChangefeedContext::new(Arc::clone(&self.catalogue), log, stores, world, settings, Shutdown::new())
    }

    /// Is served by another process from now on.
    pub(crate) fn with(&mut self, context: ChangefeedContext) {
        self.router = finish_router(router(context.clone()), Arc::new(SystemClock), Arc::new(RandomIds));
        self.context = context;
    }

    /// Forgets a key of the metadata space, as if it had never been.
    pub(crate) async fn forget(&self, key: &str) {
        let key = key.to_owned().into();
        self.log.metadata().commit(vec![MetaOp::Delete { key }]).await.unwrap();
    }

    /// Keys of the metadata space.
    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let found = self.log.metadata().range(prefix.as_bytes(), None, usize::MAX).await.unwrap();
        found.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
    }

    /// Asks the admin API of feeds.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: Json) -> (u16, Json) {
        self.admin_at(method, &format!("feeds{path}"), body).await
    }

    /// Asks the admin API how much is kept for feeds.
    pub(crate) async fn retention(&self, method: &str, body: Json) -> (u16, Json) {
        self.admin_at(method, "feed-retention", body).await
    }

    async fn admin_at(&self, method: &str, path: &str, body: Json) -> (u16, Json) {
        let uri = format!("/admin/v1/apps/{}/{path}", self.app);
        let request =
            Request::builder().method(method).uri(uri).header("authorization", format!("Bearer {}", self.admin));
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 24).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    pub(crate) async fn key(&self, key: &str, permissions: Permissions) -> String {
        self.key_until(key, permissions, None).await
    }

    /// A key that ends by itself.
    pub(crate) async fn key_until(&self, key: &str, permissions: Permissions, expires_at_ms: Option<u64>) -> String {
        let spec = ApiKeySpec { permissions, expires_at_ms, ..Default::default() };
        let (_, secret) = self.catalogue.put_api_key(&self.app, &name(key), spec).await.unwrap();
        secret.map(|secret| secret.expose().to_owned()).unwrap_or_default()
    }

    pub(crate) async fn put(&mut self, of: &str, id: impl Into<Value>, fields: Json) {
        let nothing = Document::new();
        let mut editor = Editor::new(&nothing, &mut self.writer);
        editor.insert(&object(fields), ObjectMode::Map).unwrap();
        let mut builder = TransactionBuilder::new();
        let id = DocId::from_value(&id.into()).unwrap();
        builder.change(&collection(of), &id, &editor.finish().unwrap());
        self.seq += 1;
        let entry = AppendEntry {
            site: SiteId::new(1),
            seq: self.seq,
            writes: Vec::new(),
            unchanged: Vec::new(),
            payload: builder.finish().unwrap(),
        };
        self.log.append(&self.app, vec![entry]).await.unwrap();
        let head = self.log.head(&self.app).await.unwrap();
        self.store.wait_for(head).await.unwrap();
    }

    pub(crate) async fn ask(&self, key: &str, query: &str, headers: &[(&str, &str)]) -> (StatusCode, Body) {
        let mut request =
            Request::get(format!("/{}/changes?{query}", self.app)).header("authorization", format!("Bearer {key}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        (answer.status(), answer.into_body())
    }

    pub(crate) async fn open(&self, query: &str) -> Lines {
        let (status, body) = self.ask(&self.key, query, &[]).await;
        assert_eq!(status, StatusCode::OK, "{query}");
        Lines { body: body.into_data_stream(), text: String::new() }
    }

    pub(crate) async fn refusal(&self, key: &str, query: &str) -> (u16, String) {
        let (status, body) = self.ask(key, query, &[]).await;
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (status.as_u16(), String::from_utf8(bytes.to_vec()).unwrap())
    }
}

/// Lines of a stream.
pub(crate) struct Lines {
    pub(crate) body: BodyDataStream,
    pub(crate) text: String,
}

impl Lines {
    pub(crate) async fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = line.to_owned();
                self.text = rest.to_owned();
                return Some(line);
            }
            self.text.push_str(std::str::from_utf8(&self.body.next().await?.unwrap()).unwrap());
        }
    }

    pub(crate) async fn json(&mut self) -> Json {
        serde_json::from_str(&self.line().await.expect("the stream goes on")).unwrap()
    }
}
