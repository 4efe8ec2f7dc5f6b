//! What names mean in a query: one app's collections at one snapshot, and nothing else. Tables are made when a query names
//! them, once per snapshot.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bigpeer_chassis::{Access, Rule, SystemCollection, SystemCollections};
use bigpeer_tables::Snapshot;
use bigpeer_types::{AppId, CollectionName, Lsn};
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::DataFusionError;
use datafusion::error::Result;
use tokio::sync::OnceCell;

use crate::files::Files;
use crate::table::CollectionTable;
use crate::{metrics, system};

/// The name of the only catalogue.
pub(crate) const CATALOGUE: &str = "bigpeer";

/// Snapshots whose tables are kept for the next query: one per app, this many apps.
const MAX_SNAPSHOTS: usize = 32;

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

    async fn table(&self, collection: &CollectionName) -> Result<Arc<CollectionTable>> {
        let cell = {
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(tables.entry(collection.clone()).or_default())
        };
        let table = cell.get_or_try_init(|| async {
            let table =
                self.snapshot.table(collection).await.map_err(|error| DataFusionError::External(error.into()))?;
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
        let tables = same.unwrap_or_else(|| {
            let files = Arc::clone(&self.files);
            Arc::new(SnapshotTables { snapshot, manifest, files, tables: Mutex::default() })
        });
        if newest.len() >= MAX_SNAPSHOTS {
            newest.remove(0);
        }
        newest.push(Arc::clone(&tables));
        tables
    }
}

/// The names of one query.
pub(crate) struct Names {
    app: AppId,
    schema: Arc<AppSchema>,
}

impl Names {
    /// The collections in `tables` that `access` opens, and those of `system` for who may read everything.
    pub(crate) fn new(app: AppId, tables: Arc<SnapshotTables>, access: Access, system: SystemCollections) -> Arc<Self> {
        Arc::new(Self { app, schema: Arc::new(AppSchema { tables, access, system }) })
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({})", self.app)
    }
}

#[derive(Debug)]
struct Catalogue(Arc<Names>);

impl CatalogProviderList for Names {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOGUE.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let names = Arc::new(Self { app: self.app.clone(), schema: Arc::clone(&self.schema) });
        (name == CATALOGUE).then(|| Arc::new(Catalogue(names)) as _)
    }
}

impl CatalogProvider for Catalogue {
    fn schema_names(&self) -> Vec<String> {
        vec![self.0.app.to_string()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        (name == self.0.app.as_str()).then(|| Arc::clone(&self.0.schema) as _)
    }
}

/// The app's schema: its collections as tables.
struct AppSchema {
    tables: Arc<SnapshotTables>,
    access: Access,
    system: SystemCollections,
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
        self.system.get(&collection)
    }

    /// The collection of this name, if it exists and the caller may know that it does.
    fn find(&self, name: &str) -> Option<CollectionName> {
        let collection = CollectionName::new(name).ok()?;
        let allowed = self.access.on(&collection) != Rule::Nothing;
        (allowed && self.tables.snapshot.collections().contains(&collection)).then_some(collection)
    }
}

#[async_trait]
impl SchemaProvider for AppSchema {
    fn table_names(&self) -> Vec<String> {
        let collections = self.tables.snapshot.collections();
        let readable = collections.iter().filter(|collection| self.access.on(collection) == Rule::Everything);
        let mut names: Vec<String> = readable.map(ToString::to_string).collect();
        if self.access.everything {
            names.extend(self.system.names().iter().map(ToString::to_string));
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
        let Some(collection) = self.find(name) else { return Ok(None) };
        if let Rule::AnyOf(_) = self.access.on(&collection) {
            return Err(DataFusionError::Plan(format!(
                "this key may read a part of '{collection}' only, and SQL reads whole collections; use DQL"
            )));
        }
        Ok(Some(self.tables.table(&collection).await? as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.find_system(name).is_some() || self.find(name).is_some()
    }
}
