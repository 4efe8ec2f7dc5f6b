//! When scans are answered from columns, by columns that say something which no document does.

use std::sync::atomic::{AtomicUsize, Ordering};

use bigpeer_chassis::ApiError;
use bigpeer_dql::{ByColumns, Found, SelectPlan};
use bigpeer_tables::Snapshot;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::*;

/// Answers every question about groups with 42, about documents with the one of id 1.
#[derive(Default)]
struct Lying(AtomicUsize);

impl ColumnScans for Lying {
    fn find<'a>(&'a self, _: &'a Snapshot, plan: &'a SelectPlan) -> BoxFuture<'a, Result<Option<Found>, ApiError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let found = match plan.by_columns().unwrap().wanted {
            bigpeer_dql::ByColumnsWanted::Documents => {
                Found::Documents(vec![DocId::from_value(&Crdt::Int(1)).unwrap()])
            }
            bigpeer_dql::ByColumnsWanted::Groups { .. } | bigpeer_dql::ByColumnsWanted::Distinct => {
                Found::Groups(vec![vec![Some(Crdt::Int(42))]])
            }
        };
        async move { Ok(Some(found)) }.boxed()
    }

    fn documents<'a>(
        &'a self,
        _: &'a Snapshot,
        _: &'a CollectionName,
        _: ByColumns<'a>,
    ) -> BoxFuture<'a, Result<Option<Vec<DocId>>, ApiError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        async move { Ok(Some(vec![DocId::from_value(&Crdt::Int(1)).unwrap()])) }.boxed()
    }
}

async fn world_with(columns_from_rows: u64) -> (World, Arc<Lying>) {
    let settings = ApiSettings { columns_from_rows, ..short() };
    let (mut world, mut context) = world_at(settings, Arc::new(SystemClock)).await;
    let lying = Arc::new(Lying::default());
    context.columns = Some(Arc::clone(&lying) as _);
    world.router = finish_router(router(context), Arc::new(SystemClock), Arc::new(RandomIds));
    world
        .ok("INSERT INTO c DOCUMENTS ({'_id': 1, 'x': 1}), ({'_id': 2, 'x': 2}), ({'_id': 3, 'x': 2})", json!({}))
        .await;
    (world, lying)
}

#[tokio::test]
async fn large_scans_are_answered_from_columns() {
    let (world, lying) = world_with(0).await;
    for (statement, rows) in [
        ("SELECT COUNT(*) AS n FROM c", json!([{"n": 42}])),
        // HAVING, projections and order are the evaluator's.
        ("SELECT COUNT(*) * 2 AS n FROM c HAVING COUNT(*) > 40", json!([{"n": 84}])),
        ("SELECT COUNT(*) AS n FROM c HAVING COUNT(*) > 42", json!([])),
        // What columns found is looked at again.
        ("SELECT * FROM c WHERE x > 0", json!([{"_id": 1, "x": 1}])),
        ("SELECT * FROM c WHERE x > 1", json!([])),
    ] {
        assert_eq!(world.ok(statement, json!({})).await["items"], rows, "{statement}");
    }
    assert_eq!(lying.0.load(Ordering::Relaxed), 5);
    for statement in ["SELECT COUNT(*) AS n FROM c WHERE _id = 1", "SELECT c._id FROM c JOIN d ON c.x = d._id"] {
        world.ok(statement, json!({})).await;
    }
    assert_eq!(lying.0.load(Ordering::Relaxed), 5, "pinned ids and joins do not ask columns");
}

#[tokio::test]
async fn mutations_and_the_older_endpoints_find_their_documents_by_columns() {
    let (world, lying) = world_with(0).await;
    let changed = world.ok("UPDATE c SET y = 1 WHERE x > 0", json!({})).await;
    assert_eq!((&changed["mutatedDocumentIds"], lying.0.load(Ordering::Relaxed)), (&json!([1]), 1));
    let body = json!({"collection": "c", "query": "x > 0"}).to_string().into_bytes();
    let (_, _, found) = world.ask(&format!("/{}/api/v4/store/find", world.app), &world.key, None, body).await;
    assert_eq!((found["documents"].as_array().unwrap().len(), lying.0.load(Ordering::Relaxed)), (1, 2), "{found}");
    // Every document of the log's tail is known by its id: nobody is asked.
    let gone = world.ok("DELETE FROM c WHERE _id IN (1, 2)", json!({})).await;
    assert_eq!((&gone["mutatedDocumentIds"], lying.0.load(Ordering::Relaxed)), (&json!([1, 2]), 2));
}

#[tokio::test]
async fn small_collections_are_answered_from_documents() {
    let (world, lying) = world_with(1).await;
    assert_eq!(world.ok("SELECT COUNT(*) AS n FROM c", json!({})).await["items"], json!([{"n": 3}]));
    assert_eq!(lying.0.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_key_for_parts_of_a_collection_gets_no_groups_of_all_of_it() {
    let (world, lying) = world_with(0).await;
    let part =
        Access { queries_by_collection: [("c".to_owned(), vec!["x = 2".to_owned()])].into(), ..Access::default() };
    let key =
        world.new_key(&world.app, "part", Permissions { ql_version: 1, read: part, ..Permissions::default() }).await;
    let rows = world.run_as(&key, "SELECT COUNT(*) AS n FROM c", json!({})).await.1;
    assert_eq!((&rows["items"], lying.0.load(Ordering::Relaxed)), (&json!([{"n": 2}]), 0));
    // The first of all documents are not the first of this key's.
    let rows = world.run_as(&key, "SELECT _id FROM c ORDER BY x, _id LIMIT 1", json!({})).await.1;
    assert_eq!((&rows["items"], lying.0.load(Ordering::Relaxed)), (&json!([{"_id": 2}]), 0));
    // The document that columns found is not this key's.
    let rows = world.run_as(&key, "SELECT * FROM c WHERE x > 0", json!({})).await.1;
    assert_eq!((&rows["items"], lying.0.load(Ordering::Relaxed)), (&json!([]), 1));
}

#[tokio::test]
async fn a_transaction_sees_what_it_wrote_itself() {
    let (world, _) = world_with(0).await;
    let statements = json!([
        {"statement": "SELECT COUNT(*) AS n FROM c"},
        {"statement": "INSERT INTO c DOCUMENTS ({'_id': 4})"},
        {"statement": "SELECT COUNT(*) AS n FROM c"},
    ]);
    let body = json!({ "statements": statements }).to_string().into_bytes();
    let (_, _, answer) = world.ask(&format!("/{}/api/v1/transaction", world.app), &world.key, None, body).await;
    let counts = [&answer["results"][0]["items"][0]["n"], &answer["results"][2]["items"][0]["n"]];
    assert_eq!(counts, [&json!(42), &json!(4)], "{answer}");
}
