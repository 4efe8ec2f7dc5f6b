//! What names mean in a query: one app's collections at one snapshot, and nothing else. Tables are made when a query names
//! them, once per snapshot. The schema `as_of_N` is the same app as it was after transaction N.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bigpeer_chassis::{Access, ApiError, SystemCollection, SystemCollections};
use bigpeer_tables::{DocumentStore, Snapshot, TableSnapshot};
use bigpeer_types::{CollectionName, Lsn};
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::error::Result;
use tokio::sync::OnceCell;

use crate::files::Files;
use crate::language::Language;
use crate::postgres::PgCatalog;
use crate::restricted::RestrictedTable;
use crate::rules::Allowed;
use crate::settings::Share;
use crate::table::CollectionTable;
use crate::{metrics, past, system};

/// Snapshots whose tables are kept for the next query: one per app, this many apps.
const MAX_SNAPSHOTS: usize = 32;

/// Most transactions that one query may look back to.
const MAX_PASTS: usize = 8;

/// The tables of one app at one snapshot.
pub(crate) struct SnapshotTables {
    snapshot: Snapshot,
    /// Which segments it reads: flushes and compactions change them at the same LSN.
    manifest: u64,
    files: Arc<Files>,
    tables: Mutex<HashMap<CollectionName, Arc<OnceCell<Arc<CollectionTable>>>>>,
}

impl SnapshotTables {
    /// The transaction up to which it is true.
    pub(crate) fn lsn(&self) -> Lsn {
        self.snapshot.lsn()
    }

    /// What is stored of a collection.
    pub(crate) async fn stored(&self, collection: &CollectionName) -> Result<TableSnapshot> {
        self.snapshot.table(collection).await.map_err(|error| DataFusionError::External(error.into()))
    }

    pub(crate) async fn table(&self, collection: &CollectionName) -> Result<Arc<CollectionTable>> {
        let cell = {
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tables.entry(collection.clone()).or_default())
        };
        let table = cell.get_or_try_init(|| async {
            let table = self.stored(collection).await?;
            CollectionTable::open(&self.files, &table).await.map(Arc::new)
        });
        table.await.map(Arc::clone)
    }
}

/// The newest snapshots that were asked about.
#[derive(Default)]
pub(crate) struct SnapshotCache {
    files: Arc<Files>,
    /// Most recently used last.
    newest: Mutex<Vec<Arc<SnapshotTables>>>,
}

impl SnapshotCache {
    /// The tables of `snapshot`, taken at `manifest`: those of an earlier query, if nothing has changed since.
    pub(crate) fn tables(&self, snapshot: Snapshot, manifest: u64) -> Arc<SnapshotTables> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = newest.iter().position(|tables| tables.snapshot.app() == snapshot.app());
        let known = known.map(|index| newest.remove(index));
        let same = known.filter(|tables| tables.lsn() == snapshot.lsn() && tables.manifest == manifest);
        metrics::snapshot_cache(same.is_some());
        let tables = same.unwrap_or_else(|| self.uncached(snapshot, manifest));
        if newest.len() >= MAX_SNAPSHOTS {
            newest.remove(0);
        }
        newest.push(Arc::clone(&tables));
        tables
    }

    /// The tables of `snapshot` for one query: what is kept here keeps files from being deleted.
    fn uncached(&self, snapshot: Snapshot, manifest: u64) -> Arc<SnapshotTables> {
        let files = Arc::clone(&self.files);
        Arc::new(SnapshotTables { snapshot, manifest, files, tables: Mutex::default() })
    }

    /// The tables as they were after transaction `version`.
    pub(crate) async fn past(
        &self,
        store: &DocumentStore,
        version: u64,
    ) -> std::result::Result<Arc<SnapshotTables>, ApiError> {
        Ok(self.uncached(past::snapshot(store, version).await?, 0))
    }
}

/// What a caller asks about, and what of it the caller may see.
#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) store: Arc<DocumentStore>,
    pub(crate) access: Access,
    pub(crate) system: SystemCollections,
    pub(crate) language: Language,
    /// What the query may use.
    pub(crate) share: Share,
}

/// The names of one query.
pub(crate) struct Names(Arc<Known>);

struct Known {
    scope: Scope,
    snapshots: Arc<SnapshotCache>,
    schema: Arc<AppSchema>,
    pg_catalog: Option<Arc<PgCatalog>>,
    pasts: Mutex<BTreeMap<u64, Arc<PastSchema>>>,
}

impl Names {
    /// The collections in `tables` that the caller may see, and system collections for who may read everything.
    pub(crate) fn new(scope: Scope, tables: Arc<SnapshotTables>, snapshots: Arc<SnapshotCache>) -> Arc<Self> {
        let (access, system) = (scope.access.clone(), Some(scope.system.clone()));
        let schema = Arc::new(AppSchema { tables, access, system });
        let pg_catalog = (scope.language == Language::Postgres)
            .then(|| Arc::new(PgCatalog::new(scope.store.app().clone(), Arc::clone(&schema))));
        Arc::new(Self(Arc::new(Known { scope, snapshots, schema, pg_catalog, pasts: Mutex::default() })))
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({})", self.0.scope.store.app())
    }
}

