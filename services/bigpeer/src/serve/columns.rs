//! Large scans of DQL from the tables of SQL: neither crate knows of the other.

use bigpeer_api::ColumnScans;
use bigpeer_chassis::ApiError;
use bigpeer_crdt::DocId;
use bigpeer_dql::{ByColumns, Found, SelectPlan};
use bigpeer_sql::DqlColumns;
use bigpeer_tables::Snapshot;
use bigpeer_types::CollectionName;
use futures::FutureExt;
use futures::future::BoxFuture;

/// The columns of SQL's tables.
#[derive(Debug)]
pub(super) struct SqlColumns(pub(super) DqlColumns);

impl ColumnScans for SqlColumns {
    fn find<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        plan: &'a SelectPlan,
    ) -> BoxFuture<'a, Result<Option<Found>, ApiError>> {
        self.0.find(snapshot, plan).boxed()
    }

    fn documents<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        collection: &'a CollectionName,
        wanted: ByColumns<'a>,
    ) -> BoxFuture<'a, Result<Option<Vec<DocId>>, ApiError>> {
        self.0.documents(snapshot, collection, wanted).boxed()
    }
}