struct Catalogue(Arc<Known>);

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Catalogue({})", self.0.scope.store.app())
    }
}

impl CatalogProviderList for Names {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![self.0.scope.language.catalogue(self.0.scope.store.app()).to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let known = name == self.0.scope.language.catalogue(self.0.scope.store.app());
        known.then(|| Arc::new(Catalogue(Arc::clone(&self.0))) as _)
    }
}

impl CatalogProvider for Catalogue {
    fn schema_names(&self) -> Vec<String> {
        vec![self.0.scope.language.schema(self.0.scope.store.app()).to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if name == self.0.scope.language.schema(self.0.scope.store.app()) {
            return Some(Arc::clone(&self.0.schema) as _);
        }
        if name == "pg_catalog" {
            return self.0.pg_catalog.clone().map(|catalog| catalog as _);
        }
        let version = past::transaction_of(name)?;
        let mut pasts = self.0.pasts.lock().unwrap_or_else(PoisonError::into_inner);
        if pasts.len() >= MAX_PASTS && !pasts.contains_key(&version) {
            return None;
        }
        let past = pasts.entry(version).or_insert_with(|| {
            let (scope, snapshots) = (self.0.scope.clone(), Arc::clone(&self.0.snapshots));
            Arc::new(PastSchema { scope, snapshots, version, schema: OnceCell::new() })
        });
        Some(Arc::clone(past) as _)
    }
}

/// The app's schema: its collections as tables.
pub(crate) struct AppSchema {
    pub(crate) tables: Arc<SnapshotTables>,
    access: Access,
    /// None where there is only what was stored.
    system: Option<SystemCollections>,
}

impl fmt::Debug for AppSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppSchema({:?})", self.tables.lsn())
    }
}

impl AppSchema {
    /// The system collection of this name, for who may read everything.
    fn find_system(&self, name: &str) -> Option<Arc<dyn SystemCollection>> {
        let collection = CollectionName::new(name).ok().filter(|_| self.access.everything)?;
        self.system.as_ref()?.get(&collection)
    }

    /// The collection of this name and what the caller may see of it, if the caller may know that it exists.
    fn find(&self, name: &str) -> Option<(CollectionName, Allowed)> {
        let collection = CollectionName::new(name).ok()?;
        if !self.tables.snapshot.collections().contains(&collection) {
            return None;
        }
        match Allowed::new(&self.access, &collection) {
            Allowed::Nothing => None,
            allowed => Some((collection, allowed)),
        }
    }
}

#[async_trait]
impl SchemaProvider for AppSchema {
    fn table_names(&self) -> Vec<String> {
        let collections = self.tables.snapshot.collections();
        let visible = collections.iter().filter(|name| !matches!(Allowed::new(&self.access, name), Allowed::Nothing));
        let mut names: Vec<String> = visible.map(ToString::to_string).collect();
        if let Some(system) = self.system.as_ref().filter(|_| self.access.everything) {
            names.extend(system.names().iter().map(ToString::to_string));
            names.sort();
            names.dedup();
        }
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if let Some(system) = self.find_system(name) {
            let table = system::table(system.as_ref(), self.tables.snapshot.app())?;
            return Ok(Some(Arc::new(table)));
        }
        match self.find(name) {
            None => Ok(None),
            Some((collection, Allowed::Everything)) => Ok(Some(self.tables.table(&collection).await? as _)),
            Some((collection, allowed)) => {
                let table = self.tables.stored(&collection).await?;
                Ok(Some(Arc::new(RestrictedTable::new(collection, table, allowed))))
            }
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.find_system(name).is_some() || self.find(name).is_some()
    }
}

/// The app's schema as it was, made when a table of it is asked for.
struct PastSchema {
    scope: Scope,
    snapshots: Arc<SnapshotCache>,
    version: u64,
    schema: OnceCell<AppSchema>,
}

impl fmt::Debug for PastSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PastSchema({})", self.version)
    }
}

#[async_trait]
impl SchemaProvider for PastSchema {
    fn table_names(&self) -> Vec<String> {
        Vec::new()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let schema = self.schema.get_or_try_init(|| async {
            let tables = self.snapshots.past(&self.scope.store, self.version).await;
            let tables = tables.map_err(|error| DataFusionError::External(Box::new(error)))?;
            Ok::<_, DataFusionError>(AppSchema { tables, access: self.scope.access.clone(), system: None })
        });
        schema.await?.table(name).await
    }

    /// Not known before the past is read: [`Self::table`] tells.
    fn table_exist(&self, _: &str) -> bool {
        true
    }
}
